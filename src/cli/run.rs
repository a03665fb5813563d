//! Carrying out a plan from the command line: lock, question, signals, progress, report, journal.

use std::collections::BTreeSet;
use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::context::{Context, count, print, say, say_raw};
use super::error::{Error, INTERRUPTED, Result};
use super::progress::{Mode, Reporter, printable};
use crate::apply::{
    Apply, AtomicError, DEFAULT_PARALLELISM, Holder, Interrupt, RolledBack, SafePoint, StackLock,
};
use crate::event::{Event, Outcome, SkipReason, What};
use crate::manifest::Loaded;
use crate::model::{HumanDuration, Observed, show_duration};
use crate::plan::{self, Plan, render};
use crate::platforms::Platforms;

/// With more actions than this, what failed has scrolled away by the end, and is told again.
const FITS_A_SCREEN: usize = 15;

/// How a command deals with the stack's lock.
#[derive(clap::Args)]
pub struct LockArgs {
    /// How long to wait while somebody else works on the stack, such as `30s`
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "0s",
        env = "GABION_LOCK_TIMEOUT",
        hide_env = true
    )]
    pub lock_timeout: HumanDuration,
}

/// Options of every command that changes something.
#[derive(clap::Args)]
pub struct RunArgs {
    /// Do not ask
    #[arg(short, long, env = "GABION_YES", hide_env = true,
          value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub yes: bool,
    /// How many actions may work at the same time
    #[arg(long, value_name = "N", default_value_t = DEFAULT_PARALLELISM, env = "GABION_PARALLELISM",
          hide_env = true, value_parser = at_least_one)]
    pub parallelism: usize,
    #[command(flatten)]
    pub lock: LockArgs,
    /// Print events as JSON, one per line, instead of progress; needs --yes
    #[arg(long, requires = "yes")]
    pub json: bool,
}

impl RunArgs {
    /// For commands that ask nothing by their nature.
    pub fn unasked(lock_timeout: HumanDuration, json: bool) -> Self {
        Self {
            yes: true,
            parallelism: DEFAULT_PARALLELISM,
            lock: LockArgs { lock_timeout },
            json,
        }
    }
}

/// Takes the lock of `stack`; says on stderr who holds it while it is awaited.
pub async fn lock(
    context: &Context,
    stack: &str,
    command: &str,
    timeout: HumanDuration,
) -> Result<StackLock> {
    let path = context.lock_file(stack)?;
    let on_wait = |holder: Option<&Holder>| {
        let who = holder.map_or_else(
            || "another process".to_owned(),
            |holder| format!("`{}` (process {})", holder.command, holder.pid),
        );
        say(format_args!(
            "Stack `{stack}` is locked by {who}; waiting for it for at most {timeout}."
        ));
    };
    Ok(StackLock::acquire(&path, command, timeout.0, on_wait).await?)
}

/// What is done once a plan was made: shown, asked about, carried out, reported.
pub struct Execution<'a> {
    pub context: &'a Context,
    pub loaded: &'a Loaded,
    pub platforms: &'a Platforms,
    pub args: &'a RunArgs,
    /// Printed when everything was done: `Everything is as the manifest says.`
    pub success: &'a str,
    /// Whether older supervisors make way for this gabion first.
    pub upgrades: bool,
    /// For an apply that is done in full or not at all: what was there before.
    pub atomic: Option<&'a Observed>,
}

