//! What gabion supplies by a shell, with real shells, ports and files.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use gabion::model::{Health, HttpProbe, HumanDuration, Probe, Secrets, ServiceName};
use gabion::platforms::cloud::supply::probe::Surroundings;
use gabion::platforms::cloud::supply::{Asked, Inside, ready, task};
use gabion::platforms::{PlatformError, Progress, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Command;

/// This machine as a sandbox.
#[derive(Default)]
struct Machine {
    /// Programs are found only here, if that is said.
    path: Option<String>,
    dead: Option<&'static str>,
    output: Mutex<Vec<String>>,
    /// What happens before each script.
    before: Mutex<Vec<Asked>>,
}

#[async_trait]
impl Inside for Machine {
    async fn sh(&self, script: &SecretString, limit: Duration) -> Result<Asked> {
        if let Some(asked) = self.before.lock().unwrap().pop() {
            return Ok(asked);
        }
        let mut command = Command::new("/bin/sh");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(path) = &self.path {
            command.env("PATH", path);
        }
        let mut child = command.kill_on_drop(true).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let text = script.expose_secret().to_owned();
        stdin.write_all(text.as_bytes()).await.unwrap();
        drop(stdin);
        let ended = tokio::time::timeout(limit * 20, child.wait_with_output());
        let output = ended.await.expect("it ends by itself").unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        Ok(Asked::Ran(output.status.code().unwrap(), said))
    }

    async fn alive(&self) -> Result<()> {
        self.dead.map_or(Ok(()), |why| Err(PlatformError::new(why)))
    }

    async fn has_said(&self, text: &str) -> Result<bool> {
        let mut output = self.output.lock().unwrap();
        let said = output.iter().any(|line| line.contains(text));
        output.push("listening on :80".to_owned());
        Ok(said)
    }
}

#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Progress for Told {
    fn executed(&self) {}
    fn waiting(&self, why: &str) {
        self.0.lock().unwrap().push(why.to_owned());
    }
}

fn health(probe: Probe, timeout: u64) -> Health {
    Health {
        timeout: HumanDuration::from_millis(timeout),
        ..Health::new(probe)
    }
}

async fn waited(machine: &Machine, health: &Health) -> (Result<()>, Vec<String>) {
    waited_with(
        machine,
        health,
        &Surroundings::default(),
        &Secrets::default(),
    )
    .await
}

async fn waited_with(
    machine: &Machine,
    health: &Health,
    around: &Surroundings,
    secrets: &Secrets,
) -> (Result<()>, Vec<String>) {
    let told = Told::default();
    let result = ready(machine, health, around, secrets, &told).await;
    (result, told.0.into_inner().unwrap())
}

/// Answers every request with these bytes.
async fn http_server(answer: &'static str) -> (u16, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // Up to its end: a connection that is closed with something unread is reset.
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                match stream.read_buf(&mut request).await {
                    Ok(0) | Err(_) => break,
                    Ok(_) => {}
                }
            }
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (port, serving)
}

async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

/// A folder with links to these programs only.
fn only(programs: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for program in programs {
        let found = ["/usr/bin", "/bin"].map(|it| format!("{it}/{program}"));
        let found = found.iter().find(|it| std::path::Path::new(it).exists());
        std::os::unix::fs::symlink(found.unwrap(), dir.path().join(program)).unwrap();
    }
    dir
}

const PLAIN: [&str; 5] = ["sh", "sleep", "tail", "cat", "grep"];

#[tokio::test]
async fn a_port_is_awaited_with_whatever_tool_is_there() {
    for tools in [&["bash"][..], &[]] {
        let tools = only(&[&PLAIN, tools].concat());
        let machine = Machine {
            path: Some(tools.path().display().to_string()),
            ..Machine::default()
        };
        let port = free_port().await;
        let probe = Probe::Tcp { port };
        let (result, told) = waited(&machine, &health(probe.clone(), 300)).await;
        let why = format!("port {port} not open yet");
        let message = format!("not ready after 0.3 s: {why}");
        assert_eq!(result, Err(PlatformError::new(message)));
        assert!(told.is_empty() || told == [why], "{told:?}");
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let (result, _) = waited(&machine, &health(probe, 60_000)).await;
        assert_eq!(result, Ok(()));
        drop(listener);
    }
}

#[tokio::test]
async fn a_service_that_ends_is_not_awaited_further() {
    let machine = Machine {
        dead: Some("exited with 3"),
        ..Machine::default()
    };
    let probe = Probe::Tcp {
        port: free_port().await,
    };
    let (result, _) = waited(&machine, &health(probe, 600_000)).await;
    assert_eq!(result, Err(PlatformError::new("exited with 3")));
}

