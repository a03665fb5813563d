//! Specs as definitions of Sprites, and definitions as specs.
//!
//! The mark is a variable in the service's environment: written with the definition in one request,
//! echoed with it, and gone with it. It holds the spec as it was, so that what Sprites does not know
//! (health, descriptions, …) can be compared too. What Sprites does echo is compared with what the mark's
//! spec was sent as; where they differ, somebody has changed it by hand, and the spec shows that.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::wire::{Definition, Service, Status};
use crate::model::{
    Condition, Definition as Known, Exit, MissingSecret, Need, NeedTarget, ObservedService,
    Program, Secrets, ServiceAddress, ServiceGoal, ServiceKind, ServiceName, ServiceSpec,
    ServiceState, digest,
};
use crate::platforms::cloud::mark::{self, Owner, ServiceMark};
use crate::platforms::cloud::supply::task;

/// The variable that holds the mark.
const VARIABLE: &str = "GABION_MARK";

/// Stands for the digest of a secret whose value was changed by hand.
const CHANGED: &str = "changed by hand";

/// What is known of a service of ours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Mark {
    #[serde(flatten)]
    pub mark: ServiceMark,
    /// Of a task, which run of it this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Of a task, whether this run of it is only noted, and not begun.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub noted: bool,
    /// Of a task that has ended, how: from then on its definition runs nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct End {
    pub code: i32,
    pub at: Timestamp,
}

impl Mark {
    pub fn new(stack: &str, address: &ServiceAddress, spec: &ServiceSpec) -> Self {
        Self {
            mark: ServiceMark {
                owner: Owner {
                    stack: stack.to_owned(),
                    sandbox: address.sandbox.clone(),
                },
                service: address.service.clone(),
                spec: spec.clone(),
            },
            run: None,
            noted: false,
            end: None,
        }
    }

    /// The mark of a service, if it is one of `owner`'s.
    pub fn of(service: &Service, owner: &Owner) -> Option<Self> {
        Self::read(service).filter(|found| found.mark.owner == *owner)
    }

    /// Whose a service is by its mark.
    pub fn owner(service: &Service) -> Option<Owner> {
        Self::read(service).map(|found| found.mark.owner)
    }

    /// One that was copied from another service is no mark of this one.
    fn read(service: &Service) -> Option<Self> {
        let text = service.definition.env.get(VARIABLE)?;
        let found: Self = mark::decode(text)?;
        (found.mark.service.as_str() == service.name).then_some(found)
    }

    pub fn spec(&self) -> &ServiceSpec {
        &self.mark.spec
    }

    /// Where the exit code of this run of a task is kept.
    pub fn exit_file(&self) -> String {
        task::exit_file(&self.mark.service, self.run.as_deref().unwrap_or_default())
    }

    /// Whether a task of this definition is run, and not only kept.
    fn runs(&self) -> bool {
        self.end.is_none() && self.spec().state == ServiceGoal::Running
    }

    fn argv(&self) -> Vec<String> {
        let argv = self.spec().program.argv();
        match self.spec().kind {
            ServiceKind::Service => argv,
            ServiceKind::Task if self.noted => task::waiting(),
            ServiceKind::Task => task::argv(&self.exit_file(), self.runs().then_some(&argv)),
        }
    }

    /// The services of this sandbox that Sprites starts before this one. What is only kept needs
    /// nothing; tasks are nobody's business but ours.
    fn needs(&self) -> Vec<String> {
        let spec = self.spec();
        if spec.state == ServiceGoal::Stopped || spec.kind == ServiceKind::Task {
            return Vec::new();
        }
        let needs = spec.needs.iter().filter_map(|need| match &need.target {
            NeedTarget::Local(name) if need.condition != Condition::Completed => {
                Some(name.to_string())
            }
            _ => None,
        });
        needs.collect()
    }

    /// What is sent to Sprites.
    pub fn definition(&self, secrets: &Secrets) -> Result<Definition, MissingSecret> {
        let spec = self.spec();
        let env = secrets.expand_env(spec)?;
        let mut env: BTreeMap<_, _> = env
            .into_iter()
            .map(|(name, value)| (name, value.expose_secret().to_owned()))
            .collect();
        env.insert(VARIABLE.to_owned(), mark::encode(self));
        let mut argv = self.argv().into_iter();
        Ok(Definition {
            cmd: argv.next().unwrap_or_default(),
            args: argv.collect(),
            env,
            dir: dir(spec),
            needs: self.needs(),
            http_port: spec.http_port,
        })
    }

