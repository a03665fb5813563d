//! Values of fields for people: short, on one line where they fit, as a diff where they do not.

use std::borrow::Cow;

use super::super::Change;
use serde_json::Value;
use similar::{ChangeTag, TextDiff, capture_diff_slices};

/// What a piece of a rendered line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Dim,
    Old,
    New,
}

/// A line in pieces.
pub(super) type Line = Vec<(Tone, String)>;

/// Text that a terminal shows as it is: control characters, and those that change the direction of
/// what follows, are written out.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let escaped = text.chars().map(|c| {
        if is_unsafe(c) {
            c.escape_default().to_string()
        } else {
            c.to_string()
        }
    });
    Cow::Owned(escaped.collect())
}

fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// A value on one line, as YAML flow writes it.
pub(super) fn short(value: &Value) -> String {
    match value {
        Value::Null => "(none)".to_owned(),
        Value::String(text) => string(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(short).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(object) => {
            let item =
                |(key, value): (&String, &Value)| format!("{}: {}", string(key), short(value));
            let items: Vec<String> = object.iter().map(item).collect();
            format!("{{{}}}", items.join(", "))
        }
        other => other.to_string(),
    }
}

/// A string, in quotes only where it would be read as something else without.
fn string(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:=+@%${} ".contains(c);
    let word = !matches!(text, "true" | "false" | "null" | "yes" | "no" | "~" | "");
    let odd_end = text.starts_with([' ', '{', '%', '@']) || text.ends_with([' ', ':']);
    if word && !odd_end && text.parse::<f64>().is_err() && text.chars().all(plain) {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if is_unsafe(c) => quoted.extend(c.escape_default()),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

/// `text`, cut in the middle with an ellipsis if it is longer than `width`.
pub(super) fn cut(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(1);
    let (head, tail) = (room - room / 3, room / 3);
    let end: String = text.chars().skip(length - tail).collect();
    format!("{}…{end}", text.chars().take(head).collect::<String>())
}

/// What is said of a value that names a URL that there is not yet.
pub(super) const KNOWN_AFTER_APPLY: &str = " (known after apply)";

/// The lines that show one change, each at most about `width` columns.
pub(super) fn change(change: &Change, width: usize) -> Vec<Line> {
    if !change.known_after_apply {
        return difference(&change.old, &change.new, width);
    }
    let width = width.saturating_sub(KNOWN_AFTER_APPLY.len()).max(20);
    let mut lines = match change.old {
        Value::Null => vec![vec![(Tone::New, cut(&short(&change.new), width))]],
        _ => difference(&change.old, &change.new, width),
    };
    if let Some(last) = lines.last_mut() {
        last.push((Tone::Dim, KNOWN_AFTER_APPLY.to_owned()));
    }
    lines
}

/// The lines that show one difference, each at most about `width` columns.
pub(super) fn difference(old: &Value, new: &Value, width: usize) -> Vec<Line> {
    match (old, new) {
        (Value::String(a), Value::String(b)) if a.contains('\n') || b.contains('\n') => {
            return lines(a, b, width);
        }
        (Value::Array(a), Value::Array(b))
            if short(old).chars().count() + 3 > width || short(new).chars().count() + 3 > width =>
        {
            return elements(a, b, width);
        }
        _ => {}
    }
    let (a, b) = (short(old), short(new));
    let lists = old.is_array() && new.is_array();
    if !lists && a.chars().count() + b.chars().count() + 3 <= width {
        return vec![vec![
            (Tone::Old, a),
            (Tone::Dim, " → ".into()),
            (Tone::New, b),
        ]];
    }
    let pair = match (old, new) {
        (Value::String(_), Value::String(_)) => words(&a, &b, width.saturating_sub(3)),
        _ => {
            let width = width.saturating_sub(3);
            (
                vec![(Tone::Old, cut(&a, width))],
                vec![(Tone::New, cut(&b, width))],
            )
        }
    };
    let mut first = vec![(Tone::Plain, "   ".to_owned())];
    first.extend(pair.0);
    let mut second = vec![(Tone::Dim, "→  ".to_owned())];
    second.extend(pair.1);
    vec![first, second]
}

/// Two long strings with the words that differ marked; what they share is cut first.
fn words(old: &str, new: &str, width: usize) -> (Line, Line) {
    if old.len().max(new.len()) > 4_000 {
        return (
            vec![(Tone::Old, cut(old, width))],
            vec![(Tone::New, cut(new, width))],
        );
    }
    let diff = TextDiff::from_words(old, new);
    let side = |gone: ChangeTag, tone: Tone| {
        let changes = diff.iter_all_changes();
        let mut line: Line = Vec::new();
        for change in
            changes.filter(|change| change.tag() == ChangeTag::Equal || change.tag() == gone)
        {
            let tone = if change.tag() == ChangeTag::Equal {
                Tone::Plain
            } else {
                tone
            };
            match line.last_mut() {
                Some((last, text)) if *last == tone => text.push_str(change.value()),
                _ => line.push((tone, change.value().to_owned())),
            }
        }
        fit(line, width)
    };
    (
        side(ChangeTag::Delete, Tone::Old),
        side(ChangeTag::Insert, Tone::New),
    )
}

/// Cuts the shared pieces of a line, and then all, until it fits.
fn fit(mut line: Line, width: usize) -> Line {
    let length = |line: &Line| {
        line.iter()
            .map(|(_, text)| text.chars().count())
            .sum::<usize>()
    };
    for least in [24, 8] {
        if length(&line) > width {
            for (_, text) in line.iter_mut().filter(|(tone, _)| *tone == Tone::Plain) {
                *text = cut(text, least);
            }
        }
    }
    let over = length(&line) > width;
    let marked = line
        .iter()
        .filter(|(tone, _)| *tone != Tone::Plain)
        .count()
        .max(1);
    if over {
        for (_, text) in line.iter_mut().filter(|(tone, _)| *tone != Tone::Plain) {
            *text = cut(text, (width / 2 / marked).max(8));
        }
    }
    if length(&line) > width {
        let whole: String = line.iter().map(|(_, text)| text.as_str()).collect();
        let tone = line
            .iter()
            .map(|(tone, _)| *tone)
            .find(|tone| *tone != Tone::Plain);
        return vec![(tone.unwrap_or(Tone::Plain), cut(&whole, width))];
    }
    line
}

/// A long list, element by element.
fn elements(old: &[Value], new: &[Value], width: usize) -> Vec<Line> {
    let old: Vec<String> = old.iter().map(short).collect();
    let new: Vec<String> = new.iter().map(short).collect();
    hunks(&old, &new, width)
}

/// A text of several lines, line by line.
fn lines(old: &str, new: &str, width: usize) -> Vec<Line> {
    let split = |text: &str| {
        text.lines()
            .map(|line| printable(line).into_owned())
            .collect()
    };
    let (old, new): (Vec<String>, Vec<String>) = (split(old), split(new));
    if old == new {
        let (old, new) = (
            "no line end after the last line",
            "a line end after the last line",
        );
        return vec![vec![(Tone::Plain, format!("{old}, or {new}"))]];
    }
    hunks(&old, &new, width)
}

/// What differs, with one line around it.
fn hunks(old: &[String], new: &[String], width: usize) -> Vec<Line> {
    let ops = capture_diff_slices(similar::Algorithm::Myers, old, new);
    let mut shown = Vec::new();
    let width = width.saturating_sub(2);
    let line = |tone, mark: &str, text: &str| vec![(tone, format!("{mark} {}", cut(text, width)))];
    for (number, group) in similar::group_diff_ops(ops, 1).into_iter().enumerate() {
        if number > 0 {
            shown.push(vec![(Tone::Dim, "…".to_owned())]);
        }
        for op in group {
            for change in op.iter_changes(old, new) {
                let text = change.value();
                shown.push(match change.tag() {
                    ChangeTag::Equal => line(Tone::Dim, " ", &text),
                    ChangeTag::Delete => line(Tone::Old, "-", &text),
                    ChangeTag::Insert => line(Tone::New, "+", &text),
                });
            }
        }
    }
    shown
}