#[tokio::test]
async fn what_was_not_answered_is_asked_again() {
    let (port, _serving) = http_server("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let machine = Machine::default();
    let lost = Asked::NotNow("connection refused".to_owned());
    *machine.before.lock().unwrap() = vec![Asked::Ran(127, "sh: what?\n".to_owned()), lost];
    let (result, told) = waited(&machine, &health(Probe::Tcp { port }, 60_000)).await;
    assert_eq!(result, Ok(()));
    let odd = "its health check exited with 127: sh: what?";
    assert_eq!(told, ["connection refused", odd]);
}

#[tokio::test]
async fn http_is_judged_by_status_and_body() {
    let answer = "HTTP/1.1 503 Busy\r\ncontent-length: 9\r\nconnection: close\r\n\r\nit's busy";
    let (port, _serving) = http_server(answer).await;
    for tools in [&["curl"][..], &["bash"]] {
        let tools = only(&[&PLAIN, tools].concat());
        let machine = Machine {
            path: Some(tools.path().display().to_string()),
            ..Machine::default()
        };
        let judge = async |change: &dyn Fn(&mut HttpProbe)| {
            let mut probe = HttpProbe::new(port, "/health?a='b'&c");
            change(&mut probe);
            let (result, _) = waited(&machine, &health(Probe::Http(probe), 1)).await;
            result.map_err(|error| error.to_string())
        };
        let error = judge(&|_| {}).await.unwrap_err();
        let expected = format!("GET :{port}/health?a='b'&c answered 503");
        assert!(error.ends_with(&expected), "{error}");
        let range = |text: &str| vec!["204".parse().unwrap(), text.parse().unwrap()];
        assert_eq!(judge(&|it| it.status = range("500-503")).await, Ok(()));
        let busy = |text: &'static str| {
            move |it: &mut HttpProbe| {
                it.status = vec!["503".parse().unwrap()];
                it.body = Some(text.to_owned());
            }
        };
        assert_eq!(judge(&busy("it's b")).await, Ok(()));
        let error = judge(&busy("$HOME*")).await.unwrap_err();
        assert!(error.ends_with("answered without `$HOME*`"), "{error}");
    }
}

#[tokio::test]
async fn nobody_there_to_ask_is_said_so() {
    let machine = Machine::default();
    let port = free_port().await;
    let probe = Probe::Http(HttpProbe::new(port, "/"));
    let (result, _) = waited(&machine, &health(probe, 1)).await;
    let error = result.unwrap_err().to_string();
    assert!(
        error.ends_with(&format!("GET :{port}/ not answered yet")),
        "{error}"
    );
}

#[tokio::test]
async fn a_program_is_run_as_the_service_is_and_secrets_are_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ready"), "").unwrap();
    let mut secrets = Secrets::default();
    secrets.insert("pw", SecretString::from("hunter2 'x'"));
    let around = Surroundings {
        env: BTreeMap::from([("PW".to_owned(), SecretString::from("hunter2 'x'"))]),
        dir: Some(dir.path().display().to_string()),
    };
    let machine = Machine::default();
    let check = async |line: &str| {
        let argv = ["/bin/sh", "-c", line].map(str::to_owned).to_vec();
        let health = health(Probe::Exec { argv }, 1);
        let (result, _) = waited_with(&machine, &health, &around, &secrets).await;
        result.map_err(|error| error.to_string())
    };
    assert_eq!(
        check("test -e ready && test \"$PW\" = \"hunter2 'x'\"").await,
        Ok(())
    );
    let error = check("echo \"$PW is wrong\" >&2; exit 4")
        .await
        .unwrap_err();
    let last = "health check `/bin/sh` exited with 4";
    assert_eq!(error, format!("not ready after 1 ms: {last}"));
    let error = check("echo \"$PW\"; kill -9 $$").await.unwrap_err();
    assert!(!error.contains("hunter2"), "{error}");
}

#[tokio::test]
async fn output_is_awaited_line_by_line() {
    let machine = Machine::default();
    let contains = "listening".to_owned();
    let (result, told) = waited(&machine, &health(Probe::Log { contains }, 60_000)).await;
    assert_eq!(result, Ok(()));
    assert_eq!(told, ["no line with `listening` in its output yet"]);
}

#[tokio::test]
async fn a_task_runs_once_and_its_exit_code_is_kept() {
    let service = ServiceName::new("migrate").unwrap();
    let run = format!("test{}", std::process::id());
    let file = task::exit_file(&service, &run);
    let dir = tempfile::tempdir().unwrap();
    let runs = dir.path().join("runs");
    let line = format!(
        "cd '{}'; until [ -e go ]; do sleep 0.05; done; echo once >>runs; exit 7",
        dir.path().display()
    );
    let argv = task::argv(&file, Some(&["sh".to_owned(), "-c".to_owned(), line]));
    let machine = Machine::default();
    let start = || {
        let mut command = Command::new(&argv[0]);
        command
            .args(&argv[1..])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.process_group(0).spawn().unwrap()
    };
    // As a platform stops a service: with everything that it has started.
    let stop = async |mut child: tokio::process::Child| {
        let group = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
        kill_process_group(group, Signal::KILL).unwrap();
        child.wait().await.unwrap();
    };
    let glance = SecretString::from(task::wait_script(&file, 0));
    let begun = async || match machine.sh(&glance, Duration::from_secs(60)).await.unwrap() {
        Asked::Ran(75, said) => task::has_begun(&said),
        asked => panic!("{asked:?}"),
    };
    assert!(!begun().await);
    let first = start();
    while !begun().await {}
    std::fs::write(dir.path().join("go"), "").unwrap();
    let script = SecretString::from(task::wait_script(&file, 60));
    let asked = machine.sh(&script, Duration::from_secs(60)).await.unwrap();
    assert_eq!(asked, Asked::Ran(0, "7\n".to_owned()));
    // Started again by the platform, it does not run a second time.
    stop(first).await;
    stop(start()).await;
    assert_eq!(std::fs::read_to_string(&runs).unwrap(), "once\n");
    for file in [format!("{file}.begun"), file] {
        std::fs::remove_file(file).unwrap();
    }
}
