//! The parent of all processes of a sandbox: executes, holds what must outlive a supervisor, tells of
//! ends, reaps. Decides nothing, and never waits.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use super::os;
use super::program::{Terms, execute};
use super::unix;
use super::wire::{Answer, Channel, ChildId, End, Held, Hello, Request, Spawn};

/// How often those who were orphaned are looked for, while ends come in one after another.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// How long nothing is asked for before memory is given back.
const QUIET: Duration = Duration::from_secs(1);

/// What is held for one child.
#[derive(Debug)]
struct Child {
    key: String,
    pid: u32,
    started_at: i64,
    pidfd: Option<OwnedFd>,
    ends: [Option<OwnedFd>; 3],
    end: Option<End>,
}

/// What a supervisor has left for the next one.
#[derive(Debug)]
struct Note {
    text: String,
    descriptors: Vec<OwnedFd>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Children {
    hello: Hello,
    /// The folder that children see as `/`.
    root: OwnedFd,
    terms: Terms,
    children: BTreeMap<ChildId, Child>,
    notes: BTreeMap<String, Note>,
    exits: os::Exits,
    channel: Option<Channel>,
    /// When to look for orphans that have ended.
    look: Option<Instant>,
    looked: Option<Instant>,
    /// When it will have been quiet, if it was not yet.
    quiet: Option<Instant>,
}

impl Children {
    pub(super) fn new(hello: Hello, terms: Terms) -> io::Result<Self> {
        Ok(Self {
            hello,
            root: std::fs::File::open("/")?.into(),
            terms,
            children: BTreeMap::new(),
            notes: BTreeMap::new(),
            exits: os::Exits::new()?,
            channel: None,
            look: None,
            looked: None,
            quiet: None,
        })
    }

    /// Begins to serve a supervisor, in the place of the one before: tells it all there is.
    pub(super) fn connect(&mut self, socket: OwnedFd) -> io::Result<()> {
        // What the one before has said last is done first: its successor is told how things are then.
        self.converse();
        let mut channel = Channel::new(socket)?;
        let root = vec![self.root.try_clone()?];
        channel.send(&Answer::Hello(self.hello.clone()), root)?;
        for (id, child) in &self.children {
            channel.send(&Answer::Child(held(*id, child)), descriptors(child)?)?;
        }
        for (key, note) in &self.notes {
            let descriptors = dup_all(&note.descriptors)?;
            let kept = Answer::Kept {
                key: key.clone(),
                note: note.text.clone(),
                descriptors: descriptors.len(),
            };
            channel.send(&kept, descriptors)?;
        }
        channel.send(&Answer::Told, Vec::new())?;
        self.channel = Some(channel);
        Ok(())
    }

    /// The socket to a supervisor, and whether something waits to be sent there.
    pub(super) fn channel(&self) -> Option<(BorrowedFd<'_>, bool)> {
        let channel = self.channel.as_ref()?;
        Some((channel.as_fd(), channel.is_full()))
    }

    /// Becomes readable when a child ends, where the kernel can tell.
    pub(super) fn exits(&self) -> Option<BorrowedFd<'_>> {
        self.exits.as_fd()
    }

    /// How long may be slept until there is something to do.
    pub(super) fn patience(&self) -> Option<Duration> {
        let due = self.look.into_iter().chain(self.quiet).min()?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    /// Reads and does what the supervisor asks for; sends what there is to say. A broken conversation
    /// is over: the supervisor has ended, or is about to.
    pub(super) fn converse(&mut self) {
        let Some(mut channel) = self.channel.take() else {
            return;
        };
        match self.serve(&mut channel) {
            Ok(true) => self.channel = Some(channel),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "the supervisor is not understood"),
        }
    }

    fn serve(&mut self, channel: &mut Channel) -> io::Result<bool> {
        let open = channel.fill()?;
        while let Some((request, descriptors)) = channel.next()? {
            self.request(request, descriptors, channel)?;
        }
        if !open {
            return Ok(false);
        }
        match channel.flush() {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            other => other.map(|()| true),
        }
    }

