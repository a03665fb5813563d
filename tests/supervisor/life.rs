//! Tasks, restarts on request, signals, what a process is given, and errors at its execution.

use gabion::model::{ServiceKind, ServiceState};
use gabion::supervisor::Status;
use rustix::process::Signal;

use crate::rig::*;

#[tokio::test]
async fn tasks_complete_fail_and_run_out_of_time() {
    let mut rig = Rig::new().await;
    let mut task = shell("exit 0");
    task.kind = ServiceKind::Task;
    let done = rig.run("good", &task).await;
    assert_eq!(
        (done.state, done.status),
        (Some(ServiceState::Completed), Status::Stopped)
    );
    let mut bad = shell("echo why >&2; exit 7");
    bad.kind = ServiceKind::Task;
    rig.put("bad", &bad).await;
    let error = rig.start("bad").await.unwrap_err();
    assert_eq!(error.code, "start_failed");
    assert!(error.message.starts_with("exited with 7 after "), "{error}");
    assert_eq!(error.log_tail, ["why"]);
    let failed = rig.get("bad").await;
    assert_eq!(
        (failed.state, failed.restart_count),
        (Some(ServiceState::Failed), 0)
    );
    let mut slow = exec(&["sleep", "600"]);
    slow.kind = ServiceKind::Task;
    slow.timeout = Some(millis(100));
    rig.put("slow", &slow).await;
    let error = rig.start("slow").await.unwrap_err();
    assert_eq!(
        (error.status, error.message.as_str()),
        (Some(504), "still running after 0.1 s")
    );
    // What is known of them survives, and none is run again.
    let mut long = exec(&["sleep", "600"]);
    long.kind = ServiceKind::Task;
    rig.put("long", &long).await;
    let started = rig.execute("long").await;
    assert_eq!(started.state, Some(ServiceState::Starting));
    rig.relaunch(Signal::KILL).await;
    for (name, state, message) in [
        ("good", ServiceState::Completed, None),
        (
            "slow",
            ServiceState::Failed,
            Some("still running after 0.1 s"),
        ),
        (
            "long",
            ServiceState::Failed,
            Some("interrupted when the sandbox went down"),
        ),
    ] {
        let object = rig.get(name).await;
        assert_eq!(object.state, Some(state), "{name}");
        assert_eq!(object.message.as_deref(), message, "{name}");
    }
}

#[tokio::test]
async fn restart_signal_and_long_poll() {
    let rig = Rig::new().await;
    let first = rig.run("web", &exec(&["sleep", "600"])).await;
    let (changed, second) = tokio::join!(rig.change("web", first.seq), rig.restart("web"));
    assert!(changed.seq > first.seq);
    assert_eq!(second.status, Status::Running);
    assert_ne!(second.pid, first.pid);
    assert!(!alive(first.pid.unwrap()));
    // Not before its trap is set.
    let spec = script(
        "import signal
signal.signal(signal.SIGHUP, lambda *_: print('hup'))
print('set')
while True: signal.pause()",
    );
    rig.run("other", &spec).await;
    rig.lines("other", 1).await;
    rig.client.signal(&named("other"), "HUP").await.unwrap();
    assert_eq!(rig.lines("other", 2).await[1].text, "hup");
    rig.stop("other").await;
    let error = rig.client.signal(&named("other"), "HUP").await.unwrap_err();
    assert_eq!(
        (error.status, error.code.as_str()),
        (Some(409), "not_running")
    );
}

#[tokio::test]
async fn what_only_the_supervisor_reads_is_taken_over_in_place() {
    let rig = Rig::new().await;
    let mut spec = exec(&["sleep", "600"]);
    let first = rig.run("web", &spec).await;
    spec.description = Some("new words".into());
    let changed = rig.put("web", &spec).await;
    assert_eq!((changed.pid, changed.revision), (first.pid, 2));
    assert_eq!(changed.running_revision, Some(2));
}

