//! The client: one method per operation of protocol page sprites.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::ready;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::frames::Frames;
use super::wire::{
    Check, Checkpoint, CreateSprite, Definition, Event, FsList, Page, Service, Services, Session,
    Sessions, Sprite, UpdateSprite,
};
use crate::platforms::TerminalSize;
use crate::platforms::cloud::http::{self, HttpError, Lines, Request, Retry, Socket};

/// How many sprites one page lists at most (§2).
const PAGE: &str = "50";

/// How many sprites of a list are looked at more closely at once: two pages of them, so that the next page need
/// not wait for those of the one before.
pub(super) const AT_ONCE: usize = 100;

/// How long a start is watched for. What counts is read afterwards, so this is short; it may be asked
/// for in fractions of a second (§3).
const WATCHED: &str = "100ms";

/// How long a stream of ours may be silent; those that may be longer say so.
const IDLE: Duration = Duration::from_secs(60);

/// How long a checkpoint may take without a word: files are copied.
const PATIENT: Duration = Duration::from_secs(600);

pub(super) type Result<T, E = HttpError> = std::result::Result<T, E>;

/// Speaks to the API with one account.
#[derive(Debug, Clone)]
pub(super) struct Client(http::Client);

/// A command that is run (§5).
pub(super) struct Command<'a> {
    pub argv: &'a [String],
    pub dir: Option<&'a str>,
    /// Goes into the URL: no secrets.
    pub env: &'a [(String, String)],
    /// The size of its terminal, if it gets one.
    pub terminal: Option<TerminalSize>,
    /// How long it may write nothing.
    pub idle: Duration,
}

/// What a stream has told (§3).
#[derive(Debug, Default)]
pub(super) struct Watched {
    /// How the process ended, if it did.
    pub exit: Option<i32>,
    /// What went wrong.
    pub error: Option<String>,
    /// Whether it was stopped.
    pub stopped: bool,
}

impl Client {
    pub fn new(http: http::Client) -> Self {
        Self(http)
    }

    /// Every sprite of the account (§2).
    pub async fn sprites(&self) -> Result<Vec<Sprite>> {
        let whole = self.listed().map_ok(|listed| self.whole(listed));
        whole
            .try_buffered(AT_ONCE)
            .try_filter_map(|whole| ready(Ok(whole)))
            .try_collect()
            .await
    }

    /// Every sprite of the account (§2) as the pages of the list tell of it. The next page is asked for once
    /// those of the one before are taken.
    pub fn listed(&self) -> impl Stream<Item = Result<Sprite>> {
        // Behind the last page there is nothing; before the first one there is no token.
        let pages = stream::try_unfold(
            Some(None),
            move |token: Option<Option<String>>| async move {
                let Some(token) = token else { return Ok(None) };
                let mut request = self.0.get(&["v1", "sprites"]).query("max_results", PAGE);
                if let Some(token) = &token {
                    request = request.query("continuation_token", token);
                }
                let page: Page = request.fetch().await?;
                let more = page.has_more && !page.sprites.is_empty();
                let next = page.next_continuation_token;
                let next = next.filter(|token| more && !token.is_empty());
                Ok(Some((page.sprites, next.map(Some))))
            },
        );
        pages
            .map_ok(|sprites| stream::iter(sprites).map(Ok))
            .try_flatten()
    }

    /// A sprite of a list, which is read by itself if its page tells too little; `None` if it is gone by then.
    pub async fn whole(&self, listed: Sprite) -> Result<Option<Sprite>> {
        match listed.labels {
            Some(_) => Ok(Some(listed)),
            None => self.sprite(&listed.name).await,
        }
    }

    /// One sprite (§2).
    pub async fn sprite(&self, name: &str) -> Result<Option<Sprite>> {
        self.0.get(&["v1", "sprites", name]).find().await
    }

    /// Creates a sprite (§2).
    pub async fn create_sprite(&self, body: &CreateSprite) -> Result<()> {
        let request = self.0.post(&["v1", "sprites"]).json(body);
        request.send().await.map(drop)
    }

