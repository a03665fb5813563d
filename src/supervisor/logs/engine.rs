//! The thread that does all input and output of logs, and how the rest of the supervisor reaches it.
//!
//! It takes turns: at most a chunk of each stream, so that a service that floods its log holds up no
//! other, and a disk that hangs holds up nobody but those who write to it.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use jiff::Timestamp;
use rustix::io::{Errno, ioctl_fionbio, ioctl_fionread};
use tokio::sync::{oneshot, watch};

use super::batch::{Carrier, Taken};
use super::follow::Follower;
use super::journal::Whose;
use super::os::{Kept, Poller};
use super::seen::Search;
use crate::model::ServiceName;
use crate::platforms::{LogQuery, LogStream};

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

#[derive(Debug)]
enum Command {
    Attach(Box<Attach>),
    Finish {
        id: u64,
        done: Option<oneshot::Sender<()>>,
    },
}

#[derive(Debug)]
struct Attach {
    id: u64,
    name: ServiceName,
    streams: Vec<(LogStream, OwnedFd)>,
    /// For one that was attached before: since when it runs.
    adopted: Option<Timestamp>,
    watch: Watch,
    seen: watch::Sender<bool>,
    trouble: watch::Sender<Option<String>>,
}

impl LogEngine {
    /// Finishes what the journal says was begun, and starts the thread. `dir` is the sandbox's folder.
    pub(in crate::supervisor) fn start(dir: &Path, kept: Kept) -> io::Result<Self> {
        let mut carrier = Carrier::new(dir, kept)?;
        carrier.recover()?;
        let (commands, queue) = mpsc::channel();
        let (woken, wake) = io::pipe()?;
        let woken = OwnedFd::from(woken);
        let wake = OwnedFd::from(wake);
        ioctl_fionbio(&woken, true)?;
        ioctl_fionbio(&wake, true)?;
        let mut poller = Poller::new()?;
        poller.add(&woken, WOKEN)?;
        let thread = Thread {
            dir: dir.to_owned(),
            carrier,
            poller,
            queue,
            woken,
            services: HashMap::new(),
            sources: HashMap::new(),
            next: WOKEN + 1,
        };
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
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "for the take-over of live services")
    )]
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

/// The key of the pipe by which the thread is woken.
const WOKEN: u64 = 0;

struct Thread {
    dir: PathBuf,
    carrier: Carrier,
    poller: Poller,
    queue: mpsc::Receiver<Command>,
    woken: OwnedFd,
    services: HashMap<u64, Service>,
    sources: HashMap<u64, Source>,
    next: u64,
}

struct Service {
    name: ServiceName,
    tick: watch::Sender<u64>,
    trouble: watch::Sender<Option<String>>,
    /// What is looked for, until it is seen.
    search: Option<Search>,
}

struct Source {
    service: u64,
    pipe: OwnedFd,
    stream: LogStream,
    /// Whether a line of it may stand open in the log.
    open: bool,
    ended: bool,
}

impl Thread {
    fn run(mut self) {
        loop {
            let ready = match self.poller.wait() {
                Ok(ready) => ready,
                Err(error) => return tracing::error!(%error, "the logs are not written any more"),
            };
            if ready.contains(&WOKEN) && !self.obey() {
                return;
            }
            for key in ready.into_iter().filter(|key| *key != WOKEN) {
                self.turn(key, usize::MAX);
            }
        }
    }

