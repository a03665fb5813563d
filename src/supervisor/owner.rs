//! The owner of one service: a task with a queue of controls, the only one that changes the service
//! and the only source of truth about it.
//!
//! It is always in one [`Phase`]. Controls and events move it from one to the next; after each move it
//! publishes its [`ServiceObject`] and then answers those whose wish has come true.

mod contained;
mod events;
mod hand;
mod health;
mod object;
mod phase;
mod refusal;
mod restore;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

pub(super) use self::hand::Hand;
pub(super) use self::hand::Inheritance;
use self::phase::{Attempt, Event, Phase, Preparing, Rest, Retry, Stage, Then, Up, Waiting};
pub(super) use self::refusal::Refusal;
use super::input::{Given, Input, Kind};
use super::live::{End, Live};
use super::policy::{self, Ending, History, Next};
use super::probe::{Before, Begin, Means, NotifySocket, Prober};
use super::process::{Known, Process};
use super::sandbox::{self, Handle, Sandbox};
use super::signal;
use super::spawn::{Prepared, SpawnError};
use super::store::Record;
use super::wire::ServiceObject;
use super::{logs, os, port, probe};
use crate::keeper::Child;
use crate::model::{Condition, Secrets, ServiceGoal, ServiceKind, ServiceName, ServiceSpec};
use crate::platforms::LogQuery;

/// Where an owner's answer goes.
pub(super) type Reply = oneshot::Sender<Result<(), Refusal>>;

/// How far a start is awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Await {
    /// Executed, or waiting for something.
    Accepted,
    /// Ready; for a task, exited with 0.
    Settled,
    /// What a dependent asks for.
    Condition(Condition),
}

/// Who wants a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Origin {
    /// A client, for this service.
    Request,
    /// A client, for a service that needs this one.
    Dependent,
    /// Nobody: it comes back after a restart of the supervisor or a failure.
    BroughtBack,
}

/// What an owner can be asked to do. Each is answered when it is done.
#[derive(Debug)]
pub(super) enum Control {
    /// Take a new definition; a live process goes on as it is.
    Define {
        spec: Box<ServiceSpec>,
        secrets: Secrets,
        reply: Reply,
    },
    /// Start, with these secrets beside the known ones.
    Start {
        until: Await,
        origin: Origin,
        secrets: Secrets,
        reply: Reply,
    },
    /// Stop, and stay stopped.
    Stop(Reply),
    /// Stop and start.
    Restart { secrets: Secrets, reply: Reply },
    /// Send a signal to the process group.
    Signal {
        signal: rustix::process::Signal,
        reply: Reply,
    },
    /// Write to its standard input.
    Input { given: Given, reply: Reply },
    /// Become what a checkpoint says, while nothing runs.
    Rewind {
        record: Box<Record>,
        secrets: Secrets,
        reply: Reply,
    },
    /// Stop and remove.
    Delete(Reply),
    /// Stop because the supervisor ends; what was asked for stays asked for.
    Halt(Reply),
    /// The same without a grace period.
    Kill(Reply),
}

/// One who waits for a start.
struct Starter {
    until: Await,
    origin: Origin,
    reply: Reply,
}

/// The state of an owner.
pub(super) struct Owner {
    sandbox: Arc<Sandbox>,
    name: ServiceName,
    record: Record,
    /// What is on disk.
    saved: Record,
    secrets: Secrets,
    controls: mpsc::UnboundedReceiver<Control>,
    object: watch::Sender<Arc<ServiceObject>>,
    tick: watch::Sender<u64>,
    phase: Phase,
    /// Those who wait for the start that is going on.
    starters: Vec<Starter>,
    /// Those who wait for the end of the process.
    stoppers: Vec<Reply>,
    /// Answers that are given once the new state is published.
    answers: Vec<(Reply, Result<(), Refusal>)>,
    /// The revision that the live process runs.
    running_revision: Option<u64>,
    /// Its restarts so far.
    history: History,
    /// Why it was stopped to be started again, until it is.
    illness: Option<String>,
    /// Whether a container that an earlier supervisor has started may still be there.
    untried: bool,
    deleted: bool,
    /// The note that the keeper holds.
    note: String,
    /// Processes that are gone, to be reaped once the note says so.
    ended: Vec<Child>,
    /// The last process and when it was started.
    last_process: Option<(u32, jiff::Timestamp)>,
}

