//! The fields of a sandbox that take more than copying: repositories, paths, hooks.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::codes::{self, Code};
use super::diagnostic::{Draft, Sink, Source};
use super::field::{Either, Field, List};
use super::secrets::folder;
use super::tree::{NodeId, Tree};
use super::types::{CheckpointRule, RepoRule, Sandbox, Size, Text};
use crate::model::{CheckpointSettings, IsolationWish, Repo, Volumes, is_plain_path};

/// The least memory that anything can run in; less is a forgotten unit.
const LEAST_MEMORY: u64 = 1 << 20;

/// What the fields of one sandbox are made from.
pub(super) struct Parts<'a, 's> {
    pub name: &'a str,
    pub sandbox: &'a Sandbox,
    pub tree: &'a Tree<'s>,
    pub sources: &'a [Source],
    pub sink: &'a mut Sink,
}

impl Parts<'_, '_> {
    fn push(&mut self, code: &'static Code, at: NodeId, message: impl Into<String>, label: &str) {
        let draft = Draft::error(code, self.tree.span(at), message);
        self.sink.push(draft.label(label));
    }

    /// A path as written, from the manifest's folder.
    fn resolved(&self, written: &str, at: NodeId) -> PathBuf {
        folder(self.sources, self.tree.span(at)).join(written)
    }

    pub fn repo(&mut self) -> Option<Repo> {
        let (repo, at) = self.sandbox.repo.get()?;
        let no_rule = RepoRule::default();
        let (url, rule) = match repo {
            Either::Short(url) => (Some((url, at)), &no_rule),
            Either::Long(rule) => (rule.url.get(), rule),
        };
        let Some((url, at)) = url else {
            if !rule.url.bad {
                let message = format!("the `repo` of `{}` has no `url`", self.name);
                self.push(codes::MISSING, at, message, "`url` is missing");
            }
            return None;
        };
        let url = self.repo_url(url, at)?;
        let reference = rule.r#ref.get();
        if let Some((reference, at)) = reference
            && (reference.is_empty()
                || reference.starts_with('-')
                || reference.contains(|c: char| c.is_whitespace() || c.is_control()))
        {
            let message = format!("`{reference}` cannot be a branch, tag or commit");
            self.push(codes::BAD_VALUE, at, message, "not a name that git takes");
        }
        if let Some((depth, at)) = rule.depth.get()
            && depth.0 == 0
        {
            self.push(
                codes::BAD_VALUE,
                at,
                "a history of no commits cannot be cloned",
                "expected at least 1",
            );
        }
        Some(Repo {
            url,
            reference: reference.map(|(reference, _)| reference.clone()),
            depth: rule.depth.value.as_ref().map(|depth| depth.0),
        })
    }

    /// Only what git can clone without running a program of somebody's choice.
    fn repo_url(&mut self, written: &str, at: NodeId) -> Option<String> {
        const EXPECTED: &str = "expected an `https`, `http`, `ssh`, `git` or `file` URL, \
                                `user@host:path`, or a path";
        let path_like = written
            .split_once(':')
            .is_none_or(|(host, _)| host.contains('/'));
        let good = match written.split_once("://") {
            Some((scheme, _)) => matches!(scheme, "https" | "http" | "ssh" | "git" | "file"),
            None => !written.contains("::"),
        };
        let odd = written.is_empty()
            || written.starts_with(['-', '~'])
            || written.contains(char::is_control);
        if odd || !good {
            let message = format!("the `repo` of `{}` cannot be cloned", self.name);
            self.push(codes::BAD_VALUE, at, message, EXPECTED);
            return None;
        }
        if path_like {
            let path = self.resolved(written, at);
            let path = std::path::absolute(&path).unwrap_or(path);
            return Some(path.to_string_lossy().into_owned());
        }
        let url = written.to_owned();
        let repo = Repo {
            url,
            reference: None,
            depth: None,
        };
        if repo.shown_url() != repo.url {
            let message = format!("the `repo` of `{}` has a user or password in it", self.name);
            let span = self.tree.span(at);
            let draft = Draft::warning(codes::SECRET_PLACE, span, message);
            let draft = draft.label("is kept in the sandbox's description, which is not secret");
            self.sink
                .push(draft.help("let git find it: a credential helper, or an `ssh` URL"));
        }
        Some(repo.url)
    }

    pub fn memory(&mut self) -> Option<u64> {
        let (memory, at) = self.sandbox.memory.get()?;
        enough_memory(self.tree, self.sink, memory, at);
        Some(memory.0)
    }

    pub fn vcpus(&mut self) -> Option<u32> {
        let (count, at) = self.sandbox.vcpus.get()?;
        if count.0 == 0 {
            let message = format!("`{}` cannot run without a processor", self.name);
            self.push(codes::BAD_VALUE, at, message, "expected at least 1");
        }
        Some(count.0)
    }

