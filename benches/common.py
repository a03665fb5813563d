"""A throw-away project for a benchmark."""

import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import tempfile
import time

GABION = pathlib.Path(__file__).resolve().parent.parent / "target/release/gabion"


class Project:
    def __init__(self, manifest):
        self.dir = tempfile.mkdtemp(prefix="gabion-bench-")
        self.env = {"PATH": os.environ["PATH"], "HOME": self.dir, "GABION_HOME": f"{self.dir}/state"}
        pathlib.Path(self.dir, "gabion.yaml").write_text(manifest)

    def command(self, *args):
        return [str(GABION), *args]

    def run(self, *args):
        """Runs gabion and returns the seconds it took."""
        began = time.monotonic()
        result = subprocess.run(self.command(*args), cwd=self.dir, env=self.env, capture_output=True, text=True)
        took = time.monotonic() - began
        if result.returncode != 0:
            raise SystemExit(f"gabion {' '.join(args)}:\n{result.stdout}{result.stderr}")
        return took

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.run("destroy", "--yes")
        shutil.rmtree(self.dir)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def spread(seconds):
    """`median 12.3 ms (11.0 to 14.2)`"""
    low, middle, high = min(seconds), statistics.median(seconds), max(seconds)
    return f"median {middle * 1000:.1f} ms ({low * 1000:.1f} to {high * 1000:.1f})"


def claim(text, holds):
    print(("holds: " if holds else "DOES NOT HOLD: ") + text)
    return holds
