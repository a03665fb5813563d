//! The moves of an owner that follow from events: needs that come up, executions, reports of the
//! prober, ends of processes, tries that are due.

use std::os::fd::OwnedFd;

use super::*;
use crate::keeper::{Stream, kill_group};
use crate::model::{Watchdog, show_size};
use crate::supervisor::cgroup::Cgroup;
use crate::supervisor::logs::Watch;
use crate::supervisor::process::Bounds;
use crate::supervisor::spawn::SpawnError;

impl Owner {
    pub(super) async fn event(&mut self, event: Event) {
        match event {
            Event::Need(name, result) => self.need_came(&name, result).await,
            // Only what is shown of the wait has changed.
            Event::NeedMoved => {}
            Event::Container(step) => self.container_moved(step).await,
            Event::Ended => self.ended().await,
            Event::Report(report) => self.reported(report),
            Event::Deadline => self.deadline_passed(),
            // What is shown says it.
            Event::LogTrouble => {}
            Event::Due => {
                let gated = matches!(&self.phase, Phase::BackingOff(Retry { gated: true, .. }));
                let restart = &self.record.definition.restart;
                self.history.count(restart, jiff::Timestamp::now());
                let origin = Origin::BroughtBack;
                self.begin(origin, gated).await;
            }
        }
        self.answer_starters();
    }

    /// Begins a try: brings up what it needs, or executes the program at once.
    pub(super) async fn begin(&mut self, origin: Origin, gated: bool) {
        let kind = self.record.definition.kind;
        let attempt = Attempt {
            origin,
            gated,
            kind,
        };
        if self.sandbox.closing.is_cancelled() {
            self.refuse_starters(&Refusal::closing());
            return self.rest(Rest::Stopped);
        }
        if !attempt.gated {
            return self.execute(attempt).await;
        }
        if let Err(refusal) = self.sandbox.check_needs(&self.name) {
            return self.fail(Ending::Hindered, attempt, refusal);
        }
        let origin = match attempt.origin {
            Origin::Request | Origin::Dependent => Origin::Dependent,
            Origin::BroughtBack => Origin::BroughtBack,
        };
        let mut waiting = Waiting {
            attempt,
            needs: Default::default(),
            names: Default::default(),
            watched: Default::default(),
        };
        for (need, condition) in sandbox::conditions(&self.record.definition) {
            waiting.names.insert(need.clone());
            if let Some(handle) = self.sandbox.handle(&need) {
                waiting.watched.insert(need.clone(), handle.object);
            }
            let ensuring = self.sandbox.clone().ensure(need.clone(), condition, origin);
            waiting
                .needs
                .push(Box::pin(async move { (need, ensuring.await) }));
        }
        if waiting.names.is_empty() {
            self.execute(attempt).await;
        } else {
            self.phase = Phase::Waiting(waiting);
        }
    }

    async fn need_came(&mut self, name: &ServiceName, result: Result<(), Refusal>) {
        let Phase::Waiting(waiting) = &mut self.phase else {
            return;
        };
        let attempt = waiting.attempt;
        match result {
            Ok(()) => {
                waiting.names.remove(name);
                if waiting.names.is_empty() {
                    self.execute(attempt).await;
                }
            }
            Err(refusal) => self.fail(Ending::Hindered, attempt, refusal),
        }
    }

    /// Executes the program.
    async fn execute(&mut self, attempt: Attempt) {
        let spec = self.record.definition.clone();
        let attempt = Attempt {
            kind: spec.kind,
            ..attempt
        };
        if spec.container {
            return self.make_container(spec, attempt);
        }
        if spec.kind == ServiceKind::Service
            && let Some(taken) = port::taken(&spec).await
        {
            return self.fail(Ending::Hindered, attempt, Refusal::start_failed(taken));
        }
        // While a checkpoint holds what runs, nothing new begins to write.
        let not_frozen = self.sandbox.checkpoints.starting().await;
        let spawned = self.spawn(&spec, attempt).await;
        drop(not_frozen);
        let Spawned {
            process,
            prepared,
            notify,
        } = match spawned {
            Ok(spawned) => spawned,
            Err(error) => {
                self.sandbox.clear_running(&self.name);
                let refusal = Refusal::start_failed(error.to_string());
                return self.fail(Ending::Unspawnable, attempt, refusal);
            }
        };
        self.running_revision = Some(self.record.revision);
        let live = Live::Process(Box::new((process, prepared)));
        self.come_up(live, Arc::new(spec), notify, attempt);
    }

