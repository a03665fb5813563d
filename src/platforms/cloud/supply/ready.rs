//! Awaits a service until its health check passes, or it ends, or its time is over.

use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use tokio::time::{Instant, sleep};

use super::probe::{Surroundings, script, words};
use crate::model::{Health, Probe, Secrets, show_duration};
use crate::platforms::{PlatformError, Progress, Result};

/// How long one script asks: between two of them it is looked whether the service is still up.
const SLICE: Duration = Duration::from_secs(2);

/// The pauses between two looks at a service's output, or after a question that was not answered.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];

/// The most characters of an answer that are shown.
const SHOWN: usize = 200;

/// How a script ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// It ran and exited with this code, having written this.
    Ran(i32, String),
    /// It did not run, or its end is not known; it may be tried again.
    NotNow(String),
}

/// One service in a sandbox, as far as its readiness is concerned.
#[async_trait]
pub trait Inside: Sync {
    /// Runs a script with `/bin/sh` in the sandbox. It may hold secrets: not to be put into a URL or an
    /// argument. It ends by itself within `limit`.
    async fn sh(&self, script: &SecretString, limit: Duration) -> Result<Asked>;
    /// Fails once the service has ended.
    async fn alive(&self) -> Result<()>;
    /// Whether a line that the service has written since it was started contains `text`.
    async fn has_said(&self, text: &str) -> Result<bool>;
}

/// Returns once `health` passes. Answers are told to `progress` without the values of `secrets`.
pub async fn ready(
    inside: &dyn Inside,
    health: &Health,
    around: &Surroundings,
    secrets: &Secrets,
    progress: &dyn Progress,
) -> Result<()> {
    let began = Instant::now();
    let limit = health.time_to_ready();
    let mut told = None;
    let mut pause = PAUSES[0];
    loop {
        let left = limit.saturating_sub(began.elapsed());
        let miss = match &health.probe {
            Probe::Log { contains } => match inside.has_said(contains).await? {
                true => return Ok(()),
                false => Miss::Later(words(&health.probe)),
            },
            _ => ask(inside, health, around, left.min(SLICE)).await?,
        };
        let (why, later) = match miss {
            Miss::None => return Ok(()),
            Miss::Said(why) => (why, false),
            Miss::Later(why) => (why, true),
        };
        let why = clean(&secrets.conceal(&why)).unwrap_or_else(|| words(&health.probe));
        inside.alive().await?;
        if began.elapsed() >= limit {
            let time = show_duration(limit);
            return Err(PlatformError::new(format!("not ready after {time}: {why}")));
        }
        if told.as_ref() != Some(&why) {
            progress.waiting(&why);
            told = Some(why);
        }
        if later {
            sleep(pause.min(limit.saturating_sub(began.elapsed()))).await;
            pause = (pause * 2).min(PAUSES[1]);
        }
    }
}

/// What keeps a service from being ready.
enum Miss {
    /// Nothing.
    None,
    /// The script's last words, after it has asked for a while.
    Said(String),
    /// Something that should be tried again after a pause.
    Later(String),
}

async fn ask(
    inside: &dyn Inside,
    health: &Health,
    around: &Surroundings,
    slice: Duration,
) -> Result<Miss> {
    let Some(script) = script(health, around, slice) else {
        return Err(PlatformError::new(
            "its health check cannot be carried out there",
        ));
    };
    let limit = slice + health.probe_timeout.0 * 2;
    Ok(match inside.sh(&script, limit).await? {
        Asked::Ran(0, _) => Miss::None,
        Asked::Ran(super::probe::NOT_READY, said) => Miss::Said(last_line(&said)),
        Asked::Ran(code, said) => {
            let said = last_line(&said);
            Miss::Later(format!("its health check exited with {code}: {said}"))
        }
        Asked::NotNow(why) => Miss::Later(why),
    })
}

fn last_line(text: &str) -> String {
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    line.unwrap_or_default().to_owned()
}

/// One line of printable characters, not too long.
fn clean(text: &str) -> Option<String> {
    let text = text.replace(char::is_control, " ");
    let text = text.trim();
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    (!shown.is_empty()).then_some(shown)
}
