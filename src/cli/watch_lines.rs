//! The calm lines of `gabion watch`: when, what, why, and how it ended.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anstyle::AnsiColor;
use tokio::sync::mpsc;

use super::context::{Context, count, paint, print, short};
use super::error::{Error, Result};
use super::progress::{past, printable};
use crate::event::{Event, SkipReason, What};
use crate::model::{Address, show_duration};
use crate::plan::{Cause, Plan, StepKind};

/// After how long an action says what it is waiting for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Turns a watcher's events into lines.
pub struct Lines<'a> {
    context: &'a Context,
    json: bool,
    color: bool,
    round: Round,
}

/// What the running round does to each address.
#[derive(Default)]
struct Round {
    reasons: Vec<String>,
    groups: HashMap<Address, Group>,
}

struct Group {
    cause: Cause,
    steps: Vec<StepKind>,
    ended: usize,
    told: bool,
    began: Option<Instant>,
    waiting_for: Option<String>,
}

impl Round {
    fn new(reasons: Vec<String>, plan: &Plan) -> Self {
        let mut groups: HashMap<Address, Group> = HashMap::new();
        for action in &plan.actions {
            let group = groups
                .entry(action.address.clone())
                .or_insert_with(|| Group {
                    cause: action.cause.clone(),
                    steps: Vec::new(),
                    ended: 0,
                    told: false,
                    began: None,
                    waiting_for: None,
                });
            group.steps.push(action.step.kind());
        }
        Self { reasons, groups }
    }
}

impl<'a> Lines<'a> {
    pub fn new(context: &'a Context, json: bool) -> Self {
        Self {
            context,
            json,
            color: context.color_stdout,
            round: Round::default(),
        }
    }

    /// Shows events until the channel closes.
    pub async fn run(mut self, mut events: mpsc::UnboundedReceiver<Event>) -> Result<()> {
        loop {
            match tokio::time::timeout(PATIENCE, events.recv()).await {
                Ok(None) => return Ok(()),
                Ok(Some(event)) if self.json => {
                    let line =
                        serde_json::to_string(&event).map_err(|e| Error::failed(e.to_string()))?;
                    print(&format!("{line}\n"))?;
                }
                Ok(Some(event)) => self.show(event)?,
                Err(_) => self.explain_waiting()?,
            }
        }
    }

    /// Says once of each action that takes long what it is waiting for.
    fn explain_waiting(&mut self) -> Result<()> {
        let mut lines = Vec::new();
        for (address, group) in &mut self.round.groups {
            let long = group.began.is_some_and(|began| began.elapsed() >= PATIENCE);
            if long && group.ended < group.steps.len() && !group.told {
                lines.extend(
                    group
                        .waiting_for
                        .take()
                        .map(|reason| (address.to_string(), reason)),
                );
            }
        }
        lines.sort();
        for (address, reason) in lines {
            self.line(&address, &format!("starting, {}", printable(&reason)))?;
        }
        Ok(())
    }

    fn show(&mut self, event: Event) -> Result<()> {
        match event.what {
            What::WatchStarted { plan, files } => self.started(&plan, &files),
            What::RoundStarted { reasons, plan } => self.round_started(reasons, &plan),
            What::ManifestInvalid {
                file,
                errors,
                report,
            } => {
                let shown = count(errors, "error");
                let text = format!("not valid, nothing changed ({shown}, shown below)");
                self.line(&file, &text)?;
                let width = self.context.width_stdout();
                print(&report.render_text(self.color, width))
            }
            What::ManifestValid { file } => self.line(&file, "is valid again"),
            What::Drift { address, found } => self.line(&address.to_string(), &found),
            What::DeletionsHeld { addresses } => self.deletions_held(&addresses),
            What::ActionStarted(action) => {
                if let Some(group) = self.round.groups.get_mut(&action.address) {
                    group.began.get_or_insert_with(Instant::now);
                }
                Ok(())
            }
            What::ActionDone { action, .. } => self.done(&action.address),
            What::ActionFailed {
                action, failure, ..
            } => {
                let Some(group) = self.round.groups.get_mut(&action.address) else {
                    return Ok(());
                };
                group.told = true;
                let text = format!(
                    "{}: failed: {}",
                    why(&group.cause),
                    printable(&failure.message)
                );
                self.line(
                    &action.address.to_string(),
                    &paint(self.color, AnsiColor::Red.on_default(), &text),
                )?;
                for line in &failure.log_tail {
                    print(&format!("            │ {}\n", printable(line)))?;
                }
                Ok(())
            }
            What::ActionSkipped { action, because } => {
                let Some(group) = self.round.groups.get_mut(&action.address) else {
                    return Ok(());
                };
                if std::mem::replace(&mut group.told, true) {
                    return Ok(());
                }
                match because {
                    SkipReason::Needs(need) => {
                        let text = format!("not tried: needs {need}");
                        self.line(&action.address.to_string(), &text)
                    }
                    // Another round, or the end, is on its way.
                    SkipReason::Interrupted => Ok(()),
                }
            }
            What::ActionWaiting {
                action,
                waiting_for,
            } => {
                if let Some(group) = self.round.groups.get_mut(&action.address) {
                    group.waiting_for = Some(waiting_for);
                }
                Ok(())
            }
            What::ServiceExecuted { action } => {
                if let Some(group) = self.round.groups.get_mut(&action.address) {
                    group.waiting_for = None;
                }
                Ok(())
            }
            What::ApplyStarted { .. }
            | What::RolledBack { .. }
            | What::ActionAbandoned { .. }
            | What::ApplyFinished(_)
            | What::Interrupted => Ok(()),
        }
    }

