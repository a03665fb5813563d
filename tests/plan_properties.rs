//! Over random manifests and random observed states: a plan that is applied leaves nothing to plan,
//! breaks no rule of order in any order that its `after` allows, does not depend on the order of
//! keys, and shows no digest.

#[path = "common/random.rs"]
mod random;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gabion::model::*;
use gabion::plan::file::{self, PlanFile};
use gabion::plan::{self, Cause, Operation, Options, Plan, render, simulate};
use proptest::prelude::*;
use random::{DIGEST, desired, found_seed, observed, sandbox_name, sandbox_seed, service_name};

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

/// A plan that was saved is fresh, does the same, and holds no digest.
fn check_file(desired: &Desired, observed: &Observed, plan: &Plan) {
    let text = file::save(plan, desired, observed);
    assert!(!text.contains(DIGEST), "{text}");
    let file = PlanFile::parse(&text).unwrap();
    let definitions = file.definitions(desired).unwrap();
    assert_eq!(file.stale(&definitions, observed), []);
    let unreadable = |it: &Listing| matches!(it, Listing::Unknown { .. });
    if !plan.problems.is_empty() || observed.sandboxes.values().any(unreadable) {
        // Refused before it is looked at; and what is wanted in a sandbox that cannot be read is
        // not in the file, so that a plan beside it may be refused.
        return;
    }
    let again = file.rebuild(&definitions, observed);
    let again = again.unwrap_or_else(|why| panic!("{why}\n{}", short(plan)));
    let ids = |plan: &Plan| {
        plan.actions
            .iter()
            .map(|it| it.id())
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(ids(&again), ids(plan));
    for text in [
        render::markdown(plan, None),
        render::dot(plan),
        render::mermaid(plan),
    ] {
        assert!(!text.contains(DIGEST), "{text}");
    }
    if !plan.is_empty() {
        let after = simulate::run(desired, observed, plan).unwrap();
        assert_ne!(file.stale(&definitions, &after), []);
    }
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
        let moved = sandbox.base != place.spec.base
            || sandbox.volumes != place.spec.volumes
            || (&sandbox.files, &sandbox.secrets) != (&place.spec.files, &place.spec.secrets)
            || sandbox.state == SandboxGoal::Stopped;
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
        check_file(&desired, &observed, &plan);
        check_unchanged(&plan, &desired, &observed);
        let ids: BTreeSet<String> = plan.actions.iter().map(|action| action.id()).collect();
        prop_assert_eq!(ids.len(), plan.actions.len());
    }

    #[test]
    fn limited_plans_operations_and_destroy_keep_the_rules(
        wanted in prop::collection::vec(sandbox_seed(), 4),
        found in prop::collection::vec(found_seed(), 4),
        targets in prop::collection::vec((0..4usize, prop::option::of(0..5usize)), 1..3),
        op in 0..4u8,
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
        check_file(&desired, &observed, &plan);

        let ops = [
            Operation::Start,
            Operation::Stop,
            Operation::Restart,
            Operation::RestartSandbox,
        ];
        let op = ops[usize::from(op)];
        let plan = plan::operate(&desired, &observed, op, &targets, Cause::Requested).unwrap();
        simulated(&desired, &observed, &plan, &choices);
        check_renderings(&plan);

        let nothing = Desired::empty("shop");
        let options = Options { destroy: true, targets: vec![] };
        let plan = plan::plan(&nothing, &observed, &options).unwrap();
        simulated(&nothing, &observed, &plan, &choices);
        check_file(&nothing, &observed, &plan);
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
