//! A manifest for what exists on a platform: the text that `gabion import` writes.
//!
//! In: what the platform tells. Out: YAML with comments. No value of a variable or secret is in it, because
//! nobody can tell which of them may be seen: where one was, its name is looked up in the environment.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde::Serialize;
use serde_json::{Value, json};

use crate::manifest::PlatformConfig;
use crate::model::{
    Health, Probe, Program, RestartPolicy, SandboxGoal, SandboxName, SandboxSpec, ServiceGoal,
    ServiceKind, ServiceName, ServiceSpec,
};
use crate::platforms::Described;

/// What is written of a sandbox; what else it has is told in a comment.
const OF_SANDBOX: [&str; 15] = [
    "platform",
    "name",
    "description",
    "topics",
    "repo",
    "base",
    "vcpus",
    "memory",
    "disk",
    "volumes",
    "keep_alive",
    "public",
    "env",
    "secrets",
    "state",
];

/// What is written of a service.
const OF_SERVICE: [&str; 23] = [
    "kind",
    "cmd",
    "args",
    "command",
    "env",
    "secrets",
    "working_dir",
    "user",
    "ports",
    "http_port",
    "needs",
    "description",
    "state",
    "references",
    "limits",
    "tty",
    "stdin_open",
    "health",
    "container",
    "image",
    "restart",
    "stop",
    "timeout",
];

/// The texts that are looked up when a manifest is read.
const LOOKED_UP: [&str; 5] = [
    "${env.",
    "${var.",
    "${secret.",
    "${services.",
    "${sandboxes.",
];

/// The manifest of `stack` for these sandboxes of one entry of `platforms:`.
pub fn write(
    stack: &str,
    (entry, config): (&str, &PlatformConfig),
    sandboxes: &[Described],
) -> String {
    let mut body = String::from("sandboxes:\n");
    let mut secrets = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for found in sandboxes {
        let name = free_name(&found.name, &mut taken);
        let writer = Writer {
            out: &mut body,
            secrets: &mut secrets,
        };
        writer.sandbox(&name, entry, found);
    }
    if sandboxes.is_empty() {
        body = "sandboxes: {}\n".to_owned();
    }
    let mut head = format!("version: 1\nstack: {stack}\n{}", platform(entry, config));
    if !secrets.is_empty() {
        head.push_str("secrets: # their values are not written here\n");
        for name in secrets {
            let variable = name.to_ascii_uppercase();
            let _ = writeln!(head, "  {name}: {{ env: {variable} }}");
        }
    }
    head + &body
}

fn platform(entry: &str, config: &PlatformConfig) -> String {
    if config.kind == "local" {
        return String::new();
    }
    let mut text = format!("platforms:\n  {entry}:\n    kind: {}\n", config.kind);
    for (key, value) in &config.settings {
        let value = serde_json::to_value(value).unwrap_or_default();
        let Some(key) = key.as_str() else { continue };
        match key == "token" || value.to_string().contains("${secret.") {
            true => {
                let _ = writeln!(
                    text,
                    "    # {key}: not written; it may be in the environment"
                );
            }
            false => {
                let _ = writeln!(text, "    {key}: {value}");
            }
        }
    }
    text
}

/// A name that fits a manifest, and is not there yet.
fn free_name(name: &str, taken: &mut BTreeSet<String>) -> String {
    let fits = |c: char| {
        if c.is_ascii_alphanumeric() || c == '-' {
            c
        } else {
            '-'
        }
    };
    let plain: String = name.chars().map(fits).collect();
    let plain = match SandboxName::new(name).is_ok() {
        true => name.to_owned(),
        false => plain.trim_matches('-').to_ascii_lowercase(),
    };
    let plain = match SandboxName::new(plain.as_str()).is_ok() {
        true => plain,
        false => "imported".to_owned(),
    };
    let numbered = (2..).map(|number| format!("{plain}-{number}"));
    let mut names = std::iter::once(plain.clone()).chain(numbered);
    let free = names.find(|name| !taken.contains(name)).unwrap_or(plain);
    taken.insert(free.clone());
    free
}

/// A value as YAML, which JSON is.
fn yaml(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

struct Writer<'w> {
    out: &'w mut String,
    secrets: &'w mut BTreeSet<String>,
}

