"""Answers with the account of whoever has the key."""

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Accounts(BaseHTTPRequestHandler):
    def do_GET(self):
        known = self.headers.get("Authorization") == os.environ["API_KEY"]
        text = f"{os.environ['REGION']} account\n" if known else "nobody\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Accounts).serve_forever()
