//! Programs on a terminal of their own.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::Project;

const PATIENCE: Duration = Duration::from_secs(60);

/// A program on a terminal of its own.
pub struct Terminal {
    child: Child,
    screen: File,
    seen: String,
}

impl Terminal {
    fn start(mut command: Command) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours: OwnedFd = openpt(flags).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        resize(&ours, 80, 24);
        let name = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
        let open = || File::options().read(true).write(true).open(&name).unwrap();
        command
            .env("TERM", "xterm-256color")
            .stdin(open())
            .stdout(open())
            .stderr(open());
        // SAFETY: both are system calls and nothing else.
        unsafe {
            command.pre_exec(|| {
                rustix::process::setsid()?;
                Ok(rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?)
            });
        }
        let child = command.spawn().unwrap();
        // The command holds our ends of the terminal: without them, its end is ours too.
        drop(command);
        Self {
            child,
            screen: File::from(ours),
            seen: String::new(),
        }
    }

    pub fn gabion(project: &Project, args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut command = project.command(args);
        command.envs(env.iter().copied());
        Self::start(command)
    }

    pub fn resize(&self, width: u16, height: u16) {
        resize(&self.screen, width, height);
    }

    pub fn send(&mut self, keys: &str) {
        self.screen.write_all(keys.as_bytes()).unwrap();
    }

    /// Reads until `text` was written.
    pub fn expect(&mut self, text: &str) {
        let began = Instant::now();
        while !self.seen.contains(text) {
            assert!(self.read(), "ended without `{text}`:\n{}", self.seen);
            assert!(began.elapsed() < PATIENCE, "no `{text}`:\n{}", self.seen);
        }
    }

    /// Types the same again and again, until `text` was written.
    pub fn type_until(&mut self, keys: &str, text: &str) {
        let began = Instant::now();
        while !self.seen.contains(text) {
            self.send(keys);
            let reads = self.read() && began.elapsed() < PATIENCE;
            assert!(reads, "no `{text}`:\n{}", self.seen);
        }
    }

    /// Whether there was something to read.
    fn read(&mut self) -> bool {
        let mut bytes = [0; 4096];
        // The other end closed is an error on Linux.
        let length = self.screen.read(&mut bytes).unwrap_or(0);
        self.seen
            .push_str(&String::from_utf8_lossy(&bytes[..length]));
        length > 0
    }

    /// Everything that was written, and the exit code.
    pub fn end(mut self) -> (String, Option<i32>) {
        while self.read() {}
        let code = self.child.wait().unwrap().code();
        (self.seen, code)
    }
}

fn resize(terminal: impl AsFd, width: u16, height: u16) {
    let size = Winsize {
        ws_row: height,
        ws_col: width,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).unwrap();
}