impl Owner {
    /// Starts the task. The owner is registered, and has published its state, when this returns.
    pub(super) fn start(
        sandbox: Arc<Sandbox>,
        name: ServiceName,
        record: Record,
        secrets: Secrets,
        inheritance: Option<Inheritance>,
    ) -> Handle {
        let (sender, controls) = mpsc::unbounded_channel();
        let rest = rest_of(&record);
        let first = Arc::new(ServiceObject::of_definition(&name, &record.definition));
        let owner = Self {
            sandbox,
            name,
            saved: record.clone(),
            record,
            secrets,
            controls,
            object: watch::channel(first).0,
            tick: watch::channel(0).0,
            phase: Phase::Down(rest),
            starters: Vec::new(),
            stoppers: Vec::new(),
            answers: Vec::new(),
            running_revision: None,
            history: History::default(),
            illness: None,
            untried: true,
            deleted: false,
            note: String::new(),
            ended: Vec::new(),
            last_process: None,
        };
        owner.publish();
        let handle = Handle {
            controls: sender,
            object: owner.object.subscribe(),
            tick: owner.tick.subscribe(),
        };
        let (sandbox, name) = (owner.sandbox.clone(), owner.name.clone());
        let running = tokio::spawn(owner.run(inheritance));
        tokio::spawn(async move {
            if let Err(error) = running.await
                && error.is_panic()
            {
                sandbox.replace_owner(name).await;
            }
        });
        handle
    }

    async fn run(mut self, inheritance: Option<Inheritance>) {
        if let Some(inheritance) = inheritance {
            self.inherit(inheritance).await;
            self.save().await;
            self.leave_note();
            self.publish();
        }
        loop {
            tokio::select! {
                biased;
                control = self.controls.recv() => match control {
                    Some(control) => self.control(control).await,
                    None => return,
                },
                event = self.phase.event() => self.event(event).await,
            }
            // What comes back at once is not held up by the disk; the note says as much meanwhile.
            if !self.phase.is_due() {
                self.save().await;
            }
            self.leave_note();
            self.publish();
            if self.deleted && matches!(self.phase, Phase::Down(_)) {
                self.sandbox.forget(&self.name);
                self.sandbox.keeper.forget(&self.key());
                self.sandbox.keeper.forget(&sandbox::input_key(&self.name));
                self.sandbox.changes.deleted(&self.name);
                let socket = sandbox::socket_key(&self.name);
                self.sandbox.keeper.forget(&socket);
            }
            for (reply, answer) in self.answers.drain(..) {
                // Whoever asked may have hung up.
                let _ = reply.send(answer);
            }
            if self.deleted && matches!(self.phase, Phase::Down(_)) {
                return;
            }
        }
    }

    fn publish(&self) {
        let mut object = object::show(self);
        self.object.send_if_modified(|last| {
            object.seq = last.seq;
            if **last == object {
                return false;
            }
            // Greater than any number of an earlier supervisor, too.
            let now = jiff::Timestamp::now().as_microsecond().unsigned_abs();
            object.seq = now.max(last.seq + 1);
            *last = Arc::new(object);
            if !self.name.is_process() {
                self.sandbox.changes.changed(last);
            }
            true
        });
    }

    /// Leaves word for the supervisor that comes after a kill. Only then may what has ended be forgotten.
    fn leave_note(&mut self) {
        let key = self.key();
        match serde_json::to_string(&Hand::of(self)) {
            Ok(note) if note != self.note => {
                self.sandbox.keeper.keep(&key, note.clone(), Vec::new());
                self.note = note;
            }
            Ok(_) => {}
            Err(error) => tracing::error!(service = %self.name, %error, "no note can be left"),
        }
        self.ended.clear();
    }

    /// What the keeper knows the service by.
    fn key(&self) -> String {
        sandbox::key(&self.name)
    }

    /// Puts the record on disk if it has changed. Says whether it is there now.
    async fn save(&mut self) -> bool {
        // A process that is not a service is not kept.
        if self.saved == self.record || self.deleted || self.name.is_process() {
            return true;
        }
        let (store, name) = (self.sandbox.store.clone(), self.name.clone());
        let record = self.record.clone();
        let saved = tokio::task::spawn_blocking(move || store.save(&name, &record)).await;
        match saved.map_err(std::io::Error::other).and_then(|saved| saved) {
            Ok(()) => {
                self.saved = self.record.clone();
                true
            }
            Err(error) => {
                tracing::error!(service = %self.name, %error, "its record is not stored");
                false
            }
        }
    }

    /// Notes what is wanted, on disk too, before anything is done about it.
    async fn aim(&mut self, goal: ServiceGoal) -> Result<(), Refusal> {
        self.record.goal = goal;
        match self.save().await {
            true => Ok(()),
            false => Err(Refusal::internal("what was asked for could not be stored")),
        }
    }

