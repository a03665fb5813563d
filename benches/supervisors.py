"""gabion and other supervisors, with the same services in the same run.

Repeat it with:

    cargo build --release
    apt-get install -y s6
    python3 -m venv /var/tmp/peers && /var/tmp/peers/bin/pip install supervisor
    npm install --prefix /var/tmp/peers pm2
    cargo install pitchfork-cli --no-default-features --root /var/tmp/peers
    PATH=$PATH:/var/tmp/peers/bin:/var/tmp/peers/node_modules/.bin python3 benches/supervisors.py

A supervisor that is not installed is left out, with a line that says so. The supervisors take turns, so
that what else the machine does hits all alike. What is measured, always from outside:

ready     from the command that starts the supervisor to the last of 100 services running a line of shell;
          where the command itself ends later (gabion apply, pm2, pitchfork), that is not waited for
respawn   from the SIGKILL of a service to the first thing its next process does (a pipe is written to)
stopped   from the command that ends it to the end of the last process, of services and supervisor
chain     10 servers, each started once the port of the one before accepts connections
RSS, PSS  of the supervisor's own processes, summed; PSS divides what processes share
idle CPU  of the same, in milliseconds a minute, beside 100 services that sleep
lines/s   a service writes a million numbered lines, of 8 bytes at most; until the last one is in the log,
          with the time of each line (but for supervisord, which does not note it)
of 100 B  the same with lines of 100 bytes, half as many: they have to fit into what is kept of a log
"""

import argparse
import json
import os
import pathlib
import platform
import select
import shutil
import signal
import statistics
import sys
import tempfile
import time

from common import claim, free_ports
from peers import ALL, Service

# As long as the services have to live at first, so that no supervisor takes them for broken.
SETTLED = 1.5
PATIENCE = 120


class Said:
    """A named pipe that services write their names to."""

    def __init__(self, folder):
        self.path = f"{folder}/said"
        os.mkfifo(self.path)
        # With a writing end of its own it never ends.
        self.pipe = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)
        self.rest = b""
        # What was said after a name.
        self.words = {}
        # The names, as they were said.
        self.order = []

    def wait(self, names):
        """Waits until all of these have been said, and returns whether they were."""
        missing = set(names)
        until = time.monotonic() + PATIENCE
        while missing:
            if not select.select([self.pipe], [], [], max(0, until - time.monotonic()))[0]:
                return False
            *lines, self.rest = (self.rest + os.read(self.pipe, 65536)).split(b"\n")
            for name, *words in (line.decode().split() for line in lines):
                self.words[name] = words
                self.order.append(name)
                missing.discard(name)
        return True

    def forget(self):
        while select.select([self.pipe], [], [], 0)[0]:
            os.read(self.pipe, 65536)


