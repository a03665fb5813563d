//! What becomes of a service that is not well, and of those that wait for it.

use gabion::model::{Health, HumanDuration, Probe, RestartPolicy, ServiceState};
use jiff::Timestamp;
use rustix::process::Signal;

use crate::rig::*;

/// A probe with little patience.
fn check(line: &str) -> Health {
    let argv = ["/bin/sh", "-c", line].map(str::to_owned).to_vec();
    let mut health = Health::new(Probe::Exec { argv });
    health.interval = millis(10);
    health.retries = 1;
    health
}

fn write(rig: &Rig, file: &str) {
    std::fs::write(rig.workspace().join(file), "").unwrap();
}

fn remove(rig: &Rig, file: &str) {
    std::fs::remove_file(rig.workspace().join(file)).unwrap();
}

#[tokio::test]
async fn a_service_that_is_not_well_is_stopped_and_started_again() {
    let rig = Rig::new().await;
    let mut spec =
        shell("trap 'rm sick; echo stopped; exit 0' TERM; touch up; while :; do sleep 0.01; done");
    let mut health = check("test ! -e sick || { echo pool exhausted; exit 1; }; test -e up");
    health.restart = true;
    spec.health = Some(health);
    let first = rig.run("web", &spec).await;
    write(&rig, "sick");
    let healed = rig
        .until("web", |o| {
            o.restart_count == 1 && o.state == Some(ServiceState::Running)
        })
        .await;
    assert_ne!(first.pid, healed.pid);
    let says = "unhealthy: health check `/bin/sh` still exited with 1: pool exhausted; restarted";
    assert_eq!(healed.error.as_deref(), Some(says));
    assert_eq!(healed.message, healed.error);
    // With its own stop signal, not with a kill.
    assert!(rig.texts("web").await.contains(&"stopped".to_owned()));
    assert_eq!(exit_of(&healed).code, 0);
    // What was asked for is a new beginning.
    assert_eq!(rig.restart("web").await.error, None);
}

#[tokio::test]
async fn restarts_of_a_service_that_is_never_well_are_limited() {
    let rig = Rig::new().await;
    let mut spec = shell("touch up; exec sleep 600");
    // Well once in each life.
    let mut health = check("test -e up && rm up");
    health.restart = true;
    spec.health = Some(health);
    spec.restart.backoff = millis(1);
    spec.restart.max_restarts = Some(2);
    rig.run("web", &spec).await;
    let failed = rig.until_state("web", ServiceState::Failed).await;
    let says = "unhealthy: health check `/bin/sh` still exited with 1; gave up after 2 restarts";
    assert_eq!(failed.message.as_deref(), Some(says));
    assert_eq!((failed.restart_count, failed.pid), (2, None));
    // Without restarts, it is stopped and stays so.
    spec.restart.policy = RestartPolicy::No;
    rig.run("web", &spec).await;
    let failed = rig.until_state("web", ServiceState::Failed).await;
    assert_eq!(failed.restart_count, 0);
}

#[tokio::test]
async fn so_many_misses_in_a_row_make_it_unhealthy() {
    let rig = Rig::new().await;
    let mut spec = exec(&["sleep", "600"]);
    let mut health = check("test -e sick || exit 0; echo >> misses; exit 1");
    health.retries = 5;
    spec.health = Some(health);
    rig.run("web", &spec).await;
    write(&rig, "sick");
    rig.until_state("web", ServiceState::Unhealthy).await;
    let misses = std::fs::read(rig.workspace().join("misses")).unwrap();
    // It goes on asking.
    assert!((5..8).contains(&misses.len()), "{}", misses.len());
    remove(&rig, "sick");
    rig.until_state("web", ServiceState::Running).await;
}

#[tokio::test]
async fn misses_do_not_count_in_the_start_period() {
    let rig = Rig::new().await;
    let mut spec = shell("touch up; exec sleep 600");
    let mut health = check("test -e up && rm up");
    health.start_period = millis(600);
    // The start is awaited for as long.
    health.timeout = millis(1);
    spec.health = Some(health);
    let ready = rig.run("web", &spec).await;
    rig.until_state("web", ServiceState::Unhealthy).await;
    let lived = Timestamp::now().duration_since(ready.started_at.unwrap());
    assert!(lived.as_millis() >= 600, "{lived:?}");
}

#[tokio::test]
async fn a_new_check_of_an_unhealthy_service_can_find_it_well() {
    let rig = Rig::new().await;
    let mut spec = exec(&["sleep", "600"]);
    spec.health = Some(check("test ! -e sick"));
    rig.run("web", &spec).await;
    write(&rig, "sick");
    let sick = rig.until_state("web", ServiceState::Unhealthy).await;
    spec.health = Some(check("true"));
    rig.put("web", &spec).await;
    let well = rig.until_state("web", ServiceState::Running).await;
    assert_eq!(sick.pid, well.pid);
}

#[tokio::test]
async fn a_failure_says_how_often_it_was_tried() {
    let rig = Rig::new().await;
    let mut spec = shell("exit 7");
    spec.restart.backoff = millis(1);
    spec.restart.max_restarts = Some(3);
    spec.restart.within = Some(HumanDuration::from_secs(60));
    rig.run("web", &spec).await;
    let failed = rig.until_state("web", ServiceState::Failed).await;
    let message = failed.message.unwrap();
    assert!(message.starts_with("exited with 7 after "), "{message}");
    let end = "; gave up after 3 restarts within 1m";
    assert!(message.ends_with(end), "{message}");
    assert_eq!(failed.error, Some(message));
}

