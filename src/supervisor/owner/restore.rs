//! An owner takes over from the one of a supervisor that was killed: the live process, its readiness,
//! its back-off, all where they were.

use super::hand::{HandPhase, HandStage, HandUp, Inheritance, instant, retry};
use super::*;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::keeper::{Child, kill_group};

impl Owner {
    /// Puts the service where its last owner left it, and does what was asked of that one last.
    pub(super) async fn inherit(&mut self, inheritance: Inheritance) {
        let Inheritance {
            hand,
            notify,
            input,
            children,
        } = inheritance;
        let Some(hand) = hand else {
            // Executed, and the supervisor killed before anybody could note whose it is: impossible,
            // for the note goes with the request. What it is, is not known, so it must not run on.
            for child in children {
                self.sandbox.clear(&self.name, child).await;
            }
            return;
        };
        self.secrets.extend(hand.secrets());
        self.history = hand.history;
        self.illness = hand.illness;
        if hand.last_exit.is_some() {
            self.record.last_exit = hand.last_exit;
        }
        self.running_revision = hand.running_revision;
        let mut live = None;
        for child in children {
            match &hand.phase {
                HandPhase::Up(up) if up.child == Some(child.id()) => live = Some(child),
                // Its end was seen to already.
                _ => clear(&self.name, child).await,
            }
        }
        let goal = hand.goal.unwrap_or(self.record.goal);
        match hand.phase {
            HandPhase::Down { rest } => {
                self.phase = Phase::Down(rest);
                if self.record.definition.container {
                    let (sandbox, name) = (self.sandbox.clone(), self.name.clone());
                    sandbox.clear_container(&name).await;
                }
            }
            HandPhase::BackingOff { due_at, gated } => {
                self.phase = Phase::BackingOff(retry(due_at, gated));
            }
            HandPhase::Waiting { attempt } => self.begin(attempt.origin, attempt.gated).await,
            HandPhase::Up(up) if up.child.is_none() => self.find_container(up, notify),
            HandPhase::Up(up) => match live {
                Some(child) => {
                    let pid = child.pid;
                    if let Err(error) = self.resume(*up, child, notify, input) {
                        tracing::error!(service = %self.name, %error, "a live process is not taken over");
                        kill_group(pid);
                        self.record.error = Some(error.to_string());
                        self.phase = Phase::Down(Rest::Failed);
                    }
                }
                // Never executed: the note came before the request, or the request was refused.
                None => self.begin(up.attempt.origin, up.attempt.gated).await,
            },
        }
        self.catch_up(goal).await;
    }

    /// A wish is stored before anything is done about it. If that is as far as it came, it is done now.
    async fn catch_up(&mut self, before: ServiceGoal) {
        let (reply, _) = oneshot::channel();
        match (before, self.record.goal) {
            (ServiceGoal::Running, ServiceGoal::Stopped) => self.wish_stop(reply),
            (ServiceGoal::Stopped, ServiceGoal::Running) => {
                let (until, origin) = (Await::Accepted, Origin::Request);
                self.wish_start(until, origin, reply).await;
            }
            _ => {}
        }
    }

    fn resume(
        &mut self,
        up: HandUp,
        mut child: Child,
        notify: Option<OwnedFd>,
        input: Option<OwnedFd>,
    ) -> Result<(), SpawnError> {
        let input = self.listen_to_input(&mut child, &up.executed, input)?;
        let cgroup = self.sandbox.base.cgroups.existing(&self.name).map(Arc::new);
        let process = self.adopt(child, &up.executed, cgroup.clone(), input, Known::Before);
        self.last_process = Some((process.pid, process.started_at));
        let notify = notify.map(NotifySocket::from_fd).transpose();
        let notify = notify.map_err(SpawnError::Notify)?.map(Arc::new);
        let prepared = self.prepare(&up.executed, None, cgroup)?;
        self.go_on(Live::Process(Box::new((process, prepared))), up, notify);
        Ok(())
    }

    /// What was left runs on in this process.
    pub(super) fn go_on(&mut self, live: Live, up: HandUp, notify: Option<Arc<NotifySocket>>) {
        self.phase = Phase::Up(Box::new(Up {
            log_trouble: live.log_trouble(),
            live,
            executed: Arc::new(up.executed),
            prober: None,
            stage: match up.stage {
                HandStage::Starting => Stage::Starting,
                HandStage::Ready { since } => Stage::Ready {
                    since: instant(since),
                },
                HandStage::Unhealthy { since } => Stage::Unhealthy {
                    since: instant(since),
                },
                HandStage::Stopping => Stage::Stopping,
            },
            message: up.message,
            status: up.status,
            notify,
            watched: up.watched,
            deadline: up.deadline_at.map(instant),
            then: up.then.then(),
            attempt: up.attempt,
        }));
        self.probe();
    }
}

/// Kills what is left of a process whose end was seen to.
async fn clear(name: &ServiceName, child: Child) {
    if let Err(error) = os::kill_session(child.pid, os::start_time(child.pid)).await {
        tracing::error!(service = %name, %error, "what is left of it is not cleared");
    }
}
