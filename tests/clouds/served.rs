//! A `gabion serve` of its own for each test, in this process, with its own `GABION_HOME`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use gabion::platforms::Act;
use gabion::platforms::cloud::http::tls;
use gabion::platforms::local::Local;
use gabion::serve::faults::Logged;
use gabion::serve::{Faults, Server, Settings, Switches};
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const EXE: &str = env!("CARGO_BIN_EXE_gabion");

/// The token of the account. It must not be seen anywhere.
pub const TOKEN: &str = "msk_u_planted-token-7d1f";

/// The token of an account that is told by its payload, as Pocketenv makes them.
pub const NAMING: &str =
    "eyJhbGciOiJIUzI1NiJ9.eyJkaWQiOiJkaWQ6cGxjOnBsYW50ZWRwbGFudGVkcGxhbnRlZDEyIn0.c2lnbmVk";

/// The token of somebody else's account.
pub const OTHER: &str = "msk_u_another-token-51c8";

pub struct Served {
    pub url: String,
    pub faults: Arc<Faults>,
    home: TempDir,
    switches: Switches,
    end: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    /// One that does what it is asked to.
    pub fn start() -> Self {
        Self::new(Faults::default(), Switches::default())
    }

    pub fn new(faults: Faults, switches: impl Into<Switches>) -> Self {
        let home = tempfile::tempdir().expect("a temporary folder");
        Self::serve(home, Arc::new(faults), switches.into())
    }

    /// The same server at another address.
    pub fn moved(mut self) -> Self {
        self.stop();
        // A folder that is left without this value is another one.
        let home = std::mem::replace(&mut self.home, tempfile::tempdir().expect("a folder"));
        Self::serve(home, self.faults.clone(), self.switches.clone())
    }

    fn serve(home: TempDir, faults: Arc<Faults>, switches: Switches) -> Self {
        let tokens = vec![TOKEN.into(), NAMING.into(), OTHER.into()];
        let settings = Settings::new(home.path().to_owned(), EXE.into(), tokens);
        let end = CancellationToken::new();
        let set = switches.clone();
        let (told, url) = std::sync::mpsc::channel();
        let (log, until) = (faults.clone(), end.clone().cancelled_owned());
        let thread = std::thread::spawn(move || {
            runtime().block_on(async {
                let address = "127.0.0.1:0".parse().expect("an address");
                let server = Server::bind(address, &settings, log, set).await;
                let server = server.expect("a server");
                told.send(server.engine().base_url()).expect("a listener");
                server.run(until).await;
            });
        });
        Self {
            url: url.recv().expect("an address"),
            faults,
            home,
            switches,
            end,
            thread: Some(thread),
        }
    }

    fn stop(&mut self) {
        self.end.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    /// Asks the server itself, as somebody else who works there would.
    pub fn ask(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        self.ask_as(TOKEN, method, path, body)
    }

    /// As [`Served::ask`], with another token.
    pub fn ask_as(&self, token: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
        runtime().block_on(async {
            let http = reqwest::Client::builder().no_proxy();
            let http = http.tls_backend_preconfigured(tls::unused().expect("TLS"));
            let method = method.parse().expect("a method");
            let request = http.build().expect("a client");
            let request = request.request(method, format!("{}{path}", self.url));
            let request = match body {
                Value::Null => request,
                body => request.json(&body),
            };
            let answer = request.bearer_auth(token).send().await.expect("an answer");
            let status = answer.status().as_u16();
            let text = answer.bytes().await.expect("a body");
            (status, serde_json::from_slice(&text).unwrap_or_default())
        })
    }

    /// Method and path of each request since the first `from` of them.
    pub fn requests(&self, from: usize) -> Vec<String> {
        let all = self.faults.requests();
        let shown = |it: &Logged| format!("{} {}", it.method, it.path);
        all[from..].iter().map(shown).collect()
    }

    /// Where it keeps its sandboxes.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    fn sandboxes(&self) -> Vec<(String, Local)> {
        let stacks = std::fs::read_dir(self.home.path().join("sandboxes"));
        let names = stacks.into_iter().flatten().flatten();
        names
            .map(|stack| {
                let name = stack.file_name().into_string().expect("text");
                let local = Local::new(self.home.path(), name.clone(), PathBuf::from(EXE));
                (name, local)
            })
            .collect()
    }

    /// How many sandboxes there are, whatever the protocols say.
    pub fn count(&self) -> usize {
        let all = self.sandboxes();
        let counts = all
            .iter()
            .map(|(_, local)| local.sandboxes().expect("a list").len());
        counts.sum()
    }
}

/// A runtime for a few requests.
pub fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop();
        let all = self.sandboxes();
        runtime().block_on(async {
            for (_, local) in all {
                for sandbox in local.sandboxes().unwrap_or_default() {
                    let _ = local.delete_sandbox(&sandbox).await;
                }
            }
        });
    }
}
