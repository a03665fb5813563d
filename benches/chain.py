"""What gabion adds to a chain of 10 services, each gated on the TCP port of the one before.

The services' own time is measured in the same run: the same programs started one after the other by
hand, each as soon as the port of the one before accepts a connection.
"""

import socket
import statistics
import subprocess
import sys
import time

from common import Project, claim, free_ports, spread

LENGTH, ROUNDS, LIMIT = 10, 15, 0.150

SERVER = "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(1000)"


def by_hand(ports):
    """Seconds that the services themselves need."""
    children = []
    began = time.monotonic()
    for port in ports:
        children.append(subprocess.Popen([sys.executable, "-S", "-c", SERVER, str(port)]))
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                # A busy loop would take the processor from the service that it waits for.
                time.sleep(0.0005)
    took = time.monotonic() - began
    for child in children:
        child.kill()
        child.wait()
    return took


def manifest(ports):
    lines = ["version: 1", "stack: chain", "sandboxes:", "  box:", "    services:"]
    for index, port in enumerate(ports):
        needs = f"needs: [s{index - 1}], " if index else ""
        args = f"[-S, -c, \"{SERVER}\", '{port}']"
        lines.append(f"      s{index}: {{ {needs}health_port: {port}, cmd: {sys.executable}, args: {args} }}")
    return "\n".join(lines) + "\n"


def main():
    own, whole = [], []
    for _ in range(ROUNDS):
        own.append(by_hand(free_ports(LENGTH)))
        with Project(manifest(free_ports(LENGTH))) as project:
            whole.append(project.run("apply", "--yes"))
    added = statistics.median(whole) - statistics.median(own)
    print(f"by hand:      {spread(own)}")
    print(f"gabion apply: {spread(whole)}")
    text = f"gabion adds {added * 1000:.1f} ms to a chain of {LENGTH}; the limit is {LIMIT * 1000:.0f} ms"
    return 0 if claim(text, added < LIMIT) else 1


sys.exit(main())
