//! One stack on one server, in three steps: it is made, changed and destroyed.

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
use tokio::io::AsyncWrite;
use tokio::sync::{mpsc, watch};

use super::Swept;
use crate::served::{Served, TOKEN};

/// What is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Eleven services and a task, with needs and a health check.
    Make,
    /// One service is another one, one is stopped, one is gone.
    Change,
    /// Nothing is left.
    Destroy,
}

impl Step {
    pub const ALL: [Self; 3] = [Self::Make, Self::Change, Self::Destroy];
}

/// What an apply came to, and what went wrong; `None` if nothing was to be done.
pub type Applied = Result<Option<(Outcome, Vec<String>)>, String>;

/// One stack on one server.
pub struct Stage<'a> {
    pub swept: &'a Swept,
    pub served: &'a Served,
    /// Its name.
    pub stack: &'a str,
    /// How many actions work at once.
    pub parallelism: usize,
}

/// A stack before and after it was changed. Each service notes every start.
fn manifest(stage: &Stage<'_>, step: Step) -> String {
    let Swept {
        kind,
        path,
        settings,
        ..
    } = stage.swept;
    let (stack, url, settings) = (stage.stack, &stage.served.url, settings());
    let mut text = format!(
        r#"version: 1
stack: {stack}
platforms: {{ cloud: {{ kind: {kind}, url: "{url}{path}"{settings} }} }}
sandboxes:
  web:
    platform: cloud
    services:
      setup: {{ kind: task, command: "echo setup >>starts.txt" }}
      slow:
        command: "echo slow >>starts.txt; echo up >up.txt; exec sleep 1000"
        health: {{ exec: test -e up.txt }}
        needs: [setup]
"#
    );
    for number in 1..=10 {
        let need = match number {
            1 => "[slow]".to_owned(),
            2..=4 => format!("[s{}]", number - 1),
            _ => "[]".to_owned(),
        };
        let (noted, state) = match (step, number) {
            (Step::Change, 8) => continue,
            (Step::Change, 9) => ("s9b".to_owned(), "running"),
            (Step::Change, 10) => ("s10".to_owned(), "stopped"),
            _ => (format!("s{number}"), "running"),
        };
        text.push_str(&format!(
            "      s{number}: {{ command: \"echo {noted} >>starts.txt; exec sleep 1000\", \
             needs: {need}, state: {state} }}\n"
        ));
    }
    text
}

impl Stage<'_> {
    /// The manifest, read.
    pub fn load(&self, step: Step) -> (Loaded, Desired) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("gabion.yaml");
        std::fs::write(&file, manifest(self, step)).unwrap();
        let mut loaded = manifest::load(&Request {
            files: vec![file],
            platforms: capabilities(),
            ..Request::default()
        });
        let report = loaded.report.render_text(false, 100);
        let desired = loaded.desired.take().unwrap_or_else(|| panic!("{report}"));
        (loaded, desired)
    }

    /// As a new process would.
    pub fn platforms(&self, loaded: &Loaded, connections: &Connections) -> Platforms {
        let mut platforms = Platforms::default();
        let is_token = |name: &str| name.ends_with("TOKEN") || name.ends_with("API_KEY");
        let var = |name: &str| is_token(name).then(|| TOKEN.to_owned());
        let opening = Opening {
            settings: Settings {
                name: "cloud",
                config: &loaded.platforms["cloud"],
                secrets: &loaded.secrets,
                var: &var,
                connections,
            },
            stack: self.stack,
            home: Path::new("/nonexistent"),
            program: Path::new("/nonexistent"),
        };
        let platform = open(&opening).unwrap().unwrap();
        platforms.add("cloud", platform);
        platforms
    }

    /// Observes, plans and applies.
    pub async fn apply(&self, step: Step) -> Applied {
        let (loaded, desired) = self.load(step);
        let connections = Connections::default();
        let mut platforms = self.platforms(&loaded, &connections);
        let observed = platforms.observe(&desired).await;
        let observed = observed.map_err(|error| error.to_string())?;
        let destroy = step == Step::Destroy;
        let wanted = match destroy {
            true => Desired::empty(desired.stack.clone()),
            false => desired,
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
            secrets: &loaded.secrets,
            parallelism: self.parallelism,
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
    pub async fn starts(&self) -> Vec<String> {
        let (loaded, desired) = self.load(Step::Make);
        let connections = Connections::default();
        let mut platforms = self.platforms(&loaded, &connections);
        platforms.observe(&desired).await.unwrap();
        let (sandbox, sink) = (SandboxName::new("web").unwrap(), Sink::default());
        let argv = ["cat", "starts.txt"].map(str::to_owned);
        let streams = Streams {
            stdin: Box::new(tokio::io::empty()),
            stdout: Box::new(sink.clone()),
            stderr: Box::new(tokio::io::sink()),
            terminal: None,
            term: None,
        };
        let platform = platforms.of(&sandbox).unwrap();
        let ran = platform.exec(&sandbox, &argv, &loaded.secrets, streams);
        assert_eq!(ran.await.unwrap(), 0);
        let text = sink.text();
        let mut starts: Vec<_> = text.lines().map(str::to_owned).collect();
        starts.sort();
        starts
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
