//! A hermetic place to run gabion in: a folder for the project, a folder for its state, and an
//! environment with nothing of ours in it.
#![allow(dead_code)]

pub mod terminal;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// One project with its own `GABION_HOME`. Dropping it destroys what it started.
pub struct Project {
    pub dir: TempDir,
    pub home: PathBuf,
    /// Run as this user and group, where that is not who runs the tests.
    pub user: Option<(u32, u32)>,
    program: PathBuf,
}

impl Project {
    /// An empty project.
    pub fn empty() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let home = dir.path().join("state");
        let program = PathBuf::from(env!("CARGO_BIN_EXE_gabion"));
        Self {
            dir,
            home,
            user: None,
            program,
        }
    }

    /// A project with this manifest.
    pub fn new(manifest: &str) -> Self {
        let project = Self::empty();
        project.write("gabion.yaml", manifest);
        project
    }

    /// A project with a copy of `examples/<name>`.
    pub fn example(name: &str) -> Self {
        let project = Self::empty();
        let source = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("examples")
            .join(name);
        copy(&source, project.dir.path());
        project
    }

    /// Lets an ordinary user run it: a server that refuses to run as root needs one.
    pub fn run_as(&mut self, uid: u32, gid: u32) {
        let program = self.dir.path().join("gabion");
        // Not by this process: another test's fork would hold it open for writing, and it could not run.
        let copied = Command::new("cp").args([&self.program, &program]).status();
        assert!(copied.expect("cp").success());
        self.program = program;
        self.user = Some((uid, gid));
        chown(self.dir.path(), uid, gid);
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        std::fs::write(path, text).expect("a written file");
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("a readable file")
    }

    /// Replaces `from`, which has to be there, in the manifest.
    pub fn edit(&self, from: &str, to: &str) {
        let text = self.read("gabion.yaml");
        assert!(text.contains(from), "`{from}` is not in the manifest");
        self.write("gabion.yaml", &text.replace(from, to));
    }

    /// The command `gabion args…` in this project.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(args)
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.path())
            .env("GABION_HOME", &self.home)
            .env("LANG", "C.UTF-8")
            .env("TZ", "UTC")
            .stdin(Stdio::null());
        if let Some((uid, gid)) = self.user {
            use std::os::unix::process::CommandExt;
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Runs `gabion args…` to its end.
    pub fn run(&self, args: &[&str]) -> Run {
        Run(self.command(args).output().expect("gabion runs"))
    }

    /// Runs `gabion args…`, which has to exit with 0.
    pub fn ok(&self, args: &[&str]) -> Run {
        let run = self.run(args);
        assert!(run.0.status.success(), "gabion {args:?}\n{run}");
        run
    }

    /// `gabion status --json`.
    pub fn status(&self, args: &[&str]) -> Value {
        let args: Vec<&str> = args.iter().copied().chain(["status", "--json"]).collect();
        serde_json::from_str(&self.ok(&args).stdout()).expect("JSON")
    }

    /// Each service's state, pid and readiness, by address.
    pub fn services(&self) -> BTreeMap<String, Value> {
        let status = self.status(&[]);
        let rows = status["services"].as_array().expect("services").clone();
        rows.into_iter()
            .map(|row| (row["address"].as_str().expect("text").to_owned(), row))
            .collect()
    }

    /// The pid of a service that has one.
    pub fn pid(&self, address: &str) -> u64 {
        self.services()[address]["pid"]
            .as_u64()
            .unwrap_or_else(|| panic!("{address} has no pid"))
    }

    /// Every process whose environment or command line names this project.
    pub fn processes(&self) -> Vec<u32> {
        let mark = self.dir.path().to_str().expect("text").as_bytes().to_vec();
        let contains = |path: PathBuf| {
            std::fs::read(path)
                .is_ok_and(|bytes| bytes.windows(mark.len()).any(|window| window == mark))
        };
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| {
            let cwd = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
            *pid != std::process::id()
                && (contains(format!("/proc/{pid}/cmdline").into())
                    || cwd.starts_with(self.dir.path()))
        })
        .collect()
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let destroyed = self
            .command(&["destroy", "--yes", "--lock-timeout", "30s"])
            .output();
        let clean = destroyed.is_ok_and(|output| output.status.success());
        if !clean {
            for pid in self.processes() {
                let _ = Command::new("kill").args(["-9", &pid.to_string()]).output();
            }
        }
    }
}

/// How a command ended.
pub struct Run(pub Output);

impl Run {
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    pub fn code(&self) -> Option<i32> {
        self.0.status.code()
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "exit: {}\n--- stdout\n{}--- stderr\n{}",
            self.0.status,
            self.stdout(),
            self.stderr()
        )
    }
}

/// The command where no folder can be watched, because there are no watchers left.
#[cfg(target_os = "linux")]
pub fn blind(gabion: &Command) -> Command {
    let none_left = "echo 0 >/proc/sys/user/max_inotify_instances && exec \"$@\"";
    let mut blind = Command::new("unshare");
    blind
        .args(["--user", "--map-root-user", "sh", "-c", none_left, "sh"])
        .arg(gabion.get_program())
        .args(gabion.get_args())
        .current_dir(gabion.get_current_dir().expect("a folder"))
        .env_clear()
        .envs(
            gabion
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .stdin(Stdio::null());
    blind
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// Waits until `condition` holds; gives up after a minute with what `describe` says.
pub fn eventually(describe: &str, mut condition: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !condition() {
        assert!(
            std::time::Instant::now() < deadline,
            "never happened: {describe}"
        );
        std::thread::yield_now();
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder").flatten() {
        let target = to.join(entry.file_name());
        match entry.file_type().expect("a type").is_dir() {
            true if entry.file_name() == "__pycache__" => {}
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).expect("a copy")),
        }
    }
}

fn chown(path: &Path, uid: u32, gid: u32) {
    std::os::unix::fs::chown(path, Some(uid), Some(gid)).expect("a changed owner");
    if path.is_dir() {
        for entry in std::fs::read_dir(path).expect("a folder").flatten() {
            chown(&entry.path(), uid, gid);
        }
    }
}
