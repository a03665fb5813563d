//! Readiness and what is said while it is awaited.

use gabion::model::{Condition, HttpProbe, Probe, ServiceState};
use gabion::supervisor::Status;

use crate::rig::*;

#[tokio::test]
async fn an_http_check_waits_for_a_good_status() {
    let rig = Rig::new().await;
    let port = free_port();
    let mut spec = script(&format!(
        "import http.server, os
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        good = os.path.exists('good') and self.path == '/healthz'
        self.send_response(204 if good else 503)
        self.end_headers()
    def log_message(self, *args): pass
http.server.HTTPServer(('127.0.0.1', {port}), H).serve_forever()"
    ));
    let path = "/healthz".to_owned();
    spec.health = health(Probe::Http(HttpProbe::new(port, path)));
    rig.put("web", &spec).await;
    let executed = rig.execute("web").await;
    assert_eq!(executed.state, Some(ServiceState::Starting));
    assert_eq!(executed.status, Status::Unknown);
    let waiting = format!("GET :{port}/healthz answered 503");
    rig.until("web", |o| o.message.as_ref() == Some(&waiting))
        .await;
    std::fs::write(rig.workspace().join("good"), "").unwrap();
    let ready = rig.start("web").await.unwrap();
    assert_eq!((ready.status, ready.pid), (Status::Running, executed.pid));
    assert_eq!(ready.message, None);
}

#[tokio::test]
async fn an_exec_check_runs_with_the_service_s_folder_and_environment() {
    let rig = Rig::new().await;
    std::fs::create_dir(rig.workspace().join("sub")).unwrap();
    let mut spec = shell("sleep 0.1; touch up; exec sleep 600");
    spec.working_dir = Some("sub".into());
    spec.env.insert("FLAG".into(), "up".into());
    let argv = ["sh", "-c", "test -e $FLAG"].map(str::to_owned).to_vec();
    spec.health = health(Probe::Exec { argv });
    rig.run("web", &spec).await;
    assert!(rig.workspace().join("sub/up").exists());
}

#[tokio::test]
async fn a_log_check_waits_for_the_line() {
    let rig = Rig::new().await;
    let mut spec = shell("echo stdout; sleep 0.1; printf 'now ready to go'; exec sleep 600");
    let contains = "ready to".to_owned();
    spec.health = health(Probe::Log { contains });
    let ready = rig.run("web", &spec).await;
    assert_eq!(ready.status, Status::Running);
}

#[tokio::test]
async fn an_early_exit_fails_the_start_at_once() {
    let rig = Rig::new().await;
    let mut spec = shell("echo first; echo last >&2; exit 3");
    spec.restart.policy = gabion::model::RestartPolicy::No;
    spec.health = health(Probe::Tcp { port: free_port() });
    rig.put("web", &spec).await;
    let error = rig.start("web").await.unwrap_err();
    assert_eq!(
        (error.status, error.code.as_str()),
        (Some(500), "start_failed")
    );
    assert!(error.message.starts_with("exited with 3 after "), "{error}");
    let mut tail = error.log_tail.clone();
    tail.sort();
    assert_eq!(tail, ["first", "last"]);
    let object = rig.get("web").await;
    assert_eq!(object.state, Some(ServiceState::Failed));
    assert_eq!(object.error, Some(error.message));
    assert_eq!(object.exit_code, Some(3));
}

#[tokio::test]
async fn a_start_that_fails_goes_on_in_the_background() {
    let rig = Rig::new().await;
    let mut spec = shell("test -e good || exit 1; echo ready; exec sleep 600");
    let contains = "ready".to_owned();
    spec.health = health(Probe::Log { contains });
    spec.restart.backoff = millis(1);
    spec.restart.max_backoff = millis(20);
    rig.put("web", &spec).await;
    assert_eq!(rig.start("web").await.unwrap_err().code, "start_failed");
    rig.until("web", |o| o.restart_count >= 3).await;
    std::fs::write(rig.workspace().join("good"), "").unwrap();
    rig.until_state("web", ServiceState::Running).await;
}