    /// It runs: probing begins.
    pub(super) fn come_up(
        &mut self,
        live: Live,
        executed: Arc<ServiceSpec>,
        notify: Option<Arc<NotifySocket>>,
        attempt: Attempt,
    ) {
        let illness = self.illness.take();
        self.record.error = illness.map(|illness| format!("{illness}; restarted"));
        self.last_process = live.pid().map(|pid| (pid, live.started().1));
        let task = executed.kind == ServiceKind::Task;
        let timeout = executed.timeout.filter(|_| task);
        self.phase = Phase::Up(Box::new(Up {
            log_trouble: live.log_trouble(),
            live,
            executed,
            prober: None,
            stage: Stage::Starting,
            message: None,
            status: None,
            notify,
            watched: false,
            deadline: timeout.and_then(|limit| Instant::now().checked_add(limit.0)),
            then: Then::Rest,
            attempt,
        }));
        self.probe();
    }

    async fn spawn(&mut self, spec: &ServiceSpec, attempt: Attempt) -> Result<Spawned, SpawnError> {
        let notify = self.notify_socket(spec)?;
        let cgroup = self.sandbox.base.cgroups.service(&self.name, &spec.limits);
        let cgroup = cgroup.map_err(SpawnError::Limits)?.map(Arc::new);
        let spawned = self
            .spawn_within(cgroup.clone(), spec, attempt, notify)
            .await;
        spawned.inspect_err(|_| {
            if let Some(cgroup) = cgroup {
                cgroup.remove();
            }
        })
    }

    async fn spawn_within(
        &mut self,
        cgroup: Option<Arc<Cgroup>>,
        spec: &ServiceSpec,
        attempt: Attempt,
        notify: Option<(Arc<NotifySocket>, Watchdog)>,
    ) -> Result<Spawned, SpawnError> {
        let prepared = self.prepare(spec, notify.as_ref(), cgroup.clone())?;
        let keeper = self.sandbox.keeper.clone();
        let id = keeper.next_id();
        let (piped, mut given) = self.open_input(spec)?;
        let input = match piped {
            Some(_) => Stream::Given,
            None => Stream::Null,
        };
        let streams = [input, Stream::Pipe, Stream::Pipe];
        let mut request = prepared.spawn(id, self.key(), streams);
        request.tty = spec.tty;
        prepared.enter(&mut request, &mut given)?;
        // With the execution, so that whoever comes after a kill knows of both or of neither.
        let hand = Hand::of_execution(self, id, spec, attempt);
        self.note = serde_json::to_string(&hand).unwrap_or_default();
        request.note = Some(self.note.clone());
        self.keep_socket(notify.as_ref().map(|(socket, _)| socket))?;
        let spawned = keeper.spawn(request, given).await;
        let mut child = spawned.map_err(SpawnError::Keeper)??;
        let input = self.listen_to_input(&mut child, spec, piped);
        let input = input.inspect_err(|_| kill_group(child.pid))?;
        let process = self.adopt(child, spec, cgroup, input, Known::New);
        Ok(Spawned {
            process,
            prepared,
            notify: notify.map(|(socket, _)| socket),
        })
    }

    /// Fills a definition in.
    pub(super) fn prepare(
        &self,
        spec: &ServiceSpec,
        notify: Option<&(Arc<NotifySocket>, Watchdog)>,
        cgroup: Option<Arc<Cgroup>>,
    ) -> Result<Arc<Prepared>, SpawnError> {
        let prepared = Prepared::new(spec, &self.secrets, &self.sandbox.base)?;
        let mut more = Vec::new();
        if cgroup.is_none() {
            more.push(self.sandbox.mark(&self.name));
        }
        if let Some((socket, watchdog)) = notify {
            more.extend(probe::environment(socket, *watchdog));
        }
        Ok(Arc::new(prepared.with_env(more).within(cgroup)))
    }

