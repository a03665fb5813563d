//! The platform twin for tests: sandboxes and services in memory, written with the effects that
//! the plan is simulated with.
//!
//! It can be told to fail or to hang, calls a hook before every effect, keeps the calls it got,
//! and refuses what no platform should be asked: two writes to one service at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::{
    Act, Endpoint, ForkOptions, LogLine, LogQuery, Observe, PlatformError, Progress, Result,
    Streams,
};
use crate::model::{
    Address, Capabilities, Checkpoint, Forked, Listing, Observed, ObservedSandbox, ObservedService,
    Restored, SandboxName, SandboxSpec, SandboxState, Secrets, ServiceAddress, ServiceKind,
    ServiceName, ServiceSpec, ServiceState, Urls,
};
use crate::plan::{Step, StepKind, simulate};

/// One call that the platform got.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Call {
    /// On what.
    pub address: Address,
    /// To do what.
    pub kind: StepKind,
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.address, self.kind)
    }
}

/// How far a call has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// It came in.
    Began(Call),
    /// It had its effect.
    Done(Call),
    /// It was answered with an error.
    Failed(Call),
}

/// What a call shall do instead of succeeding at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Script {
    /// Answer with this error; the service is then [`ServiceState::Failed`] if it was to start.
    Fail(PlatformError),
    /// Let other tasks run so many times before the effect.
    Delay(usize),
    /// Execute the program, report this, and never return.
    NeverReady(String),
}

type Hook = Box<dyn FnMut(&Call, &mut Observed) + Send>;

/// Sandboxes in memory. A clone is another handle on the same ones.
#[derive(Clone, Default)]
pub struct Memory {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    observed: Observed,
    scripts: HashMap<Call, Vec<Script>>,
    records: Vec<Record>,
    writing: BTreeSet<Address>,
    violations: Vec<String>,
    hook: Option<Hook>,
    fail_at: Option<(usize, PlatformError)>,
    unreachable: Option<PlatformError>,
    logs: BTreeMap<ServiceAddress, Vec<LogLine>>,
    last_pid: u32,
    calls: usize,
    checkpoints: BTreeMap<SandboxName, Vec<(Checkpoint, ObservedSandbox)>>,
    urls: BTreeMap<ServiceAddress, String>,
}

/// The whole table: memory can do everything.
static CAPABILITIES: Capabilities = Capabilities {
    kind: "memory",
    summary: "sandboxes in memory, for tests",
    shared_network: true,
    urls: Urls::HttpPort,
    settings: &[],
    demands: &[],
    exceptions: &[],
};

impl Memory {
    /// A platform that is in this state. Services that are up and have no pid are given one.
    pub fn new(observed: Observed) -> Self {
        let mut inner = Inner {
            observed,
            ..Inner::default()
        };
        inner.give_pids();
        Self {
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state now.
    pub fn state(&self) -> Observed {
        self.lock().observed.clone()
    }

    /// Changes the state from outside: drift.
    pub fn change(&self, change: impl FnOnce(&mut Observed)) {
        let mut inner = self.lock();
        change(&mut inner.observed);
        inner.give_pids();
    }

    /// What the next calls of `kind` on `address` do, one script for each call.
    pub fn script(&self, address: impl Into<Address>, kind: StepKind, script: Script) {
        let call = Call {
            address: address.into(),
            kind,
        };
        self.lock().scripts.entry(call).or_default().push(script);
    }

    /// The call with this number, counted from 0 over all writes, fails.
    pub fn fail_call(&self, number: usize, error: PlatformError) {
        self.lock().fail_at = Some((number, error));
    }

    /// Every observation fails with this, until it is `None` again.
    pub fn set_unreachable(&self, error: Option<PlatformError>) {
        self.lock().unreachable = error;
    }

    /// Called before every effect, with the state before it; may change that.
    pub fn set_hook(&self, hook: impl FnMut(&Call, &mut Observed) + Send + 'static) {
        self.lock().hook = Some(Box::new(hook));
    }

    /// What [`Observe::logs`] answers for a service.
    pub fn set_logs(&self, service: ServiceAddress, lines: Vec<LogLine>) {
        self.lock().logs.insert(service, lines);
    }

    /// Where a service is reached while it is up; without it, at a URL that is made of its address.
    pub fn set_url(&self, service: ServiceAddress, url: impl Into<String>) {
        self.lock().urls.insert(service, url.into());
    }

    /// Every write so far.
    pub fn records(&self) -> Vec<Record> {
        self.lock().records.clone()
    }

    /// The calls that had their effect, as `address:kind`, in order.
    pub fn done(&self) -> Vec<String> {
        let done = |record: &Record| match record {
            Record::Done(call) => Some(call.to_string()),
            _ => None,
        };
        self.lock().records.iter().filter_map(done).collect()
    }

    /// What no caller should have done: two writes at once to one address, a start without a
    /// definition, a write to a sandbox that is down.
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// The pids of the services that are up.
    pub fn pids(&self) -> BTreeMap<ServiceAddress, u32> {
        let inner = self.lock();
        let mut pids = BTreeMap::new();
        for (name, listing) in &inner.observed.sandboxes {
            if let Listing::Known(sandbox) = listing {
                for (service, it) in &sandbox.services {
                    let address = ServiceAddress::new(name.clone(), service.clone());
                    pids.extend(it.pid.map(|pid| (address, pid)));
                }
            }
        }
        pids
    }

    async fn write(
        &self,
        address: Address,
        step: Step,
        progress: Option<&dyn Progress>,
    ) -> Result<()> {
        let call = Call {
            address,
            kind: step.kind(),
        };
        let script = self.lock().begin(&call);
        // Given back even if the caller drops this future half-way.
        let _writing = Writing {
            memory: self,
            address: call.address.clone(),
        };
        let mut turns = 1;
        match script {
            Some(Script::Fail(error)) => {
                tokio::task::yield_now().await;
                self.lock().fail(&call);
                return Err(error);
            }
            Some(Script::Delay(times)) => turns = times,
            Some(Script::NeverReady(why)) => {
                self.lock().set_state(&call.address, ServiceState::Starting);
                if let Some(progress) = progress {
                    progress.executed();
                    progress.waiting(&why);
                }
                std::future::pending::<()>().await;
            }
            None => {}
        }
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        if let Some(progress) = progress {
            self.lock().execute(&call.address);
            progress.executed();
            tokio::task::yield_now().await;
        }
        self.lock().finish(&call, &step)
    }
}

/// Marks an address as being written to.
struct Writing<'a> {
    memory: &'a Memory,
    address: Address,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.memory.lock().writing.remove(&self.address);
    }
}

