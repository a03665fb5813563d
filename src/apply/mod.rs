//! Carries out a plan: a concurrent walk of the action graph.
//!
//! In: a [`Plan`], the platforms, the secrets. Out: [`Event`]s and an [`Outcome`]. Each action
//! begins once everything in its `after` has come far enough; a failure skips what depends on it
//! and nothing else. It decides nothing that the plan left open, and asks for nothing but the URLs that the
//! plan says are known only then (`references`).

mod atomic;
mod journal;
mod lock;
mod references;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, watch};

pub use atomic::{AtomicError, RolledBack, SafePoint};
pub use journal::Journal;
pub use lock::{Holder, LockError, StackLock};

use self::references::References;
use crate::event::{ActionRef, Event, Outcome, SkipReason, What};
use crate::model::{Address, SandboxName, Secrets, ServiceAddress};
use crate::plan::{Action, Plan, Step, Until};
use crate::platforms::{Act, PlatformError, Platforms, Progress};

/// How many actions may do work at the same time by default. A service that was executed and is
/// awaited does no work and does not count.
pub const DEFAULT_PARALLELISM: usize = 16;

/// How far the user wants an apply to go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Interrupt {
    /// To the end.
    #[default]
    None,
    /// Start no further action; await the running ones.
    StopNew,
    /// Stop at once; running actions are abandoned where they are.
    Abort,
}

/// What an apply is given besides the plan.
pub struct Apply<'a> {
    /// Where to carry it out.
    pub platforms: &'a Platforms,
    /// The values behind `${secret.name}`.
    pub secrets: &'a Secrets,
    /// How many actions may do work at the same time; at least 1.
    pub parallelism: usize,
    /// The user's wish to stop, as it changes.
    pub interrupt: watch::Receiver<Interrupt>,
    /// Where events go. A receiver that is gone is no error.
    pub events: mpsc::UnboundedSender<Event>,
}

impl Apply<'_> {
    /// Carries out `plan`.
    pub async fn run(mut self, plan: &Plan) -> Outcome {
        let began = Instant::now();
        let actions = plan.actions.len();
        emit(
            &self.events,
            What::ApplyStarted {
                stack: plan.stack.clone(),
                actions,
            },
        );
        let mut outcome = self.walk(plan).await;
        outcome.seconds = began.elapsed().as_secs_f64();
        emit(&self.events, What::ApplyFinished(outcome.clone()));
        outcome
    }

    async fn walk(&mut self, plan: &Plan) -> Outcome {
        let mut graph = Graph::new(plan);
        let mut outcome = Outcome::default();
        let references = &References::new(self.platforms);
        let (milestones, mut executed) = mpsc::unbounded_channel();
        let mut running = FuturesUnordered::new();
        let mut began = HashMap::new();
        let mut interrupt = *self.interrupt.borrow();
        loop {
            while interrupt == Interrupt::None && graph.working() < self.parallelism.max(1) {
                let Some(index) = graph.begin_next() else {
                    break;
                };
                let action = &plan.actions[index];
                began.insert(index, Instant::now());
                let reference = reference(action);
                emit(&self.events, What::ActionStarted(reference.clone()));
                let ticket = Ticket {
                    index,
                    reference,
                    events: self.events.clone(),
                    milestones: milestones.clone(),
                    executed: AtomicBool::new(false),
                };
                let (platforms, secrets) = (self.platforms, self.secrets);
                running.push(async move {
                    let began = Instant::now();
                    let result = perform(platforms, secrets, references, action, &ticket).await;
                    (index, began.elapsed().as_secs_f64(), result)
                });
            }
            if running.is_empty() {
                break;
            }
            tokio::select! {
                // Milestones first: an action that was executed and is done must unlock both kinds.
                biased;
                Some(index) = executed.recv() => graph.executed(index),
                Some((index, seconds, result)) = running.next() => {
                    while let Some(Some(earlier)) = executed.recv().now_or_never() {
                        graph.executed(earlier);
                    }
                    let action = reference(&plan.actions[index]);
                    match result {
                        Ok(()) => {
                            graph.done(index);
                            outcome.done += 1;
                            emit(&self.events, What::ActionDone { action, seconds });
                        }
                        Err(PlatformError(failure)) => {
                            outcome.failed += 1;
                            let failure = failure.concealing(self.secrets);
                            emit(&self.events, What::ActionFailed { action, seconds, failure });
                            for (index, need) in graph.failed(index) {
                                outcome.skipped += 1;
                                self.skip(&plan.actions[index], SkipReason::Needs(
                                    plan.actions[need].address.clone(),
                                ));
                            }
                        }
                    }
                }
                Ok(()) = self.interrupt.changed() => {
                    let wish = *self.interrupt.borrow_and_update();
                    if wish > interrupt {
                        interrupt = wish;
                        outcome.interrupted = true;
                        emit(&self.events, What::Interrupted);
                    }
                    if interrupt == Interrupt::Abort {
                        break;
                    }
                }
            }
        }
        drop(running);
        for index in graph.abandoned() {
            outcome.abandoned += 1;
            let action = reference(&plan.actions[index]);
            let seconds = began
                .get(&index)
                .map_or(0.0, |began| began.elapsed().as_secs_f64());
            emit(&self.events, What::ActionAbandoned { action, seconds });
        }
        for index in graph.never_begun() {
            outcome.skipped += 1;
            self.skip(&plan.actions[index], SkipReason::Interrupted);
        }
        outcome
    }

    fn skip(&self, action: &Action, because: SkipReason) {
        emit(
            &self.events,
            What::ActionSkipped {
                action: reference(action),
                because,
            },
        );
    }
}

