//! Which cgroups of this machine this process may make groups in: versions 1 and 2, and both side by
//! side. Reads only. See cgroups(7), and `Documentation/admin-guide/cgroup-v1` and `cgroup-v2.rst`.

use std::path::{Path, PathBuf};

use rustix::fs::Access;

/// What of a group can be limited or steered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::supervisor) enum Controller {
    Memory,
    Cpu,
    Pids,
    /// Version 1 only; in version 2 every group can be frozen.
    Freezer,
}

impl Controller {
    const ALL: [Self; 4] = [Self::Memory, Self::Cpu, Self::Pids, Self::Freezer];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Pids => "pids",
            Self::Freezer => "freezer",
        }
    }
}

/// A tree of groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchy {
    /// Where new groups may be made.
    pub base: PathBuf,
    pub unified: bool,
    pub controllers: Vec<Controller>,
}

/// A mounted hierarchy, as `/proc/self/mountinfo` has it.
struct Mount {
    root: String,
    point: PathBuf,
    unified: bool,
    options: Vec<String>,
}

/// The hierarchies in which groups can be made, each controller in at most one.
pub(super) fn hierarchies() -> Vec<Hierarchy> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let (mounts, own) = (read("/proc/self/mountinfo"), read("/proc/self/cgroup"));
    let mut found: Vec<Hierarchy> = Vec::new();
    for mount in mounts.lines().filter_map(mount) {
        let missing = |it: &Controller| !found.iter().any(|h| h.controllers.contains(it));
        let missing: Vec<_> = Controller::ALL.into_iter().filter(missing).collect();
        let hierarchy = match mount.unified {
            true => unified(&mount, &own, &missing),
            false => version_one(&mount, &own, &missing),
        };
        let again = |it: &Hierarchy| found.iter().any(|other| other.base == it.base);
        found.extend(hierarchy.filter(|it| !again(it)));
    }
    // What kills and lists best comes first.
    found.sort_by_key(|it| (!it.unified, !it.controllers.contains(&Controller::Freezer)));
    found
}

/// One line: `36 35 98:0 /root /point opts [optional…] - cgroup source rw,memory`.
fn mount(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut right = right.split(' ');
    let unified = match right.next()? {
        "cgroup" => false,
        "cgroup2" => true,
        _ => return None,
    };
    let options = right.nth(1)?.split(',').map(str::to_owned).collect();
    let mut left = left.split(' ').skip(3);
    Some(Mount {
        root: unescape(left.next()?),
        point: PathBuf::from(unescape(left.next()?)),
        unified,
        options,
    })
}

/// The kernel writes spaces and the like as `\040`.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part
            .get(..3)
            .and_then(|code| u8::from_str_radix(code, 8).ok());
        match code {
            Some(code) => {
                out.push(char::from(code));
                out.push_str(&part[3..]);
            }
            None => out.push_str(part),
        }
    }
    out
}

/// The own group of this process below a mount.
fn own_group(mount: &Mount, own: &str, controller: Option<Controller>) -> Option<PathBuf> {
    let is_it = |line: &&str| {
        let mut fields = line.splitn(3, ':');
        let (id, names) = (fields.next(), fields.next().unwrap_or_default());
        match controller {
            None => id == Some("0") && names.is_empty(),
            Some(it) => names.split(',').any(|name| name == it.word()),
        }
    };
    let path = own.lines().find(is_it)?.splitn(3, ':').nth(2)?;
    let below = path.strip_prefix(mount.root.trim_end_matches('/'));
    let group = mount.point.join(below?.trim_start_matches('/'));
    // In a container the path may be the host's, and the mount the container's own part.
    Some(match group.is_dir() {
        true => group,
        false => mount.point.clone(),
    })
}

fn is_writable(path: &Path) -> bool {
    rustix::fs::access(path, Access::WRITE_OK).is_ok()
}

fn version_one(mount: &Mount, own: &str, missing: &[Controller]) -> Option<Hierarchy> {
    let has = |it: &&Controller| mount.options.iter().any(|option| option == it.word());
    let controllers: Vec<_> = missing.iter().filter(has).copied().collect();
    let base = own_group(mount, own, controllers.first().copied())?;
    let usable = !controllers.is_empty() && is_writable(&base);
    usable.then_some(Hierarchy {
        base,
        unified: false,
        controllers,
    })
}

/// A group with processes cannot pass controllers on, so the best place may be further up. Processes
/// can only be moved below a group whose `cgroup.procs` may be written.
fn unified(mount: &Mount, own: &str, missing: &[Controller]) -> Option<Hierarchy> {
    let own = own_group(mount, own, None)?;
    let mut best: Option<Hierarchy> = None;
    let above = own
        .ancestors()
        .take_while(|it| it.starts_with(&mount.point));
    let usable = |it: &&Path| is_writable(it) && is_writable(&it.join("cgroup.procs"));
    for base in above.take_while(usable) {
        let passed_on = passed_on(base);
        let controllers: Vec<_> = missing
            .iter()
            .filter(|it| {
                passed_on
                    .split_ascii_whitespace()
                    .any(|name| name == it.word())
            })
            .copied()
            .collect();
        let better = |it: &Hierarchy| controllers.len() > it.controllers.len();
        if best.as_ref().is_none_or(better) {
            best = Some(Hierarchy {
                base: base.to_owned(),
                unified: true,
                controllers,
            });
        }
    }
    best
}

/// The controllers that groups made in `base` have, or can be given.
fn passed_on(base: &Path) -> String {
    let read = |file| std::fs::read_to_string(base.join(file)).unwrap_or_default();
    // Only the root of all groups has no type; it alone may pass on with processes in it.
    let is_root = !base.join("cgroup.type").exists();
    match is_root || read("cgroup.procs").is_empty() {
        true => read("cgroup.controllers"),
        false => read("cgroup.subtree_control"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read() {
        let line =
            r"35 31 0:32 / /sys/fs/c\040g/memory rw,relatime shared:9 - cgroup cgroup rw,memory";
        let found = mount(line).unwrap();
        assert_eq!(found.point, Path::new("/sys/fs/c g/memory"));
        assert!(!found.unified && found.options.contains(&"memory".to_owned()));
        assert!(mount("31 23 0:28 / /sys rw - tmpfs tmpfs rw").is_none());
    }

    #[test]
    fn the_own_group_is_found_below_the_mount() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        let mount = |root: &str| Mount {
            root: root.to_owned(),
            point: dir.path().to_owned(),
            unified: false,
            options: vec!["memory".to_owned()],
        };
        let own = "4:memory:/x/a/b\n1:cpu,cpuacct:/a\n0::/a\n";
        let at = |root, controller| own_group(&mount(root), own, controller);
        let memory = Some(Controller::Memory);
        assert_eq!(at("/x", memory), Some(dir.path().join("a/b")));
        assert_eq!(at("/", memory), Some(dir.path().to_owned()));
        assert_eq!(at("/", Some(Controller::Cpu)), Some(dir.path().join("a")));
        assert_eq!(at("/", None), Some(dir.path().join("a")));
        assert_eq!(at("/", Some(Controller::Pids)), None);
    }
}
