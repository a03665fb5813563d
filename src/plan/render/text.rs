//! The text for people: what will happen to what, why, and how long it will take.

use std::time::Duration;

use anstyle::{AnsiColor, Style as Ansi};

use super::super::{Action, Cause, Change, Deed, Forecast, Plan, Step, StepKind, Until};
use super::value::{self, Line, Tone};
use crate::model::{Address, show_duration};

/// A forecast below this says nothing that anybody would act on.
const WORTH_TELLING: Duration = Duration::from_millis(50);

/// How text is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Whether to use colours.
    pub color: bool,
    /// The width of a line, in columns.
    pub width: usize,
}

/// The plan as text. Ends with a line end.
pub fn text(plan: &Plan, forecast: Option<&Forecast>, style: &Style) -> String {
    let mut page = Page {
        plan,
        out: String::new(),
        style: *style,
    };
    page.header();
    let groups = plan.by_address();
    let longest = groups
        .keys()
        .map(|address| address.to_string().len())
        .max()
        .unwrap_or(0);
    let column = longest.clamp(16, 32) + 2;
    if !groups.is_empty() {
        page.out.push('\n');
    }
    for (address, group) in &groups {
        page.block(address, group, column);
    }
    page.problems();
    if !plan.is_empty() {
        page.summary(forecast);
    }
    page.out
}

/// The first line, the summary (empty for an empty plan), and what is done with one address: the
/// words of [`text`] on lines of any length, for other renderings.
pub(super) struct Words<'a>(&'a Plan);

impl<'a> Words<'a> {
    pub fn of(plan: &'a Plan) -> Self {
        Self(plan)
    }

    fn page(&self) -> Page<'a> {
        Page {
            plan: self.0,
            out: String::new(),
            style: Style {
                color: false,
                width: usize::MAX,
            },
        }
    }

    pub fn header(&self) -> String {
        let mut page = self.page();
        page.header();
        page.out.trim_end().to_owned()
    }

    pub fn summary(&self, forecast: Option<&Forecast>) -> String {
        let mut page = self.page();
        page.summary(forecast);
        page.out.trim().to_owned()
    }

    pub fn address(&self, group: &[usize]) -> String {
        self.page().words(group, self.0.deed(group))
    }
}

/// What `gabion plan` says after a plan that is not empty.
pub const APPLY_HINT: &str = "Apply it with: gabion apply";

/// The text as it grows.
struct Page<'a> {
    plan: &'a Plan,
    out: String,
    style: Style,
}

