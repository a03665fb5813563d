//! What the machine shows of the processes of this run.

use std::collections::BTreeSet;
use std::path::PathBuf;

/// The variable that all processes of this run have in their environment.
pub const MARK: &str = "GABION_TORTURE_MARK";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    pub state: char,
    pub parent: u32,
}

pub fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text[text.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    Some(Stat { state, parent })
}

fn pids() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// All processes below one, zombies too.
pub fn below(root: u32) -> BTreeSet<u32> {
    let parents: Vec<_> = pids()
        .into_iter()
        .filter_map(|pid| Some((pid, stat(pid)?.parent)))
        .collect();
    let mut found = BTreeSet::from([root]);
    loop {
        let more = parents.iter().filter(|(_, parent)| found.contains(parent));
        let more: Vec<_> = more
            .map(|(pid, _)| *pid)
            .filter(|pid| !found.contains(pid))
            .collect();
        if more.is_empty() {
            found.remove(&root);
            return found;
        }
        found.extend(more);
    }
}

/// The living that have the mark.
pub fn marked(mark: &str) -> BTreeSet<u32> {
    let mark = format!("{MARK}={mark}");
    let has = |pid: &u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|one| one == mark.as_bytes())
    };
    pids().into_iter().filter(has).collect()
}

/// The supervisor of a keeper at this moment.
pub fn supervisor_of(keeper: u32) -> Option<u32> {
    let is_it = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0)
            .any(|word| word == b"--inherited")
    };
    children(keeper).into_iter().find(is_it)
}

/// Number 1 of a keeper's namespaces.
pub fn init_of(keeper: u32) -> Option<u32> {
    let is_it = |pid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        let numbers: Vec<_> = numbers
            .unwrap_or_default()
            .split_ascii_whitespace()
            .collect();
        numbers.len() > 1 && numbers.last() == Some(&"1")
    };
    children(keeper).into_iter().find(is_it)
}

/// The namespace of processes that services of a keeper are in.
pub fn namespace_of(keeper: u32) -> String {
    let pid = init_of(keeper).unwrap_or(keeper);
    let link = std::fs::read_link(format!("/proc/{pid}/ns/pid"));
    link.map(|link| link.display().to_string())
        .unwrap_or_default()
}

fn children(pid: u32) -> Vec<u32> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let list = list.unwrap_or_default();
    list.split_ascii_whitespace()
        .filter_map(|n| n.parse().ok())
        .collect()
}

/// How many descriptors a process has open.
pub fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// The control groups whose name contains a word.
pub fn cgroups(word: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut queue = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = queue.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy().contains(word) {
                    found.push(entry.path());
                }
                queue.push(entry.path());
            }
        }
    }
    found
}