    /// Replaces the labels and who may open the URL (§2).
    pub async fn update_sprite(&self, name: &str, body: &UpdateSprite) -> Result<()> {
        let request = self.0.put(&["v1", "sprites", name]).json(body);
        request.send().await.map(drop)
    }

    /// Has the platform look at a sprite (§2).
    pub async fn check(&self, name: &str) -> Result<Check> {
        self.within(Method::GET, name, &["check"]).fetch().await
    }

    /// Has the platform upgrade a sprite (§2).
    pub async fn upgrade(&self, name: &str) -> Result<()> {
        let request = self.within(Method::POST, name, &["upgrade"]);
        request.send().await.map(drop)
    }

    /// Restarts a sprite, with all that runs in it (§2).
    pub async fn restart_sprite(&self, name: &str) -> Result<()> {
        let request = self.within(Method::POST, name, &["restart"]);
        request.send().await.map(drop)
    }

    /// Deletes a sprite (§2). An absent one counts as deleted.
    pub async fn delete_sprite(&self, name: &str) -> Result<()> {
        gone(
            self.0
                .delete(&["v1", "sprites", name])
                .send()
                .await
                .map(drop),
        )
    }

    /// Every service of a sprite (§3); `None` if there is no such sprite.
    pub async fn services(&self, sprite: &str) -> Result<Option<Vec<Service>>> {
        let found = self
            .within(Method::GET, sprite, &["services"])
            .find()
            .await?;
        Ok(found.map(|(Services::Bare(all) | Services::Wrapped { services: all })| all))
    }

    /// One service (§3).
    pub async fn service(&self, sprite: &str, name: &str) -> Result<Option<Service>> {
        let request = self.within(Method::GET, sprite, &["services", name]);
        request.find().await
    }

    /// Stores a definition and starts it (§3). The same one again changes nothing, so it may be repeated.
    pub async fn put_service(
        &self,
        sprite: &str,
        name: &str,
        definition: &Definition,
    ) -> Result<Watched> {
        let request = self.within(Method::PUT, sprite, &["services", name]);
        watch(request.query("duration", WATCHED).json(definition)).await
    }

    /// Starts a service (§3).
    pub async fn start_service(&self, sprite: &str, name: &str) -> Result<Watched> {
        let request = self.within(Method::POST, sprite, &["services", name, "start"]);
        watch(request.query("duration", WATCHED)).await
    }

    /// Stops and starts a service (§3). Older runtimes answer 404.
    pub async fn restart_service(&self, sprite: &str, name: &str) -> Result<Watched> {
        let request = self.within(Method::POST, sprite, &["services", name, "restart"]);
        watch(request.query("duration", WATCHED)).await
    }

    /// Stops a service (§3). One that is stopped or absent counts as stopped.
    pub async fn stop_service(&self, sprite: &str, name: &str, grace: Duration) -> Result<Watched> {
        let request = self.within(Method::POST, sprite, &["services", name, "stop"]);
        let request = request
            .query("timeout", format!("{}ms", grace.as_millis()))
            .timeout(grace + IDLE)
            .retry(Retry::Safe);
        let stopped = Watched {
            stopped: true,
            ..Watched::default()
        };
        match watch(request).await {
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(stopped),
            watched => watched,
        }
    }

    /// Removes a definition (§3). An absent one counts as removed.
    pub async fn delete_service(&self, sprite: &str, name: &str) -> Result<()> {
        let request = self.within(Method::DELETE, sprite, &["services", name]);
        gone(request.send().await.map(drop))
    }

    /// Sends a signal (§3).
    pub async fn signal(&self, sprite: &str, name: &str, signal: &str) -> Result<()> {
        let body = serde_json::json!({ "name": name, "signal": signal });
        let request = self.within(Method::POST, sprite, &["services", "signal"]);
        request.json(&body).send().await.map(drop)
    }

