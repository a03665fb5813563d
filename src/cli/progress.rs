//! What an apply looks like while it goes on: live lines on a terminal, plain lines elsewhere, JSON
//! for machines. Reads events only.

use std::collections::{HashMap, HashSet};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::mpsc;

use super::context::{Context, paint, say};
use super::error::{Error, Result};
use super::terminal::NoEcho;
use crate::event::{ActionRef, Event, Failure, SkipReason, What};
use crate::model::{Address, show_duration};
use crate::plan::{Plan, Step, StepKind};

/// How often live lines are drawn anew.
const TICK: Duration = Duration::from_millis(100);
/// After how much silence plain output says what is still going on: first, and from then on.
const SILENCE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];

const SPINNER: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Lines that change in place.
    Live,
    /// A line when something ends, and when nothing was said for a while.
    Plain,
    /// Events as JSON on stdout.
    Json,
}

impl Mode {
    /// Live on a terminal that can do it.
    pub fn for_stderr(_: &Context) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if std::io::stderr().is_terminal() && !dumb {
            Self::Live
        } else {
            Self::Plain
        }
    }
}

/// Turns the events of one apply into lines.
pub struct Reporter<'a> {
    plan: &'a Plan,
    mode: Mode,
    color: bool,
    width: usize,
    address_width: usize,
    groups: HashMap<Address, Group>,
    bars: MultiProgress,
    began: Instant,
    /// The ids of the actions that are done.
    done: HashSet<String>,
    silence: usize,
    interrupted: bool,
    /// Held for as long as lines change in place.
    _quiet: Option<NoEcho>,
}

/// Everything that a plan does to one address, which is told as one line.
struct Group {
    /// Its steps in the plan.
    steps: Vec<StepKind>,
    /// How many of them have ended.
    ended: usize,
    failed: bool,
    /// Time spent in steps that have ended; waiting between them does not count.
    spent: Duration,
    /// The step that is running, and since when.
    doing: Option<(StepKind, Instant)>,
    waiting_for: Option<String>,
    bar: Option<ProgressBar>,
    /// `ready on :3000`, said when it was started.
    readiness: String,
}

impl<'a> Reporter<'a> {
    /// A reporter for one run of `plan`.
    pub fn new(plan: &'a Plan, mode: Mode, context: &Context) -> Self {
        let mut groups: HashMap<Address, Group> = HashMap::new();
        for action in &plan.actions {
            let group = groups
                .entry(action.address.clone())
                .or_insert_with(|| Group {
                    steps: Vec::new(),
                    ended: 0,
                    failed: false,
                    spent: Duration::ZERO,
                    doing: None,
                    waiting_for: None,
                    bar: None,
                    readiness: String::new(),
                });
            group.steps.push(action.step.kind());
            if let Step::StartService(spec) = &action.step {
                let ports: Vec<String> = spec.all_ports().map(|port| format!(":{port}")).collect();
                group.readiness = match (spec.health.is_some(), ports.is_empty()) {
                    (true, false) => format!(", ready on {}", ports.join(" ")),
                    (true, true) => ", ready".to_owned(),
                    (false, _) => String::new(),
                };
            }
        }
        let longest = groups
            .keys()
            .map(|address| address.to_string().len())
            .max()
            .unwrap_or(0);
        let bars = MultiProgress::with_draw_target(match mode {
            Mode::Live => ProgressDrawTarget::stderr(),
            Mode::Plain | Mode::Json => ProgressDrawTarget::hidden(),
        });
        Self {
            plan,
            mode,
            color: context.color_stderr,
            width: context.width_stderr(),
            address_width: longest.clamp(8, 32),
            groups,
            bars,
            began: Instant::now(),
            done: HashSet::new(),
            silence: 0,
            interrupted: false,
            _quiet: (mode == Mode::Live).then(NoEcho::new),
        }
    }