    /// Begins to listen to a process, now or in the place of an earlier supervisor.
    pub(super) fn adopt(
        &self,
        child: Child,
        spec: &ServiceSpec,
        cgroup: Option<Arc<Cgroup>>,
        input: Option<Input>,
        known: Known,
    ) -> Process {
        let looked_for = health::looked_for(spec);
        let tick = self.tick.clone();
        let (name, value) = self.sandbox.mark(&self.name);
        let mark = cgroup.is_none().then(|| format!("{name}={value}"));
        let bounds = Bounds { mark, cgroup };
        let watch = Watch { looked_for, tick };
        let process = Process::adopt(
            child,
            &self.sandbox.logs,
            &self.name,
            bounds,
            watch,
            input,
            known,
        );
        if let Some(running) = process.running() {
            self.sandbox.note_running(&self.name, running, spec.kind);
        }
        process
    }

    /// Which limit the memory has run out under.
    fn memory_reason(&self) -> String {
        let own = self.record.definition.limits.memory;
        let shared = self.sandbox.base.cgroups.memory();
        match (own, shared) {
            (Some(own), shared) if shared.is_none_or(|shared| own <= shared) => {
                format!(": out of memory (limit {})", show_size(own))
            }
            (_, Some(shared)) => format!(
                ": out of memory (limit {} for the whole sandbox)",
                show_size(shared)
            ),
            _ => ": out of memory (the machine has no more)".to_owned(),
        }
    }

    /// A pipe to its standard input, where one is wanted: our end, and the one to give away. A
    /// terminal needs none.
    fn open_input(
        &self,
        spec: &ServiceSpec,
    ) -> Result<(Option<OwnedFd>, Vec<OwnedFd>), SpawnError> {
        let keeper = &self.sandbox.keeper;
        let key = sandbox::input_key(&self.name);
        if spec.tty || !(spec.stdin_open || self.name.is_process()) {
            keeper.forget(&key);
            return Ok((None, Vec::new()));
        }
        let (theirs, ours) = std::io::pipe().map_err(SpawnError::Input)?;
        // Held by the keeper, too, so that the next supervisor can go on writing.
        let twin = ours.try_clone().map_err(SpawnError::Input)?;
        keeper.keep(&key, String::new(), vec![twin.into()]);
        Ok((Some(ours.into()), vec![theirs.into()]))
    }

    /// Takes our end of its standard input, where that is open, now or from an earlier supervisor.
    pub(super) fn listen_to_input(
        &self,
        child: &mut Child,
        spec: &ServiceSpec,
        piped: Option<OwnedFd>,
    ) -> Result<Option<Input>, SpawnError> {
        let ours = match spec.tty && spec.stdin_open {
            true => child.ends[0].take().map(|ours| (ours, Kind::Terminal)),
            false => piped.map(|ours| (ours, Kind::Pipe)),
        };
        let (keeper, key) = (self.sandbox.keeper.clone(), sandbox::input_key(&self.name));
        let input = ours.map(|(ours, kind)| Input::start(ours, kind, move || keeper.forget(&key)));
        input.transpose().map_err(SpawnError::Input)
    }

    fn deadline_passed(&mut self) {
        let Phase::Up(up) = &mut self.phase else {
            return;
        };
        up.deadline = None;
        if up.stage == Stage::Stopping {
            up.live.note_family();
            up.live.signal(rustix::process::Signal::KILL);
            return;
        }
        let limit = self.record.definition.timeout.unwrap_or_default();
        let mut text = format!("still running after {}", probe::show_limit(limit.0));
        if self.name.is_process() {
            text = format!("timeout: {text}");
        }
        self.begin_stop(Then::Fail(Refusal::new(504, "timeout", text)));
    }

