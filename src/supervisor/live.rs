//! What runs of a service: a process of our own, or a container. Its owner drives both alike.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use rustix::process::Signal;
use tokio::sync::watch;

use super::container::{Container, Engine};
use super::input::Input;
use super::process::Process;
use super::spawn::Prepared;
use crate::keeper::{Child, ChildId, Keeper};
use crate::model::Exit;

/// A live process or container.
pub(super) enum Live {
    /// A process with its session, and what it was executed from.
    Process(Box<(Process, Arc<Prepared>)>),
    /// A container.
    Container(Box<Container>),
}

/// Where a program runs that looks at a service from inside: its own environment, folder and user.
#[derive(Clone)]
pub(super) enum Inside {
    /// Beside the process.
    Process(Keeper, Arc<Prepared>),
    /// In the container with this id.
    Container(Engine, String),
}

/// How it ended.
pub(super) struct End {
    /// Code, signal and time.
    pub exit: Exit,
    /// What these do not tell.
    pub why: Option<&'static str>,
    /// The kernel has killed it for want of memory.
    pub out_of_memory: bool,
    /// The process, to be dropped once nobody needs to know of it any more.
    pub child: Option<Child>,
}

impl Live {
    /// What the keeper knows it by, if it does.
    pub(super) fn id(&self) -> Option<ChildId> {
        match self {
            Self::Process(live) => Some(live.0.id()),
            Self::Container(_) => None,
        }
    }

    /// Its main process, as far as that is known.
    pub(super) fn pid(&self) -> Option<u32> {
        match self {
            Self::Process(live) => Some(live.0.pid),
            Self::Container(container) => container.pid,
        }
    }

    /// When it was started.
    pub(super) fn started(&self) -> (Instant, Timestamp) {
        match self {
            Self::Process(live) => (live.0.started, live.0.started_at),
            Self::Container(container) => (container.started, container.started_at),
        }
    }

    /// How to run a program inside.
    pub(super) fn inside(&self, keeper: &Keeper) -> Inside {
        match self {
            Self::Process(live) => Inside::Process(keeper.clone(), live.1.clone()),
            Self::Container(container) => {
                let (engine, id) = container.inside();
                Inside::Container(engine, id)
            }
        }
    }

    /// Whether its output has shown the text looked for.
    pub(super) fn seen(&self) -> watch::Receiver<bool> {
        match self {
            Self::Process(live) => live.0.seen(),
            Self::Container(container) => container.seen(),
        }
    }

    /// Why output is being lost, if it is.
    pub(super) fn log_trouble(&self) -> watch::Receiver<Option<String>> {
        match self {
            Self::Process(live) => live.0.log_trouble(),
            Self::Container(container) => container.log_trouble(),
        }
    }

    /// Its standard input, if that is open to us.
    pub(super) fn input(&self) -> Option<&Input> {
        match self {
            Self::Process(live) => live.0.input(),
            Self::Container(_) => None,
        }
    }

    /// Sends a signal.
    pub(super) fn signal(&self, signal: Signal) {
        match self {
            Self::Process(live) => live.0.signal(signal),
            Self::Container(container) => container.signal(signal),
        }
    }

    /// To be called before a signal that may end it ([`Process::note_family`]).
    pub(super) fn note_family(&mut self) {
        match self {
            Self::Process(live) => live.0.note_family(),
            // Nothing leaves a container.
            Self::Container(_) => {}
        }
    }

    /// Returns once it has ended. Cancel-safe.
    pub(super) async fn ended(&mut self) {
        match self {
            Self::Process(live) => live.0.ended().await,
            Self::Container(container) => container.ended().await,
        }
    }

    /// After it has ended: clears what is left of it and takes the last of its output.
    pub(super) async fn finish(self) -> End {
        match self {
            Self::Process(live) => {
                let ended = live.0.finish().await;
                End {
                    exit: ended.exit,
                    why: None,
                    out_of_memory: ended.out_of_memory,
                    child: Some(ended.child),
                }
            }
            Self::Container(container) => {
                let ended = container.finish().await;
                End {
                    exit: ended.exit,
                    why: ended.why,
                    out_of_memory: ended.out_of_memory,
                    child: None,
                }
            }
        }
    }
}
