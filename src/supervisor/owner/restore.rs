//! An owner takes over from the one of a supervisor that was killed: the live process, its readiness,
//! its back-off, all where they were.

use super::hand::{HandPhase, HandStage, HandThen, HandUp, Inheritance, instant, retry};
use super::*;
use crate::keeper::Child;

impl Owner {
    /// Puts the service where its last owner left it. `true` if it is to go on from there without being
    /// brought back.
    pub(super) async fn inherit(&mut self, inheritance: Inheritance) -> bool {
        let Inheritance { hand, children } = inheritance;
        let Some(hand) = hand else {
            // Executed, and the supervisor killed before anybody could note whose it is: impossible,
            // for the note goes with the request. What it is, is not known, so it must not run on.
            for child in children {
                self.clear(child).await;
            }
            return false;
        };
        self.secrets.extend(hand.secrets());
        self.restarts = hand.restarts;
        self.row = hand.row;
        self.running_revision = hand.running_revision;
        let mut live = None;
        for child in children {
            match &hand.phase {
                HandPhase::Up(up) if up.child == child.id() => live = Some(child),
                // Its end was seen to already.
                _ => self.clear(child).await,
            }
        }
        match hand.phase {
            HandPhase::Down { rest } => self.phase = Phase::Down(rest),
            HandPhase::BackingOff { due_at, gated } => {
                self.phase = Phase::BackingOff(retry(due_at, gated));
            }
            HandPhase::Waiting { attempt } => self.begin(attempt.origin, attempt.gated).await,
            HandPhase::Up(up) => match live {
                Some(child) => self.resume(*up, child),
                // Never executed: the note came before the request, or the request was refused.
                None => self.begin(up.attempt.origin, up.attempt.gated).await,
            },
        }
        true
    }

    async fn clear(&self, child: Child) {
        if let Err(error) = os::kill_session(child.pid, os::start_time(child.pid)).await {
            tracing::error!(service = %self.name, %error, "what was left running is not cleared");
        }
    }

    fn resume(&mut self, up: HandUp, child: Child) {
        let HandUp {
            executed,
            stage,
            message,
            deadline_at,
            then,
            attempt,
            ..
        } = up;
        let prepared = self.prepare(&executed);
        let process = match self.adopt(child, &executed) {
            Ok(process) => process,
            Err(error) => {
                tracing::error!(service = %self.name, %error, "a live process cannot be taken over");
                return;
            }
        };
        let (stage, before) = match stage {
            HandStage::Starting => (Stage::Starting, Some(Before::Starting)),
            HandStage::Ready { since } => {
                let since = instant(since);
                (Stage::Ready { since }, Some(Before::Ready))
            }
            HandStage::Unhealthy { since } => {
                let since = instant(since);
                (Stage::Unhealthy { since }, Some(Before::Ready))
            }
            HandStage::Stopping => (Stage::Stopping, None),
        };
        let task = attempt.kind == ServiceKind::Task;
        let health = self.record.definition.health.as_ref().filter(|_| !task);
        let prober = match (health, before, &prepared) {
            (Some(health), Some(before), Ok(prepared)) => {
                Some(Prober::start(health, before, prepared.clone(), process.seen()))
            }
            _ => None,
        };
        let ready = prober.is_none() && !task && matches!(stage, Stage::Starting);
        self.phase = Phase::Up(Box::new(Up {
            process,
            executed: Arc::new(executed),
            prepared: prepared.ok(),
            prober,
            stage,
            message,
            deadline: deadline_at.map(instant),
            then: match then {
                HandThen::Rest => Then::Rest,
                HandThen::Again => Then::Again,
                HandThen::Fail(refusal) => Then::Fail(refusal),
            },
            attempt,
        }));
        if ready {
            self.become_ready();
        }
    }
}
