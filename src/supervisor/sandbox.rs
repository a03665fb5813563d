//! The services of one sandbox as a whole: finds the owner of each, knows who needs whom, brings
//! services back and stops them all. Holds no state of any service: that is asked of its owner.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::changes::Changes;
use super::checkpoint::Checkpoints;
use super::container::{self, EngineSettings};
use super::logs::LogEngine;
use super::os;
use super::owner::{Await, Control, Inheritance, Origin, Owner, Refusal};
use super::processes::{EntryNote, Processes};
use super::spawn::Base;
use super::store::{Record, Running, Store};
use super::wire::ServiceObject;
use crate::keeper::{Child, Hello, Keeper};
use crate::model::{
    Condition, Need, NeedTarget, Secrets, ServiceGoal, ServiceKind, ServiceName, ServiceSpec,
};

/// How to reach the owner of a service.
#[derive(Debug, Clone)]
pub(super) struct Handle {
    /// Its queue.
    pub controls: mpsc::UnboundedSender<Control>,
    /// What it last published.
    pub object: watch::Receiver<Arc<ServiceObject>>,
    /// Counts the batches of lines in its log.
    pub tick: watch::Receiver<u64>,
}

impl Handle {
    /// Queues a control and waits for what the owner says to it.
    pub(super) async fn ask(
        &self,
        control: impl FnOnce(oneshot::Sender<Result<(), Refusal>>) -> Control,
    ) -> Result<(), Refusal> {
        let (reply, answer) = oneshot::channel();
        let gone = |_| Refusal::gone();
        self.controls
            .send(control(reply))
            .map_err(|_| Refusal::gone())?;
        answer.await.map_err(gone)?
    }

    fn spec(&self) -> Option<ServiceSpec> {
        self.object.borrow().definition.clone()
    }
}

/// The variable that marks what a service starts.
const MARK: &str = "GABION_SERVICE";

/// What the keeper knows a service by.
pub(super) fn key(name: &ServiceName) -> String {
    format!("service/{name}")
}

/// What the keeper knows the socket by that a service notifies at.
pub(super) fn socket_key(name: &ServiceName) -> String {
    format!("notify/{name}")
}

/// What the keeper knows our end of a service's standard input by.
pub(super) fn input_key(name: &ServiceName) -> String {
    format!("input/{name}")
}

/// The service that such a key is of.
pub(super) fn of_input_key(key: &str) -> Option<ServiceName> {
    ServiceName::of_either(key.strip_prefix("input/")?)
}

/// The service that such a key is of.
pub(super) fn of_socket_key(key: &str) -> Option<ServiceName> {
    ServiceName::new(key.strip_prefix("notify/")?).ok()
}

/// The service, or the process, that a key is of.
pub(super) fn of_key(key: &str) -> Option<ServiceName> {
    ServiceName::of_either(key.strip_prefix("service/")?)
}

/// One sandbox.
#[derive(Debug)]
pub(super) struct Sandbox {
    pub store: Store,
    pub base: Base,
    /// Where container engines are looked for.
    pub engine: EngineSettings,
    /// Executes, and holds what outlives this process.
    pub keeper: Keeper,
    /// Who the keeper is.
    pub hello: Hello,
    /// The program that is to go on from here, once it is known.
    successor: watch::Sender<Option<PathBuf>>,
    /// Writes down what services say.
    pub logs: LogEngine,
    /// Set as soon as everything is to stop: nothing is started any more.
    pub closing: CancellationToken,
    /// Set when everything has stopped: whoever still waits for a change is answered.
    pub closed: CancellationToken,
    /// Tells whoever listens what owners publish.
    pub changes: Changes,
    /// The processes that are not services.
    pub processes: Processes,
    /// One permit for each command that may run to its end at a time.
    pub execs: tokio::sync::Semaphore,
    services: Mutex<BTreeMap<ServiceName, Handle>>,
    /// The main processes, for whoever has to clear what an owner has left.
    running: Mutex<BTreeMap<ServiceName, Running>>,
    /// Those that go on from where an earlier supervisor was killed.
    inherited: Mutex<BTreeSet<ServiceName>>,
    /// Held while a definition is checked and stored, so that two at once cannot close a cycle.
    pub defining: tokio::sync::Mutex<()>,
    /// Checkpoints and restores.
    pub checkpoints: Checkpoints,
}

