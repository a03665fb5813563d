"""The sequence of protocol page miosa, §12, and the processes, with the vendor's own client.

In: MIOSA_BASE_URL and MIOSA_API_KEY. Every effect is checked where it is to be seen.
"""

import socket
import urllib.request

from miosa import Miosa
from miosa.errors import MiosaError, NotFoundError


def free_port():
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


client = Miosa()

try:
    client.sandboxes.get_by_name("web-box")
    raise AssertionError("there is no such sandbox yet")
except NotFoundError:
    pass

box = client.sandboxes.create(
    template_id="miosa-sandbox",
    size="small",
    name="web-box",
    tags=["a"],
    metadata={"managed_by": "x"},
)
box.wait_until_ready()
assert client.sandboxes.get_by_name("web-box").id == box.id
assert client.sandboxes.get(box.id).state == "running"

# A process: its port answers.
port = free_port()
started = box.processes.start(
    f"echo up on $PORT; exec python3 -m http.server --bind 127.0.0.1 $PORT",
    env={"PORT": str(port)},
    name="web",
)
pid = started["pid"]
assert started["name"] == "web" and started["status"] == "running", started
assert [it["pid"] for it in box.processes.list()] == [pid]
assert box.processes.get(pid)["command"].startswith("echo up on")
for event in box.processes.stream(pid):
    assert event == {"stream": "stdout", "line": f"up on {port}"}, event
    break
assert box.processes.logs(pid, tail=5).splitlines()[0] == f"up on {port}"
while True:
    try:
        assert urllib.request.urlopen(f"http://127.0.0.1:{port}/").status == 200
        break
    except OSError:
        assert box.processes.get(pid)["status"] == "running"
assert box.expose(port) == f"http://127.0.0.1:{port}"

# The newer twin reads the same processes.
behind = box.commands.run("exec sleep 1000", background=True)
assert {it["pid"] for it in client.commands.list(box.id)} == {pid, behind.pid}
behind.kill()

box.processes.stop(pid)
while box.processes.list():
    pass
try:
    urllib.request.urlopen(f"http://127.0.0.1:{port}/")
    raise AssertionError("it was stopped")
except OSError:
    pass

# Metadata is merged, variables reach commands, files are real.
box.update(metadata={"b": 1})
assert client.sandboxes.get(box.id).metadata == {"managed_by": "x", "b": 1}
box.env.set([{"key": "DEBUG", "value": "a longer value"}])
assert "a longer value" not in str(box.env.list())
box.files.write("/workspace/a.txt", "text")
assert box.files.read_text("/workspace/a.txt") == "text"
assert [it["name"] for it in box.files.list("/workspace")["entries"]] == ["a.txt"]
ran = box.exec("cat a.txt; echo $DEBUG >&2; exit 3")
assert (ran.stdout, ran.stderr, ran.exit_code) == ("text", "a longer value\n", 3), ran

# A pause keeps processes, a stop does not.
kept = box.processes.start("exec sleep 1000")["pid"]
box.pause()
assert client.sandboxes.get(box.id).state == "paused"
box.resume()
assert [it["pid"] for it in box.processes.list()] == [kept]
box.stop()
box.resume()
assert box.processes.list() == []

# Snapshots are real.
saved = box.create_snapshot("before")["id"]
box.files.write("/workspace/a.txt", "other")
box.restore_snapshot(saved)
assert box.files.read_text("/workspace/a.txt") == "text"
assert [it["id"] for it in box.list_snapshots()] == [saved]

assert [it.id for it in client.sandboxes.list(tags=["a"])] == [box.id]
box.destroy()
assert client.sandboxes.list() == []
assert client.sandboxes.get(box.id).state == "destroyed"

try:
    Miosa(api_key="msk_u_wrong").sandboxes.list()
    raise AssertionError("this token is nobody's")
except MiosaError as error:
    assert error.status_code == 401, error
print("all of it")
