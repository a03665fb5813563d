//! The grammar's types → `model::Desired`: defaults filled in, sugar gone, references checked.
//!
//! Goes on after every problem; what it makes is used only if there was none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::checks::{self, Ports};
use super::codes;
use super::diagnostic::{Draft, Sink, Source, Span};
use super::field::{Dict, Either, Field};
use super::index::{Empty, Home, Index};
use super::interpolate::Uses;
use super::needs::{NeedGraph, Needer, implied, needs};
use super::platform::{Platforms, platforms};
use super::references::Later;
use super::sandbox;
use super::secrets::{SecretStore, folder, is_variable};
use super::service;
use super::tree::{NodeId, Tree};
use super::types::{Defaults, Manifest, Sandbox, Service, Text};
use super::{PlatformConfig, Request};
use crate::model::{
    Desired, DesiredSandbox, NAME_RULE, Need, Reference, SandboxName, SandboxSpec, Scope, Secrets,
    ServiceAddress, ServiceName, ServiceSpec, WatchRule, digest,
};

/// What lowering looks at.
pub(super) struct Lower<'a, 's> {
    pub tree: &'a Tree<'s>,
    pub sources: &'a [Source],
    pub manifest: &'a Manifest,
    pub request: &'a Request,
    pub uses: &'a Uses,
    pub stack: &'a str,
    pub sink: &'a mut Sink,
    pub secrets: SecretStore<'a>,
}

/// What lowering makes.
pub(super) struct Lowered {
    pub desired: Desired,
    pub secrets: Secrets,
    pub platforms: BTreeMap<String, PlatformConfig>,
    pub files: Vec<PathBuf>,
}

/// One environment value, and the secrets and URLs that it uses.
#[derive(Clone, Default)]
struct EnvValue {
    text: String,
    secrets: Vec<String>,
    urls: Vec<(String, Later)>,
}

type Env = BTreeMap<String, EnvValue>;

/// Lowers a whole manifest.
pub(super) fn lower(mut cx: Lower<'_, '_>) -> Lowered {
    let empty = Empty::default();
    let index = Index::new(cx.manifest, &cx.request.profiles, &empty);
    let no_defaults = Defaults::default();
    let defaults = cx.manifest.defaults.value.as_ref().unwrap_or(&no_defaults);
    cx.top(&index);
    let platforms = platforms(cx.manifest, &cx.request.platforms, cx.tree, cx.sink);

    let base = cx.env(&defaults.env);
    let mut all = All {
        index: &index,
        defaults,
        platforms,
        base,
        graph: NeedGraph::default(),
        ports: Ports::default(),
    };
    let mut sandboxes = BTreeMap::new();
    for number in 0..index.homes.len() {
        if let Some((name, sandbox)) = cx.sandbox(number, &mut all) {
            sandboxes.insert(name, sandbox);
        }
    }
    cx.platform_secrets(&all.platforms);
    all.graph.circles(&index, cx.sink);
    let mut files = cx.secrets.files;
    files.sort();
    files.dedup();
    Lowered {
        desired: Desired {
            stack: cx.stack.to_owned(),
            sandboxes,
        },
        secrets: cx.secrets.values,
        platforms: all.platforms.used(),
        files,
    }
}

/// What spans all sandboxes.
struct All<'i, 'm> {
    index: &'i Index<'m>,
    defaults: &'i Defaults,
    platforms: Platforms<'i>,
    base: Env,
    graph: NeedGraph,
    ports: Ports,
}

impl Lower<'_, '_> {
    pub(super) fn span(&self, at: NodeId) -> Span {
        self.tree.span(at)
    }

    pub(super) fn error(
        &mut self,
        code: &'static codes::Code,
        at: NodeId,
        message: String,
        label: &str,
    ) {
        let draft = Draft::error(code, self.span(at), message);
        self.sink.push(draft.label(label));
    }

