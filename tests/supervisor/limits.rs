//! Limits on real processes, control groups as the end of whole trees, terminals and open input.
//! Where no control group can be made, the limits that work without one are tested.

use gabion::model::{Cores, Limits, RestartPolicy, ServiceState};
use gabion::supervisor::{Client, limit_support};
use rustix::process::Signal;

use crate::rig::*;

/// The group of a process in one hierarchy, as a folder.
fn group_of(pid: u32, controller: &str) -> std::path::PathBuf {
    let own = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let line = own.lines().find(|line| match controller {
        "" => line.starts_with("0::"),
        name => line
            .split(':')
            .nth(1)
            .unwrap()
            .split(',')
            .any(|it| it == name),
    });
    let line = line.or_else(|| own.lines().find(|line| line.starts_with("0::")));
    let path = line.unwrap().splitn(3, ':').nth(2).unwrap().to_owned();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount = mounts.lines().find(|mount| {
        let (left, right) = mount.split_once(" - ").unwrap();
        let mut right = right.split(' ');
        let kind = right.next().unwrap();
        let options = right.nth(1).unwrap_or_default();
        let unified = line.unwrap().starts_with("0::");
        left.split(' ').nth(3) == Some("/")
            && match unified {
                true => kind == "cgroup2",
                false => kind == "cgroup" && options.split(',').any(|it| it == controller),
            }
    });
    let point = mount.unwrap().split(' ').nth(4).unwrap();
    std::path::Path::new(point).join(path.trim_start_matches('/'))
}

fn read(dir: &std::path::Path, files: [&str; 2]) -> String {
    let texts = files.map(|file| std::fs::read_to_string(dir.join(file)));
    let text = texts
        .into_iter()
        .flatten()
        .next()
        .expect("one of the files");
    text.trim().to_owned()
}

#[tokio::test]
async fn a_memory_hog_is_killed_and_the_reason_named() {
    let rig = Rig::new().await;
    let mut hog = script("x = []\nwhile True: x.append(b'x' * (1 << 20))");
    hog.limits.memory = Some(64 << 20);
    hog.restart.policy = RestartPolicy::No;
    rig.put("hog", &hog).await;
    // It is ready at once, so its start succeeds or fails with it.
    let _ = rig.start("hog").await;
    let failed = rig.until_state("hog", ServiceState::Failed).await;
    let message = failed.message.unwrap();
    if limit_support().memory {
        assert!(message.starts_with("killed by KILL after "), "{message}");
        assert!(
            message.ends_with(": out of memory (limit 64 MiB)"),
            "{message}"
        );
    } else {
        assert!(message.starts_with("exited with 1 after "), "{message}");
        assert!(
            rig.texts("hog")
                .await
                .iter()
                .any(|line| line == "MemoryError")
        );
    }
}

#[tokio::test]
async fn a_child_that_runs_out_of_memory_is_named_too() {
    if !limit_support().memory {
        return;
    }
    let rig = Rig::new().await;
    let mut hog = shell("tail /dev/zero; exit 3");
    hog.limits.memory = Some(16 << 20);
    hog.restart.policy = RestartPolicy::No;
    rig.put("hog", &hog).await;
    let _ = rig.start("hog").await;
    let failed = rig.until_state("hog", ServiceState::Failed).await;
    let message = failed.message.unwrap();
    assert!(message.starts_with("exited with 3 after "), "{message}");
    assert!(
        message.ends_with(": out of memory (limit 16 MiB)"),
        "{message}"
    );
}

#[tokio::test]
async fn cpu_memory_and_processes_are_written_to_the_group() {
    let support = limit_support();
    if !(support.cpu && support.processes && support.memory) {
        return;
    }
    let rig = Rig::new().await;
    let mut spec = exec(&["sleep", "600"]);
    spec.limits = Limits {
        memory: Some(64 << 20),
        cpu: Cores::new(1.5),
        files: None,
        processes: Some(7),
    };
    let pid = rig.run("web", &spec).await.pid.unwrap();
    let cpu = group_of(pid, "cpu");
    let quota = read(&cpu, ["cpu.max", "cpu.cfs_quota_us"]);
    assert!(quota == "150000 100000" || quota == "150000", "{quota}");
    let memory = group_of(pid, "memory");
    let bytes = read(&memory, ["memory.max", "memory.limit_in_bytes"]);
    assert_eq!(bytes, (64 << 20).to_string());
    let pids = group_of(pid, "pids");
    assert_eq!(read(&pids, ["pids.max", "pids.max"]), "7");
    // Nothing is left of the groups when the service has stopped.
    rig.stop("web").await;
    for dir in [cpu, memory, pids] {
        assert!(!dir.exists(), "{}", dir.display());
    }
}

#[tokio::test]
async fn processes_are_counted_with_all_that_they_start() {
    if !limit_support().processes {
        return;
    }
    let rig = Rig::new().await;
    let mut spec = script(
        "import os, signal
made = 0
try:
    while made < 50:
        if os.fork() == 0: signal.pause()
        made += 1
except BlockingIOError: pass
print(made)
signal.pause()",
    );
    spec.limits.processes = Some(5);
    rig.run("web", &spec).await;
    assert_eq!(rig.lines("web", 1).await[0].text, "4");
}

