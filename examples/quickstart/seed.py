"""Puts the first values into the store."""

import sys
import urllib.request

for key, value in {"name": "world", "visits": "0"}.items():
    request = urllib.request.Request(f"{sys.argv[1]}/{key}", value.encode(), method="PUT")
    urllib.request.urlopen(request)
    print(f"{key} = {value}")
