//! Process number 1 of the namespaces: the parent of all services there. When it dies, the kernel kills
//! them all; it dies with the keeper.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, Rlimit, Signal, WaitOptions};
use serde::{Deserialize, Serialize};

use super::children::Children;
use super::enclosure::{self, Walls};
use super::keep::{let_go_of_stdout, raise_file_limit};
use super::os;
use super::program::Terms;
use super::signals::{Signals, sleep};
use super::unix;
use super::wire::{Channel, Hello};

/// What keeper and init say to each other.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    /// To init: its users are mapped.
    Mapped,
    /// From init: it is in.
    Moved,
    /// From init: it cannot get in.
    Failed(String),
    /// To init: serve the supervisor at this socket.
    Connect,
}

/// The keeper's end.
pub(super) struct Init {
    pid: Pid,
    control: Channel,
}

impl Init {
    /// Makes the namespaces and waits until they are ready. The process must have one thread only.
    pub(super) fn start(walls: &Walls, hello: Hello, files: Rlimit) -> io::Result<Self> {
        enclosure::prepare(walls)?;
        let (ours, theirs) = Channel::pair()?;
        let number = enclosure::fork_enclosed()?;
        let Some(pid) = unix::number(number) else {
            drop(ours);
            let ended = Channel::new(theirs).and_then(|control| live(control, walls, hello, files));
            if let Err(error) = ended {
                tracing::error!(%error, "the sandbox's first process ends");
            }
            std::process::exit(1);
        };
        drop(theirs);
        let control = Channel::new(ours)?;
        let mut init = Self { pid, control };
        match init.await_in(number) {
            Ok(()) => Ok(init),
            Err(error) => {
                init.kill();
                Err(error)
            }
        }
    }

    fn await_in(&mut self, number: u32) -> io::Result<()> {
        enclosure::map_users(number)?;
        say(&mut self.control, &Word::Mapped, Vec::new())?;
        match hear(&mut self.control)? {
            (Word::Moved, _) => Ok(()),
            (Word::Failed(reason), _) => Err(io::Error::other(reason)),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Lets it serve a supervisor.
    pub(super) fn connect(&mut self, socket: OwnedFd) -> io::Result<()> {
        say(&mut self.control, &Word::Connect, vec![socket])
    }

    /// Whether it is dead, and so is all that was in there.
    pub(super) fn has_ended(&self) -> bool {
        !matches!(
            rustix::process::waitpid(Some(self.pid), WaitOptions::NOHANG),
            Ok(None)
        )
    }

    /// Kills all that is in there, and waits until it is gone.
    pub(super) fn kill(self) {
        let _ = rustix::process::kill_process(self.pid, Signal::KILL);
        let _ = rustix::process::waitpid(Some(self.pid), WaitOptions::empty());
    }
}

/// Sends a word and waits until it is gone.
fn say(control: &mut Channel, word: &Word, descriptors: Vec<OwnedFd>) -> io::Result<()> {
    control.send(word, descriptors)?;
    control.flush()?;
    while control.is_full() {
        let mut waited = [PollFd::from_borrowed_fd(control.as_fd(), PollFlags::OUT)];
        sleep(&mut waited, None)?;
        control.flush()?;
    }
    Ok(())
}

/// Waits for a word.
fn hear(control: &mut Channel) -> io::Result<(Word, Vec<OwnedFd>)> {
    let mut open = true;
    loop {
        if let Some(word) = control.next()? {
            return Ok(word);
        }
        if !open {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut waited = [PollFd::from_borrowed_fd(control.as_fd(), PollFlags::IN)];
        sleep(&mut waited, None)?;
        open = control.fill()?;
    }
}

/// The life of process number 1.
fn live(mut control: Channel, walls: &Walls, hello: Hello, files: Rlimit) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let_go_of_stdout();
    // A keeper that died before the line above has closed its end.
    let (Word::Mapped, _) = hear(&mut control)? else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    raise_file_limit(files);
    enclosure::own_keys();
    let signals = Signals::new()?;
    let strict = true;
    let children =
        enclosure::move_in(walls).and_then(|()| Children::new(hello, Terms { files, strict }));
    let mut children = match children {
        Ok(children) => children,
        Err(error) => return say(&mut control, &Word::Failed(error.to_string()), Vec::new()),
    };
    os::hide_memory();
    say(&mut control, &Word::Moved, Vec::new())?;
    os::give_back_memory();
    loop {
        wait(&signals, &control, &children)?;
        if !control.fill()? {
            return Ok(());
        }
        while let Some((word, descriptors)) = control.next()? {
            if let (Word::Connect, Some(socket)) = (word, descriptors.into_iter().next()) {
                children.connect(socket)?;
            }
        }
        // Told to end, it goes on: the keeper ends it.
        signals.any();
        children.ended();
        children.converse();
        children.tidy(&[]);
    }
}

fn wait(signals: &Signals, control: &Channel, children: &Children) -> io::Result<()> {
    let mut waited = vec![
        PollFd::new(&signals.reader, PollFlags::IN),
        PollFd::from_borrowed_fd(control.as_fd(), PollFlags::IN),
    ];
    if let Some((socket, full)) = children.channel() {
        let mut flags = PollFlags::IN;
        flags.set(PollFlags::OUT, full);
        waited.push(PollFd::from_borrowed_fd(socket, flags));
    }
    if let Some(exits) = children.exits() {
        waited.push(PollFd::from_borrowed_fd(exits, PollFlags::IN));
    }
    sleep(&mut waited, children.patience())
}