    fn started(
        &self,
        plan: &Arc<Plan>,
        (files, sources): &(Vec<std::path::PathBuf>, usize),
    ) -> Result<()> {
        let names: Vec<String> = files.iter().map(|file| short(file)).collect();
        let mut watched = match names.as_slice() {
            few @ ([] | [_] | [_, _]) => few.join(" and "),
            many => count(many.len(), "file"),
        };
        if *sources > 0 {
            watched.push_str(&format!(", {}", count(*sources, "source file")));
        }
        let state = if plan.is_empty() {
            "everything is as the manifest says".to_owned()
        } else {
            format!("{} to do", count(plan.actions.len(), "action"))
        };
        let platforms = plan.platforms.join(", ");
        print(&format!(
            "{} on {platforms}: {state}. Watching {watched}.\n",
            plan.stack
        ))
    }

    fn round_started(&mut self, reasons: Vec<String>, plan: &Plan) -> Result<()> {
        self.round = Round::new(reasons, plan);
        Ok(())
    }

    fn done(&mut self, address: &Address) -> Result<()> {
        let Some(group) = self.round.groups.get_mut(address) else {
            return Ok(());
        };
        group.ended += 1;
        if group.ended < group.steps.len() || group.told {
            return Ok(());
        }
        let took = group.began.map_or(Duration::ZERO, |began| began.elapsed());
        let because = match &group.cause {
            // The file that was edited says more than that something differs.
            Cause::Added | Cause::DefinitionChanged | Cause::Removed => {
                let reason = self
                    .round
                    .reasons
                    .first()
                    .filter(|reason| reason.ends_with("changed"));
                reason.cloned().unwrap_or_else(|| why(&group.cause))
            }
            cause => why(cause),
        };
        let text = format!(
            "{because}: {} in {}",
            past(address, &group.steps),
            show_duration(took)
        );
        self.line(&address.to_string(), &text)
    }

    fn deletions_held(&self, addresses: &[Address]) -> Result<()> {
        let ask = if std::io::stdin().is_terminal() {
            "type y to delete it"
        } else {
            "left alone (--allow-delete deletes it)"
        };
        for address in addresses {
            self.line(
                &address.to_string(),
                &format!("no longer in the manifest: {ask}"),
            )?;
        }
        Ok(())
    }

    /// `10:41:07  web/api        text`
    fn line(&self, subject: &str, text: &str) -> Result<()> {
        let time = jiff::Zoned::now().strftime("%H:%M:%S").to_string();
        let time = paint(self.color, anstyle::Style::new().dimmed(), &time);
        print(&format!("{time}  {subject:<14} {text}\n"))
    }
}

fn why(cause: &Cause) -> String {
    match cause {
        Cause::Added => "added".to_owned(),
        Cause::DefinitionChanged => "definition changed".to_owned(),
        Cause::DefinitionUnknown => "definition not known".to_owned(),
        Cause::RunsOldDefinition => "ran an older definition".to_owned(),
        Cause::NotRunning { state } => format!("was found {}", state.word()),
        Cause::NotReady => "was not ready yet".to_owned(),
        Cause::NotCompleted => "had not completed".to_owned(),
        Cause::SandboxDown => "was down".to_owned(),
        Cause::WantedStopped => "wanted stopped".to_owned(),
        Cause::Removed => "no longer in the manifest".to_owned(),
        Cause::Destroyed => "destroyed".to_owned(),
        Cause::DependencyRestarted { dependency } => format!("{dependency} was restarted"),
        Cause::Requested => "asked for".to_owned(),
        Cause::FileChanged { path } => format!("{path} changed"),
    }
}
