//! The plan as Markdown, for a comment on a pull request: a summary, and one section per address
//! that folds out to the fields that change.
//!
//! What comes from a manifest stands in code only: as text within `<code>`, every sign written as
//! an entity, or in a fenced block whose fence is longer than any in it. So it can neither be HTML
//! nor end its block nor mention anybody.

use serde_json::Value;

use super::super::{Change, Forecast, Plan};
use super::isolation::isolation;
use super::text::{Words, mark};
use super::value::{self, Tone, printable};

/// GitHub refuses comments of more than 65,536 characters.
const LONGEST: usize = 60_000;

/// The longest value that is shown in full, and the width of the diffs of longer ones.
const WIDTH: usize = 160;

/// The most lines shown of one address.
const MOST_LINES: usize = 200;

/// The plan as Markdown. Ends with a line end.
pub fn markdown(plan: &Plan, forecast: Option<&Forecast>) -> String {
    let words = Words::of(plan);
    let mut out = format!("### gabion plan: {}\n\n", code(&plan.stack));
    if !plan.is_empty() {
        out.push_str(&format!("**{}**\n\n", inert(&words.summary(forecast))));
    }
    out.push_str(&format!("{}\n", inert(&words.header())));
    if !plan.isolation.is_empty() && !plan.is_empty() {
        out.push_str(&format!("\n{}\n", inert(&isolation(plan))));
    }
    problems(plan, &mut out);
    let groups = plan.by_address();
    let total = groups.len();
    for (number, (address, group)) in groups.into_iter().enumerate() {
        let deed = plan.deed(&group);
        let title = format!("{} {address}", mark(deed));
        let title = format!("{} {}", code(&title), inert(&words.address(&group)));
        let changes = group.iter().filter_map(|at| plan.actions.get(*at));
        let mut lines: Vec<String> = changes
            .flat_map(|action| &action.changes)
            .flat_map(difference)
            .collect();
        if lines.len() > MOST_LINES {
            let more = lines.len() - MOST_LINES;
            lines.truncate(MOST_LINES);
            lines.push(format!("# and {more} more lines"));
        }
        let section = if lines.is_empty() {
            let ids = group.iter().filter_map(|at| plan.actions.get(*at));
            let ids: Vec<String> = ids.map(|action| action.id()).collect();
            details(&title, "text", &ids)
        } else {
            details(&title, "diff", &lines)
        };
        if out.len() + section.len() > LONGEST {
            out.push_str(&format!(
                "\nAnd {} more addresses; `gabion plan` shows them all.\n",
                total - number
            ));
            break;
        }
        out.push_str(&section);
    }
    out
}

fn problems(plan: &Plan, out: &mut String) {
    if plan.problems.is_empty() {
        return;
    }
    out.push_str("\n**Not planned:**\n\n");
    for problem in &plan.problems {
        let message = value::cut(&problem.message, 1_000);
        let line = format!(
            "* {} {}\n",
            code(&problem.address.to_string()),
            code(&message)
        );
        if out.len() + line.len() > LONGEST {
            out.push_str("* and more\n");
            break;
        }
        out.push_str(&line);
    }
}

/// A section that folds out to a block of code.
fn details(title: &str, language: &str, lines: &[String]) -> String {
    let fence = "`".repeat(longest_fence(lines).max(2) + 1);
    let body = lines.join("\n");
    format!(
        "\n<details>\n<summary>{title}</summary>\n\n{fence}{language}\n{body}\n{fence}\n\n</details>\n"
    )
}

/// The longest run of backticks.
fn longest_fence(lines: &[String]) -> usize {
    let runs = lines.iter().flat_map(|line| line.split(|c| c != '`'));
    runs.map(str::len).max().unwrap_or(0)
}

/// One field, as lines of a diff.
fn difference(change: &Change) -> Vec<String> {
    let field = printable(&change.field);
    if change.secret {
        return vec![format!("! {field}: (secret changed)")];
    }
    let (old, new) = (value::short(&change.old), value::short(&change.new));
    let short = |text: &str| text.chars().count() <= WIDTH;
    if short(&old) && short(&new) && !is_text(&change.old) && !is_text(&change.new) {
        let mut lines = Vec::new();
        if change.old != Value::Null {
            lines.push(format!("- {field}: {old}"));
        }
        if change.new != Value::Null {
            let note = if change.known_after_apply {
                value::KNOWN_AFTER_APPLY
            } else {
                ""
            };
            lines.push(format!("+ {field}: {new}{note}"));
        }
        return lines;
    }
    let mut lines = vec![format!("@@ {field} @@")];
    for line in value::change(change, WIDTH) {
        let text: String = line.iter().map(|(_, text)| text.as_str()).collect();
        let has = |tone| line.iter().any(|(it, _)| *it == tone);
        let text = text.trim_start_matches(['+', '-', '→']).trim_start();
        lines.push(match (has(Tone::Old), has(Tone::New)) {
            (true, false) => format!("- {text}"),
            (false, true) => format!("+ {text}"),
            _ => format!("  {text}"),
        });
    }
    lines
}

fn is_text(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.contains('\n'))
}

/// Text as code, in which GitHub makes no links, references or mentions.
fn code(text: &str) -> String {
    format!("<code>{}</code>", inert(text))
}

/// Text in which no character means anything to Markdown or HTML.
fn inert(text: &str) -> String {
    let mut out = String::new();
    for c in printable(text).chars() {
        match c {
            c if c.is_alphanumeric() || " -/.,:;()→…".contains(c) => out.push(c),
            c => out.push_str(&format!("&#{};", u32::from(c))),
        }
    }
    out
}
