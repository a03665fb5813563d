//! One service's fields → its spec.

use std::path::PathBuf;

use super::codes::{self, Code};
use super::diagnostic::{Draft, Sink, Span};
use super::field::{Either, Field, List};
use super::sandbox::enough_memory;
use super::suggest::one_of;
use super::tree::{NodeId, Tree};
use super::types::{
    Count, Defaults, HealthRule, LimitsRule, Port, RestartRule, SIGNALS, Service, StopRule,
};
use crate::model::{
    Health, Limits, Probe, Program, Restart, RestartPolicy, ServiceKind, ServiceSpec, Stop,
};

/// What one service is made from.
pub(super) struct Parts<'a, 's> {
    pub address: &'a str,
    pub key: NodeId,
    pub task: bool,
    pub service: &'a Service,
    pub defaults: &'a Defaults,
    pub tree: &'a Tree<'s>,
    pub sink: &'a mut Sink,
}

impl Parts<'_, '_> {
    fn push(&mut self, code: &'static Code, at: Span, message: String, label: &str) {
        self.sink.push(Draft::error(code, at, message).label(label));
    }

    /// The key of a field.
    fn key(&self, at: Option<NodeId>) -> Span {
        self.tree.key_span(at.unwrap_or(self.key))
    }

    /// Everything but `env` and `needs`. `None` if there is nothing to execute.
    pub fn spec(&mut self) -> Option<ServiceSpec> {
        let service = self.service;
        let program = self.program();
        let ports = self.ports();
        let health = self.health();
        self.container();
        self.task_fields();
        let restart = self.restart();
        let stop = self.stop();
        let limits = self.limits();
        let mut spec = ServiceSpec::new(program?);
        if self.task {
            spec.kind = ServiceKind::Task;
            spec.timeout = service.timeout.value;
        }
        spec.working_dir = service.working_dir.value.as_ref().map(PathBuf::from);
        spec.user = service.user.value.as_ref().map(|text| text.0.clone());
        spec.limits = limits;
        spec.tty = service.tty.value.as_ref().is_some_and(|flag| flag.0);
        spec.stdin_open = service.stdin_open.value.as_ref().is_some_and(|flag| flag.0);
        spec.ports = ports;
        spec.health = health;
        spec.container = service.container.value.as_ref().is_some_and(|flag| flag.0);
        spec.image = service.image.value.clone();
        spec.description = service.description.value.clone();
        spec.restart = restart;
        spec.stop = stop;
        spec.state = service.state.value.unwrap_or_default();
        Some(spec)
    }

    fn program(&mut self) -> Option<Program> {
        let (cmd, command) = (&self.service.cmd, &self.service.command);
        if cmd.given() && command.given() {
            let message = format!("`{}` has both `cmd` and `command`", self.address);
            let at = self.key(command.at);
            let draft = Draft::error(codes::ONE_OF, at, message).label("a shell line");
            let draft = draft.related(self.key(cmd.at), "a program");
            let help = "`cmd` with `args` is executed as it is, `command` is a line for the shell: keep one";
            self.sink.push(draft.help(help));
            return None;
        }
        if !cmd.given() && !command.given() {
            let message = format!("`{}` has neither `cmd` nor `command`", self.address);
            let at = self.tree.span(self.key);
            let draft = Draft::error(codes::ONE_OF, at, message).label("nothing to execute");
            self.sink
                .push(draft.help("write for example `command: node server.js`"));
            return None;
        }
        if let Some((_, at)) = command.get()
            && self.service.args.given()
        {
            let message = format!("`{}` has `args` for a `command`", self.address);
            let at = self.key(self.service.args.at.or(Some(at)));
            let draft = Draft::error(codes::ONE_OF, at, message).label("`args` belong to `cmd`");
            self.sink
                .push(draft.help("write them into the line, or use `cmd` for the program"));
        }
        let text = command
            .get()
            .or(cmd.value.as_ref().map(|text| &text.0).zip(cmd.at));
        if let Some((text, at)) = text
            && text.trim().is_empty()
        {
            let message = format!("`{}` has nothing to execute", self.address);
            self.push(codes::BAD_VALUE, self.tree.span(at), message, "empty");
        }
        match (&cmd.value, &command.value) {
            (Some(cmd), _) => Some(Program::Exec {
                cmd: cmd.0.clone(),
                args: values(&self.service.args, |text| text.0.clone()),
            }),
            (None, Some(command)) => Some(Program::Shell {
                command: command.clone(),
            }),
            (None, None) => None,
        }
    }