    /// `version`, names, and profiles that were asked for.
    fn top(&mut self, index: &Index<'_>) {
        if let Some((version, at)) = self.manifest.version.get()
            && version.0 != 1
        {
            let message = format!("version {} of the manifest is not known", version.0);
            self.error(codes::BAD_VALUE, at, message, "this gabion reads version 1");
        }
        let top = Span {
            file: 0,
            start: 0,
            end: 0,
        };
        if !self.manifest.version.given() {
            let draft = Draft::error(codes::MISSING, top, "the manifest has no `version`");
            self.sink.push(draft.help("write `version: 1` at the top"));
        }
        if self.manifest.sandboxes.at.is_none() {
            let draft = Draft::error(codes::MISSING, top, "the manifest has no `sandboxes`");
            self.sink
                .push(draft.help("write `sandboxes: {}` if there are to be none"));
        }
        self.names(self.manifest.secrets.value.as_ref(), "secret");
        self.names(self.manifest.vars.value.as_ref(), "variable");
        self.names(self.manifest.platforms.value.as_ref(), "platform");
        for (key, source) in self.manifest.secrets.value.iter().flat_map(|dict| &dict.0) {
            let (env, file) = match &source.value {
                Some(source) => (source.env.given(), source.file.given()),
                None => (source.bad, false),
            };
            if env == file {
                let message = format!(
                    "secret `{}` has {} `env` and `file`",
                    key.name,
                    if env { "both" } else { "neither of" }
                );
                self.error(
                    codes::ONE_OF,
                    key.at,
                    message,
                    "exactly one says where its value is",
                );
            }
        }
        checks::profiles(self.request, index, self.sink);
    }

    fn names<T>(&mut self, dict: Option<&Dict<T>>, what: &str) {
        for (key, _) in dict.iter().flat_map(|dict| &dict.0) {
            self.name(&key.name, key.at, what);
        }
    }

    /// Checks a name against the rule.
    fn name(&mut self, name: &str, at: NodeId, what: &str) -> bool {
        let good = SandboxName::new(name).is_ok();
        if !good {
            let message = format!("`{name}` cannot be the name of a {what}");
            self.error(
                codes::BAD_NAME,
                at,
                message,
                &format!("a name has {NAME_RULE}"),
            );
        }
        good
    }

    fn platform_secrets(&mut self, platforms: &Platforms<'_>) {
        for (used, at) in platforms.settings() {
            let mut todo = vec![at];
            while let Some(at) = todo.pop() {
                let node = self.tree.resolve(at);
                for name in self.uses.secrets.get(&node).into_iter().flatten() {
                    self.require(name, used);
                }
                todo.extend(self.tree.elements(at));
                todo.extend(self.tree.entries(at).iter().map(|(_, value)| value));
            }
        }
    }

    /// Makes a secret's value available. If it cannot be had, that is told only if it matters.
    pub(super) fn require(&mut self, name: &str, matters: bool) {
        let at = (self.tree, self.sources);
        let sink = matters.then_some(&mut *self.sink);
        self.secrets.require(name, &self.request.env, at, sink);
    }

    fn sandbox(
        &mut self,
        number: usize,
        all: &mut All<'_, '_>,
    ) -> Option<(SandboxName, DesiredSandbox)> {
        let home = &all.index.homes[number];
        let good = self.name(home.name(), home.key.at, "sandbox");
        let sandbox = home.sandbox?;
        if home.left_out.is_some() {
            return None;
        }
        let field = self.manifest.sandboxes.value.as_ref()?.0.get(number)?;
        let kind = self.place(home, sandbox, field.1.at, all);
        let mut env = all.base.clone();
        env.extend(self.env(&sandbox.env));
        let spec = self.sandbox_spec(home, sandbox, &env, number, all);
        let mut services = BTreeMap::new();
        let mut watch = BTreeMap::new();
        for entry in 0..home.services.len() {
            if let Some((name, spec, rules)) = self.service((number, entry), kind, &env, all) {
                if !rules.is_empty() {
                    watch.insert(name.clone(), rules);
                }
                services.insert(name, Arc::new(spec));
            }
        }
        let name = SandboxName::new(home.name()).ok().filter(|_| good)?;
        let spec = Arc::new(spec);
        Some((
            name,
            DesiredSandbox {
                spec,
                services,
                watch,
            },
        ))
    }

