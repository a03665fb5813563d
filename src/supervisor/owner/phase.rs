//! Where a service is in its life, and what can happen to it there.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::select_all;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::hand::HandUp;
use super::{Origin, Refusal};
use crate::model::{ServiceKind, ServiceName, ServiceSpec, ServiceState};
use crate::supervisor::container::{Starting, Step};
use crate::supervisor::live::Live;
use crate::supervisor::probe::{NotifySocket, Prober, Report};
use crate::supervisor::wire::ServiceObject;

/// Where a service is in its life.
pub(super) enum Phase {
    /// Nothing runs and nothing is planned.
    Down(Rest),
    /// To be executed once what it needs is there.
    Waiting(Waiting),
    /// Its container is being made, or looked for.
    Preparing(Box<Preparing>),
    /// It has a process.
    Up(Box<Up>),
    /// Waits for the next try.
    BackingOff(Retry),
}

/// How a service came to rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::supervisor) enum Rest {
    Stopped,
    Completed,
    Failed,
}

/// One try to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::supervisor) struct Attempt {
    /// Who wants it.
    pub origin: Origin,
    /// Whether what it needs is brought up first. Not so for a restart after a crash: a crash of one
    /// is not a reason to wait for the others.
    pub gated: bool,
    /// What is executed: a definition that changes its kind does not change the live process.
    pub kind: ServiceKind,
}

/// One need on its way: its name, and what has become of it.
pub(super) type Ensuring = Pin<Box<dyn Future<Output = (ServiceName, Result<(), Refusal>)> + Send>>;

/// What is awaited before the program is executed.
pub(super) struct Waiting {
    pub attempt: Attempt,
    pub needs: FuturesUnordered<Ensuring>,
    /// Those of `needs` that have not come yet.
    pub names: BTreeSet<ServiceName>,
    /// What their owners show.
    pub watched: BTreeMap<ServiceName, watch::Receiver<Arc<ServiceObject>>>,
}

impl Waiting {
    /// What is waited for, and why for so long.
    pub fn message(&self) -> String {
        let wait = |name: &ServiceName| {
            let object = self.watched.get(name).map(|object| object.borrow());
            let error = object
                .filter(|object| object.state == Some(ServiceState::BackingOff))
                .and_then(|object| object.error.clone());
            match error {
                Some(error) => format!("{name} (tried again after: {error})"),
                None => name.to_string(),
            }
        };
        let waits: Vec<_> = self.names.iter().map(wait).collect();
        format!("waits for {}", waits.join(", "))
    }

    async fn event(&mut self) -> Event {
        let moves = self.watched.values_mut().map(|object| {
            Box::pin(async {
                if object.changed().await.is_err() {
                    // Deleted, which the need itself tells.
                    pending::<()>().await;
                }
            })
        });
        let moves: Vec<_> = moves.collect();
        let moved = async move {
            match moves.is_empty() {
                true => pending().await,
                false => drop(select_all(moves).await),
            }
        };
        tokio::select! {
            biased;
            Some((name, result)) = self.needs.next() => Event::Need(name, result),
            () = moved => Event::NeedMoved,
        }
    }
}

/// A container on its way: its image is pulled, it is made and started; or it is found again.
pub(super) struct Preparing {
    pub attempt: Attempt,
    /// What it is made from.
    pub executed: Arc<ServiceSpec>,
    pub starting: Starting,
    pub notify: Option<Arc<NotifySocket>>,
    /// How far it has come.
    pub message: Option<String>,
    /// What comes next if it is not wanted any more.
    pub then: Option<Then>,
    /// How far the container that is looked for had come.
    pub left: Option<Box<HandUp>>,
}

/// The next try.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retry {
    pub due: Instant,
    pub due_at: Timestamp,
    /// Whether what it needs is brought up first.
    pub gated: bool,
}

/// A live process.
pub(super) struct Up {
    pub live: Live,
    /// The definition that it was executed from.
    pub executed: Arc<ServiceSpec>,
    pub prober: Option<Prober>,
    pub stage: Stage,
    /// Why it is not ready.
    pub message: Option<String>,
    /// What it says of itself.
    pub status: Option<String>,
    /// Where it says that, if it does.
    pub notify: Option<Arc<NotifySocket>>,
    /// Whether it has ever sent `WATCHDOG=1`.
    pub watched: bool,
    /// Why its output is being lost.
    pub log_trouble: watch::Receiver<Option<String>>,
    /// While stopping: when the grace period ends. Else: when a task has run for too long.
    pub deadline: Option<Instant>,
    /// While stopping: what comes next.
    pub then: Then,
    pub attempt: Attempt,
}

/// How far a live process has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Executed. A task stays here.
    Starting,
    /// Ready, since then.
    Ready { since: Instant },
    /// Was ready, since then; does not answer now.
    Unhealthy { since: Instant },
    /// Told to stop.
    Stopping,
}

/// What comes after a stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Then {
    /// Nothing: it was asked for.
    Rest,
    /// Another start.
    Again,
    /// It was stopped because it had failed.
    Fail(Refusal),
    /// Another start, as its restart rule allows: its health check had failed like this.
    Heal(String),
}

/// What can happen to a service without anybody asking for it.
#[derive(Debug)]
pub(super) enum Event {
    /// A need has come up, or has failed to.
    Need(ServiceName, Result<(), Refusal>),
    /// What the owner of a need shows has changed.
    NeedMoved,
    /// A container has come further.
    Container(Step),
    /// The main process has ended.
    Ended,
    /// The prober has found something out.
    Report(Report),
    /// A deadline has passed.
    Deadline,
    /// Output is being lost, or not any more.
    LogTrouble,
    /// It is time for the next try.
    Due,
}

impl Phase {
    /// Whether the next try comes at once.
    pub(super) fn is_due(&self) -> bool {
        matches!(self, Self::BackingOff(retry) if retry.due <= Instant::now())
    }

    /// The next event. Cancel-safe: nothing is lost when it is dropped.
    pub(super) async fn event(&mut self) -> Event {
        match self {
            Self::Down(_) => pending().await,
            Self::Waiting(waiting) => waiting.event().await,
            Self::Preparing(preparing) => Event::Container(preparing.starting.next().await),
            Self::BackingOff(retry) => {
                sleep_until(retry.due).await;
                Event::Due
            }
            Self::Up(up) => {
                let Up {
                    live,
                    prober,
                    deadline,
                    log_trouble,
                    ..
                } = &mut **up;
                tokio::select! {
                    biased;
                    () = live.ended() => Event::Ended,
                    report = next_report(prober) => Event::Report(report),
                    () = passed(*deadline) => Event::Deadline,
                    Ok(()) = log_trouble.changed() => Event::LogTrouble,
                }
            }
        }
    }
}

async fn next_report(prober: &mut Option<Prober>) -> Report {
    match prober {
        Some(prober) => prober.next().await,
        None => pending().await,
    }
}

async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}
