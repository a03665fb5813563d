//! What survives a killed supervisor, and what a killed keeper takes with it.

use gabion::model::{Probe, ServiceKind, ServiceState};
use rustix::process::Signal;

use crate::rig::*;

#[tokio::test]
async fn services_outlive_their_supervisor() {
    let mut rig = Rig::new().await;
    let port = free_port();
    let web = rig.run("web", &server(port, 0)).await;
    let mut task = shell("read x < fifo; echo $x");
    task.kind = ServiceKind::Task;
    let made = std::process::Command::new("mkfifo")
        .arg(rig.workspace().join("fifo"))
        .status();
    assert!(made.unwrap().success());
    rig.put("task", &task).await;
    let task = rig.execute("task").await;
    rig.run("done", &shell("exit 0")).await;
    let done = rig.until_state("done", ServiceState::Stopped).await;
    rig.kill_supervisor().await;
    let after = rig.get("web").await;
    assert_eq!(
        (after.pid, after.state),
        (web.pid, Some(ServiceState::Running))
    );
    assert_eq!(after.started_at, web.started_at);
    assert_eq!(rig.get("task").await.pid, task.pid);
    // What was done is not done again.
    assert_eq!(rig.get("done").await.last_exit, done.last_exit);
    assert_eq!(rig.get("done").await.state, Some(ServiceState::Stopped));
    std::fs::write(rig.workspace().join("fifo"), "well\n").unwrap();
    rig.until_state("task", ServiceState::Completed).await;
    assert_eq!(rig.texts("task").await, ["well"]);
    assert_eq!(rig.stop("web").await.pid, None);
    assert!(!alive(web.pid.unwrap()));
}

#[tokio::test]
async fn an_end_that_no_supervisor_saw_is_known() {
    let mut rig = Rig::new().await;
    let mut spec = shell("trap 'echo told; exit 3' TERM; echo up; while :; do sleep 0.01; done");
    spec.restart.policy = gabion::model::RestartPolicy::No;
    let web = rig.run("web", &spec).await;
    rig.lines("web", 1).await;
    kill(rig.pid, Signal::STOP);
    kill(web.pid.unwrap(), Signal::TERM);
    gone(web.pid.unwrap()).await;
    rig.kill_supervisor().await;
    let failed = rig.until_state("web", ServiceState::Failed).await;
    assert_eq!(exit_of(&failed).code, 3);
    assert_eq!(rig.texts("web").await, ["up", "told"]);
}

#[tokio::test]
async fn back_off_and_readiness_go_on() {
    let mut rig = Rig::new().await;
    let mut crashes = shell("exit 1");
    crashes.restart.backoff = millis(60_000);
    crashes.restart.max_backoff = millis(60_000);
    rig.put("crashes", &crashes).await;
    rig.execute("crashes").await;
    let waits = rig.until_state("crashes", ServiceState::BackingOff).await;
    let waits = match waits.restart_count {
        0 => {
            rig.until("crashes", |o| o.restart_count == 1 && o.pid.is_none())
                .await
        }
        _ => waits,
    };
    let mut slow = shell("while ! test -e good; do sleep 0.01; done; echo ready; exec sleep 600");
    let contains = "ready".to_owned();
    slow.health = health(Probe::Log { contains });
    rig.put("slow", &slow).await;
    let slow = rig.execute("slow").await;
    rig.kill_supervisor().await;
    let still = rig.get("crashes").await;
    assert_eq!(still.state, Some(ServiceState::BackingOff));
    assert_eq!(still.restart_count, waits.restart_count);
    assert_eq!(still.next_restart_at, waits.next_restart_at);
    let starting = rig.get("slow").await;
    assert_eq!(
        (starting.state, starting.pid),
        (Some(ServiceState::Starting), slow.pid)
    );
    std::fs::write(rig.workspace().join("good"), "").unwrap();
    rig.until_state("slow", ServiceState::Running).await;
}

#[tokio::test]
async fn with_the_keeper_dies_everything() {
    let mut rig = Rig::new().await;
    let daemon = "(setsid sh -c 'exec sleep 600' &); sleep 600 & exec sleep 600";
    for name in ["a", "b"] {
        rig.run(name, &shell(daemon)).await;
    }
    let all = loop {
        let all = below(rig.keeper);
        if all.len() >= 8 {
            break all;
        }
        tokio::task::yield_now().await;
    };
    kill(rig.keeper, Signal::KILL);
    gone(rig.keeper).await;
    for pid in all {
        gone(pid).await;
    }
    rig.relaunch(Signal::KILL).await;
    rig.until_state("a", ServiceState::Running).await;
    rig.until_state("b", ServiceState::Running).await;
}