fn emit(events: &mpsc::UnboundedSender<Event>, what: What) {
    // A receiver that went away only means that nobody listens any more.
    let _ = events.send(Event::now(what));
}

fn reference(action: &Action) -> ActionRef {
    ActionRef {
        action: action.id(),
        address: action.address.clone(),
        kind: action.step.kind(),
    }
}

/// Which actions may begin, and what each one's end unlocks.
struct Graph {
    state: Vec<State>,
    /// How many entries of `after` are still open.
    open: Vec<usize>,
    /// The actions that wait for this one to be executed, or done.
    waiters: Vec<Vec<(usize, Until)>>,
    ready: BTreeSet<usize>,
    working: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Working,
    /// Executed and awaited; no longer counts as work.
    Awaited,
    Done,
    Failed,
    Skipped,
}

impl Graph {
    fn new(plan: &Plan) -> Self {
        let mut waiters = vec![Vec::new(); plan.actions.len()];
        for (index, action) in plan.actions.iter().enumerate() {
            for after in &action.after {
                waiters[after.action].push((index, after.until));
            }
        }
        let open: Vec<usize> = plan
            .actions
            .iter()
            .map(|action| action.after.len())
            .collect();
        let ready = (0..open.len()).filter(|index| open[*index] == 0).collect();
        Self {
            state: vec![State::Waiting; open.len()],
            open,
            waiters,
            ready,
            working: 0,
        }
    }

    fn working(&self) -> usize {
        self.working
    }

    /// The first action in plan order that may begin.
    fn begin_next(&mut self) -> Option<usize> {
        let index = self.ready.pop_first()?;
        self.state[index] = State::Working;
        self.working += 1;
        Some(index)
    }

    fn executed(&mut self, index: usize) {
        if self.state[index] == State::Working {
            self.state[index] = State::Awaited;
            self.working -= 1;
            self.unlock(index, Until::Executed);
        }
    }

    fn done(&mut self, index: usize) {
        self.executed(index);
        self.state[index] = State::Done;
        self.unlock(index, Until::Done);
    }

    fn unlock(&mut self, index: usize, until: Until) {
        for (waiter, wanted) in self.waiters[index].clone() {
            if wanted == until {
                self.open[waiter] -= 1;
                if self.open[waiter] == 0 && self.state[waiter] == State::Waiting {
                    self.ready.insert(waiter);
                }
            }
        }
    }

