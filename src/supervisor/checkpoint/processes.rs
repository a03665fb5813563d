//! Which processes belong to a sandbox, by kinship and session.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use crate::supervisor::os;

/// One process: its number, when it was started, and whether it is stopped.
pub(super) type Member = (u32, u64, bool);

/// The living processes that the keeper has executed, those in these sessions, and those below them.
/// Neither `own`, the supervisor, nor the first process of the keeper's namespaces, if it has made any,
/// belongs to them. `None` where the system does not tell.
pub(super) fn members(
    (keeper, strict): (u32, bool),
    own: u32,
    sessions: &BTreeSet<u32>,
) -> io::Result<Option<Vec<Member>>> {
    let Some(stats) = os::processes()? else {
        return Ok(None);
    };
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
        Some((pid, stat.start_time, stat.is_stopped()))
    });
    Ok(Some(members.collect()))
}

/// Whether a process lives and is not stopped.
pub(super) fn runs(pid: u32, start_time: u64) -> bool {
    os::stat(pid)
        .is_some_and(|stat| stat.start_time == start_time && stat.lives() && !stat.is_stopped())
}

/// The processes below `roots`, in these sessions, or below those; without `roots` and `own`. Each with
/// its parent and session, by number.
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