    /// With what is known of the task that another stack's mark was of.
    pub fn after(self, before: Option<Self>) -> Self {
        match before {
            Some(before) => Self {
                mark: self.mark,
                ..before
            },
            None => self,
        }
    }

    /// A definition of somebody else's with this mark, and otherwise as it is.
    pub fn laid_on(&self, definition: &Definition) -> Definition {
        let mut marked = definition.clone();
        marked.env.insert(VARIABLE.to_owned(), mark::encode(self));
        marked
    }

    /// The spec that a definition stands for: the mark's, with what was changed by hand laid over.
    pub fn spec_of(&self, definition: &Definition) -> ServiceSpec {
        let mut spec = self.spec().clone();
        let (argv, echoed) = (self.argv(), definition.argv());
        if argv != echoed {
            spec.program = program(&echoed);
        }
        if dir(&spec) != definition.dir {
            spec.working_dir = definition.dir.as_ref().map(PathBuf::from);
        }
        spec.http_port = definition.http_port;
        let needs = self.needs();
        if needs != definition.needs {
            lay_needs(&mut spec, &needs, &definition.needs);
        }
        self.lay_env(&mut spec, &definition.env);
        spec
    }

    fn lay_env(&self, spec: &mut ServiceSpec, echoed: &BTreeMap<String, String>) {
        let ServiceMark {
            owner,
            service,
            spec: marked,
        } = &self.mark;
        let address = ServiceAddress::new(owner.sandbox.clone(), service.clone());
        for (name, template) in &marked.env {
            let Some(value) = echoed.get(name) else {
                spec.env.remove(name);
                continue;
            };
            match Template::read(template, marked) {
                Template::Text => {
                    spec.env.insert(name.clone(), value.clone());
                }
                Template::Secret(secret, before, after) => {
                    let inner = value
                        .strip_prefix(before)
                        .and_then(|it| it.strip_suffix(after));
                    let found = inner.map(|value| {
                        let value = SecretString::from(value);
                        digest(&owner.stack, &address, secret, &value)
                    });
                    if found.as_ref() != marked.secrets.get(secret) {
                        spec.secrets.insert(secret.to_owned(), CHANGED.to_owned());
                    }
                }
                // Which of them is which cannot be told.
                Template::Secrets => {}
            }
        }
        let added = echoed
            .iter()
            .filter(|(name, _)| *name != VARIABLE && !marked.env.contains_key(*name));
        spec.env
            .extend(added.map(|(name, value)| (name.clone(), value.clone())));
    }

    /// The service as the planner sees it.
    pub fn observed(&self, service: &Service) -> ObservedService {
        let mut spec = self.spec_of(&service.definition);
        let status = service.status();
        let state = self.state(service);
        let stopped = status == Status::Stopped;
        if spec.kind == ServiceKind::Service {
            // Stopping one without another change writes nothing, so what it was asked for last is told
            // by what it does.
            spec.state = match status {
                Status::Stopped => ServiceGoal::Stopped,
                _ => ServiceGoal::Running,
            };
        }
        let goal = match stopped && self.end.is_none() {
            true => ServiceGoal::Stopped,
            false => spec.state,
        };
        let spec = std::sync::Arc::new(spec);
        let live = service.state.clone().unwrap_or_default();
        let up = state.is_up();
        ObservedService {
            definition: match up {
                true => Known::Fixed(spec),
                false => Known::Echo(spec),
            },
            stale: false,
            state,
            goal,
            pid: live.pid.filter(|_| up),
            started_at: live.started_at.filter(|_| up),
            restarts: live.restart_count.unwrap_or(0),
            last_exit: self.end.as_ref().map(|end| Exit {
                code: end.code,
                signal: None,
                at: end.at,
            }),
            next_restart_at: live.next_restart_at,
            message: live.error,
        }
    }

    fn state(&self, service: &Service) -> ServiceState {
        let state = service.state.as_ref();
        let again = state.is_some_and(|state| state.next_restart_at.is_some());
        let status = match service.status() {
            Status::Stopped => ServiceState::Stopped,
            Status::Starting => ServiceState::Starting,
            Status::Running => ServiceState::Running,
            Status::Stopping => ServiceState::Stopping,
            Status::Failed if again => ServiceState::BackingOff,
            Status::Failed => ServiceState::Failed,
            Status::Unknown => ServiceState::Unknown,
        };
        match (&self.end, self.spec().kind) {
            (_, ServiceKind::Service) => status,
            (Some(End { code: 0, .. }), _) => ServiceState::Completed,
            (Some(_), _) => ServiceState::Failed,
            // What keeps its exit code is up for longer than the task itself.
            (None, _) if status == ServiceState::Running => ServiceState::Starting,
            (None, _) => status,
        }
    }
}

