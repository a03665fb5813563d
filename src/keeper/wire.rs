//! What the keeper and the supervisor say to each other, and the channel they say it over: frames of
//! JSON on a Unix stream socket, with the descriptors that belong to them.
//!
//! A keeper outlives the program it was started from: fields are only ever added, each with a default.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

/// What one child is known by: chosen by the supervisor, never used twice in a keeper's life.
pub type ChildId = u64;

/// The most descriptors that one frame carries.
const MOST_DESCRIPTORS: usize = 16;
/// The longest frame in bytes: twice what the kernel takes as arguments and environment.
const LONGEST: usize = 8 << 20;
/// Length of the payload (4 bytes) and number of descriptors (1 byte).
const HEADER: usize = 5;

/// What the supervisor asks for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Execute a program. Its descriptors: the given streams, then the cgroup entries.
    Spawn(Box<Spawn>),
    /// The supervisor has seen the end of this child: reap it, close what is held for it.
    Release { id: ChildId },
    /// Hold these bytes for the next supervisor, in the place of what was held under the key.
    Keep {
        key: String,
        note: String,
        #[serde(default)]
        descriptors: usize,
    },
    /// Forget what is held under the key.
    Drop { key: String },
}

/// A program to be executed.
#[derive(Clone, Serialize, Deserialize)]
pub struct Spawn {
    /// What it is known by.
    pub id: ChildId,
    /// Whose it is: the key of a note, or empty if nobody will ask for it again.
    pub key: String,
    /// Held under `key` from the moment it was executed.
    #[serde(default)]
    pub note: Option<String>,
    /// The argument vector; the first is looked up in the environment's `PATH`.
    pub argv: Vec<String>,
    /// Its whole environment. May hold secrets.
    pub env: Vec<(String, String)>,
    /// Where it starts.
    pub dir: PathBuf,
    /// Who it becomes; `None`: whoever the keeper is.
    #[serde(default)]
    pub identity: Option<Identity>,
    /// The most files it may open; `None`: as many as the keeper was started with.
    #[serde(default)]
    pub files: Option<u64>,
    /// The most address space, in bytes, where there is no better limit of memory.
    #[serde(default)]
    pub address_space: Option<u64>,
    /// Standard input, output and error.
    pub streams: [Stream; 3],
    /// Whether the standard streams are one new terminal. What is written to it comes back as
    /// standard output.
    #[serde(default)]
    pub tty: bool,
    /// The rows and columns of that, if somebody looks at it; its lines end as a screen needs them. `None`:
    /// it goes to a log.
    #[serde(default)]
    pub window: Option<(u16, u16)>,
    /// How many cgroup entries (open `cgroup.procs`) it writes itself into.
    #[serde(default)]
    pub cgroups: usize,
    /// Whether one more descriptor follows: the folder of the first entry's group, of version 2, for the
    /// child to be born in.
    #[serde(default)]
    pub born: bool,
}

impl std::fmt::Debug for Spawn {
    /// Without the environment, which may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spawn")
            .field("id", &self.id)
            .field("key", &self.key)
            .field("argv", &self.argv)
            .finish_non_exhaustive()
    }
}

/// A user by number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// For messages.
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    /// The supplementary groups.
    pub groups: Vec<u32>,
}

/// One standard stream of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// `/dev/null`.
    Null,
    /// A new pipe: the supervisor gets our end, and so does the next supervisor.
    Pipe,
    /// The next descriptor that came with the request.
    Given,
}

/// What the keeper says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The first on each connection. Its descriptor: the folder that children see as `/`.
    Hello(Hello),
    /// One child that lives, or whose end nobody has seen yet. Descriptors as in [`Held`].
    Child(Held),
    /// What is held under a key, with its descriptors.
    Kept {
        key: String,
        note: String,
        descriptors: usize,
    },
    /// All that was held has been told.
    Told,
    /// The program runs. Descriptors as in [`Held`].
    Spawned(Held),
    /// It could not be executed.
    Failed { id: ChildId, obstacle: Obstacle },
    /// It has ended; its number stays its own until it is released.
    Ended { id: ChildId, end: End },
}

