"""Passes every request on to the accounts service, with the key."""

import os
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Gateway(BaseHTTPRequestHandler):
    def do_GET(self):
        headers = {"Authorization": os.environ["API_KEY"]}
        request = urllib.request.Request(sys.argv[2], headers=headers)
        text = f"{os.environ['LOG_LEVEL']}: {urllib.request.urlopen(request).read().decode()}"
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Gateway).serve_forever()
