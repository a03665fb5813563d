"""sprites-py against the server whose address is the first argument: real processes, real effects."""

import io
import socket
import sys
import urllib.request

from sprites import SpritesClient
from sprites.exceptions import APIError
from sprites.types import ListOptions, NetworkPolicy, PolicyRule, URLSettings

client = SpritesClient(sys.argv[2], base_url=sys.argv[1])


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def kinds(stream):
    return [event.type for event in stream]


def refused(status, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except APIError as error:
        assert error.status_code == status, error
    else:
        raise AssertionError(f"{call} was not refused")


# Sprites.
sprite = client.create_sprite("py-box", labels=["py"], url_settings=URLSettings(auth="public"))
assert sprite.labels == ["py"] and sprite.url_settings.auth == "public", sprite.__dict__
client.create_sprite("py-other").delete()
assert [s.name for s in client.list_all_sprites(prefix="py-")] == ["py-box"]
page = client.list_sprites(ListOptions(prefix="py-", max_results=1))
assert len(page.sprites) == 1 and not page.has_more
assert client.update_sprite("py-box", labels=["py", "new"]).labels == ["py", "new"]
assert client.get_sprite("py-box").labels == ["py", "new"]
client.upgrade_sprite("py-box")

# Services, and what they do.
port = free_port()
server = ["-um", "http.server", str(port), "--bind", "127.0.0.1"]
events = sprite.create_service(
    "web", "python3", args=server, env={"A": "1"}, dir="/", http_port=port, duration=2.5
)
kinds_seen = kinds(events)
assert kinds_seen[0] == "started" and kinds_seen[-1] == "complete", kinds_seen
assert urllib.request.urlopen(f"http://127.0.0.1:{port}/").status == 200
assert urllib.request.urlopen(client.get_sprite("py-box").url + "/").status == 200
web = sprite.get_service("web")
assert (web.cmd, web.args, web.env, web.dir, web.http_port) == (
    "python3", server, {"A": "1"}, "/", port,
), web
assert web.state.status == "running" and web.state.pid and web.state.started_at, web
refused(409, sprite.create_service, "second", "sleep", args=["1"], http_port=port, duration=0.1)
dying = sprite.create_service("dying", "sh", args=["-c", "echo bye; exit 3"], duration=0.5)
dying = [(event.type, event.data, event.exit_code) for event in dying]
assert ("stdout", "bye\n", None) in dying and ("exit", None, 3) in dying, dying
sprite.delete_service("dying")
kinds(sprite.create_service("needy", "sleep", args=["1000"], needs=["web"], duration=0.1))
assert [s.name for s in sprite.list_services()] == ["needy", "web"]
sprite.signal_service("web", "SIGCONT")
refused(400, sprite.signal_service, "web", "NOPE")
assert kinds(sprite.stop_service("web", timeout=2)) == ["stopping", "stopped", "complete"]
refused(409, sprite.stop_service, "web")
refused(404, sprite.start_service, "none")
try:
    urllib.request.urlopen(f"http://127.0.0.1:{port}/")
    raise AssertionError("a stopped service answers")
except OSError:
    pass
assert kinds(sprite.start_service("web", duration=0.1))[0] == "started"

# Commands, over WebSockets.
ran = sprite.run("sh", "-c", "echo $A; pwd; echo oops >&2; exit 3", env={"A": "b"}, cwd="/tmp",
                 capture_output=True)
assert (ran.stdout, ran.stderr, ran.returncode) == (b"b\n/tmp\n", b"oops\n", 3), ran
command = sprite.command("cat")
command.stdin = io.BytesIO(b"x" * 100_000)
assert command.output() == b"x" * 100_000
command = sprite.command("sh", "-c", "tty; stty size")
command.set_tty(True)
command.set_tty_size(30, 100)
said = command.output()
assert b"/dev/pts/" in said and b"30 100" in said, said
assert sprite.run("head", "-c", "3000000", "/dev/zero", capture_output=True).stdout == bytes(3_000_000)
assert sprite.list_sessions() == []

# Files.
fs = sprite.filesystem("/tmp")
path = fs / "folder" / "file.txt"
path.write_text("hello", mode=0o640)
assert path.read_text() == "hello" and path.stat().mode == "0640" and path.is_file()
assert (fs / "folder").listdir() == ["file.txt"]
assert not (fs / "none").exists()
assert sprite.run("cat", "/tmp/folder/file.txt", capture_output=True).stdout == b"hello"
path.rename("/tmp/moved.txt")
(fs / "moved.txt").copy_to("/tmp/copy.txt")
assert (fs / "copy.txt").read_text() == "hello"
(fs / "moved.txt").chmod(0o600)
assert (fs / "moved.txt").stat().mode == "0600"
(fs / "moved.txt").unlink()

# Checkpoints.
assert sprite.run("sh", "-c", "echo one > kept").returncode == 0
assert kinds(sprite.create_checkpoint("clean"))[-1] == "complete"
[checkpoint] = sprite.list_checkpoints()
assert (checkpoint.id, checkpoint.comment) == ("v0", "clean"), checkpoint
assert sprite.run("sh", "-c", "echo two > kept").returncode == 0
assert kinds(sprite.restore_checkpoint("v0"))[-1] == "complete"
assert sprite.run("cat", "kept", capture_output=True).stdout == b"one\n"
assert sprite.get_checkpoint("v0").comment == "clean"

# Policy.
sprite.update_network_policy(NetworkPolicy(rules=[PolicyRule(domain="*.example.org", action="allow")]))
assert sprite.get_network_policy().rules[0].domain == "*.example.org"

sprite.delete_service("web")
assert [s.name for s in sprite.list_services()] == ["needy"]
sprite.delete()
assert client.list_all_sprites(prefix="py-") == []
