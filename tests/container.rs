//! Container services with a real engine, which `.ci/engine` starts: it sets `DOCKER_HOST` and makes
//! the image `gabion-test:1` of busybox.

mod common;
#[path = "supervisor/rig.rs"]
#[allow(dead_code)]
mod rig;

use std::io::{BufRead, BufReader};
use std::process::Command;
use std::time::{Duration, Instant};

use common::Project;
use gabion::model::{
    HttpProbe, HumanDuration, IsolationWish, Probe, Program, RestartPolicy, SandboxSpec,
    ServiceKind, ServiceSpec, ServiceState, Stop,
};
use gabion::supervisor::{Status, kill_leftovers};
use rig::{Rig, alive, exec, exit_of, free_port, gone, health, kill, millis, named, need, shell};
use rustix::process::Signal;

const IMAGE: &str = "gabion-test:1";

fn host() -> String {
    std::env::var("DOCKER_HOST").expect("run me with .ci/engine")
}

fn docker(args: &[&str]) -> String {
    let mut command = Command::new("docker");
    let output = command.args(args).env("DOCKER_HOST", host()).output();
    let output = output.expect("docker runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The ids of the containers of a sandbox.
fn containers(rig: &Rig) -> Vec<String> {
    let sandbox = rig.dir().file_name().unwrap().to_str().unwrap();
    let label = format!("label=dev.gabion.sandbox={sandbox}");
    let found = docker(&["ps", "-aq", "--no-trunc", "--filter", &label]);
    found.lines().map(str::to_owned).collect()
}

fn contained(mut spec: ServiceSpec) -> ServiceSpec {
    spec.container = true;
    spec.image = Some(IMAGE.to_owned());
    spec
}

fn web(port: u16) -> ServiceSpec {
    let address = format!("127.0.0.1:{port}");
    let mut spec = contained(exec(&["httpd", "-f", "-p", &address, "-h", "/srv"]));
    spec.health = health(Probe::Tcp { port });
    spec
}

#[tokio::test]
#[ignore = "needs a container engine: .ci/engine"]
async fn a_container_comes_up_and_is_removed_when_it_is_stopped() {
    let rig = Rig::new().await;
    let port = free_port();
    let object = rig.run("web", &web(port)).await;
    assert_eq!(object.status, Status::Running);
    assert!(object.container);
    assert!(alive(object.pid.unwrap()));
    let found = containers(&rig);
    assert_eq!(found.len(), 1);
    let format = "{{.Name}} {{.HostConfig.NetworkMode}} {{.HostConfig.RestartPolicy.Name}} {{.HostConfig.AutoRemove}}";
    let told = docker(&["inspect", &found[0], "--format", format]);
    assert!(told.starts_with("/gabion-"), "{told}");
    assert!(told.ends_with(" host no false"), "{told}");

    let begun = Instant::now();
    assert_eq!(rig.stop("web").await.status, Status::Stopped);
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(containers(&rig), Vec::<String>::new());
    gone(object.pid.unwrap()).await;
    // The next one is a new one.
    assert_eq!(rig.start("web").await.unwrap().status, Status::Running);
}

#[tokio::test]
#[ignore = "needs a container engine: .ci/engine"]
async fn program_environment_folder_and_user_are_as_defined() {
    let rig = Rig::new().await;
    let mut spec = contained(shell(
        "env; pwd; id -u; echo oops >&2; printf 'no line end'; exit 7",
    ));
    spec.kind = ServiceKind::Task;
    spec.env
        .insert("GREETING".to_owned(), "hello world".to_owned());
    spec.working_dir = Some("srv".into());
    spec.user = Some("app".to_owned());
    rig.put("task", &spec).await;
    let error = rig.start("task").await.unwrap_err();
    assert!(error.message.starts_with("exited with 7"), "{error:?}");
    assert_eq!(error.log_tail.last().unwrap(), "no line end");
    let texts = rig.texts("task").await;
    for line in [
        "GREETING=hello world",
        "/srv",
        "1000",
        "oops",
        "no line end",
    ] {
        assert!(texts.iter().any(|text| text == line), "{line}: {texts:?}");
    }
    // Ours is not the image's.
    assert!(
        !texts.iter().any(|text| text.starts_with("LANG=")),
        "{texts:?}"
    );
    let object = rig.get("task").await;
    assert_eq!(
        (exit_of(&object).code, object.state),
        (7, Some(ServiceState::Failed))
    );
    assert_eq!(containers(&rig), Vec::<String>::new());

    spec.program = Program::Exec {
        cmd: "true".to_owned(),
        args: Vec::new(),
    };
    rig.put("task", &spec).await;
    assert_eq!(
        rig.start("task").await.unwrap().state,
        Some(ServiceState::Completed)
    );
}

#[tokio::test]
#[ignore = "needs a container engine: .ci/engine"]
async fn what_cannot_start_says_why() {
    let rig = Rig::new().await;
    let mut stranger = contained(exec(&["true"]));
    stranger.user = Some("nobody-knows".to_owned());
    let mut lost = contained(exec(&["true"]));
    lost.image = Some("localhost:1/no/such-image".to_owned());
    let port = free_port();
    let taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    for (name, spec, code, part) in [
        (
            "a",
            contained(exec(&["nodde"])),
            "start_failed",
            "`nodde` was not found in PATH of `gabion-test:1`",
        ),
        (
            "b",
            contained(exec(&["/no/nodde"])),
            "start_failed",
            "`/no/nodde` does not exist in",
        ),
        ("c", stranger, "start_failed", "no user `nobody-knows`"),
        (
            "d",
            lost,
            "image_pull_failed",
            "`localhost:1/no/such-image` cannot be pulled: ",
        ),
        ("e", web(port), "start_failed", "already in use by"),
    ] {
        rig.put(name, &spec).await;
        let error = rig.start(name).await.unwrap_err();
        assert_eq!(error.code, code, "{error:?}");
        assert!(error.message.contains(part), "{error:?}");
        assert_eq!(rig.get(name).await.state, Some(ServiceState::Failed));
    }
    drop(taken);
    assert_eq!(containers(&rig), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "needs a container engine: .ci/engine"]
async fn a_pull_is_told_of_and_can_be_stopped() {
    // A registry that takes its time.
    let registry = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let image = format!("{}/slow", registry.local_addr().unwrap());
    let rig = Rig::new().await;
    let mut spec = contained(exec(&["true"]));
    spec.image = Some(image.clone());
    rig.put("slow", &spec).await;
    rig.execute("slow").await;
    let told = format!("pulling {image}");
    let object = rig
        .until("slow", |object| object.message.as_ref() == Some(&told))
        .await;
    assert_eq!(
        (object.state, object.pid),
        (Some(ServiceState::Starting), None)
    );
    assert_eq!(rig.stop("slow").await.status, Status::Stopped);
}

#[tokio::test]
#[ignore = "needs a container engine: .ci/engine"]
async fn a_container_that_dies_comes_back() {
    let rig = Rig::new().await;
    let port = free_port();
    let first = rig.run("web", &web(port)).await;
    let id = containers(&rig).remove(0);
    docker(&["kill", "--signal", "KILL", &id]);
    let second = rig
        .until("web", |o| {
            o.status == Status::Running && o.restart_count == 1
        })
        .await;
    assert_ne!(first.pid, second.pid);
    assert_eq!(exit_of(&second).signal.as_deref(), Some("KILL"));
    // Removed by a stranger: a crash, too.
    docker(&["rm", "-f", &containers(&rig)[0]]);
    rig.until("web", |o| {
        o.status == Status::Running && o.restart_count == 2
    })
    .await;
    assert_eq!(containers(&rig).len(), 1);

    let mut once = contained(shell("exit 3"));
    once.restart.policy = RestartPolicy::No;
    rig.put("once", &once).await;
    rig.execute("once").await;
    let object = rig.until_state("once", ServiceState::Failed).await;
    assert_eq!((object.restart_count, object.exit_code), (0, Some(3)));
}

#[tokio::test]
#[ignore = "needs a container engine: .ci/engine"]
async fn one_that_ignores_its_stop_signal_is_killed_after_the_grace() {
    let rig = Rig::new().await;
    let mut spec = contained(shell("trap '' TERM; echo up; while true; do sleep 1; done"));
    spec.stop.grace = millis(300);
    spec.health = health(Probe::Log {
        contains: "up".to_owned(),
    });
    let object = rig.run("deaf", &spec).await;
    let begun = Instant::now();
    rig.stop("deaf").await;
    assert!(begun.elapsed() >= Duration::from_millis(300));
    gone(object.pid.unwrap()).await;
    assert_eq!(
        exit_of(&rig.get("deaf").await).signal.as_deref(),
        Some("KILL")
    );

    // Another stop signal than TERM, and a handler that says goodbye.
    let mut spec = contained(shell(
        "trap 'echo bye; exit 0' INT; echo up; while true; do sleep 0.05; done",
    ));
    spec.stop = Stop {
        signal: "INT".to_owned(),
        grace: HumanDuration::from_secs(10),
    };
    spec.health = health(Probe::Log {
        contains: "up".to_owned(),
    });
    rig.run("polite", &spec).await;
    rig.stop("polite").await;
    assert_eq!(exit_of(&rig.get("polite").await).code, 0);
    assert_eq!(rig.texts("polite").await, ["up", "bye"]);
}

#[tokio::test]
#[ignore = "needs a container engine: .ci/engine"]
async fn needs_and_probes_work_across_containers_and_processes() {
    let rig = Rig::new().await;
    let port = free_port();
    let mut db = web(port);
    db.health = health(Probe::Exec {
        argv: vec![
            "/bin/sh".to_owned(),
            "-c".to_owned(),
            "test -e /tmp/up".to_owned(),
        ],
    });
    db.program = Program::Shell {
        command: "sleep 0.2; touch /tmp/up; exec sleep 1000".to_owned(),
    };
    rig.put("db", &db).await;
    let mut api = web(port);
    api.needs = vec![need("db")];
    api.health = health(Probe::Http(HttpProbe::new(port, "/")));
    api.program = Program::Shell {
        command: format!("echo hi > /srv/index.html; exec httpd -f -p 127.0.0.1:{port} -h /srv"),
    };
    rig.put("api", &api).await;
    let mut plain = shell("exec sleep 1000");
    plain.needs = vec![need("api")];
    rig.put("plain", &plain).await;
    rig.start("plain").await.unwrap();
    let (db, api, plain) = (
        rig.get("db").await,
        rig.get("api").await,
        rig.get("plain").await,
    );
    assert_eq!([db.status, api.status, plain.status], [Status::Running; 3]);
    assert!(db.started_at < api.started_at && api.started_at < plain.started_at);
    assert_eq!(containers(&rig).len(), 2);
}

#[tokio::test]
#[ignore = "needs a container engine: .ci/engine"]
async fn commands_run_inside() {
    let rig = Rig::new().await;
    let mut spec = contained(exec(&["sleep", "1000"]));
    spec.env.insert("A".to_owned(), "b".to_owned());
    spec.user = Some("app".to_owned());
    rig.put("cache", &spec).await;
    rig.put("plain", &shell("exec sleep 1000")).await;
    let path = "/v1/services/cache/exec";
    let (status, body) = rig.raw("POST", path, r#"{"cmd":["true"]}"#).await;
    assert_eq!((status, body["code"].as_str()), (409, Some("not_running")));
    rig.start("cache").await.unwrap();
    let request = r#"{"cmd":["sh","-c","echo $A; id -u; echo no >&2; exit 3"],"timeout_secs":10}"#;
    let (status, body) = rig.raw("POST", path, request).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["stdout"], "b\n1000\n");
    assert_eq!(body["stderr"], "no\n");
    assert_eq!(
        (body["exit_code"].as_i64(), body["ok"].as_bool()),
        (Some(3), Some(false))
    );
    let (_, body) = rig.raw("POST", path, r#"{"cmd":["nodde"]}"#).await;
    assert_eq!(body["exit_code"], 127, "{body}");
    let (_, body) = rig
        .raw(
            "POST",
            path,
            r#"{"cmd":["sh","-c","echo a; sleep 77"],"timeout_secs":0.5}"#,
        )
        .await;
    assert_eq!(
        (body["exit_code"].as_i64(), body["timed_out"].as_bool()),
        (Some(124), Some(true))
    );
    assert_eq!(body["stdout"], "a\n");
    let (_, body) = rig.raw("POST", path, r#"{"cmd":["ps"]}"#).await;
    assert!(
        !body["stdout"].as_str().unwrap().contains("sleep 77"),
        "{body}"
    );
    let (status, body) = rig
        .raw("POST", "/v1/services/plain/exec", r#"{"cmd":["true"]}"#)
        .await;
    assert_eq!(
        (status, body["code"].as_str()),
        (409, Some("not_a_container"))
    );
    for bad in [
        r#"{"cmd":[]}"#,
        r#"{"cmd":[1]}"#,
        r#"{"cmd":["a"],"timeout_secs":-1}"#,
    ] {
        assert_eq!(rig.raw("POST", path, bad).await.0, 400, "{bad}");
    }
}

#[tokio::test]
#[ignore = "needs a container engine: .ci/engine"]
async fn a_killed_supervisor_costs_neither_the_container_nor_a_line() {
    let mut rig = Rig::new().await;
    let count = "i=0; while true; do i=$((i+1)); echo line $i; done";
    let mut spec = contained(shell(&format!(
        "{count} | head -n 60000; echo done; sleep 1000"
    )));
    spec.health = health(Probe::Log {
        contains: "line 5000".to_owned(),
    });
    let first = rig.run("count", &spec).await;
    for _ in 0..3 {
        rig.relaunch(Signal::KILL).await;
        let again = rig.until_state("count", ServiceState::Running).await;
        assert_eq!((again.pid, again.started_at), (first.pid, first.started_at));
    }
    let lines = rig.lines("count", 60_001).await;
    for (number, line) in lines.iter().enumerate().take(60_000) {
        assert_eq!(line.text, format!("line {}", number + 1));
    }
    assert_eq!(lines[60_000].text, "done");

    // What ended meanwhile is known, with its output.
    let mut short = contained(shell("echo up; sleep 1; echo last words; exit 5"));
    short.restart.policy = RestartPolicy::No;
    rig.run("short", &short).await;
    rig.lines("short", 1).await;
    kill(rig.pid, Signal::STOP);
    let id = containers(&rig)
        .into_iter()
        .find(|id| docker(&["inspect", id, "--format", "{{.Name}}"]).contains("-short-"));
    docker(&["wait", &id.unwrap()]);
    rig.relaunch(Signal::KILL).await;
    let object = rig.until_state("short", ServiceState::Failed).await;
    assert_eq!(object.exit_code, Some(5));
    assert_eq!(rig.texts("short").await, ["up", "last words"]);
    rig.client.delete(&named("count")).await.unwrap();
    assert_eq!(containers(&rig), Vec::<String>::new());
}

fn keeper_of(rig: &Rig) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", rig.pid)).unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    rest.split(' ').nth(1).unwrap().parse().unwrap()
}

/// Kills keeper and supervisor, so that neither can see to what the other leaves.
async fn kill_all(rig: &Rig) {
    let keeper = keeper_of(rig);
    kill(rig.pid, Signal::STOP);
    kill(keeper, Signal::KILL);
    gone(keeper).await;
    kill(rig.pid, Signal::KILL);
    gone(rig.pid).await;
}

#[tokio::test]
#[ignore = "needs a container engine: .ci/engine"]
async fn with_the_keeper_its_containers_die() {
    let temp = tempfile::tempdir().unwrap();
    // Under `strict` the kernel ends the supervisor as well, and the next command clears.
    let spec = SandboxSpec {
        isolation: IsolationWish::None,
        ..SandboxSpec::default()
    };
    let spec = serde_json::json!({ "spec": spec }).to_string();
    std::fs::write(temp.path().join("sandbox.json"), spec).unwrap();
    let rig = Rig::at(temp.path()).await;
    let object = rig.run("web", &contained(exec(&["sleep", "1000"]))).await;
    kill(keeper_of(&rig), Signal::KILL);
    gone(object.pid.unwrap()).await;
    gone(rig.pid).await;
    assert_eq!(containers(&rig), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "needs a container engine: .ci/engine"]
async fn orphans_are_removed() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().to_owned();
    let mut rig = Rig::at(&dir).await;
    for name in ["kept", "stopped", "changed"] {
        rig.run(name, &contained(exec(&["sleep", "1000"]))).await;
    }
    assert_eq!(containers(&rig).len(), 3);
    kill_all(&rig).await;
    // While nobody looked, one was no longer wanted and one became another.
    let edit = |name: &str, from: &str, to: &str| {
        let path = rig.dir().join(format!("services/{name}.json"));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(path, text.replace(from, to)).unwrap();
    };
    edit("stopped", "\"goal\": \"running\"", "\"goal\": \"stopped\"");
    edit("changed", "1000", "2000");
    let before = containers(&rig);
    rig = Rig::at(&dir).await;
    rig.until_state("changed", ServiceState::Running).await;
    rig.until_state("kept", ServiceState::Running).await;
    let after = containers(&rig);
    assert_eq!(after.len(), 2);
    assert_eq!(after.iter().filter(|id| before.contains(id)).count(), 1);
    // Everything killed, sandbox to be stopped: as `gabion stop` and `gabion destroy` do it.
    kill_all(&rig).await;
    kill_leftovers(rig.dir()).await.unwrap();
    assert_eq!(containers(&rig), Vec::<String>::new());
}

const MANIFEST: &str = "version: 1
stack: STACK
sandboxes:
  data:
    services:
      cache:
        cmd: sleep
        args: ['1000']
        container: true
        image: gabion-test:1
        env: { COLOUR: blue }
      plain: { cmd: sleep, args: ['1000'], env: { COLOUR: red } }
";

fn project(stack: &str) -> Project {
    Project::new(&MANIFEST.replace("STACK", stack))
}

fn run(project: &Project, args: &[&str]) -> common::Run {
    let mut command = project.command(args);
    common::Run(
        command
            .env("DOCKER_HOST", host())
            .output()
            .expect("gabion runs"),
    )
}

fn of_stack(stack: &str) -> usize {
    let label = format!("label=dev.gabion.stack={stack}");
    docker(&["ps", "-aq", "--filter", &label]).lines().count()
}

#[test]
#[ignore = "needs a container engine: .ci/engine"]
fn the_command_line_applies_executes_and_destroys() {
    let stack = &format!("line-{}", std::process::id());
    let project = project(stack);
    let applied = run(&project, &["apply", "--yes"]);
    assert_eq!(applied.code(), Some(0), "{applied}");
    assert_eq!(of_stack(stack), 1);
    for (service, colour) in [("data/cache", "blue"), ("data/plain", "red")] {
        let ran = run(
            &project,
            &["exec", service, "--", "sh", "-c", "echo $COLOUR; exit 4"],
        );
        assert_eq!(
            (ran.code(), ran.stdout().trim()),
            (Some(4), colour),
            "{ran}"
        );
    }
    let mut piped = project.command(&["exec", "data/cache", "--", "wc", "-c"]);
    let mut piped = piped
        .env("DOCKER_HOST", host())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut piped.stdin.take().unwrap(), &[b'x'; 100_000]).unwrap();
    let output = piped.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "100000");
    let again = run(&project, &["apply", "--yes"]);
    assert!(
        again.stdout().contains("as the manifest says")
            || again.stderr().contains("as the manifest says"),
        "{again}"
    );
    let destroyed = run(&project, &["destroy", "--yes"]);
    assert_eq!(destroyed.code(), Some(0), "{destroyed}");
    assert_eq!(of_stack(stack), 0);
    assert!(!project.home.join("sandboxes").exists());
}

#[test]
#[ignore = "needs a container engine: .ci/engine"]
fn containers_of_a_sandbox_whose_folder_is_gone_are_removed() {
    let stack = &format!("gone-{}", std::process::id());
    let project = project(stack);
    assert_eq!(run(&project, &["apply", "--yes"]).code(), Some(0));
    for pid in project.processes() {
        kill(pid, Signal::KILL);
    }
    std::fs::remove_dir_all(project.home.join("sandboxes").join(stack).join("data")).unwrap();
    assert_eq!(of_stack(stack), 1);
    project.edit("container: true", "# container");
    project.edit("image: gabion-test:1", "# image");
    let applied = run(&project, &["apply", "--yes"]);
    assert_eq!(applied.code(), Some(0), "{applied}");
    assert_eq!(of_stack(stack), 0);
}

#[test]
fn without_an_engine_the_plan_says_so() {
    let project = project("none");
    let nowhere = project.path("no.sock");
    let mut command = project.command(&["plan"]);
    let command = command.env("DOCKER_HOST", format!("unix://{}", nowhere.display()));
    let run = common::Run(command.output().unwrap());
    assert_eq!(run.code(), Some(65), "{run}");
    let text = run.stderr();
    for part in [
        "service `data/cache` needs a container engine",
        "gabion.yaml:9:9",
        "no container engine answers (tried",
        "no.sock: not there",
        "start Docker or Podman, or set DOCKER_HOST",
    ] {
        assert!(text.contains(part), "{part}: {run}");
    }
    assert!(!project.home.join("sandboxes").exists());
    // The manifest itself is fine.
    project.ok(&["validate"]);
}

/// A `gabion serve` in a process of its own, up to the end of the test.
struct Served(std::process::Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "needs a container engine: .ci/engine"]
fn commands_run_inside_of_a_container_on_iris() {
    let home = tempfile::tempdir().unwrap();
    let mut server = Command::new(env!("CARGO_BIN_EXE_gabion"));
    server
        .args(["serve", "--listen", "127.0.0.1:0", "--token", "planted"])
        .env("GABION_HOME", home.path())
        .env("DOCKER_HOST", host())
        .stdout(std::process::Stdio::piped());
    let mut served = Served(server.spawn().unwrap());
    let mut said = String::new();
    let stdout = served.0.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut said).unwrap();
    let url = said.trim().strip_prefix("ready ").unwrap();
    let number = &format!("1000.{}", std::process::id());
    let project = Project::new(&format!(
        "version: 1
stack: shop
platforms: {{ cloud: {{ kind: iris, url: '{url}', token: planted }} }}
defaults: {{ platform: cloud }}
sandboxes:
  data:
    services:
      cache:
        container: true
        image: {IMAGE}
        cmd: sleep
        args: ['{number}']
        env: {{ COLOUR: blue }}
      plain: {{ cmd: sleep, args: ['1000'] }}
"
    ));
    project.ok(&["apply", "--yes"]);
    assert!(project.ok(&["plan"]).stdout().contains("No changes"));
    let commands = || docker(&["ps", "-a", "--no-trunc", "--format", "{{.Command}}"]);
    assert!(commands().contains(number), "{}", commands());
    // Only the image has this user.
    let script = "echo $COLOUR; cat /etc/passwd; exit 4";
    let inside = project.run(&["exec", "data/cache", "--", "sh", "-c", script]);
    assert_eq!(inside.code(), Some(4), "{inside}");
    assert!(inside.stdout().starts_with("blue\n"), "{inside}");
    assert!(inside.stdout().contains("app:x:1000"), "{inside}");
    let beside = project.ok(&["exec", "data/plain", "--", "cat", "/etc/passwd"]);
    assert!(!beside.stdout().contains("app:x:1000"), "{beside}");
    project.ok(&["destroy", "--yes"]);
    assert!(!commands().contains(number), "{}", commands());
}
