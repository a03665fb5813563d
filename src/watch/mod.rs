//! Turns file events, drift and timers into rounds of plan and apply.
//!
//! In: ways to load the manifest, to open platforms and to take the lock; the user's wishes. Out:
//! [`Event`]s. A manifest that does not validate changes nothing: the last good one stays in force.

mod drift;
mod files;
mod held;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

pub use files::FileWatch;

use crate::apply::{Apply, DEFAULT_PARALLELISM, Interrupt, LockError, StackLock};
use crate::event::{Event, Outcome, What};
use crate::manifest::Loaded;
use crate::model::{Address, Desired, Observed};
use crate::plan::{self, Cause, Operation, Options, Plan, PlanError};
use crate::platforms::{PlatformError, Platforms};

/// How long events are collected before they are looked at: this long after the last one …
const QUIET: Duration = Duration::from_millis(100);
/// … and at most this long after the first.
const BURST: Duration = Duration::from_secs(1);
/// How often files are read even without an event: network file systems send none.
const FILE_POLL: Duration = Duration::from_secs(5);
/// Delay before a round that failed is tried again; doubled up to [`MAX_RETRY`].
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Upper bound of the delay.
const MAX_RETRY: Duration = Duration::from_secs(60);
/// How long the lock is awaited in one round.
const LOCK_TIMEOUT: Duration = Duration::from_secs(3600);

/// How to watch.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whether what left the manifest is deleted without a question.
    pub allow_delete: bool,
    /// Time between two looks at the platforms.
    pub interval: Duration,
}

/// What the watcher reaches the world through; `cli` implements it.
pub trait World {
    /// Reads the manifest.
    fn load(&self) -> Result<Loaded, WatchError>;
    /// Opens the platforms that the manifest names.
    fn platforms(&self, loaded: &Loaded, stack: &str) -> Result<Platforms, WatchError>;
    /// The lock file of a stack.
    fn lock_file(&self, stack: &str) -> Result<PathBuf, WatchError>;
}

