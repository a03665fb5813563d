//! Each kind of probe against a real program, and what is told of its answers.

use std::path::Path;

use gabion::model::{HttpProbe, Probe, Scheme, ServiceState, StatusRange};
use gabion::supervisor::Status;

use crate::rig::*;

/// A web server in Python; `answer` is the body of a method that answers a GET.
fn web(port: u16, answer: &str, tls: bool) -> gabion::model::ServiceSpec {
    let wrap = match tls {
        true => {
            "import ssl
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain('cert.pem', 'key.pem')
server.socket = context.wrap_socket(server.socket, server_side=True)"
        }
        false => "",
    };
    script(&format!(
        "import http.server, os
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status, body = self.answer()
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)
    def answer(self):
        {answer}
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(('127.0.0.1', {port}), H)
{wrap}
server.serve_forever()"
    ))
}

fn argv(line: &str) -> Probe {
    let argv = ["/bin/sh", "-c", line].map(str::to_owned).to_vec();
    Probe::Exec { argv }
}

#[tokio::test]
async fn an_http_check_looks_at_status_body_and_sends_headers() {
    let rig = Rig::new().await;
    let port = free_port();
    let answer = "key, host = self.headers.get('X-Key'), self.headers.get('Host')
        if (key, host) != ('k1', 'shop.example'): return 403, f'{key} {host}'.encode()
        if not os.path.exists('warm'): return 503, b'<p>\\n warming   up</p>'
        return 418, b'{\"db\": \"down\"}' if not os.path.exists('good') else b'{\"db\": \"up\"}'";
    let mut spec = web(port, answer, false);
    let mut probe = HttpProbe::new(port, "/health z?a=\"b\"".replace(' ', "-"));
    probe.status = vec!["418".parse::<StatusRange>().unwrap()];
    probe.body = Some("\"db\": \"up\"".to_owned());
    probe.headers = [("X-Key".to_owned(), "k1".to_owned())].into();
    probe.host = Some("shop.example".to_owned());
    spec.health = health(Probe::Http(probe));
    rig.put("web", &spec).await;
    rig.execute("web").await;
    let told = |text: &'static str| {
        rig.until("web", move |object| {
            let message = object.message.as_deref();
            message.is_some_and(|message| message.ends_with(text))
        })
    };
    told("answered 503: <p> warming up</p>").await;
    std::fs::write(rig.workspace().join("warm"), "").unwrap();
    told("answered 418 without `\"db\": \"up\"`: {\"db\": \"down\"}").await;
    std::fs::write(rig.workspace().join("good"), "").unwrap();
    assert_eq!(rig.start("web").await.unwrap().status, Status::Running);
}

#[tokio::test]
async fn an_https_check_takes_the_certificate_of_this_machine() {
    let rig = Rig::new().await;
    certificate(&rig.workspace());
    let port = free_port();
    let mut spec = web(port, "return 200, b'secure'", true);
    let mut probe = HttpProbe::new(port, "/");
    probe.scheme = Scheme::Https;
    probe.body = Some("secure".to_owned());
    spec.health = health(Probe::Http(probe));
    assert_eq!(rig.run("web", &spec).await.status, Status::Running);
    // And says it when there is no TLS.
    let mut plain = spec.clone();
    plain.program = web(port, "return 200, b'secure'", false).program;
    plain.health.as_mut().unwrap().timeout = millis(800);
    rig.put("web", &plain).await;
    rig.stop("web").await;
    let error = rig.start("web").await.unwrap_err();
    let says = format!("GET https :{port}/ not answered after 0.8 s: TLS failed: ");
    assert!(error.message.starts_with(&says), "{error}");
}

fn certificate(dir: &Path) {
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=me"])
        .args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(dir)
        .output();
    let made = made.unwrap();
    assert!(made.status.success(), "{made:?}");
}

#[tokio::test]
async fn what_a_probing_program_says_is_told_without_secrets() {
    let rig = Rig::new().await;
    let mut spec = exec(&["sleep", "600"]);
    spec.env
        .insert("PASSWORD".to_owned(), "${secret.pw}".to_owned());
    spec.secrets.insert("pw".to_owned(), "digest".to_owned());
    spec.health = health(argv(
        "echo first; printf 'no entry\\twith %s\\n\\n' $PASSWORD >&2; exit 4",
    ));
    spec.health.as_mut().unwrap().timeout = millis(300);
    let mut secrets = gabion::model::Secrets::default();
    secrets.insert("pw", "hunter22".to_owned().into());
    rig.client
        .put(&named("web"), &spec, &secrets)
        .await
        .unwrap();
    let error = rig.start("web").await.unwrap_err();
    assert_eq!(error.code, "health_timeout");
    let says = "health check `/bin/sh` still exited with 4 after 0.3 s: \
                no entry with ${secret.pw}";
    assert_eq!(error.message, says);
    assert_eq!(rig.get("web").await.message.as_deref(), Some(says));
}

