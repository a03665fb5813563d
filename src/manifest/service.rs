//! One service's fields → its spec.

use std::path::PathBuf;

use super::codes::{self, Code};
use super::diagnostic::{Draft, Sink, Span};
use super::field::{Either, Field, List};
use super::sandbox::enough_memory;
use super::suggest::one_of;
use super::tree::{NodeId, Tree};
use super::types::{Count, Defaults, LimitsRule, Port, RestartRule, SIGNALS, Service, StopRule};
use crate::model::{Limits, Program, Restart, RestartPolicy, ServiceKind, ServiceSpec, Stop};

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
    pub(super) fn push(&mut self, code: &'static Code, at: Span, message: String, label: &str) {
        self.sink.push(Draft::error(code, at, message).label(label));
    }

    /// The key of a field.
    pub(super) fn key(&self, at: Option<NodeId>) -> Span {
        self.tree.key_span(at.unwrap_or(self.key))
    }

    /// Everything but `env` and `needs`. `None` if there is nothing to execute.
    pub fn spec(&mut self) -> Option<ServiceSpec> {
        let service = self.service;
        let program = self.program();
        let ports = self.ports();
        let http_port = self.port(&self.service.http_port);
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
        spec.http_port = http_port;
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

    pub(super) fn port(&mut self, field: &Field<Port>) -> Option<u16> {
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
        } else if container {
            let fields = [
                ("tty", &self.service.tty),
                ("stdin_open", &self.service.stdin_open),
            ];
            for (name, field) in fields {
                if field.value.as_ref().is_some_and(|flag| flag.0) {
                    let message = format!("`{}` runs in a container", self.address);
                    let at = self.key(field.at);
                    let draft = Draft::error(codes::NOT_MEANINGFUL, at, message);
                    let label = format!("`{name}` is for processes only");
                    self.sink.push(draft.label(label));
                }
            }
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
            within: rule.within.value,
            reset_after: rule.reset_after.value.unwrap_or(default.reset_after),
        };
        if rule.within.given() && !rule.max_restarts.given() {
            let message = format!("`within` means nothing for `{}`", self.address);
            let at = self.key(rule.within.at);
            let draft = Draft::error(codes::NOT_MEANINGFUL, at, message);
            let draft = draft.label("how many restarts within that time?");
            self.sink
                .push(draft.help("write for example `max_restarts: 5` beside it"));
        }
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
