//! How the rest of the supervisor reaches the thread of the logs: by a queue, which does not block.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, mpsc};

use jiff::Timestamp;
use rustix::io::{Errno, ioctl_fionbio};
use tokio::sync::{oneshot, watch};

use super::batch::Carrier;
use super::os::Kept;
use super::thread::Thread;
use crate::model::ServiceName;
use crate::platforms::LogStream;

/// What an owner wants to know of its service's output.
#[derive(Debug)]
pub(in crate::supervisor) struct Watch {
    /// A text that a line has to contain.
    pub looked_for: Option<String>,
    /// Counts the batches.
    pub tick: watch::Sender<u64>,
}

/// The logs of one sandbox. Ends with the last of its copies, and of what is attached to it.
#[derive(Debug, Clone)]
pub(in crate::supervisor) struct LogEngine(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    commands: mpsc::Sender<Command>,
    /// One byte wakes the thread; its end, when this is dropped, ends it.
    wake: OwnedFd,
}

/// The output of one process, on its way into the log.
#[derive(Debug)]
pub(in crate::supervisor) struct Attached {
    engine: LogEngine,
    id: u64,
    seen: watch::Receiver<bool>,
    trouble: watch::Receiver<Option<String>>,
}

/// What the thread is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    Attach(Box<Attach>),
    Finish {
        id: u64,
        done: Option<oneshot::Sender<()>>,
    },
}

/// The output of one process, for the thread.
#[derive(Debug)]
pub(super) struct Attach {
    pub id: u64,
    pub name: ServiceName,
    pub streams: Vec<(LogStream, OwnedFd)>,
    /// For one that was attached before: since when it runs.
    pub adopted: Option<Timestamp>,
    pub watch: Watch,
    pub seen: watch::Sender<bool>,
    pub trouble: watch::Sender<Option<String>>,
}

impl LogEngine {
    /// Finishes what the journal says was begun, and starts the thread. `dir` is the sandbox's folder.
    pub(in crate::supervisor) fn start(dir: &Path, kept: Kept) -> io::Result<Self> {
        let mut carrier = Carrier::new(dir, kept)?;
        if let Err(error) = carrier.recover() {
            // Lines may be lost, but services are not without a supervisor.
            tracing::error!(%error, "what was being written cannot be finished");
            carrier.abandon()?;
        }
        let (commands, queue) = mpsc::channel();
        let (woken, wake) = io::pipe()?;
        let woken = OwnedFd::from(woken);
        let wake = OwnedFd::from(wake);
        ioctl_fionbio(&woken, true)?;
        ioctl_fionbio(&wake, true)?;
        let thread = Thread::new(dir, carrier, queue, woken)?;
        std::thread::Builder::new()
            .name("logs".to_owned())
            .stack_size(256 << 10)
            .spawn(move || thread.run())?;
        Ok(Self(Arc::new(Shared { commands, wake })))
    }

    /// Takes the output of a new process, from the reading ends of its pipes.
    pub(in crate::supervisor) fn attach(
        &self,
        name: &ServiceName,
        streams: Vec<(LogStream, OwnedFd)>,
        watch: Watch,
    ) -> Attached {
        self.bring(name, streams, watch, None)
    }

    /// The same for a process that an earlier supervisor has started, at `since`: goes on with its
    /// lines, and looks for the text in what it has written so far.
    pub(in crate::supervisor) fn adopt(
        &self,
        name: &ServiceName,
        streams: Vec<(LogStream, OwnedFd)>,
        watch: Watch,
        since: Timestamp,
    ) -> Attached {
        self.bring(name, streams, watch, Some(since))
    }

    fn bring(
        &self,
        name: &ServiceName,
        streams: Vec<(LogStream, OwnedFd)>,
        watch: Watch,
        adopted: Option<Timestamp>,
    ) -> Attached {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let id = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (seen, sees) = watch::channel(false);
        let (trouble, troubles) = watch::channel(None);
        let name = name.clone();
        let attach = Attach {
            id,
            name,
            streams,
            adopted,
            watch,
            seen,
            trouble,
        };
        self.send(Command::Attach(Box::new(attach)));
        Attached {
            engine: self.clone(),
            id,
            seen: sees,
            trouble: troubles,
        }
    }

    fn send(&self, command: Command) {
        if self.0.commands.send(command).is_err() {
            tracing::error!("the thread of the logs has ended");
        }
        loop {
            match rustix::io::write(&self.0.wake, &[0]) {
                Err(Errno::INTR) => {}
                // Full: it is being woken.
                _ => return,
            }
        }
    }
}

impl Attached {
    /// Whether the text looked for was seen.
    pub(in crate::supervisor) fn seen(&self) -> watch::Receiver<bool> {
        self.seen.clone()
    }