#[tokio::test]
async fn a_row_of_restarts_is_forgotten_after_its_time() {
    let rig = Rig::new().await;
    // Ready for longer than the reset each time: the row never gets long.
    let mut spec = shell("sleep 0.05; exit 1");
    spec.restart.backoff = millis(1);
    spec.restart.max_restarts = Some(1);
    spec.restart.reset_after = millis(20);
    rig.run("web", &spec).await;
    rig.until("web", |o| o.restart_count >= 4).await;
    spec.restart.reset_after = HumanDuration::from_secs(30);
    rig.put("web", &spec).await;
    rig.until_state("web", ServiceState::Failed).await;
}

#[tokio::test]
async fn a_need_that_dies_ends_the_wait_for_it_at_once() {
    let rig = Rig::new().await;
    // It will be tried again, but whoever asked is not to wait for that.
    let mut db = shell("sleep 0.2; echo no space left; exit 1");
    db.health = health(Probe::Tcp { port: free_port() });
    db.restart.backoff = HumanDuration::from_secs(600);
    let mut web = exec(&["sleep", "600"]);
    web.needs = vec![need("db")];
    rig.put("db", &db).await;
    rig.put("web", &web).await;
    let error = rig.start("web").await.unwrap_err();
    let says = "`db` did not start: exited with 1 after ";
    assert!(error.message.starts_with(says), "{error}");
    assert_eq!(error.code, "dependency_failed");
    assert_eq!(error.log_tail, ["no space left"]);
    let failed = rig.get("web").await;
    assert_eq!(failed.state, Some(ServiceState::Failed));
    assert_eq!(failed.error, Some(error.message));
}

#[tokio::test]
async fn what_comes_back_by_itself_waits_for_a_need_that_is_tried_again() {
    let mut rig = Rig::new().await;
    let mut db = shell("test -e bad && exit 1; exec sleep 600");
    let argv = ["test", "!", "-e", "bad"].map(str::to_owned).to_vec();
    db.health = health(Probe::Exec { argv });
    db.restart.backoff = millis(300);
    db.restart.max_backoff = millis(300);
    let mut web = exec(&["sleep", "600"]);
    web.needs = vec![need("db")];
    rig.put("db", &db).await;
    rig.run("web", &web).await;
    write(&rig, "bad");
    rig.relaunch(Signal::TERM).await;
    let says = "waits for db (tried again after: exited with 1 after ";
    let tells = |text: &str| text.starts_with(says);
    let waits = rig
        .until("web", |o| o.message.as_deref().is_some_and(tells))
        .await;
    assert_eq!(waits.state, Some(ServiceState::Starting));
    rig.until("db", |o| o.restart_count >= 3).await;
    let waits = rig.get("web").await;
    assert_eq!((waits.pid, waits.restart_count), (None, 0));
    remove(&rig, "bad");
    rig.until_state("web", ServiceState::Running).await;
}

#[tokio::test]
async fn a_start_keeps_its_time_when_the_supervisor_dies() {
    let mut rig = Rig::new().await;
    let mut spec = shell("sleep 1; echo half; exec sleep 600");
    spec.health = health(Probe::Tcp { port: free_port() });
    spec.health.as_mut().unwrap().timeout = millis(1_900);
    spec.restart.policy = RestartPolicy::No;
    rig.put("web", &spec).await;
    let executed = rig.execute("web").await;
    rig.lines("web", 1).await;
    rig.kill_supervisor().await;
    let failed = rig.until_state("web", ServiceState::Failed).await;
    let message = failed.message.as_deref().unwrap_or_default();
    assert!(message.ends_with(" not open after 1.9 s"), "{message}");
    let lived = exit_of(&failed)
        .at
        .duration_since(executed.started_at.unwrap());
    assert!((1_850..2_800).contains(&lived.as_millis()), "{lived:?}");
}

#[tokio::test]
async fn a_watchdog_and_a_limit_survive_the_supervisor() {
    let mut rig = Rig::new().await;
    let mut spec = script(
        "import os, socket, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect('\\0' + os.environ['NOTIFY_SOCKET'][1:])
s.send(b'READY=1')
s.send(b'WATCHDOG=1')
s.send(b'STATUS=' + str(os.getpid()).encode())
while not os.path.exists('silent'):
    s.send(b'WATCHDOG=1')
    time.sleep(0.02)
time.sleep(600)",
    );
    let mut health = Health::new(Probe::Notify {});
    health.interval = millis(1_000);
    health.retries = 1;
    health.restart = true;
    spec.health = Some(health);
    spec.restart.max_restarts = Some(1);
    let first = rig.run("web", &spec).await;
    rig.until("web", |o| o.message.is_some()).await;
    rig.kill_supervisor().await;
    let adopted = rig.get("web").await;
    assert_eq!((adopted.pid, adopted.restart_count), (first.pid, 0));
    write(&rig, "silent");
    // Silent from the start on, the second one is given up, in another supervisor still.
    rig.until("web", |o| o.restart_count == 1 && o.pid.is_some())
        .await;
    rig.kill_supervisor().await;
    let failed = rig.until_state("web", ServiceState::Failed).await;
    let says = "unhealthy: no WATCHDOG=1 for 1 s; gave up after 1 restart";
    assert_eq!(failed.message.as_deref(), Some(says));
}
