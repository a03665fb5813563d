//! A control group for each service, in one for its sandbox: limits what the service uses with all
//! that it starts, and finds every process of it, wherever it has gone.
//!
//! In: a sandbox's folder, names and limits. Out: groups that children enter between fork and exec,
//! and that can be killed, frozen and asked. Where no group can be made, there are none, and
//! everything else works without. This folder starts no processes and decides about no service.

mod detect;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::io::Errno;
use sha2::{Digest, Sha256};

pub(super) use self::detect::Controller;
use self::detect::Hierarchy;
use super::os;
use crate::model::{Cores, Limits, SandboxSpec, ServiceName};

/// The folder that holds all groups of ours in a hierarchy.
const ROOM: &str = "gabion";
/// How old an empty group has to be to be taken for one that was left behind: a child is in its group
/// within a moment after it was made.
const LEFT_BEHIND: Duration = Duration::from_secs(60);
/// The time that a quota is for, in microseconds: the kernel's default.
const PERIOD: u64 = 100_000;
/// How long the kernel may take to freeze a group.
const FREEZE_LIMIT: Duration = Duration::from_secs(10);

/// What of this machine's groups can be used.
#[derive(Debug, Clone)]
pub(super) struct Cgroups {
    hierarchies: Arc<[Hierarchy]>,
}

impl Cgroups {
    /// Looks at what there is. Reads a few files of `/proc`, and makes nothing.
    pub(super) fn detect() -> Self {
        Self {
            hierarchies: detect::hierarchies().into(),
        }
    }

    /// Whether groups can have this.
    pub(super) fn can(&self, controller: Controller) -> bool {
        let mut all = self.hierarchies.iter();
        all.any(|it| it.controllers.contains(&controller))
    }

    /// The groups of the sandbox in `dir`. Makes nothing yet.
    pub(super) fn of_sandbox(&self, dir: &Path, spec: &SandboxSpec) -> SandboxCgroups {
        SandboxCgroups {
            all: self.clone(),
            key: key_of(dir),
            memory: spec.memory,
            vcpus: spec.vcpus,
        }
    }
}

/// `<stack>-<sandbox>-<hash>`: for people, and distinct for every folder.
fn key_of(dir: &Path) -> String {
    let name = |path: Option<&Path>| {
        let name = path.and_then(Path::file_name).unwrap_or_default();
        let name = name.to_string_lossy();
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        name.chars().take(60).map(plain).collect::<String>()
    };
    let digest = Sha256::digest(dir.as_os_str().as_encoded_bytes());
    let hash: String = digest[..4].iter().map(|b| format!("{b:02x}")).collect();
    format!("{}-{}-{hash}", name(dir.parent()), name(Some(dir)))
}

/// The groups of one sandbox.
#[derive(Debug, Clone)]
pub(super) struct SandboxCgroups {
    all: Cgroups,
    key: String,
    memory: Option<u64>,
    vcpus: Option<u32>,
}