    /// Why output is being lost, if it is.
    pub(in crate::supervisor) fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.trouble.clone()
    }

    /// Takes what is in the pipes now, even if somebody else still holds their other ends, closes
    /// them, and ends the line that stands open. To be called once the process has ended.
    pub(in crate::supervisor) async fn finish(self) {
        let (done, is_done) = oneshot::channel();
        let id = self.id;
        self.engine.send(Command::Finish {
            id,
            done: Some(done),
        });
        if is_done.await.is_err() {
            tracing::error!("the output of a service was not read to its end");
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // Of one that is finished nothing is left.
        self.engine.send(Command::Finish {
            id: self.id,
            done: None,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::super::journal::Whose;
    use super::*;
    use crate::platforms::LogQuery;

    struct Rig {
        dir: tempfile::TempDir,
        name: ServiceName,
    }

    fn rig() -> Rig {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("logs")).unwrap();
        let name = ServiceName::new("web").unwrap();
        Rig { dir, name }
    }

    fn pipe() -> (OwnedFd, std::fs::File) {
        let (source, into) = io::pipe().unwrap();
        (source.into(), OwnedFd::from(into).into())
    }

    fn watch_for(text: &str) -> Watch {
        Watch {
            looked_for: Some(text.to_owned()),
            tick: watch::channel(0).0,
        }
    }

    fn texts(rig: &Rig) -> Vec<String> {
        let query = LogQuery::default();
        let lines = super::super::read(rig.dir.path(), &rig.name, &query).unwrap();
        lines.into_iter().map(|line| line.text).collect()
    }

    #[tokio::test]
    async fn finish_takes_what_is_there_though_somebody_holds_the_pipe() {
        let rig = rig();
        let engine = LogEngine::start(rig.dir.path(), Kept::new().unwrap()).unwrap();
        let (out, mut into) = pipe();
        let (err, mut into_err) = pipe();
        let streams = vec![(LogStream::Stdout, out), (LogStream::Stderr, err)];
        let attached = engine.attach(&rig.name, streams, watch_for("never"));
        into.write_all(b"one\ntwo").unwrap();
        into_err.write_all(b"three").unwrap();
        let seen = attached.seen();
        attached.finish().await;
        let mut texts = texts(&rig);
        texts.sort();
        assert_eq!(texts, ["one", "three", "two"]);
        assert!(!*seen.borrow());
        // Nobody reads it any more.
        assert!(into.write_all(b"x").is_err());
    }

    #[tokio::test]
    async fn a_successor_finds_what_was_said_before_it_came() {
        let rig = rig();
        let (out, mut into) = pipe();
        let since = Timestamp::now() - std::time::Duration::from_secs(1);
        let mut carrier = Carrier::new(rig.dir.path(), Kept::new().unwrap()).unwrap();
        let whose = Whose {
            name: rig.name.clone(),
            stream: LogStream::Stdout,
            continues: false,
        };
        into.write_all(b"on\nI am rea").unwrap();
        carrier.take(out.as_fd(), whose, 100, &mut |_| {}).unwrap();
        let engine = LogEngine::start(rig.dir.path(), Kept::new().unwrap()).unwrap();
        let streams = vec![(LogStream::Stdout, out)];
        let attached = engine.adopt(&rig.name, streams, watch_for("ready"), since);
        into.write_all(b"dy\n").unwrap();
        attached.seen().wait_for(|seen| *seen).await.unwrap();
        attached.finish().await;
        assert_eq!(texts(&rig), ["on", "I am ready"]);
        let (out, _into) = pipe();
        let streams = vec![(LogStream::Stdout, out)];
        let late = engine.adopt(&rig.name, streams, watch_for("am ready"), since);
        late.seen().wait_for(|seen| *seen).await.unwrap();
    }

    #[tokio::test]
    async fn a_flood_does_not_starve_another() {
        let rig = rig();
        let engine = LogEngine::start(rig.dir.path(), Kept::new().unwrap()).unwrap();
        let flood = ServiceName::new("flood").unwrap();
        let (out, mut into) = pipe();
        let streams = vec![(LogStream::Stdout, out)];
        let flooding = engine.attach(&flood, streams, watch_for("never"));
        // Ends when nobody reads any more.
        let flooder = std::thread::spawn(move || while into.write_all(&[b'\n'; 4096]).is_ok() {});
        let (out, mut into) = pipe();
        let streams = vec![(LogStream::Stdout, out)];
        let attached = engine.attach(&rig.name, streams, watch_for("line 49"));
        for n in 0..50 {
            into.write_all(format!("line {n}\n").as_bytes()).unwrap();
        }
        attached.seen().wait_for(|seen| *seen).await.unwrap();
        attached.finish().await;
        assert_eq!(texts(&rig).len(), 50);
        flooding.finish().await;
        flooder.join().unwrap();
    }

    #[test]
    fn a_journal_that_cannot_be_read_costs_lines_and_no_supervisor() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("logs")).unwrap();
        let kept = Kept::new().unwrap();
        let journal = std::fs::File::from(kept.journal.try_clone().unwrap());
        std::os::unix::fs::FileExt::write_all_at(&journal, &[0xff; 512], 0).unwrap();
        LogEngine::start(dir.path(), kept).unwrap();
    }
}
