//! What an owner leaves for the one that takes its place when the supervisor is killed: where the
//! service is in its life, and the secrets it was given. The keeper holds it, in memory only.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::phase::{Attempt, Phase, Rest, Retry, Stage, Then};
use super::{Owner, Refusal};
use crate::keeper::{Child, ChildId};
use crate::model::{Exit, Secrets, ServiceGoal, ServiceSpec};
use crate::supervisor::policy::History;

/// All of it.
#[derive(Serialize, Deserialize)]
pub(in crate::supervisor) struct Hand {
    secrets: BTreeMap<String, String>,
    pub history: History,
    /// How its last process ended, which may not be on disk yet.
    #[serde(default)]
    pub last_exit: Option<Exit>,
    pub illness: Option<String>,
    pub running_revision: Option<u64>,
    /// What was wanted when the phase began; what is on disk may be newer.
    #[serde(default)]
    pub goal: Option<ServiceGoal>,
    pub phase: HandPhase,
}

/// The phase, with points of time that another process understands.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::supervisor) enum HandPhase {
    Down {
        rest: Rest,
    },
    /// The needs are asked again.
    Waiting {
        attempt: Attempt,
    },
    BackingOff {
        due_at: Timestamp,
        gated: bool,
    },
    Up(Box<HandUp>),
}

/// A live process.
#[derive(Clone, Serialize, Deserialize)]
pub(in crate::supervisor) struct HandUp {
    /// `None` for a container, which is found by its labels.
    pub child: Option<ChildId>,
    /// What was executed, which the definition may have moved on from.
    pub executed: ServiceSpec,
    pub stage: HandStage,
    pub message: Option<String>,
    pub status: Option<String>,
    pub watched: bool,
    pub deadline_at: Option<Timestamp>,
    pub then: HandThen,
    pub attempt: Attempt,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::supervisor) enum HandStage {
    Starting,
    Ready { since: Timestamp },
    Unhealthy { since: Timestamp },
    Stopping,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::supervisor) enum HandThen {
    Rest,
    Again,
    Fail(Refusal),
    Heal(String),
}

/// What a service's owner takes over from the one before.
#[derive(Default)]
pub(in crate::supervisor) struct Inheritance {
    pub hand: Option<Hand>,
    /// The socket that its process notifies at.
    pub notify: Option<OwnedFd>,
    /// Our end of its standard input.
    pub input: Option<OwnedFd>,
    pub children: Vec<Child>,
}

impl HandThen {
    pub(super) fn then(self) -> Then {
        match self {
            Self::Rest => Then::Rest,
            Self::Again => Then::Again,
            Self::Fail(refusal) => Then::Fail(refusal),
            Self::Heal(text) => Then::Heal(text),
        }
    }
}

impl HandUp {
    /// What was to come next, if it was told to stop.
    pub(super) fn stopping(self) -> Option<Then> {
        matches!(self.stage, HandStage::Stopping).then(|| self.then.then())
    }
}

impl Hand {
    /// What was executed, if that may still run.
    pub fn executed(&self) -> Option<&ServiceSpec> {
        match &self.phase {
            HandPhase::Up(up) => Some(&up.executed),
            _ => None,
        }
    }

    /// What `owner` leaves if it ends now.
    pub(super) fn of(owner: &Owner) -> Self {
        let phase = match &owner.phase {
            Phase::Down(rest) => HandPhase::Down { rest: *rest },
            Phase::Waiting(waiting) => HandPhase::Waiting {
                attempt: waiting.attempt,
            },
            // Looked for once more, or stopped, as the one before was.
            Phase::Preparing(preparing) => match (&preparing.left, &preparing.then) {
                (Some(left), _) => HandPhase::Up(left.clone()),
                (None, None | Some(Then::Again)) => HandPhase::Waiting {
                    attempt: preparing.attempt,
                },
                (None, Some(_)) => HandPhase::Down {
                    rest: Rest::Stopped,
                },
            },
            Phase::BackingOff(retry) => HandPhase::BackingOff {
                due_at: retry.due_at,
                gated: retry.gated,
            },
            Phase::Up(up) => HandPhase::Up(Box::new(HandUp {
                child: up.live.id(),
                executed: (*up.executed).clone(),
                stage: match up.stage {
                    Stage::Starting => HandStage::Starting,
                    Stage::Ready { since } => HandStage::Ready { since: at(since) },
                    Stage::Unhealthy { since } => HandStage::Unhealthy { since: at(since) },
                    Stage::Stopping => HandStage::Stopping,
                },
                message: up.message.clone(),
                status: up.status.clone(),
                watched: up.watched,
                deadline_at: up.deadline.map(at),
                then: match &up.then {
                    Then::Rest => HandThen::Rest,
                    Then::Again => HandThen::Again,
                    Then::Fail(refusal) => HandThen::Fail(refusal.clone()),
                    Then::Heal(text) => HandThen::Heal(text.clone()),
                },
                attempt: up.attempt,
            })),
        };
        Self::new(owner, phase)
    }

    /// What `owner` leaves once it has executed `spec` as `child`.
    pub(super) fn of_execution(
        owner: &Owner,
        child: ChildId,
        executed: &ServiceSpec,
        attempt: Attempt,
    ) -> Self {
        let phase = HandPhase::Up(Box::new(HandUp {
            child: Some(child),
            executed: executed.clone(),
            stage: HandStage::Starting,
            message: None,
            status: None,
            watched: false,
            deadline_at: None,
            then: HandThen::Rest,
            attempt,
        }));
        Self {
            running_revision: Some(owner.record.revision),
            ..Self::new(owner, phase)
        }
    }

    fn new(owner: &Owner, phase: HandPhase) -> Self {
        let secrets = owner.secrets.iter();
        Self {
            secrets: secrets
                .map(|(name, value)| (name.to_owned(), value.expose_secret().to_owned()))
                .collect(),
            history: owner.history.clone(),
            last_exit: owner.record.last_exit.clone(),
            illness: owner.illness.clone(),
            running_revision: owner.running_revision,
            goal: Some(owner.record.goal),
            phase,
        }
    }

    pub(in crate::supervisor) fn secrets(&self) -> Secrets {
        let mut secrets = Secrets::default();
        for (name, value) in &self.secrets {
            secrets.insert(name.clone(), SecretString::from(value.as_str()));
        }
        secrets
    }
}

/// A point of this process's time, for others.
fn at(instant: Instant) -> Timestamp {
    let now = Instant::now();
    let distance = |d: Duration| SignedDuration::try_from(d).unwrap_or(SignedDuration::MAX);
    let moved = match instant.checked_duration_since(now) {
        Some(ahead) => Timestamp::now().checked_add(distance(ahead)),
        None => Timestamp::now().checked_sub(distance(now - instant)),
    };
    moved.unwrap_or(Timestamp::MAX)
}

/// The other way round.
pub(super) fn instant(at: Timestamp) -> Instant {
    let now = Instant::now();
    let ahead = at.duration_since(Timestamp::now());
    let distance = ahead.unsigned_abs();
    let moved = match ahead.is_negative() {
        true => now.checked_sub(distance),
        false => now.checked_add(distance),
    };
    moved.unwrap_or(now)
}

/// The next try of another owner.
pub(super) fn retry(due_at: Timestamp, gated: bool) -> Retry {
    Retry {
        due: instant(due_at),
        due_at,
        gated,
    }
}
