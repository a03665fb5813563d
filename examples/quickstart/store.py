"""A key-value store over HTTP: GET and PUT /key."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

values = {}


class Store(BaseHTTPRequestHandler):
    def do_GET(self):
        value = values.get(self.path)
        self.answer(200 if value is not None else 404, value or b"")

    def do_PUT(self):
        values[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(204, b"")

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Store).serve_forever()
