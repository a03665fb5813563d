//! A `gabion serve` of its own for each test, in this process, with its own `GABION_HOME`; and projects
//! whose sandboxes live there.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use gabion::platforms::Act;
use gabion::platforms::cloud::http::tls;
use gabion::platforms::local::Local;
use gabion::serve::miosa::Switches;
use gabion::serve::{Faults, Server, Settings};
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const EXE: &str = env!("CARGO_BIN_EXE_gabion");

/// The token of the account. It must not be seen anywhere.
pub const TOKEN: &str = "msk_u_planted-token-7d1f";

pub struct Served {
    pub url: String,
    pub faults: Arc<Faults>,
    home: TempDir,
    end: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    pub fn new(faults: Faults, switches: Switches) -> Self {
        let home = tempfile::tempdir().expect("a temporary folder");
        let settings = Settings::new(home.path().to_owned(), EXE.into(), vec![TOKEN.into()]);
        let (faults, end) = (Arc::new(faults), CancellationToken::new());
        let (told, url) = std::sync::mpsc::channel();
        let (log, until) = (faults.clone(), end.clone().cancelled_owned());
        let thread = std::thread::spawn(move || {
            runtime().block_on(async {
                let address = "127.0.0.1:0".parse().expect("an address");
                let server = Server::bind_with(address, &settings, log, switches).await;
                let server = server.expect("a server");
                told.send(server.engine().base_url()).expect("a listener");
                server.run(until).await;
            });
        });
        Self {
            url: url.recv().expect("an address"),
            faults,
            home,
            end,
            thread: Some(thread),
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

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

impl Drop for Served {
    fn drop(&mut self) {
        self.end.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
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
