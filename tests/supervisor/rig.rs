//! A supervisor of its own for each test, real programs, and waiting for what is expected.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use gabion::keeper::launch;
use gabion::model::{
    Exit, Health, HumanDuration, Need, NeedTarget, Probe, Program, Secrets, ServiceName,
    ServiceSpec, ServiceState,
};
use gabion::platforms::cloud::http::tls;
use gabion::platforms::{LogLine, LogQuery};
use gabion::supervisor::{Client, ClientError, ServiceObject, Until};
use rustix::process::{Pid, Signal};

pub const EXE: &str = env!("CARGO_BIN_EXE_gabion");

/// What any wait in a test may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

/// A client of our own. It is told that there is no TLS, because reqwest would look for a provider.
pub fn http() -> reqwest::ClientBuilder {
    reqwest::Client::builder().tls_backend_preconfigured(tls::unused().unwrap())
}

pub struct Rig {
    pub client: Client,
    pub pid: u32,
    pub keeper: u32,
    dir: PathBuf,
    _temp: Option<tempfile::TempDir>,
}

impl Rig {
    pub async fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let mut rig = Self::at(temp.path()).await;
        rig._temp = Some(temp);
        rig
    }

    /// In a folder that is made, with a plain sandbox in it, where there is none.
    pub async fn at(dir: &Path) -> Self {
        if !dir.join("sandbox.json").exists() {
            make_sandbox(dir);
        }
        launch(Path::new(EXE), dir).await.unwrap();
        Self::of(dir).await
    }

    /// One that is there.
    pub async fn of(dir: &Path) -> Self {
        let client = Client::open(dir).unwrap().unwrap();
        let health = client.health().await.unwrap();
        Self {
            client,
            pid: health.pid,
            keeper: health.keeper_pid.unwrap(),
            dir: dir.to_owned(),
            _temp: None,
        }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn workspace(&self) -> PathBuf {
        self.dir.join("workspace")
    }

    /// Ends the keeper with a signal, waits until all is gone, and starts another one.
    pub async fn relaunch(&mut self, signal: Signal) {
        kill(self.keeper, signal);
        gone(self.keeper).await;
        gone(self.pid).await;
        launch(Path::new(EXE), &self.dir).await.unwrap();
        self.look().await;
    }

    /// Kills the supervisor, and waits for the one that takes its place.
    pub async fn kill_supervisor(&mut self) {
        let before = self.pid;
        kill(self.pid, Signal::KILL);
        gone(self.pid).await;
        self.look().await;
        assert_ne!(before, self.pid);
    }

    /// Whoever supervises now.
    pub async fn look(&mut self) {
        self.client = Client::open(&self.dir).unwrap().unwrap();
        let health = self.client.health().await.unwrap();
        (self.pid, self.keeper) = (health.pid, health.keeper_pid.unwrap());
    }

    /// How many processes of services there are.
    pub fn running(&self) -> usize {
        let own = [self.pid].into_iter().chain(self.init());
        let own: Vec<_> = own.collect();
        let all = below(self.keeper).into_iter();
        all.filter(|pid| !own.contains(pid) && alive(*pid)).count()
    }

    /// Number 1 of the namespaces, if there are any.
    fn init(&self) -> Option<u32> {
        let exe = |pid: &u32| std::fs::read_link(format!("/proc/{pid}/exe")).ok();
        let own = exe(&self.keeper);
        let others = below(self.keeper).into_iter();
        others
            .filter(|pid| *pid != self.pid)
            .find(|pid| exe(pid) == own)
    }

    /// The number out here of a process that has told its own, which may be one of a namespace.
    pub fn host(&self, told: u32) -> u32 {
        let is_it = |pid: &u32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            let numbers = line.unwrap_or_default().split_ascii_whitespace();
            numbers.last().and_then(|n| n.parse().ok()) == Some(told)
        };
        let found = below(self.keeper).into_iter().find(is_it);
        found.unwrap_or_else(|| panic!("no process says that it is {told}"))
    }

    pub async fn put(&self, name: &str, spec: &ServiceSpec) -> ServiceObject {
        let none = Secrets::default();
        self.client.put(&named(name), spec, &none).await.unwrap()
    }

    pub async fn start(&self, name: &str) -> Result<ServiceObject, ClientError> {
        let (name, none) = (named(name), Secrets::default());
        in_time(self.client.start(&name, &none, Until::Settled)).await
    }

    /// Starts without waiting for more than the execution.
    pub async fn execute(&self, name: &str) -> ServiceObject {
        let (name, none) = (named(name), Secrets::default());
        let start = self.client.start(&name, &none, Until::Executed);
        in_time(start).await.unwrap()
    }

    pub async fn restart(&self, name: &str) -> ServiceObject {
        let (name, none) = (named(name), Secrets::default());
        in_time(self.client.restart(&name, &none)).await.unwrap()
    }

    pub async fn change(&self, name: &str, after: u64) -> ServiceObject {
        let name = named(name);
        in_time(self.client.wait_change(&name, after))
            .await
            .unwrap()
    }

    /// Stores and starts.
    pub async fn run(&self, name: &str, spec: &ServiceSpec) -> ServiceObject {
        self.put(name, spec).await;
        self.start(name).await.unwrap()
    }

    pub async fn stop(&self, name: &str) -> ServiceObject {
        in_time(self.client.stop(&named(name))).await.unwrap()
    }

    pub async fn get(&self, name: &str) -> ServiceObject {
        self.client.get(&named(name)).await.unwrap()
    }

    /// The first state of the service from now on that fits.
    pub async fn until(&self, name: &str, fits: impl Fn(&ServiceObject) -> bool) -> ServiceObject {
        let key = named(name);
        let mut object = self.get(name).await;
        while !fits(&object) {
            let change = self.client.wait_change(&key, object.seq);
            object = match tokio::time::timeout(LIMIT, change).await {
                Ok(object) => object.unwrap(),
                Err(_) => panic!("no further change; last: {object:#?}"),
            };
        }
        object
    }

    pub async fn until_state(&self, name: &str, state: ServiceState) -> ServiceObject {
        self.until(name, |object| object.state == Some(state)).await
    }

    pub async fn logs(&self, name: &str) -> Vec<LogLine> {
        let query = LogQuery::default();
        let mut lines = self.client.logs(&named(name), &query).await.unwrap();
        let mut all = Vec::new();
        while let Some(line) = in_time(lines.recv()).await {
            all.push(line);
        }
        all
    }

    pub async fn texts(&self, name: &str) -> Vec<String> {
        let lines = self.logs(name).await.into_iter();
        lines.map(|line| line.text).collect()
    }

    /// The first `count` lines of a log, as soon as they are there.
    pub async fn lines(&self, name: &str, count: usize) -> Vec<LogLine> {
        let query = LogQuery {
            follow: true,
            ..LogQuery::default()
        };
        let mut lines = self.client.logs(&named(name), &query).await.unwrap();
        let mut all = Vec::new();
        while all.len() < count {
            all.push(in_time(lines.recv()).await.expect("the log ended"));
        }
        all
    }

    /// The lines of a log up to one of this text, as soon as that is there.
    pub async fn until_line(&self, name: &str, last: &str) -> Vec<String> {
        let query = LogQuery {
            follow: true,
            ..LogQuery::default()
        };
        let mut lines = self.client.logs(&named(name), &query).await.unwrap();
        let mut all: Vec<String> = Vec::new();
        while all.last().is_none_or(|text| text != last) {
            all.push(in_time(lines.recv()).await.expect("the log ended").text);
        }
        all
    }

    /// A raw request, for bodies that the client would not send.
    pub async fn raw(&self, method: &str, path: &str, body: &str) -> (u16, serde_json::Value) {
        let (status, text) = self.raw_text(method, path, body).await;
        (status, serde_json::from_str(&text).unwrap())
    }

    /// The same, for answers that are not JSON.
    pub async fn raw_text(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let answer = self.send(method, path, body).await;
        let status = answer.status().as_u16();
        (status, answer.text().await.unwrap())
    }

    async fn send(&self, method: &str, path: &str, body: &str) -> reqwest::Response {
        let socket = self.dir.join("supervisor.sock");
        let http = http().unix_socket(socket).build();
        let method = method.parse().unwrap();
        let request = http.unwrap().request(method, format!("http://x{path}"));
        request.body(body.to_owned()).send().await.unwrap()
    }

    /// An answer that goes on.
    pub async fn stream(&self, path: &str) -> Lines {
        let answer = self.send("GET", path, "").await;
        assert_eq!(answer.status().as_u16(), 200);
        Lines {
            answer,
            rest: Vec::new(),
        }
    }
}