    /// Shows events until the channel closes, and returns them all.
    pub async fn run(mut self, mut events: mpsc::UnboundedReceiver<Event>) -> Result<Vec<Event>> {
        let mut seen = Vec::new();
        let mut last_line = Instant::now();
        loop {
            let pause = match self.mode {
                Mode::Live => TICK,
                Mode::Plain | Mode::Json => {
                    SILENCE[self.silence].saturating_sub(last_line.elapsed())
                }
            };
            match tokio::time::timeout(pause, events.recv()).await {
                Ok(Some(event)) => {
                    if self.show(&event)? {
                        last_line = Instant::now();
                        self.silence = 0;
                    }
                    seen.push(event);
                }
                Ok(None) => return Ok(seen),
                Err(_) if self.mode == Mode::Live => self.draw(),
                Err(_) => {
                    self.break_silence()?;
                    last_line = Instant::now();
                    self.silence = SILENCE.len() - 1;
                }
            }
        }
    }

    /// Whether a line was written.
    fn show(&mut self, event: &Event) -> Result<bool> {
        if self.mode == Mode::Json {
            let line = serde_json::to_string(event).map_err(|e| Error::failed(e.to_string()))?;
            super::context::print(&format!("{line}\n"))?;
            return Ok(true);
        }
        match &event.what {
            What::ActionStarted(action) => self.started(action),
            What::ActionWaiting {
                action,
                waiting_for,
            } => {
                if let Some(group) = self.groups.get_mut(&action.address) {
                    group.waiting_for = Some(waiting_for.clone());
                }
            }
            What::ActionDone { action, seconds } => return self.done(action, *seconds),
            What::ActionFailed {
                action,
                failure,
                seconds,
            } => return self.failed(action, failure, *seconds),
            What::ServiceExecuted { action } => {
                if let Some(group) = self.groups.get_mut(&action.address) {
                    group.waiting_for = None;
                }
            }
            What::ActionAbandoned { action, seconds } => {
                return self.abandoned(action, *seconds);
            }
            What::ActionSkipped { action, because } => return self.skipped(action, because),
            What::Interrupted => return self.interrupted(),
            _ => {}
        }
        Ok(false)
    }

    fn started(&mut self, action: &ActionRef) {
        let Some(group) = self.groups.get_mut(&action.address) else {
            return;
        };
        group.doing = Some((action.kind, Instant::now()));
        group.waiting_for = None;
        if group.bar.is_none() && self.mode == Mode::Live {
            let style = ProgressStyle::with_template("{wide_msg}");
            let bar = self.bars.add(ProgressBar::new_spinner());
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            group.bar = Some(bar);
        }
    }

    fn done(&mut self, action: &ActionRef, seconds: f64) -> Result<bool> {
        self.done.insert(action.action.clone());
        let Some(group) = self.groups.get_mut(&action.address) else {
            return Ok(false);
        };
        group.end_step(seconds);
        if group.ended < group.steps.len() || group.failed {
            return Ok(false);
        }
        let text = format!("{}{}", past(&action.address, &group.steps), group.readiness);
        let (bar, spent) = (group.bar.take(), group.spent);
        let style = AnsiColor::Green.on_default();
        let line = self.line(
            paint(self.color, style, "✓"),
            &action.address,
            &text,
            Some(spent),
        );
        self.finish(bar, &line)
    }

    fn failed(&mut self, action: &ActionRef, failure: &Failure, seconds: f64) -> Result<bool> {
        let Some(group) = self.groups.get_mut(&action.address) else {
            return Ok(false);
        };
        group.failed = true;
        group.end_step(seconds);
        let bar = group.bar.take();
        let style = AnsiColor::Red.on_default().bold();
        let message = printable(&failure.message);
        let message = match action.kind {
            // That it was to start goes without saying.
            StepKind::Start | StepKind::Run => message,
            kind => format!("{} failed: {message}", noun(kind)),
        };
        let symbol = paint(self.color, style, "✗");
        let mut text = self.line(symbol, &action.address, &message, None);
        let dim = |text| paint(self.color, Style::new().dimmed(), text);
        for line in &failure.log_tail {
            for part in wrap(&printable(line), self.width.saturating_sub(8)) {
                text.push_str(&format!("\n      {} {part}", dim("│")));
            }
        }
        // What it wrote is shown, and where the rest is comes at the end.
        let logged = |hint: &&String| hint.starts_with("gabion logs");
        let next = failure.hint.as_ref().filter(|hint| !logged(hint));
        if let Some(hint) = next {
            text.push_str(&format!("\n      {} {hint}", dim("next:")));
        } else if failure.hint.is_some() && failure.log_tail.is_empty() {
            text.push_str(&format!("\n      {}", dim("it wrote nothing")));
        }
        self.finish(bar, &text)
    }

