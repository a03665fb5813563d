"""One driver per supervisor, for supervisors.py: how it is told of services, started and stopped."""

import json
import os
import pathlib
import shutil
import signal
import sqlite3
import subprocess
import sys

from common import GABION

# A server that says when it accepts connections: to whoever measures, and to s6 on descriptor 3.
SERVER = (
    "import os, socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); "
    "open(sys.argv[2], 'w').write(sys.argv[3] + chr(10)); "
    "len(sys.argv) > 4 and os.write(3, b'x' + b'\\n'); time.sleep(1000)"
)


class Service:
    """A line for the shell; it writes its name to the pipe at `said` once it runs."""

    def __init__(self, name, said, line, port=None, needs=None, writes=False):
        self.name, self.said, self.line, self.port, self.needs = name, said, line, port, needs
        # Whether its output is to be kept.
        self.writes = writes

    @classmethod
    def idle(cls, name, said, number):
        return cls(name, said, f"echo {name} > {said}; exec sleep {number}")

    @classmethod
    def server(cls, name, said, port, needs):
        return cls(name, said, f'exec {sys.executable} -S -c "{SERVER}" {port} {said} {name}', port, needs)

    @classmethod
    def writer(cls, name, said, command, number):
        line = f"echo {name} $(date +%s%N) > {said}; {command}; exec sleep {number}"
        return cls(name, said, line, writes=True)


class Driver:
    """One supervisor in a folder of its own. Whatever it starts has `GABION_BENCH` in its environment."""

    name = ""
    program = ""
    # Whether it starts one service after another is ready.
    chains = False
    # How many services are killed at most, for those that take seconds to notice.
    kills = None

    def __init__(self, folder, mark):
        self.dir = pathlib.Path(folder)
        self.env = {"PATH": os.environ["PATH"], "HOME": folder, "GABION_BENCH": mark}
        self.daemon = None
        self.command = None

    @classmethod
    def found(cls):
        return shutil.which(cls.program)

    def run(self, *args):
        self.begin(*args)
        self.settle()

    def begin(self, *args):
        """Starts a command that comes to its end by itself."""
        output = open(self.dir / "command.log", "wb")
        self.command = subprocess.Popen(args, cwd=self.dir, env=self.env, stdout=output, stderr=output)

    def settle(self):
        """Waits for the end of that, if there was one."""
        if self.command and self.command.wait() != 0:
            raise SystemExit(f"{self.command.args}:\n{(self.dir / 'command.log').read_text()}")

    def spawn(self, *args):
        output = open(self.dir / "daemon.log", "wb")
        self.daemon = subprocess.Popen(args, cwd=self.dir, env=self.env, stdout=output, stderr=output)

    def terminate(self):
        self.daemon.send_signal(signal.SIGTERM)
        self.daemon.wait()

    def lines(self, service):
        """All lines in the log of a service, and only they."""
        text = b"".join(path.read_bytes() for path in self.logs(service))
        return text.split(b"\n")[:-1]

    def has_last(self, service, last):
        """Whether a line is at the end of the log."""
        for path in self.logs(service)[-1:]:
            try:
                with open(path, "rb") as file:
                    file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
                    return last in file.read().split()
            except FileNotFoundError:
                # It is being put aside.
                return False
        return False


class Gabion(Driver):
    name = "gabion"
    chains = True
    # Its own default: namespaces, where the machine allows them.
    isolation = []

    @classmethod
    def found(cls):
        return GABION if GABION.exists() else None

    def prepare(self, services):
        self.env["GABION_HOME"] = f"{self.dir}/state"
        lines = ["version: 1", "stack: bench", "sandboxes:", "  box:", "    workspace: .",
                 *self.isolation, "    services:"]
        for each in services:
            port = f", health_port: {each.port}" if each.port else ""
            needs = f", needs: [{each.needs}]" if each.needs else ""
            lines.append(f"      {each.name}: {{ command: {json.dumps(each.line)}, restart: always{port}{needs} }}")
        (self.dir / "gabion.yaml").write_text("\n".join(lines) + "\n")

    def start(self):
        self.begin(GABION, "apply", "--yes")

    def stop(self):
        """As with the others: the first of its processes is told to end."""
        parents = {}
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if os.fsencode(f"{self.dir}/state") in (entry / "cmdline").read_bytes():
                    parents[entry.name] = (entry / "stat").read_text().rsplit(")", 1)[1].split()[1]
            except OSError:
                continue
        for pid, parent in parents.items():
            if parent not in parents:
                os.kill(int(pid), signal.SIGTERM)

    def logs(self, service):
        return [self.dir / f"state/sandboxes/bench/box/logs/{service}.log"]

    def lines(self, service):
        command = [GABION, "logs", f"box/{service}"]
        shown = subprocess.run(command, cwd=self.dir, env=self.env, capture_output=True, check=True)
        return shown.stdout.split(b"\n")[:-1]


