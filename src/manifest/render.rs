//! A report for people, for programs, for code scanning (SARIF) and for GitHub's log.

use std::collections::BTreeSet;
use std::fmt::Write;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde_json::{Value, json};

use super::codes::{CODES, explain};
use super::diagnostic::{Diagnostic, Location, Report, Severity, Source, Span};

/// Longer lines are not shown.
const LONGEST_LINE: usize = 2_000;
/// More lines between two places are not shown in one piece.
const FAR: usize = 2_000;

impl Report {
    /// Every problem with its source line, and a line that sums up. Empty if there is no problem.
    pub fn render_text(&self, color: bool, width: usize) -> String {
        if self.diagnostics.is_empty() {
            return String::new();
        }
        let renderer = if color {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let renderer = renderer.term_width(width.max(40));
        let mut out = String::new();
        for found in &self.diagnostics {
            out.push_str(&renderer.render(&[self.group(found)]));
            out.push_str("\n\n");
        }
        out.push_str(&self.summary());
        out.push('\n');
        out
    }

    /// `2 errors and 1 warning in gabion.yaml`.
    pub fn summary(&self) -> String {
        let count = |severity: Severity| {
            let number = self.count(severity);
            let s = if number == 1 { "" } else { "s" };
            (number > 0).then(|| format!("{number} {}{s}", severity.word()))
        };
        let counts: Vec<_> = [Severity::Error, Severity::Warning]
            .into_iter()
            .filter_map(count)
            .collect();
        let files: BTreeSet<_> = self
            .diagnostics
            .iter()
            .filter_map(|found| Some(found.location.as_ref()?.file.display().to_string()))
            .collect();
        let mut out = counts.join(" and ");
        if out.is_empty() {
            return "no problems".to_owned();
        }
        if !files.is_empty() {
            let files: Vec<_> = files.into_iter().collect();
            let _ = write!(out, " in {}", files.join(", "));
        }
        if self.omitted > 0 {
            let _ = write!(out, ", and {} more that are not shown", self.omitted);
        }
        out
    }

    fn group<'a>(&'a self, found: &'a Diagnostic) -> Group<'a> {
        let level = match found.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = Group::with_title(level.primary_title(&found.message).id(found.code));
        if let Some(at) = &found.location {
            let mut marks = vec![(AnnotationKind::Primary, at, found.label.as_str())];
            let related = found.related.iter();
            marks.extend(related.map(|r| (AnnotationKind::Context, &r.location, r.text.as_str())));
            group = self.snippets(group, marks);
        }
        match &found.help {
            Some(help) => group.element(Level::HELP.message(help)),
            None => group,
        }
    }

    /// One snippet for each file and neighbourhood, the primary one first.
    fn snippets<'a>(
        &'a self,
        mut group: Group<'a>,
        mut marks: Vec<(AnnotationKind, &'a Location, &'a str)>,
    ) -> Group<'a> {
        while !marks.is_empty() {
            let (_, first, _) = marks[0];
            let Some(source) = self.source(first) else {
                let (_, at, label) = marks.remove(0);
                let origin = Origin::path(at.file.display().to_string());
                group = group.element(origin.line(at.line).char_column(at.column));
                if !label.is_empty() {
                    group = group.element(Level::NOTE.message(label));
                }
                continue;
            };
            let near = |at: &Location| {
                self.source(at).is_some_and(|of| std::ptr::eq(of, source))
                    && at.line.abs_diff(first.line) < FAR
            };
            let (here, rest): (Vec<_>, Vec<_>) = marks.into_iter().partition(|(_, at, _)| near(at));
            marks = rest;
            let from = here.iter().map(|(_, at, _)| at.line).min().unwrap_or(1);
            let to = here.iter().map(|(_, at, _)| at.line).max().unwrap_or(1);
            let (start, end) = (source.line_start(from), source.line_start(to + 1));
            let mut snippet =
                Snippet::source(source.text[start..end].trim_end_matches(['\n', '\r']))
                    .line_start(from)
                    .path(source.path.display().to_string());
            let shown = end - start - source.text[start..end].trim_end_matches(['\n', '\r']).len();
            let longest = end - start - shown;
            for (kind, at, label) in here {
                let Some(span) = at.span else { continue };
                let place = |at: u32| (at as usize).saturating_sub(start).min(longest);
                let annotation = kind.span(place(span.start)..place(span.end));
                snippet = snippet.annotation(match label {
                    "" => annotation,
                    label => annotation.label(label),
                });
            }
            group = group.element(snippet);
        }
        group
    }

    /// The text that a place can be shown in.
    fn source(&self, at: &Location) -> Option<&Source> {
        let Span { file, .. } = at.span?;
        let source = self.sources.get(usize::from(file))?;
        let line = source.line_start(at.line)..source.line_start(at.line + 1);
        (line.len() <= LONGEST_LINE).then_some(source)
    }

    /// Every problem as JSON: `{"version": 1, "errors": …, "warnings": …, "diagnostics": […]}`.
    pub fn render_json(&self) -> String {
        let found: Vec<_> = self.diagnostics.iter().map(diagnostic_json).collect();
        let all = json!({
            "version": 1,
            "errors": self.count(Severity::Error),
            "warnings": self.count(Severity::Warning),
            "omitted": self.omitted,
            "diagnostics": found,
        });
        pretty(&all)
    }

    /// SARIF 2.1.0, as code scanning services read it.
    pub fn render_sarif(&self) -> String {
        let rules: Vec<_> = CODES
            .iter()
            .map(|code| {
                json!({
                    "id": code.id,
                    "shortDescription": { "text": code.title },
                    "fullDescription": { "text": code.explanation },
                })
            })
            .collect();
        let results: Vec<_> = self.diagnostics.iter().map(sarif_result).collect();
        let driver = json!({
            "name": "gabion",
            "version": env!("CARGO_PKG_VERSION"),
            "rules": rules,
        });
        pretty(&json!({
            "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
            "version": "2.1.0",
            "runs": [{
                "tool": { "driver": driver },
                "columnKind": "unicodeCodePoints",
                "results": results,
            }],
        }))
    }

    /// Workflow commands: one `::error …` or `::warning …` line for each problem.
    pub fn render_github(&self) -> String {
        let mut out = String::new();
        for found in &self.diagnostics {
            let mut properties = Vec::new();
            if let Some(at) = &found.location {
                properties.push(format!(
                    "file={}",
                    escape_property(&at.file.display().to_string())
                ));
                properties.push(format!("line={},col={}", at.line, at.column));
                // GitHub counts the last column in.
                if at.end_column > at.column {
                    properties.push(format!(
                        "endLine={},endColumn={}",
                        at.end_line,
                        at.end_column - 1
                    ));
                }
            }
            let title = explain(found.code).map_or("", |code| code.title);
            properties.push(format!(
                "title={}",
                escape_property(&format!("{}: {title}", found.code))
            ));
            let mut text = found.message.clone();
            for part in [Some(&found.label), found.help.as_ref()]
                .into_iter()
                .flatten()
            {
                if !part.is_empty() {
                    text = format!("{text}\n{part}");
                }
            }
            let level = found.severity.word();
            let _ = writeln!(
                out,
                "::{level} {}::{}",
                properties.join(","),
                escape_data(&text)
            );
        }
        out
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn place_json(at: &Location) -> Value {
    json!({
        "file": at.file.display().to_string(),
        "line": at.line,
        "column": at.column,
        "end_line": at.end_line,
        "end_column": at.end_column,
    })
}

fn diagnostic_json(found: &Diagnostic) -> Value {
    let mut value = json!({
        "code": found.code,
        "severity": found.severity.word(),
        "message": found.message,
        "location": found.location.as_ref().map(place_json),
    });
    if !found.label.is_empty() {
        value["label"] = found.label.clone().into();
    }
    if let Some(help) = &found.help {
        value["help"] = help.clone().into();
    }
    if !found.related.is_empty() {
        let related = found.related.iter();
        value["related"] = related
            .map(|r| json!({ "location": place_json(&r.location), "message": r.text }))
            .collect();
    }
    if let Some(suggestion) = &found.suggestion {
        value["suggestion"] = json!({
            "location": place_json(&suggestion.location),
            "replacement": suggestion.replacement,
        });
    }
    value
}

fn sarif_location(at: &Location) -> Value {
    json!({
        "physicalLocation": {
            "artifactLocation": { "uri": uri(&at.file.to_string_lossy()) },
            "region": sarif_region(at),
        }
    })
}

fn sarif_region(at: &Location) -> Value {
    json!({
        "startLine": at.line,
        "startColumn": at.column,
        "endLine": at.end_line,
        "endColumn": at.end_column,
    })
}

fn sarif_result(found: &Diagnostic) -> Value {
    let mut text = found.message.clone();
    for part in [Some(&found.label), found.help.as_ref()]
        .into_iter()
        .flatten()
    {
        if !part.is_empty() {
            text = format!("{text}; {part}");
        }
    }
    let locations: Vec<_> = found.location.iter().map(sarif_location).collect();
    let mut result = json!({
        "ruleId": found.code,
        "ruleIndex": CODES.iter().position(|code| code.id == found.code),
        "level": found.severity.word(),
        "message": { "text": text },
        "locations": locations,
    });
    if !found.related.is_empty() {
        let related = found.related.iter().enumerate();
        result["relatedLocations"] = related
            .map(|(id, related)| {
                let mut location = sarif_location(&related.location);
                location["id"] = id.into();
                location["message"] = json!({ "text": related.text });
                location
            })
            .collect();
    }
    if let Some(suggestion) = &found.suggestion {
        let at = &suggestion.location;
        result["fixes"] = json!([{
            "description": { "text": format!("replace by `{}`", suggestion.replacement) },
            "artifactChanges": [{
                "artifactLocation": { "uri": uri(&at.file.to_string_lossy()) },
                "replacements": [{
                    "deletedRegion": sarif_region(at),
                    "insertedContent": { "text": suggestion.replacement },
                }],
            }],
        }]);
    }
    result
}

/// A path as a relative or `file:` URI.
fn uri(path: &str) -> String {
    let mut out = String::from(if path.starts_with('/') { "file://" } else { "" });
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn escape_data(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

fn escape_property(text: &str) -> String {
    escape_data(text).replace(':', "%3A").replace(',', "%2C")
}
