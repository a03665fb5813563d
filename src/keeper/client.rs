//! The supervisor's end of the conversation with its keeper: executes through it, hears of ends, leaves
//! notes for the next supervisor.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::keep::Control;
use super::wire::{Answer, Channel, ChildId, End, Held, Hello, Obstacle, Request, Spawn};
use super::{os, unix};

/// What is under way.
#[derive(Default)]
struct Pending {
    spawns: HashMap<ChildId, oneshot::Sender<Result<Told, Obstacle>>>,
    ends: HashMap<ChildId, watch::Sender<Option<End>>>,
}

/// A child as the keeper tells of it. Its end is listened for from here on.
type Told = (Held, Vec<OwnedFd>, watch::Receiver<Option<End>>);

struct Inner {
    requests: mpsc::UnboundedSender<(Request, Vec<OwnedFd>)>,
    pending: Mutex<Pending>,
    next: AtomicU64,
    lost: CancellationToken,
}

impl Inner {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        // The maps are whole after every statement, so a panic elsewhere cannot have torn them.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to listen for the end of a child, before anything else is heard.
    fn told(&self, held: Held, descriptors: Vec<OwnedFd>) -> Told {
        let (sender, end) = watch::channel(held.end);
        self.pending().ends.insert(held.id, sender);
        (held, descriptors, end)
    }
}

/// The keeper of this sandbox. Cheap to clone.
#[derive(Clone)]
pub struct Keeper(Arc<Inner>);

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").finish_non_exhaustive()
    }
}

/// What an earlier supervisor has left.
#[derive(Debug)]
pub struct Legacy {
    /// Who keeps.
    pub hello: Hello,
    /// The folder that children see as `/`.
    pub root: OwnedFd,
    /// The children that live, or whose end nobody has seen yet.
    pub children: Vec<Child>,
    /// The notes by key, with their descriptors.
    pub notes: BTreeMap<String, (String, Vec<OwnedFd>)>,
}

/// A process that the keeper executed. Dropping it lets the keeper forget it; that does not end it.
#[derive(Debug)]
pub struct Child {
    /// Whose it is.
    pub key: String,
    /// Its number among this machine's processes.
    pub pid: u32,
    /// When it was executed, in microseconds since 1970.
    pub started_at: i64,
    /// Our end of each piped stream: to write to the first, to read from the others.
    pub ends: [Option<OwnedFd>; 3],
    id: ChildId,
    end: watch::Receiver<Option<End>>,
    keeper: Keeper,
}

impl Child {
    /// What it is known by.
    pub fn id(&self) -> ChildId {
        self.id
    }

    /// How it ended, once it has. Cancel-safe.
    pub async fn ended(&mut self) -> End {
        match self.end.wait_for(Option::is_some).await.map(|end| *end) {
            Ok(Some(end)) => end,
            // The keeper is gone, and this process is about to be.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.keeper.0.pending().ends.remove(&self.id);
        let _ = self
            .keeper
            .tell(Request::Release { id: self.id }, Vec::new());
    }
}

impl Keeper {
    /// Takes the conversation up and returns once everything is told that was held.
    pub async fn connect(socket: OwnedFd) -> io::Result<(Self, Legacy)> {
        let mut line = Line::new(socket)?;
        let (sender, requests) = mpsc::unbounded_channel();
        let keeper = Self(Arc::new(Inner {
            requests: sender,
            pending: Mutex::default(),
            next: AtomicU64::new(1),
            lost: CancellationToken::new(),
        }));
        let legacy = keeper.listen(&mut line).await?;
        let newest = legacy.children.iter().map(Child::id).max().unwrap_or(0);
        keeper.0.next.store(newest + 1, Ordering::Relaxed);
        tokio::spawn(converse(keeper.0.clone(), line, requests));
        Ok((keeper, legacy))
    }

