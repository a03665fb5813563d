"""A checkpoint of 10,000 small files against `cp -a --reflink=auto` of the same folder, in the same run."""

import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

from common import GABION, Project, claim, spread

FILES, FOLDERS, ROUNDS, FACTOR = 10_000, 100, 9, 1.5

MANIFEST = """version: 1
stack: bench
sandboxes:
  box:
    isolation: none
    services:
      idle: { cmd: sleep, args: [infinity] }
"""


def fill(workspace):
    for folder in range(FOLDERS):
        path = workspace / f"d{folder}"
        path.mkdir()
        for number in range(FILES // FOLDERS):
            (path / f"f{number}").write_bytes(b"x" * (500 + 97 * number))


def small():
    with Project(MANIFEST) as project:
        project.run("apply", "--yes")
        box = pathlib.Path(project.dir, "state/sandboxes/bench/box")
        fill(box / "workspace")
        copies, checkpoints, inside = [], [], []
        for _ in range(ROUNDS):
            # What one leaves to be written must not slow down the other.
            os.sync()
            began = time.monotonic()
            subprocess.run(["cp", "-a", "--reflink=auto", box / "workspace", box / "copy"], check=True)
            copies.append(time.monotonic() - began)
            shutil.rmtree(box / "copy")
            os.sync()
            checkpoints.append(project.run("checkpoint", "create", "box", "bench"))
            listed = subprocess.run([GABION, "checkpoint", "list", "box", "--json"], cwd=project.dir,
                                    env=project.env, capture_output=True, check=True)
            inside.append(json.loads(listed.stdout)["checkpoints"][0]["copy_duration_ms"] / 1000)
            project.run("checkpoint", "delete", "box", "bench")
    print(f"cp -a:              {spread(copies)}")
    print(f"gabion checkpoint:  {spread(checkpoints)}, of which processes stood still {spread(inside)}")
    factor = statistics.median(checkpoints) / statistics.median(copies)
    return claim(f"{FILES:,} files take {factor:.2f} times as long as cp -a; the limit is {FACTOR}", factor < FACTOR)


sys.exit(0 if small() else 1)