class Run:
    """One supervisor with its services, up to their end."""

    def __init__(self, driver, mark, services):
        # Not in /tmp: a sandbox has one of its own.
        self.folder = tempfile.mkdtemp(prefix="gabion-bench-", dir="/var/tmp")
        self.mark = f"GABION_BENCH={mark}".encode()
        self.said = Said(self.folder)
        self.driver = driver(self.folder, mark)
        self.services = services(self.said.path)
        self.driver.prepare(self.services)
        self.ready = None

    def __enter__(self):
        try:
            self.come_up()
        except BaseException:
            self.driver.stop()
            raise
        return self

    def come_up(self):
        began = time.monotonic()
        self.driver.start()
        last = self.services[-1:] if self.services[-1].needs else self.services
        if not self.said.wait(each.name for each in last):
            raise SystemExit(f"{self.driver.name}: the services do not come up, see {self.folder}")
        self.ready = time.monotonic() - began
        self.driver.settle()

    def __exit__(self, *_):
        own, services = self.processes()
        ends = [os.pidfd_open(pid) for pid in [*own, *services.values()]]
        began = time.monotonic()
        self.driver.stop()
        poll = select.poll()
        for end in ends:
            poll.register(end, select.POLLIN)
        left = set(ends)
        while left:
            for end, _ in poll.poll():
                poll.unregister(end)
                left.discard(end)
        self.stopped = time.monotonic() - began
        for end in [*ends, self.said.pipe]:
            os.close(end)
        shutil.rmtree(self.folder, ignore_errors=True)

    def processes(self):
        """The supervisor's own processes, and those of idle services by what they sleep."""
        own, services = [], {}
        for entry in pathlib.Path("/proc").iterdir():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                marked = self.mark in (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            pid = int(entry.name) if entry.name.isdigit() else None
            if words[0].endswith(b"sleep") and words[1] in self.numbers():
                services[words[1]] = pid
            elif marked and pid and b"-S" not in words:
                own.append(pid)
        return own, services

    def numbers(self):
        return {each.line.split()[-1].encode() for each in self.services}

    def respawn(self, most):
        """Kills one after the other; seconds until each is back."""
        _, pids = self.processes()
        took = []
        self.said.forget()
        for each in self.services[:most]:
            pid = pids[each.line.split()[-1].encode()]
            began = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            if not self.said.wait([each.name]):
                raise SystemExit(f"{self.driver.name}: a killed service does not come back")
            took.append(time.monotonic() - began)
        return took


def memory(pids):
    """RSS and PSS in MB."""
    sums = {"Rss:": 0, "Pss:": 0}
    for pid in pids:
        for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            word = line.split()
            if word[0] in sums:
                sums[word[0]] += int(word[1])
    return sums["Rss:"] / 1024, sums["Pss:"] / 1024


def busy(pids):
    """Seconds on a processor, of all the threads they have had."""
    ticks = 0
    for pid in pids:
        # Its name, in brackets, may have spaces in it.
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def hundred(driver, mark, args, found):
    count = args.services

    def services(said):
        return [Service.idle(f"s{n}", said, f"{1_000_000 + n}.{mark}") for n in range(count)]

    with Run(driver, mark, services) as run:
        found["ready"].append(run.ready)
        time.sleep(SETTLED)
        own, _ = run.processes()
        before, began = busy(own), time.monotonic()
        time.sleep(args.idle)
        found["idle"].append((busy(own) - before) / (time.monotonic() - began) * 60)
        rss, pss = memory(own)
        found["rss"].append(rss)
        found["pss"].append(pss)
        found["respawn"] += run.respawn(min(args.kills, driver.kills or args.kills))
    found["stopped"].append(run.stopped)


def chain(driver, mark, args, found):
    if not driver.chains:
        return
    ports = free_ports(10)

    def services(said):
        before = lambda n: f"s{n - 1}" if n else None
        return [Service.server(f"s{n}", said, port, before(n)) for n, port in enumerate(ports)]

    with Run(driver, mark, services) as run:
        if run.said.order != [each.name for each in run.services]:
            raise SystemExit(f"{driver.name} started them in another order: {' '.join(run.said.order)}")
        found["chain"].append(run.ready)


# The length of a wide line, with its end.
WIDE = 100


def throughput(driver, mark, args, found):
    narrow = [str(n).encode() for n in range(1, args.lines + 1)]
    flood(driver, mark, lambda folder: f"seq 1 {args.lines}", narrow, found, "lines")
    wide = [b"%0*d" % (WIDE - 1, n) for n in range(1, args.lines // 2 + 1)]

    def command(folder):
        # Whatever makes such lines takes longer than reading them.
        path = folder / "wide-lines"
        path.write_bytes(b"\n".join(wide) + b"\n")
        return f"cat {path}"

    flood(driver, mark, command, wide, found, "wide")


def flood(driver, mark, command, expected, found, key):
    def services(said):
        return [Service.writer("writer", said, command(pathlib.Path(said).parent), f"1000000.{mark}")]

    with Run(driver, mark, services) as run:
        # It may have begun long before the command that starts the supervisor ended.
        began = int(run.said.words["writer"][0]) / 1e9
        while not run.driver.has_last("writer", expected[-1]) and time.time() - began < PATIENCE:
            # A file cannot be waited for alike with all of them.
            time.sleep(0.002)
        found[key].append(len(expected) / (time.time() - began))
        kept = run.driver.lines("writer")
    found["lost"].append(0 if kept == expected else len(set(expected) - set(kept)))


def ms(seconds):
    return f"{seconds * 1000:,.0f} ms" if seconds >= 0.1 else f"{seconds * 1000:.1f} ms"


def p99(values):
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]


# What is shown of what was measured: heading, how, and how it is written.
COLUMNS = {
    "ready": ("100 ready", statistics.median, ms),
    "stopped": ("stopped", statistics.median, ms),
    "chain": ("chain of 10", statistics.median, ms),
    "respawn": ("respawn", statistics.median, ms),
    "respawn_p99": ("p99", p99, ms),
    "rss": ("RSS", statistics.median, lambda mb: f"{mb:.1f} MB"),
    "pss": ("PSS", statistics.median, lambda mb: f"{mb:.1f} MB"),
    "idle": ("idle CPU/min", statistics.median, lambda s: f"{s * 1000:.1f} ms"),
    "lines": ("lines/s", statistics.median, lambda n: f"{n:,.0f}"),
    "wide": (f"of {WIDE} B", statistics.median, lambda n: f"{n:,.0f}"),
    "lost": ("lost", max, str),
}


# Of which more is better.
RATES = {"lines", "wide"}


def summary(found):
    values = dict(found, respawn_p99=found["respawn"])
    return {key: how(values[key]) if values[key] else None for key, (_, how, _) in COLUMNS.items()}


def table(results):
    rows = [["", *(heading for heading, _, _ in COLUMNS.values())]]
    for name, result in results.items():
        shown = (write(result[key]) if result[key] is not None else "-" for key, (_, _, write) in COLUMNS.items())
        rows.append([name, *shown])
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    for row in rows:
        print("  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:]))]))


def claims(results, lines):
    ours = {name: result for name, result in results.items() if name.startswith("gabion")}
    holds = True
    for name, own in ours.items():
        for key, (heading, _, write) in COLUMNS.items():
            others = {n: r[key] for n, r in results.items() if n not in ours and r[key] is not None}
            if own[key] is None or not others:
                continue
            best = (max if key in RATES else min)(others, key=others.get)
            first = own[key] >= others[best] if key in RATES else own[key] <= others[best]
            text = f"{name} is first in {heading}: {write(own[key])}, {best} {write(others[best])}"
            holds &= claim(text, first)
        if own["respawn_p99"] is not None:
            holds &= claim(f"{name}: respawn p99 {ms(own['respawn_p99'])}; limit 20 ms", own["respawn_p99"] < 0.020)
            holds &= claim(f"{name}: {own['rss']:.1f} MB resident; limit 12 MB", own["rss"] <= 12)
        if own["lost"] is not None:
            holds &= claim(f"{name}: {own['lost']} lines lost of {lines:,}, and of {lines // 2:,} wide ones", own["lost"] == 0)
    return holds


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--services", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kills", type=int, default=100, help="services killed in each round")
    parser.add_argument("--idle", type=float, default=30, help="seconds")
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--only", help="names, separated by commas")
    parser.add_argument("--measure", default="hundred,chain,throughput")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    wanted = args.only.split(",") if args.only else [driver.name for driver in ALL]
    drivers = []
    for driver in ALL:
        if driver.name in wanted:
            if driver.found():
                drivers.append(driver)
            else:
                print(f"{driver.name} is not installed, and left out", file=sys.stderr)
    keys = ["ready", "stopped", "chain", "respawn", "rss", "pss", "idle", "lines", "wide", "lost"]
    found = {driver.name: {key: [] for key in keys} for driver in drivers}
    marks = iter(range(1, 1_000_000))
    for turn in range(args.rounds):
        for measure in (hundred, chain, throughput):
            if measure.__name__ not in args.measure:
                continue
            for driver in drivers:
                print(f"round {turn + 1}: {measure.__name__}, {driver.name}", file=sys.stderr)
                measure(driver, f"{os.getpid()}{next(marks):03}", args, found[driver.name])
    results = {name: summary(values) for name, values in found.items()}
    if args.json:
        machine = f"{platform.platform()}, {os.cpu_count()} processors"
        print(json.dumps({"machine": machine, "results": results, "measured": found}, indent=2))
        return 0
    table(results)
    return 0 if claims(results, args.lines) else 1


if __name__ == "__main__":
    sys.exit(main())