    /// Marks everything that waits for `index`, directly or not, as skipped, and returns each with
    /// the failed or skipped action it waited for.
    fn failed(&mut self, index: usize) -> Vec<(usize, usize)> {
        let was_executed = self.state[index] == State::Awaited;
        if self.state[index] == State::Working {
            self.working -= 1;
        }
        self.state[index] = State::Failed;
        let mut skipped = Vec::new();
        let mut stack = vec![index];
        while let Some(cause) = stack.pop() {
            for (waiter, until) in self.waiters[cause].clone() {
                let released = cause == index && was_executed && until == Until::Executed;
                if !released && self.state[waiter] == State::Waiting {
                    self.state[waiter] = State::Skipped;
                    self.ready.remove(&waiter);
                    skipped.push((waiter, cause));
                    stack.push(waiter);
                }
            }
        }
        skipped.sort_unstable();
        skipped
    }

    fn abandoned(&self) -> Vec<usize> {
        self.indices(|state| matches!(state, State::Working | State::Awaited))
    }

    fn never_begun(&self) -> Vec<usize> {
        self.indices(|state| state == State::Waiting)
    }

    fn indices(&self, wanted: impl Fn(State) -> bool) -> Vec<usize> {
        (0..self.state.len())
            .filter(|index| wanted(self.state[*index]))
            .collect()
    }
}

/// What a running action reports through.
struct Ticket {
    index: usize,
    reference: ActionRef,
    events: mpsc::UnboundedSender<Event>,
    milestones: mpsc::UnboundedSender<usize>,
    executed: AtomicBool,
}

impl Progress for Ticket {
    fn executed(&self) {
        if self.executed.swap(true, Ordering::Relaxed) {
            return;
        }
        emit(
            &self.events,
            What::ServiceExecuted {
                action: self.reference.clone(),
            },
        );
        // The walk holds the receiver for as long as any ticket lives.
        let _ = self.milestones.send(self.index);
    }

    fn waiting(&self, waiting_for: &str) {
        let waiting_for = waiting_for.to_owned();
        emit(
            &self.events,
            What::ActionWaiting {
                action: self.reference.clone(),
                waiting_for,
            },
        );
    }
}

async fn perform(
    platforms: &Platforms,
    secrets: &Secrets,
    references: &References<'_>,
    action: &Action,
    ticket: &Ticket,
) -> Result<(), PlatformError> {
    let platform = platforms.of(action.address.sandbox())?;
    match &action.address {
        Address::Sandbox(sandbox) => on_sandbox(platform, sandbox, action, secrets).await,
        Address::Service(service) => {
            let tools = (secrets, references);
            on_service(platform, service, action, tools, ticket).await
        }
    }
}

async fn on_sandbox(
    platform: &dyn Act,
    sandbox: &SandboxName,
    action: &Action,
    secrets: &Secrets,
) -> Result<(), PlatformError> {
    match &action.step {
        Step::CreateSandbox(spec) => platform.create_sandbox(sandbox, spec, secrets).await,
        Step::UpdateSandbox(spec) => platform.update_sandbox(sandbox, spec, secrets).await,
        Step::StartSandbox(spec) => platform.start_sandbox(sandbox, spec).await,
        Step::StopSandbox => platform.stop_sandbox(sandbox).await,
        Step::DeleteSandbox => platform.delete_sandbox(sandbox).await,
        Step::UpsertService(_)
        | Step::StartService(_)
        | Step::StopService
        | Step::DeleteService
        | Step::RunTask(_) => Err(misplaced(action)),
    }
}

async fn on_service(
    platform: &dyn Act,
    service: &ServiceAddress,
    action: &Action,
    (secrets, references): (&Secrets, &References<'_>),
    ticket: &Ticket,
) -> Result<(), PlatformError> {
    match &action.step {
        Step::UpsertService(spec) => {
            let spec = references.resolve(service, spec).await?;
            platform.upsert_service(service, &spec, secrets).await
        }
        Step::StartService(spec) | Step::RunTask(spec) => {
            let spec = references.resolve(service, spec).await?;
            let started = platform.start_service(service, &spec, secrets, ticket);
            started.await
        }
        Step::StopService => platform.stop_service(service).await,
        Step::DeleteService => platform.delete_service(service).await,
        Step::CreateSandbox(_)
        | Step::UpdateSandbox(_)
        | Step::StartSandbox(_)
        | Step::StopSandbox
        | Step::DeleteSandbox => Err(misplaced(action)),
    }
}

fn misplaced(action: &Action) -> PlatformError {
    PlatformError::new(format!(
        "`{}` does not fit its address: this is a bug",
        action.id()
    ))
}
