# Tries to get out of a sandbox in every known way. Says `ESCAPED name: how` of each that works, `FAILED name:
# why` of what should work and does not, and `done` last. What it needs to know is in its environment.
import ctypes, glob, os, signal, socket, stat, sys

libc = ctypes.CDLL(None, use_errno=True)
env = os.environ
HOST = int(env["HOST_PID"])
SANDBOX, HOME, OTHER = env["SANDBOX"], env["STATE_HOME"], env["OTHER"]
NEWNS, NEWUSER, NEWPID, NEWCGROUP = 0x20000, 0x10000000, 0x20000000, 0x02000000
RDONLY, NOSUID, REMOUNT, BIND, REC = 1, 2, 32, 4096, 16384


def call(name, *args):
    args = [a.encode() if isinstance(a, str) else a for a in args]
    result = getattr(libc, name)(*args)
    if result == -1:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def attempt(name, way):
    try:
        how = way()
    except (OSError, PermissionError, ValueError, AssertionError) as error:
        return
    print(f"ESCAPED {name}: {how}")


def works(name, way):
    try:
        way()
    except Exception as error:
        print(f"FAILED {name}: {error!r}")


def in_child(way):
    """In a process of its own; its exit status 0 says that it got out."""
    child = os.fork()
    if child == 0:
        try:
            way()
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    return "in a process of its own"


def write(path):
    with open(path, "w") as file:
        file.write("escaped")
    return path


def read(path):
    with open(path, "rb") as file:
        return file.read(64)


def connect(path):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    return path


def pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


# Files.
for path in ["/etc", "/usr", "/root", "/", "/boot", "/sys/kernel", "/var/lib", SANDBOX, HOME, OTHER,
             f"{SANDBOX}/services", f"{SANDBOX}/logs", os.path.dirname(SANDBOX)]:
    attempt(f"write in {path}", lambda: write(f"{path}/gabion-escape"))
for path in ["sandbox.json", "services/probe.json", "keeper.lock", "supervisor.log"]:
    attempt(f"change own {path}", lambda: open(f"{SANDBOX}/{path}", "r+").close())
    attempt(f"read own {path}", lambda: read(f"{SANDBOX}/{path}"))
attempt("read another sandbox", lambda: read(f"{OTHER}/workspace/secret"))
attempt("see another sandbox", lambda: os.listdir(f"{OTHER}/workspace"))
def see_services():
    assert os.listdir(f"{SANDBOX}/services")
attempt("see own definitions", see_services)

# Processes.
def others():
    own = os.getpgrp()
    found = [p for p in pids() if p != 1 and os.getsid(p) not in (own, 0)
             and b"GABION_TEST_INSIDE" not in read_all(f"/proc/{p}/environ")]
    assert found
    return found
def read_all(path):
    with open(path, "rb") as file:
        return file.read()
attempt("see other processes", others)
attempt("signal a process outside", lambda: os.kill(HOST, 0))
attempt("trace a process outside", lambda: call("ptrace", 16, HOST, 0, 0))
attempt("trace the init", lambda: call("ptrace", 16, 1, 0, 0))
for path in ["environ", "mem", "maps", "root/etc/hostname", "fd/0", "map_files"]:
    attempt(f"read /proc/1/{path}", lambda: (os.listdir if path == "map_files" else read)(f"/proc/1/{path}"))
# Root sees how many there are, and not what.
attempt("see the init's descriptors", lambda: [os.readlink(f"/proc/1/fd/{fd}") for fd in range(64)])
for fd in range(24):
    attempt(f"open the init's descriptor {fd}", lambda: os.open(f"/proc/1/fd/{fd}", os.O_RDONLY))
attempt("see where the init is", lambda: os.readlink("/proc/1/cwd"))
for kind in ["mnt", "pid", "user", "ipc", "net"]:
    attempt(f"open the init's {kind} namespace", lambda: os.open(f"/proc/1/ns/{kind}", os.O_RDONLY))
