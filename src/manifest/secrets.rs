//! Values of secrets, and env files, whose values are secrets too.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::codes;
use super::diagnostic::{At, Draft, Sink, Source, Span};
use super::read::{FILE_LIMIT, SMALL_LIMIT, Unreadable, read_text};
use super::tree::Tree;
use super::types::{Manifest, SecretSource};
use crate::model::Secrets;

/// The secrets of one run: read when first used, each problem told once.
pub(super) struct SecretStore<'m> {
    declared: HashMap<&'m str, &'m SecretSource>,
    tried: HashSet<String>,
    env_files: HashMap<PathBuf, BTreeMap<String, String>>,
    labels: HashMap<String, PathBuf>,
    /// What was read.
    pub values: Secrets,
    /// Every file that was read or looked for.
    pub files: Vec<PathBuf>,
}

impl<'m> SecretStore<'m> {
    pub fn new(manifest: &'m Manifest) -> Self {
        let declared = manifest.secrets.value.iter().flat_map(|dict| &dict.0);
        let declared =
            declared.filter_map(|(key, source)| Some((key.name.as_str(), source.value.as_ref()?)));
        Self {
            declared: declared.collect(),
            tried: HashSet::new(),
            env_files: HashMap::new(),
            labels: HashMap::new(),
            values: Secrets::default(),
            files: Vec::new(),
        }
    }

    /// Makes the value of `name` available; why it cannot be had is told to `sink`. That the name
    /// is declared has been checked where it was interpolated.
    pub fn require(
        &mut self,
        name: &str,
        env: &BTreeMap<String, String>,
        (tree, sources): (&Tree<'_>, &[Source]),
        sink: Option<&mut Sink>,
    ) {
        if !self.tried.insert(name.to_owned()) {
            return;
        }
        let Some(source) = self.declared.get(name).copied() else {
            return;
        };
        let found = match (source.env.get(), source.file.get()) {
            (Some((variable, at)), None) => env.get(variable).cloned().ok_or_else(|| {
                let why = format!("the environment variable `{variable}` is not set");
                (at, why, format!("set `{variable}` where gabion runs"))
            }),
            (None, Some((file, at))) => {
                let path = folder(sources, tree.span(at)).join(file);
                self.files.push(path.clone());
                let text = read_text(&path, SMALL_LIMIT).map(without_newline);
                text.map_err(|Unreadable { reason, .. }| {
                    let why = format!("`{}` {reason}", path.display());
                    (
                        at,
                        why,
                        "the file is looked for beside the manifest".to_owned(),
                    )
                })
            }
            // Both or neither: has been said.
            _ => return,
        };
        match (found, sink) {
            (Ok(value), _) => self.values.insert(name, SecretString::from(value)),
            (Err((at, why, help)), Some(sink)) => {
                let message = format!("secret `{name}` has no value: {why}");
                let draft = Draft::error(codes::SECRET_MISSING, tree.span(at), message);
                sink.push(draft.label("no value").help(help));
            }
            (Err(_), None) => {}
        }
    }

    /// The variables of an env file, each with the name of the secret that holds its value.
    pub fn env_file(
        &mut self,
        written: &str,
        at: Span,
        sources: &[Source],
        sink: &mut Sink,
    ) -> Vec<(String, String)> {
        if written.contains(['}', '\n']) || written.is_empty() {
            let message = "the path of an env file cannot be empty or hold `}` or a line break";
            sink.push(Draft::error(codes::BAD_PATH, at, message));
            return Vec::new();
        }
        let path = folder(sources, at).join(written);
        if !self.env_files.contains_key(&path) {
            self.files.push(path.clone());
            let variables = match read_text(&path, SMALL_LIMIT) {
                Ok(text) => parse_env(&text, &path, sink),
                Err(unreadable) => {
                    let message = format!("env file `{}` {}", path.display(), unreadable.reason);
                    let draft = Draft::error(unreadable.code, at, message);
                    sink.push(draft.help("the file is looked for beside the manifest"));
                    BTreeMap::new()
                }
            };
            self.env_files.insert(path.clone(), variables);
        }
        let label = self.label(written, &path);
        let variables = self.env_files[&path].iter();
        let named = |(key, value): (&String, &String)| {
            let name = format!("{label}:{key}");
            self.values
                .insert(name.as_str(), SecretString::from(value.clone()));
            (key.clone(), name)
        };
        variables.map(named).collect()
    }

    /// The content of a file that is to be written in a sandbox; its path, if it cannot be had.
    pub fn file(
        &mut self,
        written: &str,
        at: Span,
        sources: &[Source],
    ) -> Result<SecretString, (PathBuf, Unreadable)> {
        let path = folder(sources, at).join(written);
        self.files.push(path.clone());
        match read_text(&path, FILE_LIMIT) {
            Ok(text) => Ok(SecretString::from(text)),
            Err(unreadable) => Err((path, unreadable)),
        }
    }

    /// The path as written; numbered if two manifests in different folders write the same one.
    fn label(&mut self, written: &str, path: &Path) -> String {
        let mut label = written.to_owned();
        let mut number = 1;
        while self.labels.get(&label).is_some_and(|of| of != path)
            || self.declared.contains_key(label.as_str())
        {
            number += 1;
            label = format!("{written}#{number}");
        }
        self.labels.insert(label.clone(), path.to_owned());
        label
    }
}

/// The folder of the file that holds `span`.
pub(super) fn folder(sources: &[Source], span: Span) -> &Path {
    let source = sources.get(usize::from(span.file));
    source.map_or(Path::new(""), Source::folder)
}

fn without_newline(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}

/// `KEY=VALUE` lines. Messages name lines and keys, never values.
fn parse_env(text: &str, path: &Path, sink: &mut Sink) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let body = line.trim();
        if body.is_empty() || body.starts_with('#') {
            continue;
        }
        let column = line.len() - line.trim_start().len() + 1;
        match variable(body) {
            Ok((key, value)) => {
                variables.insert(key.to_owned(), value);
            }
            Err(why) => {
                let at = At::Line(path.to_owned(), number + 1, column);
                let message = format!("this line of the env file {why}");
                let draft = Draft::error(codes::ENV_FILE, at, message);
                sink.push(draft.help("a line is `KEY=VALUE`, `# comment` or empty"));
            }
        }
    }
    variables
}