impl Inner {
    fn begin(&mut self, call: &Call) -> Option<Script> {
        if !self.writing.insert(call.address.clone()) {
            self.violations
                .push(format!("{call} began during another write to it"));
        }
        self.records.push(Record::Began(call.clone()));
        let number = self.calls;
        self.calls += 1;
        if let Some((at, error)) = &self.fail_at
            && *at == number
        {
            return Some(Script::Fail(error.clone()));
        }
        let scripts = self
            .scripts
            .get_mut(call)
            .filter(|scripts| !scripts.is_empty())?;
        Some(scripts.remove(0))
    }

    fn fail(&mut self, call: &Call) {
        self.records.push(Record::Failed(call.clone()));
        if matches!(call.kind, StepKind::Start | StepKind::Run) {
            self.set_state(&call.address, ServiceState::Failed);
        }
    }

    fn service(&mut self, address: &Address) -> Option<&mut crate::model::ObservedService> {
        match self.observed.sandboxes.get_mut(address.sandbox())? {
            Listing::Known(it) if it.state == SandboxState::Running => {
                it.services.get_mut(address.service()?)
            }
            _ => None,
        }
    }

    fn set_state(&mut self, address: &Address, state: ServiceState) {
        if let Some(service) = self.service(address) {
            service.state = state;
            if !state.is_up() {
                service.pid = None;
            }
        }
        self.give_pids();
    }

    /// A start whose program was executed, and that is not ready yet.
    fn execute(&mut self, address: &Address) {
        let down = self
            .service(address)
            .is_some_and(|service| !service.state.is_up());
        if down {
            self.set_state(address, ServiceState::Starting);
            if let Some(service) = self.service(address) {
                service.stale = false;
            }
        }
    }

    fn finish(&mut self, call: &Call, step: &Step) -> Result<()> {
        if let Some(mut hook) = self.hook.take() {
            hook(call, &mut self.observed);
            self.hook.get_or_insert(hook);
        }
        if self.is_done_already(call) {
            self.records.push(Record::Done(call.clone()));
            return Ok(());
        }
        let applied = simulate::apply(&mut self.observed, &call.address, step);
        self.give_pids();
        match applied {
            Ok(()) => {
                self.records.push(Record::Done(call.clone()));
                Ok(())
            }
            Err(why) => {
                self.violations.push(format!("{call}: {why}"));
                self.records.push(Record::Failed(call.clone()));
                Err(PlatformError::new(why))
            }
        }
    }

    /// Stopping or deleting what is not there succeeds.
    fn is_done_already(&mut self, call: &Call) -> bool {
        matches!(call.kind, StepKind::Stop | StepKind::Delete)
            && !matches!(
                self.observed.sandboxes.get(call.address.sandbox()),
                Some(Listing::Known(it))
                    if call.address.service().is_none() || it.state == SandboxState::Running
            )
    }

