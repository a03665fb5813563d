//! Over random manifests and random observed states: a plan that is applied leaves nothing to plan,
//! breaks no rule of order in any order that its `after` allows, does not depend on the order of
//! keys, and shows no digest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gabion::model::*;
use gabion::plan::{self, Cause, Operation, Options, Plan, render, simulate};
use proptest::prelude::*;

const SANDBOXES: [&str; 4] = ["a", "b", "c", "d"];
const SERVICES: [&str; 5] = ["p", "q", "r", "s", "t"];
/// Stands for every digest: must not be in any rendering.
const DIGEST: &str = "d19e57";

fn sandbox_name(at: usize) -> SandboxName {
    SandboxName::new(SANDBOXES[at % SANDBOXES.len()]).unwrap()
}

fn service_name(at: usize) -> ServiceName {
    ServiceName::new(SERVICES[at % SERVICES.len()]).unwrap()
}

/// The place of a service in the order that keeps wanted needs free of circles.
fn number(sandbox: usize, service: usize) -> usize {
    service * SANDBOXES.len() + sandbox
}

#[derive(Debug, Clone)]
struct ServiceSeed {
    present: bool,
    task: bool,
    stopped: bool,
    arg: u8,
    digest: u8,
    description: u8,
    port: Option<u16>,
    needs: Vec<(usize, usize, u8, bool)>,
}

fn service_seed() -> impl Strategy<Value = ServiceSeed> {
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
    )
        .prop_map(
            |(present, task, stopped, arg, digest, description, port, needs)| ServiceSeed {
                present,
                task,
                stopped,
                arg,
                digest,
                description,
                port,
                needs,
            },
        )
}

#[derive(Debug, Clone)]
struct SandboxSeed {
    present: bool,
    stopped: bool,
    base: u8,
    topic: u8,
    protect: bool,
    platform: u8,
    needs: Option<(usize, usize, bool, bool)>,
    services: Vec<ServiceSeed>,
}

fn sandbox_seed() -> impl Strategy<Value = SandboxSeed> {
    (
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.12),
        0..10u8,
        0..3u8,
        prop::bool::weighted(0.1),
        0..20u8,
        prop::option::weighted(0.3, (0..4usize, 0..5usize, any::<bool>(), any::<bool>())),
        prop::collection::vec(service_seed(), 5),
    )
        .prop_map(
            |(present, stopped, base, topic, protect, platform, needs, services)| SandboxSeed {
                present,
                stopped,
                base,
                topic,
                protect,
                platform,
                needs,
                services,
            },
        )
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

/// A manifest without circles: a service needs only what has a lower number.
fn desired(seeds: &[SandboxSeed]) -> Desired {
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
                    let condition = condition(seeds[*s].services[*m].task, *how);
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
enum Drift {
    /// As wanted.
    Same,
    /// Absent.
    Absent,
    /// From a seed of its own.
    Other(ServiceSeed),
    Unknown,
}

#[derive(Debug, Clone)]
struct FoundSeed {
    how: u8,
    up: bool,
    spec: Option<SandboxSeed>,
    services: Vec<(Drift, usize, bool)>,
}

fn found_seed() -> impl Strategy<Value = FoundSeed> {
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
    )
        .prop_map(|(how, up, spec, services)| FoundSeed {
            how,
            up,
            spec,
            services,
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
fn observed(desired: &Desired, seeds: &[FoundSeed]) -> Observed {
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
                        (Drift::Same, Some(wanted)) => Definition::Echo(wanted),
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
                    isolation: Isolation::None,
                    supervisor_pid: None,
                    services,
                })
            }
        };
        observed.sandboxes.insert(name, listing);
    }
    observed
}

/// An order that `after` allows, picked by `choices`.
fn some_order(plan: &Plan, choices: &[usize]) -> Vec<usize> {
    let mut left: Vec<usize> = (0..plan.actions.len()).collect();
    let mut order = Vec::new();
    let mut choices = choices.iter().cycle();
    while !left.is_empty() {
        let free: Vec<usize> = left
            .iter()
            .copied()
            .filter(|at| {
                plan.actions[*at]
                    .after
                    .iter()
                    .all(|it| order.contains(&it.action))
            })
            .collect();
        let pick = free[choices.next().unwrap() % free.len()];
        left.retain(|at| *at != pick);
        order.push(pick);
    }
    order
}

/// A plan in short, for messages.
fn short(plan: &Plan) -> String {
    let line = |action: &gabion::plan::Action| {
        let after: Vec<String> = action
            .after
            .iter()
            .map(|it| plan.actions[it.action].id())
            .collect();
        format!("{} {:?} after {after:?}\n", action.id(), action.cause)
    };
    let problems = plan
        .problems
        .iter()
        .map(|it| format!("{}: {}\n", it.address, it.message));
    plan.actions.iter().map(line).chain(problems).collect()
}

/// Applies in some order; the message of a failure has the plan.
fn simulated(desired: &Desired, observed: &Observed, plan: &Plan, choices: &[usize]) -> Observed {
    let order = some_order(plan, choices);
    let after = simulate::run_in_order(desired, observed, plan, &order);
    after.unwrap_or_else(|why| panic!("{why}\n{}", short(plan)))
}

