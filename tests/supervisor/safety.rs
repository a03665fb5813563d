//! Secrets, the socket, and one supervisor at a time.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use gabion::model::{Secrets, ServiceKind, ServiceState};
use gabion::supervisor::{Client, LaunchError, Until, launch};
use rustix::process::Signal;

use crate::rig::*;

const SECRET: &str = "correct-horse-battery";

/// Every file below a folder that contains `text`.
fn containing(dir: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(containing(&path, text));
        } else if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            if bytes
                .windows(text.len())
                .any(|part| part == text.as_bytes())
            {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

#[tokio::test]
async fn secrets_reach_the_process_and_nothing_else() {
    let mut rig = Rig::new().await;
    let program = "case $TOKEN in x-correct-*-battery) echo right;; esac; exec sleep 600";
    let mut spec = shell(program);
    spec.env.insert("TOKEN".into(), "x-${secret.token}".into());
    spec.secrets.insert("token".into(), "digest".into());
    let mut secrets = Secrets::default();
    secrets.insert("token", SECRET.into());
    let name = named("web");
    let object = rig.client.put(&name, &spec, &secrets).await.unwrap();
    assert_eq!(object.env["TOKEN"], "x-${secret.token}");
    let object = rig.start("web").await.unwrap();
    assert!(!serde_json::to_string(&object).unwrap().contains(SECRET));
    assert_eq!(rig.lines("web", 1).await[0].text, "right");
    assert_eq!(containing(rig.dir(), SECRET), Vec::<String>::new());

    // Its successor has never heard of it.
    rig.relaunch(Signal::KILL).await;
    let failed = rig.until_state("web", ServiceState::Failed).await;
    let says = "the value of secret `token` is not at hand";
    assert_eq!(failed.message.as_deref(), Some(says));
    assert_eq!(rig.start("web").await.unwrap_err().message, says);
    rig.client
        .start(&name, &secrets, Until::Settled)
        .await
        .unwrap();
    assert_eq!(rig.lines("web", 2).await[1].text, "right");
}

#[tokio::test]
async fn a_long_folder_and_closed_doors() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("d".repeat(100)).join("e".repeat(100));
    let rig = Rig::at(&dir).await;
    let mut spec = shell("exit 0");
    spec.kind = ServiceKind::Task;
    rig.run("web", &spec).await;
    for (file, mode) in [
        (".", 0o700),
        ("services", 0o700),
        ("logs", 0o700),
        ("workspace", 0o700),
        ("supervisor.sock", 0o600),
        ("services/web.json", 0o600),
        ("logs/web.log", 0o600),
        ("supervisor.log", 0o600),
    ] {
        let found = std::fs::metadata(dir.join(file)).unwrap().permissions();
        assert_eq!(found.mode() & 0o777, mode, "{file}");
    }
}

#[tokio::test]
async fn only_one_supervisor_per_sandbox() {
    let rig = Rig::new().await;
    let error = launch(Path::new(EXE), rig.dir()).await.unwrap_err();
    assert!(matches!(error, LaunchError::Ended { .. }));
    assert!(
        error
            .to_string()
            .contains("another supervisor runs this sandbox"),
        "{error}"
    );
    assert_eq!(rig.client.health().await.unwrap().pid, rig.pid);
}

#[tokio::test]
async fn shutdown_stops_everything_and_the_supervisor() {
    let rig = Rig::new().await;
    let object = rig.run("web", &exec(&["sleep", "600"])).await;
    let after = object.seq + 1_000_000_000_000;
    let name = named("web");
    let (waiting, ended) = tokio::join!(
        in_time(rig.client.wait_change(&name, after)),
        in_time(rig.client.shutdown()),
    );
    // The one who waits is answered, asks again, and finds nobody.
    assert!(waiting.unwrap_err().is_unreachable());
    ended.unwrap();
    assert!(!alive(object.pid.unwrap()));
    gone(rig.pid).await;
    assert!(Client::open(rig.dir()).unwrap().is_none());
    assert!(Client::open(&rig.dir().join("nowhere")).unwrap().is_none());
}

#[tokio::test]
async fn opening_a_client_is_cheap() {
    let rig = Rig::new().await;
    let before = std::time::Instant::now();
    for _ in 0..20 {
        Client::open(rig.dir()).unwrap().unwrap();
    }
    assert!(before.elapsed().as_millis() < 200, "{:?}", before.elapsed());
}

/// How many living processes have this command line.
fn running(command: &[&str]) -> usize {
    let line = command.join("\0") + "\0";
    let fits = |entry: std::io::Result<std::fs::DirEntry>| {
        let found = std::fs::read(entry.unwrap().path().join("cmdline"));
        found.is_ok_and(|found| found == line.as_bytes())
    };
    std::fs::read_dir("/proc")
        .unwrap()
        .map(fits)
        .filter(|fits| *fits)
        .count()
}

#[tokio::test]
async fn supervisors_killed_one_after_the_other_leave_nothing() {
    let mut rig = Rig::new().await;
    let seconds = format!("{}", 1_000_000 + std::process::id());
    let spec = shell(&format!("sleep {seconds} & sleep {seconds}; echo"));
    for name in ["a", "b", "c"] {
        rig.run(name, &spec).await;
    }
    for _ in 0..10 {
        rig.relaunch(Signal::KILL).await;
    }
    for name in ["a", "b", "c"] {
        rig.until_state(name, ServiceState::Running).await;
        rig.stop(name).await;
    }
    assert_eq!(running(&["sleep", &seconds]), 0);
}