    fn request(
        &mut self,
        request: Request,
        descriptors: Vec<OwnedFd>,
        channel: &mut Channel,
    ) -> io::Result<()> {
        match request {
            Request::Spawn(spawn) => {
                self.quiet = Some(Instant::now() + QUIET);
                self.spawn(*spawn, descriptors, channel)
            }
            Request::Release { id } => {
                if let Some(child) = self.children.remove(&id) {
                    self.exits.remove(child.pidfd.as_ref());
                    unix::reap(child.pid);
                    self.look_soon();
                }
                Ok(())
            }
            Request::Keep { key, note, .. } => {
                let text = note;
                self.notes.insert(key, Note { text, descriptors });
                Ok(())
            }
            Request::Drop { key } => {
                self.notes.remove(&key);
                Ok(())
            }
        }
    }

    fn spawn(
        &mut self,
        spawn: Spawn,
        given: Vec<OwnedFd>,
        channel: &mut Channel,
    ) -> io::Result<()> {
        let id = spawn.id;
        let started_at = jiff::Timestamp::now().as_microsecond();
        let executed = match execute(&spawn, given, &self.terms) {
            Ok(executed) => executed,
            Err(obstacle) => return channel.send(&Answer::Failed { id, obstacle }, Vec::new()),
        };
        let child = Child {
            key: spawn.key.clone(),
            pid: executed.pid,
            started_at,
            pidfd: os::pidfd(executed.pid),
            ends: executed.ends,
            end: None,
        };
        self.exits.add(id, child.pidfd.as_ref());
        if let Some(text) = spawn.note {
            // What was held beside the old note stays.
            let before = self.notes.remove(&spawn.key);
            let descriptors = before.map_or_else(Vec::new, |note| note.descriptors);
            self.notes.insert(spawn.key, Note { text, descriptors });
        }
        let told = descriptors(&child)
            .and_then(|with| channel.send(&Answer::Spawned(held(id, &child)), with));
        self.children.insert(id, child);
        told
    }

    /// After children have ended: notes how, tells the supervisor, reaps those who are nobody's.
    pub(super) fn ended(&mut self) {
        let pids = |child: &Child| (child.end.is_none()).then_some(child.pid);
        let living = self
            .children
            .iter()
            .filter_map(|(id, c)| Some((*id, pids(c)?)));
        let candidates = self.exits.candidates(living);
        for id in candidates {
            let Some(child) = self.children.get_mut(&id) else {
                continue;
            };
            if child.end.is_some() {
                continue;
            }
            let Some(end) = unix::peek_end(child.pid) else {
                continue;
            };
            child.end = Some(end);
            if let Some(channel) = &mut self.channel
                && let Err(error) = channel.send(&Answer::Ended { id, end }, Vec::new())
            {
                tracing::warn!(%error, "an end is not told");
            }
        }
        self.look_soon();
    }

    fn look_soon(&mut self) {
        let now = Instant::now();
        let due = self.looked.map_or(now, |looked| looked + BETWEEN_LOOKS);
        self.look.get_or_insert(due.max(now));
    }

    /// Reaps the orphans that have ended, and gives back memory, if it is time to. `others` are somebody
    /// else's to reap.
    pub(super) fn tidy(&mut self, others: &[u32]) {
        if self.quiet.is_some_and(|due| due <= Instant::now()) {
            self.quiet = None;
            os::give_back_memory();
        }
        if self.look.is_none_or(|due| due > Instant::now()) {
            return;
        }
        self.look = None;
        self.looked = Some(Instant::now());
        let mut known: BTreeSet<u32> = self.children.values().map(|child| child.pid).collect();
        known.extend(others);
        os::reap_all_but(&known);
    }

    /// Kills every session, for the end of the sandbox.
    pub(super) fn kill(&self) {
        for child in self.children.values() {
            unix::kill_group(child.pid);
        }
    }
}

fn held(id: ChildId, child: &Child) -> Held {
    Held {
        id,
        key: child.key.clone(),
        pid: child.pid,
        started_at: child.started_at,
        pidfd: child.pidfd.is_some(),
        piped: [0, 1, 2].map(|index| child.ends[index].is_some()),
        end: child.end,
    }
}

fn descriptors(child: &Child) -> io::Result<Vec<OwnedFd>> {
    dup_all(child.pidfd.iter().chain(child.ends.iter().flatten()))
}

fn dup_all<'a>(descriptors: impl IntoIterator<Item = &'a OwnedFd>) -> io::Result<Vec<OwnedFd>> {
    let dups = descriptors
        .into_iter()
        .map(|d| d.as_fd().try_clone_to_owned());
    dups.collect()
}