#[tokio::test]
async fn restarts_end_at_their_limit() {
    let rig = Rig::new().await;
    let mut spec = shell("exit 1");
    spec.restart.backoff = millis(1);
    spec.restart.max_restarts = Some(2);
    rig.run("web", &spec).await;
    let failed = rig.until_state("web", ServiceState::Failed).await;
    assert_eq!(failed.restart_count, 2);
    rig.run("clean", &shell("exit 0")).await;
    let clean = rig.until_state("clean", ServiceState::Stopped).await;
    assert_eq!((clean.restart_count, clean.exit_code), (0, Some(0)));
}

#[tokio::test]
async fn a_ready_service_that_stops_answering_is_unhealthy_but_lives() {
    let rig = Rig::new().await;
    let mut spec = exec(&["sleep", "600"]);
    let argv = ["test", "!", "-e", "sick"].map(str::to_owned).to_vec();
    spec.health = health(Probe::Exec { argv });
    spec.health.as_mut().unwrap().interval = millis(5);
    let ready = rig.run("web", &spec).await;
    std::fs::write(rig.workspace().join("sick"), "").unwrap();
    let sick = rig.until_state("web", ServiceState::Unhealthy).await;
    assert_eq!(
        sick.message.as_deref(),
        Some("health check `test` still exited with 1")
    );
    assert_eq!((sick.status, sick.pid), (Status::Unknown, ready.pid));
    std::fs::remove_file(rig.workspace().join("sick")).unwrap();
    let well = rig.until_state("web", ServiceState::Running).await;
    assert_eq!(well.pid, ready.pid);
}

#[tokio::test]
async fn a_dependent_says_what_it_waits_for_and_fails_with_it() {
    let rig = Rig::new().await;
    let mut db = shell("test -e go && exec sleep 600; exec sleep 600");
    let argv = ["test", "-e", "go"].map(str::to_owned).to_vec();
    db.health = health(Probe::Exec { argv });
    db.health.as_mut().unwrap().timeout = millis(150);
    let mut web = exec(&["sleep", "600"]);
    web.needs = vec![need("db")];
    rig.put("db", &db).await;
    rig.put("web", &web).await;
    let waits = rig.execute("web").await;
    assert_eq!(waits.message.as_deref(), Some("waits for db"));
    assert_eq!(
        (waits.state, waits.pid),
        (Some(ServiceState::Starting), None)
    );
    let error = rig.start("web").await.unwrap_err();
    assert_eq!(
        (error.status, error.code.as_str()),
        (Some(409), "dependency_failed")
    );
    let says = "`db` did not start: health check `test` still exited with 1 after 0.1 s";
    assert!(error.message.starts_with(&says[..55]), "{error}");
    std::fs::write(rig.workspace().join("go"), "").unwrap();
    // Two at once share one start.
    let (one, two) = tokio::join!(rig.start("web"), rig.start("web"));
    assert_eq!(one.unwrap().pid, two.unwrap().pid);
    assert_eq!(rig.get("db").await.status, Status::Running);
}

#[tokio::test]
async fn a_stop_ends_a_start_that_waits() {
    let rig = Rig::new().await;
    let mut spec = exec(&["sleep", "600"]);
    spec.health = health(Probe::Tcp { port: free_port() });
    rig.put("web", &spec).await;
    let (started, ()) = tokio::join!(rig.start("web"), async {
        rig.until("web", |o| o.pid.is_some()).await;
        rig.stop("web").await;
    });
    assert_eq!(started.unwrap_err().code, "conflict");
}

#[tokio::test]
async fn a_completed_task_is_awaited_and_not_run_again_for_a_dependent() {
    let rig = Rig::new().await;
    let mut task = shell("sleep 0.1; echo done");
    task.kind = gabion::model::ServiceKind::Task;
    let mut web = exec(&["sleep", "600"]);
    web.needs = vec![need("task")];
    web.needs[0].condition = Condition::Completed;
    rig.put("task", &task).await;
    rig.run("web", &web).await;
    assert_eq!(rig.texts("task").await, ["done"]);
    rig.stop("web").await;
    rig.start("web").await.unwrap();
    assert_eq!(rig.texts("task").await, ["done"]);
    // On request it runs again.
    let task = rig.start("task").await.unwrap();
    assert_eq!(task.state, Some(ServiceState::Completed));
    assert_eq!(rig.texts("task").await, ["done", "done"]);
}