    /// Hears what is held.
    async fn listen(&self, line: &mut Line) -> io::Result<Legacy> {
        let (mut hello, mut children, mut notes) = (None, Vec::new(), BTreeMap::new());
        loop {
            while let Some((answer, descriptors)) = line.channel.next()? {
                match answer {
                    Answer::Hello(said) => hello = Some((said, descriptors.into_iter().next())),
                    Answer::Child(held) => {
                        children.push(self.child(self.0.told(held, descriptors)))
                    }
                    Answer::Kept { key, note, .. } => {
                        notes.insert(key, (note, descriptors));
                    }
                    Answer::Ended { id, end } => {
                        if let Some(sender) = self.0.pending().ends.get(&id) {
                            sender.send_replace(Some(end));
                        }
                    }
                    Answer::Told => {
                        let (hello, root) = hello.ok_or(io::ErrorKind::InvalidData)?;
                        return Ok(Legacy {
                            hello,
                            root: root.ok_or(io::ErrorKind::InvalidData)?,
                            children,
                            notes,
                        });
                    }
                    Answer::Spawned(_) | Answer::Failed { .. } => {}
                }
            }
            line.moved().await?;
        }
    }

    fn child(&self, (held, descriptors, end): Told) -> Child {
        let mut descriptors = descriptors.into_iter();
        let pidfd = held.pidfd.then(|| descriptors.next()).flatten();
        let pid = pidfd
            .and_then(|pidfd| os::number_of(&pidfd))
            .unwrap_or(held.pid);
        Child {
            key: held.key,
            pid,
            started_at: held.started_at,
            ends: held
                .piped
                .map(|piped| piped.then(|| descriptors.next()).flatten()),
            id: held.id,
            end,
            keeper: self.clone(),
        }
    }