#[tokio::test]
async fn one_probe_that_hangs_is_ended_with_what_it_said() {
    let rig = Rig::new().await;
    let mut spec = exec(&["sleep", "600"]);
    // One that floods its output while it hangs, with a child that would hold the pipe.
    spec.health = health(argv("sleep 600 & yes still there"));
    let check = spec.health.as_mut().unwrap();
    check.probe_timeout = millis(100);
    check.timeout = millis(700);
    rig.put("web", &spec).await;
    let error = rig.start("web").await.unwrap_err();
    let says = "health check `/bin/sh` did not end after 0.7 s: ";
    let said = error.message.strip_prefix(says);
    // It was ended in the middle of whatever line.
    let said = said.unwrap_or_else(|| panic!("{error}"));
    assert!("still there".starts_with(said), "{error}");
}

/// What a program needs to notify, in Python.
const NOTIFY: &str = "import os, socket, subprocess, sys, time
def notify(text):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.sendto(text.encode(), '\\0' + os.environ['NOTIFY_SOCKET'][1:])
def wait(file):
    while not os.path.exists(file): time.sleep(0.005)
";

#[tokio::test]
async fn a_service_says_itself_that_it_is_ready_and_nobody_else_does() {
    let rig = Rig::new().await;
    let mut spec = script(&format!(
        "{NOTIFY}
print(os.environ['NOTIFY_SOCKET'], os.environ.get('WATCHDOG_USEC'))
wait('heard')
notify('STATUS=reading\\tthe tables')
wait('go')
if os.fork() == 0:
    os.setsid()
    notify('READY=1\\nSTATUS=serving')
    time.sleep(600)
time.sleep(600)"
    ));
    spec.health = health(Probe::Notify {});
    rig.put("web", &spec).await;
    rig.execute("web").await;
    let waits = rig.until("web", |o| o.message.is_some()).await;
    assert_eq!(waits.message.as_deref(), Some("no READY=1 from it yet"));
    // The first message in the queue is from a stranger.
    let line = rig.lines("web", 1).await.remove(0).text;
    let (address, watchdog) = line.split_once(' ').unwrap();
    assert_eq!(watchdog, "None");
    ready_from_stranger(address);
    std::fs::write(rig.workspace().join("heard"), "").unwrap();
    let text = "reading the tables";
    let waits = rig
        .until("web", |o| o.message.as_deref() == Some(text))
        .await;
    assert_eq!(waits.state, Some(ServiceState::Starting));
    // Any process of the service may say it, in another session too.
    std::fs::write(rig.workspace().join("go"), "").unwrap();
    let ready = rig.start("web").await.unwrap();
    assert_eq!(ready.state, Some(ServiceState::Running));
    rig.until("web", |o| o.message.as_deref() == Some("serving"))
        .await;
}

fn ready_from_stranger(address: &str) {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let address = SocketAddr::from_abstract_name(address.strip_prefix('@').unwrap()).unwrap();
    let socket = UnixDatagram::unbound().unwrap();
    socket.send_to_addr(b"READY=1", &address).unwrap();
}

#[tokio::test]
async fn systemd_notify_is_understood() {
    let found = std::process::Command::new("systemd-notify")
        .arg("--version")
        .output();
    if found.is_err() {
        eprintln!("there is no systemd-notify here");
        return;
    }
    let rig = Rig::new().await;
    let mut spec = shell("systemd-notify --ready --status='up and away'; exec sleep 600");
    spec.health = health(Probe::Notify {});
    rig.run("web", &spec).await;
    rig.until("web", |o| o.message.as_deref() == Some("up and away"))
        .await;
}

#[tokio::test]
async fn a_service_that_falls_silent_is_started_again() {
    let rig = Rig::new().await;
    let mut spec = script(&format!(
        "{NOTIFY}
print(os.environ['WATCHDOG_USEC'])
notify('READY=1')
first = not os.path.exists('second')
open('second', 'w').close()
while True:
    notify('WATCHDOG=1')
    if first: wait('never')
    time.sleep(0.02)"
    ));
    spec.health = health(Probe::Notify {});
    let check = spec.health.as_mut().unwrap();
    (check.interval, check.retries, check.restart) = (millis(500), 2, true);
    let first = rig.run("web", &spec).await;
    let second = rig
        .until("web", |o| {
            o.restart_count == 1 && o.state == Some(ServiceState::Running)
        })
        .await;
    assert_ne!(first.pid, second.pid);
    let says = "unhealthy: no WATCHDOG=1 for 1 s; restarted";
    assert_eq!(second.error.as_deref(), Some(says));
    assert_eq!(rig.lines("web", 2).await[0].text, "1000000");
}