impl Page<'_> {
    fn paint(&mut self, style: Ansi, text: &str) {
        if self.style.color && style != Ansi::new() {
            self.out.push_str(&format!("{style}{text}{style:#}"));
        } else {
            self.out.push_str(text);
        }
    }

    fn header(&mut self) {
        let plan = self.plan;
        let place = match plan.platforms.is_empty() {
            true => String::new(),
            false => format!(" on {}", value::printable(&plan.platforms.join(", "))),
        };
        let name = format!("{}{place}", value::printable(&plan.stack));
        let counts = format!(
            "{}, {}",
            count(plan.sandboxes, "sandbox", "sandboxes"),
            count(plan.services, "service", "services")
        );
        let quiet = plan.is_empty() && plan.problems.is_empty();
        let line = if quiet && plan.unchanged < plan.services {
            format!(
                "No changes to what was named. {name}: {} of {} as they should be",
                plan.unchanged, plan.services
            )
        } else if quiet {
            format!("No changes. {name}: everything is as the manifest says ({counts}).")
        } else if let Some(doomed) = self.doomed() {
            format!("{name}: destroy {doomed}")
        } else if plan.services == 0 || self.all_new() {
            format!("{name}: {counts}")
        } else {
            format!(
                "{name}: {counts}; {} of {} already as they should be",
                plan.unchanged, plan.services
            )
        };
        self.wrapped(&line, 0, 0);
    }

    /// What goes away when the whole stack is destroyed: its sandboxes, and with them services
    /// that no action names.
    fn doomed(&self) -> Option<String> {
        let mut actions = self.plan.actions.iter();
        let destroys = actions.any(|action| action.cause == Cause::Destroyed);
        let addresses = self.plan.by_address();
        let sandboxes = addresses.keys().filter(|it| it.service().is_none()).count();
        destroys.then(|| match sandboxes {
            1 => "1 sandbox and everything in it".to_owned(),
            many => format!("{many} sandboxes and everything in them"),
        })
    }

    /// Whether nothing that is wanted is there yet.
    fn all_new(&self) -> bool {
        let groups = self.plan.by_address();
        let services = groups.iter().filter(|(it, _)| it.service().is_some());
        let added = services.filter(|(_, group)| self.plan.deed(group) == Deed::Add);
        added.count() == self.plan.services
    }

    /// Words, broken at the width; further lines begin at column `indent`.
    fn wrapped(&mut self, text: &str, mut column: usize, indent: usize) {
        let mut first = true;
        for word in text.split(' ') {
            let length = word.chars().count();
            if !first && column + 1 + length > self.style.width {
                self.out.push('\n');
                self.out.push_str(&" ".repeat(indent));
                column = indent;
            } else if !first {
                self.out.push(' ');
                column += 1;
            }
            self.out.push_str(word);
            column += length;
            first = false;
        }
        self.out.push('\n');
    }

    fn block(&mut self, address: &Address, group: &[usize], column: usize) {
        let deed = self.plan.deed(group);
        let mark = mark(deed);
        let color = match deed {
            Deed::Add | Deed::Start => AnsiColor::Green,
            Deed::Change | Deed::Restart | Deed::Stop => AnsiColor::Yellow,
            Deed::Delete => AnsiColor::Red,
        };
        let color = Ansi::new().fg_color(Some(color.into()));
        self.out.push_str("  ");
        self.paint(color, mark);
        self.out.push(' ');
        let name = address.to_string();
        self.paint(Ansi::new().bold(), &name);
        let pad = column.saturating_sub(name.len()).max(2);
        self.out.push_str(&" ".repeat(pad));
        let words = self.words(group, deed);
        self.wrapped(&words, 4 + name.len() + pad, 4 + column);
        let changes: Vec<&Change> = group
            .iter()
            .flat_map(|at| &self.plan.actions[*at].changes)
            .collect();
        self.changes(&changes);
    }

    /// What is done with one address, why, and after what.
    fn words(&self, group: &[usize], deed: Deed) -> String {
        let actions: Vec<&Action> = group.iter().map(|at| &self.plan.actions[*at]).collect();
        let find = |kind| {
            actions
                .iter()
                .copied()
                .find(|action| action.step.kind() == kind)
        };
        let verbs = verbs(&actions, deed);
        let cause = [
            StepKind::Start,
            StepKind::Run,
            StepKind::Stop,
            StepKind::Delete,
        ]
        .into_iter()
        .filter_map(find)
        .chain(actions.iter().copied())
        .next()
        .map(|action| &action.cause);
        let upserted = find(StepKind::Upsert).or_else(|| find(StepKind::Update));
        let definition = upserted
            .map(|action| &action.cause)
            .filter(|cause| **cause != Cause::Added);
        let in_place = deed == Deed::Change && actions.len() == 1;
        if in_place && cause == Some(&Cause::DefinitionChanged) {
            return verbs;
        }
        let cause = cause.filter(|_| !(only_state(&actions) && verbs.starts_with("start")));
        let mut words = verbs;
        let definition = definition.filter(|_| !only_state(&actions));
        if let Some(cause) = definition.filter(|it| Some(*it) != cause && deed == Deed::Change) {
            words = format!("{words}, {}", reason(cause));
        }
        let shown = match cause {
            Some(Cause::Added) | None => None,
            Some(cause) => Some(reason(cause)),
        };
        if let Some(reason) = shown.filter(|reason| !reason.is_empty()) {
            words = format!("{words}, {reason}");
        }
        let waits = self.waits(&actions);
        if !waits.is_empty()
            && matches!(deed, Deed::Add | Deed::Start | Deed::Change | Deed::Restart)
        {
            words = format!(
                "{words}{} after {waits}",
                if deed == Deed::Change { ";" } else { "," }
            );
        }
        words
    }

    /// What the start of a service waits for in other services.
    fn waits(&self, actions: &[&Action]) -> String {
        let launch = |it: &&&Action| matches!(it.step.kind(), StepKind::Start | StepKind::Run);
        let Some(start) = actions.iter().find(launch) else {
            return String::new();
        };
        let mut parts = Vec::new();
        for after in &start.after {
            let Some(other) = self.plan.actions.get(after.action) else {
                continue;
            };
            let told = matches!(&start.cause, Cause::DependencyRestarted { dependency }
                if *dependency == other.address);
            if other.address == start.address || told {
                continue;
            }
            let how = match (&other.step, after.until) {
                (Step::StartService(_) | Step::RunTask(_), Until::Executed) => "has started",
                (Step::StartService(_), Until::Done) => "is ready",
                (Step::RunTask(_), Until::Done) => "has completed",
                (Step::StopService, _) => "is stopped",
                _ => continue,
            };
            parts.push((how, other.address.to_string()));
        }
        parts.sort();
        parts.dedup();
        if parts.len() > 4 {
            let more = parts.len() - 3;
            parts.truncate(3);
            parts.push(("", format!("{more} more")));
        }
        let mut groups: Vec<(&str, Vec<String>)> = Vec::new();
        for (how, name) in parts {
            match groups.last_mut().filter(|(last, _)| *last == how) {
                Some((_, names)) => names.push(name),
                None => groups.push((how, vec![name])),
            }
        }
        let group = |(how, names): (&str, Vec<String>)| {
            let how = match (how, names.len()) {
                ("is ready", 2..) => "are ready",
                ("is stopped", 2..) => "are stopped",
                ("has completed", 2..) => "have completed",
                ("has started", 2..) => "have started",
                (how, _) => how,
            };
            format!("{} {how}", list(&names)).trim_end().to_owned()
        };
        list(&groups.into_iter().map(group).collect::<Vec<_>>())
    }

    fn changes(&mut self, changes: &[&Change]) {
        let parts = |change: &Change| match change.field.split_once('.') {
            Some(("env", key)) => ("env".to_owned(), Some(value::printable(key).into_owned())),
            _ => (value::printable(&change.field).into_owned(), None),
        };
        let widest = changes
            .iter()
            .map(|it| parts(it).0.chars().count())
            .max()
            .unwrap_or(0);
        let indent = 6 + widest.min(20) + 2;
        let mut last = String::new();
        for change in changes {
            let (label, key) = parts(change);
            let shown = if label == last { "" } else { &label };
            self.out.push_str("      ");
            let dim = Ansi::new().dimmed();
            self.paint(dim, &format!("{shown:<width$}", width = indent - 8));
            self.out.push_str("  ");
            let mut column = indent.max(8 + shown.chars().count());
            if let Some(key) = key {
                self.out.push_str(&format!("{key}  "));
                column += key.chars().count() + 2;
            }
            last = label;
            self.change(change, column, indent);
        }
    }

    fn change(&mut self, change: &Change, column: usize, indent: usize) {
        if change.secret {
            self.out.push_str(if change.field == "definition" {
                "(changed)\n"
            } else {
                "(secret changed)\n"
            });
            return;
        }
        let room = |column: usize| self.style.width.saturating_sub(column).max(20);
        let mut lines = value::change(change, room(column));
        let mut indent = indent;
        if lines.len() > 1 && column > indent {
            // The key has its own line, and the value all the room below it.
            while self.out.ends_with(' ') {
                self.out.pop();
            }
            indent += 2;
            self.out.push('\n');
            self.out.push_str(&" ".repeat(indent));
            lines = value::change(change, room(indent));
        }
        for (number, line) in lines.iter().enumerate() {
            if number > 0 {
                self.out.push_str(&" ".repeat(indent));
            }
            self.line(line);
        }
    }

    fn line(&mut self, line: &Line) {
        for (tone, text) in line {
            let style = match tone {
                Tone::Plain => Ansi::new(),
                Tone::Dim => Ansi::new().dimmed(),
                Tone::Old => AnsiColor::Red.on_default(),
                Tone::New => AnsiColor::Green.on_default(),
            };
            self.paint(style, text);
        }
        let end = self.out.trim_end_matches(' ').len();
        self.out.truncate(end);
        self.out.push('\n');
    }

    fn problems(&mut self) {
        if self.plan.problems.is_empty() {
            return;
        }
        self.out.push('\n');
        let red = AnsiColor::Red.on_default().bold();
        let title = count(self.plan.problems.len(), "problem", "problems");
        self.paint(red, &title);
        self.out.push_str("; this is not planned:\n");
        for problem in &self.plan.problems {
            let name = problem.address.to_string();
            self.out.push_str("  ");
            self.paint(red, "!");
            self.out.push_str(&format!(" {name}  "));
            let message = value::printable(&problem.message).into_owned();
            self.wrapped(&message, 6 + name.len(), 6);
        }
    }

    fn summary(&mut self, forecast: Option<&Forecast>) {
        let summary = self.plan.summary();
        let mut parts = vec![
            format!("{} to add", summary.add),
            format!("{} to change", summary.change),
            format!("{} to delete", summary.delete),
        ];
        let others = [
            (summary.restart, "to restart"),
            (summary.start, "to start"),
            (summary.stop, "to stop"),
        ];
        let others = others.iter().filter(|(number, _)| *number > 0);
        parts.extend(others.map(|(number, what)| format!("{number} {what}")));
        let actions = count(summary.actions, "action", "actions");
        let mut line = format!("Plan: {} ({actions}).", parts.join(", "));
        if let Some(forecast) = forecast.filter(|it| it.total >= WORTH_TELLING) {
            line.push_str(&format!(" About {}", show_duration(forecast.total)));
            let path = self.path(&forecast.path);
            if path.len() > 1 {
                line.push_str(&format!("; longest path: {}", path.join(" → ")));
            }
            line.push('.');
        }
        self.out.push('\n');
        self.wrapped(&line, 0, 0);
    }

    /// The steps of a path that take time, shortened in the middle.
    fn path(&self, path: &[usize]) -> Vec<String> {
        let actions = path.iter().filter_map(|at| self.plan.actions.get(*at));
        let mut names: Vec<String> = actions
            .filter(|action| action.step.kind() != StepKind::Upsert)
            .map(|action| format!("{} {}", action.address, action.step.kind()))
            .collect();
        if names.len() > 6 {
            let tail = names.split_off(names.len() - 3);
            names.truncate(2);
            names.push("…".to_owned());
            names.extend(tail);
        }
        names
    }
}