/// Who keeps.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hello {
    /// The program's version.
    pub version: String,
    /// The keeper's own process, among this machine's.
    pub pid: u32,
    /// Told apart from every other keeper, of any sandbox.
    pub run: String,
    /// Whether children are in namespaces of their own.
    pub strict: bool,
    /// Why they are not, where the strongest isolation was asked for.
    #[serde(default)]
    pub reason: Option<String>,
}

/// A child and the descriptors that are held for it, in this order: the process (where the kernel has
/// such), then our end of each piped stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Held {
    pub id: ChildId,
    pub key: String,
    /// Its number among the keeper's processes.
    pub pid: u32,
    /// When it was executed, in microseconds since 1970.
    pub started_at: i64,
    /// Whether the first descriptor is the process.
    pub pidfd: bool,
    /// Which streams have an end here.
    pub piped: [bool; 3],
    /// How it ended, if it has.
    #[serde(default)]
    pub end: Option<End>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// It exited.
    Exited(i32),
    /// A signal killed it.
    Killed(i32),
}

/// What kept a program from being executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Obstacle {
    #[error("working_dir `{}` does not exist", .0.display())]
    NoFolder(PathBuf),
    #[error("working_dir `{}` is not a folder", .0.display())]
    NotAFolder(PathBuf),
    #[error(
        "`{user}` may not enter working_dir `{}`: \
         set `workspace` to a folder that {user} may use",
        dir.display()
    )]
    NoEntry { dir: PathBuf, user: String },
    #[error("`{0}` was not found in PATH")]
    NotInPath(String),
    #[error("`{0}` does not exist")]
    NoProgram(String),
    #[error("`{0}`: permission denied")]
    Denied(String),
    #[error("`{0}` is not a program that this machine can execute")]
    BadFormat(String),
    #[error("`{0}` cannot be executed: {1}")]
    Other(String, String),
}

/// One end of the conversation. Nothing in it waits: the owner waits for the socket.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    inbox: Vec<u8>,
    came: VecDeque<OwnedFd>,
    outbox: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    /// How much of the first in `outbox` is gone.
    sent: usize,
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Channel {
    /// Takes a connected stream socket and makes it non-blocking.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self {
            socket,
            inbox: Vec::new(),
            came: VecDeque::new(),
            outbox: VecDeque::new(),
            sent: 0,
        })
    }

    /// Two connected ends, neither of which is inherited by an executed program.
    pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
        let (one, other) = std::os::unix::net::UnixStream::pair()?;
        Ok((one.into(), other.into()))
    }

    /// Queues a message.
    pub fn send(&mut self, message: &impl Serialize, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        if text.len() > LONGEST || descriptors.len() > MOST_DESCRIPTORS {
            return Err(Errno::TOOBIG.into());
        }
        let mut frame = Vec::with_capacity(HEADER + text.len());
        frame.extend((text.len() as u32).to_le_bytes());
        frame.push(descriptors.len() as u8);
        frame.extend(text);
        self.outbox.push_back((frame, descriptors));
        Ok(())
    }

    /// Whether something is still to be sent.
    pub fn is_full(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Sends what the socket takes.
    pub fn flush(&mut self) -> io::Result<()> {
        while let Some((frame, descriptors)) = self.outbox.front() {
            // The descriptors go with the first byte.
            let with: Vec<_> = match self.sent {
                0 => descriptors.iter().map(AsFd::as_fd).collect(),
                _ => Vec::new(),
            };
            let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
            let mut ancillary = SendAncillaryBuffer::new(&mut room);
            if !with.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&with)) {
                return Err(Errno::TOOBIG.into());
            }
            let rest = [IoSlice::new(&frame[self.sent..])];
            match sendmsg(&self.socket, &rest, &mut ancillary, no_signal()) {
                Ok(count) => self.sent += count,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            if self.sent == frame.len() {
                self.outbox.pop_front();
                self.sent = 0;
            }
        }
        Ok(())
    }

    /// Reads what is there. `false` once the other end is closed.
    pub fn fill(&mut self) -> io::Result<bool> {
        let mut chunk = [0; 16 << 10];
        loop {
            let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut room);
            let mut into = [IoSliceMut::new(&mut chunk)];
            let flags = closed_on_exec();
            let count = match recvmsg(&self.socket, &mut into, &mut ancillary, flags) {
                Ok(received) => received.bytes,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Ok(true),
                // Closed by one who was killed before it had read all that we said.
                Err(Errno::CONNRESET) => return Ok(false),
                Err(error) => return Err(error.into()),
            };
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    self.came.extend(descriptors);
                }
            }
            if count == 0 {
                return Ok(false);
            }
            self.inbox.extend_from_slice(&chunk[..count]);
        }
    }

    /// The next whole message that was read, with its descriptors.
    pub fn next<T: serde::de::DeserializeOwned>(
        &mut self,
    ) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let Some((header, rest)) = self.inbox.split_at_checked(HEADER) else {
            return Ok(None);
        };
        let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let count = usize::from(header[4]);
        if length > LONGEST {
            return Err(Errno::TOOBIG.into());
        }
        let Some(text) = rest.get(..length) else {
            return Ok(None);
        };
        if self.came.len() < count {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let message = serde_json::from_slice(text)?;
        self.inbox.drain(..HEADER + length);
        if self.inbox.is_empty() {
            // A large one is not held on to.
            self.inbox.shrink_to(4 << 10);
        }
        Ok(Some((message, self.came.drain(..count).collect())))
    }
}