impl SandboxCgroups {
    /// As on a machine where no groups can be made.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        let hierarchies = [].into();
        let all = Cgroups { hierarchies };
        all.of_sandbox(Path::new("/"), &SandboxSpec::default())
    }

    /// Whether groups can have this.
    pub(super) fn can(&self, controller: Controller) -> bool {
        self.all.can(controller)
    }

    /// The most memory that the sandbox may use together, in bytes, where that is kept to.
    pub(super) fn memory(&self) -> Option<u64> {
        self.memory.filter(|_| self.can(Controller::Memory))
    }

    fn dirs(&self) -> impl Iterator<Item = (&Hierarchy, PathBuf)> {
        let dir = |it: &Hierarchy| it.base.join(ROOM).join(&self.key);
        self.all.hierarchies.iter().map(move |it| (it, dir(it)))
    }

    /// A new and empty group for a service, which takes a few system calls. What is still in an
    /// older one of that name is killed first. `None` if no groups can be made here.
    ///
    /// An error if a limit cannot be kept to; `files` is none of a group's.
    pub(super) fn service(
        &self,
        name: &ServiceName,
        limits: &Limits,
    ) -> io::Result<Option<Cgroup>> {
        if limits.cpu.is_some() && !self.can(Controller::Cpu) {
            return Err(unsupported("cpu"));
        }
        if limits.processes.is_some() && !self.can(Controller::Pids) {
            return Err(unsupported("processes"));
        }
        if self.all.hierarchies.is_empty() {
            return Ok(None);
        }
        let mut group = self.group(name);
        let made = self.make_all(&mut group, limits);
        match made {
            Ok(()) => Ok(Some(group)),
            Err(error)
                if limits.cpu.or(self.vcpus.map(cores)).is_some()
                    || limits.processes.is_some()
                    || limits.memory.or(self.memory).is_some() =>
            {
                group.remove();
                Err(error)
            }
            Err(error) => {
                // Nobody asked for limits: it runs without a group, as on other machines.
                tracing::warn!(service = %name, %error, "no control group");
                group.remove();
                group.parts.clear();
                Ok(None)
            }
        }
    }

    /// Makes the group in the first hierarchy, which lists and kills, and in those that something is wanted
    /// of. Each one more costs a start and an end several system calls.
    fn make_all(&self, group: &mut Cgroup, limits: &Limits) -> io::Result<()> {
        for part in std::mem::take(&mut group.parts) {
            let holds = group.parts.iter().any(|part| freezer(part).is_some());
            if group.parts.is_empty() || self.is_needed(&part.hierarchy, limits, holds) {
                // Kept first, so that what was begun is removed after an error.
                group.parts.push(part);
                let part = &group.parts[group.parts.len() - 1];
                self.make(part)?;
                self.limit(part, limits)?;
            }
        }
        Ok(())
    }

    fn is_needed(&self, hierarchy: &Hierarchy, limits: &Limits, holds: bool) -> bool {
        let mut has = hierarchy.controllers.iter();
        has.any(|controller| match controller {
            Controller::Memory => limits.memory.or(self.memory).is_some(),
            Controller::Cpu => limits.cpu.or(self.vcpus.map(cores)).is_some(),
            Controller::Pids => limits.processes.is_some(),
            Controller::Freezer => !holds,
        })
    }

    /// The group that a service was started in, if it is still there.
    pub(super) fn existing(&self, name: &ServiceName) -> Option<Cgroup> {
        let mut group = self.group(name);
        group.parts.retain(|part| part.dir.is_dir());
        (!group.parts.is_empty()).then_some(group)
    }

    fn group(&self, name: &ServiceName) -> Cgroup {
        // Not the bare name: version 1 has a file called `tasks`.
        let parts = self.dirs().map(|(hierarchy, dir)| Part {
            hierarchy: hierarchy.clone(),
            dir: dir.join(format!("{name}.service")),
        });
        Cgroup {
            parts: parts.collect(),
        }
    }

    fn make(&self, part: &Part) -> io::Result<()> {
        match make_dir(&part.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_sandbox(&part.hierarchy)?;
                make_dir(&part.dir)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // Removed and made again, because its counters are those of the last process.
                if remove_dir(&part.dir).is_err() {
                    kill_dir(part)?;
                    return Ok(());
                }
                make_dir(&part.dir)
            }
            other => other,
        }
    }

    fn make_sandbox(&self, hierarchy: &Hierarchy) -> io::Result<()> {
        let room = hierarchy.base.join(ROOM);
        let own = room.join(&self.key);
        for (parent, dir) in [(&hierarchy.base, &room), (&room, &own)] {
            pass_on(hierarchy, parent);
            match make_dir(dir) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other?,
            }
        }
        pass_on(hierarchy, &own);
        for controller in &hierarchy.controllers {
            match controller {
                Controller::Memory => limit_memory(hierarchy, &own, self.memory)?,
                Controller::Cpu => limit_cpu(hierarchy, &own, self.vcpus.map(cores))?,
                Controller::Pids | Controller::Freezer => {}
            }
        }
        Ok(())
    }

    fn limit(&self, part: &Part, limits: &Limits) -> io::Result<()> {
        let Part { hierarchy, dir } = part;
        for controller in &hierarchy.controllers {
            match controller {
                Controller::Memory => limit_memory(hierarchy, dir, limits.memory)?,
                // Version 1 refuses a group more than the one around it has.
                Controller::Cpu => {
                    let cpu = limits.cpu.map(|cpu| cpu.min(self.most()));
                    limit_cpu(hierarchy, dir, cpu)?;
                }
                Controller::Pids => {
                    if let Some(most) = limits.processes {
                        write(dir, "pids.max", &most.to_string())?;
                    }
                }
                Controller::Freezer => {}
            }
        }
        Ok(())
    }

    fn most(&self) -> Cores {
        self.vcpus.map_or(Cores::from_millis(u32::MAX), cores)
    }

    /// Kills what is left in the sandbox's groups, and removes them. For when no supervisor runs, and
    /// for the end of one.
    pub(super) async fn clear(&self) -> io::Result<()> {
        for (hierarchy, dir) in self.dirs() {
            if dir.is_dir() {
                let group = Cgroup {
                    parts: vec![Part {
                        hierarchy: hierarchy.clone(),
                        dir,
                    }],
                };
                group.kill_all().await?;
                group.remove();
            }
        }
        Ok(())
    }

    /// Removes the empty groups that sandboxes which are no more have left. Whatever cannot be removed
    /// is somebody's.
    pub(super) fn sweep(&self) {
        for hierarchy in self.all.hierarchies.iter() {
            let sandboxes = sub_dirs(&hierarchy.base.join(ROOM));
            for dir in sandboxes.into_iter().filter(|dir| is_old(dir)) {
                for service in sub_dirs(&dir).into_iter().filter(|dir| is_old(dir)) {
                    let _ = remove_dir(&service);
                }
                let _ = remove_dir(&dir);
            }
        }
    }
}

