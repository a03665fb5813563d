//! Turns file events, drift and timers into rounds of plan and apply.
//!
//! In: ways to load the manifest, to open platforms and to take the lock; the user's wishes. Out:
//! [`Event`]s. A manifest that does not validate changes nothing: the last good one stays in force.

mod drift;
mod files;
mod held;
mod retry;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use files::{Changes, FileWatch};
use retry::Retries;

use crate::apply::{Apply, DEFAULT_PARALLELISM, Holder, Interrupt, LockError, StackLock};
use crate::event::{Event, What};
use crate::manifest::Loaded;
use crate::model::{Address, Desired, Observed, ObservedService};
use crate::plan::{self, Action, Cause, Operation, Options, Plan, PlanError};
use crate::platforms::{PlatformError, Platforms};

/// How long events are collected before they are looked at: this long after the last one …
const QUIET: Duration = Duration::from_millis(100);
/// … and at most this long after the first.
const BURST: Duration = Duration::from_secs(1);
/// How often files are read even without an event: network file systems send none.
const FILE_POLL: Duration = Duration::from_secs(5);
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
    /// File changes that no round has dealt with yet.
    pending: Changes,
    /// The last manifest that was valid.
    good: Option<Arc<Good>>,
    /// Whether the manifest is valid now.
    valid: bool,
    /// What the platforms showed last.
    last: Option<Observed>,
    /// Deletions that wait for a yes.
    held: Vec<Address>,
    retries: Retries,
}

struct Good {
    loaded: Loaded,
    desired: Desired,
}

