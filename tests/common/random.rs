//! Random manifests without circles, and random states of the world, from proptest.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gabion::model::*;
use proptest::prelude::*;

pub const SANDBOXES: [&str; 4] = ["a", "b", "c", "d"];
pub const SERVICES: [&str; 5] = ["p", "q", "r", "s", "t"];
/// Stands for every digest: must not be in any rendering.
pub const DIGEST: &str = "not-to-be-shown";

pub fn sandbox_name(at: usize) -> SandboxName {
    SandboxName::new(SANDBOXES[at % SANDBOXES.len()]).unwrap()
}

pub fn service_name(at: usize) -> ServiceName {
    ServiceName::new(SERVICES[at % SERVICES.len()]).unwrap()
}

/// The place of a service in the order that keeps wanted needs free of circles.
fn number(sandbox: usize, service: usize) -> usize {
    service * SANDBOXES.len() + sandbox
}

#[derive(Debug, Clone)]
pub struct ServiceSeed {
    present: bool,
    task: bool,
    stopped: bool,
    arg: u8,
    digest: u8,
    description: u8,
    port: Option<u16>,
    needs: Vec<(usize, usize, u8, bool)>,
    names_url: bool,
}

pub fn service_seed() -> impl Strategy<Value = ServiceSeed> {
    let need = (0..4usize, 0..5usize, 0..3u8, any::<bool>());
    (
        prop::bool::weighted(0.75),
        prop::bool::weighted(0.25),
        prop::bool::weighted(0.12),
        0..2u8,
        0..2u8,
        0..2u8,
        prop::option::weighted(0.5, 3000..3004u16),
        prop::collection::vec(need, 0..3),
        prop::bool::weighted(0.3),
    )
        .prop_map(
            |(present, task, stopped, arg, digest, description, port, needs, names_url)| {
                ServiceSeed {
                    present,
                    task,
                    stopped,
                    arg,
                    digest,
                    description,
                    port,
                    needs,
                    names_url,
                }
            },
        )
}

#[derive(Debug, Clone)]
pub struct SandboxSeed {
    present: bool,
    stopped: bool,
    base: u8,
    topic: u8,
    volumes: u8,
    files: u8,
    protect: bool,
    platform: u8,
    needs: Option<(usize, usize, bool, bool)>,
    services: Vec<ServiceSeed>,
}

pub fn sandbox_seed() -> impl Strategy<Value = SandboxSeed> {
    (
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.12),
        0..10u8,
        0..3u8,
        0..20u8,
        0..20u8,
        prop::bool::weighted(0.1),
        0..20u8,
        prop::option::weighted(0.3, (0..4usize, 0..5usize, any::<bool>(), any::<bool>())),
        prop::collection::vec(service_seed(), 5),
    )
        .prop_map(
            |(
                present,
                stopped,
                base,
                topic,
                volumes,
                files,
                protect,
                platform,
                needs,
                services,
            )| {
                SandboxSeed {
                    present,
                    stopped,
                    base,
                    topic,
                    volumes,
                    files,
                    protect,
                    platform,
                    needs,
                    services,
                }
            },
        )
}

/// None, mostly; or one or two, at paths that they may have in common with other ones.
fn volumes(seed: u8) -> Volumes {
    let volumes: &[_] = match seed {
        0 => &[("data", "/a")],
        1 => &[("data", "/b")],
        2 => &[("cache", "/a"), ("data", "/b")],
        _ => &[],
    };
    let owned = |(name, path): &(&str, &str)| ((*name).to_owned(), (*path).to_owned());
    volumes.iter().map(owned).collect()
}

/// Paths of files and digests of what is in them: none, mostly; or one or two.
fn files(seed: u8) -> &'static [(&'static str, &'static str)] {
    match seed {
        0 => &[("/a.conf", "d1")],
        1 => &[("/a.conf", "d2")],
        2 => &[("/a.conf", "d1"), ("/b.conf", "d1")],
        _ => &[],
    }
}

fn sandbox_spec(seed: &SandboxSeed) -> SandboxSpec {
    SandboxSpec {
        platform: if seed.platform == 0 {
            "cloud".into()
        } else {
            "local".into()
        },
        base: (seed.base == 0).then(|| "slim".into()),
        topics: (0..seed.topic).map(|at| format!("topic{at}")).collect(),
        volumes: volumes(seed.volumes),
        files: files(seed.files)
            .iter()
            .map(|(path, _)| ((*path).to_owned(), format!("{path} of it")))
            .collect(),
        secrets: files(seed.files)
            .iter()
            .map(|(path, digest)| (format!("{path} of it"), (*digest).to_owned()))
            .collect(),
        protect: seed.protect,
        state: if seed.stopped {
            SandboxGoal::Stopped
        } else {
            SandboxGoal::Running
        },
        ..SandboxSpec::default()
    }
}

