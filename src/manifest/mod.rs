//! Text → what is wanted, and every problem on the way.
//!
//! In: manifest files, variables, profiles and what the platforms can do. Out: a [`Loaded`] with the
//! desired state if there is no error, and a [`Report`] of every problem with its place. The steps:
//! `read` → `parse` (into a `tree`) → `interpolate` → `decode` (into `types`) → `lower`. Never stops at the first
//! error, never touches a platform, and reads nothing but files.

mod checks;
mod codes;
mod decode;
mod diagnostic;
mod field;
mod files;
mod health;
mod index;
mod interpolate;
mod lower;
mod mismatch;
mod needs;
mod parse;
mod placeholder;
mod platform;
mod read;
mod references;
mod render;
mod sandbox;
mod schema;
mod secrets;
mod service;
mod suggest;
mod tree;
mod types;
mod vscode;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use codes::{CODES, Code, explain};
pub use diagnostic::{Diagnostic, Location, Related, Report, Severity, Suggestion};
pub use platform::PlatformConfig;
pub use schema::{reference_markdown, schema};

use crate::model::{self, NAME_RULE, SandboxName};
use diagnostic::{At, Draft, Sink, Source, Span};
use tree::{NodeId, Tree};

/// What to load, and everything that it may depend on.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The manifest files; later ones are laid over earlier ones.
    pub files: Vec<PathBuf>,
    /// The environment that `${env.X}` and secrets are read from.
    pub env: BTreeMap<String, String>,
    /// Values for variables, over the defaults in `vars:`.
    pub vars: BTreeMap<String, String>,
    /// The selected profiles.
    pub profiles: BTreeSet<String>,
    /// The kinds of platform that there are.
    pub platforms: Vec<&'static model::Capabilities>,
    /// What they cannot do on this machine.
    pub hindrances: Vec<model::Hindrance>,
}

/// What a manifest came to.
#[derive(Debug)]
pub struct Loaded {
    /// The stack's name, if it could be told; also when there are errors.
    pub stack: Option<String>,
    /// What is wanted; `None` if and only if the report has an error.
    pub desired: Option<model::Desired>,
    /// The values of the secrets that are used.
    pub secrets: model::Secrets,
    /// The platforms that are declared or used, by name.
    pub platforms: BTreeMap<String, PlatformConfig>,
    /// Every problem.
    pub report: Report,
    /// Every file that was read or looked for: manifests, env files, files of secrets.
    pub files: Vec<PathBuf>,
}

/// Reads and checks a manifest. Reads files; does nothing else to the outside world.
pub fn load(request: &Request) -> Loaded {
    let mut unreadable = Vec::new();
    let mut sources = Vec::new();
    for path in &request.files {
        match read::read_text(path, read::MANIFEST_LIMIT) {
            Ok(text) => sources.push(Source::new(path.clone(), text)),
            Err(problem) => {
                // Empty, so that places in the other files keep their numbers.
                sources.push(Source::new(path.clone(), String::new()));
                unreadable.push((path, problem));
            }
        }
    }
    let sources = Arc::new(sources);
    let mut sink = Sink::new(Arc::clone(&sources));
    for (path, problem) in unreadable {
        let (line, column) = problem.place.unwrap_or((1, 1));
        let at = At::Line(path.clone(), line, column);
        let message = format!("`{}` {}", path.display(), problem.reason);
        sink.push(Draft::error(problem.code, at, message));
    }
    if request.files.is_empty() {
        let message = "there is no manifest to read";
        sink.push(Draft::error(codes::UNREADABLE, At::Nowhere, message));
    }
    let mut loaded = read_all(request, &sources, &mut sink);
    loaded.files.splice(0..0, request.files.iter().cloned());
    if sink.has_errors() {
        loaded.desired = None;
    }
    loaded.report = sink.finish();
    loaded
}

fn read_all(request: &Request, sources: &[Source], sink: &mut Sink) -> Loaded {
    let mut loaded = Loaded {
        stack: None,
        desired: None,
        secrets: model::Secrets::default(),
        platforms: BTreeMap::new(),
        report: Report::default(),
        files: Vec::new(),
    };
    let mut whole = !sink.has_errors();
    let mut tree = Tree::default();
    let mut root: Option<NodeId> = None;
    for (number, source) in sources.iter().enumerate() {
        let file = u16::try_from(number).unwrap_or(u16::MAX);
        let parsed = parse::parse(&mut tree, file, &source.text, sink);
        whole &= parsed.whole;
        let over = parsed.root.filter(|over| !tree.is_null(*over));
        root = match (root, over) {
            (Some(base), Some(over)) => Some(tree.overlay(base, over)),
            (base, over) => over.or(base),
        };
    }
    let Some(root) = root else {
        if whole && !sources.is_empty() {
            let at = Span {
                file: 0,
                start: 0,
                end: 0,
            };
            let draft = Draft::error(codes::MISSING, at, "the manifest is empty");
            sink.push(draft.help("`gabion init` writes one to start from"));
        }
        loaded.stack = stack(None, &tree, request, &mut Vec::new());
        return loaded;
    };
    let values = interpolate::Values {
        env: &request.env,
        overrides: &request.vars,
        profiles: &request.profiles,
        platforms: &request.platforms,
    };
    let uses = interpolate::interpolate(&mut tree, root, &values, sink);
    vscode::unfold(&mut tree, root, sink);
    let manifest: types::Manifest = decode::decode(&tree, root, sink);
    let mut drafts = Vec::new();
    loaded.stack = stack(Some(&manifest), &tree, request, &mut drafts);
    drafts.into_iter().for_each(|draft| sink.push(draft));
    // After a break in the text, what seems to be missing may be in the part that was not read.
    if !whole || !matches!(tree.kind(root), tree::Kind::Map(_)) {
        return loaded;
    }
    let lowered = lower::lower(lower::Lower {
        tree: &tree,
        sources,
        manifest: &manifest,
        request,
        uses: &uses,
        stack: loaded.stack.as_deref().unwrap_or_default(),
        sink,
        secrets: secrets::SecretStore::new(&manifest),
    });
    loaded.desired = Some(lowered.desired);
    loaded.secrets = lowered.secrets;
    loaded.platforms = lowered.platforms;
    loaded.files = lowered.files;
    loaded
}

/// The stack's name: as written, or that of the first manifest's folder.
fn stack(
    manifest: Option<&types::Manifest>,
    tree: &Tree<'_>,
    request: &Request,
    drafts: &mut Vec<Draft>,
) -> Option<String> {
    if let Some((name, at)) = manifest.and_then(|manifest| manifest.stack.get()) {
        if SandboxName::new(name.0.as_str()).is_ok() {
            return Some(name.0.clone());
        }
        let message = format!("`{}` cannot be the name of a stack", name.0);
        let draft = Draft::error(codes::BAD_NAME, tree.span(at), message);
        drafts.push(draft.label(format!("a name has {NAME_RULE}")));
        return None;
    }
    if manifest.is_some_and(|manifest| manifest.stack.bad) {
        return None;
    }
    let file = request.files.first()?;
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let folder = std::fs::canonicalize(folder).ok()?;
    let name = folder
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    if SandboxName::new(name).is_ok() {
        return Some(name.to_owned());
    }
    let at = Span {
        file: 0,
        start: 0,
        end: 0,
    };
    let message =
        format!("the stack has no name, and that of its folder, `{name}`, cannot be used");
    let draft = Draft::error(codes::BAD_NAME, at, message);
    drafts.push(
        draft
            .label(format!("a name has {NAME_RULE}"))
            .help("write `stack: name` at the top"),
    );
    None
}