impl Execution<'_> {
    /// Shows `plan`, asks unless told not to, carries it out.
    pub async fn ask_and_run(&self, plan: &Plan, question: &str) -> Result<ExitCode> {
        let journal = self.context.journal(&plan.stack)?;
        if !self.args.json {
            let forecast = plan::forecast(plan, &journal.history());
            print(&render::text(
                plan,
                forecast.as_ref(),
                &self.context.plan_style(),
            ))?;
        }
        if plan.is_empty() && !self.args.json {
            self.upgrade_outdated().await?;
            return Ok(verdict(plan));
        }
        if !self.args.yes && !confirm(question).await? {
            say(format_args!("Nothing was changed."));
            return Ok(ExitCode::FAILURE);
        }
        self.upgrade_outdated().await?;
        self.run(plan).await
    }

    /// Lets this gabion supervise what an older one does, where that belongs to the command.
    async fn upgrade_outdated(&self) -> Result<()> {
        if !self.upgrades {
            return Ok(());
        }
        for (sandbox, done) in self.platforms.upgrade_outdated().await? {
            say(format_args!(
                "{sandbox}: supervised by gabion {}, before by {}; its services were not touched",
                done.to, done.from
            ));
        }
        Ok(())
    }

    /// Carries out `plan` without a question.
    pub async fn run(&self, plan: &Plan) -> Result<ExitCode> {
        let safe_point = match self.atomic {
            Some(observed) => Some(self.safe_point(plan, observed).await?),
            None => None,
        };
        let outcome = self.carry_out(plan).await?;
        match safe_point {
            Some(point) if outcome.is_success() => point.release(self.platforms).await,
            Some(point) => self.roll_back(point).await?,
            None => {}
        }
        Ok(if outcome.interrupted {
            ExitCode::from(INTERRUPTED)
        } else if outcome.is_success() {
            verdict(plan)
        } else {
            ExitCode::FAILURE
        })
    }

    async fn safe_point(&self, plan: &Plan, observed: &Observed) -> Result<SafePoint> {
        let secrets = &self.loaded.secrets;
        let taken = SafePoint::take(self.platforms, plan, observed, secrets).await;
        taken.map_err(|error| Error::Failed {
            message: format!("nothing was changed: {error}"),
            hint: matches!(error, AtomicError::Deletes(_)).then(|| {
                "apply the rest with --atomic and addresses, then this without".to_owned()
            }),
        })
    }

    async fn roll_back(&self, point: SafePoint) -> Result<()> {
        if !self.args.json {
            say(format_args!("Rolling back …"));
        }
        let told = point.roll_back(self.platforms, &self.loaded.secrets).await;
        let whole = told.iter().all(|it| it.error.is_none());
        for it in told {
            let RolledBack {
                sandbox,
                removed,
                error,
            } = it;
            if self.args.json {
                let event = Event::now(What::RolledBack {
                    sandbox,
                    removed,
                    error,
                });
                let line = serde_json::to_string(&event);
                print(&format!(
                    "{}\n",
                    line.map_err(|e| Error::failed(e.to_string()))?
                ))?;
                continue;
            }
            match (error, removed) {
                (None, false) => say(format_args!("  {sandbox}: as it was before")),
                (None, true) => say(format_args!("  {sandbox}: removed again")),
                (Some(error), _) => say(format_args!(
                    "  {sandbox}: not rolled back: {}",
                    printable(&error)
                )),
            }
        }
        if !self.args.json {
            say(match whole {
                true => format_args!("Everything is as it was before the apply."),
                false => format_args!("Not everything could be rolled back: see above."),
            });
        }
        Ok(())
    }

    async fn carry_out(&self, plan: &Plan) -> Result<Outcome> {
        let mode = if self.args.json {
            Mode::Json
        } else {
            Mode::for_stderr(self.context)
        };
        let (events, received) = mpsc::unbounded_channel();
        let (interrupt, wish) = watch::channel(Interrupt::None);
        let signals = tokio::spawn(forward_signals(interrupt));
        let apply = Apply {
            platforms: self.platforms,
            secrets: &self.loaded.secrets,
            parallelism: self.args.parallelism,
            interrupt: wish,
            events,
        };
        let reporter = Reporter::new(plan, mode, self.context);
        let (outcome, seen) = tokio::join!(apply.run(plan), reporter.run(received));
        signals.abort();
        let seen = seen?;
        if let Err(error) = self.context.journal(&plan.stack)?.record(&seen) {
            tracing::warn!("the journal was not written: {error}");
        }
        if !self.args.json {
            self.report(plan, &outcome, &seen)?;
        }
        Ok(outcome)
    }

    fn report(&self, plan: &Plan, outcome: &Outcome, seen: &[Event]) -> Result<()> {
        let actions = count(plan.actions.len(), "action");
        let took = show_duration(Duration::from_secs_f64(outcome.seconds));
        if outcome.is_success() {
            let state = match plan.problems.len() {
                0 => self.success.to_owned(),
                left => format!("{} left: see above.", count(left, "problem")),
            };
            let line = format!("Done: {actions} in {took}. {state}");
            return print(&format!("{}\n", line.trim_end()));
        }
        let Outcome {
            done,
            failed,
            abandoned,
            skipped,
            ..
        } = outcome;
        let mut text = if outcome.interrupted {
            format!(
                "Interrupted: {done} of {actions} done, {failed} failed, {abandoned} abandoned, \
                 {skipped} not tried.\n"
            )
        } else {
            format!(
                "Failed: {failed} of {actions}; {done} done, {skipped} not tried.{}\n",
                match self.atomic {
                    Some(_) => "",
                    None => " Nothing was rolled back.",
                }
            )
        };
        if plan.actions.len() > FITS_A_SCREEN {
            text.push_str(&failures(seen));
        }
        let logged = with_evidence(seen);
        if logged.is_empty() && self.atomic.is_some() {
            // What becomes of it is told next.
        } else if logged.is_empty() {
            text.push_str("The next apply goes on from what is really there.\n");
        } else {
            let who = if logged.len() == 1 { "it" } else { "they" };
            let logged = logged.join(" ");
            text.push_str(&format!(
                "See everything {who} said with: gabion logs {logged}\n"
            ));
        }
        say_raw(format_args!("\n{text}"));
        Ok(())
    }
}