fn service_spec(seed: &ServiceSeed) -> ServiceSpec {
    let mut spec = ServiceSpec::new(Program::Exec {
        cmd: "serve".into(),
        args: vec!["--n".into(), seed.arg.to_string()],
    });
    if seed.task {
        spec.kind = ServiceKind::Task;
    }
    if seed.stopped {
        spec.state = ServiceGoal::Stopped;
    }
    spec.env.insert("KEY".into(), "${secret.key}".into());
    spec.secrets
        .insert("key".into(), format!("{DIGEST}{}", seed.digest));
    spec.description = (seed.description == 1).then(|| "a\nb\u{1b}[31m".into());
    spec.ports = seed.port.into_iter().collect();
    spec
}

fn condition(task: bool, number: u8) -> Condition {
    match (number, task) {
        (0, _) => Condition::Started,
        (_, true) => Condition::Completed,
        _ => Condition::Ready,
    }
}

fn url_port(sandbox: usize, service: usize) -> u16 {
    9000 + u16::try_from(number(sandbox, service)).unwrap()
}

/// Lets a definition name the URL of a service.
fn name_url(spec: &mut ServiceSpec, sandbox: usize, service: usize) {
    let port = url_port(sandbox, service);
    let service = ServiceAddress::new(sandbox_name(sandbox), service_name(service));
    let written = format!("services.{service}.url");
    spec.env
        .insert(format!("URL_{port}"), format!("${{{written}}}/x"));
    spec.references.insert(written, Reference { service, port });
}

/// A manifest without circles: a service needs only what has a lower number.
pub fn desired(seeds: &[SandboxSeed]) -> Desired {
    let mut desired = Desired::empty("shop");
    let present = |s: usize, n: usize| seeds[s].present && seeds[s].services[n].present;
    for (at, seed) in seeds.iter().enumerate().filter(|(_, seed)| seed.present) {
        let mut services = BTreeMap::new();
        let floor = |n: usize| match &seed.needs {
            // A sandbox that needs others has services above everything in them.
            Some((to, ..)) => to % SANDBOXES.len() < at && n < 5,
            None => true,
        };
        for (n, service) in seed
            .services
            .iter()
            .enumerate()
            .filter(|(_, it)| it.present)
        {
            let mut spec = service_spec(service);
            spec.http_port = Some(url_port(at, n));
            let mut seen = BTreeSet::new();
            for (s, m, how, restart) in &service.needs {
                let lower = *s < at || (*s == at && *m < n);
                let plain = number(*s, *m) < number(at, n);
                let no_sandbox_needs = seeds.iter().all(|it| it.needs.is_none());
                let ok = if no_sandbox_needs { plain } else { lower };
                if ok && present(*s, *m) && floor(n) && seen.insert((*s, *m)) {
                    let target = if *s == at {
                        NeedTarget::Local(service_name(*m))
                    } else {
                        NeedTarget::Remote(ServiceAddress::new(sandbox_name(*s), service_name(*m)))
                    };
                    let task = seeds[*s].services[*m].task;
                    if service.names_url && !task {
                        name_url(&mut spec, *s, *m);
                    }
                    let condition = condition(task, *how);
                    spec.needs.push(Need {
                        target,
                        condition,
                        restart: *restart,
                    });
                }
            }
            services.insert(service_name(n), Arc::new(spec));
        }
        let mut spec = sandbox_spec(seed);
        if let Some((to, m, whole, restart)) = seed.needs
            && to < at
            && seeds[to].present
        {
            let target = if whole || !seeds[to].services[m].present {
                NeedTarget::Sandbox(sandbox_name(to))
            } else {
                NeedTarget::Remote(ServiceAddress::new(sandbox_name(to), service_name(m)))
            };
            spec.needs.push(Need {
                target,
                condition: Condition::Ready,
                restart,
            });
        }
        let spec = Arc::new(spec);
        let sandbox = DesiredSandbox {
            spec,
            services,
            watch: BTreeMap::new(),
        };
        desired.sandboxes.insert(sandbox_name(at), sandbox);
    }
    desired
}

#[derive(Debug, Clone)]
pub enum Drift {
    /// As wanted.
    Same,
    /// Absent.
    Absent,
    /// From a seed of its own.
    Other(ServiceSeed),
    Unknown,
}

#[derive(Debug, Clone)]
pub struct FoundSeed {
    how: u8,
    up: bool,
    spec: Option<SandboxSeed>,
    services: Vec<(Drift, usize, bool)>,
    /// What is told of the URLs of its services.
    url: u8,
}