#[tokio::test]
async fn a_supervisor_killed_again_and_again_loses_and_doubles_no_line() {
    let mut rig = Rig::new().await;
    let counts = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo $i; done; exec sleep 600";
    let pids: Vec<_> = futures_util::future::join_all(["a", "b"].map(|name| {
        let (rig, spec) = (&rig, shell(counts));
        async move { rig.run(name, &spec).await.pid }
    }))
    .await;
    for _ in 0..20 {
        rig.kill_supervisor().await;
    }
    for (name, pid) in ["a", "b"].into_iter().zip(pids) {
        let lines = rig.lines(name, 20_000).await;
        let numbers: Vec<u32> = lines
            .iter()
            .map(|line| line.text.parse().unwrap())
            .collect();
        assert!(numbers.into_iter().eq(1..=20_000));
        assert_eq!(rig.get(name).await.pid, pid);
    }
}

/// Another program that says it is another version.
fn other_version(dir: &std::path::Path, version: &str) -> std::path::PathBuf {
    let mut program = std::fs::read(EXE).unwrap();
    let marked = concat!("gabion version ", env!("CARGO_PKG_VERSION"));
    let at = memchr::memmem::find(&program, marked.as_bytes()).unwrap();
    let number = at + marked.len() - version.len();
    program[number..at + marked.len()].copy_from_slice(version.as_bytes());
    let (draft, path) = (dir.join("draft"), dir.join("gabion"));
    std::fs::write(&draft, program).unwrap();
    // Not by this process: another test's fork would hold it open for writing, and it could not run.
    let copied = std::process::Command::new("cp")
        .args([&draft, &path])
        .status();
    assert!(copied.unwrap().success());
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&path, executable).unwrap();
    path
}

#[tokio::test]
async fn another_version_takes_over_without_touching_the_services() {
    let rig = Rig::new().await;
    let web = rig.run("web", &exec(&["sleep", "600"])).await;
    let temp = tempfile::tempdir().unwrap();
    let newer = other_version(temp.path(), "9.9.9");
    let health = rig.client.upgrade(&newer).await.unwrap();
    assert_eq!(
        (health.version.as_str(), health.keeper_pid),
        ("9.9.9", Some(rig.keeper))
    );
    assert_ne!(health.pid, rig.pid);
    assert_eq!(rig.get("web").await.pid, web.pid);
    // One that does not come up leaves the place to the one before.
    let broken = temp.path().join("broken");
    std::fs::write(&broken, "#!/bin/sh\nexit 1\n").unwrap();
    std::fs::set_permissions(&broken, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let health = rig.client.upgrade(&broken).await.unwrap();
    assert_eq!(health.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(rig.get("web").await.pid, web.pid);
    let nothing = rig.client.upgrade(&temp.path().join("nothing")).await;
    assert_eq!(nothing.unwrap_err().status, Some(400));
}

#[tokio::test]
async fn a_wish_that_was_stored_and_not_acted_on_comes_true() {
    let mut rig = Rig::new().await;
    let up = rig.run("up", &exec(&["sleep", "600"])).await;
    rig.run("down", &exec(&["sleep", "600"])).await;
    rig.stop("down").await;
    // As if the supervisor had been killed right after it had stored what it was asked for.
    kill(rig.keeper, Signal::STOP);
    kill(rig.pid, Signal::KILL);
    gone(rig.pid).await;
    for (name, from, to) in [("up", "running", "stopped"), ("down", "stopped", "running")] {
        let path = rig.dir().join("services").join(format!("{name}.json"));
        let mut record: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(record["goal"], from);
        record["goal"] = to.into();
        std::fs::write(&path, record.to_string()).unwrap();
    }
    kill(rig.keeper, Signal::CONT);
    rig.look().await;
    rig.until_state("up", ServiceState::Stopped).await;
    assert!(!alive(up.pid.unwrap()));
    rig.until_state("down", ServiceState::Running).await;
}

#[tokio::test]
async fn a_keeper_without_a_folder_ends_though_nobody_tells_it_to() {
    let rig = Rig::new().await;
    let web = rig.run("web", &exec(&["sleep", "600"])).await;
    // Held, so that it does not see to it itself.
    kill(rig.pid, Signal::STOP);
    std::fs::remove_dir_all(rig.dir()).unwrap();
    kill(rig.pid, Signal::KILL);
    gone(rig.keeper).await;
    assert!(!alive(web.pid.unwrap()));
}
