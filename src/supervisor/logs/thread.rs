//! The thread that does all input and output of logs.
//!
//! It takes turns: at most a chunk of each stream, so that a service that floods its log holds up no
//! other, and a disk that hangs holds up nobody but those who write to it.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use jiff::Timestamp;
use rustix::io::{Errno, ioctl_fionbio, ioctl_fionread};
use tokio::sync::watch;

use super::CHUNK;
use super::batch::{Carrier, Taken};
use super::engine::{Attach, Command};
use super::follow::Follower;
use super::journal::Whose;
use super::os::Poller;
use super::seen::Search;
use crate::model::ServiceName;
use crate::platforms::{LogQuery, LogStream};

/// The key of the pipe by which the thread is woken.
const WOKEN: u64 = 0;

/// The thread.
pub(super) struct Thread {
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
    /// `woken` is readable when there is something in the queue.
    pub(super) fn new(
        dir: &Path,
        carrier: Carrier,
        queue: mpsc::Receiver<Command>,
        woken: OwnedFd,
    ) -> io::Result<Self> {
        let mut poller = Poller::new()?;
        poller.add(&woken, WOKEN)?;
        Ok(Self {
            dir: dir.to_owned(),
            carrier,
            poller,
            queue,
            woken,
            services: HashMap::new(),
            sources: HashMap::new(),
            next: WOKEN + 1,
        })
    }

    /// Runs until nobody can send a command any more.
    pub(super) fn run(mut self) {
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
                // What is in the stage is not the next one's.
                if let Err(error) = self.carrier.recover() {
                    tracing::error!(%error, "a batch is left half done");
                }
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
                // What a terminal holds is not all known before it is read.
                Some(source) => ioctl_fionread(&source.pipe).unwrap_or(0).max(CHUNK as u64),
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
