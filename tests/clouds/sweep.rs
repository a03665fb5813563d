//! For every request of an apply, every fault: the apply ends in success or with an error that says
//! what went wrong, the next one converges, nothing is made twice, and what is somebody else's stays.
//!
//! The same for every platform, which says what its entry is and which of its requests only ask.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use gabion::apply::{Apply, Interrupt};
use gabion::event::{Event, Outcome, What};
use gabion::manifest::{self, Loaded, Request};
use gabion::model::{Desired, SandboxName};
use gabion::plan::{self, Options};
use gabion::platforms::cloud::http::Connections;
use gabion::platforms::cloud::settings::Settings;
use gabion::platforms::{Opening, Platforms, Streams, capabilities, open};
use gabion::serve::Faults;
use gabion::serve::faults::{Fault, Plan as FaultPlan};
use gabion::serve::miosa::Switches;
use tokio::io::AsyncWrite;
use tokio::sync::{mpsc, watch};

use crate::common::free_port;
use crate::served::{Served, TOKEN};

/// A platform that is swept over.
pub struct Swept {
    /// Its kind.
    pub kind: &'static str,
    /// What its URL is, below that of the server.
    pub path: &'static str,
    /// Requests whose number differs from apply to apply: they ask how far something is.
    pub asks: fn(method: &str, path: &str) -> bool,
}

/// How often each request was made that writes, by `METHOD path`.
type Writes = BTreeMap<String, usize>;

/// One stack on one server.
struct Stage<'a> {
    swept: &'a Swept,
    served: &'a Served,
    loaded: Loaded,
    desired: Desired,
    _dir: tempfile::TempDir,
}

/// Eleven services and a task, with needs and health checks. Each notes every start.
fn manifest(swept: &Swept, url: &str, stack: &str) -> String {
    let port = free_port();
    let (kind, path) = (swept.kind, swept.path);
    let mut text = format!(
        r#"version: 1
stack: {stack}
platforms: {{ cloud: {{ kind: {kind}, url: "{url}{path}" }} }}
sandboxes:
  web:
    platform: cloud
    services:
      setup: {{ kind: task, command: "echo setup >>starts.txt" }}
      port:
        command: "echo port >>starts.txt; exec python3 -m http.server --bind 127.0.0.1 {port}"
        health: {{ tcp: {port} }}
        needs: [setup]
"#
    );
    for number in 1..=10 {
        let need = match number {
            1 => "[port]".to_owned(),
            2..=4 => format!("[s{}]", number - 1),
            _ => "[]".to_owned(),
        };
        text.push_str(&format!(
            "      s{number}: {{ command: \"echo s{number} >>starts.txt; exec sleep 1000\", \
             needs: {need} }}\n"
        ));
    }
    text
}

impl<'a> Stage<'a> {
    fn new(swept: &'a Swept, served: &'a Served, stack: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("gabion.yaml");
        std::fs::write(&file, manifest(swept, &served.url, stack)).unwrap();
        let mut loaded = manifest::load(&Request {
            files: vec![file],
            platforms: capabilities(),
            ..Request::default()
        });
        let report = loaded.report.render_text(false, 100);
        let desired = loaded.desired.take().unwrap_or_else(|| panic!("{report}"));
        Self {
            swept,
            served,
            loaded,
            desired,
            _dir: dir,
        }
    }

    /// As a new process would.
    fn platforms(&self, connections: &Connections) -> Platforms {
        let mut platforms = Platforms::default();
        let var = |name: &str| name.ends_with("TOKEN").then(|| TOKEN.to_owned());
        let opening = Opening {
            settings: Settings {
                name: "cloud",
                config: &self.loaded.platforms["cloud"],
                secrets: &self.loaded.secrets,
                var: &var,
                connections,
            },
            stack: &self.desired.stack,
            home: Path::new("/nonexistent"),
            program: Path::new("/nonexistent"),
        };
        let platform = open(&opening).unwrap().unwrap();
        platforms.add("cloud", platform);
        platforms
    }

    /// Observes, plans and applies; the outcome, and what went wrong. `None`: nothing was to be done.
    async fn apply(&self, destroy: bool) -> Result<Option<(Outcome, Vec<String>)>, String> {
        let connections = Connections::default();
        let mut platforms = self.platforms(&connections);
        let observed = platforms.observe(&self.desired).await;
        let observed = observed.map_err(|error| error.to_string())?;
        let wanted = match destroy {
            true => Desired::empty(self.desired.stack.clone()),
            false => self.desired.clone(),
        };
        let options = Options {
            destroy,
            ..Options::default()
        };
        let plan = plan::plan(&wanted, &observed, &options).unwrap();
        if !plan.problems.is_empty() {
            return Err(format!("{:?}", plan.problems));
        }
        if plan.is_empty() {
            return Ok(None);
        }
        let (events, mut told) = mpsc::unbounded_channel::<Event>();
        let (_interrupt, wish) = watch::channel(Interrupt::None);
        let apply = Apply {
            platforms: &platforms,
            secrets: &self.loaded.secrets,
            parallelism: 16,
            interrupt: wish,
            events,
        };
        let outcome = apply.run(&plan).await;
        let mut errors = Vec::new();
        while let Ok(event) = told.try_recv() {
            if let What::ActionFailed { failure, .. } = event.what {
                errors.push(failure.message);
            }
        }
        Ok(Some((outcome, errors)))
    }

