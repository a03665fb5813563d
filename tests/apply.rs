//! The applier over random plans on the platform in memory: it converges, parallelism does not
//! matter, a failure costs what depends on it and nothing else, an interrupt loses nothing.

#[path = "common/random.rs"]
mod random;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gabion::apply::{Apply, Interrupt};
use gabion::event::{Event, Outcome, What};
use gabion::model::{Desired, Listing, Observed, Secrets};
use gabion::plan::{self, Options, Plan};
use gabion::platforms::memory::{Memory, Script};
use gabion::platforms::{PlatformError, Platforms};
use proptest::prelude::*;
use random::{FoundSeed, SandboxSeed, found_seed, sandbox_seed};
use tokio::sync::{mpsc, watch};

/// How an action ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Done,
    Failed,
    Abandoned,
    Skipped,
}

/// A stack on a platform in memory.
struct World {
    desired: Desired,
    memory: Memory,
    platforms: Platforms,
}

/// What one apply said and how it ended.
struct Told {
    outcome: Outcome,
    ends: BTreeMap<String, Vec<End>>,
}

impl World {
    fn new(wanted: &[SandboxSeed], found: &[FoundSeed]) -> Self {
        let desired = random::desired(wanted);
        let memory = Memory::new(random::observed(&desired, found));
        let mut platforms = Platforms::default();
        for name in ["local", "cloud"] {
            platforms.add(name, Box::new(memory.clone()));
        }
        Self {
            desired,
            memory,
            platforms,
        }
    }

    async fn plan(&mut self) -> Plan {
        let observed = self.platforms.observe(&self.desired).await.unwrap();
        plan::plan(&self.desired, &observed, &Options::default()).unwrap()
    }

    /// Applies `plan`, and interrupts it at the event with the given number.
    async fn apply(
        &self,
        plan: &Plan,
        parallelism: usize,
        stop: Option<(usize, Interrupt)>,
    ) -> Told {
        let (events, received) = mpsc::unbounded_channel();
        let (interrupt, wish) = watch::channel(Interrupt::None);
        let mut secrets = Secrets::default();
        secrets.insert("key", "value".to_owned().into());
        let apply = Apply {
            platforms: &self.platforms,
            secrets: &secrets,
            parallelism,
            interrupt: wish,
            events,
        };
        let run = async { tokio::join!(apply.run(plan), listen(received, &interrupt, stop)) };
        let (outcome, ends) = tokio::time::timeout(Duration::from_secs(60), run)
            .await
            .expect("the run completes");
        Told { outcome, ends }
    }

    /// Applies once more without disturbance; then nothing is left to do.
    async fn converges(&mut self) {
        let plan = self.plan().await;
        let told = self.apply(&plan, 16, None).await;
        assert!(told.outcome.is_success(), "{:?}", told.ends);
        self.has_settled(&plan, 16).await;
    }

    fn left_some_out_that_names_a_url(&self, plan: &Plan) -> bool {
        let names: BTreeSet<_> = self
            .desired
            .services()
            .filter(|(_, spec)| !spec.references.is_empty())
            .map(|(address, _)| address.to_string())
            .collect();
        let problems = plan.problems.iter();
        problems
            .map(|it| it.address.to_string())
            .any(|it| names.contains(&it))
    }

    /// Nothing is left to do after `plan` was applied.
    async fn has_settled(&mut self, plan: &Plan, parallelism: usize) {
        let mut left = self.plan().await;
        if self.left_some_out_that_names_a_url(plan) {
            // The URL may be known by now, and the definition be written with it.
            let told = self.apply(&left, parallelism, None).await;
            assert!(told.outcome.is_success(), "{:?}", told.ends);
            left = self.plan().await;
        }
        assert!(left.is_empty(), "{}", ids(&left));
        assert_eq!(self.memory.violations(), Vec::<String>::new());
    }

    /// The state without what differs from run to run.
    fn settled(&self) -> Observed {
        let mut state = self.memory.state();
        for listing in state.sandboxes.values_mut() {
            if let Listing::Known(sandbox) = listing {
                for service in sandbox.services.values_mut() {
                    service.pid = None;
                    service.started_at = None;
                    service.last_exit = None;
                }
            }
        }
        state
    }
}

/// Collects how each action ended, and sends the interrupt when its event has come.
async fn listen(
    mut events: mpsc::UnboundedReceiver<Event>,
    interrupt: &watch::Sender<Interrupt>,
    stop: Option<(usize, Interrupt)>,
) -> BTreeMap<String, Vec<End>> {
    let mut ends: BTreeMap<String, Vec<End>> = BTreeMap::new();
    let mut number = 0;
    while let Some(event) = events.recv().await {
        if let Some((at, wish)) = stop
            && at == number
        {
            interrupt.send_replace(wish);
        }
        number += 1;
        let (action, end) = match event.what {
            What::ActionDone { action, .. } => (action, End::Done),
            What::ActionFailed { action, .. } => (action, End::Failed),
            What::ActionAbandoned { action, .. } => (action, End::Abandoned),
            What::ActionSkipped { action, .. } => (action, End::Skipped),
            _ => continue,
        };
        ends.entry(action.action).or_default().push(end);
    }
    ends
}

