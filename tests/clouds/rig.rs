//! A server of its own for each test, as a program, and projects that live on it.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use gabion::platforms::Act;
use gabion::platforms::local::Local;
use serde_json::Value;

use crate::common::{Project, Run};

const EXE: &str = env!("CARGO_BIN_EXE_gabion");

/// What no output may show.
pub const TOKEN: &str = "planted-token-b71f0c";

/// `gabion serve`, and what it was asked.
pub struct Cloud {
    pub url: String,
    home: tempfile::TempDir,
    log: PathBuf,
    server: Child,
}

impl Cloud {
    pub fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let log = home.path().join("requests.jsonl");
        let mut server = Command::new(EXE)
            .args(["serve", "--listen", "127.0.0.1:0", "--token", TOKEN])
            .arg("--request-log")
            .arg(&log)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", home.path())
            .env("GABION_HOME", home.path().join("state"))
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        let mut stdout = BufReader::new(server.stdout.take().unwrap());
        stdout.read_line(&mut ready).unwrap();
        let url = ready.trim().strip_prefix("ready ").unwrap().to_owned();
        Self {
            url,
            home,
            log,
            server,
        }
    }

    /// The last segments of the paths that were asked for since `from`, and how many there are now.
    pub fn requests(&self, from: usize) -> (Vec<String>, usize) {
        let text = std::fs::read_to_string(&self.log).unwrap();
        let lines: Vec<_> = text.lines().collect();
        let last = |line: &&str| {
            let logged: Value = serde_json::from_str(line).unwrap();
            let path = logged["path"].as_str().unwrap();
            path.rsplit(['/', '.']).next().unwrap().to_owned()
        };
        (lines[from..].iter().map(last).collect(), lines.len())
    }
}

impl Drop for Cloud {
    /// Ends the server, and then everything that it has left.
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        let home = self.home.path().join("state");
        let removing = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async {
                let stacks = std::fs::read_dir(home.join("sandboxes"));
                for stack in stacks.into_iter().flatten().flatten() {
                    let stack = stack.file_name().into_string().unwrap();
                    let local = Local::new(&home, stack, EXE);
                    for sandbox in local.sandboxes().unwrap() {
                        local.delete_sandbox(&sandbox).await.unwrap();
                    }
                }
            });
        });
        let removed = removing.join();
        assert!(removed.is_ok() || std::thread::panicking());
    }
}

/// Whether a run has changed nothing and would change nothing.
pub fn no_changes(run: &Run) -> bool {
    run.stdout().contains("No changes")
}

/// A project whose state is elsewhere: another machine with the same manifest.
pub fn elsewhere(project: &Project) -> Project {
    let mut other = Project::new(&project.read("gabion.yaml"));
    other.home = other.path("another-state");
    other
}