#[tokio::test]
async fn the_environment_is_minimal() {
    let rig = Rig::new().await;
    let mut spec = exec(&["env"]);
    spec.env.insert("EXTRA".into(), "a=b ${x} $y".into());
    spec.kind = ServiceKind::Task;
    rig.run("web", &spec).await;
    let mut lines = rig.texts("web").await;
    lines.sort();
    assert_eq!(lines[0], "EXTRA=a=b ${x} $y");
    let names: Vec<_> = lines
        .iter()
        .map(|line| line.split('=').next().unwrap())
        .collect();
    assert_eq!(names, ["EXTRA", "HOME", "LANG", "PATH", "USER"]);
}

#[tokio::test]
async fn it_leads_a_session_and_reads_nothing() {
    let rig = Rig::new().await;
    let mut spec = shell("read x || echo nothing; ps -o sid= -p $$ | tr -d ' '; echo $$; pwd");
    spec.kind = ServiceKind::Task;
    rig.run("web", &spec).await;
    let lines = rig.texts("web").await;
    let workspace = rig.workspace().canonicalize().unwrap();
    assert_eq!(lines[0], "nothing");
    assert_eq!(lines[1], lines[2]);
    assert_eq!(lines[3], workspace.to_str().unwrap());
}

#[tokio::test]
async fn errors_at_execution_are_precise() {
    let rig = Rig::new().await;
    std::fs::write(rig.workspace().join("plain"), "").unwrap();
    let mut lost = exec(&["sh"]);
    lost.working_dir = Some("nowhere".into());
    let mut stranger = exec(&["sh"]);
    stranger.user = Some("no-such-user".into());
    for (spec, part) in [
        (exec(&["nodde"]), "`nodde` was not found in PATH"),
        (exec(&["./plain"]), "`./plain`: permission denied"),
        (lost, "/workspace/nowhere` does not exist"),
        (stranger, "there is no user `no-such-user`"),
    ] {
        rig.put("web", &spec).await;
        let error = rig.start("web").await.unwrap_err();
        assert_eq!(
            (error.status, error.code.as_str()),
            (Some(500), "start_failed")
        );
        assert!(error.message.contains(part), "{error}");
        assert_eq!(rig.get("web").await.state, Some(ServiceState::Failed));
    }
}

