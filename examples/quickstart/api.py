"""Greets whoever the store names, and counts."""

import os
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

store = sys.argv[2]


def get(key):
    return urllib.request.urlopen(f"{store}/{key}").read().decode()


def put(key, value):
    urllib.request.urlopen(urllib.request.Request(f"{store}/{key}", value.encode(), method="PUT"))


class Api(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path != "/healthz":
            put("visits", str(int(get("visits")) + 1))
            text = f"{os.environ['GREETING']}, {get('name')}! Visit {get('visits')}.\n"
        else:
            text = "ok\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Api).serve_forever()
