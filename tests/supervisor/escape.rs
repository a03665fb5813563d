//! `isolation: strict` from inside: a program that tries to get out in every known way, as root and as an
//! ordinary user; what is hidden and what may be written.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use gabion::model::{IsolationWish, SandboxSpec, ServiceSpec};
use rustix::process::Signal;

use crate::rig::*;

const NOBODY: u32 = 65534;
const SECRET: &str = "an-open-sesame";

/// A state folder with two sandboxes in it, where nobody's `/tmp` covers it.
struct Home {
    temp: tempfile::TempDir,
    user: Option<u32>,
}

/// A folder that is not below one that a sandbox has its own of, wherever these sources are.
fn outside_tmp() -> tempfile::TempDir {
    let own = ["/tmp", "/var/tmp", "/run"];
    let places = [env!("CARGO_TARGET_TMPDIR"), "/srv", "/opt", "/var/lib"];
    let fits = |place: &&&str| !own.iter().any(|own| Path::new(place).starts_with(own));
    let mut made = places.iter().filter(fits).map(tempfile::tempdir_in);
    made.find_map(Result::ok).expect("a folder to write in")
}

impl Home {
    fn new(user: Option<u32>) -> Self {
        let temp = outside_tmp();
        let home = Self { temp, user };
        std::fs::set_permissions(home.temp.path(), PermissionsExt::from_mode(0o755)).unwrap();
        home.make(&home.sandbox("one"), &SandboxSpec::default());
        home.make(&home.sandbox("other"), &SandboxSpec::default());
        home
    }

    fn state(&self) -> PathBuf {
        self.temp.path().join("state")
    }

    fn sandbox(&self, name: &str) -> PathBuf {
        self.state().join("sandboxes/stack").join(name)
    }

    fn make(&self, dir: &Path, spec: &SandboxSpec) {
        std::fs::create_dir_all(dir.join("workspace")).unwrap();
        let spec = SandboxSpec {
            isolation: IsolationWish::Strict,
            ..spec.clone()
        };
        let text = serde_json::json!({ "spec": spec }).to_string();
        std::fs::write(dir.join("sandbox.json"), text).unwrap();
        std::fs::write(dir.join("workspace/secret"), SECRET).unwrap();
        self.own(&self.state());
    }

    /// Gives all below a folder to the user.
    fn own(&self, path: &Path) {
        let Some(user) = self.user else { return };
        std::os::unix::fs::chown(path, Some(user), Some(user)).unwrap();
        if path.is_dir() {
            for entry in path.read_dir().unwrap() {
                self.own(&entry.unwrap().path());
            }
        }
    }

    async fn run(&self, name: &str) -> Rig {
        let dir = self.sandbox(name);
        let Some(user) = self.user else {
            return Rig::at(&dir).await;
        };
        let exe = self.temp.path().join("gabion");
        if !exe.exists() {
            std::fs::copy(EXE, &exe).unwrap();
        }
        let mut command = Command::new(exe);
        command.arg("supervise").arg(&dir).current_dir(&dir);
        command.uid(user).gid(user).stdout(Stdio::piped());
        let mut keeper = command.spawn().unwrap();
        let mut line = String::new();
        let mut says = BufReader::new(keeper.stdout.take().unwrap());
        says.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        // Reaped whenever it ends, so that it is seen to be gone.
        std::thread::spawn(move || keeper.wait());
        Rig::of(&dir).await
    }
}

/// A key of this session, if the kernel has any.
fn key(name: &str) {
    let name = std::ffi::CString::new(name).unwrap();
    const OF_SESSION: i32 = -3;
    // SAFETY: the kernel reads two strings and one byte, which live here.
    let _ = unsafe {
        let (call, kind) = (nix::libc::SYS_add_key, c"user".as_ptr());
        nix::libc::syscall(call, kind, name.as_ptr(), c"x".as_ptr(), 1, OF_SESSION)
    };
}

/// A program for the system's own interpreter, which every user can execute.
fn attack(program: &str) -> ServiceSpec {
    exec(&["/usr/bin/python3", "-uSc", program])
}

