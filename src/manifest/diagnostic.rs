//! Problems with their places, and the collector that every stage reports to.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::codes::Code;

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The manifest cannot be used.
    Error,
    /// The manifest can be used, but probably means something else.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// A stretch of a file. Lines and columns count from 1; columns count characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The file as it was named.
    pub file: PathBuf,
    /// First line.
    pub line: usize,
    /// Column of the first character.
    pub column: usize,
    /// Last line.
    pub end_line: usize,
    /// Column after the last character.
    pub end_column: usize,
    /// The stretch in its source text; `None` if the text must not or cannot be shown.
    pub(super) span: Option<Span>,
}

/// Another place that explains a problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Related {
    /// Where.
    pub location: Location,
    /// What is there.
    pub text: String,
}

/// A change of text that would probably solve a problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suggestion {
    /// What to replace.
    pub location: Location,
    /// By what.
    pub replacement: String,
}

/// One problem of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// `M001` …; see [`super::CODES`].
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong: lower case, one line, without a final stop.
    pub message: String,
    /// Where; `None` for what comes from the command line.
    pub location: Option<Location>,
    /// Text at the underlined spot, usually what was expected; may be empty.
    pub label: String,
    /// Other places that explain it.
    pub related: Vec<Related>,
    /// What to do about it.
    pub help: Option<String>,
    /// A change that would probably solve it.
    pub suggestion: Option<Suggestion>,
}

/// Everything that was found, in order of file, line and column.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The problems.
    pub diagnostics: Vec<Diagnostic>,
    /// How many more there were than are listed.
    pub omitted: usize,
    pub(super) sources: Arc<Vec<Source>>,
}

impl Report {
    /// Whether the manifest cannot be used.
    pub fn has_errors(&self) -> bool {
        self.error_count() > 0
    }

    /// How many errors there are.
    pub fn error_count(&self) -> usize {
        self.count(Severity::Error)
    }

    pub(super) fn count(&self, severity: Severity) -> usize {
        let here = self.diagnostics.iter();
        here.filter(|found| found.severity == severity).count()
    }
}

/// A file that was read, with the start of each of its lines.
#[derive(Debug)]
pub(super) struct Source {
    pub path: PathBuf,
    pub text: String,
    lines: Vec<u32>,
}

impl Source {
    pub fn new(path: PathBuf, text: String) -> Self {
        let starts = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let lines = std::iter::once(0).chain(starts.map(|(at, _)| at as u32 + 1));
        let lines = lines.collect();
        Self { path, text, lines }
    }

    /// The number of the line that holds `offset`, from 1.
    pub fn line_of(&self, offset: usize) -> usize {
        self.lines
            .partition_point(|start| *start as usize <= offset)
            .max(1)
    }

    /// Where line `number` starts; the end of the text if there is no such line.
    pub fn line_start(&self, number: usize) -> usize {
        let start = self.lines.get(number.saturating_sub(1));
        start.map_or(self.text.len(), |start| *start as usize)
    }

    /// The folder that relative paths in this file start from.
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }
}

/// A stretch of bytes in a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub file: u16,
    pub start: u32,
    pub end: u32,
}

/// Where a problem is, before it is made into a [`Location`].
#[derive(Debug, Clone)]
pub(super) enum At {
    Nowhere,
    Span(Span),
    /// A place in a file whose text is not shown.
    Line(PathBuf, usize, usize),
}

impl From<Span> for At {
    fn from(span: Span) -> Self {
        Self::Span(span)
    }
}

/// A problem on its way to the collector.
#[derive(Debug)]
pub(super) struct Draft {
    code: &'static Code,
    severity: Severity,
    message: String,
    at: At,
    label: String,
    related: Vec<(Span, String)>,
    help: Option<String>,
    patch: Option<(Span, String)>,
}

impl Draft {
    pub fn error(code: &'static Code, at: impl Into<At>, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: Severity::Error,
            message: message.into(),
            at: at.into(),
            label: String::new(),
            related: Vec::new(),
            help: None,
            patch: None,
        }
    }

    pub fn warning(code: &'static Code, at: impl Into<At>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(code, at, message)
        }
    }

    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub fn related(mut self, span: Span, text: impl Into<String>) -> Self {
        self.related.push((span, text.into()));
        self
    }

    /// Offers `replacement` for the text at `span`, and says so.
    pub fn suggest(mut self, span: Span, replacement: Option<&str>) -> Self {
        if let Some(replacement) = replacement {
            self.help = Some(format!("did you mean `{replacement}`?"));
            self.patch = Some((span, replacement.to_owned()));
        }
        self
    }
}

/// More problems than this are counted, not listed.
const LISTED: usize = 1000;
/// Looking for near names costs time; after so many nobody reads them.
const SUGGESTIONS: usize = 100;