    fn ports(&mut self) -> Vec<u16> {
        let list = self.service.ports.value.iter().flat_map(|list| &list.0);
        let mut ports = Vec::new();
        for field in list {
            if let Some(port) = self.port(field) {
                ports.push(port);
            }
        }
        ports
    }

    fn port(&mut self, field: &Field<Port>) -> Option<u16> {
        let (port, at) = field.get()?;
        let good = port_number(port);
        if good.is_none() {
            let message = format!("{} is not a port", port.0);
            self.push(
                codes::BAD_PORT,
                self.tree.span(at),
                message,
                "expected 1 to 65535",
            );
        }
        good
    }

    fn health(&mut self) -> Option<Health> {
        let service = self.service;
        if service.health.given() && service.health_port.given() {
            let message = format!("`{}` has both `health` and `health_port`", self.address);
            let at = self.key(service.health_port.at);
            let draft = Draft::error(codes::ONE_OF, at, message);
            let draft = draft.related(self.key(service.health.at), "the other one");
            self.sink
                .push(draft.help("`health_port: 80` is short for `health: { tcp: 80 }`: keep one"));
        }
        let short = self.port(&service.health_port);
        if short.is_none()
            && !service.health.given()
            && let (Some(_), false) = (&service.timeout.value, self.task)
        {
            let message = format!("`timeout` means nothing for `{}`", self.address);
            let at = self.key(service.timeout.at);
            let draft = Draft::error(codes::NOT_MEANINGFUL, at, message);
            let draft = draft.label("this service has no health check to wait for");
            if !service.health_port.given() {
                self.sink
                    .push(draft.help("only tasks and services with `health` take a `timeout`"));
            }
        }
        let mut health = match service.health.get() {
            Some((rule, at)) => {
                let mut health = Health::new(self.probe(rule, at)?);
                health.timeout = rule
                    .timeout
                    .value
                    .or(service.timeout.value)
                    .unwrap_or(health.timeout);
                health.interval = rule.interval.value.unwrap_or(health.interval);
                if let Some((interval, at)) = rule.interval.get()
                    && interval.0.is_zero()
                {
                    let message =
                        format!("the health check of `{}` would never rest", self.address);
                    let label = "expected more than 0s";
                    self.push(codes::BAD_VALUE, self.tree.span(at), message, label);
                }
                return Some(health);
            }
            None => Health::new(Probe::Tcp { port: short? }),
        };
        health.timeout = service.timeout.value.unwrap_or(health.timeout);
        Some(health)
    }

