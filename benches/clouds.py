"""A plan without changes over many sandboxes of a cloud that answers late.

`gabion serve` stands for the cloud: 500 sandboxes with 4 running services each, every answer after
50 ms. What a plan takes is counted in such latencies, what it asks is counted in requests; both have
limits. The server's own work, and that of the 500 supervisors behind it, is on the same machine and
is in the time.

Repeat it with:

    cargo build --release
    python3 benches/clouds.py
"""

import argparse
import collections
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from common import GABION, claim, free_ports, spread

TOKEN, LATENCY, TRIPS, ROUNDS = "msk_bench", 0.050, 25, 5

# For each platform: its URL below that of the server; the requests that a plan needs at least, of so many
# sandboxes; and what they are.
PLATFORMS = {
    "sprites": ("", lambda n: -(-n // 50) + n, "a page of 50 sprites each, the services of each"),
    "iris": ("", lambda n: 1 + 3 * n, "one list; a token, the store and the services of each"),
    "pocketenv": ("", lambda n: 1 + -(-n // 100) + 2 * n, "the account, a page of 100 each, the whole and the services of each"),
    "miosa": ("/api/v1", lambda n: -(-n // 100) + n, "a page of 100 each, the processes of each"),
}


def manifest(kind, url, sandboxes):
    lines = ["version: 1", f"stack: {kind}", "secrets: { token: { env: TOKEN } }"]
    lines += [f"platforms: {{ cloud: {{ kind: {kind}, url: '{url}', token: '${{secret.token}}' }} }}"]
    lines += ["defaults: { platform: cloud }", "sandboxes:"]
    for sandbox in range(sandboxes):
        lines += [f"  box{sandbox}:", "    services:"]
        lines += [f"      s{service}: {{ command: exec sleep 100000 }}" for service in range(4)]
    return "\n".join(lines) + "\n"


class Cloud:
    """`gabion serve` with a home of its own."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="gabion-bench-", dir="/var/tmp")
        self.port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = pathlib.Path(self.dir, "requests.jsonl")
        self.env = {"PATH": os.environ["PATH"], "HOME": self.dir, "GABION_HOME": f"{self.dir}/home", "TOKEN": TOKEN}
        self.server = None

    def serve(self, latency):
        """Starts the server again, with this latency in seconds."""
        self.end()
        self.server = subprocess.Popen(
            [GABION, "serve", "--listen", f"127.0.0.1:{self.port}", "--token", TOKEN, "--request-log", self.log]
            + ["--latency", f"{latency * 1000:.0f}ms"],
            env={**self.env, "GABION_HOME": f"{self.dir}/served"},
            stdout=subprocess.PIPE,
            text=True,
        )
        self.server.stdout.readline()

    def end(self):
        if self.server:
            self.server.terminate()
            self.server.wait()

    def run(self, *args):
        """Runs gabion and returns the seconds it took."""
        began = time.monotonic()
        result = subprocess.run([GABION, *args], cwd=self.dir, env=self.env, capture_output=True, text=True)
        took = time.monotonic() - began
        if result.returncode != 0:
            raise SystemExit(f"gabion {' '.join(args)}:\n{result.stdout[-3000:]}{result.stderr[-3000:]}")
        return took

    def asked(self):
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.serve(0)
            self.run("destroy", "--yes")
        finally:
            self.end()
        shutil.rmtree(self.dir)


def measure(kind, sandboxes):
    path, least, which = PLATFORMS[kind]
    with Cloud() as cloud:
        cloud.serve(0)
        pathlib.Path(cloud.dir, "gabion.yaml").write_text(manifest(kind, cloud.url + path, sandboxes))
        print(f"{kind}: apply of {sandboxes} sandboxes, {4 * sandboxes} services: {cloud.run('apply', '--yes'):.1f} s", flush=True)
        cloud.run("plan", "--detailed-exitcode")
        cloud.serve(LATENCY)
        cloud.run("plan", "--detailed-exitcode")
        before, took = len(cloud.asked()), []
        for _ in range(ROUNDS):
            took.append(cloud.run("plan", "--detailed-exitcode"))
        asked = cloud.asked()[before:]
        requests = len(asked) / ROUNDS
        print(f"{kind}: plan without changes: {spread(took)}, {requests:.0f} requests")
        for what, count in shapes(asked).most_common(6):
            print(f"    {count / ROUNDS:7.1f}  {what}")
    trips = statistics.median(took) / LATENCY
    holds = claim(f"{kind}: {trips:.1f} latencies; the limit is {TRIPS}", trips <= TRIPS)
    return holds & claim(f"{kind}: {requests:.0f} requests; the least is {least(sandboxes)} ({which})", requests <= least(sandboxes))


def shapes(asked):
    """How many requests of each kind: names are left out."""
    counts = collections.Counter()
    for each in asked:
        words = each["path"].split("?")[0].split("/")
        counts[each["method"] + " " + "/".join("*" if any(map(str.isdigit, word)) and word != "v1" else word for word in words)] += 1
    return counts


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sandboxes", type=int, default=500)
    parser.add_argument("platforms", nargs="*", default=list(PLATFORMS))
    args = parser.parse_args()
    holds = [measure(kind, args.sandboxes) for kind in args.platforms]
    return 0 if all(holds) else 1


sys.exit(main())