    /// The main process has ended: cleans up and decides what comes next.
    async fn ended(&mut self) {
        let Phase::Up(up) = std::mem::replace(&mut self.phase, Phase::Down(Rest::Stopped)) else {
            return;
        };
        let Up {
            live,
            stage,
            then,
            attempt,
            ..
        } = *up;
        let (started, started_at) = live.started();
        let End {
            exit,
            why,
            out_of_memory,
            child,
        } = live.finish().await;
        self.ended.extend(child);
        let lived = started.elapsed();
        let clean = exit.code == 0;
        let mut reason = reason(&exit, lived);
        if let Some(why) = why {
            reason = format!("{why}: {reason}");
        }
        if out_of_memory && !clean {
            reason.push_str(&self.memory_reason());
        }
        self.record.last_exit = Some(exit);
        let revision = self.running_revision.take();
        self.sandbox.clear_running(&self.name);
        let ending = match (stage, clean) {
            (Stage::Stopping, _) => return self.stopped(then, attempt, started_at).await,
            (Stage::Starting, true) => Ending::EarlyClean,
            (Stage::Starting, false) => Ending::EarlyCrash,
            (Stage::Ready { .. } | Stage::Unhealthy { .. }, true) => Ending::Clean,
            (Stage::Ready { .. } | Stage::Unhealthy { .. }, false) => Ending::Crash,
        };
        if let Stage::Ready { since } | Stage::Unhealthy { since } = stage {
            let restart = &self.record.definition.restart;
            self.history.was_ready(restart, since.elapsed());
        }
        let task = attempt.kind == ServiceKind::Task;
        if clean && (task || ending == Ending::Clean) {
            self.record.completed = revision;
        }
        let mut refusal = Refusal::start_failed(reason);
        refusal.log_tail = self.log_tail(started_at).await;
        self.fail(ending, attempt, refusal);
    }

    /// It has ended because it was told to.
    pub(super) async fn stopped(
        &mut self,
        then: Then,
        attempt: Attempt,
        started_at: jiff::Timestamp,
    ) {
        match then {
            Then::Rest => {
                self.record.error = None;
                self.rest(Rest::Stopped);
            }
            Then::Again => {
                for reply in std::mem::take(&mut self.stoppers) {
                    self.answers.push((reply, Ok(())));
                }
                self.begin_on_wish(Origin::Request).await;
            }
            Then::Fail(mut refusal) => {
                refusal.log_tail = self.log_tail(started_at).await;
                self.fail(Ending::Hindered, attempt, refusal);
            }
            Then::Heal(text) => {
                self.illness = Some(text.clone());
                let mut refusal = Refusal::start_failed(text);
                refusal.log_tail = self.log_tail(started_at).await;
                self.fail(Ending::Unhealthy, attempt, refusal);
            }
        }
    }

    /// A try, or a process, has come to its end: answers those who waited for it and does what the
    /// policy says.
    pub(super) fn fail(&mut self, ending: Ending, attempt: Attempt, mut refusal: Refusal) {
        let definition = &self.record.definition;
        let requested = attempt.origin != Origin::BroughtBack;
        let next = policy::next(
            attempt.kind,
            &definition.restart,
            ending,
            requested,
            &self.history,
            jiff::Timestamp::now(),
        );
        match next {
            Next::Completed | Next::Stopped => {
                self.record.error = None;
                let rest = match next {
                    Next::Completed => Rest::Completed,
                    _ => Rest::Stopped,
                };
                self.rest(rest);
                return self.answer_starters();
            }
            Next::Failed | Next::GivenUp(_) => {
                if let Next::GivenUp(why) = next {
                    refusal.message = format!("{}; {why}", refusal.message);
                }
                self.record.error = Some(refusal.message.clone());
                self.rest(Rest::Failed);
            }
            Next::Retry(delay) => {
                self.record.error = Some(refusal.message.clone());
                let delay = policy::jitter(delay);
                self.phase = Phase::BackingOff(Retry {
                    // So far away that it never comes, should it not be a point of time.
                    due: Instant::now().checked_add(delay).unwrap_or_else(far_away),
                    due_at: after(delay),
                    gated: matches!(refusal.code, "dependency_failed" | "dependency_not_found"),
                });
                return self.refuse_askers(&refusal);
            }
        }
        self.refuse_starters(&refusal);
    }

    /// The last lines that this process has written, if there is somebody to be told.
    fn log_tail(&self, since: jiff::Timestamp) -> impl Future<Output = Vec<String>> + use<> {
        let read = || log_tail(self.sandbox.clone(), self.name.clone(), since);
        let tail = (!self.starters.is_empty()).then(read);
        async move {
            match tail {
                Some(tail) => tail.await,
                None => Vec::new(),
            }
        }
    }

    pub(super) fn refuse_starters(&mut self, refusal: &Refusal) {
        for starter in self.starters.drain(..) {
            self.answers.push((starter.reply, Err(refusal.clone())));
        }
    }