impl Sandbox {
    pub(super) fn new(
        store: Store,
        (base, engine): (Base, EngineSettings),
        keeper: Keeper,
        hello: Hello,
        logs: LogEngine,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            base,
            engine,
            keeper,
            hello,
            logs,
            successor: watch::Sender::default(),
            closing: CancellationToken::new(),
            closed: CancellationToken::new(),
            changes: Changes::default(),
            processes: Processes::default(),
            execs: tokio::sync::Semaphore::new(super::exec::AT_ONCE),
            services: Mutex::default(),
            running: Mutex::default(),
            inherited: Mutex::default(),
            defining: tokio::sync::Mutex::default(),
            checkpoints: Checkpoints::default(),
        })
    }

    fn services(&self) -> MutexGuard<'_, BTreeMap<ServiceName, Handle>> {
        // The map is whole after every statement, so a panic elsewhere cannot have torn it.
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inherited(&self) -> MutexGuard<'_, BTreeSet<ServiceName>> {
        self.inherited
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<ServiceName, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the main process of a service. On disk only where that is read after the keeper has died: under
    /// `strict` no process is left then, and what is asked about is whether a task was interrupted.
    pub(super) fn note_running(&self, name: &ServiceName, running: Running, kind: ServiceKind) {
        if (!self.hello.strict || kind == ServiceKind::Task)
            && let Err(error) = self.store.note_running(name, &running)
        {
            tracing::warn!(service = %name, %error, "its process is not noted");
        }
        self.running().insert(name.clone(), running);
    }

    /// Notes that a service has no live process.
    pub(super) fn clear_running(&self, name: &ServiceName) {
        self.running().remove(name);
        if let Err(error) = self.store.clear_running(name) {
            tracing::warn!(service = %name, %error, "a stale identity is left");
        }
    }

    /// The owner of one service.
    pub(super) fn handle(&self, name: &ServiceName) -> Option<Handle> {
        self.services().get(name).cloned()
    }

    /// Every owner, by name.
    pub(super) fn handles(&self) -> BTreeMap<ServiceName, Handle> {
        self.services().clone()
    }

    /// Every owner of a process that is not a service, too.
    fn everybody(&self) -> Vec<Handle> {
        let services = self.handles().into_values();
        services.chain(self.processes.handles()).collect()
    }

    /// Called by an owner that has removed its service.
    pub(super) fn forget(&self, name: &ServiceName) {
        self.services().remove(name);
    }

    /// The variable that marks what a service starts, so that it is found whatever it does.
    pub(super) fn mark(&self, name: &ServiceName) -> (&'static str, String) {
        (MARK, format!("{}/{name}/", self.hello.run))
    }

    /// What the mark of every service begins with.
    pub(super) fn run_mark(&self) -> String {
        format!("{MARK}={}/", self.hello.run)
    }

    /// Hands the sandbox over to another program, right away.
    pub(super) fn hand_over(&self, program: PathBuf) {
        self.successor.send_replace(Some(program));
    }

    /// Returns with the program that is to go on, once there is one.
    pub(super) async fn handed_over(&self) -> PathBuf {
        let mut successor = self.successor.subscribe();
        loop {
            if let Some(program) = successor.borrow_and_update().clone() {
                return program;
            }
            if successor.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Makes owners for the kept definitions, each with what its last owner has left; or, where a
    /// restore has just been completed, as they are now.
    pub(super) fn load(
        self: &Arc<Self>,
        mut inheritances: BTreeMap<ServiceName, Inheritance>,
        entries: Vec<EntryNote>,
        rewound: bool,
    ) -> io::Result<()> {
        self.take_processes_over(&mut inheritances, entries)?;
        let mut records = self.store.load()?;
        for (name, running) in self.store.running()? {
            if inheritances.contains_key(&name) {
                continue;
            }
            if let Some(record) = records.get_mut(&name)
                && record.definition.kind == ServiceKind::Task
            {
                tracing::warn!(service = %name, pid = running.pid, "a task was interrupted");
                record.error = Some("interrupted when the sandbox went down".to_owned());
            }
            self.store.clear_running(&name)?;
        }
        for (name, record) in records {
            let mut inheritance = inheritances.remove(&name);
            let mut secrets = Secrets::default();
            if rewound {
                // Where it was is past; what it was told in confidence is still of use.
                let hand = inheritance.take().and_then(|left| left.hand);
                secrets.extend(hand.map(|hand| hand.secrets()).unwrap_or_default());
            }
            self.register(name, record, secrets, inheritance);
        }
        // Deleted, and the supervisor killed before the process was gone; or a process whose end the
        // last supervisor saw, and whose list went with it.
        for (name, inheritance) in inheritances {
            self.keeper.forget(&key(&name));
            self.keeper.forget(&socket_key(&name));
            self.keeper.forget(&input_key(&name));
            let sandbox = self.clone();
            tokio::spawn(async move {
                for child in inheritance.children {
                    sandbox.clear(&name, child).await;
                }
                sandbox.clear_container(&name).await;
            });
        }
        Ok(())
    }

    /// Kills a process that nobody answers for any more, and all that it has started.
    pub(super) async fn clear(&self, name: &ServiceName, child: Child) {
        if let Some(cgroup) = self.base.cgroups.existing(name) {
            if let Err(error) = cgroup.kill_all().await {
                tracing::error!(service = %name, %error, "its control group is not cleared");
            }
            cgroup.remove();
        }
        let (variable, value) = self.mark(name);
        let family = os::marked(&format!("{variable}={value}"));
        let session = os::kill_session(child.pid, os::start_time(child.pid)).await;
        if let Err(error) = session.and(os::kill_family(family).await) {
            tracing::error!(service = %name, %error, "what was left running is not cleared");
        }
    }

    /// Makes an owner for a service that is on disk already.
    pub(super) fn register(
        self: &Arc<Self>,
        name: ServiceName,
        record: Record,
        secrets: Secrets,
        inheritance: Option<Inheritance>,
    ) -> Handle {
        let inherits = inheritance.as_ref().is_some_and(|left| left.hand.is_some());
        if inherits {
            self.inherited().insert(name.clone());
        }
        let handle = Owner::start(self.clone(), name.clone(), record, secrets, inheritance);
        self.services().insert(name, handle.clone());
        handle
    }

    /// Removes the container of a service that nobody drives any more.
    pub(super) async fn clear_container(&self, name: &ServiceName) {
        if self.store.has_containers()
            && let Err(error) =
                container::remove_service(&self.engine, self.store.dir(), name).await
        {
            tracing::error!(service = %name, %error, "its container is not cleared");
        }
    }

    /// After the owner of a service has panicked: clears what it left running, and makes another one
    /// that shows the service as failed.
    pub(super) async fn replace_owner(self: Arc<Self>, name: ServiceName) {
        tracing::error!(service = %name, "its owner has panicked");
        self.forget(&name);
        let left = self.running().get(&name).cloned();
        if let Some(left) = left
            && let Err(error) = os::kill_session(left.pid, left.start_time).await
        {
            tracing::error!(service = %name, %error, "what it left running is not cleared");
        }
        self.clear_container(&name).await;
        self.clear_running(&name);
        match self.store.load() {
            Ok(mut records) => {
                if let Some(mut record) = records.remove(&name) {
                    record.error = Some("an internal error, see supervisor.log".to_owned());
                    record.completed = None;
                    self.register(name, record, Secrets::default(), None);
                }
            }
            Err(error) => tracing::error!(service = %name, %error, "its record cannot be read"),
        }
    }

    /// Stores a definition, new or changed; kept on disk when this returns.
    pub(super) async fn define(
        self: &Arc<Self>,
        name: &ServiceName,
        spec: ServiceSpec,
        secrets: Secrets,
    ) -> Result<Handle, Refusal> {
        let _one_at_a_time = self.defining.lock().await;
        let needs = |of: &ServiceName| {
            if of == name {
                Some(local_needs(&spec))
            } else {
                self.needs_of(of)
            }
        };
        if let Some(cycle) = find_cycle(name, needs) {
            return Err(Refusal::cycle(&cycle).at_put());
        }
        if let Some(handle) = self.handle(name) {
            let (spec, secrets) = (Box::new(spec.clone()), secrets.clone());
            let define = |reply| Control::Define {
                spec,
                secrets,
                reply,
            };
            match handle.ask(define).await {
                // Deleted meanwhile: a new one takes its place.
                Err(refusal) if refusal == Refusal::gone() => {}
                other => return other.map(|()| handle),
            }
        }
        let record = Record::new(spec);
        let (store, key, kept) = (self.store.clone(), name.clone(), record.clone());
        let saved = tokio::task::spawn_blocking(move || store.save(&key, &kept)).await;
        saved
            .map_err(io::Error::other)
            .and_then(|saved| saved)
            .map_err(|error| Refusal::internal(format!("the definition is not stored: {error}")))?;
        Ok(self.register(name.clone(), record, secrets, None))
    }

    fn needs_of(&self, name: &ServiceName) -> Option<Vec<ServiceName>> {
        let spec = self.handle(name)?.spec()?;
        Some(local_needs(&spec))
    }

    /// Whether everything that `name` needs, at any distance, is defined, and without a cycle.
    pub(super) fn check_needs(&self, name: &ServiceName) -> Result<(), Refusal> {
        if let Some(cycle) = find_cycle(name, |of| self.needs_of(of)) {
            return Err(Refusal::cycle(&cycle));
        }
        let mut seen = BTreeSet::new();
        let mut queue = vec![name.clone()];
        while let Some(from) = queue.pop() {
            for need in self.needs_of(&from).unwrap_or_default() {
                if self.handle(&need).is_none() {
                    return Err(Refusal::missing_need(&from, &need));
                }
                if seen.insert(need.clone()) {
                    queue.push(need);
                }
            }
        }
        Ok(())
    }

    /// Brings one need of a service to its condition, starting it if it is not up.
    pub(super) async fn ensure(
        self: Arc<Self>,
        need: ServiceName,
        condition: Condition,
        origin: Origin,
    ) -> Result<(), Refusal> {
        let failed = |refusal: Refusal| refusal.of_need(&need);
        let handle = self.handle(&need).ok_or_else(Refusal::gone);
        let start = |reply| Control::Start {
            until: Await::Condition(condition),
            origin,
            secrets: Secrets::default(),
            reply,
        };
        handle.map_err(failed)?.ask(start).await.map_err(failed)
    }

    /// Starts what was running when the last supervisor ended. Order comes from the needs.
    pub(super) fn bring_back(&self) {
        for (name, handle) in self.handles() {
            if self.inherited().contains(&name) {
                continue;
            }
            let object = handle.object.borrow().clone();
            let kind = object.definition.as_ref().map(|spec| spec.kind);
            if object.desired != "up" || kind == Some(ServiceKind::Task) {
                continue;
            }
            let (reply, _) = oneshot::channel();
            // An owner that has gone has nothing to bring back.
            let _ = handle.controls.send(Control::Start {
                until: Await::Accepted,
                origin: Origin::BroughtBack,
                secrets: Secrets::default(),
                reply,
            });
        }
    }

    /// Stops every service, each before what it needs. What was asked for stays asked for.
    pub(super) async fn halt(&self) {
        self.closing.cancel();
        tokio::join!(
            self.halt_services(),
            self.processes.halt(),
            self.end_execs()
        );
    }

    /// Commands end by themselves when everything is to stop, and none is started any more: this waits
    /// for the last of them.
    async fn end_execs(&self) {
        drop(self.execs.acquire_many(super::exec::AT_ONCE as u32).await);
    }

    /// Stops every service, each before what it needs, without the end of the sandbox.
    pub(super) async fn halt_services(&self) {
        let mut left = self.handles();
        while !left.is_empty() {
            let needed: BTreeSet<_> = left.values().filter_map(Handle::spec).collect_needs();
            let mut wave: Vec<_> = left
                .keys()
                .filter(|name| !needed.contains(*name))
                .cloned()
                .collect();
            if wave.is_empty() {
                wave = left.keys().cloned().collect();
            }
            let halting = wave.iter().filter_map(|name| left.remove(name));
            let halting: Vec<_> = halting.collect();
            join_all(halting.iter().map(|handle| handle.ask(Control::Halt))).await;
        }
    }
}

impl Sandbox {
    /// Kills every service at once and returns when they are gone.
    pub(super) async fn kill(&self) {
        self.closing.cancel();
        let everybody = self.everybody();
        let killing = everybody.iter().map(|handle| handle.ask(Control::Kill));
        join_all(killing).await;
    }
}

trait CollectNeeds {
    fn collect_needs(self) -> BTreeSet<ServiceName>;
}

impl<I: Iterator<Item = ServiceSpec>> CollectNeeds for I {
    fn collect_needs(self) -> BTreeSet<ServiceName> {
        self.flat_map(|spec| local_needs(&spec)).collect()
    }
}

/// The needs in the same sandbox with their conditions. Others are not this supervisor's business.
pub(super) fn conditions(spec: &ServiceSpec) -> impl Iterator<Item = (ServiceName, Condition)> {
    let local = |need: &Need| match &need.target {
        NeedTarget::Local(name) => Some((name.clone(), need.condition)),
        NeedTarget::Remote(_) | NeedTarget::Sandbox(_) => None,
    };
    spec.needs.iter().filter_map(local)
}

fn local_needs(spec: &ServiceSpec) -> Vec<ServiceName> {
    conditions(spec).map(|(name, _)| name).collect()
}

/// What a goal is called on the wire.
pub(super) fn goal_word(goal: ServiceGoal) -> &'static str {
    match goal {
        ServiceGoal::Running => "up",
        ServiceGoal::Stopped => "down",
    }
}