fn check_renderings(plan: &Plan) {
    for width in [20, 80] {
        for color in [false, true] {
            let text = render::text(plan, None, &render::Style { color, width });
            assert!(!text.contains(DIGEST), "{text}");
            assert!(color || !text.contains('\u{1b}'), "{text:?}");
        }
    }
    let json = render::json(plan, None).to_string();
    assert!(!json.contains(DIGEST), "{json}");
}

fn check_unchanged(plan: &Plan, desired: &Desired, observed: &Observed) {
    for action in &plan.actions {
        let Address::Service(address) = &action.address else {
            continue;
        };
        let (Some(wanted), Some(place)) =
            (desired.service(address), observed.known(&address.sandbox))
        else {
            continue;
        };
        let found = place.services.get(&address.service);
        let Some(found) = found.filter(|it| it.spec() == Some(wanted)) else {
            continue;
        };
        let settled = found.state == ServiceState::Running
            && !found.stale
            && wanted.kind == ServiceKind::Service
            && wanted.state == ServiceGoal::Running;
        let sandbox = &desired.sandboxes[&address.sandbox].spec;
        let moved = sandbox.base != place.spec.base || sandbox.state == SandboxGoal::Stopped;
        if settled && place.state == SandboxState::Running && !moved {
            let allowed = matches!(&action.cause, Cause::DependencyRestarted { .. });
            assert!(
                allowed,
                "{} is as it should be: {:?}",
                action.id(),
                action.cause
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, max_shrink_iters: 3000, ..ProptestConfig::default() })]

    #[test]
    fn plans_converge_and_keep_the_rules(
        wanted in prop::collection::vec(sandbox_seed(), 4),
        found in prop::collection::vec(found_seed(), 4),
        choices in prop::collection::vec(0..97usize, 1..9),
    ) {
        let desired = desired(&wanted);
        let observed = observed(&desired, &found);
        let plan = plan::plan(&desired, &observed, &Options::default()).unwrap();
        let after = simulated(&desired, &observed, &plan, &choices);
        let again = plan::plan(&desired, &after, &Options::default()).unwrap();
        prop_assert!(again.is_empty(), "{:?}", again.actions);
        check_renderings(&plan);
        check_unchanged(&plan, &desired, &observed);
        let ids: BTreeSet<String> = plan.actions.iter().map(|action| action.id()).collect();
        prop_assert_eq!(ids.len(), plan.actions.len());
    }

    #[test]
    fn limited_plans_operations_and_destroy_keep_the_rules(
        wanted in prop::collection::vec(sandbox_seed(), 4),
        found in prop::collection::vec(found_seed(), 4),
        targets in prop::collection::vec((0..4usize, prop::option::of(0..5usize)), 1..3),
        op in 0..3u8,
        choices in prop::collection::vec(0..97usize, 1..9),
    ) {
        let desired = desired(&wanted);
        let observed = observed(&desired, &found);
        let targets: Vec<Address> = targets
            .into_iter()
            .map(|(s, n)| match n {
                None => sandbox_name(s).into(),
                Some(n) => ServiceAddress::new(sandbox_name(s), service_name(n)).into(),
            })
            .collect();
        let options = Options { destroy: false, targets: targets.clone() };
        let plan = plan::plan(&desired, &observed, &options).unwrap();
        simulated(&desired, &observed, &plan, &choices);
        check_renderings(&plan);

        let op = [Operation::Start, Operation::Stop, Operation::Restart][usize::from(op)];
        let plan = plan::operate(&desired, &observed, op, &targets, Cause::Requested).unwrap();
        simulated(&desired, &observed, &plan, &choices);
        check_renderings(&plan);

        let nothing = Desired::empty("shop");
        let options = Options { destroy: true, targets: vec![] };
        let plan = plan::plan(&nothing, &observed, &options).unwrap();
        simulated(&nothing, &observed, &plan, &choices);
    }

    #[test]
    fn the_order_of_keys_does_not_matter(
        wanted in prop::collection::vec(sandbox_seed(), 4),
        found in prop::collection::vec(found_seed(), 4),
    ) {
        let desired = desired(&wanted);
        let observed = observed(&desired, &found);
        let plan = plan::plan(&desired, &observed, &Options::default()).unwrap();
        let mut other = Desired::empty("shop");
        for (name, sandbox) in desired.sandboxes.iter().rev() {
            let mut copy = sandbox.clone();
            copy.services = BTreeMap::new();
            for (name, spec) in sandbox.services.iter().rev() {
                let mut spec = ServiceSpec::clone(spec);
                let env = std::mem::take(&mut spec.env);
                spec.env.extend(env.into_iter().rev());
                let spec = Arc::new(spec);
                copy.services.insert(name.clone(), spec);
            }
            other.sandboxes.insert(name.clone(), copy);
        }
        prop_assert_eq!(plan, plan::plan(&other, &observed, &Options::default()).unwrap());
    }
}