    /// The last lines of a log (§3), and those that come within `follow`.
    pub async fn logs(
        &self,
        sprite: &str,
        name: &str,
        lines: usize,
        follow: Option<Duration>,
    ) -> Result<Lines> {
        let request = self.within(Method::GET, sprite, &["services", name, "logs"]);
        let request = request.query("lines", lines.to_string());
        match follow {
            None => request.lines(IDLE).await,
            Some(duration) => {
                let request = request.query("duration", format!("{}s", duration.as_secs()));
                request.lines(duration + IDLE).await
            }
        }
    }

    /// Runs a command over a WebSocket (§5); `None` if the server has none for that, and has run nothing.
    pub async fn exec_socket(&self, sprite: &str, command: &Command<'_>) -> Result<Option<Socket>> {
        let request = self.command(Method::GET, sprite, command);
        request.socket(command.idle).await
    }

    /// Runs a command that reads `stdin`, over HTTP (§5): its output is to be text.
    pub async fn exec(&self, sprite: &str, command: &Command<'_>, stdin: Bytes) -> Result<Frames> {
        let request = self.command(Method::POST, sprite, command);
        let request = request
            .bytes("application/octet-stream", stdin)
            .timeout(command.idle);
        Ok(Frames::new(request.blocks(command.idle).await?))
    }

    /// A WebSocket for a connection to a port (§6); `None` if the server has none for that.
    pub async fn proxy_socket(&self, sprite: &str, idle: Duration) -> Result<Option<Socket>> {
        let request = self.within(Method::GET, sprite, &["proxy"]);
        request.socket(idle).await
    }

    /// The commands that run (§5).
    pub async fn sessions(&self, sprite: &str) -> Result<Vec<Session>> {
        let request = self.within(Method::GET, sprite, &["exec"]);
        let Sessions { sessions } = request.fetch().await?;
        Ok(sessions)
    }

    /// Joins a command that runs (§5); `None` if the server has no WebSocket for that.
    pub async fn session_socket(
        &self,
        sprite: &str,
        id: &str,
        idle: Duration,
    ) -> Result<Option<Socket>> {
        let request = self.within(Method::GET, sprite, &["exec", id]);
        request.socket(idle).await
    }

    /// Ends a command that runs (§5), and tells how that went; `grace` is how long it may ignore the signal.
    pub async fn kill_session(
        &self,
        sprite: &str,
        id: &str,
        signal: &str,
        grace: Duration,
    ) -> Result<Watched> {
        let request = self.within(Method::POST, sprite, &["exec", id, "kill"]);
        let request = request
            .query("signal", signal)
            .query("timeout", format!("{}s", grace.as_secs()))
            .timeout(grace + IDLE);
        watch_for(request, grace + IDLE).await
    }

