//! Which processes belong to a sandbox, by kinship and session.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// One process: its number, when it was started, and whether it is stopped.
pub(super) type Member = (u32, u64, bool);

#[derive(Debug, Clone, Copy)]
struct Stat {
    state: char,
    parent: u32,
    session: u32,
    start_time: u64,
}

/// The command's name is in parentheses and may hold anything, so fields are counted after the last one
/// (proc_pid_stat(5)).
fn parse(text: &str) -> Option<Stat> {
    let mut fields = text[text.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    let start_time = fields.nth(15)?.parse().ok()?;
    Some(Stat {
        state,
        parent,
        session,
        start_time,
    })
}

fn stat(pid: u32) -> Option<Stat> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The living processes that the keeper has executed, those in these sessions, and those below them.
/// Neither `own`, the supervisor, nor the first process of the keeper's namespaces, if it has made any,
/// belongs to them. `None` where the system does not tell.
pub(super) fn members(
    (keeper, strict): (u32, bool),
    own: u32,
    sessions: &BTreeSet<u32>,
) -> io::Result<Option<Vec<Member>>> {
    if !cfg!(target_os = "linux") {
        return Ok(None);
    }
    let mut stats = BTreeMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let pid = entry?.file_name();
        let pid = pid.to_str().and_then(|pid| pid.parse().ok());
        if let Some((pid, stat)) = pid.and_then(|pid| Some((pid, stat(pid)?)))
            && !matches!(stat.state, 'Z' | 'X')
        {
            stats.insert(pid, stat);
        }
    }
    let kin = stats
        .iter()
        .map(|(pid, stat)| (*pid, (stat.parent, stat.session)));
    let kin: BTreeMap<u32, (u32, u32)> = kin.collect();
    let mut roots = BTreeSet::from([keeper]);
    if strict {
        let children = kin.iter().filter(|(_, (parent, _))| *parent == keeper);
        roots.extend(children.map(|(pid, _)| *pid).filter(|pid| *pid != own));
    }
    let members = closure(&kin, &roots, own, sessions).into_iter();
    let members = members.filter_map(|pid| {
        let stat = stats.get(&pid)?;
        Some((pid, stat.start_time, is_stopped(stat)))
    });
    Ok(Some(members.collect()))
}

fn is_stopped(stat: &Stat) -> bool {
    matches!(stat.state, 'T' | 't')
}

/// Whether a process lives and is not stopped.
pub(super) fn runs(pid: u32, start_time: u64) -> bool {
    stat(pid).is_some_and(|stat| {
        stat.start_time == start_time && !matches!(stat.state, 'Z' | 'X') && !is_stopped(&stat)
    })
}

/// The processes below `roots`, in these sessions, or below those; without `roots` and `own`. Each with
/// its parent and session, by number.
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
fn closure(
    table: &BTreeMap<u32, (u32, u32)>,
    roots: &BTreeSet<u32>,
    own: u32,
    sessions: &BTreeSet<u32>,
) -> BTreeSet<u32> {
    let mut members = BTreeSet::new();
    loop {
        let before = members.len();
        for (pid, (parent, session)) in table {
            let belongs =
                roots.contains(parent) || members.contains(parent) || sessions.contains(session);
            if !roots.contains(pid) && *pid != own && belongs {
                members.insert(*pid);
            }
        }
        if members.len() == before {
            return members;
        }
    }
}

#[test]
fn children_grandchildren_and_sessions_belong() {
    // Number: parent and session.
    let table = [
        (1, (0, 1)),
        (10, (1, 10)),
        (11, (10, 11)),
        (12, (11, 12)),
        (13, (1, 11)),
        (5, (13, 99)),
        (14, (10, 14)),
        (20, (1, 20)),
    ];
    let members = closure(
        &BTreeMap::from(table),
        &BTreeSet::from([10]),
        14,
        &BTreeSet::from([11]),
    );
    assert_eq!(members, BTreeSet::from([5, 11, 12, 13]));
}

#[test]
fn a_hostile_command_name_changes_nothing() {
    let text = "7 (a) S 1) (b) R 2 7 5 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987 0";
    let stat = parse(text).unwrap();
    assert_eq!(
        (stat.state, stat.parent, stat.session, stat.start_time),
        ('R', 2, 5, 987)
    );
}
