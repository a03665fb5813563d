//! What must hold during the storm and after it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use gabion::model::ServiceState;
use gabion::platforms::LogQuery;
use gabion::supervisor::stored_logs;

use super::instance::VIOLATIONS;
use super::machine;
use super::storm::{LIMIT, Storm, gone};

/// At most one instance of each service lives.
pub fn alone(storm: &Storm) {
    let told = std::fs::read_to_string(storm.workspace().join(VIOLATIONS)).unwrap_or_default();
    assert!(told.is_empty(), "{told}");
}

/// Nothing of this run is anywhere but below its keeper. What was seen on its way out is looked at again.
pub fn nobody_outside(storm: &Storm) {
    let outside = || -> BTreeSet<u32> {
        let marked = machine::marked(&storm.mark);
        let below = machine::below(storm.keeper);
        let known = |pid: &u32| *pid == storm.keeper || below.contains(pid) || storm.is_ours(*pid);
        marked.into_iter().filter(|pid| !known(pid)).collect()
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut found = outside();
    while !found.is_empty() {
        assert!(
            Instant::now() < deadline,
            "outside of the sandbox: {}",
            shown(&found)
        );
        std::thread::sleep(Duration::from_millis(10));
        let again = outside();
        found.retain(|pid| again.contains(pid));
    }
}

fn shown(pids: &BTreeSet<u32>) -> String {
    let one = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        format!(
            "\n{pid} {:?} {}",
            machine::stat(*pid),
            String::from_utf8_lossy(&line).replace('\0', " ")
        )
    };
    pids.iter().map(one).collect()
}

/// All of it, once nobody is killed any more. Ends the sandbox.
pub async fn after(storm: &mut Storm, descriptors: [usize; 3]) {
    settled(storm).await;
    alone(storm);
    nobody_outside(storm);
    storm.all_run().await;
    no_zombies(storm).await;
    let now = storm.descriptors();
    // Connections of clients come and go.
    let leaks = now
        .iter()
        .zip(descriptors)
        .any(|(now, before)| *now > before + 8);
    assert!(
        !leaks,
        "descriptors of keeper, supervisor, init: {descriptors:?} before, {now:?} now"
    );
    println!("torture: descriptors {descriptors:?} before, {now:?} after");
    let last_keeper = (storm.epoch, machine::namespace_of(storm.keeper));
    let client = storm.client().await;
    tokio::time::timeout(LIMIT, client.shutdown())
        .await
        .expect("too slow")
        .expect("an end");
    gone(storm.keeper).await;
    let left = machine::marked(&storm.mark)
        .into_iter()
        .filter(|pid| !storm.is_ours(*pid))
        .collect();
    assert_eq!(left, BTreeSet::new(), "left: {}", shown(&left));
    let word = format!(
        "{}-torture-",
        storm
            .dir
            .parent()
            .and_then(|dir| dir.file_name())
            .map_or(String::new(), |name| name
                .to_string_lossy()
                .replace('.', "-"),)
    );
    assert_eq!(machine::cgroups(&word), Vec::<std::path::PathBuf>::new());
    assert!(!storm.dir.join("supervisor.sock").exists());
    alone(storm);
    logs(storm, &last_keeper);
}