    fn give_pids(&mut self) {
        for listing in self.observed.sandboxes.values_mut() {
            let Listing::Known(sandbox) = listing else {
                continue;
            };
            for service in sandbox.services.values_mut() {
                if service.state.is_up() && service.pid.is_none() {
                    self.last_pid += 1;
                    service.pid = Some(self.last_pid);
                }
            }
        }
    }
}

#[async_trait]
impl Observe for Memory {
    fn capabilities(&self) -> &'static Capabilities {
        &CAPABILITIES
    }

    async fn observe(&self) -> Result<BTreeMap<SandboxName, Listing>> {
        tokio::task::yield_now().await;
        let inner = self.lock();
        match &inner.unreachable {
            Some(error) => Err(error.clone()),
            None => Ok(inner.observed.sandboxes.clone()),
        }
    }

    async fn logs(
        &self,
        service: &ServiceAddress,
        query: LogQuery,
    ) -> Result<mpsc::Receiver<LogLine>> {
        let mut lines = self.lock().logs.get(service).cloned().unwrap_or_default();
        lines.retain(|line| query.stream.is_none_or(|stream| line.stream == stream));
        lines.retain(|line| query.since.is_none_or(|since| line.at >= since));
        let skip = query
            .tail
            .map_or(0, |tail| lines.len().saturating_sub(tail));
        let (sender, receiver) = mpsc::channel(lines.len().max(1));
        for line in lines.into_iter().skip(skip) {
            // The channel holds them all.
            let _ = sender.try_send(line);
        }
        Ok(receiver)
    }

    async fn endpoints(&self, sandbox: &SandboxName) -> Result<Vec<Endpoint>> {
        let inner = self.lock();
        let there = inner.sandbox(sandbox)?;
        let endpoint = |(name, found): (&ServiceName, &ObservedService)| {
            let port = found.spec()?.http_port?;
            let address = ServiceAddress::new(sandbox.clone(), name.clone());
            let url = || format!("https://{name}.{sandbox}.example");
            let url = inner.urls.get(&address).cloned().unwrap_or_else(url);
            Some(Endpoint {
                port,
                service: Some(name.clone()),
                url: found.state.is_up().then_some(url),
            })
        };
        Ok(there.services.iter().filter_map(endpoint).collect())
    }

    async fn checkpoints(&self, sandbox: &SandboxName) -> Result<Vec<Checkpoint>> {
        let inner = self.lock();
        let kept = inner.checkpoints.get(sandbox).into_iter().flatten();
        Ok(kept.map(|(checkpoint, _)| checkpoint.clone()).collect())
    }
}

impl Inner {
    fn sandbox(&self, name: &SandboxName) -> Result<&ObservedSandbox> {
        let known = self.observed.known(name);
        known.ok_or_else(|| PlatformError::new(format!("there is no sandbox `{name}`")))
    }

    fn kept(&self, sandbox: &SandboxName, id: &str) -> Result<&(Checkpoint, ObservedSandbox)> {
        let kept = self.checkpoints.get(sandbox).into_iter().flatten();
        kept.into_iter()
            .find(|(checkpoint, _)| checkpoint.id == id)
            .ok_or_else(|| PlatformError::new(format!("checkpoint not found: {id}")))
    }
}

/// The services that are up.
fn running(sandbox: &ObservedSandbox) -> BTreeSet<ServiceName> {
    let services = sandbox.services.iter();
    let up = services.filter(|(_, service)| service.state.is_up());
    up.map(|(name, _)| name.clone()).collect()
}

#[async_trait]
impl Act for Memory {
    async fn create_sandbox(
        &self,
        sandbox: &SandboxName,
        spec: &SandboxSpec,
        _secrets: &Secrets,
    ) -> Result<()> {
        let step = Step::CreateSandbox(Arc::new(spec.clone()));
        self.write(sandbox.clone().into(), step, None).await
    }

    async fn update_sandbox(
        &self,
        sandbox: &SandboxName,
        spec: &SandboxSpec,
        _secrets: &Secrets,
    ) -> Result<()> {
        let step = Step::UpdateSandbox(Arc::new(spec.clone()));
        self.write(sandbox.clone().into(), step, None).await
    }

    async fn start_sandbox(&self, sandbox: &SandboxName, spec: &SandboxSpec) -> Result<()> {
        let step = Step::StartSandbox(Arc::new(spec.clone()));
        self.write(sandbox.clone().into(), step, None).await
    }

    async fn stop_sandbox(&self, sandbox: &SandboxName) -> Result<()> {
        self.write(sandbox.clone().into(), Step::StopSandbox, None)
            .await
    }

    async fn delete_sandbox(&self, sandbox: &SandboxName) -> Result<()> {
        self.write(sandbox.clone().into(), Step::DeleteSandbox, None)
            .await
    }

