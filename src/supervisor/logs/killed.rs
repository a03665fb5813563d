//! The promise of the room, tried with a real process that is killed again and again.

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
    use std::os::unix::process::CommandExt;
    use std::path::Path;
    use std::process::{Child, Command};

    use jiff::Timestamp;
    use rustix::io::{FdFlags, fcntl_setfd};
    use tokio::sync::watch;

    use super::super::{Kept, LogEngine, Watch, path, read};
    use crate::model::ServiceName;
    use crate::platforms::{LogQuery, LogStream};

    const KEY: &str = "GABION_TEST_LOGS";

    const LINES: usize = 150_000;

    const STREAMS: [LogStream; 2] = [LogStream::Stdout, LogStream::Stderr];

    fn name() -> ServiceName {
        ServiceName::new("web").unwrap()
    }

    fn adopt(engine: &LogEngine, pipes: [OwnedFd; 2]) -> super::super::Attached {
        let watch = Watch {
            looked_for: None,
            tick: watch::channel(0).0,
        };
        let streams = STREAMS.into_iter().zip(pipes).collect();
        engine.adopt(&name(), streams, watch, Timestamp::UNIX_EPOCH)
    }

    /// The process: does nothing unless the other test has started it.
    #[test]
    fn the_one_that_is_killed() {
        let Ok(told) = std::env::var(KEY) else { return };
        let mut told = told.split(' ');
        let dir = told.next().unwrap().to_owned();
        let mut fd = || {
            let number: RawFd = told.next().unwrap().parse().unwrap();
            // SAFETY: the other test has left it open for nobody else.
            unsafe { OwnedFd::from_raw_fd(number) }
        };
        let kept = Kept {
            stage: (fd(), fd()),
            journal: fd(),
        };
        let pipes = [fd(), fd()];
        let engine = LogEngine::start(Path::new(&dir), kept).unwrap();
        let _attached = adopt(&engine, pipes);
        loop {
            std::thread::park();
        }
    }

    fn spawn(dir: &Path, kept: &Kept, pipes: &[OwnedFd; 2]) -> Child {
        let fds = [
            &kept.stage.0,
            &kept.stage.1,
            &kept.journal,
            &pipes[0],
            &pipes[1],
        ];
        let fds = fds.map(AsRawFd::as_raw_fd);
        let numbers = fds.map(|fd| fd.to_string()).join(" ");
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([
                "--exact",
                "supervisor::logs::killed::tests::the_one_that_is_killed",
            ])
            .env(KEY, format!("{} {numbers}", dir.display()));
        // SAFETY: only system calls, between fork and exec.
        unsafe {
            command.pre_exec(move || {
                for fd in fds {
                    fcntl_setfd(BorrowedFd::borrow_raw(fd), FdFlags::empty())?;
                }
                Ok(())
            });
        }
        command.spawn().unwrap()
    }

    /// Writes numbered lines of all lengths, in pieces that end anywhere.
    fn writer(mut pipe: std::fs::File, seed: u64) -> std::thread::JoinHandle<()> {
        let mut random = fastrand::Rng::with_seed(seed);
        std::thread::spawn(move || {
            let mut text = Vec::new();
            for n in 0..LINES {
                writeln!(text, "{n} {}", "x".repeat(random.usize(0..40))).unwrap();
                if text.len() > random.usize(1..9000) {
                    let cut = random.usize(0..text.len());
                    pipe.write_all(&text[..cut]).unwrap();
                    text.drain(..cut);
                }
            }
            pipe.write_all(&text).unwrap();
        })
    }

    /// The reading and the writing end of a pipe.
    fn pipe() -> (OwnedFd, OwnedFd) {
        let (out, into) = std::io::pipe().unwrap();
        (out.into(), into.into())
    }

    /// The same of a terminal, which changes no byte.
    #[cfg(target_os = "linux")]
    fn terminal() -> (OwnedFd, OwnedFd) {
        let pty = nix::pty::openpty(None, None).unwrap();
        let mut modes = rustix::termios::tcgetattr(&pty.slave).unwrap();
        modes.make_raw();
        rustix::termios::tcsetattr(&pty.slave, rustix::termios::OptionalActions::Now, &modes)
            .unwrap();
        rustix::io::ioctl_fionbio(&pty.master, true).unwrap();
        (pty.master, pty.slave)
    }

    #[tokio::test]
    async fn no_line_is_lost_or_doubled_by_kills() {
        survives_kills([pipe(), pipe()]).await;
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn no_line_of_a_terminal_is_lost_or_doubled_by_kills() {
        survives_kills([terminal(), pipe()]).await;
    }

    async fn survives_kills(streams: [(OwnedFd, OwnedFd); 2]) {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        std::fs::create_dir(dir.join("logs")).unwrap();
        let kept = Kept::new().unwrap();
        let [(out, into), (err, into_err)] = streams;
        let pipes = [out, err];
        let writers = [writer(into.into(), seed), writer(into_err.into(), !seed)];
        let size = || {
            let files = (0..3).map(|age| path(dir, &name(), age));
            files
                .filter_map(|file| file.metadata().ok())
                .map(|file| file.len())
                .sum::<u64>()
        };
        let mut kills = 0;
        let written = || writers.iter().all(|writer| writer.is_finished());
        while !written() {
            let mut child = spawn(dir, &kept, &pipes);
            let enough = size() + random.u64(1..100_000);
            while size() < enough && !written() {
                std::thread::yield_now();
            }
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
        }
        let engine = LogEngine::start(dir, kept).unwrap();
        adopt(&engine, pipes).finish().await;
        let lines = read(dir, &name(), &LogQuery::default()).unwrap();
        assert!(kills > 10, "{kills}");
        for stream in STREAMS {
            let lines = lines.iter().filter(|line| line.stream == stream);
            let numbers: Vec<usize> = lines
                .map(|line| {
                    line.text
                        .split(' ')
                        .next()
                        .unwrap()
                        .parse()
                        .unwrap_or(usize::MAX)
                })
                .collect();
            let wrong = numbers
                .iter()
                .enumerate()
                .find(|(place, number)| place != *number);
            assert_eq!(wrong, None, "seed {seed}, {kills} kills");
            assert_eq!(numbers.len(), LINES, "seed {seed}, {kills} kills");
        }
    }
}