    /// Every start that was noted in the sandbox.
    async fn starts(&self) -> Vec<String> {
        let connections = Connections::default();
        let mut platforms = self.platforms(&connections);
        platforms.observe(&self.desired).await.unwrap();
        let (sandbox, sink) = (SandboxName::new("web").unwrap(), Sink::default());
        let argv = ["cat", "starts.txt"].map(str::to_owned);
        let streams = Streams {
            stdin: Box::new(tokio::io::empty()),
            stdout: Box::new(sink.clone()),
            stderr: Box::new(tokio::io::sink()),
            terminal: None,
        };
        let platform = platforms.of(&sandbox).unwrap();
        let ran = platform.exec(&sandbox, &argv, &self.loaded.secrets, streams);
        assert_eq!(ran.await.unwrap(), 0);
        let text = sink.text();
        let mut starts: Vec<_> = text.lines().map(str::to_owned).collect();
        starts.sort();
        starts
    }

    /// The writes since the last reset.
    fn writes(&self) -> Writes {
        let mut writes = Writes::new();
        for request in self.served.faults.requests() {
            if request.method != "GET" && !(self.swept.asks)(&request.method, &request.path) {
                let key = format!("{} {}", request.method, request.path);
                // Stacks have names of their own.
                let key = key.replace(&self.desired.stack, "STACK");
                *writes.entry(key).or_default() += 1;
            }
        }
        writes
    }
}

/// Output that is kept.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl AsyncWrite for Sink {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Which faults at which requests.
#[derive(Clone, Copy)]
pub enum Runs {
    /// So many of them, picked by chance that is the same every time.
    Some(usize),
    /// Each kind at each request.
    All,
}

/// Sweeps over a platform.
pub fn sweep(swept: &Swept, runs: Runs) {
    let served = Served::new(Faults::default(), Switches::default());
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(async {
        let clean = Stage::new(swept, &served, "clean");
        served.faults.reset(FaultPlan::default());
        let (outcome, errors) = clean.apply(false).await.unwrap().unwrap();
        assert!(outcome.is_success(), "{errors:?}");
        let (requests, writes) = (served.faults.requests().len(), clean.writes());
        let starts = clean.starts().await;
        assert_eq!(starts.len(), 12, "{starts:?}");
        clean.apply(true).await.unwrap();

        let mut all: Vec<(usize, Fault)> = (1..=requests)
            .flat_map(|at| Fault::KINDS.map(|fault| (at, fault)))
            .collect();
        if let Runs::Some(number) = runs {
            let mut chance = fastrand::Rng::with_seed(4);
            chance.shuffle(&mut all);
            all.truncate(number);
        }
        // Somebody else's.
        let foreign = Stage::new(swept, &served, "foreign");
        foreign.apply(false).await.unwrap();
        for (number, (at, fault)) in all.into_iter().enumerate() {
            let stage = Stage::new(swept, &served, &format!("run{number}"));
            run(&stage, at, fault, &writes, &starts).await;
        }
        assert_eq!(foreign.apply(false).await, Ok(None));
        assert_eq!(foreign.starts().await, starts);
    });
    assert_eq!(served.count(), 1, "only somebody else's is left");
}

async fn run(stage: &Stage<'_>, at: usize, fault: Fault, writes: &Writes, starts: &[String]) {
    let what = format!("{} {fault}@{at}", stage.swept.kind);
    stage.served.faults.reset(FaultPlan {
        rules: vec![format!("* **:{fault}@{at}").parse().unwrap()],
        ..FaultPlan::default()
    });
    let first = stage.apply(false).await;
    match &first {
        Ok(Some((outcome, errors))) => {
            assert_eq!(outcome.failed, errors.len(), "{what}: {errors:?}");
            let clear = |it: &String| it.contains(' ') && !it.contains(TOKEN);
            assert!(errors.iter().all(clear), "{what}: {errors:?}");
        }
        Ok(None) => panic!("{what}: there was nothing to do"),
        Err(error) => assert!(error.contains(' '), "{what}: {error}"),
    }
    for (write, count) in stage.writes() {
        let usual = writes.get(&write).copied().unwrap_or_default();
        assert!(
            count <= usual + 1,
            "{what}: {write} {count} times, {first:?}"
        );
    }
    stage.served.faults.reset(FaultPlan::default());
    match stage.apply(false).await {
        Ok(None) => {}
        Ok(Some((outcome, _))) if outcome.is_success() => {}
        second => panic!("{what}: {second:?}, at first {first:?}"),
    }
    assert_eq!(stage.apply(false).await, Ok(None), "{what}: {first:?}");
    assert_eq!(stage.starts().await, starts, "{what}: {first:?}");
    stage.apply(true).await.unwrap();
    assert_eq!(stage.served.count(), 1, "{what}");
}