    fn command(&self, method: Method, sprite: &str, command: &Command<'_>) -> Request<'_> {
        let mut request = self.within(method, sprite, &["exec"]);
        for word in command.argv {
            request = request.query("cmd", word);
        }
        if let Some(program) = command.argv.first() {
            request = request.query("path", program);
        }
        if let Some(dir) = command.dir {
            request = request.query("dir", dir);
        }
        for (name, value) in command.env {
            request = request.query("env", format!("{name}={value}"));
        }
        if let Some(TerminalSize { width, height }) = command.terminal {
            let size = [("rows", height), ("cols", width)];
            request = request.query("tty", "true");
            for (name, length) in size {
                request = request.query(name, length.to_string());
            }
        }
        request.query("stdin", "true")
    }

    /// Writes a file (§6), readable by its owner only.
    pub async fn write_file(&self, sprite: &str, path: &str, text: &SecretString) -> Result<()> {
        let body = text.expose_secret().as_bytes().to_vec();
        self.put_file(sprite, path, body, 0o600).await
    }

    /// The bytes of a file (§6).
    pub async fn read_file(&self, sprite: &str, path: &str) -> Result<bytes::Bytes> {
        let request = self.within(Method::GET, sprite, &["fs", "read"]);
        let request = request.query("path", path).query("workingDir", "/");
        Ok(request.send().await?.body)
    }

    /// Writes a file (§6), with the folders above it.
    pub async fn put_file(&self, sprite: &str, path: &str, body: Vec<u8>, mode: u32) -> Result<()> {
        let request = self.within(Method::PUT, sprite, &["fs", "write"]);
        let request = request
            .query("path", path)
            .query("workingDir", "/")
            .query("mode", format!("{mode:04o}"))
            .query("mkdirParents", "true")
            .bytes("application/octet-stream", body);
        request.send().await.map(drop)
    }

    /// What is in a folder (§6).
    pub async fn list_files(&self, sprite: &str, path: &str) -> Result<FsList> {
        let request = self.within(Method::GET, sprite, &["fs", "list"]);
        let request = request.query("path", path).query("workingDir", "/");
        request.fetch().await
    }

    /// Removes a file or folder (§6). Not repeated where it may have been done: the file is not there then.
    pub async fn remove_file(&self, sprite: &str, path: &str, recursive: bool) -> Result<()> {
        let request = self.within(Method::DELETE, sprite, &["fs", "delete"]);
        let request = request
            .query("path", path)
            .query("workingDir", "/")
            .query("recursive", recursive.to_string())
            .retry(Retry::IfNotDone);
        request.send().await.map(drop)
    }

    /// Does one of these to a file (§6): `rename`, `copy`, `chmod`.
    pub async fn change_file(&self, sprite: &str, what: &str, body: &Value) -> Result<()> {
        let request = self.within(Method::POST, sprite, &["fs", what]).json(body);
        request.retry(Retry::IfNotDone).send().await.map(drop)
    }

    /// The checkpoints of a sprite (§4), automatic ones left out.
    pub async fn checkpoints(&self, sprite: &str) -> Result<Vec<Checkpoint>> {
        self.within(Method::GET, sprite, &["checkpoints"])
            .fetch()
            .await
    }

    /// Makes a checkpoint (§4); what went wrong, if anything did.
    pub async fn create_checkpoint(&self, sprite: &str, comment: &str) -> Result<Watched> {
        let body = serde_json::json!({ "comment": comment });
        let request = self
            .within(Method::POST, sprite, &["checkpoint"])
            .json(&body);
        watch_for(request.timeout(PATIENT), PATIENT).await
    }

    /// Rewinds a sprite (§4); what went wrong, if anything did. It may not be back yet.
    pub async fn restore_checkpoint(&self, sprite: &str, id: &str) -> Result<Watched> {
        let request = self.within(Method::POST, sprite, &["checkpoints", id, "restore"]);
        watch_for(request.timeout(PATIENT), PATIENT).await
    }

    /// Removes a checkpoint (§4). An absent one counts as removed.
    pub async fn delete_checkpoint(&self, sprite: &str, id: &str) -> Result<()> {
        let request = self.within(Method::DELETE, sprite, &["checkpoints", id]);
        gone(request.send().await.map(drop))
    }

    fn within(&self, method: Method, sprite: &str, tail: &[&str]) -> Request<'_> {
        let path = [&["v1", "sprites", sprite], tail].concat();
        self.0.request(method, &path)
    }
}

fn gone(deleted: Result<()>) -> Result<()> {
    match deleted {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}

async fn watch(request: Request<'_>) -> Result<Watched> {
    watch_for(request, IDLE).await
}

/// Reads a stream of events to its end. One that breaks off was begun, and has told what it has told:
/// its caller reads what came of it.
async fn watch_for(request: Request<'_>, idle: Duration) -> Result<Watched> {
    let mut lines = request.lines(idle).await?;
    let mut watched = Watched::default();
    while let Ok(Some(line)) = lines.next().await {
        // What is no event of a stream is left out (§3): some servers answer with the service.
        let event: Event = serde_json::from_str(&line).unwrap_or_default();
        match event.kind.as_str() {
            "exit" | "exited" => watched.exit = event.exit_code,
            "error" => watched.error = event.error.or(event.data),
            "stopped" => watched.stopped = true,
            _ => {}
        }
    }
    Ok(watched)
}