fn cores(vcpus: u32) -> Cores {
    Cores::from_millis(vcpus.saturating_mul(1000))
}

fn unsupported(limit: &str) -> io::Error {
    let message = format!("limit `{limit}` needs a writable cgroup, and there is none");
    io::Error::new(io::ErrorKind::Unsupported, message)
}

/// A group in one hierarchy.
#[derive(Debug)]
struct Part {
    hierarchy: Hierarchy,
    dir: PathBuf,
}

/// The group of one service: the same in every hierarchy that it needs.
#[derive(Debug)]
pub(super) struct Cgroup {
    /// Never empty, but after a failed start.
    parts: Vec<Part>,
}

impl Cgroup {
    /// Files that a child writes `0` to, between fork and exec and before it changes its user: that
    /// moves it into the group.
    pub(super) fn entry_fds(&self) -> io::Result<Vec<OwnedFd>> {
        let open = |part: &Part| {
            let file = File::options()
                .write(true)
                .open(part.dir.join("cgroup.procs"));
            file.map(OwnedFd::from)
        };
        self.parts.iter().map(open).collect()
    }

    /// The group of the first entry, where a child can be born in it. To be moved takes milliseconds.
    pub(super) fn birthplace(&self) -> Option<OwnedFd> {
        let part = self.parts.first().filter(|part| part.hierarchy.unified)?;
        File::open(&part.dir).ok().map(OwnedFd::from)
    }

    /// The living processes in the group, and in groups below it.
    pub(super) fn pids(&self) -> io::Result<Vec<u32>> {
        self.parts
            .first()
            .map_or(Ok(Vec::new()), |part| pids(&part.dir))
    }

    /// Sends SIGKILL to every process in the group; whether it reached any.
    pub(super) fn kill(&self) -> io::Result<bool> {
        self.parts.first().map_or(Ok(false), kill_dir)
    }

    /// Kills every process in the group and returns once none is left.
    pub(super) async fn kill_all(&self) -> io::Result<()> {
        let mut again = false;
        loop {
            // It makes new ones while they are killed: what is held cannot.
            let held = std::mem::replace(&mut again, true) && self.freeze(true).await.is_ok();
            let found = self.pids()?;
            let ends = os::Ends::of(&found)?;
            // What is still here had its number all the while.
            let still = self.pids()?;
            let killed = !still.is_empty() && self.kill()?;
            if held {
                self.freeze(false).await?;
            }
            if !killed {
                return Ok(());
            }
            ends.of_these(&still).await?;
        }
    }