/// The shortest way from a service back to one that was met before, as `a, b, a`.
fn find_cycle(
    start: &ServiceName,
    needs: impl Fn(&ServiceName) -> Option<Vec<ServiceName>>,
) -> Option<Vec<ServiceName>> {
    let mut path = Vec::new();
    let mut done = BTreeSet::new();
    // Each entry: a service on the path, and what of its needs is still to be looked at.
    path.push((start.clone(), needs(start)?));
    while let Some((name, rest)) = path.last_mut() {
        let Some(next) = rest.pop() else {
            done.insert(name.clone());
            path.pop();
            continue;
        };
        if let Some(at) = path.iter().position(|(name, _)| *name == next) {
            let mut cycle: Vec<_> = path[at..].iter().map(|(name, _)| name.clone()).collect();
            cycle.push(next);
            return Some(cycle);
        }
        if !done.contains(&next) {
            let needs = needs(&next).unwrap_or_default();
            path.push((next, needs));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ServiceName {
        ServiceName::new(text).unwrap()
    }

    #[test]
    fn cycles_are_found_and_diamonds_are_not() {
        let graph = |edges: &'static [(&str, &str)]| {
            move |of: &ServiceName| {
                let needs = edges.iter().filter(|(from, _)| *from == of.as_str());
                Some(needs.map(|(_, to)| name(to)).collect())
            }
        };
        let diamond = graph(&[("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")]);
        assert_eq!(find_cycle(&name("a"), diamond), None);
        let ring = graph(&[("a", "b"), ("b", "c"), ("c", "a")]);
        let cycle = find_cycle(&name("a"), ring).unwrap();
        assert_eq!(cycle, ["a", "b", "c", "a"].map(name));
        let beyond = graph(&[("a", "b"), ("b", "c"), ("c", "b")]);
        let cycle = find_cycle(&name("a"), beyond).unwrap();
        assert_eq!(cycle, ["b", "c", "b"].map(name));
    }
}