/// What a variable's value is made of.
enum Template<'a> {
    /// Text only.
    Text,
    /// One secret, with what is before and after it.
    Secret(&'a str, &'a str, &'a str),
    /// Several.
    Secrets,
}

impl<'a> Template<'a> {
    fn read(text: &'a str, spec: &'a ServiceSpec) -> Self {
        const OPEN: &str = "${secret.";
        let used = |name: &&String| text.contains(&format!("{OPEN}{name}}}"));
        let mut names = spec.secrets.keys().filter(used);
        let Some(name) = names.next() else {
            return Self::Text;
        };
        let mut parts = text.split(OPEN);
        let (before, rest, more) = (parts.next(), parts.next(), parts.next());
        let after = rest.and_then(|rest| rest.strip_prefix(name.as_str())?.strip_prefix('}'));
        match (before, after, more, names.next()) {
            (Some(before), Some(after), None, None) => Self::Secret(name, before, after),
            _ => Self::Secrets,
        }
    }
}

fn dir(spec: &ServiceSpec) -> Option<String> {
    let dir = spec.working_dir.as_ref()?;
    Some(dir.to_string_lossy().into_owned())
}

/// What an argument vector is written as in a manifest.
fn program(argv: &[String]) -> Program {
    match argv {
        [shell, flag, line] if shell == "/bin/sh" && flag == "-c" => Program::Shell {
            command: line.clone(),
        },
        _ => Program::Exec {
            cmd: argv.first().cloned().unwrap_or_default(),
            args: argv.get(1..).unwrap_or_default().to_vec(),
        },
    }
}

