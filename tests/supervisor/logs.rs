//! What is kept of a service's output.

use gabion::platforms::{LogQuery, LogStream};

use crate::rig::*;

#[tokio::test]
async fn the_last_bytes_before_death_are_kept() {
    let rig = Rig::new().await;
    let spec = shell("echo out; echo err >&2; printf 'last words'; kill -KILL $$");
    let mut task = spec;
    task.kind = gabion::model::ServiceKind::Task;
    rig.put("web", &task).await;
    let error = rig.start("web").await.unwrap_err();
    assert!(
        error.message.starts_with("killed by KILL after "),
        "{error}"
    );
    assert_eq!(error.log_tail.last().unwrap(), "last words");
    let lines = rig.logs("web").await;
    let streams: Vec<_> = lines
        .iter()
        .map(|line| (line.stream, line.text.as_str()))
        .collect();
    assert!(streams.contains(&(LogStream::Stderr, "err")));
    assert_eq!(streams.last(), Some(&(LogStream::Stdout, "last words")));
    // The same without a supervisor.
    let kept = gabion::supervisor::logs::read(rig.dir(), &named("web"), &LogQuery::default());
    assert_eq!(kept.unwrap(), lines);
    let query = LogQuery {
        tail: Some(1),
        ..LogQuery::default()
    };
    let mut tail = rig.client.logs(&named("web"), &query).await.unwrap();
    assert_eq!(tail.recv().await.unwrap().text, "last words");
    assert_eq!(tail.recv().await, None);
}

#[tokio::test]
async fn a_flood_is_bounded_and_holds_nobody_up() {
    let rig = Rig::new().await;
    let object = rig
        .run(
            "flood",
            &exec(&["yes", "0123456789012345678901234567890123456789"]),
        )
        .await;
    let put_aside = rig.dir().join("logs/flood.log.1");
    // The other services are served meanwhile: every line of this loop is a request.
    let mut slowest = std::time::Duration::ZERO;
    while !put_aside.exists() {
        let before = std::time::Instant::now();
        assert_eq!(rig.get("flood").await.pid, object.pid);
        slowest = slowest.max(before.elapsed());
    }
    assert!(slowest.as_millis() < 500, "{slowest:?}");
    rig.stop("flood").await;
    for file in ["flood.log", "flood.log.1"] {
        let size = rig.dir().join("logs").join(file).metadata().unwrap().len();
        assert!(
            size < gabion::supervisor::logs::LIMIT + (1 << 20),
            "{file}: {size}"
        );
    }
}

#[tokio::test]
async fn one_stream_can_be_asked_for() {
    let rig = Rig::new().await;
    let mut spec = shell("echo a; echo b >&2; printf 'c\\377'; exit 0");
    spec.kind = gabion::model::ServiceKind::Task;
    rig.run("web", &spec).await;
    for (stream, expected) in [
        (LogStream::Stdout, &["a", "c\u{fffd}"][..]),
        (LogStream::Stderr, &["b"]),
    ] {
        let query = LogQuery {
            stream: Some(stream),
            ..LogQuery::default()
        };
        let mut lines = rig.client.logs(&named("web"), &query).await.unwrap();
        for text in expected {
            assert_eq!(in_time(lines.recv()).await.unwrap().text, *text);
        }
        assert_eq!(in_time(lines.recv()).await, None);
    }
    let (status, answer) = rig
        .raw("GET", "/v1/services/web/logs?stream=both", "")
        .await;
    assert_eq!(status, 400, "{answer}");
}

/// A file system of its own, gone with this value. `None` for those who may not mount one.
struct Mount(std::path::PathBuf);

fn mount(options: &str, at: &std::path::Path) -> Option<Mount> {
    let mut mount = std::process::Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", options, "none"]).arg(at);
    let done = mount.stderr(std::process::Stdio::null()).status();
    done.is_ok_and(|status| status.success())
        .then(|| Mount(at.to_owned()))
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.0)
            .status();
    }
}

#[tokio::test]
async fn a_full_disk_is_loud_and_stops_nobody() {
    let rig = Rig::new().await;
    let folder = rig.dir().join("logs");
    let Some(_mount) = mount("size=64k", &folder) else {
        return;
    };
    let program = "seq 1 100000; until test -e go; do sleep 0.01; done; echo room; exec sleep 600";
    let object = rig.run("web", &shell(program)).await;
    let full = "output is lost: No space left on device";
    let told = rig
        .until("web", |now| now.message.as_deref() == Some(full))
        .await;
    assert_eq!((told.pid, told.state), (object.pid, object.state));
    // Others are defined and started meanwhile.
    rig.run("other", &exec(&["sleep", "600"])).await;
    mount("remount,size=8m", &folder)
        .map(std::mem::forget)
        .unwrap();
    std::fs::write(rig.workspace().join("go"), "").unwrap();
    let mut texts = rig.until_line("web", "room").await;
    rig.until("web", |now| now.message.is_none()).await;
    // Every byte is there, or counted.
    texts.retain(|text| text != "room");
    let (notices, kept): (Vec<_>, Vec<_>) = texts.iter().partition(|t| t.starts_with("gabion: "));
    assert!(!notices.is_empty());
    let lost = |text: &&String| -> usize { text.split(' ').nth(1).unwrap().parse().unwrap() };
    let lost: usize = notices.iter().map(lost).sum();
    let found: usize = kept.iter().map(|text| text.len() + 1).sum();
    let all: usize = (1..=100_000).map(|n| n.to_string().len() + 1).sum();
    // A line of which only the beginning was kept is shown with an end.
    let counted = lost + found;
    assert!(
        counted >= all && counted <= all + notices.len(),
        "{counted} {all}"
    );
}

#[tokio::test]
async fn a_process_that_left_the_session_does_not_hold_the_log_open() {
    let rig = Rig::new().await;
    let object = rig
        .run("web", &shell("setsid sleep 600 & echo $!; exec sleep 600"))
        .await;
    let escaped: u32 = rig.lines("web", 1).await[0].text.parse().unwrap();
    let stopped = rig.stop("web").await;
    assert_eq!(stopped.pid, None);
    assert!(!alive(object.pid.unwrap()));
    kill(escaped, rustix::process::Signal::KILL);
}

#[tokio::test]
async fn following_ends_with_the_service_s_deletion() {
    let rig = Rig::new().await;
    rig.run(
        "web",
        &shell("trap 'echo bye; exit' TERM; echo hi; sleep 600 & wait"),
    )
    .await;
    let query = LogQuery {
        follow: true,
        ..LogQuery::default()
    };
    let mut lines = rig.client.logs(&named("web"), &query).await.unwrap();
    assert_eq!(in_time(lines.recv()).await.unwrap().text, "hi");
    rig.client.delete(&named("web")).await.unwrap();
    assert_eq!(in_time(lines.recv()).await.unwrap().text, "bye");
    assert_eq!(in_time(lines.recv()).await, None);
}
