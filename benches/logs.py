"""A service writes a million numbered lines: how fast they are taken, and how many are lost.

The peer is `cat` into a file, in the same run: the least that taking output can cost.
"""

import pathlib
import subprocess
import sys
import time

from common import Project, claim

LINES = 1_000_000

WRITER = f"seq 1 {LINES}"

MANIFEST = f"""version: 1
stack: logs
sandboxes:
  box:
    services:
      writer: {{ kind: task, command: "exec {WRITER}" }}
"""


def by_hand(folder):
    """Seconds that the writer and a reader need without anything between them."""
    began = time.monotonic()
    subprocess.run(f"{WRITER} | cat > {folder}/by-hand", shell=True, check=True)
    return time.monotonic() - began


def memory(pid):
    """The most that a process has ever had in memory, in MB."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def supervisor(project):
    for entry in pathlib.Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"supervise" in words and any(project.dir.encode() in word for word in words):
            return entry.name
    return None


def main():
    with Project(MANIFEST) as project:
        # The task has ended when this returns, and every line of it is in the log.
        took = project.run("apply", "--yes")
        own = by_hand(project.dir)
        began = time.monotonic()
        shown = subprocess.run(
            project.command("logs", "box/writer"), cwd=project.dir, env=project.env, capture_output=True, check=True
        ).stdout.split()
        reading = time.monotonic() - began
        began = time.monotonic()
        project.run("logs", "box/writer", "--tail", "10")
        tail = time.monotonic() - began
        pid = supervisor(project)
        resident = memory(pid) if pid else 0.0
    expected = [str(n).encode() for n in range(1, LINES + 1)]
    lost = len(set(expected) - set(shown))
    doubled = len(shown) - len(set(shown))
    print(f"by hand: {LINES / own:,.0f} lines/s; gabion apply: {LINES / took:,.0f} lines/s, with the start of all")
    print(f"all read back in {reading:.2f} s, the last ten in {tail * 1000:.0f} ms; at most {resident:.1f} MB")
    return 0 if claim(f"{lost} of {LINES:,} lines are lost, {doubled} doubled", shown == expected) else 1


sys.exit(main())