class GabionPlain(Gabion):
    """Without namespaces, which the others do not make either."""

    name = "gabion plain"
    isolation = ["    isolation: none"]


class S6(Driver):
    name = "s6"
    program = "s6-svscan"
    chains = True

    def prepare(self, services):
        for each in services:
            folder = self.dir / "scan" / each.name
            folder.mkdir(parents=True)
            # At first there may be nothing to wait for: all services are scanned at once.
            wait = f"until s6-svwait -U ../{each.needs} 2>&1; do :; done\n" if each.needs else ""
            ready = " 3" if each.port else ""
            if each.port:
                (folder / "notification-fd").write_text("3\n")
            script(folder / "run", f"{wait}{each.line}{ready}")
            if each.writes:
                (folder / "log").mkdir()
                script(folder / "log/run", f"exec s6-log T n1000 s16777215 {self.dir}/{each.name}")

    def start(self):
        self.spawn("s6-svscan", "-c", "1000", self.dir / "scan")

    def stop(self):
        self.terminate()

    def logs(self, service):
        folder = self.dir / service
        return sorted(folder.glob("@*")) + sorted(folder.glob("current"))

    def lines(self, service):
        # `2026-01-31 12:00:00.123456789  text`
        return [line[31:] for line in super().lines(service)]


class Supervisord(Driver):
    name = "supervisord"
    program = "supervisord"

    def prepare(self, services):
        text = f"[supervisord]\nnodaemon=true\nminfds=4096\nuser=root\nchildlogdir={self.dir}\n"
        text += f"logfile={self.dir}/supervisord.log\npidfile={self.dir}/supervisord.pid\n"
        for each in services:
            script(self.dir / f"{each.name}.sh", each.line)
            text += f"[program:{each.name}]\ncommand={self.dir}/{each.name}.sh\nautorestart=true\n"
            text += f"stdout_logfile={self.dir}/{each.name}.log\nstdout_logfile_maxbytes=0\n"
        (self.dir / "supervisord.conf").write_text(text)

    def start(self):
        self.spawn("supervisord", "-c", self.dir / "supervisord.conf")

    def stop(self):
        self.terminate()

    def logs(self, service):
        return list(self.dir.glob(f"{service}.log"))


class Pm2(Driver):
    name = "pm2"
    program = "pm2"

    def prepare(self, services):
        self.env["PM2_HOME"] = f"{self.dir}/pm2"
        apps = [
            {"name": each.name, "script": "/bin/sh", "args": ["-c", each.line], "interpreter": "none",
             "log_date_format": "YYYY-MM-DDTHH:mm:ss.SSS", "out_file": f"{self.dir}/{each.name}.log", "error_file": f"{self.dir}/{each.name}.err"}
            for each in services
        ]
        (self.dir / "ecosystem.config.js").write_text(f"module.exports = {{ apps: {json.dumps(apps)} }};\n")

    def start(self):
        self.begin("pm2", "start", self.dir / "ecosystem.config.js")

    def stop(self):
        self.run("pm2", "kill")

    def lines(self, service):
        # `2026-01-31T12:00:00.123: text`
        return [line.split(b": ", 1)[-1] for line in super().lines(service)]

    def logs(self, service):
        return list(self.dir.glob(f"{service}.log"))


class Pitchfork(Driver):
    name = "pitchfork"
    program = "pitchfork"
    chains = True
    # It looks for what has ended every ten seconds.
    kills = 3

    def prepare(self, services):
        self.env["PITCHFORK_STATE_DIR"] = f"{self.dir}/pitchfork"
        text = ""
        for each in services:
            text += f"[daemons.{each.name}]\nrun = {json.dumps(each.line)}\nretry = 1000\n"
            text += f"ready_port = {each.port}\n" if each.port else ""
            text += f'depends = ["{each.needs}"]\n' if each.needs else ""
        (self.dir / "pitchfork.toml").write_text(text)

    def start(self):
        self.begin("pitchfork", "start", "--all")

    def stop(self):
        self.run("pitchfork", "supervisor", "stop")

    def rows(self, what, service):
        with sqlite3.connect(f"file:{self.dir}/pitchfork/logs/logs.db?mode=ro", uri=True) as base:
            query = f"select {what} from log_entries where daemon_id like '%{service}' order by id"
            return base.execute(query + (" desc limit 1" if what == "message " else "")).fetchall()

    def lines(self, service):
        return [message.encode() for (message,) in self.rows("message", service)]

    def has_last(self, service, last):
        try:
            return [(last.decode(),)] == self.rows("message ", service)
        except sqlite3.OperationalError:
            return False


class Pebble(Driver):
    """Not to be had from a package registry: named, so that its place in the table is seen."""

    name = "pebble"
    program = "pebble"

    @classmethod
    def found(cls):
        return None


ALL = [Gabion, GabionPlain, S6, Supervisord, Pm2, Pitchfork, Pebble]


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