fn variable(line: &str) -> Result<(&str, String), &'static str> {
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (key, value) = line.split_once('=').ok_or("has no `=`")?;
    let key = key.trim();
    if !is_variable(key) {
        return Err("has no variable name before `=`");
    }
    let value = value.trim();
    let plain = |value: &str| {
        let end = value.find(" #").unwrap_or(value.len());
        value[..end].trim_end().to_owned()
    };
    let value = match value.as_bytes().first() {
        Some(b'\'') => {
            let (inner, rest) = value[1..].split_once('\'').ok_or("has an open quote")?;
            after_quote(rest)?;
            inner.to_owned()
        }
        Some(b'"') => {
            let (inner, rest) = double_quoted(&value[1..]).ok_or("has an open quote")?;
            after_quote(rest)?;
            inner
        }
        _ => plain(value),
    };
    Ok((key, value))
}

fn after_quote(rest: &str) -> Result<(), &'static str> {
    let rest = rest.trim_start();
    let fine = rest.is_empty() || rest.starts_with('#');
    if fine {
        Ok(())
    } else {
        Err("goes on after the closing quote")
    }
}

fn double_quoted(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'r' => out.push('\r'),
                c @ ('"' | '\\' | '$') => out.push(c),
                other => out.extend(['\\', other]),
            },
            c => out.push(c),
        }
    }
    None
}

/// Whether a shell would take it as the name of a variable.
pub(super) fn is_variable(name: &str) -> bool {
    let first = name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    first
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::variable;

    #[test]
    fn lines_of_env_files() {
        let good = |line, key, value: &str| {
            assert_eq!(variable(line), Ok((key, value.to_owned())), "{line}");
        };
        good("A=b", "A", "b");
        good("export A = b c # not this", "A", "b c");
        good("A=", "A", "");
        good("A='b # \"c' # d", "A", "b # \"c");
        good(r#"A="b\n\"c\" \d""#, "A", "b\n\"c\" \\d");
        good("A=a#b=c", "A", "a#b=c");
        for bad in ["A", "=b", "1A=b", "A='b", "A=\"b", "A='b'c", "A B=c"] {
            assert!(variable(bad).is_err(), "{bad}");
        }
    }
}