impl Writer<'_> {
    fn sandbox(mut self, name: &str, entry: &str, found: &Described) {
        let spec = &found.spec;
        self.line(2, format!("{name}:"));
        for remark in &found.remarks {
            self.remark(4, remark);
        }
        self.left_out(4, spec, &SandboxSpec::default(), &OF_SANDBOX);
        self.line(4, format!("platform: {entry}"));
        self.field(4, "name", spec.name.as_ref());
        self.field(4, "description", spec.description.as_ref());
        self.field(4, "topics", Some(&spec.topics).filter(|it| !it.is_empty()));
        if let Some(repo) = &spec.repo {
            if repo.credentials().is_some() {
                self.remark(
                    4,
                    "repo: its URL has a password in it, which is not written here",
                );
            }
            self.field(4, "repo", Some(&repo.shown_url()));
        }
        self.field(4, "base", spec.base.as_ref());
        self.field(4, "vcpus", spec.vcpus.as_ref());
        self.field(4, "memory", spec.memory.as_ref());
        self.field(4, "disk", spec.disk.as_ref());
        let volumes = Some(&spec.volumes).filter(|it| !it.is_empty());
        self.field(4, "volumes", volumes);
        let keep_alive = spec.keep_alive.as_ref().map(ToString::to_string);
        self.field(4, "keep_alive", keep_alive.as_ref());
        self.field(4, "public", Some(&spec.public).filter(|it| **it));
        if spec.state == SandboxGoal::Stopped {
            self.line(4, "state: stopped".to_owned());
        }
        self.env(4, &spec.env);
        if found.services.is_empty() {
            return;
        }
        self.line(4, "services:".to_owned());
        for (name, service) in &found.services {
            match ServiceName::new(name.as_str()) {
                Ok(name) => self.service(&name, service, &spec.env),
                Err(_) => {
                    let remark = "is not written: a manifest cannot have a service of this name";
                    self.remark(6, &format!("{}: {remark}", yaml(name)));
                }
            }
        }
    }

    /// `around` is the environment of its sandbox.
    fn service(
        &mut self,
        name: &ServiceName,
        spec: &ServiceSpec,
        around: &BTreeMap<String, String>,
    ) {
        self.line(6, format!("{name}:"));
        let mut plain = ServiceSpec::new(spec.program.clone());
        if spec.kind == ServiceKind::Task {
            plain.restart.policy = RestartPolicy::No;
        }
        self.left_out(8, spec, &plain, &OF_SERVICE);
        if spec.kind == ServiceKind::Task {
            self.line(8, "kind: task".to_owned());
        }
        match &spec.program {
            Program::Shell { command } => self.field(8, "command", Some(command)),
            Program::Exec { cmd, args } => {
                self.field(8, "cmd", Some(cmd));
                self.field(8, "args", Some(args).filter(|it| !it.is_empty()));
            }
        }
        let mut env = spec.env.clone();
        env.retain(|name, value| around.get(name) != Some(value));
        self.env(8, &env);
        self.field(8, "working_dir", spec.working_dir.as_ref());
        self.field(8, "user", spec.user.as_ref());
        self.field(8, "ports", Some(&spec.ports).filter(|it| !it.is_empty()));
        self.field(8, "http_port", spec.http_port.as_ref());
        self.field(8, "needs", Some(&spec.needs).filter(|it| !it.is_empty()));
        self.field(8, "description", spec.description.as_ref());
        self.field(8, "container", Some(&spec.container).filter(|it| **it));
        self.field(8, "image", spec.image.as_ref());
        self.field(8, "tty", Some(&spec.tty).filter(|it| **it));
        self.field(8, "stdin_open", Some(&spec.stdin_open).filter(|it| **it));
        if let Some(health) = &spec.health {
            self.health(8, health);
        }
        self.field(
            8,
            "limits",
            Some(&spec.limits).filter(|it| **it != plain.limits),
        );
        self.field(
            8,
            "restart",
            Some(&spec.restart).filter(|it| **it != plain.restart),
        );
        self.field(8, "stop", Some(&spec.stop).filter(|it| **it != plain.stop));
        self.field(8, "timeout", spec.timeout.as_ref());
        if spec.state == ServiceGoal::Stopped {
            self.line(8, "state: stopped".to_owned());
        }
    }

    /// As a manifest has it, which says some probes shorter.
    fn health(&mut self, indent: usize, health: &Health) {
        let mut written = serde_json::to_value(health).unwrap_or_default();
        match &health.probe {
            Probe::Log { contains } => written["log"] = json!(contains),
            Probe::Exec { argv } => written["exec"] = json!(argv),
            Probe::Notify {} => written["notify"] = json!(true),
            Probe::Http(probe) if !probe.headers.is_empty() => {
                self.remark(
                    indent,
                    "the headers of its health check are not written here",
                );
                if let Some(http) = written["http"].as_object_mut() {
                    http.remove("headers");
                }
            }
            Probe::Http(_) | Probe::Tcp { .. } => {}
        }
        self.field(indent, "health", Some(&written));
    }

    fn line(&mut self, indent: usize, text: String) {
        let _ = writeln!(self.out, "{:indent$}{text}", "");
    }

    fn remark(&mut self, indent: usize, text: &str) {
        let flat: String = text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        self.line(indent, format!("# {flat}"));
    }

    fn field(&mut self, indent: usize, name: &str, value: Option<&impl Serialize>) {
        let Some(value) = value else { return };
        let text = yaml(value);
        if LOOKED_UP.iter().any(|it| text.contains(it)) {
            self.remark(
                indent,
                "the next line has text in it that gabion would replace",
            );
        }
        self.line(indent, format!("{name}: {text}"));
    }

    /// Each variable by its name alone.
    fn env(&mut self, indent: usize, env: &BTreeMap<String, String>) {
        if env.is_empty() {
            return;
        }
        self.line(
            indent,
            "env: # their values are not written here".to_owned(),
        );
        for (name, value) in env {
            let fits = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
            let variable: String = name.chars().map(fits).collect();
            let reference = match value.contains("${secret.") {
                true => {
                    let secret = variable.to_ascii_lowercase();
                    self.secrets.insert(secret.clone());
                    format!("${{secret.{secret}}}")
                }
                false => format!("${{env.{variable}}}"),
            };
            self.line(indent + 2, format!("{name}: {}", yaml(&reference)));
        }
    }

    /// Tells what of a definition is not written.
    fn left_out<T: Serialize>(&mut self, indent: usize, spec: &T, plain: &T, written: &[&str]) {
        let object = |it: &T| match serde_json::to_value(it) {
            Ok(Value::Object(object)) => object,
            _ => Default::default(),
        };
        let (spec, plain) = (object(spec), object(plain));
        let other = spec.iter().filter(|(key, value)| {
            !written.contains(&key.as_str()) && plain.get(*key) != Some(*value)
        });
        let names: Vec<&str> = other.map(|(key, _)| key.as_str()).collect();
        if !names.is_empty() {
            self.remark(
                indent,
                &format!(
                    "it has more, which is not written here: {}",
                    names.join(", ")
                ),
            );
        }
    }
}