/// The lines of an answer that goes on.
pub struct Lines {
    answer: reqwest::Response,
    rest: Vec<u8>,
}

impl Lines {
    async fn text(&mut self) -> String {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return String::from_utf8(line).unwrap();
            }
            let chunk = in_time(self.answer.chunk()).await.unwrap();
            self.rest
                .extend_from_slice(&chunk.expect("the answer ended"));
        }
    }

    /// The next line of JSON.
    pub async fn line(&mut self) -> serde_json::Value {
        serde_json::from_str(&self.text().await).unwrap()
    }

    /// The data of the next server-sent event.
    pub async fn event(&mut self) -> serde_json::Value {
        loop {
            if let Some(data) = self.text().await.strip_prefix("data: ") {
                return serde_json::from_str(data).unwrap();
            }
        }
    }
}

impl Drop for Rig {
    /// Lets it stop its services; what ignores that is killed with it.
    fn drop(&mut self) {
        kill(self.pid, Signal::TERM);
        if !ends_within(self.pid, Duration::from_secs(8)) {
            kill(self.pid, Signal::KILL);
        }
    }
}

/// Makes a folder with a plain sandbox in it.
pub fn make_sandbox(dir: &Path) {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(dir).unwrap();
    let spec = gabion::model::SandboxSpec::default();
    let text = serde_json::json!({ "spec": spec }).to_string();
    std::fs::write(dir.join("sandbox.json"), text).unwrap();
}