    async fn upsert_service(
        &self,
        service: &ServiceAddress,
        spec: &ServiceSpec,
        secrets: &Secrets,
    ) -> Result<()> {
        secrets.used_by(spec)?;
        let step = Step::UpsertService(Arc::new(spec.clone()));
        self.write(service.clone().into(), step, None).await
    }

    async fn start_service(
        &self,
        service: &ServiceAddress,
        spec: &ServiceSpec,
        secrets: &Secrets,
        progress: &dyn Progress,
    ) -> Result<()> {
        secrets.used_by(spec)?;
        let spec = Arc::new(spec.clone());
        let step = match spec.kind {
            ServiceKind::Service => Step::StartService(spec),
            ServiceKind::Task => Step::RunTask(spec),
        };
        self.write(service.clone().into(), step, Some(progress))
            .await
    }

    async fn stop_service(&self, service: &ServiceAddress) -> Result<()> {
        self.write(service.clone().into(), Step::StopService, None)
            .await
    }

    async fn delete_service(&self, service: &ServiceAddress) -> Result<()> {
        self.write(service.clone().into(), Step::DeleteService, None)
            .await
    }

    async fn create_checkpoint(
        &self,
        sandbox: &SandboxName,
        name: Option<&str>,
        _: &Secrets,
    ) -> Result<Checkpoint> {
        let mut inner = self.lock();
        let there = inner.sandbox(sandbox)?.clone();
        let kept = inner.checkpoints.entry(sandbox.clone()).or_default();
        let checkpoint = Checkpoint {
            id: format!("cp_{:02}", kept.len() + 1),
            name: name.map(str::to_owned),
            created_at: jiff::Timestamp::UNIX_EPOCH,
            size_bytes: 0,
            copy_duration_ms: 0,
            running: running(&there).into_iter().collect(),
            frozen: true,
            ..Checkpoint::default()
        };
        kept.push((checkpoint.clone(), there));
        Ok(checkpoint)
    }

    async fn wait_checkpoint(&self, sandbox: &SandboxName, id: &str) -> Result<Checkpoint> {
        let inner = self.lock();
        inner
            .kept(sandbox, id)
            .map(|(checkpoint, _)| checkpoint.clone())
    }

    async fn restore_checkpoint(
        &self,
        sandbox: &SandboxName,
        id: &str,
        _: &Secrets,
    ) -> Result<Restored> {
        let mut inner = self.lock();
        let (checkpoint, then) = inner.kept(sandbox, id)?.clone();
        let before = running(inner.sandbox(sandbox)?);
        let recorded: BTreeSet<_> = checkpoint.running.iter().cloned().collect();
        inner
            .observed
            .sandboxes
            .insert(sandbox.clone(), Listing::Known(then));
        Ok(Restored {
            restore_duration_ms: 0,
            stopped_services: before.difference(&recorded).cloned().collect(),
            started_services: checkpoint.running,
            failed_services: Vec::new(),
        })
    }

    async fn delete_checkpoint(&self, sandbox: &SandboxName, id: &str) -> Result<()> {
        let mut inner = self.lock();
        if let Some(kept) = inner.checkpoints.get_mut(sandbox) {
            kept.retain(|(checkpoint, _)| checkpoint.id != id);
        }
        Ok(())
    }

    async fn fork_sandbox(
        &self,
        source: &SandboxName,
        fork: &SandboxName,
        options: &ForkOptions,
        _: &Secrets,
    ) -> Result<Forked> {
        let mut inner = self.lock();
        let mut made = match &options.from {
            Some(id) => inner.kept(source, id)?.1.clone(),
            None => inner.sandbox(source)?.clone(),
        };
        if inner.observed.sandboxes.contains_key(fork) {
            let text = format!("there is a sandbox `{fork}` already");
            return Err(PlatformError::new(text));
        }
        for service in made.services.values_mut() {
            service.pid = None;
            if options.stopped && service.state.is_up() {
                service.state = ServiceState::Stopped;
            }
        }
        let started_services = running(&made).into_iter().collect();
        inner
            .observed
            .sandboxes
            .insert(fork.clone(), Listing::Known(made));
        inner.give_pids();
        Ok(Forked {
            started_services,
            ..Forked::default()
        })
    }

    async fn exec(
        &self,
        sandbox: &SandboxName,
        _: &[String],
        _: &Secrets,
        _: Streams,
    ) -> Result<i32> {
        let up = self
            .lock()
            .observed
            .known(sandbox)
            .is_some_and(|it| it.state == SandboxState::Running);
        if up {
            Ok(0)
        } else {
            Err(PlatformError::new(format!(
                "sandbox {sandbox} is not running"
            )))
        }
    }
}