    /// Tells those on whose behalf somebody waits for an answer. Services that come back by themselves
    /// go on waiting for the next try.
    fn refuse_askers(&mut self, refusal: &Refusal) {
        let asks = |starter: &mut Starter| starter.origin != Origin::BroughtBack;
        for starter in self.starters.extract_if(.., asks) {
            self.answers.push((starter.reply, Err(refusal.clone())));
        }
    }

    /// Answers those whose wish has come true.
    pub(super) fn answer_starters(&mut self) {
        for starter in std::mem::take(&mut self.starters) {
            match self.verdict(starter.until) {
                Some(answer) => self.answers.push((starter.reply, answer)),
                None => self.starters.push(starter),
            }
        }
    }

    /// What to say to one who waits for a start; `None` if it is too early.
    fn verdict(&self, until: Await) -> Option<Result<(), Refusal>> {
        let kind = match &self.phase {
            Phase::Up(up) => up.attempt.kind,
            _ => self.record.definition.kind,
        };
        let task = kind == ServiceKind::Task;
        let asked_for = until;
        let until = match until {
            Await::Settled if task => Await::Condition(Condition::Completed),
            Await::Settled => Await::Condition(Condition::Ready),
            // A task is never ready; it is done.
            Await::Condition(Condition::Ready) if task => Await::Condition(Condition::Completed),
            other => other,
        };
        match (&self.phase, until) {
            (Phase::Preparing(preparing), _) if preparing.then.is_some() => None,
            (Phase::Waiting(_) | Phase::Preparing(_) | Phase::BackingOff(_), Await::Accepted) => {
                Some(Ok(()))
            }
            (Phase::Waiting(_) | Phase::Preparing(_) | Phase::BackingOff(_), _) => None,
            (Phase::Up(up), _) if up.stage == Stage::Stopping => None,
            (Phase::Up(_), Await::Accepted | Await::Condition(Condition::Started)) => Some(Ok(())),
            (Phase::Up(_), Await::Condition(Condition::Completed)) => None,
            (Phase::Up(up), Await::Settled | Await::Condition(Condition::Ready)) => {
                match up.stage {
                    Stage::Ready { .. } => Some(Ok(())),
                    // A start of what is up changes nothing; a dependent needs more than that.
                    Stage::Unhealthy { .. } if asked_for == Await::Settled => Some(Ok(())),
                    Stage::Unhealthy { .. } => {
                        let message = up.message.clone().unwrap_or_default();
                        Some(Err(Refusal::start_failed(format!("unhealthy: {message}"))))
                    }
                    Stage::Starting | Stage::Stopping => None,
                }
            }
            (Phase::Down(Rest::Failed), _) => {
                let message = self.record.error.clone().unwrap_or_default();
                Some(Err(Refusal::start_failed(message)))
            }
            // It has been up and is done.
            (Phase::Down(_), _) => Some(Ok(())),
        }
    }
}

/// What a program was executed as.
struct Spawned {
    process: Process,
    prepared: Arc<Prepared>,
    notify: Option<Arc<NotifySocket>>,
}

async fn log_tail(sandbox: Arc<Sandbox>, name: ServiceName, since: jiff::Timestamp) -> Vec<String> {
    let query = LogQuery {
        tail: Some(10),
        since: Some(since),
        ..LogQuery::default()
    };
    let reading = name.clone();
    let read = move || logs::read(sandbox.store.dir(), &reading, &query);
    let lines = tokio::task::spawn_blocking(read).await;
    match lines.map_err(std::io::Error::other).and_then(|lines| lines) {
        Ok(lines) => lines.into_iter().map(|line| line.text).collect(),
        Err(error) => {
            tracing::warn!(service = %name, %error, "its log cannot be read");
            Vec::new()
        }
    }
}

/// How it ended, in words.
fn reason(exit: &crate::model::Exit, lived: Duration) -> String {
    let lived = crate::model::show_duration(lived);
    match &exit.signal {
        Some(signal) => format!("killed by {signal} after {lived}"),
        None => format!("exited with {} after {lived}", exit.code),
    }
}

fn far_away() -> Instant {
    Instant::now() + Duration::from_secs(86_400 * 365)
}

fn after(delay: Duration) -> jiff::Timestamp {
    let now = jiff::Timestamp::now();
    jiff::SignedDuration::try_from(delay)
        .ok()
        .and_then(|delay| now.checked_add(delay).ok())
        .unwrap_or(now)
}
