"""What the API and the worker share: PostgreSQL through psql, Redis through its own protocol."""

import os
import socket
import subprocess


def sql(query, **values):
    """Runs one query and returns its rows as lists of text. Values are quoted by psql."""
    command = ["psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--field-separator=\t"]
    for name, value in values.items():
        command += ["--set", f"{name}={value}"]
    result = subprocess.run(command, input=query, capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError(result.stderr.strip())
    return [line.split("\t") for line in result.stdout.splitlines()]


class Redis:
    """One connection; each call sends one command and returns its reply."""

    def __init__(self):
        self.file = socket.create_connection(("127.0.0.1", int(os.environ["REDIS_PORT"]))).makefile("rwb")

    def __call__(self, *words):
        parts = [str(word).encode() for word in words]
        self.file.write(b"*%d\r\n" % len(parts))
        for part in parts:
            self.file.write(b"$%d\r\n%s\r\n" % (len(part), part))
        self.file.flush()
        return self.reply()

    def reply(self):
        line = self.file.readline().strip()
        kind, rest = line[:1], line[1:]
        if kind == b"*":
            return None if rest == b"-1" else [self.reply() for _ in range(int(rest))]
        if kind == b"$":
            return None if rest == b"-1" else self.file.read(int(rest) + 2)[:-2].decode()
        if kind == b"-":
            raise RuntimeError(rest.decode())
        return rest.decode()