    /// `volumes`: a path for each name, and each path once.
    pub fn volumes(&mut self) -> Volumes {
        let mut volumes = Volumes::new();
        let mut taken: HashMap<String, NodeId> = HashMap::new();
        for (key, field) in self.sandbox.volumes.value.iter().flat_map(|dict| &dict.0) {
            let name = &key.name;
            let Some((written, at)) = field.get() else {
                if !field.bad {
                    let message = format!("volume `{name}` of `{}` has no path", self.name);
                    self.push(
                        codes::MISSING,
                        key.at,
                        message,
                        "where it is mounted is missing",
                    );
                }
                continue;
            };
            let path = written.trim_end_matches('/');
            if !is_plain_path(path) {
                let message = format!("no volume can be mounted at `{written}`");
                let label = "expected an absolute path in the sandbox, such as `/var/lib/data`";
                self.push(codes::BAD_PATH, at, message, label);
            }
            match taken.get(path) {
                Some(first) => {
                    let message = format!("two volumes of `{}` are mounted at `{path}`", self.name);
                    let draft = Draft::error(codes::BAD_VALUE, self.tree.span(at), message);
                    let draft = draft.label("second");
                    self.sink
                        .push(draft.related(self.tree.span(*first), "first"));
                }
                None => {
                    taken.insert(path.to_owned(), at);
                    volumes.insert(name.clone(), path.to_owned());
                }
            }
        }
        volumes
    }

    /// `hide`, or the default for it. A path need not be there to be hidden.
    pub fn hide(
        &mut self,
        default: &Field<List<String>>,
        isolation: IsolationWish,
    ) -> Vec<PathBuf> {
        let own = &self.sandbox.hide;
        self.needs_isolation(own, "hide", isolation);
        let field = if own.given() { own } else { default };
        let mut hidden = Vec::new();
        for (path, at) in self.paths(field) {
            if path == Path::new("/") {
                self.push(
                    codes::BAD_PATH,
                    at,
                    "nothing can run without any file",
                    "expected a folder or file below `/`",
                );
            }
            hidden.push(super::lower::absolute(&path));
        }
        hidden
    }

    /// `writable`: what is there, and nothing else.
    pub fn writable(&mut self, isolation: IsolationWish) -> Vec<PathBuf> {
        let field = &self.sandbox.writable;
        self.needs_isolation(field, "writable", isolation);
        let mut writable = Vec::new();
        for (path, at) in self.paths(field) {
            match std::fs::canonicalize(&path) {
                Ok(path) => writable.push(path),
                Err(error) => {
                    let problem = match error.kind() {
                        std::io::ErrorKind::NotFound => "does not exist",
                        _ => "cannot be read",
                    };
                    let message = format!("the writable path `{}` {problem}", path.display());
                    let label = "expected a folder or file, relative to the manifest";
                    self.push(codes::BAD_PATH, at, message, label);
                }
            }
        }
        writable
    }

    /// The paths of a list, from the manifest's folder.
    fn paths(&mut self, field: &Field<List<String>>) -> Vec<(PathBuf, NodeId)> {
        let mut paths = Vec::new();
        for entry in field.value.iter().flat_map(|list| &list.0) {
            let Some((written, at)) = entry.get() else {
                continue;
            };
            if written.is_empty() || written.starts_with('~') {
                let message = format!("`{written}` is not a path");
                let label = "expected an absolute path, or one from the manifest's folder";
                self.push(codes::BAD_PATH, at, message, label);
                continue;
            }
            paths.push((self.resolved(written, at), at));
        }
        paths
    }

    fn needs_isolation(
        &mut self,
        field: &Field<List<String>>,
        name: &str,
        isolation: IsolationWish,
    ) {
        let some = field.value.as_ref().is_some_and(|list| !list.0.is_empty());
        if isolation == IsolationWish::None
            && some
            && let Some(at) = field.at
        {
            let message = format!("`{name}` means nothing for sandbox `{}`", self.name);
            let span = self.tree.key_span(at);
            let draft = Draft::error(codes::NOT_MEANINGFUL, span, message);
            self.sink
                .push(draft.label("with `isolation: none` it sees all files as they are"));
        }
    }

    pub fn checkpoint(&mut self) -> CheckpointSettings {
        let none = CheckpointRule::default();
        let rule = self.sandbox.checkpoint.value.as_ref().unwrap_or(&none);
        CheckpointSettings {
            before: self.hook(&rule.before, "before"),
            after: self.hook(&rule.after, "after"),
            freeze: rule.freeze.value.as_ref().map(|flag| flag.0),
        }
    }

    fn hook(
        &mut self,
        field: &Field<Either<String, List<Text>>>,
        name: &str,
    ) -> Option<Vec<String>> {
        let (hook, at) = field.get()?;
        let (argv, empty) = match hook {
            Either::Short(line) => (
                vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()],
                line.trim().is_empty(),
            ),
            Either::Long(list) => {
                let texts = list.0.iter().filter_map(|text| text.value.as_ref());
                let argv: Vec<_> = texts.map(|text| text.0.clone()).collect();
                let empty = argv.first().is_none_or(|cmd| cmd.trim().is_empty());
                (argv, empty)
            }
        };
        if empty {
            let message = format!("`checkpoint.{name}` of `{}` is empty", self.name);
            self.push(codes::BAD_VALUE, at, message, "empty");
        }
        Some(argv)
    }
}

/// Says so if nothing can run in so little memory.
pub(super) fn enough_memory(tree: &Tree<'_>, sink: &mut Sink, memory: &Size, at: NodeId) {
    if memory.0 < LEAST_MEMORY {
        let message = format!("nothing can run in {} bytes of memory", memory.0);
        let draft = Draft::error(codes::BAD_VALUE, tree.span(at), message);
        let draft = draft.label("expected at least 1Mi");
        sink.push(draft.help("write the unit too: `512Mi`, `2Gi`"));
    }
}