/// The URL in every definition found that has one.
const OLD_URL: &str = "https://old.example";

pub fn found_seed() -> impl Strategy<Value = FoundSeed> {
    let drift = prop_oneof![
        5 => Just(Drift::Same),
        1 => Just(Drift::Absent),
        3 => service_seed().prop_map(Drift::Other),
        1 => Just(Drift::Unknown),
    ];
    let service = (drift, 0..14usize, prop::bool::weighted(0.1));
    (
        0..12u8,
        prop::bool::weighted(0.85),
        prop::option::weighted(0.3, sandbox_seed()),
        prop::collection::vec(service, 5),
        0..7u8,
    )
        .prop_map(|(how, up, spec, services, url)| FoundSeed {
            how,
            up,
            spec,
            services,
            url,
        })
}

const STATES: [ServiceState; 14] = [
    ServiceState::Running,
    ServiceState::Running,
    ServiceState::Running,
    ServiceState::Running,
    ServiceState::Completed,
    ServiceState::Completed,
    ServiceState::Stopped,
    ServiceState::Starting,
    ServiceState::Unhealthy,
    ServiceState::Stopping,
    ServiceState::BackingOff,
    ServiceState::Failed,
    ServiceState::Unknown,
    ServiceState::Stopped,
];

/// Any state of the world, with needs that may be circles or lead nowhere.
pub fn observed(desired: &Desired, seeds: &[FoundSeed]) -> Observed {
    let mut observed = Observed::default();
    for (at, seed) in seeds.iter().enumerate() {
        let name = sandbox_name(at);
        let listing = match seed.how {
            0 => continue,
            1 => Listing::Unknown {
                reason: "connection refused".into(),
            },
            _ => {
                let wanted = desired.sandboxes.get(&name);
                let spec = match (&seed.spec, wanted) {
                    (None, Some(wanted)) => wanted.spec.clone(),
                    (other, _) => Arc::new(other.as_ref().map(sandbox_spec).unwrap_or_default()),
                };
                let mut services = BTreeMap::new();
                for (n, (drift, state, stale)) in seed.services.iter().enumerate() {
                    let service = service_name(n);
                    let wanted = wanted.and_then(|it| it.services.get(&service)).cloned();
                    let definition = match (drift, wanted) {
                        (Drift::Absent, _) | (Drift::Same, None) => continue,
                        (Drift::Same, Some(wanted)) => {
                            let written = wanted.resolved(|_| Some(OLD_URL.into()));
                            Definition::Echo(Arc::new(written))
                        }
                        (Drift::Unknown, _) => Definition::Unknown,
                        (Drift::Other(other), _) => {
                            let mut spec = service_spec(other);
                            for (s, m, how, restart) in &other.needs {
                                let target =
                                    ServiceAddress::new(sandbox_name(*s), service_name(*m));
                                spec.needs.push(Need {
                                    target: NeedTarget::Remote(target),
                                    condition: condition(false, *how),
                                    restart: *restart,
                                });
                            }
                            Definition::Echo(Arc::new(spec))
                        }
                    };
                    let mut it = ObservedService::stopped(Arc::new(service_spec(&ServiceSeed {
                        present: true,
                        task: false,
                        stopped: false,
                        arg: 0,
                        digest: 0,
                        description: 0,
                        port: None,
                        needs: vec![],
                        names_url: false,
                    })));
                    it.definition = definition;
                    it.state = STATES[*state];
                    it.stale = *stale;
                    services.insert(service, it);
                }
                Listing::Known(ObservedSandbox {
                    spec,
                    state: if seed.up {
                        SandboxState::Running
                    } else {
                        SandboxState::Stopped
                    },
                    spec_known: true,
                    isolation: Some(Isolation::None),
                    keeper_pid: None,
                    supervisor_pid: None,
                    services,
                })
            }
        };
        observed.sandboxes.insert(name, listing);
    }
    let named = desired
        .services()
        .flat_map(|(_, spec)| spec.references.values());
    for reference in named {
        let at = SANDBOXES
            .iter()
            .position(|it| *it == reference.service.sandbox.as_str());
        let url = match (
            observed.known(&reference.service.sandbox),
            seeds[at.unwrap()].url,
        ) {
            (None, _) | (_, 0..2) => continue,
            (_, 2..5) => Url::Known(OLD_URL.into()),
            (_, 5) => Url::Known("https://new.example".into()),
            _ => Url::Unknown {
                reason: "connection refused".into(),
            },
        };
        observed.urls.insert(reference.clone(), url);
    }
    observed
}