impl Told {
    /// Every action of the plan ended in exactly one way, and the outcome counts them right.
    fn accounts_for(&self, plan: &Plan) {
        let ids: BTreeSet<String> = plan.actions.iter().map(|action| action.id()).collect();
        assert_eq!(self.ends.keys().cloned().collect::<BTreeSet<_>>(), ids);
        for (action, ends) in &self.ends {
            assert_eq!(ends.len(), 1, "{action} ended as {ends:?}");
        }
        let count = |end| self.ends.values().filter(|ends| ends[0] == end).count();
        assert_eq!(count(End::Done), self.outcome.done);
        assert_eq!(count(End::Failed), self.outcome.failed);
        assert_eq!(count(End::Abandoned), self.outcome.abandoned);
        assert_eq!(count(End::Skipped), self.outcome.skipped);
    }

    fn end(&self, id: &str) -> End {
        self.ends[id][0]
    }
}

fn ids(plan: &Plan) -> String {
    let line = |action: &plan::Action| format!("{} {:?}\n", action.id(), action.cause);
    plan.actions.iter().map(line).collect()
}

/// The actions that come after `first`, directly or not.
fn dependents(plan: &Plan, first: usize) -> BTreeSet<usize> {
    let mut found = BTreeSet::from([first]);
    // `after` points only backwards: one pass finds all.
    for (at, action) in plan.actions.iter().enumerate() {
        if action
            .after
            .iter()
            .any(|after| found.contains(&after.action))
        {
            found.insert(at);
        }
    }
    found.remove(&first);
    found
}

/// Makes some calls take several turns, so that actions overlap in many ways.
fn delay(memory: &Memory, plan: &Plan, turns: &[usize]) {
    for (action, turns) in plan.actions.iter().zip(turns.iter().cycle()) {
        if *turns > 0 {
            memory.script(
                action.address.clone(),
                action.step.kind(),
                Script::Delay(*turns),
            );
        }
    }
}

fn block_on<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.expect("a runtime").block_on(test)
}

fn wanted() -> impl Strategy<Value = Vec<SandboxSeed>> {
    prop::collection::vec(sandbox_seed(), 4)
}

fn found() -> impl Strategy<Value = Vec<FoundSeed>> {
    prop::collection::vec(found_seed(), 4)
}

fn turns() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..6usize, 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_parallelism_ends_alike_with_nothing_left_to_plan(
        wanted in wanted(), found in found(), turns in turns(),
    ) {
        block_on(async {
            let mut ends = Vec::new();
            for parallelism in [1, 3, 16] {
                let mut world = World::new(&wanted, &found);
                let plan = world.plan().await;
                delay(&world.memory, &plan, &turns);
                let told = world.apply(&plan, parallelism, None).await;
                told.accounts_for(&plan);
                assert!(told.outcome.is_success(), "{:?}", told.ends);
                world.has_settled(&plan, parallelism).await;
                ends.push(world.settled());
            }
            assert_eq!(ends[0], ends[1]);
            assert_eq!(ends[0], ends[2]);
        });
    }

    #[test]
    fn a_failure_costs_what_comes_after_it_and_nothing_else(
        wanted in wanted(), found in found(), turns in turns(), at in any::<prop::sample::Index>(),
        parallelism in 1..17usize,
    ) {
        block_on(async {
            let mut world = World::new(&wanted, &found);
            let plan = world.plan().await;
            if plan.is_empty() {
                return;
            }
            delay(&world.memory, &plan, &turns);
            let failing = at.index(plan.actions.len());
            world.memory.fail_call(at.index(plan.actions.len()), PlatformError::new("no"));
            let told = world.apply(&plan, parallelism, None).await;
            told.accounts_for(&plan);
            // The calls come in some order: find out which of the actions was hit.
            let failed: Vec<usize> = (0..plan.actions.len())
                .filter(|at| told.end(&plan.actions[*at].id()) == End::Failed)
                .collect();
            assert_eq!(failed.len(), 1, "call {failing} of {:?}", told.ends);
            let lost = dependents(&plan, failed[0]);
            for (at, action) in plan.actions.iter().enumerate() {
                let expected = match at {
                    at if at == failed[0] => End::Failed,
                    at if lost.contains(&at) => End::Skipped,
                    _ => End::Done,
                };
                assert_eq!(told.end(&action.id()), expected, "{}", action.id());
            }
            assert_eq!(world.memory.violations(), Vec::<String>::new());
            world.converges().await;
        });
    }

    #[test]
    fn an_interrupt_at_any_event_loses_nothing(
        wanted in wanted(), found in found(), turns in turns(), at in any::<prop::sample::Index>(),
        abort in any::<bool>(), parallelism in 1..17usize,
    ) {
        block_on(async {
            let mut world = World::new(&wanted, &found);
            let plan = world.plan().await;
            delay(&world.memory, &plan, &turns);
            // Two events for each action, and those of the whole.
            let at = at.index(plan.actions.len() * 2 + 2);
            let wish = if abort { Interrupt::Abort } else { Interrupt::StopNew };
            let told = world.apply(&plan, parallelism, Some((at, wish))).await;
            told.accounts_for(&plan);
            if !abort {
                assert_eq!(told.outcome.failed, 0, "{:?}", told.ends);
            }
            assert!(told.outcome.interrupted || told.outcome.is_success());
            world.converges().await;
        });
    }
}