#[tokio::test]
async fn open_files_are_limited_everywhere() {
    let rig = Rig::new().await;
    let mut spec = shell("ulimit -n; ulimit -Hn; sleep 600");
    spec.limits.files = Some(77);
    rig.run("web", &spec).await;
    let lines = rig.lines("web", 2).await;
    assert_eq!([&lines[0].text, &lines[1].text], ["77", "77"]);
}

#[tokio::test]
async fn the_whole_sandbox_has_limits_too() {
    if !(limit_support().memory && limit_support().cpu) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    make_sandbox(temp.path());
    let spec = gabion::model::SandboxSpec {
        memory: Some(48 << 20),
        vcpus: Some(1),
        ..Default::default()
    };
    let text = serde_json::json!({ "spec": spec }).to_string();
    std::fs::write(temp.path().join("sandbox.json"), text).unwrap();
    let rig = Rig::at(temp.path()).await;
    let mut hog = script("x = []\nwhile True: x.append(b'x' * (1 << 20))");
    hog.restart.policy = RestartPolicy::No;
    hog.limits.cpu = Cores::new(8.0);
    rig.put("hog", &hog).await;
    let _ = rig.start("hog").await;
    let failed = rig.until_state("hog", ServiceState::Failed).await;
    let message = failed.message.unwrap();
    let reason = ": out of memory (limit 48 MiB for the whole sandbox)";
    assert!(message.ends_with(reason), "{message}");
}

#[tokio::test]
async fn what_hides_from_its_service_is_found_in_its_group() {
    if !limit_support().processes {
        return;
    }
    let rig = Rig::new().await;
    // Two forks and a session of its own, and its parent gone before anybody looks.
    let mut daemon = script(
        "import os, signal
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print('hidden')
        while True: signal.pause()
    os._exit(0)
os.wait()
print('alone')
signal.pause()",
    );
    // In a group of that kind only with a limit.
    daemon.limits.processes = Some(50);
    let main = rig.run("web", &daemon).await.pid.unwrap();
    // One line of what hides, the other after the process between is gone.
    rig.lines("web", 2).await;
    // It is in one hierarchy at least, which knows all its processes.
    let groups = ["", "pids", "freezer", "memory", "cpu"].map(|name| group_of(main, name));
    let mut own = groups
        .iter()
        .filter(|group| group.to_string_lossy().contains("gabion"));
    let group = own.next().unwrap();
    let pids = read(group, ["cgroup.procs", "cgroup.procs"]);
    let pids: Vec<u32> = pids.lines().map(|pid| pid.parse().unwrap()).collect();
    assert!(pids.len() == 2 && pids.contains(&main), "{pids:?}");
    rig.stop("web").await;
    assert!(!pids.into_iter().any(alive));
    assert!(!group.exists());
}

#[tokio::test]
async fn the_next_supervisor_knows_the_groups_of_a_killed_one() {
    if !limit_support().memory {
        return;
    }
    let rig = Rig::new().await;
    let mut spec = shell("sleep 600; exit 0");
    spec.limits.memory = Some(32 << 20);
    let pid = rig.run("web", &spec).await.pid.unwrap();
    let group = group_of(pid, "memory");
    kill(rig.pid, Signal::KILL);
    gone(rig.pid).await;
    let client = in_time(async {
        loop {
            if let Ok(Some(client)) = Client::open(rig.dir())
                && client.health().await.is_ok()
            {
                return client;
            }
            tokio::task::yield_now().await;
        }
    });
    let client = client.await;
    assert_eq!(client.get(&named("web")).await.unwrap().pid, Some(pid));
    assert_eq!(group_of(pid, "memory"), group);
    in_time(client.stop(&named("web"))).await.unwrap();
    assert!(!alive(pid) && !group.exists());
    let successor = client.health().await.unwrap().pid;
    client.shutdown().await.unwrap();
    gone(successor).await;
    assert!(!group.parent().unwrap().exists());
}

#[tokio::test]
async fn a_terminal_for_a_service_that_wants_one() {
    let rig = Rig::new().await;
    let mut spec =
        shell("test -t 0 && test -t 1 && test -t 2 && echo all; tty; stty size; sleep 600");
    spec.tty = true;
    rig.run("web", &spec).await;
    let lines = rig.lines("web", 3).await;
    assert_eq!(lines[0].text, "all");
    assert!(lines[1].text.starts_with("/dev/pts/"), "{lines:?}");
    assert_eq!(lines[2].text, "24 80");
    rig.stop("web").await;
}

#[tokio::test]
async fn the_last_words_on_a_terminal_are_kept() {
    let rig = Rig::new().await;
    let mut spec = shell("seq 1 5000; printf last");
    spec.tty = true;
    spec.restart.policy = RestartPolicy::No;
    spec.kind = gabion::model::ServiceKind::Task;
    rig.run("task", &spec).await;
    let texts = rig.texts("task").await;
    assert_eq!(texts.len(), 5001);
    assert_eq!(texts[4999..], ["5000", "last"]);
}

#[tokio::test]
async fn standard_input_stays_open_if_it_is_wanted() {
    let rig = Rig::new().await;
    let mut spec = shell("exec cat");
    spec.restart.policy = RestartPolicy::No;
    rig.put("closed", &spec).await;
    let _ = rig.start("closed").await;
    rig.until_state("closed", ServiceState::Stopped).await;
    spec.stdin_open = true;
    rig.run("open", &spec).await;
    // It has not ended while another service was started and has ended.
    rig.run("closed", &exec(&["true"])).await;
    assert_eq!(rig.get("open").await.state, Some(ServiceState::Running));
}