async fn nothing_gets_out(user: Option<u32>) {
    if user.is_some() && !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can become somebody else");
        return;
    }
    let home = Home::new(user);
    let id = std::process::id();
    let run_socket = PathBuf::from(format!("/run/gabion-test-{id}-{}", user.unwrap_or(0)));
    let server = UnixListener::bind(&run_socket);
    let shm_key = i32::try_from(id).unwrap() + 0x6ab1_0000 + i32::from(user.is_some());
    // SAFETY: makes a segment that nobody attaches.
    let segment = unsafe { nix::libc::shmget(shm_key, 4096, 0o1666) };
    key(&format!("gabion-test-{id}"));

    let other = home.run("other").await;
    let mut secret = shell("echo up; exec sleep 600");
    secret.env.insert("GABION_TEST".into(), SECRET.into());
    other.run("holds", &secret).await;

    let mut rig = home.run("one").await;
    let mut probe = attack(include_str!("escape.py"));
    for (name, value) in [
        ("HOST_PID", id.to_string()),
        ("SANDBOX", home.sandbox("one").display().to_string()),
        ("STATE_HOME", home.state().display().to_string()),
        ("OTHER", home.sandbox("other").display().to_string()),
        ("RUN_SOCKET", run_socket.display().to_string()),
        ("SHM_KEY", shm_key.to_string()),
        ("KEY_NAME", format!("gabion-test-{id}")),
        // In two parts, because it is looked for in environments.
        ("OTHER_SECRET", SECRET.replace("open", "OPEN")),
        ("GABION_TEST_INSIDE", "1".into()),
    ] {
        probe.env.insert(name.into(), value);
    }
    rig.run("probe", &probe).await;
    let says = rig.until_line("probe", "done").await;
    drop(server);
    let _ = std::fs::remove_file(&run_socket);
    // SAFETY: removes the segment made above.
    unsafe { nix::libc::shmctl(segment, nix::libc::IPC_RMID, std::ptr::null_mut()) };
    assert_eq!(says, ["done"], "{says:#?}");
    // It has signalled number 1 in all ways; its supervisor is replaced as ever.
    rig.kill_supervisor().await;
    let probe = rig.get("probe").await;
    assert!(probe.pid.is_some_and(alive));
    assert_eq!(rig.stop("probe").await.pid, None);
}

#[tokio::test]
async fn root_does_not_get_out() {
    nothing_gets_out(None).await;
}

#[tokio::test]
async fn an_ordinary_user_does_not_get_out() {
    nothing_gets_out(Some(NOBODY)).await;
}

#[tokio::test]
async fn hidden_and_writable_paths_nest() {
    let home = Home::new(None);
    let files = home.temp.path().join("files");
    for dir in ["cfg", "data/secret/open", "data/a/sub", "target/sub"] {
        std::fs::create_dir_all(files.join(dir)).unwrap();
    }
    for file in [
        "cfg/one",
        "cfg/two",
        "data/plain",
        "data/secret/x",
        "data/key",
    ] {
        std::fs::write(files.join(file), "original\n").unwrap();
    }
    let all = |paths: &[&str]| paths.iter().map(|path| files.join(path)).collect();
    let spec = SandboxSpec {
        hide: all(&["cfg", "data/secret", "data/key", "nowhere"]),
        writable: all(&["data", "data/secret/open", "cfg/one", "data/a/sub"]),
        ..SandboxSpec::default()
    };
    home.make(&home.sandbox("one"), &spec);
    let mut rig = home.run("one").await;
    let program = format!(
        "cd {} || exit
        check() {{ if eval \"$2\" 2>/dev/null; then echo \"$1 yes\"; else echo \"$1 no\"; fi; }}
        check data-written 'echo new > data/plain'
        check data-made 'echo new > data/made'
        check file-beside-written 'echo new > beside'
        check secret-seen 'test -e data/secret/x'
        check secret-written 'echo new > data/secret/x'
        check secret-made 'echo new > data/secret/made'
        check open-written 'echo new > data/secret/open/made'
        check key-seen 'grep original data/key'
        check key-removed 'rm -f data/key'
        check key-moved 'mv data/key data/key2'
        check key-linked 'ln data/key data/key2'
        check cfg-one-seen 'grep -q original cfg/one'
        check cfg-one-written 'echo new > cfg/one'
        check cfg-two-seen 'test -e cfg/two'
        check cfg-made 'echo new > cfg/made'
        check sub-replaced 'mv data/a data/b && ln -s {}/target data/a'
        echo done; exec sleep 600",
        files.display(),
        files.display(),
    );
    rig.run("web", &shell(&program)).await;
    let says = rig.until_line("web", "done").await;
    let yes: Vec<_> = says
        .iter()
        .filter_map(|line| line.strip_suffix(" yes"))
        .collect();
    let expected = [
        "data-written",
        "data-made",
        "open-written",
        "cfg-one-seen",
        "cfg-one-written",
        "sub-replaced",
    ];
    assert_eq!(yes, expected, "{says:#?}");
    let read = |file: &str| std::fs::read_to_string(files.join(file)).unwrap_or_default();
    for (file, text) in [
        ("data/plain", "new\n"),
        ("data/made", "new\n"),
        ("data/secret/open/made", "new\n"),
        ("data/secret/x", "original\n"),
        ("data/secret/made", ""),
        ("data/key", "original\n"),
        ("cfg/one", "new\n"),
        ("cfg/two", "original\n"),
        ("cfg/made", ""),
        ("beside", ""),
    ] {
        assert_eq!(read(file), text, "{file}");
    }
    // What a service has put in the place of a writable folder does not open another one to it.
    let link = format!("echo new > {}/target/sub/x", files.display());
    rig.stop("web").await;
    rig.relaunch(Signal::KILL).await;
    let mut task = shell(&link);
    task.kind = gabion::model::ServiceKind::Task;
    rig.put("task", &task).await;
    assert!(rig.start("task").await.is_err());
    assert_eq!(read("target/sub/x"), "");
}