    fn probe(&mut self, rule: &HealthRule, at: NodeId) -> Option<Probe> {
        let given = [
            ("tcp", rule.tcp.given(), rule.tcp.at),
            ("http", rule.http.given(), rule.http.at),
            ("exec", rule.exec.given(), rule.exec.at),
            ("log", rule.log.given(), rule.log.at),
        ];
        let given: Vec<_> = given.into_iter().filter(|(_, given, _)| *given).collect();
        if given.len() != 1 {
            let message = match given.as_slice() {
                [] => format!("the health check of `{}` checks nothing", self.address),
                _ => format!("the health check of `{}` is several checks", self.address),
            };
            let expected = "expected exactly one of `tcp`, `http`, `exec` and `log`";
            let mut draft =
                Draft::error(codes::ONE_OF, self.key(Some(at)), message).label(expected);
            for (name, _, at) in given {
                draft = draft.related(self.key(at), format!("`{name}`"));
            }
            self.sink.push(draft);
            return None;
        }
        if let Some((tcp, at)) = rule.tcp.get() {
            let port = match tcp {
                Either::Short(port) => self.port(&Field {
                    at: Some(at),
                    value: Some(port.clone()),
                    bad: false,
                })?,
                Either::Long(rule) => self.required_port(&rule.port, at)?,
            };
            return Some(Probe::Tcp { port });
        }
        if let Some((http, at)) = rule.http.get() {
            let port = self.required_port(&http.port, at);
            let path = http.path.value.clone().unwrap_or_else(|| "/".to_owned());
            if let Some(at) = http.path.at
                && !path.starts_with('/')
            {
                let message = format!("`{path}` is not the path of a URL");
                self.push(
                    codes::BAD_VALUE,
                    self.tree.span(at),
                    message,
                    "expected a path that starts with `/`",
                );
            }
            return Some(Probe::Http { port: port?, path });
        }
        if let Some((exec, at)) = rule.exec.get() {
            let argv = match exec {
                Either::Short(line) => vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()],
                Either::Long(list) => list
                    .0
                    .iter()
                    .filter_map(|text| Some(text.value.as_ref()?.0.clone()))
                    .collect(),
            };
            let empty = match exec {
                Either::Short(line) => line.trim().is_empty(),
                Either::Long(list) => list.0.is_empty(),
            };
            self.not_empty(empty, at, "exec");
            return Some(Probe::Exec { argv });
        }
        let (contains, at) = rule.log.get()?;
        self.not_empty(contains.is_empty(), at, "log");
        Some(Probe::Log {
            contains: contains.clone(),
        })
    }

    fn not_empty(&mut self, empty: bool, at: NodeId, what: &str) {
        if empty {
            let message = format!("the `{what}` check of `{}` is empty", self.address);
            self.push(codes::BAD_VALUE, self.tree.span(at), message, "empty");
        }
    }

    fn required_port(&mut self, field: &Field<Port>, at: NodeId) -> Option<u16> {
        if !field.given() {
            let message = format!("the health check of `{}` has no `port`", self.address);
            self.push(
                codes::MISSING,
                self.key(Some(at)),
                message,
                "`port` is missing",
            );
        }
        self.port(field)
    }

    fn container(&mut self) {
        let container = self
            .service
            .container
            .value
            .as_ref()
            .is_some_and(|flag| flag.0);
        let image = self.service.image.given();
        if container && !image {
            let message = format!(
                "`{}` runs in a container, but of which image?",
                self.address
            );
            let at = self.key(self.service.container.at);
            let draft = Draft::error(codes::IMAGE, at, message).label("`image` is missing");
            self.sink
                .push(draft.help("write for example `image: docker.io/library/postgres:17`"));
        } else if image && !container && !self.service.container.bad {
            let message = format!(
                "`{}` has an `image`, but does not run in a container",
                self.address
            );
            let at = self.key(self.service.image.at);
            let draft = Draft::error(codes::IMAGE, at, message).label("not used");
            self.sink.push(
                draft.help(
                    "write `container: true` too; the image of a whole sandbox is its `base`",
                ),
            );
        }
    }

    fn task_fields(&mut self) {
        if !self.task {
            return;
        }
        let service = self.service;
        let fields = [
            (
                "health",
                service.health.given(),
                service.health.at,
                "is done when it exits with 0",
            ),
            (
                "health_port",
                service.health_port.given(),
                service.health_port.at,
                "is done when it exits with 0",
            ),
            (
                "restart",
                service.restart.given(),
                service.restart.at,
                "runs once",
            ),
        ];
        for (name, given, at, why) in fields {
            if given {
                let message = format!("`{name}` means nothing for task `{}`", self.address);
                self.push(
                    codes::NOT_MEANINGFUL,
                    self.key(at),
                    message,
                    &format!("a task {why}"),
                );
            }
        }
    }

    fn restart(&mut self) -> Restart {
        if self.task {
            return Restart {
                policy: RestartPolicy::No,
                ..Restart::default()
            };
        }
        let own = self.service.restart.get();
        match own.or(self.defaults.restart.get()) {
            None => Restart::default(),
            Some((Either::Short(policy), _)) => Restart {
                policy: *policy,
                ..Restart::default()
            },
            Some((Either::Long(rule), _)) => self.restart_rule(rule),
        }
    }

    fn restart_rule(&mut self, rule: &RestartRule) -> Restart {
        let default = Restart::default();
        let restart = Restart {
            policy: rule.policy.value.unwrap_or_default(),
            backoff: rule.backoff.value.unwrap_or(default.backoff),
            max_backoff: rule.max_backoff.value.unwrap_or(default.max_backoff),
            max_restarts: rule.max_restarts.value.as_ref().map(|count| count.0),
        };
        if restart.backoff > restart.max_backoff
            && let Some(at) = rule.backoff.at.or(rule.max_backoff.at)
        {
            let message = format!(
                "`backoff` ({}) is longer than `max_backoff` ({})",
                restart.backoff, restart.max_backoff
            );
            self.push(
                codes::BAD_VALUE,
                self.tree.span(at),
                message,
                "the first delay is longer than the longest",
            );
        }
        restart
    }

    fn stop(&mut self) -> Stop {
        let none = StopRule::default();
        let own = self.service.stop.value.as_ref().unwrap_or(&none);
        let base = self.defaults.stop.value.as_ref().unwrap_or(&none);
        let default = Stop::default();
        let signal = own.signal.get().or(base.signal.get());
        Stop {
            signal: signal
                .and_then(|(signal, at)| self.signal(&signal.0, at))
                .unwrap_or(default.signal),
            grace: own
                .grace
                .value
                .or(base.grace.value)
                .unwrap_or(default.grace),
        }
    }

    fn limits(&mut self) -> Limits {
        let none = LimitsRule::default();
        let own = self.service.limits.value.as_ref().unwrap_or(&none);
        let base = self.defaults.limits.value.as_ref().unwrap_or(&none);
        if let Some((memory, at)) = own.memory.get().or(base.memory.get()) {
            enough_memory(self.tree, self.sink, memory, at);
        }
        let files = self.at_least_one(own.files.get().or(base.files.get()), "files");
        let processes =
            self.at_least_one(own.processes.get().or(base.processes.get()), "processes");
        let memory = own.memory.value.or(base.memory.value);
        let cpu = own.cpu.value.as_ref().or(base.cpu.value.as_ref());
        Limits {
            memory: memory.map(|size| size.0),
            cpu: cpu.map(|cpu| cpu.0),
            files: files.map(u64::from),
            processes,
        }
    }

    fn at_least_one(&mut self, limit: Option<(&Count, NodeId)>, name: &str) -> Option<u32> {
        let (count, at) = limit?;
        if count.0 == 0 {
            let message = format!("`{}` cannot run with `{name}: 0`", self.address);
            let span = self.tree.span(at);
            self.push(codes::BAD_VALUE, span, message, "expected at least 1");
        }
        Some(count.0)
    }

    fn signal(&mut self, written: &str, at: NodeId) -> Option<String> {
        let name = written.to_ascii_uppercase();
        let name = name.strip_prefix("SIG").unwrap_or(&name);
        if SIGNALS.contains(&name) {
            return Some(name.to_owned());
        }
        let span = self.tree.span(at);
        let message = format!("there is no signal `{written}`");
        let near = self.sink.nearest(name, SIGNALS.iter().copied());
        let expected = one_of(&["TERM", "INT", "QUIT", "HUP", "KILL"]);
        let draft = Draft::error(codes::BAD_VALUE, span, message);
        self.sink.push(
            draft
                .label(format!("expected a name such as {expected}"))
                .suggest(span, near),
        );
        None
    }
}

pub(super) fn port_number(port: &Port) -> Option<u16> {
    u16::try_from(port.0).ok().filter(|port| *port > 0)
}

/// The good values of a list.
pub(super) fn values<T, U>(field: &Field<List<T>>, make: impl Fn(&T) -> U) -> Vec<U> {
    let items = field.value.iter().flat_map(|list| &list.0);
    items
        .filter_map(|item| item.value.as_ref())
        .map(make)
        .collect()
}
