"""POST /orders/ITEM takes an order, GET /orders lists them, GET /healthz asks both servers."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from shop import Redis, sql


class Api(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/healthz":
            self.answer({"postgres": sql("select 1")[0][0], "redis": Redis()("PING")})
        else:
            rows = sql("select id, item, shipped from orders order by id")
            self.answer([{"id": int(i), "item": item, "shipped": s == "t"} for i, item, s in rows])

    def do_POST(self):
        item = self.path.rpartition("/")[2]
        order = sql("insert into orders (item) values (:'item') returning id", item=item)[0][0]
        Redis()("RPUSH", "orders", order)
        self.answer({"id": int(order)})

    def answer(self, value):
        body = json.dumps(value).encode() + b"\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Api).serve_forever()