#[tokio::test]
async fn another_user() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, open) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::set_permissions(open.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let sandbox = gabion::model::SandboxSpec {
        workspace: Some(open.path().to_owned()),
        ..Default::default()
    };
    let text = serde_json::json!({ "spec": sandbox }).to_string();
    std::fs::write(dir.path().join("sandbox.json"), text).unwrap();
    let rig = Rig::at(dir.path()).await;
    let mut spec = exec(&["id", "-un"]);
    spec.kind = ServiceKind::Task;
    let root = rustix::process::geteuid().is_root();
    spec.user = Some(if root { "nobody" } else { "root" }.into());
    rig.put("web", &spec).await;
    let started = rig.start("web").await;
    if root {
        started.unwrap();
        assert_eq!(rig.texts("web").await, ["nobody"]);
        let closed = open.path().join("closed");
        std::fs::create_dir(&closed).unwrap();
        std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o700)).unwrap();
        spec.working_dir = Some("closed".into());
        rig.put("web", &spec).await;
        let error = rig.start("web").await.unwrap_err();
        let says = format!(
            "`nobody` may not enter working_dir `{}`: \
             set `workspace` to a folder that nobody may use",
            closed.display()
        );
        assert_eq!(error.message, says);
    } else {
        let error = started.unwrap_err();
        assert!(
            error.message.contains("only root can change the user"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn the_sandbox_names_the_workspace() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let other = other.path().canonicalize().unwrap();
    let spec = gabion::model::SandboxSpec {
        workspace: Some(other.clone()),
        ..Default::default()
    };
    let text = serde_json::json!({ "spec": spec, "more": 1 }).to_string();
    std::fs::write(dir.path().join("sandbox.json"), text).unwrap();
    let rig = Rig::at(dir.path()).await;
    let mut spec = exec(&["pwd"]);
    spec.kind = ServiceKind::Task;
    rig.run("web", &spec).await;
    assert_eq!(rig.texts("web").await, [other.to_str().unwrap()]);
}

#[tokio::test]
async fn what_was_stopped_stays_stopped_when_its_dependents_come_back() {
    let mut rig = Rig::new().await;
    let mut web = exec(&["sleep", "600"]);
    web.needs = vec![need("db")];
    rig.put("db", &exec(&["sleep", "600"])).await;
    rig.run("web", &web).await;
    rig.stop("db").await;
    assert_eq!(rig.get("web").await.status, Status::Running);
    rig.relaunch(Signal::KILL).await;
    rig.until_state("web", ServiceState::Running).await;
    assert_eq!(rig.get("db").await.status, Status::Stopped);
    // A start on request starts what it needs.
    rig.stop("web").await;
    rig.start("web").await.unwrap();
    assert_eq!(rig.get("db").await.status, Status::Running);
}

#[tokio::test]
async fn many_services_at_once() {
    let mut rig = Rig::new().await;
    let names: Vec<_> = (0..40).map(|n| format!("s{n}")).collect();
    for (index, name) in names.iter().enumerate() {
        let mut spec = exec(&["sleep", "600"]);
        // Each needs the two before it.
        spec.needs = (index.saturating_sub(2)..index)
            .map(|n| need(&names[n]))
            .collect();
        rig.put(name, &spec).await;
    }
    let starts = names.iter().map(|name| rig.start(name));
    for started in futures_util::future::join_all(starts).await {
        started.unwrap();
    }
    let before = rig.client.list().await.unwrap();
    let mut order: Vec<_> = before
        .iter()
        .map(|o| (o.started_at, o.name.clone()))
        .collect();
    order.sort();
    let order: Vec<_> = order.into_iter().map(|(_, name)| name).collect();
    assert_eq!(order, names);
    rig.relaunch(Signal::KILL).await;
    for name in &names {
        rig.until_state(name, ServiceState::Running).await;
    }
    assert!(before.iter().all(|object| !alive(object.pid.unwrap())));
}

#[tokio::test]
async fn every_signal_to_end_stops_and_a_second_one_kills() {
    for signal in [Signal::HUP, Signal::QUIT, Signal::INT] {
        let rig = Rig::new().await;
        let web = shell("trap 'echo bye; exit' TERM; echo up; sleep 600 & wait");
        let object = rig.run("web", &web).await;
        rig.lines("web", 1).await;
        kill(rig.pid, signal);
        gone(rig.pid).await;
        assert!(!alive(object.pid.unwrap()));
        let log = gabion::platforms::LogQuery::default();
        let lines = gabion::supervisor::logs::read(rig.dir(), &named("web"), &log).unwrap();
        assert_eq!(lines[1].text, "bye");
    }
    let rig = Rig::new().await;
    let mut stubborn = shell("trap 'echo told' TERM; echo up; while :; do sleep 1 & wait; done");
    stubborn.stop.grace = millis(600_000);
    let object = rig.run("web", &stubborn).await;
    rig.lines("web", 1).await;
    kill(rig.pid, Signal::TERM);
    rig.lines("web", 2).await;
    kill(rig.pid, Signal::TERM);
    gone(rig.pid).await;
    assert!(!alive(object.pid.unwrap()));
}

#[tokio::test]
async fn a_disk_that_takes_nothing_does_not_hinder_a_stop() {
    let rig = Rig::new().await;
    let object = rig.run("web", &exec(&["sleep", "600"])).await;
    // Where a record is written before it is moved into place.
    std::fs::create_dir(rig.dir().join("services/web.tmp")).unwrap();
    let stopped = rig.stop("web").await;
    assert_eq!((stopped.status, stopped.pid), (Status::Stopped, None));
    assert!(!alive(object.pid.unwrap()));
    let log = std::fs::read_to_string(rig.dir().join("supervisor.log")).unwrap();
    assert!(log.contains("its record is not stored"), "{log}");
}
