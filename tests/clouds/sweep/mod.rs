//! For every request of an apply, every fault: the apply ends in success or with an error that says
//! what went wrong, the next one converges, nothing is made twice, and what is somebody else's stays.
//!
//! The same for every platform, for making a stack of twelve services, changing it and destroying it. A few
//! faults, picked by chance, are among the tests that always run. All of them, a few thousand runs:
//!
//! ```text
//! cargo test --test clouds -- --ignored every_fault
//! ```
//!
//! `GABION_SWEEP_SEED` repeats what an earlier run has printed: it chooses the order of the faults, and with
//! it which steps go wrong together and which of them do one thing after the other.

mod retries;
pub mod stage;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use gabion::serve::Faults;
use gabion::serve::faults::{Fault, Plan, Rule};
use gabion::serve::miosa::Switches;

use self::retries::Writes;
use self::stage::{Stage, Step};
use crate::served::{Served, TOKEN};

/// A platform that is swept over.
pub struct Swept {
    /// Its kind.
    kind: &'static str,
    /// What its URL is, below that of the server.
    path: &'static str,
    /// More of the manifest's entry, from the comma on.
    settings: fn() -> String,
    /// Requests whose number differs from apply to apply: they ask how far something is.
    asks: fn(method: &str, path: &str) -> bool,
    /// Requests that its page allows to repeat after this fault without looking.
    repeats: fn(method: &str, path: &str, fault: Fault) -> bool,
}

const SPRITES: Swept = Swept {
    kind: "sprites",
    path: "",
    settings: String::new,
    asks: |_, path| path.ends_with("/exec"),
    repeats: |method, path, _| matches!(method, "PUT" | "DELETE") || path.ends_with("/stop"),
};

/// Page iris, §3: GET, PUT, DELETE, start and stop are repeated after a lost connection, 502, 503 and 504.
const IRIS: Swept = Swept {
    kind: "iris",
    path: "",
    settings: String::new,
    asks: |_, path| {
        let reads = [
            "/exec",
            "/ListSandboxes",
            "/GetSandbox",
            "/IssueDataPlaneToken",
        ];
        reads.iter().any(|end| path.ends_with(end))
    },
    repeats: |method, path, fault| {
        let ends = ["/start", "/stop", "/DeleteSandbox"];
        let idempotent =
            matches!(method, "PUT" | "DELETE") || ends.iter().any(|it| path.ends_with(it));
        idempotent && !matches!(fault, Fault::Status(_, 500, _))
    },
};

/// Page miosa, §3: PUT and DELETE always, POST and PATCH with an `Idempotency-Key`, a process never.
const MIOSA: Swept = Swept {
    kind: "miosa",
    path: "/api/v1",
    settings: String::new,
    asks: |_, path| path.ends_with("/exec"),
    repeats: |method, path, _| match method {
        "POST" => path.ends_with("/sandboxes"),
        method => matches!(method, "PUT" | "PATCH" | "DELETE"),
    },
};

/// Page pocketenv, §2: no write, because every error may come after the change was made.
pub const POCKETENV: Swept = Swept {
    kind: "pocketenv",
    path: "",
    settings: || {
        format!(
            ", public_key: '{}'",
            gabion::serve::pocketenv::seal::public_key()
        )
    },
    asks: |_, path| path.ends_with("sandbox.exec"),
    repeats: |_, _, _| false,
};

#[test]
fn some_faults_on_sprites() {
    sweep(&SPRITES, Some(4));
}

#[test]
fn some_faults_on_iris() {
    sweep(&IRIS, Some(4));
}

#[test]
fn some_faults_on_miosa() {
    sweep(&MIOSA, Some(4));
}

#[test]
fn some_faults_on_pocketenv() {
    sweep(&POCKETENV, Some(4));
}

#[test]
#[ignore = "takes minutes: cargo test --test clouds -- --ignored every_fault"]
fn every_fault_on_sprites() {
    sweep(&SPRITES, None);
}