    /// Holds every process, or lets them go on; returns once it is so.
    async fn freeze(&self, hold: bool) -> io::Result<()> {
        let part = self.parts.iter().find(|part| freezer(part).is_some());
        let Some((part, freezer)) = part.and_then(|part| Some((part, freezer(part)?))) else {
            let message = "processes cannot be held without a writable cgroup";
            return Err(io::Error::new(io::ErrorKind::Unsupported, message));
        };
        write(&part.dir, freezer.file, freezer.words[usize::from(hold)])?;
        let started = std::time::Instant::now();
        // The kernel has no event for it in version 1.
        while !freezer.is(&part.dir, hold) {
            if started.elapsed() > FREEZE_LIMIT {
                write(&part.dir, freezer.file, freezer.words[0])?;
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "a process cannot be held: it waits in the kernel",
                ));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// How often the kernel has killed a process of the group for want of memory.
    pub(super) fn oom_kills(&self) -> u64 {
        let has_memory = |part: &&Part| part.hierarchy.controllers.contains(&Controller::Memory);
        let Some(part) = self.parts.iter().find(has_memory) else {
            return 0;
        };
        let file = match part.hierarchy.unified {
            true => "memory.events",
            false => "memory.oom_control",
        };
        let text = std::fs::read_to_string(part.dir.join(file)).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count
            .and_then(|count| count.trim().parse().ok())
            .unwrap_or(0)
    }

    /// Removes the group, which has to be empty; what cannot be removed now is at the next start.
    pub(super) fn remove(&self) {
        for part in &self.parts {
            if let Err(error) = remove_tree(&part.dir) {
                tracing::debug!(%error, "a control group is left");
            }
        }
    }
}

/// How a group is frozen.
struct Freezer {
    file: &'static str,
    /// To thaw, and to freeze.
    words: [&'static str; 2],
    state: &'static str,
    states: [&'static str; 2],
}

impl Freezer {
    fn is(&self, dir: &Path, frozen: bool) -> bool {
        let text = std::fs::read_to_string(dir.join(self.state)).unwrap_or_default();
        let state = self.states[usize::from(frozen)];
        text.lines().any(|line| line.trim() == state)
    }
}

fn freezer(part: &Part) -> Option<Freezer> {
    if part.hierarchy.unified && part.dir.join("cgroup.freeze").exists() {
        return Some(Freezer {
            file: "cgroup.freeze",
            words: ["0", "1"],
            state: "cgroup.events",
            states: ["frozen 0", "frozen 1"],
        });
    }
    let frozen = part.hierarchy.controllers.contains(&Controller::Freezer);
    frozen.then_some(Freezer {
        file: "freezer.state",
        words: ["THAWED", "FROZEN"],
        state: "freezer.state",
        states: ["THAWED", "FROZEN"],
    })
}

fn kill_dir(part: &Part) -> io::Result<bool> {
    let dir = &part.dir;
    if part.hierarchy.unified && dir.join("cgroup.kill").exists() {
        let any = !pids(dir)?.is_empty();
        write(dir, "cgroup.kill", "1")?;
        return Ok(any);
    }
    // Held meanwhile, so that none can fork while the others are killed.
    let freezer = freezer(part);
    if let Some(freezer) = &freezer {
        write(dir, freezer.file, freezer.words[1])?;
    }
    let found = pids(dir);
    let mut any = false;
    for pid in found.iter().flatten() {
        any |= os::kill_process(*pid);
    }
    if let Some(freezer) = &freezer {
        write(dir, freezer.file, freezer.words[0])?;
    }
    found.map(|_| any)
}

fn pids(dir: &Path) -> io::Result<Vec<u32>> {
    let text = match std::fs::read_to_string(dir.join("cgroup.procs")) {
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        other => other?,
    };
    let mut pids: Vec<u32> = text.lines().filter_map(|pid| pid.parse().ok()).collect();
    for below in sub_dirs(dir) {
        pids.extend(self::pids(&below)?);
    }
    Ok(pids)
}

/// A group that was removed meanwhile: by name, or while it was read.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(Errno::NODEV.raw_os_error())
}

fn sub_dirs(dir: &Path) -> Vec<PathBuf> {
    // Each folder in it is one more link to it; most have none.
    if dir.metadata().is_ok_and(|found| found.nlink() <= 2) {
        return Vec::new();
    }
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    dirs.map(|entry| entry.path()).collect()
}

fn is_old(dir: &Path) -> bool {
    let made = dir.metadata().and_then(|found| found.modified());
    let age = made.map(|made| SystemTime::now().duration_since(made).unwrap_or_default());
    age.is_ok_and(|age| age >= LEFT_BEHIND)
}

fn make_dir(dir: &Path) -> io::Result<()> {
    std::fs::create_dir(dir).map_err(|error| at(dir, error))
}

fn remove_dir(dir: &Path) -> io::Result<()> {
    std::fs::remove_dir(dir)
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    for below in sub_dirs(dir) {
        remove_tree(&below)?;
    }
    match remove_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|error| at(dir, error)),
    }
}