/// Takes out of a spec what is not needed any more, and adds what is needed since.
fn lay_needs(spec: &mut ServiceSpec, sent: &[String], echoed: &[String]) {
    spec.needs.retain(|need| {
        let name = need.target.to_string();
        !sent.contains(&name) || echoed.contains(&name)
    });
    for name in echoed.iter().filter(|name| !sent.contains(name)) {
        if let Ok(name) = ServiceName::new(name.as_str()) {
            spec.needs.push(Need {
                target: NeedTarget::Local(name),
                condition: Condition::default(),
                restart: false,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platforms::sprites::wire::State;

    fn address() -> ServiceAddress {
        "web/api".parse().unwrap()
    }

    fn secrets() -> Secrets {
        let mut secrets = Secrets::default();
        secrets.insert("pw", SecretString::from("hunter2"));
        secrets.insert("key", SecretString::from("k3y"));
        secrets
    }

    fn spec() -> ServiceSpec {
        let mut spec = ServiceSpec::new(Program::Shell {
            command: "node server.js".to_owned(),
        });
        for (name, value) in [
            ("MODE", "dev"),
            ("PW", "${secret.pw}"),
            ("URL", "pg://u:${secret.pw}@h"),
            ("BOTH", "${secret.pw}${secret.key}"),
        ] {
            spec.env.insert(name.to_owned(), value.to_owned());
        }
        for name in ["pw", "key"] {
            let value = secrets().get(name).unwrap().clone();
            let digest = digest("shop", &address(), name, &value);
            spec.secrets.insert(name.to_owned(), digest);
        }
        spec.working_dir = Some("app".into());
        spec.http_port = Some(3000);
        spec.description = Some("the API".to_owned());
        for text in ["db", "data/pg", "cache"] {
            spec.needs.push(Need {
                target: text.parse().unwrap(),
                condition: Condition::Ready,
                restart: text == "cache",
            });
        }
        spec
    }

    fn echo(mark: &Mark, status: Status) -> Service {
        Service {
            name: "api".to_owned(),
            definition: mark.definition(&secrets()).unwrap(),
            state: Some(State {
                status,
                pid: Some(7),
                ..State::default()
            }),
        }
    }

    #[test]
    fn what_was_sent_is_recognised_and_its_mark_shows_no_secret() {
        let mark = Mark::new("shop", &address(), &spec());
        let service = echo(&mark, Status::Running);
        assert_eq!(
            service.definition.argv(),
            ["/bin/sh", "-c", "node server.js"]
        );
        assert_eq!(service.definition.needs, ["db", "cache"]);
        assert_eq!(service.definition.env["URL"], "pg://u:hunter2@h");
        let text = mark::encode(&mark);
        let json = serde_json::to_string(&mark::decode::<serde_json::Value>(&text)).unwrap();
        assert!(!json.contains("hunter2") && !json.contains("k3y"), "{json}");
        let found = Mark::of(&service, &mark.mark.owner).unwrap();
        assert_eq!(found, mark);
        let observed = found.observed(&service);
        assert_eq!(observed.definition, Known::Fixed(spec().into()));
        assert_eq!(observed.state, ServiceState::Running);
    }

    #[test]
    fn a_mark_belongs_to_one_service_of_one_sandbox() {
        let mark = Mark::new("shop", &address(), &spec());
        let mut service = echo(&mark, Status::Running);
        let other = Owner {
            stack: "shop2".to_owned(),
            ..mark.mark.owner.clone()
        };
        assert_eq!(Mark::of(&service, &other), None);
        service.name = "copy".to_owned();
        assert_eq!(Mark::of(&service, &mark.mark.owner), None);
        service.definition.env.clear();
        assert_eq!(Mark::of(&service, &mark.mark.owner), None);
    }

    #[test]
    fn what_was_changed_by_hand_is_seen() {
        let mark = Mark::new("shop", &address(), &spec());
        let changed = |change: &dyn Fn(&mut Definition)| {
            let mut definition = mark.definition(&secrets()).unwrap();
            change(&mut definition);
            mark.spec_of(&definition)
        };
        assert_eq!(changed(&|_| {}), spec());
        let args = changed(&|it| it.args[1] = "node other.js".to_owned());
        assert_eq!(args.program.argv()[2], "node other.js");
        assert_eq!(changed(&|it| it.dir = None).working_dir, None);
        assert_eq!(changed(&|it| it.http_port = None).http_port, None);
        let needs = changed(&|it| it.needs = vec!["cache".to_owned(), "mq".to_owned()]);
        let needs: Vec<_> = needs.needs.iter().map(|it| it.target.to_string()).collect();
        assert_eq!(needs, ["data/pg", "cache", "mq"]);
        let env = changed(&|it| {
            it.env.remove("MODE");
            it.env.insert("NEW".to_owned(), "1".to_owned());
        });
        assert!(!env.env.contains_key("MODE") && env.env["NEW"] == "1");
        for (name, value) in [("PW", "other"), ("URL", "pg://u:other@h"), ("URL", "x")] {
            let spec = changed(&|it| {
                it.env.insert(name.to_owned(), value.to_owned());
            });
            assert_eq!(spec.secrets["pw"], CHANGED);
            assert_eq!(spec.env, super::tests::spec().env);
        }
    }

    #[test]
    fn a_stopped_service_is_as_it_was_asked_to_be_last() {
        let mark = Mark::new("shop", &address(), &spec());
        let observed = mark.observed(&echo(&mark, Status::Stopped));
        assert_eq!(observed.state, ServiceState::Stopped);
        assert_eq!(observed.goal, ServiceGoal::Stopped);
        let found = observed.spec().unwrap();
        assert_eq!(found.state, ServiceGoal::Stopped);
        assert!(matches!(observed.definition, Known::Echo(_)));
    }

    #[test]
    fn a_task_is_run_once_and_its_end_is_kept() {
        let mut spec = spec();
        spec.kind = ServiceKind::Task;
        let mut mark = Mark::new("shop", &address(), &spec);
        mark.run = Some("1a".to_owned());
        let observed = mark.observed(&echo(&mark, Status::Running));
        assert_eq!(observed.state, ServiceState::Starting);
        assert_eq!(observed.spec(), Some(&spec.clone().into()));
        let argv = mark.definition(&secrets()).unwrap().argv();
        assert!(argv.contains(&"node server.js".to_owned()));
        for (code, state) in [(0, ServiceState::Completed), (3, ServiceState::Failed)] {
            let at = Timestamp::UNIX_EPOCH;
            mark.end = Some(End { code, at });
            let service = echo(&mark, Status::Stopped);
            assert!(
                !service
                    .definition
                    .argv()
                    .contains(&"node server.js".to_owned())
            );
            let observed = mark.observed(&service);
            assert_eq!(observed.state, state);
            assert_eq!(observed.last_exit.as_ref().unwrap().code, code);
            assert_eq!(observed.definition, Known::Echo(spec.clone().into()));
        }
    }
}