    async fn control(&mut self, control: Control) {
        if self.deleted {
            return self.control_of_deleted(control);
        }
        match control {
            Control::Define {
                spec,
                secrets,
                reply,
            } => {
                let answer = self.define(*spec, secrets).await;
                self.answers.push((reply, answer));
            }
            Control::Start {
                until,
                origin,
                secrets,
                reply,
            } => {
                self.secrets.extend(secrets);
                self.wish_start(until, origin, reply).await;
            }
            Control::Stop(reply) => {
                // Told in the supervisor's log should it not be stored: a full disk is no reason to
                // go on, and storing is tried again with the next change.
                let _ = self.aim(ServiceGoal::Stopped).await;
                self.wish_stop(reply);
            }
            Control::Restart { secrets, reply } => {
                self.secrets.extend(secrets);
                if let Err(refusal) = self.aim(ServiceGoal::Running).await {
                    return self.answers.push((reply, Err(refusal)));
                }
                match &self.phase {
                    Phase::Up(up) if up.stage != Stage::Stopping => {
                        self.refuse_starters(&Refusal::stopped());
                        self.starters.push(Starter {
                            until: Await::Settled,
                            origin: Origin::Request,
                            reply,
                        });
                        self.begin_stop(Then::Again);
                    }
                    _ => {
                        self.wish_start(Await::Settled, Origin::Request, reply)
                            .await
                    }
                }
            }
            Control::Signal { signal, reply } => {
                let answer = match &self.phase {
                    Phase::Up(up) => {
                        up.live.signal(signal);
                        Ok(())
                    }
                    _ => Err(Refusal::not_running(&self.name)),
                };
                self.answers.push((reply, answer));
            }
            Control::Input { given, reply } => self.give(given, reply),
            Control::Delete(reply) => {
                // Removed first, so that a supervisor that dies now does not bring it back.
                match self.sandbox.store.remove(&self.name) {
                    Ok(()) => {
                        self.deleted = true;
                        self.wish_stop(reply);
                    }
                    Err(error) => {
                        let text = format!("the definition is not removed: {error}");
                        self.answers.push((reply, Err(Refusal::internal(text))));
                    }
                }
            }
            Control::Rewind {
                record,
                secrets,
                reply,
            } => {
                self.secrets.extend(secrets);
                let answer = self.rewind(*record).await;
                self.answers.push((reply, answer));
            }
            Control::Halt(reply) => self.wish_stop(reply),
            Control::Kill(reply) => {
                self.wish_stop(reply);
                self.kill_now();
            }
        }
    }

    /// Passes on what its process is to read.
    fn give(&mut self, given: Given, reply: Reply) {
        let refusal = match &self.phase {
            Phase::Up(up) => match up.live.input() {
                Some(input) => return input.give(given, reply),
                None => Refusal::conflict("its standard input is not open: set `stdin_open`"),
            },
            _ => Refusal::not_running(&self.name),
        };
        self.answers.push((reply, Err(refusal)));
    }

    /// Its definition is gone already; only the process is awaited.
    fn control_of_deleted(&mut self, control: Control) {
        match control {
            Control::Stop(reply) | Control::Delete(reply) | Control::Halt(reply) => {
                self.stoppers.push(reply);
            }
            Control::Kill(reply) => {
                self.stoppers.push(reply);
                self.kill_now();
            }
            Control::Define { reply, .. }
            | Control::Start { reply, .. }
            | Control::Restart { reply, .. }
            | Control::Input { reply, .. }
            | Control::Rewind { reply, .. }
            | Control::Signal { reply, .. } => {
                let refusal = Refusal::conflict(format!("`{}` is being deleted", self.name));
                self.answers.push((reply, Err(refusal)));
            }
        }
    }

    async fn rewind(&mut self, record: Record) -> Result<(), Refusal> {
        if !matches!(self.phase, Phase::Down(_)) {
            return Err(Refusal::conflict(format!("`{}` still runs", self.name)));
        }
        self.record = record;
        self.phase = Phase::Down(rest_of(&self.record));
        self.history = History::default();
        self.illness = None;
        match self.save().await {
            true => Ok(()),
            false => Err(Refusal::internal("the definition is not stored")),
        }
    }

    async fn define(&mut self, spec: ServiceSpec, secrets: Secrets) -> Result<(), Refusal> {
        self.secrets.extend(secrets);
        if spec == self.record.definition {
            return Ok(());
        }
        let before = self.record.clone();
        let old = &before.definition;
        self.record.revision += 1;
        if !old.needs_new_process(&spec) {
            // Taken over in place: what runs, or has completed, is of this revision as well.
            let follow = |revision: &mut Option<u64>| {
                if *revision == Some(before.revision) {
                    *revision = Some(before.revision + 1);
                }
            };
            follow(&mut self.running_revision);
            follow(&mut self.record.completed);
        }
        let health_changed = old.health != spec.health;
        self.record.definition = spec;
        if !self.save().await {
            self.record = before;
            return Err(Refusal::internal("the definition is not stored"));
        }
        if let Phase::Down(Rest::Completed) = self.phase
            && self.record.completed != Some(self.record.revision)
        {
            self.phase = Phase::Down(Rest::Stopped);
        }
        if health_changed {
            self.probe_anew();
        }
        Ok(())
    }