/// State equals desired, of every service, without anybody asking for anything.
async fn settled(storm: &Storm) {
    let deadline = Instant::now() + LIMIT;
    let client = storm.client().await;
    loop {
        let all = client.list().await.expect("a list");
        let mut failed = 0;
        let odd: Vec<_> = all
            .iter()
            .filter(|object| match (object.desired.as_str(), object.state) {
                // A start that was asked for and failed is not tried again.
                ("up", Some(ServiceState::Failed)) => {
                    failed += 1;
                    false
                }
                ("up", state) => state != Some(ServiceState::Running),
                (_, state) => object.pid.is_some() || state == Some(ServiceState::Running),
            })
            .map(|object| {
                format!(
                    "{} {} {:?} {:?} {:?}",
                    object.name, object.desired, object.state, object.pid, object.message
                )
            })
            .collect();
        if odd.is_empty() {
            let up = all.iter().filter(|object| object.desired == "up").count();
            println!(
                "torture: {up} wanted up, {failed} of them failed, {} in all",
                all.len()
            );
            return;
        }
        assert!(Instant::now() < deadline, "not as desired: {odd:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn no_zombies(storm: &Storm) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        // Those of services are theirs to reap.
        let parents = [Some(storm.keeper), machine::init_of(storm.keeper)];
        let is_dead = |pid: &u32| {
            machine::stat(*pid)
                .is_some_and(|stat| stat.state == 'Z' && parents.contains(&Some(stat.parent)))
        };
        let below = machine::below(storm.keeper).into_iter();
        let dead: BTreeSet<_> = below.filter(is_dead).collect();
        if dead.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "zombies: {}", shown(&dead));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What one instance has said when it began.
#[derive(Debug)]
struct Instance {
    id: String,
    /// How many keepers there have been, and the namespace: an instance that is killed with its keeper may
    /// have begun to look when there was another one already.
    keeper: (u64, String),
}

/// Every line that was written is in the log once, in its place. What was on its way when a keeper was killed
/// may be missing at the end.
fn logs(storm: &Storm, last_keeper: &(u64, String)) {
    let begun = std::fs::read_to_string(storm.workspace().join("counts")).expect("counts");
    let mut instances: BTreeMap<&str, Vec<Instance>> = BTreeMap::new();
    for line in begun.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let [name, id, epoch, namespace] = words[..] else {
            panic!("a torn line: {line}");
        };
        let instance = Instance {
            id: id.to_owned(),
            // Nothing, if it was read while it was written.
            keeper: (epoch.parse().unwrap_or(0), namespace.to_owned()),
        };
        instances.entry(name).or_default().push(instance);
    }
    let (mut lines, mut cut, mut wrong) = (0, 0, Vec::new());
    for (name, instances) in &instances {
        let found = numbers(storm, name);
        for (index, instance) in instances.iter().enumerate() {
            let next = instances.get(index + 1);
            let ended_by = next.map_or(last_keeper, |next| &next.keeper);
            let may_be_cut = ended_by != &instance.keeper;
            let mut found = found.get(&instance.id).map_or(&[][..], Vec::as_slice);
            if may_be_cut
                && let [whole @ .., last] = found
                && *last != found.len() as u64
                && found.len().to_string().starts_with(&last.to_string())
            {
                // Its last line may be a part of one.
                found = whole;
            }
            lines += found.len();
            if !found.iter().copied().eq(1..=found.len() as u64) {
                wrong.push(format!("{name} {}: {}", instance.id, odd(found)));
            }
            let path = storm
                .workspace()
                .join(format!("{name}-{}.count", instance.id));
            let written = std::fs::read(path)
                .ok()
                .and_then(|bytes| bytes.try_into().ok());
            let written = written.map_or(0, u64::from_le_bytes);
            if (found.len() as u64) < written {
                cut += 1;
                if !may_be_cut {
                    wrong.push(format!(
                        "{name}: {} of {written} lines of {instance:?}, then {next:?}",
                        found.len()
                    ));
                }
            }
        }
    }
    let count: usize = instances.values().map(Vec::len).sum();
    println!("torture: {count} instances, {lines} lines, {cut} cut by the end of a keeper");
    assert!(
        wrong.is_empty(),
        "{} instances:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Where the first gap or double is.
fn odd(found: &[u64]) -> String {
    let at = found
        .iter()
        .zip(1..)
        .position(|(found, expected)| *found != expected)
        .unwrap_or(0);
    let around = &found[at.saturating_sub(3)..(at + 4).min(found.len())];
    format!("{} lines, line {at} is odd: {around:?}", found.len())
}

/// The numbers that each instance has in the log of its service.
fn numbers(storm: &Storm, name: &str) -> BTreeMap<String, Vec<u64>> {
    let name = gabion::model::ServiceName::new(name).expect("a name");
    let lines = stored_logs(&storm.dir, &name, &LogQuery::default()).expect("a log");
    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in lines {
        let mut words = line.text.split(' ');
        if let (Some("T"), Some(id), Some(number)) = (words.next(), words.next(), words.next()) {
            let number = number.parse().unwrap_or(0);
            found.entry(id.to_owned()).or_default().push(number);
        }
    }
    found
}