/// Lets groups below `dir` have controllers; without them they can be entered and killed all the same.
fn pass_on(hierarchy: &Hierarchy, dir: &Path) {
    if !hierarchy.unified {
        return;
    }
    for controller in &hierarchy.controllers {
        let word = format!("+{}", controller.word());
        if let Err(error) = write(dir, "cgroup.subtree_control", &word) {
            tracing::debug!(%error, "a controller is not passed on");
        }
    }
}

fn limit_memory(hierarchy: &Hierarchy, dir: &Path, bytes: Option<u64>) -> io::Result<()> {
    let Some(bytes) = bytes.map(|bytes| bytes.to_string()) else {
        return Ok(());
    };
    if hierarchy.unified {
        write(dir, "memory.max", &bytes)?;
        return optional(write(dir, "memory.swap.max", "0"));
    }
    write(dir, "memory.limit_in_bytes", &bytes)?;
    // Memory and swap together: there is none where the kernel does not count swap.
    optional(write(dir, "memory.memsw.limit_in_bytes", &bytes))
}

fn limit_cpu(hierarchy: &Hierarchy, dir: &Path, cores: Option<Cores>) -> io::Result<()> {
    let Some(cores) = cores else { return Ok(()) };
    let quota = u64::from(cores.millis()) * PERIOD / 1000;
    if hierarchy.unified {
        return write(dir, "cpu.max", &format!("{quota} {PERIOD}"));
    }
    write(dir, "cpu.cfs_period_us", &PERIOD.to_string())?;
    write(dir, "cpu.cfs_quota_us", &quota.to_string())
}

fn optional(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn write(dir: &Path, file: &str, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    let path = dir.join(file);
    // Not created: the kernel has made it, or there is none.
    let opened = File::options().write(true).open(&path);
    let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| at(&path, error))
}

fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Which limits can be kept to on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitSupport {
    /// Memory of a service or sandbox as a whole.
    pub memory: bool,
    /// Processor time.
    pub cpu: bool,
    /// The number of processes.
    pub processes: bool,
}

/// Looks for control groups that this process may use. Open files can be limited everywhere.
pub fn limit_support() -> LimitSupport {
    let groups = Cgroups::detect();
    LimitSupport {
        memory: groups.can(Controller::Memory),
        cpu: groups.can(Controller::Cpu),
        processes: groups.can(Controller::Pids),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(group: &Cgroup) -> std::process::Child {
        use std::os::unix::process::CommandExt;
        let entries = group.entry_fds().unwrap();
        let mut command = std::process::Command::new("sleep");
        command.arg("600");
        // SAFETY: the closure only makes system calls.
        unsafe {
            command.pre_exec(move || {
                for entry in &entries {
                    rustix::io::write(entry, b"0")?;
                }
                Ok(())
            });
        }
        command.spawn().unwrap()
    }

    #[tokio::test]
    async fn groups_are_made_held_killed_and_removed() {
        let temp = tempfile::tempdir().unwrap();
        let groups = Cgroups::detect().of_sandbox(temp.path(), &SandboxSpec::default());
        let name = ServiceName::new("tasks").unwrap();
        let Some(group) = groups.service(&name, &Limits::default()).unwrap() else {
            return;
        };
        let mut child = sleeper(&group);
        assert_eq!(group.pids().unwrap(), [child.id()]);
        if group.parts.iter().any(|part| freezer(part).is_some()) {
            group.freeze(true).await.unwrap();
            group.freeze(false).await.unwrap();
            // What is held can be killed too.
            group.freeze(true).await.unwrap();
        }
        assert!(groups.existing(&name).unwrap().kill().unwrap());
        let _ = group.freeze(false).await;
        group.kill_all().await.unwrap();
        assert!(!child.wait().unwrap().success());
        assert_eq!(group.oom_kills(), 0);
        groups.clear().await.unwrap();
        assert!(groups.existing(&name).is_none());
    }

    #[test]
    fn limits_that_cannot_be_kept_to_are_errors() {
        let name = ServiceName::new("web").unwrap();
        let none = SandboxCgroups::none();
        let with = |limits| none.service(&name, &limits).map(|group| group.is_some());
        let cpu = Limits {
            cpu: Cores::new(1.0),
            ..Limits::default()
        };
        let processes = Limits {
            processes: Some(1),
            ..Limits::default()
        };
        let memory = Limits {
            memory: Some(1 << 30),
            files: Some(9),
            ..Limits::default()
        };
        assert!(with(cpu).is_err() && with(processes).is_err());
        assert!(!with(memory).unwrap());
    }
}