    fn abandoned(&mut self, action: &ActionRef, seconds: f64) -> Result<bool> {
        let Some(group) = self.groups.get_mut(&action.address) else {
            return Ok(false);
        };
        group.failed = true;
        group.end_step(seconds);
        let (bar, spent) = (group.bar.take(), group.spent);
        let text = format!(
            "{} abandoned: it may still go on by itself",
            noun(action.kind)
        );
        let symbol = paint(self.color, Style::new().dimmed(), "–");
        let line = self.line(symbol, &action.address, &text, Some(spent));
        self.finish(bar, &line)
    }

    fn skipped(&mut self, action: &ActionRef, because: &SkipReason) -> Result<bool> {
        let Some(group) = self.groups.get_mut(&action.address) else {
            return Ok(false);
        };
        // One line for all of its steps, and none if one of them failed before.
        if std::mem::replace(&mut group.failed, true) {
            return Ok(false);
        }
        let bar = group.bar.take();
        let (ended, left) = group.steps.split_at(group.ended);
        let half = not_done(ended, left);
        let why = match because {
            SkipReason::Needs(need) if *need == action.address => half.to_owned(),
            SkipReason::Needs(need) => format!("{half}: needs {need}"),
            SkipReason::Interrupted => format!("{half}: interrupted"),
        };
        let symbol = paint(self.color, Style::new().dimmed(), "–");
        let line = self.line(symbol, &action.address, &why, None);
        self.finish(bar, &line)
    }

    fn interrupted(&mut self) -> Result<bool> {
        let text = if std::mem::replace(&mut self.interrupted, true) {
            "Stopping at once."
        } else {
            "Stopping when what is running has ended. Ctrl-C again stops at once."
        };
        self.finish(None, text)
    }

    /// `  ✓ web/api    restarted, ready on :3001      1.3 s`
    fn line(
        &self,
        symbol: String,
        address: &Address,
        text: &str,
        took: Option<Duration>,
    ) -> String {
        let wide = self.address_width;
        let column = wide.max(address.to_string().len()) + 6;
        let mut line = format!("  {symbol} {address:<wide$}  ");
        let Some(took) = took else {
            let parts = wrap(text, self.width.saturating_sub(column));
            line.push_str(&parts.join(&format!("\n{:column$}", "")));
            return line;
        };
        let room = self.width.saturating_sub(column + 10).clamp(20, 60);
        let gap = room.saturating_sub(text.chars().count());
        line.push_str(&format!("{text}{:gap$}  {:>7}", "", show_duration(took)));
        line
    }

    fn finish(&self, bar: Option<ProgressBar>, text: &str) -> Result<bool> {
        if let Some(bar) = bar {
            bar.finish_and_clear();
            self.bars.remove(&bar);
        }
        match self.mode {
            Mode::Live => self.bars.suspend(|| say(format_args!("{text}"))),
            Mode::Plain | Mode::Json => say(format_args!("{text}")),
        }
        Ok(true)
    }

    fn draw(&self) {
        for (address, group) in &self.groups {
            if let Some(bar) = &group.bar {
                let frame = self.began.elapsed().as_millis() / TICK.as_millis();
                let symbol = SPINNER[usize::try_from(frame).unwrap_or(0) % SPINNER.len()];
                bar.set_message(self.running_line(symbol, address, group));
            }
        }
    }