/// What comes is not inherited by an executed program.
#[cfg(target_os = "linux")]
fn closed_on_exec() -> RecvFlags {
    RecvFlags::CMSG_CLOEXEC
}

/// There is no such flag: whoever executes closes everything else.
#[cfg(not(target_os = "linux"))]
fn closed_on_exec() -> RecvFlags {
    RecvFlags::empty()
}

/// A closed other end is an error here, not a signal.
#[cfg(target_os = "linux")]
fn no_signal() -> SendFlags {
    SendFlags::NOSIGNAL
}

#[cfg(not(target_os = "linux"))]
fn no_signal() -> SendFlags {
    SendFlags::empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_of_one_who_was_killed_arrive() {
        let (one, other) = Channel::pair().unwrap();
        let (mut one, mut other) = (Channel::new(one).unwrap(), Channel::new(other).unwrap());
        other.send(&Answer::Told, vec![]).unwrap();
        other.flush().unwrap();
        one.send(&Request::Release { id: 7 }, vec![]).unwrap();
        one.flush().unwrap();
        // With something unread, which the kernel tells the other end as an error.
        drop(one);
        assert!(!other.fill().unwrap());
        let said = other.next::<Request>().unwrap();
        assert!(matches!(said, Some((Request::Release { id: 7 }, _))));
    }

    #[test]
    fn messages_arrive_whole_with_their_descriptors() {
        let (one, other) = Channel::pair().unwrap();
        let (mut one, mut other) = (Channel::new(one).unwrap(), Channel::new(other).unwrap());
        let long = "x".repeat(1 << 20);
        let (reader, writer) = std::io::pipe().unwrap();
        one.send(&Request::Drop { key: long.clone() }, vec![])
            .unwrap();
        let note = String::new();
        let keep = Request::Keep {
            key: "a".into(),
            note,
            descriptors: 1,
        };
        one.send(&keep, vec![writer.into()]).unwrap();
        let mut got = Vec::new();
        while got.len() < 2 {
            one.flush().unwrap();
            assert!(other.fill().unwrap());
            while let Some(message) = other.next::<Request>().unwrap() {
                got.push(message);
            }
        }
        let (Request::Keep { .. }, descriptors) = got.pop().unwrap() else {
            panic!("another message");
        };
        std::io::Write::write_all(
            &mut std::fs::File::from(descriptors.into_iter().next().unwrap()),
            b"hi",
        )
        .unwrap();
        assert_eq!(std::io::read_to_string(reader).unwrap(), "hi");
        let (Request::Drop { key }, _) = got.pop().unwrap() else {
            panic!("another message");
        };
        assert_eq!(key, long);
        drop(one);
        assert!(!other.fill().unwrap());
    }
}