/// Collects the problems of one run.
#[derive(Debug)]
pub(super) struct Sink {
    sources: Arc<Vec<Source>>,
    found: Vec<Diagnostic>,
    omitted: usize,
    suggestions: usize,
    errors: bool,
}

impl Sink {
    pub fn new(sources: Arc<Vec<Source>>) -> Self {
        Self {
            sources,
            found: Vec::new(),
            omitted: 0,
            suggestions: 0,
            errors: false,
        }
    }

    pub fn has_errors(&self) -> bool {
        self.errors
    }

    /// The name nearest to `word`, if one is near.
    pub fn nearest<'n>(
        &mut self,
        word: &str,
        names: impl IntoIterator<Item = &'n str>,
    ) -> Option<&'n str> {
        self.suggestions += 1;
        let allowed = self.suggestions <= SUGGESTIONS;
        allowed.then(|| super::suggest::nearest(word, names))?
    }

    /// The part of `span` that reads `part` in the source; `span` itself if none does.
    pub fn within(&self, span: Span, part: &str) -> Span {
        const SEARCHED: usize = 100_000;
        let source = self.sources.get(usize::from(span.file));
        let text = source.and_then(|of| of.text.get(span.start as usize..span.end as usize));
        let found = text
            .filter(|text| text.len() <= SEARCHED)
            .and_then(|text| text.find(part));
        match found {
            Some(at) => Span {
                start: span.start + at as u32,
                end: span.start + (at + part.len()) as u32,
                ..span
            },
            None => span,
        }
    }

    /// Whether looking for near names is still of use.
    pub fn suggests(&self) -> bool {
        self.suggestions < SUGGESTIONS
    }

    pub fn push(&mut self, draft: Draft) {
        self.errors |= draft.severity == Severity::Error;
        if self.found.len() >= LISTED {
            self.omitted += 1;
            return;
        }
        let related = draft.related.into_iter();
        let diagnostic = Diagnostic {
            code: draft.code.id,
            severity: draft.severity,
            message: one_line(&draft.message),
            location: match draft.at {
                At::Nowhere => None,
                At::Span(span) => Some(self.locate(span)),
                At::Line(file, line, column) => Some(Location {
                    file,
                    line,
                    column,
                    end_line: line,
                    end_column: column,
                    span: None,
                }),
            },
            label: one_line(&draft.label),
            related: related
                .map(|(span, text)| Related {
                    location: self.locate(span),
                    text: one_line(&text),
                })
                .collect(),
            help: draft.help.as_deref().map(one_line),
            suggestion: draft.patch.map(|(span, replacement)| Suggestion {
                location: self.locate(span),
                replacement,
            }),
        };
        self.found.push(diagnostic);
    }

    /// The place of `span`, cut at the end of its first line.
    fn locate(&self, span: Span) -> Location {
        let Some(source) = self.sources.get(usize::from(span.file)) else {
            return Location {
                file: PathBuf::new(),
                line: 1,
                column: 1,
                end_line: 1,
                end_column: 1,
                span: None,
            };
        };
        let text = source.text.as_str();
        let start = floor(text, span.start as usize);
        let line = source.line_of(start);
        let line_start = source.line_start(line);
        let end = floor(text, (span.end as usize).max(start));
        let end = text[start..end]
            .find(['\n', '\r'])
            .map_or(end, |length| start + length);
        let column = columns(&text[line_start..start]) + 1;
        Location {
            file: source.path.clone(),
            line,
            column,
            end_line: line,
            end_column: column + columns(&text[start..end]),
            span: Some(Span {
                file: span.file,
                start: start as u32,
                end: end as u32,
            }),
        }
    }

    pub fn finish(mut self) -> Report {
        let order = |found: &Diagnostic| {
            let source = |path: &Path| self.sources.iter().position(|from| from.path == path);
            match &found.location {
                None => (0, 0, 0, 0, found.code),
                Some(at) => {
                    let file = source(&at.file).unwrap_or(usize::MAX);
                    (1, file, at.line, at.column, found.code)
                }
            }
        };
        self.found.sort_by_cached_key(order);
        self.found.dedup();
        Report {
            diagnostics: self.found,
            omitted: self.omitted,
            sources: self.sources,
        }
    }
}

/// Characters; bytes where a line is so long that nobody counts.
fn columns(text: &str) -> usize {
    const COUNTED: usize = 100_000;
    if text.len() > COUNTED {
        text.len()
    } else {
        text.chars().count()
    }
}

/// The nearest character boundary at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at)
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0)
}

/// Text without line breaks and other control characters, cut to a bearable length.
fn one_line(text: &str) -> String {
    const LONGEST: usize = 400;
    let clean = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(LONGEST);
    let mut clean: String = clean.collect();
    if text.chars().nth(LONGEST).is_some() {
        clean.push('…');
    }
    clean
}
