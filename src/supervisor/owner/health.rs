//! What an owner does about the health of its service: probes it, takes the reports, and stops one
//! that is to be healed by a restart.

use super::*;
use crate::model::{Health, Probe, Watchdog};
use crate::supervisor::probe::Report;
use crate::supervisor::spawn::SpawnError;

/// The text that the output of a service is searched for.
pub(super) fn looked_for(spec: &ServiceSpec) -> Option<String> {
    match &spec.health.as_ref()?.probe {
        Probe::Log { contains } => Some(contains.clone()),
        _ => None,
    }
}

impl Owner {
    /// Where the service notifies, if its health check wants that.
    pub(super) fn notify_socket(
        &self,
        spec: &ServiceSpec,
    ) -> Result<Option<(Arc<NotifySocket>, Watchdog)>, SpawnError> {
        let notifies = spec.health.as_ref().and_then(Health::notifies);
        let Some(watchdog) = notifies.filter(|_| spec.kind == ServiceKind::Service) else {
            return Ok(None);
        };
        let socket = NotifySocket::new().map_err(SpawnError::Notify)?;
        Ok(Some((Arc::new(socket), watchdog)))
    }

    /// Has the keeper hold the socket, or hold none.
    pub(super) fn keep_socket(&self, socket: Option<&Arc<NotifySocket>>) -> Result<(), SpawnError> {
        let key = sandbox::socket_key(&self.name);
        match socket {
            Some(socket) => {
                let twin = socket.twin().map_err(SpawnError::Notify)?;
                self.sandbox.keeper.keep(&key, String::new(), vec![twin]);
            }
            None => self.sandbox.keeper.forget(&key),
        }
        Ok(())
    }

    /// Begins to probe the live process as far as it has come; without a health check it is ready.
    /// Also where probing goes on in another supervisor.
    pub(super) fn probe(&mut self) {
        let definition = &self.record.definition;
        let Phase::Up(up) = &mut self.phase else {
            return;
        };
        let before = match up.stage {
            Stage::Starting => Before::Starting,
            Stage::Ready { .. } => Before::Ready,
            Stage::Unhealthy { .. } => Before::Unhealthy,
            Stage::Stopping => return,
        };
        if up.attempt.kind == ServiceKind::Task {
            return;
        }
        let begin = Begin {
            before,
            started: up.live.started().1,
            watched: up.watched,
        };
        let means = || Means {
            pid: up.live.pid().unwrap_or(0),
            inside: up.live.inside(&self.sandbox.keeper),
            seen: up.live.seen(),
            notify: up.notify.clone(),
            secrets: self.secrets.clone(),
        };
        let health = definition.health.as_ref();
        up.prober = health.map(|health| Prober::start(health, begin, means()));
        match (up.stage, health) {
            (Stage::Starting, None) => self.become_ready(),
            // Nobody says any more that it is not well.
            (Stage::Unhealthy { since }, None) => {
                up.stage = Stage::Ready { since };
                up.message = None;
            }
            _ => {}
        }
    }

    /// Replaces the prober of a live process by one of the new definition.
    pub(super) fn probe_anew(&mut self) {
        let Phase::Up(up) = &self.phase else {
            return;
        };
        // What a live process's output is searched for, and whether it can notify, was fixed when it
        // was executed.
        let asks = |health: &Health| match health.probe {
            Probe::Log { .. } => up.stage != Stage::Starting,
            Probe::Notify {} => up.notify.is_some(),
            _ => true,
        };
        if self.record.definition.health.as_ref().is_none_or(asks) {
            self.probe();
        }
    }

    pub(super) fn become_ready(&mut self) {
        if let Phase::Up(up) = &mut self.phase {
            up.stage = Stage::Ready {
                since: Instant::now(),
            };
            up.message = None;
        }
    }

    /// Takes what the prober has found out.
    pub(super) fn reported(&mut self, report: Report) {
        let restart = self.record.definition.health.as_ref();
        let restart = restart.is_some_and(|health| health.restart);
        let Phase::Up(up) = &mut self.phase else {
            return;
        };
        match (report, up.stage) {
            (Report::Waiting(text), Stage::Starting) => up.message = Some(text),
            (Report::Ready, Stage::Starting) => self.become_ready(),
            (Report::TimedOut(text), Stage::Starting) => {
                let refusal = Refusal::new(504, "health_timeout", text);
                self.begin_stop(Then::Fail(refusal));
            }
            // It was held still: probing begins anew.
            (Report::Sick(_), Stage::Ready { .. } | Stage::Unhealthy { .. })
                if self.sandbox.checkpoints.explains_silence() =>
            {
                self.probe_anew();
            }
            (Report::Sick(text), Stage::Ready { since } | Stage::Unhealthy { since }) => {
                if restart {
                    return self.heal(since, &text);
                }
                up.stage = Stage::Unhealthy { since };
                up.message = Some(text);
            }
            (Report::Well, Stage::Unhealthy { since }) => {
                up.stage = Stage::Ready { since };
                up.message = None;
            }
            (Report::Status(text), stage) if stage != Stage::Stopping => {
                // A starting one says better than we what it waits for.
                if stage == Stage::Starting {
                    up.message.clone_from(&text);
                }
                up.status = text;
            }
            (Report::Watched, _) => up.watched = true,
            // Late: the stage has moved on.
            _ => {}
        }
    }

    /// Stops a service that is not well, to start it again.
    fn heal(&mut self, since: Instant, text: &str) {
        let restart = &self.record.definition.restart;
        self.history.was_ready(restart, since.elapsed());
        self.begin_stop(Then::Heal(format!("unhealthy: {text}")));
    }
}