    fn tell(&self, request: Request, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        let sent = self.0.requests.send((request, descriptors));
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// A number for the next child.
    pub fn next_id(&self) -> ChildId {
        self.0.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Executes a program. `descriptors`: those that its streams are given, then its cgroup entries.
    pub async fn spawn(
        &self,
        spawn: Spawn,
        descriptors: Vec<OwnedFd>,
    ) -> io::Result<Result<Child, Obstacle>> {
        let (reply, answer) = oneshot::channel();
        let id = spawn.id;
        self.0.pending().spawns.insert(id, reply);
        self.tell(Request::Spawn(Box::new(spawn)), descriptors)?;
        let answer = answer.await.map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(answer.map(|told| self.child(told)))
    }

    /// Leaves a note for the next supervisor, in the place of the one under the key.
    pub fn keep(&self, key: &str, note: String, descriptors: Vec<OwnedFd>) {
        let request = Request::Keep {
            key: key.to_owned(),
            note,
            descriptors: descriptors.len(),
        };
        // Without a keeper there will be no next supervisor.
        let _ = self.tell(request, descriptors);
    }

    /// Takes a note back.
    pub fn forget(&self, key: &str) {
        let key = key.to_owned();
        let _ = self.tell(Request::Drop { key }, Vec::new());
    }

    /// Returns once the keeper is gone, and with it all that ran here.
    pub async fn lost(&self) {
        self.0.lost.cancelled().await;
    }
}

/// A channel, and what tells when it can be read or written.
#[derive(Debug)]
pub(crate) struct Line {
    channel: Channel,
    readiness: UnixStream,
}

impl Line {
    /// Takes a connected stream socket.
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        let twin = std::os::unix::net::UnixStream::from(socket.try_clone()?);
        let channel = Channel::new(socket)?;
        let readiness = UnixStream::from_std(twin)?;
        Ok(Self { channel, readiness })
    }

    /// Sends a message, and returns when it is on its way.
    pub(crate) async fn say(
        &mut self,
        message: &impl serde::Serialize,
        descriptors: Vec<OwnedFd>,
    ) -> io::Result<()> {
        self.channel.send(message, descriptors)?;
        self.channel.flush()?;
        while self.channel.is_full() {
            self.moved().await?;
        }
        Ok(())
    }

    /// The next message. Cancel-safe.
    pub(crate) async fn hear<T: serde::de::DeserializeOwned>(
        &mut self,
    ) -> io::Result<(T, Vec<OwnedFd>)> {
        loop {
            if let Some(message) = self.channel.next()? {
                return Ok(message);
            }
            if let Err(error) = self.moved().await {
                // What came before the end is still heard.
                return self.channel.next()?.ok_or(error);
            }
        }
    }

    /// Waits until something can be read or written, and does so. An error once the other end is closed.
    /// Cancel-safe.
    async fn moved(&mut self) -> io::Result<()> {
        let mut interest = Interest::READABLE;
        if self.channel.is_full() {
            interest = interest.add(Interest::WRITABLE);
        }
        let ready = self.readiness.ready(interest).await?;
        let empty = || io::Result::<()>::Err(io::ErrorKind::WouldBlock.into());
        if ready.is_writable() {
            let mut flushed = Ok(());
            let _ = self.readiness.try_io(Interest::WRITABLE, || {
                flushed = self.channel.flush();
                empty()
            });
            flushed?;
        }
        let mut open = Ok(true);
        let _ = self.readiness.try_io(Interest::READABLE, || {
            open = self.channel.fill();
            empty()
        });
        match open? {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// The task that speaks and hears.
async fn converse(
    inner: Arc<Inner>,
    mut line: Line,
    mut requests: mpsc::UnboundedReceiver<(Request, Vec<OwnedFd>)>,
) {
    if let Err(error) = exchange(&inner, &mut line, &mut requests).await {
        tracing::warn!(%error, "the keeper is gone");
    }
    inner.lost.cancel();
    inner.pending().spawns.clear();
}

async fn exchange(
    inner: &Arc<Inner>,
    line: &mut Line,
    requests: &mut mpsc::UnboundedReceiver<(Request, Vec<OwnedFd>)>,
) -> io::Result<()> {
    loop {
        tokio::select! {
            request = requests.recv() => {
                let Some((request, descriptors)) = request else {
                    return Ok(());
                };
                line.channel.send(&request, descriptors)?;
                line.channel.flush()?;
            }
            moved = line.moved() => moved?,
        }
        while let Some((answer, descriptors)) = line.channel.next()? {
            dispatch(inner, answer, descriptors);
        }
    }
}

fn dispatch(inner: &Arc<Inner>, answer: Answer, descriptors: Vec<OwnedFd>) {
    match answer {
        Answer::Spawned(held) => {
            let id = held.id;
            let reply = inner.pending().spawns.remove(&id);
            let told = inner.told(held, descriptors);
            let undelivered = match reply {
                Some(reply) => reply.send(Ok(told)).err(),
                None => Some(Ok(told)),
            };
            if let Some(Ok(told)) = undelivered {
                // Whoever asked has gone: a probe that ran out of time, say.
                let child = Keeper(inner.clone()).child(told);
                unix::kill_group(child.pid);
            }
        }
        Answer::Failed { id, obstacle } => {
            if let Some(reply) = inner.pending().spawns.remove(&id) {
                let _ = reply.send(Err(obstacle));
            }
        }
        Answer::Ended { id, end } => {
            if let Some(sender) = inner.pending().ends.get(&id) {
                sender.send_replace(Some(end));
            }
        }
        Answer::Hello(_) | Answer::Child(_) | Answer::Kept { .. } | Answer::Told => {}
    }
}

/// The supervisor's own affairs with its keeper.
#[derive(Debug)]
pub struct Superior(Mutex<Channel>);

impl Superior {
    /// Takes the conversation up.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self(Mutex::new(Channel::new(socket)?)))
    }

    fn say(&self, control: &Control) -> io::Result<()> {
        let mut channel = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        channel.send(control, Vec::new())?;
        // Far less than what a socket holds.
        channel.flush()
    }

    /// The supervisor serves.
    pub fn ready(&self) -> io::Result<()> {
        self.say(&Control::Ready)
    }

    /// Names the program that is to go on from here. To be followed by the end of this process, with
    /// another status than 0.
    pub fn hand_over_to(&self, program: std::path::PathBuf) -> io::Result<()> {
        self.say(&Control::Upgrade { program })
    }
}