def secret():
    found = [p for p in pids() if env["OTHER_SECRET"].replace("OPEN", "open").encode() in read_or_nothing(f"/proc/{p}/environ")]
    assert found
    return found
def read_or_nothing(path):
    try:
        return read_all(path)
    except OSError:
        return b""
attempt("read another sandbox's secrets", secret)
def vm_read():
    class Iov(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]
    buffer = ctypes.create_string_buffer(8)
    here, there = Iov(ctypes.addressof(buffer), 8), Iov(0x400000, 8)
    call("process_vm_readv", 1, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
attempt("read the init's memory", vm_read)
for number in [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT]:
    # Sending is allowed; that it has no effect is seen by all that follows.
    try:
        os.kill(1, number)
    except OSError:
        pass

# Descriptors and sockets.
def descriptors():
    odd = {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if int(fd) > 2
           and os.path.exists(f"/proc/self/fd/{fd}")}
    assert odd
    return odd
attempt("inherited descriptors", descriptors)
for place in [SANDBOX] + [f"/proc/{p}/{link}{rest}" for p in pids() for link, rest in
                          [("root", SANDBOX), ("cwd", "/.."), ("cwd", "/../.."), ("cwd", "")]]:
    attempt("the supervisor's socket", lambda: connect(f"{place}/supervisor.sock"))
for path in [env["RUN_SOCKET"], "/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock",
             "/run/systemd/private", "/run/dbus/system_bus_socket", f"/run/user/{os.getuid()}/bus"]:
    attempt("a server of the machine", lambda: connect(path))

# Mounts, with the rights at hand and with all rights in namespaces of one's own.
def new_namespaces():
    uid, gid = os.getuid(), os.getgid()
    call("unshare", NEWUSER | NEWNS | NEWCGROUP)
    for name, text in [("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")]:
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
def quietly(*args):
    try:
        call(*args)
    except OSError:
        pass
def all_writable(at):
    quietly("mount", None, at, None, REMOUNT | BIND, None)
    quietly("mount", None, at, None, REMOUNT, None)
def remount():
    for at in ["/", "/etc", "/sys", "/proc/sys", "/proc/sysrq-trigger"]:
        all_writable(at)
    write("/etc/gabion-escape")
def bind():
    os.makedirs("/tmp/bound", exist_ok=True)
    call("mount", "/", "/tmp/bound", None, BIND | REC, None)
    all_writable("/tmp/bound")
    write("/tmp/bound/etc/gabion-escape")
def uncover():
    for path in [SANDBOX, HOME, os.path.dirname(HOME), "/run", "/tmp", "/proc"]:
        for flags in [2, 0, 8]:
            quietly("umount2", path, flags)
    read(f"{OTHER}/workspace/secret")
def move_cover():
    os.makedirs("/tmp/moved", exist_ok=True)
    call("mount", HOME, "/tmp/moved", None, 8192, None)
    read(f"{OTHER}/workspace/secret")
def pivot():
    os.makedirs("/tmp/pivot/old", exist_ok=True)
    call("mount", "tmpfs", "/tmp/pivot", "tmpfs", 0, None)
    os.makedirs("/tmp/pivot/old", exist_ok=True)
    call("syscall", 155, b"/tmp/pivot", b"/tmp/pivot/old")
    write("/old/etc/gabion-escape")
def fresh(kind, then):
    def way():
        os.makedirs(f"/tmp/{kind}", exist_ok=True)
        call("mount", kind, f"/tmp/{kind}", kind, 0, None)
        then(f"/tmp/{kind}")
    return way
def new_proc():
    call("unshare", NEWPID)
    child = os.fork()
    if child == 0:
        try:
            os.makedirs("/tmp/proc", exist_ok=True)
            call("mount", "proc", "/tmp/proc", "proc", 0, None)
            with open("/tmp/proc/sysrq-trigger", "w"):
                os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
mounts = {"remount": remount, "bind": bind, "uncover": uncover, "move a cover": move_cover, "pivot": pivot,
          "new proc": new_proc,
          "sysfs": fresh("sysfs", lambda at: write(f"{at}/kernel/mm/ksm/run")),
          "devtmpfs": fresh("devtmpfs", lambda at: os.listdir(at)),
          "debugfs": fresh("debugfs", lambda at: os.listdir(at)),
          "ext4": fresh("ext4", lambda at: None)}
for name, way in mounts.items():
    attempt(f"mounts: {name}", lambda: in_child(way))
    attempt(f"mounts in own namespaces: {name}", lambda: in_child(lambda: (new_namespaces(), way())))
def chroot():
    os.makedirs("/tmp/jail", exist_ok=True)
    above = os.open("/", os.O_RDONLY)
    os.chroot("/tmp/jail")
    os.fchdir(above)
    for _ in range(64):
        os.chdir("..")
    os.chroot(".")
    try:
        read(f"{OTHER}/workspace/secret")
    except OSError:
        write("/etc/gabion-escape")
attempt("chroot", lambda: in_child(chroot))
attempt("chroot in own namespaces", lambda: in_child(lambda: (new_namespaces(), chroot())))

# The kernel and its devices.
for path in ["sys/kernel/core_pattern", "sys/vm/drop_caches", "sys/kernel/hostname", "sysrq-trigger",
             "sys/fs/binfmt_misc/register", "irq/default_smp_affinity"]:
    attempt(f"write /proc/{path}", lambda: os.open(f"/proc/{path}", os.O_WRONLY))
for path in ["/proc/kcore", "/proc/keys", "/proc/kmsg"]:
    def something():
        assert read(path)
    attempt(f"read {path}", something)
for number in [(1, 1), (8, 0), (254, 0), (252, 0), (1, 11)]:
    for kind in [stat.S_IFBLK, stat.S_IFCHR]:
        def node():
            os.mknod("/tmp/node", kind | 0o600, os.makedev(*number))
            os.open("/tmp/node", os.O_RDONLY)
        attempt(f"device {number}", node)
for path in ["/dev/mem", "/dev/kmsg", "/dev/kvm", "/dev/fuse", *glob.glob("/dev/[shv]d*")]:
    attempt(f"open {path}", lambda: os.open(path, os.O_RDWR))
attempt("shared memory of the machine", lambda: call("shmget", int(env["SHM_KEY"]), 0, 0))
attempt("set the machine's name", lambda: call("sethostname", "escaped", 7))
attempt("load a module", lambda: call("syscall", 175, 0, 0, b""))
attempt("the caller's keys", lambda: call("syscall", 250, 10, -3, b"user", env["KEY_NAME"].encode(), 0))

# What has to work.
works("own /tmp", lambda: write("/tmp/file"))
works("own /run", lambda: os.getuid() == 0 and write("/run/file"))
works("workspace", lambda: write("file"))
works("own shared memory", lambda: call("shmget", int(env["SHM_KEY"]), 4096, 0o1600))
def posix_memory():
    from multiprocessing import shared_memory
    memory = shared_memory.SharedMemory(create=True, size=1 << 20)
    memory.close()
    memory.unlink()
works("POSIX shared memory", posix_memory)
works("a process of its own", lambda: in_child(lambda: None))
works("a terminal", lambda: os.openpty())
works("devices", lambda: (read("/dev/urandom"), write("/dev/null")))
def another_user():
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    write("/tmp/by-nobody")
if os.getuid() == 0:
    works("another user", lambda: in_child(another_user))
    works("own files for another user", lambda: os.chown("/tmp/file", 65534, 65534))
works("the init lives", lambda: in_child(lambda: os.kill(1, 0)))
print("done", flush=True)
signal.pause()