/// The sign for what is done with an address.
pub(super) fn mark(deed: Deed) -> &'static str {
    match deed {
        Deed::Add => "+",
        Deed::Change | Deed::Restart => "~",
        Deed::Start => ">",
        Deed::Stop => "<",
        Deed::Delete => "-",
    }
}

fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// `a`, `a and b`, `a, b and c`.
fn list(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [head @ .., last] => format!("{} and {last}", head.join(", ")),
    }
}

/// Whether all that changes in the definition is that it is to run, or not to.
fn only_state(actions: &[&Action]) -> bool {
    let mut changes = actions.iter().flat_map(|action| &action.changes).peekable();
    changes.peek().is_some() && changes.all(|change| change.field == "state")
}

/// What is done, in words.
fn verbs(actions: &[&Action], deed: Deed) -> String {
    let has = |kind| actions.iter().any(|action| action.step.kind() == kind);
    let (stop, start, run) = (
        has(StepKind::Stop),
        has(StepKind::Start),
        has(StepKind::Run),
    );
    let waits = actions.iter().any(|it| {
        it.cause == Cause::NotReady && matches!(it.step.kind(), StepKind::Start | StepKind::Run)
    });
    let words = match deed {
        Deed::Add if has(StepKind::Create) && stop => "create, then stop",
        Deed::Add if has(StepKind::Create) => "create",
        Deed::Add if start => "add and start",
        Deed::Add if run => "add and run",
        Deed::Add => "add",
        Deed::Delete if stop && has(StepKind::Delete) => "stop and delete",
        Deed::Delete if has(StepKind::Delete) => "delete",
        Deed::Delete => "stop and delete with its sandbox",
        Deed::Change if stop && start => "restart",
        Deed::Change if stop && run => "stop and run again",
        Deed::Change if stop && only_state(actions) => "stop",
        Deed::Change if only_state(actions) && (start || run) => {
            "start, the manifest wants it running"
        }
        Deed::Change if stop => "stop and update",
        Deed::Change if waits => "update in place, and wait until it is ready",
        Deed::Change if start => "update and start",
        Deed::Change if run => "update and run",
        Deed::Change => "update in place, without restart",
        Deed::Restart if run => "run again",
        Deed::Restart => "restart",
        Deed::Start if waits && run => "wait until it has completed",
        Deed::Start if waits => "wait until it is ready",
        Deed::Start if run => "run",
        Deed::Start => "start",
        Deed::Stop => "stop",
    };
    words.to_owned()
}

/// Why, in words; empty where the deed says it already.
fn reason(cause: &Cause) -> String {
    match cause {
        Cause::Added => "new in the manifest".to_owned(),
        Cause::DefinitionChanged => "its definition changed".to_owned(),
        Cause::DefinitionUnknown => "its definition there cannot be read".to_owned(),
        Cause::RunsOldDefinition => "it runs an older definition".to_owned(),
        Cause::NotRunning { state } => format!("found {}", state.word()),
        Cause::NotReady => String::new(),
        Cause::NotCompleted => "not completed yet".to_owned(),
        Cause::SandboxDown => "its sandbox is down".to_owned(),
        Cause::WantedStopped => "the manifest wants it stopped".to_owned(),
        Cause::Removed => "no longer in the manifest".to_owned(),
        // The header says it once for all.
        Cause::Destroyed => String::new(),
        Cause::DependencyRestarted {
            dependency: Address::Sandbox(_),
        } => "its sandbox restarts".to_owned(),
        Cause::DependencyRestarted { dependency } => {
            format!("because of {dependency}, which it needs")
        }
        Cause::Requested => "as asked for".to_owned(),
        Cause::FileChanged { path } => format!("{} changed", value::printable(path)),
    }
}
