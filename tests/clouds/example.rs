//! `examples/clouds`, as it is checked in: on this machine and on every cloud, from its first apply to
//! its destruction, with an edit and with everything that others may do to it meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};

use gabion::model::{Program, Secrets, ServiceName, ServiceSpec};
use gabion::supervisor::Client;
use serde_json::{Value, json};

use crate::common::{Project, Run, eventually, free_port};
use crate::projects::{nothing_in, planned};
use crate::served::{Served, TOKEN, runtime};

/// What is done to a service by somebody who knows nothing of gabion.
trait ByHand {
    fn stop(&self, stage: &Stage, service: &str);
    fn delete(&self, stage: &Stage, service: &str);
    /// Makes something else of it.
    fn change(&self, stage: &Stage, service: &str);
}

/// The example on one platform.
struct Stage {
    served: Served,
    project: Project,
    env: [(String, String); 2],
    args: [String; 4],
    port: u16,
}

impl Stage {
    /// Nothing is in the manifest that is not checked in: the rest is in the environment.
    fn new(platform: &str, url: &str, token: &str) -> Self {
        let (served, port) = (Served::start(), free_port());
        let project = Project::example("clouds");
        let env = [
            (url.to_owned(), served.url.clone()),
            (token.to_owned(), TOKEN.to_owned()),
        ];
        let args = [
            "--var".to_owned(),
            format!("platform={platform}"),
            "--var".to_owned(),
            format!("port={port}"),
        ];
        Self {
            served,
            project,
            env,
            args,
            port,
        }
    }

    fn ok(&self, args: &[&str]) -> Run {
        self.ok_at(&self.project.home, args)
    }

    /// With its state in that folder.
    fn ok_at(&self, home: &Path, args: &[&str]) -> Run {
        let vars = self.args.iter().map(String::as_str);
        let args: Vec<_> = vars.chain(args.iter().copied()).collect();
        let mut command = self.project.command(&args);
        let command = command.env("GABION_HOME", home).envs(self.env.clone());
        let run = Run(command.output().unwrap());
        assert!(run.0.status.success(), "gabion {args:?}\n{run}");
        run
    }

    /// There is nothing to do, and nothing on any other machine, and what is there works.
    fn is_as_wanted(&self) {
        nothing_in(&self.ok(&["plan"]));
        if self.is_cloud() {
            nothing_in(&self.ok_at(&self.project.path("elsewhere"), &["plan"]));
        }
        let page = get(self.port, "/clouds-greeting");
        assert!(page.contains("hello from"), "{page}");
        let running: Vec<_> = self.processes().into_keys().collect();
        assert_eq!(running, ["site", "watcher"]);
    }

    fn is_cloud(&self) -> bool {
        !self.args.contains(&"platform=local".to_owned())
    }

    /// The plan names exactly these services, and an apply makes good what is wrong with them.
    fn heals(&self, services: &[&str]) {
        let plan = self.ok(&["plan", "--json"]);
        let named = planned(&plan).into_iter().map(|action| {
            let address = action.rsplit_once(':').expect("an address").0;
            address.to_owned()
        });
        let named: BTreeSet<_> = named.collect();
        assert!(named.iter().eq(services), "{plan}");
        self.ok(&["apply", "--yes"]);
        self.is_as_wanted();
    }

    /// What really runs on this machine of either service, whatever a platform says. Of a service that is
    /// several processes it is the one that has started the others.
    fn processes(&self) -> BTreeMap<&'static str, u32> {
        let port = self.port.to_string();
        let site = format!("SITE=127.0.0.1:{port}");
        let mut all = BTreeMap::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let pid = entry.file_name().to_str().and_then(|it| it.parse().ok());
            let read = |file: &str| {
                let bytes = std::fs::read(entry.path().join(file)).unwrap_or_default();
                String::from_utf8_lossy(&bytes).into_owned()
            };
            let command = read("cmdline");
            let is_site = command.contains("http.server") && command.contains(&port);
            let is_watcher = || command.contains("while true") && read("environ").contains(&site);
            let service = match pid {
                Some(_) if is_site => "site",
                Some(_) if is_watcher() => "watcher",
                _ => continue,
            };
            // Behind its name, which may be anything: its state and its parent.
            let stat = read("stat");
            let mut fields = stat.rsplit(')').next().unwrap_or_default().split(' ');
            let parent: Option<u32> = fields.nth(2).and_then(|it| it.parse().ok());
            all.insert(
                pid.unwrap_or_default(),
                (service, parent.unwrap_or_default()),
            );
        }
        let mut found = BTreeMap::new();
        for (pid, (service, parent)) in &all {
            if all.get(parent).is_none_or(|(other, _)| other != service) {
                let twice = found.insert(*service, *pid);
                assert_eq!(twice, None, "{service} runs twice, as {pid} too");
            }
        }
        found
    }
}