#[tokio::test]
async fn a_definition_that_changes_its_kind_does_not_change_the_process() {
    let rig = Rig::new().await;
    let mut spec = exec(&["sleep", "600"]);
    let first = rig.run("web", &spec).await;
    spec.kind = ServiceKind::Task;
    rig.put("web", &spec).await;
    // Up as the service that it is: a start changes nothing.
    let again = rig.start("web").await.unwrap();
    assert_eq!(
        (again.pid, again.state),
        (first.pid, Some(ServiceState::Running))
    );
}

#[tokio::test]
async fn a_supervisor_ends_with_its_folder_and_with_its_socket() {
    for whole in [true, false] {
        let rig = Rig::new().await;
        let object = rig.run("web", &exec(&["sleep", "600"])).await;
        if whole {
            std::fs::remove_dir_all(rig.dir()).unwrap();
        } else {
            std::fs::remove_file(rig.dir().join("supervisor.sock")).unwrap();
        }
        gone(rig.pid).await;
        assert!(!alive(object.pid.unwrap()), "{whole}");
        assert_eq!(rig.dir().exists(), !whole);
    }
}

#[tokio::test]
async fn a_supervisor_ends_when_its_folder_is_moved_away() {
    let rig = Rig::new().await;
    let object = rig.run("web", &exec(&["sleep", "600"])).await;
    let other = tempfile::tempdir().unwrap();
    std::fs::rename(rig.dir(), other.path().join("moved")).unwrap();
    gone(rig.pid).await;
    assert!(!alive(object.pid.unwrap()));
}

#[tokio::test]
async fn a_supervisor_and_readers_make_no_sandbox() {
    let temp = tempfile::tempdir().unwrap();
    let nowhere = temp.path().join("nowhere");
    for dir in [nowhere.as_path(), temp.path()] {
        let mut supervise = std::process::Command::new(EXE);
        let ended = supervise.arg("supervise").arg(dir).output().unwrap();
        assert_eq!(ended.status.code(), Some(1));
        let says = String::from_utf8(ended.stderr).unwrap();
        assert!(says.contains("there is no sandbox in "), "{says}");
    }
    let error = launch(Path::new(EXE), &nowhere).await.unwrap_err();
    assert!(
        error.to_string().ends_with("nowhere does not exist"),
        "{error}"
    );
    let stored = gabion::supervisor::stored_services(&nowhere).unwrap();
    assert!(stored.is_empty());
    gabion::supervisor::stored_services(temp.path()).unwrap();
    gabion::supervisor::kill_leftovers(temp.path())
        .await
        .unwrap();
    assert_eq!(temp.path().read_dir().unwrap().count(), 0);
}

#[tokio::test]
async fn descriptors_and_variables_of_the_caller_stay_with_it() {
    let temp = tempfile::tempdir().unwrap();
    let leaked = std::fs::File::create(temp.path().join("leaked")).unwrap();
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
    let rig = Rig::new().await;
    let object = rig.run("web", &exec(&["sleep", "600"])).await;
    for pid in [rig.pid, object.pid.unwrap()] {
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
            let target = std::fs::read_link(entry.unwrap().path()).unwrap_or_default();
            assert!(!target.ends_with("leaked"), "{pid}");
        }
    }
    // Cargo gives its own to this test.
    let environ = std::fs::read(format!("/proc/{}/environ", rig.pid)).unwrap();
    let environ = String::from_utf8_lossy(&environ);
    assert!(
        environ.contains("PATH=") && !environ.contains("CARGO_"),
        "{environ}"
    );
}

#[tokio::test]
async fn children_that_left_the_session_end_with_the_service() {
    let rig = Rig::new().await;
    let spec = shell("setsid sleep 600 & echo $!; exec sleep 600");
    rig.run("web", &spec).await;
    let escaped: u32 = rig.lines("web", 1).await[0].text.parse().unwrap();
    assert!(alive(escaped));
    rig.stop("web").await;
    assert!(!alive(escaped));
    // Not even a zombie is left.
    while Path::new(&format!("/proc/{escaped}")).exists() {
        rig.get("web").await;
    }
}

#[tokio::test]
async fn orphans_in_other_sessions_end_with_the_sandbox() {
    let rig = Rig::new().await;
    let spec = shell("(setsid sh -c 'echo $$; exec sleep 600' &); exec sleep 600");
    rig.run("web", &spec).await;
    let other = rig.run("other", &exec(&["sleep", "600"])).await;
    let escaped: u32 = rig.lines("web", 1).await[0].text.parse().unwrap();
    rig.stop("web").await;
    // A control group knows whose it is; without one it is found at the end.
    assert_eq!(
        alive(escaped),
        !gabion::supervisor::limit_support().processes
    );
    assert!(alive(other.pid.unwrap()));
    rig.client.shutdown().await.unwrap();
    gone(rig.pid).await;
    assert!(!alive(escaped));
}