    async fn wish_start(&mut self, until: Await, origin: Origin, reply: Reply) {
        if self.sandbox.closing.is_cancelled() {
            return self.answers.push((reply, Err(Refusal::closing())));
        }
        if self.sandbox.checkpoints.is_restoring() {
            let refusal = Refusal::conflict("a checkpoint is being restored");
            return self.answers.push((reply, Err(refusal)));
        }
        if origin != Origin::Request && self.satisfied_at_rest(until) {
            return self.answers.push((reply, Ok(())));
        }
        if origin == Origin::BroughtBack
            && self.record.goal == ServiceGoal::Stopped
            && until != Await::Condition(Condition::Completed)
        {
            // What was stopped on request stays stopped when its dependents come back by themselves.
            return self.answers.push((reply, Ok(())));
        }
        if let Err(refusal) = self.aim(ServiceGoal::Running).await {
            return self.answers.push((reply, Err(refusal)));
        }
        self.starters.push(Starter {
            until,
            origin,
            reply,
        });
        match &mut self.phase {
            Phase::Down(_) => self.begin_on_wish(origin).await,
            Phase::BackingOff(_) if origin != Origin::BroughtBack => {
                self.begin_on_wish(origin).await;
            }
            Phase::Up(up) if up.stage == Stage::Stopping => {
                if up.then == Then::Rest {
                    up.then = Then::Again;
                }
            }
            Phase::Preparing(preparing) => {
                preparing.then = preparing.then.take().map(|_| Then::Again);
            }
            Phase::Up(_) | Phase::Waiting(_) | Phase::BackingOff(_) => {}
        }
        self.answer_starters();
    }

    /// Whether what a dependent asks for has been done before and need not be done again.
    fn satisfied_at_rest(&self, until: Await) -> bool {
        let task = self.record.definition.kind == ServiceKind::Task;
        matches!(self.phase, Phase::Down(_))
            && self.record.completed == Some(self.record.revision)
            && (task || until == Await::Condition(Condition::Completed))
    }

    async fn begin_on_wish(&mut self, origin: Origin) {
        self.history = History::default();
        self.illness = None;
        self.begin(origin, true).await;
    }

    fn wish_stop(&mut self, reply: Reply) {
        self.refuse_starters(&Refusal::stopped());
        self.stoppers.push(reply);
        match &mut self.phase {
            Phase::Preparing(preparing) => preparing.give_up(Then::Rest),
            Phase::Up(up) if up.stage == Stage::Stopping => up.then = Then::Rest,
            Phase::Up(_) => self.begin_stop(Then::Rest),
            Phase::Down(Rest::Completed) => self.rest(Rest::Completed),
            Phase::Down(Rest::Failed) if self.record.goal == ServiceGoal::Running => {
                // The supervisor ends: a failure stays one.
                self.rest(Rest::Failed);
            }
            Phase::Down(_) | Phase::Waiting(_) | Phase::BackingOff(_) => {
                self.record.error = None;
                self.rest(Rest::Stopped);
            }
        }
    }

    /// Comes to rest and answers those who waited for that.
    fn rest(&mut self, rest: Rest) {
        self.running_revision = None;
        self.illness = None;
        self.phase = Phase::Down(rest);
        for reply in self.stoppers.drain(..) {
            self.answers.push((reply, Ok(())));
        }
    }

    /// Ends the grace period of a stop.
    fn kill_now(&mut self) {
        if let Phase::Up(up) = &mut self.phase {
            up.deadline = None;
            up.live.note_family();
            up.live.signal(rustix::process::Signal::KILL);
        }
    }

    /// Sends the stop signal; the grace period begins.
    fn begin_stop(&mut self, then: Then) {
        let stop = &self.record.definition.stop;
        let Phase::Up(up) = &mut self.phase else {
            return;
        };
        up.stage = Stage::Stopping;
        up.then = then;
        up.prober = None;
        up.message = None;
        up.status = None;
        up.live.note_family();
        up.live
            .signal(signal::by_name(&stop.signal).unwrap_or(rustix::process::Signal::TERM));
        // A stopped process would only act on its signal once it is continued.
        up.live.signal(rustix::process::Signal::CONT);
        up.deadline = Instant::now().checked_add(stop.grace.0);
    }
}

/// How a service that does not run came to rest.
fn rest_of(record: &Record) -> Rest {
    match record {
        record if record.completed == Some(record.revision) => Rest::Completed,
        record if record.error.is_some() => Rest::Failed,
        _ => Rest::Stopped,
    }
}