    fn running_line(&self, symbol: &str, address: &Address, group: &Group) -> String {
        let Some((kind, since)) = group.doing else {
            let waits = match self.waits_for(address) {
                Some(other) => format!("waits for {other}"),
                None => "waits for its turn".to_owned(),
            };
            return self.line("·".to_owned(), address, &waits, None);
        };
        let doing = match &group.waiting_for {
            Some(reason) => format!("{}, {}", present(kind), printable(reason)),
            None => present(kind).to_owned(),
        };
        self.line(symbol.to_owned(), address, &doing, Some(since.elapsed()))
    }

    /// What the next step of `address` is waiting for.
    fn waits_for(&self, address: &Address) -> Option<&Address> {
        let actions = &self.plan.actions;
        let mine = actions.iter().filter(|action| action.address == *address);
        let next = mine
            .into_iter()
            .find(|action| !self.done.contains(&action.id()))?;
        let needed = next.after.iter().map(|after| &actions[after.action]);
        let open = needed.filter(|action| !self.done.contains(&action.id()));
        open.map(|action| &action.address)
            .find(|other| *other != address)
    }

    /// Says what has been going on for longest.
    fn break_silence(&self) -> Result<()> {
        // In plan order, so that ties do not change from line to line.
        let addresses = self.plan.actions.iter().map(|action| &action.address);
        let running = addresses.filter_map(|address| {
            let group = self.groups.get(address)?;
            Some((address, group, group.doing?.1))
        });
        let Some((address, group, _)) = running.min_by_key(|(.., since)| *since) else {
            return Ok(());
        };
        say(format_args!("{}", self.running_line("·", address, group)));
        Ok(())
    }
}

impl Group {
    fn end_step(&mut self, seconds: f64) {
        self.ended += 1;
        self.doing = None;
        self.spent += Duration::try_from_secs_f64(seconds).unwrap_or_default();
    }
}

/// `text` in lines of at most `width` columns, broken at spaces where there are any.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(20);
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some((end, _)) = rest.char_indices().nth(width) {
        let at = match rest[..end].rfind(' ') {
            Some(space) if space > 0 => space,
            _ => end,
        };
        lines.push(rest[..at].to_owned());
        rest = rest[at..].strip_prefix(' ').unwrap_or(&rest[at..]);
    }
    lines.push(rest.to_owned());
    lines
}

/// How far an address came whose next step was not tried.
fn not_done(ended: &[StepKind], left: &[StepKind]) -> &'static str {
    match (ended.contains(&StepKind::Stop), left) {
        (true, [.., StepKind::Start | StepKind::Run]) => "stopped, not started again",
        (_, [.., StepKind::Start]) if !ended.is_empty() => "not started",
        (_, [.., StepKind::Run]) if !ended.is_empty() => "not run",
        _ => "not tried",
    }
}

/// `text` without anything that a terminal would obey.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\t' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

fn present(kind: StepKind) -> &'static str {
    match kind {
        StepKind::Create => "creating",
        StepKind::Update => "updating",
        StepKind::Start => "starting",
        StepKind::Stop => "stopping",
        StepKind::Delete => "deleting",
        StepKind::Upsert => "defining",
        StepKind::Run => "running",
    }
}

fn noun(kind: StepKind) -> &'static str {
    match kind {
        StepKind::Create => "creation",
        StepKind::Update => "update",
        StepKind::Start => "start",
        StepKind::Stop => "stop",
        StepKind::Delete => "deletion",
        StepKind::Upsert => "definition",
        StepKind::Run => "run",
    }
}

/// What was done to an address, as one phrase.
pub fn past(address: &Address, steps: &[StepKind]) -> &'static str {
    let has = |kind| steps.contains(&kind);
    let service = address.service().is_some();
    if has(StepKind::Delete) {
        if has(StepKind::Stop) {
            "stopped, deleted"
        } else {
            "deleted"
        }
    } else if has(StepKind::Run) {
        "completed"
    } else if has(StepKind::Create) {
        "created"
    } else if has(StepKind::Start) {
        if has(StepKind::Stop) {
            "restarted"
        } else {
            "started"
        }
    } else if has(StepKind::Stop) {
        "stopped"
    } else if service {
        "updated, not restarted"
    } else {
        "updated"
    }
}