/// Why watching ended.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// Files cannot be watched.
    #[error("cannot watch files: {0}")]
    Files(#[from] notify::Error),
    /// A platform could not be read.
    #[error("{0}")]
    Platform(#[from] PlatformError),
    /// The lock could not be used.
    #[error("{0}")]
    Lock(#[from] LockError),
    /// A bug of ours.
    #[error("{0}")]
    Plan(#[from] PlanError),
    /// The surroundings do not allow it.
    #[error("{0}")]
    World(String),
}

/// Keeps one stack as its manifest says.
pub struct Watcher<W> {
    settings: Settings,
    world: W,
    events: mpsc::UnboundedSender<Event>,
    /// The user's wish to end.
    interrupt: watch::Receiver<Interrupt>,
    /// A message says yes to the deletions that were held last.
    consent: mpsc::UnboundedReceiver<()>,
    files: FileWatch,
    /// The last manifest that was valid.
    good: Option<Good>,
    /// What the platforms showed last.
    last: Option<Observed>,
    /// Deletions that wait for a yes.
    held: Vec<Address>,
    retry: Option<Retry>,
}

struct Good {
    loaded: Loaded,
    desired: Desired,
}

/// A plan that failed is tried again later, and later still each time.
struct Retry {
    ids: Vec<String>,
    due: Instant,
    delay: Duration,
}

impl<W: World> Watcher<W> {
    /// A watcher that has not looked at anything yet.
    pub fn new(
        settings: Settings,
        world: W,
        events: mpsc::UnboundedSender<Event>,
        interrupt: watch::Receiver<Interrupt>,
        consent: mpsc::UnboundedReceiver<()>,
    ) -> Result<Self, WatchError> {
        Ok(Self {
            settings,
            world,
            events,
            interrupt,
            consent,
            files: FileWatch::new()?,
            good: None,
            last: None,
            held: Vec::new(),
            retry: None,
        })
    }

    /// Watches until the user wishes to end it.
    pub async fn run(&mut self) -> Result<(), WatchError> {
        self.reload()?;
        self.round(vec!["started watching".to_owned()], false, true)
            .await?;
        let mut last_poll = Instant::now();
        while *self.interrupt.borrow() == Interrupt::None {
            tokio::select! {
                _ = self.interrupt.changed() => {}
                () = self.files.burst(QUIET, BURST) => {
                    self.files_changed().await?;
                    last_poll = Instant::now();
                }
                Some(()) = self.consent.recv() => {
                    let allowed = !std::mem::take(&mut self.held).is_empty();
                    if allowed {
                        self.round(vec!["deletion confirmed".to_owned()], true, false).await?;
                    }
                }
                () = tokio::time::sleep(self.settings.interval) => {
                    if last_poll.elapsed() >= FILE_POLL {
                        self.files_changed().await?;
                        last_poll = Instant::now();
                    }
                    self.round(Vec::new(), false, false).await?;
                }
            }
        }
        Ok(())
    }

    async fn files_changed(&mut self) -> Result<(), WatchError> {
        let changes = self.files.changes();
        if !changes.manifest.is_empty() {
            self.reload()?;
            self.retry = None;
            let reasons = changes
                .manifest
                .iter()
                .map(|file| format!("{file} changed"))
                .collect();
            self.round(reasons, false, false).await?;
        }
        for (service, path) in changes.sources {
            let address = Address::Service(service);
            let cause = Cause::FileChanged { path: path.clone() };
            let reasons = vec![format!("{path} changed")];
            self.act(reasons, |desired, observed| {
                plan::operate(desired, observed, Operation::Restart, &[address], cause)
            })
            .await?;
        }
        Ok(())
    }

    /// Reads the manifest anew. If it is not valid, the last good one stays in force.
    fn reload(&mut self) -> Result<(), WatchError> {
        let mut loaded = self.world.load()?;
        let desired = loaded.desired.take();
        self.files.follow(&loaded.files, desired.as_ref());
        match desired {
            Some(desired) => self.good = Some(Good { loaded, desired }),
            None => {
                let report = Arc::new(std::mem::take(&mut loaded.report));
                self.emit(What::ManifestInvalid {
                    errors: report.error_count(),
                    report,
                });
            }
        }
        Ok(())
    }

    /// Looks, and does what is to be done. `first` tells the result even if that is nothing.
    async fn round(
        &mut self,
        reasons: Vec<String>,
        delete: bool,
        first: bool,
    ) -> Result<(), WatchError> {
        let delete = delete || self.settings.allow_delete;
        let retry_pending = self
            .retry
            .as_ref()
            .is_some_and(|retry| Instant::now() < retry.due);
        let Some(good) = &self.good else {
            return Ok(());
        };
        let mut platforms = self.world.platforms(&good.loaded, &good.desired.stack)?;
        let observed = platforms.observe(&good.desired).await?;
        if let Some(last) = &self.last {
            for what in drift::between(last, &observed) {
                self.emit(what);
            }
        }
        let plan = plan::plan(&good.desired, &observed, &Options::default())?;
        let (plan, held) = if delete {
            (plan, Vec::new())
        } else {
            held::split(plan)
        };
        self.last = Some(observed);
        if held != self.held {
            self.held.clone_from(&held);
            if !held.is_empty() {
                self.emit(What::DeletionsHeld { addresses: held });
            }
        }
        let same_as_failed = self
            .retry
            .as_ref()
            .is_some_and(|retry| retry.ids == ids(&plan));
        if first {
            let files = self.files.count();
            self.emit(What::WatchStarted {
                plan: Arc::new(plan.clone()),
                files,
            });
        }
        if plan.is_empty() || (same_as_failed && retry_pending) {
            if plan.is_empty() {
                self.retry = None;
            }
            return Ok(());
        }
        self.act(reasons, move |desired, observed| {
            let plan = plan::plan(desired, observed, &Options::default())?;
            Ok(if delete { plan } else { held::split(plan).0 })
        })
        .await
    }

    /// Takes the lock, looks again, and carries out what `make` plans.
    async fn act(
        &mut self,
        reasons: Vec<String>,
        make: impl FnOnce(&Desired, &Observed) -> Result<Plan, PlanError>,
    ) -> Result<(), WatchError> {
        let Some(good) = &self.good else {
            return Ok(());
        };
        let path = self.world.lock_file(&good.desired.stack)?;
        let waits = |holder: Option<&crate::apply::Holder>| {
            let command = holder.map_or("another process", |holder| holder.command.as_str());
            tracing::info!("waits for the stack's lock, held by {command}");
        };
        let mut interrupt = self.interrupt.clone();
        let lock = tokio::select! {
            lock = StackLock::acquire(&path, "gabion watch", LOCK_TIMEOUT, waits) => lock?,
            _ = interrupt.changed() => return Ok(()),
        };
        let mut platforms = self.world.platforms(&good.loaded, &good.desired.stack)?;
        let observed = platforms.observe(&good.desired).await?;
        let plan = Arc::new(make(&good.desired, &observed)?);
        if plan.is_empty() {
            return Ok(());
        }
        self.emit(What::RoundStarted {
            reasons,
            plan: Arc::clone(&plan),
        });
        let apply = Apply {
            platforms: &platforms,
            secrets: &good.loaded.secrets,
            parallelism: DEFAULT_PARALLELISM,
            interrupt: self.interrupt.clone(),
            events: self.events.clone(),
        };
        let outcome = apply.run(&plan).await;
        self.last = Some(platforms.observe(&good.desired).await?);
        drop(lock);
        self.remember(&plan, &outcome);
        Ok(())
    }

    fn remember(&mut self, plan: &Plan, outcome: &Outcome) {
        if outcome.is_success() {
            self.retry = None;
            return;
        }
        // What is left to do after a failure is what the next look plans.
        let delay = match &self.retry {
            Some(retry) => (retry.delay * 2).min(MAX_RETRY),
            None => FIRST_RETRY,
        };
        let left = self
            .good
            .as_ref()
            .zip(self.last.as_ref())
            .and_then(|(good, last)| plan::plan(&good.desired, last, &Options::default()).ok());
        let ids = ids(left.as_ref().unwrap_or(plan));
        self.retry = Some(Retry {
            ids,
            due: Instant::now() + delay,
            delay,
        });
    }

    fn emit(&self, what: What) {
        // A receiver that went away only means that nobody listens any more.
        let _ = self.events.send(Event::now(what));
    }
}

fn ids(plan: &Plan) -> Vec<String> {
    plan.actions.iter().map(plan::Action::id).collect()
}