#[test]
#[ignore = "takes minutes: cargo test --test clouds -- --ignored every_fault"]
fn every_fault_on_iris() {
    sweep(&IRIS, None);
}

#[test]
#[ignore = "takes minutes: cargo test --test clouds -- --ignored every_fault"]
fn every_fault_on_miosa() {
    sweep(&MIOSA, None);
}

#[test]
#[ignore = "takes minutes: cargo test --test clouds -- --ignored every_fault"]
fn every_fault_on_pocketenv() {
    sweep(&POCKETENV, None);
}

/// Sweeps that run at the same time, each on a server of its own: most of their time is spent waiting.
const WORKERS: usize = 6;

/// What a step does if nothing goes wrong.
struct Usual {
    step: Step,
    requests: usize,
    writes: Writes,
    /// The starts that are noted after it; none after the sandbox is gone.
    starts: Vec<String>,
}

/// One fault at one request of each step.
struct Life {
    faults: [(usize, Fault); 3],
    parallelism: usize,
}

fn seed(usual: u64) -> u64 {
    let text = std::env::var("GABION_SWEEP_SEED").ok();
    text.map_or(usual, |text| text.parse().expect("a seed is a number"))
}

/// Makes, changes and destroys stacks; so many of them, or until each fault was at each request.
fn sweep(swept: &Swept, lives: Option<usize>) {
    let usual = learn(swept);
    let seed = seed(4);
    let lives = plan(&usual, lives, seed);
    let faults = lives.len() * Step::ALL.len();
    let kind = swept.kind;
    println!(
        "{kind}: seed {seed}, {faults} runs, {} at least of each step",
        lives.len()
    );
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for worker in 0..WORKERS.min(lives.len()) {
            let (usual, lives, next, failures) = (&usual, &lives, &next, &failures);
            scope.spawn(move || {
                let served = Served::new(Faults::default(), Switches::default());
                block_on(async {
                    let foreign = stage(swept, &served, "foreign", 16);
                    foreign.apply(Step::Make).await.unwrap();
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(life) = lives.get(number) else { break };
                        let name = format!("run{number}");
                        let stage = stage(swept, &served, &name, life.parallelism);
                        if let Err(why) = live(&stage, life, usual).await {
                            eprintln!("{kind}: {why}");
                            failures.lock().unwrap().push(why);
                            served.faults.reset(Plan::default());
                            let _ = stage.apply(Step::Destroy).await;
                        }
                    }
                    assert_eq!(foreign.apply(Step::Make).await, Ok(None), "worker {worker}");
                    assert_eq!(foreign.starts().await, usual[0].starts, "worker {worker}");
                });
                let left = served.count();
                assert!(
                    left == 1 || !failures.lock().unwrap().is_empty(),
                    "{left} are left"
                );
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(
        failures.is_empty(),
        "{} failed:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(future)
}

pub fn stage<'a>(
    swept: &'a Swept,
    served: &'a Served,
    stack: &'a str,
    parallelism: usize,
) -> Stage<'a> {
    Stage {
        swept,
        served,
        stack,
        parallelism,
    }
}

/// What happens if nothing goes wrong.
fn learn(swept: &Swept) -> Vec<Usual> {
    let served = Served::new(Faults::default(), Switches::default());
    block_on(async {
        let clean = stage(swept, &served, "clean", 16);
        let mut all = Vec::new();
        for step in Step::ALL {
            served.faults.reset(Plan::default());
            let (outcome, errors) = clean.apply(step).await.unwrap().unwrap();
            assert!(outcome.is_success(), "{step:?}: {errors:?}");
            let requests = served.faults.requests();
            let starts = match step {
                Step::Destroy => Vec::new(),
                _ => clean.starts().await,
            };
            all.push(Usual {
                step,
                requests: requests.len(),
                writes: swept.writes(&requests, clean.stack),
                starts,
            });
        }
        assert_eq!(all[0].starts.len(), 12, "{:?}", all[0].starts);
        assert_eq!(all[1].starts.len(), 13, "{:?}", all[1].starts);
        all
    })
}

/// Lives in which each fault is at each request of each step, or the first of them.
fn plan(usual: &[Usual], most: Option<usize>, seed: u64) -> Vec<Life> {
    let mut chance = fastrand::Rng::with_seed(seed);
    let mut steps: Vec<Vec<_>> = Vec::new();
    for step in usual {
        let requests = 1..=step.requests;
        let mut all: Vec<_> = requests
            .flat_map(|at| Fault::KINDS.map(|fault| (at, fault)))
            .collect();
        chance.shuffle(&mut all);
        steps.push(all);
    }
    let longest = steps.iter().map(Vec::len).max().unwrap_or_default();
    let number = most.map_or(longest, |most| most.min(longest));
    let life = |number: usize| Life {
        faults: [0, 1, 2].map(|step: usize| steps[step][number % steps[step].len()]),
        parallelism: [1, 16][number % 2],
    };
    (0..number).map(life).collect()
}

/// Makes, changes and destroys a stack, with a fault in each of these.
async fn live(stage: &Stage<'_>, life: &Life, usual: &[Usual]) -> Result<(), String> {
    for (usual, (at, fault)) in usual.iter().zip(life.faults) {
        let met = meet(stage, usual, at, fault).await;
        met.map_err(|why| {
            let (step, parallelism) = (usual.step, stage.parallelism);
            format!("{step:?} {fault}@{at}, {parallelism} at once: {why}")
        })?;
    }
    Ok(())
}

fn hold(holds: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    holds.then_some(()).ok_or_else(why)
}

/// Applies with a fault, and again without.
async fn meet(stage: &Stage<'_>, usual: &Usual, at: usize, fault: Fault) -> Result<(), String> {
    let (faults, step) = (&stage.served.faults, usual.step);
    let rule: Rule = format!("* **:{fault}@{at}").parse().unwrap();
    faults.reset(Plan {
        rules: vec![rule],
        ..Plan::default()
    });
    let first = stage.apply(step).await;
    let requests = faults.requests();
    faults.reset(Plan::default());
    let hit = requests.iter().find(|it| it.fault.is_some());
    let hit = hit
        .map(|it| format!("{} {}", it.method, it.path))
        .unwrap_or_default();
    let told = || format!("after {hit}: {first:?}");
    match &first {
        Ok(Some((outcome, errors))) => {
            let clear = |it: &String| it.contains(' ') && !it.contains(TOKEN);
            let counted = outcome.failed == errors.len();
            hold(counted && errors.iter().all(clear), || {
                format!("unclear {}", told())
            })?;
        }
        Ok(None) => return Err(format!("there was nothing to do {}", told())),
        Err(error) => hold(error.contains(' ') && !error.contains(TOKEN), told)?,
    }
    for (write, count) in stage.swept.writes(&requests, stage.stack) {
        let expected = usual.writes.get(&write).copied().unwrap_or_default();
        hold(count <= expected + 1, || {
            format!("{write} {count} times {}", told())
        })?;
    }
    if stage.parallelism == 1
        && let Some(repeated) = stage.swept.repeated_blindly(&requests, fault)
    {
        return Err(format!("{repeated} repeated blindly {}", told()));
    }
    let second = stage.apply(step).await;
    let converged = match &second {
        Ok(None) => true,
        Ok(Some((outcome, _))) => outcome.is_success(),
        Err(_) => false,
    };
    hold(converged, || format!("then {second:?} {}", told()))?;
    let third = stage.apply(step).await;
    hold(third == Ok(None), || {
        format!("at last {third:?}, then {second:?} {}", told())
    })?;
    if step == Step::Destroy {
        let left = stage.served.count();
        return hold(left == 1, || format!("{left} are left {}", told()));
    }
    let starts = stage.starts().await;
    hold(starts == usual.starts, || {
        format!("started {starts:?} {}", told())
    })
}