pub async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("too slow")
}

pub fn named(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

pub fn shell(command: &str) -> ServiceSpec {
    ServiceSpec::new(Program::Shell {
        command: command.to_owned(),
    })
}

pub fn exec(argv: &[&str]) -> ServiceSpec {
    ServiceSpec::new(Program::Exec {
        cmd: argv[0].to_owned(),
        args: argv[1..].iter().map(|arg| (*arg).to_owned()).collect(),
    })
}

pub fn health(probe: Probe) -> Option<Health> {
    Some(Health::new(probe))
}

pub fn need(name: &str) -> Need {
    Need {
        target: NeedTarget::Local(named(name)),
        condition: Default::default(),
        restart: false,
    }
}

pub fn millis(millis: u64) -> HumanDuration {
    HumanDuration::from_millis(millis)
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// The interpreter itself: the one in PATH may be a slow wrapper.
fn python() -> &'static str {
    static PYTHON: OnceLock<String> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let mut find = std::process::Command::new("python3");
        let found = find.args(["-c", "import sys; print(sys.executable, end='')"]);
        String::from_utf8(found.output().unwrap().stdout).unwrap()
    })
}

/// Runs a Python program.
pub fn script(program: &str) -> ServiceSpec {
    exec(&[python(), "-uSc", program])
}

/// Says `opens` and opens a TCP port after `delay` milliseconds.
pub fn server(port: u16, delay: u64) -> ServiceSpec {
    let mut spec = script(&format!(
        "import socket, time
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(('127.0.0.1', {port}))
time.sleep({delay} / 1000)
print('opens')
s.listen()
while True: s.accept()[0].close()"
    ));
    spec.health = health(Probe::Tcp { port });
    spec
}

pub fn kill(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
    let _ = rustix::process::kill_process(pid, signal);
}

pub fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some(Some('Z' | 'X')))
}

/// Waits for the end of a process.
pub async fn gone(pid: u32) {
    let ended = tokio::task::spawn_blocking(move || ends_within(pid, LIMIT));
    assert!(ended.await.unwrap() && !alive(pid));
}

fn ends_within(pid: u32, limit: Duration) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::{PidfdFlags, pidfd_open};
    let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else {
        return true;
    };
    let limit = Timespec::try_from(limit).unwrap();
    let mut polled = [PollFd::new(&pidfd, PollFlags::IN)];
    loop {
        match poll(&mut polled, Some(&limit)) {
            // The end of another child, for one.
            Err(rustix::io::Errno::INTR) => {}
            polled => return polled == Ok(1),
        }
    }
}

pub fn exit_of(object: &ServiceObject) -> &Exit {
    object.last_exit.as_ref().unwrap()
}

/// Every process below one.
pub fn below(pid: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    let children = children
        .split_ascii_whitespace()
        .filter_map(|n| n.parse().ok());
    children
        .flat_map(|child: u32| std::iter::once(child).chain(below(child)))
        .collect()
}
