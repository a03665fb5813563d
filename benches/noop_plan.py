"""A plan without changes, over many running services, against `terraform plan`."""

import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from common import Project, claim, spread

ROUNDS, FACTOR, GROWTH = 11, 20, 12


def manifest(services):
    lines = ["version: 1", "stack: many", "sandboxes:"]
    for sandbox in range(10):
        lines += [f"  box{sandbox}:", "    services:"]
        for service in range(services // 10):
            lines.append(f"      s{service}: {{ cmd: sleep, args: [infinity] }}")
    return "\n".join(lines) + "\n"


def settle(plan):
    """The apply before wrote thousands of files: what is measured is a plan, not their way to the disk."""
    os.sync()
    for _ in range(2):
        plan()


def gabion(services):
    with Project(manifest(services)) as project:
        print(f"gabion apply, {services} services: {project.run('apply', '--yes'):.1f} s", flush=True)
        settle(lambda: project.run("plan"))
        return [project.run("plan", "--detailed-exitcode") for _ in range(ROUNDS)]


def terraform(resources):
    folder = tempfile.mkdtemp(prefix="gabion-bench-")
    config = "".join(f'resource "terraform_data" "r{index}" {{ input = "{index}" }}\n' for index in range(resources))
    pathlib.Path(folder, "main.tf").write_text(config)

    def run(*args):
        began = time.monotonic()
        subprocess.run(["terraform", *args], cwd=folder, check=True, capture_output=True)
        return time.monotonic() - began

    run("init")
    run("apply", "-auto-approve")
    settle(lambda: run("plan"))
    times = [run("plan", "-detailed-exitcode") for _ in range(ROUNDS)]
    shutil.rmtree(folder)
    return times


def main():
    thousand = gabion(1_000)
    print(f"gabion plan, 1,000 services:      {spread(thousand)}")
    ten_thousand = gabion(10_000)
    print(f"gabion plan, 10,000 services:     {spread(ten_thousand)}")
    holds = True
    growth = statistics.median(ten_thousand) / statistics.median(thousand)
    holds &= claim(f"10,000 services take {growth:.1f} times as long as 1,000; the limit is {GROWTH}", growth < GROWTH)
    if shutil.which("terraform") is None:
        print("terraform is not installed: not compared")
        return 1
    peer = terraform(1_000)
    print(f"terraform plan, 1,000 resources:  {spread(peer)}")
    factor = statistics.median(peer) / statistics.median(thousand)
    holds &= claim(f"terraform takes {factor:.1f} times as long; the claim is {FACTOR}", factor > FACTOR)
    return 0 if holds else 1


sys.exit(main())