/// Why a round is made, which decides what it may do.
#[derive(Debug, Default)]
struct Occasion {
    /// In words: `gabion.yaml changed`. Empty for a look by the clock.
    reasons: Vec<String>,
    /// Whether deletions are allowed in this round.
    delete: bool,
    /// The first look: its result is told even if there is nothing to do.
    first: bool,
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
            pending: Changes::default(),
            good: None,
            valid: true,
            last: None,
            held: Vec::new(),
            retries: Retries::default(),
        })
    }

    /// Watches until the user wishes to end it.
    pub async fn run(&mut self) -> Result<(), WatchError> {
        self.reload()?;
        let reasons = vec!["started watching".to_owned()];
        self.round(Occasion {
            reasons,
            first: true,
            ..Occasion::default()
        })
        .await?;
        let mut last_poll = Instant::now();
        while *self.interrupt.borrow() == Interrupt::None {
            if !self.pending.is_empty() {
                self.catch_up().await?;
                continue;
            }
            tokio::select! {
                _ = self.interrupt.changed() => {}
                () = self.files.burst(QUIET, BURST) => {
                    self.look_at_files()?;
                }
                Some(()) = self.consent.recv() => {
                    if !std::mem::take(&mut self.held).is_empty() {
                        let reasons = vec!["deletion confirmed".to_owned()];
                        self.round(Occasion { reasons, delete: true, first: false }).await?;
                    }
                }
                () = tokio::time::sleep(self.settings.interval) => {
                    if last_poll.elapsed() >= FILE_POLL {
                        last_poll = Instant::now();
                        self.look_at_files()?;
                    }
                    self.round(Occasion::default()).await?;
                }
            }
        }
        Ok(())
    }

    /// Notes which files really changed. Says whether there is a new valid manifest.
    fn look_at_files(&mut self) -> Result<bool, WatchError> {
        let changes = self.files.changes();
        let manifest = !changes.manifest.is_empty();
        self.pending.add(changes);
        if manifest {
            self.reload()?;
        }
        Ok(manifest && self.valid)
    }

    /// Deals with the file changes that were noted.
    async fn catch_up(&mut self) -> Result<(), WatchError> {
        let changes = std::mem::take(&mut self.pending);
        if !changes.manifest.is_empty() && self.valid {
            self.retries.clear();
            let reasons = changes
                .manifest
                .iter()
                .map(|file| format!("{file} changed"))
                .collect();
            self.round(Occasion {
                reasons,
                ..Occasion::default()
            })
            .await?;
        }
        for (service, path) in changes.sources {
            let address = Address::Service(service);
            let cause = Cause::FileChanged { path: path.clone() };
            self.act(vec![format!("{path} changed")], |desired, observed| {
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
        let file = loaded
            .files
            .first()
            .map(|file| file.display().to_string())
            .unwrap_or_default();
        let was_valid = std::mem::replace(&mut self.valid, desired.is_some());
        match desired {
            Some(desired) => {
                self.good = Some(Arc::new(Good { loaded, desired }));
                if !was_valid {
                    self.emit(What::ManifestValid { file });
                }
            }
            None => {
                let report = Arc::new(std::mem::take(&mut loaded.report));
                self.emit(What::ManifestInvalid {
                    file,
                    errors: report.error_count(),
                    report,
                });
            }
        }
        Ok(())
    }

    /// Looks, and does what is to be done.
    async fn round(&mut self, occasion: Occasion) -> Result<(), WatchError> {
        let Some(good) = self.good.clone() else {
            return Ok(());
        };
        let observed = self.observe(&good).await?;
        self.tell_drift(&observed, &BTreeSet::new());
        let by_clock = occasion.reasons.is_empty();
        let whole = plan::plan(&good.desired, &observed, &Options::default())?;
        let keep = self.rule(&observed, by_clock, occasion.delete);
        let plan = held::without(&whole, |action| !keep(action));
        drop(keep);
        self.last = Some(observed);
        self.tell_held(&whole, &plan);
        if occasion.first {
            let files = self.files.count();
            self.emit(What::WatchStarted {
                plan: Arc::new(plan.clone()),
                files,
            });
        }
        if plan.is_empty() {
            return Ok(());
        }
        let allowed: BTreeSet<String> = plan.actions.iter().map(Action::id).collect();
        self.act(occasion.reasons, move |desired, observed| {
            let whole = plan::plan(desired, observed, &Options::default())?;
            Ok(held::without(&whole, |action| {
                !allowed.contains(&action.id())
            }))
        })
        .await
    }

    /// Which actions a round may take. A look by the clock leaves alone what the supervisor has
    /// decided about already, and what failed a moment ago.
    fn rule<'a>(
        &'a self,
        observed: &'a Observed,
        by_clock: bool,
        delete: bool,
    ) -> impl Fn(&Action) -> bool + 'a {
        let now = Instant::now();
        move |action| {
            if action.cause == Cause::Removed {
                return delete || self.settings.allow_delete;
            }
            if !by_clock {
                return true;
            }
            let decided = match (&action.cause, &action.address) {
                (Cause::NotRunning { .. }, Address::Service(service)) => observed
                    .known(&service.sandbox)
                    .and_then(|sandbox| sandbox.services.get(&service.service))
                    .is_some_and(ObservedService::ended_by_itself),
                _ => false,
            };
            !decided && self.retries.is_due(&action.address, now)
        }
    }

    /// Takes the lock, looks again, and carries out what `make` plans. Files and drift are still
    /// looked at meanwhile: a new manifest ends the round, and the next one goes on from there.
    async fn act(
        &mut self,
        reasons: Vec<String>,
        make: impl FnOnce(&Desired, &Observed) -> Result<Plan, PlanError>,
    ) -> Result<(), WatchError> {
        let Some(good) = self.good.clone() else {
            return Ok(());
        };
        let mut interrupt = self.interrupt.clone();
        let path = self.world.lock_file(&good.desired.stack)?;
        let waits = |holder: Option<&Holder>| {
            let command = holder.map_or("another process", |holder| holder.command.as_str());
            tracing::info!("waits for the stack's lock, held by {command}");
        };
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
        let touched: BTreeSet<Address> = plan
            .actions
            .iter()
            .map(|action| action.address.clone())
            .collect();
        self.emit(What::RoundStarted {
            reasons,
            plan: Arc::clone(&plan),
        });
        let (end, wish) = watch::channel(Interrupt::None);
        let apply = Apply {
            platforms: &platforms,
            secrets: &good.loaded.secrets,
            parallelism: DEFAULT_PARALLELISM,
            interrupt: wish,
            events: self.events.clone(),
        };
        let mut running = pin!(apply.run(&plan));
        let outcome = loop {
            tokio::select! {
                outcome = &mut running => break outcome,
                _ = interrupt.changed() => drop(end.send_replace(Interrupt::Abort)),
                () = self.files.burst(QUIET, BURST) => {
                    if self.look_at_files()? {
                        end.send_replace(Interrupt::Abort);
                    }
                }
                () = tokio::time::sleep(self.settings.interval) => {
                    let observed = self.observe(&good).await?;
                    self.tell_drift(&observed, &touched);
                    self.last = Some(observed);
                }
            }
        };
        drop(lock);
        let after = self.observe(&good).await?;
        self.tell_drift(&after, &touched);
        if !outcome.interrupted {
            let left = plan::plan(&good.desired, &after, &Options::default())?;
            let left = left
                .actions
                .into_iter()
                .map(|action| action.address)
                .collect();
            self.retries.remember(&touched, &left, Instant::now());
        }
        self.last = Some(after);
        Ok(())
    }

    async fn observe(&self, good: &Good) -> Result<Observed, WatchError> {
        let mut platforms = self.world.platforms(&good.loaded, &good.desired.stack)?;
        Ok(platforms.observe(&good.desired).await?)
    }

    /// Tells what happened since the last look, but for the addresses that we are at work on.
    fn tell_drift(&self, observed: &Observed, ours: &BTreeSet<Address>) {
        let Some(last) = &self.last else { return };
        for (address, found) in drift::between(last, observed) {
            if !ours.contains(&address) {
                self.emit(What::Drift { address, found });
            }
        }
    }

    /// Tells which deletions are left out, once.
    fn tell_held(&mut self, whole: &Plan, kept: &Plan) {
        let removed = |plan: &Plan| -> BTreeSet<Address> {
            let actions = plan
                .actions
                .iter()
                .filter(|action| action.cause == Cause::Removed);
            actions.map(|action| action.address.clone()).collect()
        };
        let held: Vec<Address> = removed(whole).difference(&removed(kept)).cloned().collect();
        if held != self.held {
            self.held.clone_from(&held);
            if !held.is_empty() {
                self.emit(What::DeletionsHeld { addresses: held });
            }
        }
    }

    fn emit(&self, what: What) {
        // A receiver that went away only means that nobody listens any more.
        let _ = self.events.send(Event::now(what));
    }
}