/// The exit code when everything in `plan` was done.
fn verdict(plan: &Plan) -> ExitCode {
    if plan.problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// What failed and what was not tried, a line each.
fn failures(seen: &[Event]) -> String {
    let mut text = String::new();
    let mut told = BTreeSet::new();
    for event in seen {
        let (address, what) = match &event.what {
            What::ActionFailed {
                action, failure, ..
            } => (&action.address, printable(&failure.message)),
            What::ActionSkipped {
                action,
                because: SkipReason::Needs(need),
            } => (&action.address, format!("not tried: needs {need}")),
            _ => continue,
        };
        if told.insert(address) {
            text.push_str(&format!("  {address}: {what}\n"));
        }
    }
    text
}

/// The services that failed and wrote something.
fn with_evidence(seen: &[Event]) -> Vec<String> {
    let address = |event: &Event| match &event.what {
        What::ActionFailed {
            action, failure, ..
        } => (!failure.log_tail.is_empty()).then(|| action.address.to_string()),
        _ => None,
    };
    seen.iter().filter_map(address).collect()
}

/// First signal: start nothing new. Second: stop at once.
pub async fn forward_signals(interrupt: watch::Sender<Interrupt>) {
    let kinds = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ];
    let [Ok(mut int), Ok(mut term), Ok(mut hup)] = kinds.map(signal) else {
        return;
    };
    for wish in [Interrupt::StopNew, Interrupt::Abort] {
        tokio::select! {
            _ = int.recv() => {}
            _ = term.recv() => {}
            _ = hup.recv() => {}
        }
        interrupt.send_replace(wish);
    }
    // Keeps the channel open: its receiver would otherwise see it closed and changed.
    std::future::pending::<()>().await;
}

/// Asks on stderr and reads one line from stdin; anything but `y` or `yes` is a no. Ctrl-C ends it
/// before anything was done.
pub async fn confirm(question: &str) -> Result<bool> {
    // Before the question is seen: an answer to it may be Ctrl-C.
    let mut interrupted = signal(SignalKind::interrupt())?;
    say_raw(format_args!("{question} [y/N] "));
    std::io::stderr().flush()?;
    let (sender, receiver) = tokio::sync::oneshot::channel();
    // A plain thread: a blocked read must not keep the process from ending.
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = std::io::stdin().lock().read_line(&mut line);
        sender.send(read.map(|_| line))
    });
    let line = tokio::select! {
        line = receiver => line.map_err(|_| Error::Interrupted)??,
        _ = interrupted.recv() => {
            say(format_args!(""));
            return Err(Error::Interrupted);
        }
    };
    if line.is_empty() {
        say(format_args!(""));
        return Err(Error::Usage {
            message: "there is nobody to ask".to_owned(),
            hint: Some("--yes goes ahead without asking".to_owned()),
        });
    }
    Ok(matches!(
        line.trim().to_ascii_lowercase().as_str(),
        "y" | "yes"
    ))
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("write a whole number, 1 or more".to_owned()),
        Ok(number) => Ok(number),
    }
}
