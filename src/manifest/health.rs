//! One service's health check → its spec.

use super::codes;
use super::diagnostic::Draft;
use super::field::{Either, Field, List};
use super::service::Parts;
use super::tree::NodeId;
use super::types::{HealthRule, HttpRule, Port, Status};
use crate::model::{Health, HttpProbe, HumanDuration, Probe, StatusRange};

impl Parts<'_, '_> {
    pub(super) fn health(&mut self) -> Option<Health> {
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
        if let Some((rule, at)) = service.health.get() {
            let mut health = Health::new(self.probe(rule, at)?);
            self.rule(&mut health, rule);
            return Some(health);
        }
        let mut health = Health::new(Probe::Tcp { port: short? });
        health.timeout = service.timeout.value.unwrap_or(health.timeout);
        Some(health)
    }

    /// Everything but what is asked.
    fn rule(&mut self, health: &mut Health, rule: &HealthRule) {
        let timeout = rule.timeout.value.or(self.service.timeout.value);
        health.timeout = timeout.unwrap_or(health.timeout);
        health.interval = rule.interval.value.unwrap_or(health.interval);
        health.start_period = rule.start_period.value.unwrap_or(health.start_period);
        health.probe_timeout = rule.probe_timeout.value.unwrap_or(health.probe_timeout);
        health.restart = rule.restart.value.as_ref().is_some_and(|flag| flag.0);
        self.more_than_zero(&rule.interval, "would never rest");
        self.more_than_zero(&rule.probe_timeout, "could never pass");
        if let Some((retries, at)) = rule.retries.get() {
            health.retries = retries.0;
            if retries.0 == 0 {
                let message = format!("the health check of `{}` may never fail", self.address);
                let label = "expected at least 1";
                self.push(codes::BAD_VALUE, self.tree.span(at), message, label);
            }
        }
        if health.restart && matches!(health.probe, Probe::Log { .. }) {
            let message = format!("`health.restart` means nothing for `{}`", self.address);
            let at = self.key(rule.restart.at);
            let draft = Draft::error(codes::NOT_MEANINGFUL, at, message);
            let draft = draft.label("a `log` check is done once it has passed");
            self.sink
                .push(draft.help("`tcp`, `http`, `exec` and `notify` are asked again and again"));
        }
    }

    fn more_than_zero(&mut self, field: &Field<HumanDuration>, why: &str) {
        if let Some((duration, at)) = field.get()
            && duration.0.is_zero()
        {
            let message = format!("the health check of `{}` {why}", self.address);
            let label = "expected more than 0s";
            self.push(codes::BAD_VALUE, self.tree.span(at), message, label);
        }
    }

    fn probe(&mut self, rule: &HealthRule, at: NodeId) -> Option<Probe> {
        // `notify: false` is the same as none.
        let notify = rule.notify.bad || rule.notify.value.as_ref().is_some_and(|flag| flag.0);
        let given = [
            ("tcp", rule.tcp.given(), rule.tcp.at),
            ("http", rule.http.given(), rule.http.at),
            ("exec", rule.exec.given(), rule.exec.at),
            ("log", rule.log.given(), rule.log.at),
            ("notify", notify, rule.notify.at),
        ];
        let given: Vec<_> = given.into_iter().filter(|(_, given, _)| *given).collect();
        if given.len() != 1 {
            let message = match given.as_slice() {
                [] => format!("the health check of `{}` checks nothing", self.address),
                _ => format!("the health check of `{}` is several checks", self.address),
            };
            let expected = "expected exactly one of `tcp`, `http`, `exec`, `log` and `notify`";
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
            return self.http(http, at).map(Probe::Http);
        }
        if notify {
            return Some(Probe::Notify {});
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

    fn http(&mut self, rule: &HttpRule, at: NodeId) -> Option<HttpProbe> {
        let port = self.required_port(&rule.port, at);
        let path = rule.path.value.clone().unwrap_or_else(|| "/".to_owned());
        let printable = |text: &str| !text.contains(|c: char| c.is_control() || c == ' ');
        if let Some(at) = rule.path.at
            && !(path.starts_with('/') && printable(&path))
        {
            let message = format!("`{}` is not the path of a URL", path.escape_debug());
            let label = "expected a path that starts with `/`, without spaces";
            self.push(codes::BAD_VALUE, self.tree.span(at), message, label);
        }
        if let Some((host, at)) = rule.host.get()
            && hyper::header::HeaderValue::from_str(host).is_err()
        {
            let message = format!("`{}` is not the name of a host", host.escape_debug());
            let label = "expected a name such as `shop.example.org`";
            self.push(codes::BAD_VALUE, self.tree.span(at), message, label);
        }
        if let Some((body, at)) = rule.body.get() {
            self.not_empty(body.is_empty(), at, "body");
        }
        let mut probe = HttpProbe::new(port.unwrap_or_default(), path);
        probe.scheme = rule.scheme.value.unwrap_or_default();
        probe.status = statuses(rule);
        probe.body.clone_from(&rule.body.value);
        probe.host.clone_from(&rule.host.value);
        for (key, field) in rule.headers.value.iter().flat_map(|dict| &dict.0) {
            let value = field.value.as_ref().map_or("", |text| text.0.as_str());
            let name = hyper::header::HeaderName::from_bytes(key.name.as_bytes());
            if name.is_err() || hyper::header::HeaderValue::from_str(value).is_err() {
                let message = format!("`{}` is not an HTTP header", key.name.escape_debug());
                let label = "a name has no spaces, a value is one line";
                self.push(codes::BAD_VALUE, self.tree.span(key.at), message, label);
            }
            probe.headers.insert(key.name.clone(), value.to_owned());
        }
        port.map(|_| probe)
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
}

fn statuses(rule: &HttpRule) -> Vec<StatusRange> {
    match &rule.status.value {
        None => Vec::new(),
        Some(Either::Short(Status(range))) => vec![*range],
        Some(Either::Long(List(list))) => {
            let ranges = list.iter().filter_map(|field| field.value.as_ref());
            ranges.map(|status| status.0).collect()
        }
    }
}