    /// Checks a sandbox's platform and what it can do; gives its kind.
    fn place(
        &mut self,
        home: &Home<'_>,
        sandbox: &Sandbox,
        at: Option<NodeId>,
        all: &mut All<'_, '_>,
    ) -> Option<&'static crate::model::Capabilities> {
        let written = sandbox.platform.get().or(all.defaults.platform.get());
        let bad = sandbox.platform.bad || all.defaults.platform.bad;
        let name = written.map_or("local", |(name, _)| name);
        let place = written.map_or(home.key.at, |(_, at)| at);
        if bad && written.is_none() {
            return None;
        }
        let kind = all.platforms.find(name, self.span(place), self.sink)?;
        let defaults = self.manifest.defaults.at;
        checks::sandbox(home, name, kind, at, defaults, self.tree, self.sink);
        for (field, setting) in all.platforms.demands(name, kind) {
            checks::demand(
                home,
                (name, kind),
                at,
                (field, &setting),
                self.tree,
                self.sink,
            );
        }
        Some(kind)
    }

    fn sandbox_spec(
        &mut self,
        home: &Home<'_>,
        sandbox: &Sandbox,
        env: &Env,
        number: usize,
        all: &mut All<'_, '_>,
    ) -> SandboxSpec {
        let who = Needer {
            index: all.index,
            home: number,
            service: None,
        };
        let platform = sandbox.platform.get().or(all.defaults.platform.get());
        // A sandbox has no service address: its own name stands in for the salt.
        let address = SandboxName::new(home.name())
            .ok()
            .zip(ServiceName::new(home.name()).ok());
        let address = address.map(|(sandbox, service)| ServiceAddress::new(sandbox, service));
        let (env, mut secrets) = self.sealed(env, address.as_ref());
        let files = self.files(home, sandbox, address.as_ref());
        secrets.extend(files.digests);
        let isolation = sandbox.isolation.value.or(all.defaults.isolation.value);
        let isolation = isolation.unwrap_or_default();
        self.names(sandbox.volumes.value.as_ref(), "volume");
        let mut parts = sandbox::Parts {
            name: home.name(),
            sandbox,
            tree: self.tree,
            sources: self.sources,
            sink: self.sink,
        };
        let (repo, checkpoint) = (parts.repo(), parts.checkpoint());
        let (memory, vcpus) = (parts.memory(), parts.vcpus());
        let volumes = parts.volumes();
        let hide = parts.hide(&all.defaults.hide, isolation);
        let writable = parts.writable(isolation);
        let vscode = sandbox.vscode.value.as_ref();
        SandboxSpec {
            platform: platform.map_or("local", |(name, _)| name).to_owned(),
            name: sandbox.name.value.clone(),
            base: sandbox.base.value.clone(),
            description: sandbox.description.value.clone(),
            topics: service::values(&sandbox.topics, Clone::clone),
            repo,
            keep_alive: sandbox.keep_alive.value,
            vcpus,
            memory,
            disk: sandbox.disk.value.map(|size| size.0),
            volumes,
            files: files.secrets,
            env,
            secrets,
            workspace: self.workspace(&sandbox.workspace),
            isolation,
            hide,
            writable,
            checkpoint,
            vscode: matches!(vscode, Some(Either::Short(flag)) if flag.0),
            public: sandbox.public.value.as_ref().is_some_and(|flag| flag.0),
            needs: needs(who, &sandbox.needs, &mut all.graph, self.tree, self.sink),
            protect: sandbox.protect.value.as_ref().is_some_and(|flag| flag.0),
            state: sandbox.state.value.unwrap_or_default(),
        }
    }

    fn workspace(&mut self, field: &Field<String>) -> Option<PathBuf> {
        let (written, at) = field.get()?;
        let path = folder(self.sources, self.span(at)).join(written);
        let problem = match std::fs::canonicalize(&path) {
            Ok(path) if path.is_dir() => return Some(path),
            Ok(_) => "is not a folder",
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => "does not exist",
            Err(_) => "cannot be read",
        };
        let message = format!("the workspace `{}` {problem}", path.display());
        let label = "expected a folder, relative to the manifest";
        self.error(codes::BAD_PATH, at, message, label);
        None
    }

    fn service(
        &mut self,
        (number, entry_number): (usize, usize),
        kind: Option<&'static crate::model::Capabilities>,
        env: &Env,
        all: &mut All<'_, '_>,
    ) -> Option<(ServiceName, ServiceSpec, Vec<WatchRule>)> {
        let home = &all.index.homes[number];
        let entry = &home.services[entry_number];
        let good = self.name(&entry.key.name, entry.key.at, "service");
        let service = entry.service?;
        if entry.left_out.is_some() {
            return None;
        }
        let address = format!("{}/{}", home.name(), entry.key.name);
        if let Some(kind) = kind {
            let platform = home
                .sandbox
                .and_then(|sandbox| sandbox.platform.value.as_deref());
            let platform = platform
                .or(all.defaults.platform.value.as_deref())
                .unwrap_or("local");
            let at = service_node(home, entry_number);
            checks::service(&address, platform, kind, at, self.tree, self.sink);
            let who = format!("service `{address}`");
            let hindrances = self.request.hindrances.iter();
            let here =
                hindrances.filter(|one| one.kind == kind.kind && one.scope == Scope::Service);
            checks::hindrances(&who, here, at, self.tree, self.sink);
        }
        let who = Needer {
            index: all.index,
            home: number,
            service: Some(entry_number),
        };
        let mut needs = needs(who, &service.needs, &mut all.graph, self.tree, self.sink);
        self.references(who, &address, service, &mut needs, all);
        let mut parts = service::Parts {
            address: &address,
            key: entry.key.at,
            task: entry.task,
            service,
            defaults: all.defaults,
            tree: self.tree,
            sink: self.sink,
        };
        let spec = parts.spec();
        all.ports
            .take(home, entry, &address, service, kind, self.tree, self.sink);
        let full = self.service_env(service, env);
        let watch = self.watch(service);
        let mut spec = spec?;
        spec.needs = needs;
        let name = ServiceName::new(entry.key.name.as_str()).ok()?;
        let sandbox = SandboxName::new(home.name()).ok()?;
        let at = ServiceAddress::new(sandbox, name.clone());
        (spec.env, spec.secrets) = self.sealed(&full, Some(&at));
        spec.references = self.urls(service, &full);
        good.then_some((name, spec, watch))
    }

    /// The URLs that a service's program and environment name and only platforms can tell.
    fn urls(&self, service: &Service, env: &Env) -> BTreeMap<String, Reference> {
        let args = service.args.value.iter().flat_map(|list| &list.0);
        let places = args.map(|field| field.at).chain([service.command.at]);
        let nodes = places.flatten().map(|at| self.tree.resolve(at));
        let named = nodes.filter_map(|node| self.uses.urls.get(&node));
        let named = named.chain(env.values().map(|value| &value.urls)).flatten();
        let named = named.map(|(written, later)| (written.clone(), later.reference.clone()));
        named.collect()
    }

    /// Adds a need for each other service of which a service says where it is reached.
    fn references(
        &mut self,
        who: Needer<'_, '_>,
        address: &str,
        service: &Service,
        needs: &mut Vec<Need>,
        all: &mut All<'_, '_>,
    ) {
        let env = service.env.value.iter().flat_map(|dict| &dict.0);
        let args = service.args.value.iter().flat_map(|list| &list.0);
        let places = env.map(|(_, field)| field.at);
        let places = places.chain(args.map(|field| field.at));
        for at in places.chain([service.command.at]).flatten() {
            self.own_url(address, at);
            let named = self.uses.services.get(&self.tree.resolve(at));
            for other in named
                .into_iter()
                .flatten()
                .filter(|other| *other != address)
            {
                let span = self.tree.span(at);
                implied(
                    who,
                    other,
                    span,
                    needs,
                    &mut all.graph,
                    self.tree,
                    self.sink,
                );
            }
        }
        needs.sort();
    }

    /// Refuses to tell a service its own URL where that is made by starting it.
    fn own_url(&mut self, address: &str, at: NodeId) {
        let named = self.uses.urls.get(&self.tree.resolve(at));
        let own = |later: &&Later| !later.early && later.reference.service.to_string() == address;
        let mut named = named.into_iter().flatten().map(|(_, later)| later);
        if let Some(later) = named.find(own) {
            let platform = &later.platform;
            let message = format!("`{address}` cannot be told its own URL");
            let label = format!("platform `{platform}` makes it when the service is started");
            self.error(codes::UNKNOWN_REFERENCE, at, message, &label);
        }
    }

    /// Environment as written under some `env:`.
    fn env(&mut self, field: &Field<Dict<Text>>) -> Env {
        let mut env = Env::new();
        for (key, field) in field.value.iter().flat_map(|dict| &dict.0) {
            if !is_variable(&key.name) {
                let message = format!(
                    "`{}` cannot be the name of an environment variable",
                    key.name
                );
                let label = "letters, digits and `_`, not starting with a digit";
                self.error(codes::BAD_NAME, key.at, message, label);
            }
            let node = field.at.map(|at| self.tree.resolve(at));
            let secrets = node.and_then(|node| self.uses.secrets.get(&node));
            let urls = node.and_then(|node| self.uses.urls.get(&node));
            let text = field
                .value
                .as_ref()
                .map_or_else(String::new, |text| text.0.clone());
            let value = EnvValue {
                text,
                secrets: secrets.cloned().unwrap_or_default(),
                urls: urls.cloned().unwrap_or_default(),
            };
            env.insert(key.name.clone(), value);
        }
        env
    }

    /// A service's own environment, its env files and the sandbox's environment, in that order.
    fn service_env(&mut self, service: &Service, base: &Env) -> Env {
        let mut env = base.clone();
        let mut files = Vec::new();
        match service.env_file.get() {
            Some((Either::Short(path), at)) => files.push((path, at)),
            Some((Either::Long(list), _)) => files.extend(list.0.iter().filter_map(Field::get)),
            None => {}
        }
        for (path, at) in files {
            let span = self.span(at);
            for (key, name) in self.secrets.env_file(path, span, self.sources, self.sink) {
                let text = format!("${{secret.{name}}}");
                env.insert(
                    key,
                    EnvValue {
                        text,
                        secrets: vec![name],
                        ..EnvValue::default()
                    },
                );
            }
        }
        env.extend(self.env(&service.env));
        env
    }

    /// Environment as a spec has it: texts, and a digest of every secret used.
    fn sealed(
        &mut self,
        env: &Env,
        at: Option<&ServiceAddress>,
    ) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
        let mut digests = BTreeMap::new();
        for name in env.values().flat_map(|value| &value.secrets) {
            if digests.contains_key(name) {
                continue;
            }
            if self.secrets.values.get(name).is_none() {
                self.require(name, true);
            }
            if let (Some(value), Some(at)) = (self.secrets.values.get(name), at) {
                digests.insert(name.clone(), digest(self.stack, at, name, value));
            }
        }
        let texts = env
            .iter()
            .map(|(key, value)| (key.clone(), value.text.clone()));
        (texts.collect(), digests)
    }

    fn watch(&mut self, service: &Service) -> Vec<WatchRule> {
        let mut rules = Vec::new();
        for entry in service.watch.value.iter().flat_map(|list| &list.0) {
            let Some((entry, at)) = entry.get() else {
                continue;
            };
            match entry.path.get() {
                Some((path, at)) => {
                    let path = folder(self.sources, self.span(at)).join(path);
                    let action = entry.action.value.unwrap_or_default();
                    rules.push(WatchRule {
                        path: absolute(&path),
                        action,
                    });
                }
                None if !entry.path.bad => {
                    let message = "an entry of `watch` has no `path`".to_owned();
                    self.error(codes::MISSING, at, message, "`path` is missing");
                }
                None => {}
            }
        }
        rules
    }
}

/// The path from the root, with links resolved as far as it exists.
pub(super) fn absolute(path: &Path) -> PathBuf {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut rest = Vec::new();
    let mut there = whole.as_path();
    loop {
        if let Ok(found) = std::fs::canonicalize(there) {
            return rest.iter().rev().fold(found, |path, part| path.join(part));
        }
        match (there.parent(), there.file_name()) {
            (Some(parent), Some(name)) => {
                rest.push(name);
                there = parent;
            }
            _ => return whole,
        }
    }
}

/// Where a service's map is.
fn service_node(home: &Home<'_>, entry: usize) -> Option<NodeId> {
    let services = home.sandbox?.services.value.as_ref()?;
    services.0.get(entry)?.1.at
}