    /// Carries out what was asked for. Says whether there may be more to come.
    fn obey(&mut self) -> bool {
        let mut bytes = [0; 256];
        while matches!(
            rustix::io::read(&self.woken, &mut bytes),
            Ok(256) | Err(Errno::INTR)
        ) {}
        loop {
            match self.queue.try_recv() {
                Ok(Command::Attach(attach)) => self.attach(*attach),
                Ok(Command::Finish { id, done }) => {
                    self.finish(id);
                    // Whoever asked may have gone.
                    let _ = done.map(|done| done.send(()));
                }
                Err(mpsc::TryRecvError::Empty) => return true,
                Err(mpsc::TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn attach(&mut self, attach: Attach) {
        let Attach {
            id,
            name,
            streams,
            adopted,
            watch,
            seen,
            trouble,
        } = attach;
        let mut search = watch.looked_for.map(|text| Search::new(text, seen));
        if let (Some(looking), Some(since)) = (&mut search, adopted) {
            match self.search_log(looking, &name, since) {
                Ok(()) => search = search.filter(|search| !search.is_over()),
                Err(error) => tracing::warn!(service = %name, %error, "its log cannot be read"),
            }
        }
        self.carrier.open(&name);
        tell(&trouble, self.carrier.trouble(&name));
        let tick = watch.tick;
        for (stream, pipe) in streams {
            let key = self.next;
            self.next += 1;
            let watched = ioctl_fionbio(&pipe, true)
                .map_err(io::Error::from)
                .and_then(|()| self.poller.add(&pipe, key));
            if let Err(error) = watched {
                tracing::error!(service = %name, %error, "its output is not read");
                trouble.send_replace(Some(format!("output is not read: {error}")));
                continue;
            }
            let open = adopted.is_some();
            let source = Source {
                service: id,
                pipe,
                stream,
                open,
                ended: false,
            };
            self.sources.insert(key, source);
        }
        self.services.insert(
            id,
            Service {
                name,
                tick,
                trouble,
                search,
            },
        );
    }

    /// Looks for a text in what was written before this supervisor was there.
    fn search_log(
        &self,
        search: &mut Search,
        name: &ServiceName,
        since: Timestamp,
    ) -> io::Result<()> {
        let query = LogQuery {
            since: Some(since),
            ..LogQuery::default()
        };
        let mut follower = Follower::open(&self.dir, name, &query)?;
        loop {
            let lines = follower.read()?;
            if lines.is_empty() {
                break;
            }
            for line in lines {
                search.line(&line, true);
            }
        }
        for line in follower.unfinished() {
            search.line(&line, false);
        }
        Ok(())
    }

    /// Takes at most one chunk of a stream.
    fn turn(&mut self, key: u64, most: usize) -> Option<Taken> {
        let source = self.sources.get_mut(&key).filter(|source| !source.ended)?;
        let service = self.services.get_mut(&source.service)?;
        let (name, stream) = (service.name.clone(), source.stream);
        let whose = Whose {
            name,
            stream,
            continues: source.open,
        };
        let search = &mut service.search;
        let mut look = |bytes: &[u8]| {
            if let Some(search) = search {
                search.bytes(stream, bytes);
            }
        };
        let taken = self
            .carrier
            .take(source.pipe.as_fd(), whose, most, &mut look);
        if search.as_ref().is_some_and(Search::is_over) {
            *search = None;
        }
        match &taken {
            Ok(Taken::Bytes { open, .. }) => {
                source.open = *open;
                tell(&service.trouble, self.carrier.trouble(&service.name));
                service.tick.send_modify(|tick| *tick += 1);
            }
            Ok(Taken::Nothing) => {}
            Ok(Taken::End) => source.ended = true,
            Err(error) => {
                tracing::error!(service = %service.name, %error, "its output is not read any more");
                tell(&service.trouble, Some(error.to_string()));
                source.ended = true;
            }
        }
        if source.ended {
            // It would be told of again and again.
            let _ = self.poller.remove(&source.pipe, key);
        }
        taken.ok()
    }

    fn finish(&mut self, id: u64) {
        let keys = self
            .sources
            .iter()
            .filter(|(_, source)| source.service == id);
        let mut keys: Vec<_> = keys.map(|(key, _)| *key).collect();
        keys.sort_unstable();
        for key in &keys {
            // Whoever has left the session may write for ever; only what is there now is awaited.
            let mut left = match self.sources.get(key) {
                Some(source) => ioctl_fionread(&source.pipe).unwrap_or(u64::from(u32::MAX)),
                None => 0,
            };
            while left > 0 {
                match self.turn(*key, usize::try_from(left).unwrap_or(usize::MAX)) {
                    Some(Taken::Bytes { length, .. }) => left = left.saturating_sub(length),
                    Some(Taken::Nothing | Taken::End) | None => break,
                }
            }
        }
        let Some(service) = self.services.remove(&id) else {
            return;
        };
        for key in keys {
            let Some(source) = self.sources.remove(&key) else {
                continue;
            };
            if !source.ended {
                let _ = self.poller.remove(&source.pipe, key);
            }
            let (name, stream) = (service.name.clone(), source.stream);
            let whose = Whose {
                name,
                stream,
                continues: source.open,
            };
            if let Err(error) = self.carrier.end_line(&whose) {
                tracing::warn!(service = %service.name, %error, "its last line stands open");
            }
        }
        service.tick.send_modify(|tick| *tick += 1);
        self.close_log(&service.name);
    }

    fn close_log(&mut self, name: &ServiceName) {
        if !self.services.values().any(|service| service.name == *name) {
            self.carrier.forget(name);
        }
    }
}

fn tell(trouble: &watch::Sender<Option<String>>, now: Option<String>) {
    let now = now.map(|why| format!("output is lost: {why}"));
    trouble.send_if_modified(|last| {
        let changed = *last != now;
        *last = now;
        changed
    });
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

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
}
