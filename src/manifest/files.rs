//! `files` of a sandbox: paths, and contents, which are secrets whatever is in them.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};

use super::codes;
use super::diagnostic::Draft;
use super::field::{Either, Field};
use super::index::Home;
use super::lower::Lower;
use super::read::{FILE_LIMIT, show_size};
use super::tree::NodeId;
use super::types::{FileRule, Sandbox, Text};
use crate::model::{ServiceAddress, digest, is_plain_path};

/// The files of a sandbox, as its spec has them.
#[derive(Default)]
pub(super) struct Files {
    /// The secret that the content of each is, by its path.
    pub secrets: BTreeMap<String, String>,
    /// The digests of these secrets, by name.
    pub digests: BTreeMap<String, String>,
}

impl Lower<'_, '_> {
    /// `files`: each content becomes a secret of its own. `salt` is the place of the sandbox's digests.
    pub(super) fn files(
        &mut self,
        home: &Home<'_>,
        sandbox: &Sandbox,
        salt: Option<&ServiceAddress>,
    ) -> Files {
        let mut files = Files::default();
        for (key, field) in sandbox.files.value.iter().flat_map(|dict| &dict.0) {
            let path = &key.name;
            if !is_plain_path(path) {
                let message = format!("no file can be written at `{path}`");
                let label = "expected an absolute path in the sandbox, such as `/etc/app.conf`";
                self.error(codes::BAD_PATH, key.at, message, label);
            }
            let content = match field.get() {
                Some((Either::Short(text), at)) => self.text_of_file(path, text, at),
                Some((Either::Long(rule), at)) => self.file_from(path, rule, at),
                None => {
                    if !field.bad {
                        let message = format!("file `{path}` of `{}` has no content", home.name());
                        let label = "a text or `from` is missing; `\"\"` is an empty file";
                        self.error(codes::MISSING, key.at, message, label);
                    }
                    None
                }
            };
            // No other secret has such a name: those of env files end with the name of a variable.
            let name = format!("{path} of {}", home.name());
            if let (Some(content), Some(salt)) = (content, salt) {
                let digest = digest(self.stack, salt, &name, &content);
                files.digests.insert(name.clone(), digest);
                self.secrets.values.insert(name.as_str(), content);
            }
            files.secrets.insert(path.clone(), name);
        }
        files
    }

    /// What is written in the manifest, with secrets put in.
    fn text_of_file(&mut self, path: &str, text: &Text, at: NodeId) -> Option<SecretString> {
        let used = self.uses.secrets.get(&self.tree.resolve(at));
        let used = used.map_or(&[][..], Vec::as_slice);
        for name in used {
            self.require(name, true);
        }
        let is_used = |name: &str| used.iter().any(|it| it == name);
        // One that is missing has been told.
        let content = self.secrets.values.expand(&text.0, is_used).ok()?;
        if content.expose_secret().len() as u64 > FILE_LIMIT {
            let message = format!("file `{path}` is larger than {}", show_size(FILE_LIMIT));
            let draft = Draft::error(codes::TOO_MUCH, self.span(at), message);
            self.sink.push(draft.help(INSTEAD));
        }
        Some(content)
    }

    /// What is in a file beside the manifest, as it is.
    fn file_from(&mut self, path: &str, rule: &FileRule, at: NodeId) -> Option<SecretString> {
        let Field { bad, .. } = rule.from;
        let Some((written, from)) = rule.from.get() else {
            if !bad {
                let message = format!("file `{path}` has no `from`");
                self.error(codes::MISSING, at, message, "`from` is missing");
            }
            return None;
        };
        let span = self.span(from);
        match self.secrets.file(written, span, self.sources) {
            Ok(content) => Some(content),
            Err((from, problem)) => {
                let message = format!("file `{}` {}", from.display(), problem.reason);
                let help = match problem.code == codes::TOO_MUCH || problem.code == codes::NOT_TEXT
                {
                    true => INSTEAD,
                    false => "the file is looked for beside the manifest",
                };
                self.sink
                    .push(Draft::error(problem.code, span, message).help(help));
                None
            }
        }
    }
}

/// What to do with files that cannot be in a manifest.
const INSTEAD: &str = "`gabion cp` copies files of any size and content into a sandbox that runs";