/// A page of a server on this machine.
fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// Every other process that works in this folder, or whose command line names it.
fn processes_below(folder: &Path) -> Vec<u32> {
    let mark = folder.to_str().unwrap();
    let is_below = |pid: &u32| {
        let of = |file: &str| PathBuf::from(format!("/proc/{pid}/{file}"));
        let command = std::fs::read(of("cmdline")).unwrap_or_default();
        let cwd = std::fs::read_link(of("cwd")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(mark) || cwd.starts_with(folder)
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let others = pids.filter(|pid| *pid != std::process::id());
    others.filter(is_below).collect()
}

fn from_first_to_last(stage: &Stage, by_hand: &dyn ByHand) {
    stage.ok(&["apply", "--yes"]);
    stage.is_as_wanted();

    // An edit restarts what was edited, and nothing else.
    let before = stage.processes();
    stage.project.edit("sleep 60", "sleep 61");
    stage.ok(&["apply", "--yes"]);
    stage.is_as_wanted();
    let after = stage.processes();
    assert_eq!(after["site"], before["site"]);
    assert_ne!(after["watcher"], before["watcher"]);

    by_hand.stop(stage, "site");
    by_hand.delete(stage, "watcher");
    eventually("both are gone", || stage.processes().is_empty());
    stage.heals(&["web/site", "web/watcher"]);
    let before = stage.processes();
    by_hand.change(stage, "watcher");
    stage.heals(&["web/watcher"]);
    assert_eq!(stage.processes()["site"], before["site"]);

    stage.ok(&["destroy", "--yes"]);
    assert_eq!(stage.served.count(), 0);
    for folder in [stage.served.home(), stage.project.dir.path()] {
        eventually("no process is left", || processes_below(folder).is_empty());
    }
    assert!(stage.processes().is_empty());
    TcpListener::bind(("127.0.0.1", stage.port)).expect("the port is free");
}

/// A supervisor's own interface. The keeper's folder is on this machine.
struct Supervisor;

impl Supervisor {
    fn client(stage: &Stage) -> Client {
        let folder: PathBuf = stage.project.home.join("sandboxes/clouds/web");
        Client::open(&folder).unwrap().unwrap()
    }
}

impl ByHand for Supervisor {
    fn stop(&self, stage: &Stage, service: &str) {
        let name = ServiceName::new(service).unwrap();
        let stopped = async { Self::client(stage).stop(&name).await };
        runtime().block_on(stopped).unwrap();
    }

    fn delete(&self, stage: &Stage, service: &str) {
        let name = ServiceName::new(service).unwrap();
        let deleted = async { Self::client(stage).delete(&name).await };
        runtime().block_on(deleted).unwrap();
    }

    fn change(&self, stage: &Stage, service: &str) {
        let name = ServiceName::new(service).unwrap();
        let changed = async {
            let spec = ServiceSpec::new(Program::Shell {
                command: "sleep 1000".to_owned(),
            });
            let client = Self::client(stage);
            client.put(&name, &spec, &Secrets::default()).await
        };
        runtime().block_on(changed).unwrap();
    }
}

/// The data plane, whose domain and token the gateway tells.
struct Iris;

impl Iris {
    fn ask(stage: &Stage, method: &str, service: &str, body: Value) -> Value {
        let gateway = |call: &str, body: Value| {
            let path = format!("/iris.v1.SandboxService/{call}");
            stage.served.ask("POST", &path, body).1
        };
        let sandbox = &gateway("ListSandboxes", json!({}))["sandboxes"][0];
        let token = gateway(
            "IssueDataPlaneToken",
            json!({ "sandbox_id": sandbox["id"] }),
        );
        let token = token["data_plane_token"].as_str().unwrap();
        let domain = sandbox["domain"].as_str().unwrap();
        let path = domain.strip_prefix(&stage.served.url).unwrap();
        let path = format!("{path}/v1/services/{service}");
        let (status, answer) = stage.served.ask_as(token, method, &path, body);
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer
    }
}

impl ByHand for Iris {
    fn stop(&self, stage: &Stage, service: &str) {
        Self::ask(stage, "POST", &format!("{service}/stop"), Value::Null);
    }

    fn delete(&self, stage: &Stage, service: &str) {
        Self::ask(stage, "DELETE", service, Value::Null);
    }

    fn change(&self, stage: &Stage, service: &str) {
        let body = json!({ "cmd": "sleep", "args": ["1000"] });
        Self::ask(stage, "PUT", service, body);
    }
}

struct Sprites;

impl Sprites {
    fn ask(stage: &Stage, method: &str, service: &str, body: Value) -> Value {
        let path = format!("/v1/sprites/clouds-web/services/{service}");
        let (status, answer) = stage.served.ask(method, &path, body);
        assert!(status < 300, "{method} {path}: {status} {answer}");
        answer
    }
}

impl ByHand for Sprites {
    fn stop(&self, stage: &Stage, service: &str) {
        Self::ask(stage, "POST", &format!("{service}/stop"), Value::Null);
    }

    fn delete(&self, stage: &Stage, service: &str) {
        Self::ask(stage, "DELETE", service, Value::Null);
    }

    fn change(&self, stage: &Stage, service: &str) {
        let mut definition = Self::ask(stage, "GET", service, Value::Null);
        definition["args"] = json!(["-c", "sleep 1000"]);
        let put = format!("{service}?duration=1ms");
        Self::ask(stage, "PUT", &put, definition);
    }
}

struct Pocketenv;

impl Pocketenv {
    fn ask(stage: &Stage, method: &str, operation: &str, body: Value) -> Value {
        let path = format!("/xrpc/io.pocketenv.service.{operation}");
        let (status, answer) = stage.served.ask(method, &path, body);
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer
    }

    fn id(stage: &Stage, service: &str) -> String {
        let all = Self::ask(
            stage,
            "GET",
            "getServices?sandboxId=clouds-web",
            Value::Null,
        );
        let mut all = all["services"].as_array().unwrap().iter();
        let found = all.find(|it| it["name"] == service).unwrap();
        found["id"].as_str().unwrap().to_owned()
    }

    fn act(stage: &Stage, operation: &str, service: &str, body: Value) {
        let id = Self::id(stage, service);
        Self::ask(stage, "POST", &format!("{operation}?serviceId={id}"), body);
    }
}

impl ByHand for Pocketenv {
    fn stop(&self, stage: &Stage, service: &str) {
        Self::act(stage, "stopService", service, Value::Null);
    }

    fn delete(&self, stage: &Stage, service: &str) {
        Self::act(stage, "deleteService", service, Value::Null);
    }

    fn change(&self, stage: &Stage, service: &str) {
        let body = json!({ "service": { "name": service, "command": "sleep 1000" } });
        Self::act(stage, "updateService", service, body);
    }
}

struct Miosa;

impl Miosa {
    fn ask(stage: &Stage, method: &str, rest: &str, body: Value) -> Value {
        let path = format!("/api/v1/sandboxes{rest}");
        let (status, answer) = stage.served.ask(method, &path, body);
        assert!(status < 300, "{method} {path}: {status} {answer}");
        answer
    }

    fn sandbox(stage: &Stage) -> String {
        let listed = Self::ask(stage, "GET", "", Value::Null);
        format!("/{}", listed["data"][0]["id"].as_str().unwrap())
    }

    /// The process of a service.
    fn process(stage: &Stage, service: &str) -> (String, Value) {
        let path = format!("{}/processes", Self::sandbox(stage));
        let listed = Self::ask(stage, "GET", &path, Value::Null);
        let mut all = listed["data"].as_array().unwrap().iter();
        let found = all.find(|it| it["name"] == service).unwrap().clone();
        (format!("{path}/{}", found["pid"]), found)
    }
}

impl ByHand for Miosa {
    fn stop(&self, stage: &Stage, service: &str) {
        let (path, _) = Self::process(stage, service);
        Self::ask(stage, "DELETE", &path, Value::Null);
    }

    /// A service is its process and what is noted about it.
    fn delete(&self, stage: &Stage, service: &str) {
        self.stop(stage, service);
        let note = format!("gabion.service.{service}");
        let body = json!({ "metadata": { note: null } });
        Self::ask(stage, "PATCH", &Self::sandbox(stage), body);
    }

    /// As an older definition would have been started.
    fn change(&self, stage: &Stage, service: &str) {
        let (_, process) = Self::process(stage, service);
        let command = process["command"].as_str().unwrap();
        let (marker, _) = command.split_once("GABION_REV=").unwrap();
        let command = format!("{marker}GABION_REV=0 GABION_RUN=0 sleep 1000");
        self.stop(stage, service);
        let path = format!("{}/processes", Self::sandbox(stage));
        let body = json!({ "command": command, "name": service });
        Self::ask(stage, "POST", &path, body);
    }
}

#[test]
fn on_this_machine() {
    from_first_to_last(&Stage::new("local", "NO_URL", "NO_TOKEN"), &Supervisor);
}

#[test]
fn on_iris() {
    let stage = Stage::new("iris", "IRIS_GATEWAY_URL", "IRIS_API_KEY");
    from_first_to_last(&stage, &Iris);
}

#[test]
fn on_sprites() {
    let stage = Stage::new("sprites", "SPRITES_API_URL", "SPRITES_TOKEN");
    from_first_to_last(&stage, &Sprites);
}

#[test]
fn on_pocketenv() {
    let stage = Stage::new("pocketenv", "POCKETENV_API_URL", "POCKETENV_TOKEN");
    from_first_to_last(&stage, &Pocketenv);
}

#[test]
fn on_miosa() {
    let stage = Stage::new("miosa", "MIOSA_BASE_URL", "MIOSA_API_KEY");
    from_first_to_last(&stage, &Miosa);
}
