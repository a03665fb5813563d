//! The logs of services, as they stand in their files, and as they grow.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::watch;

use super::openapi::{Operation, Routes};
use super::request::{Name, Params, find, service_name};
use super::{Answer, Shared};
use crate::model::ServiceName;
use crate::platforms::{LogLine, LogQuery, LogStream};
use crate::supervisor::logs::{Follower, show_line};
use crate::supervisor::owner::Refusal;
use crate::supervisor::sandbox::{Handle, Sandbox};
use crate::supervisor::wire::ServiceObject;

pub(super) fn add(routes: Routes) -> Routes {
    routes.get(
        "/v1/services/{name}/logs",
        logs,
        Operation::new("getServiceLogs", "services", "What a service wrote")
            .text(
                "One line per line: `2026-01-05T10:30:00.123456Z [stdout] text`. With `follow` \
                the answer ends with the service or the supervisor.",
            )
            .query::<LogsQuery>()
            .raw_answer("text/plain", "The lines, oldest first")
            .error(400, "The name or a parameter is wrong")
            .error(404, "There is no such service")
            .error(500, "The log cannot be read"),
    )
}

#[derive(Deserialize, JsonSchema)]
struct LogsQuery {
    /// Only the last so many lines of what there is.
    lines: Option<usize>,
    /// Whether to go on with new lines as they come.
    follow: Option<bool>,
    /// Only lines at or after this time.
    since: Option<jiff::Timestamp>,
    /// Only what was written to this one.
    stream: Option<LogStream>,
}

async fn logs(
    State(api): Shared,
    Name(name): Name,
    Params(query): Params<LogsQuery>,
) -> Answer<Response> {
    let handle = find(&api.sandbox, &name)?;
    let query = LogQuery {
        tail: query.lines,
        since: query.since,
        stream: query.stream,
        follow: query.follow.unwrap_or(false),
    };
    let log = Log::open(api.sandbox, &service_name(&name)?, &handle, query).await?;
    let lines = stream::unfold(log, |mut log| async {
        Some((log.next().await?.map(|lines| text(&lines)), log))
    });
    let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    Ok((kind, Body::from_stream(lines)).into_response())
}

fn text(lines: &[LogLine]) -> Vec<u8> {
    let mut text = Vec::new();
    lines.iter().for_each(|line| show_line(line, &mut text));
    text
}

/// A log that is being read.
pub(super) struct Log {
    /// Absent only while it is reading.
    follower: Option<Follower>,
    /// Told of new lines; `None` if only what there is was asked for.
    tick: Option<watch::Receiver<u64>>,
    /// Where it ends with its process: the state of that.
    object: Option<watch::Receiver<Arc<ServiceObject>>>,
    /// Whether only lines are told that have an end.
    whole: bool,
    sandbox: Arc<Sandbox>,
}

impl Log {
    pub(super) async fn open(
        sandbox: Arc<Sandbox>,
        name: &ServiceName,
        handle: &Handle,
        query: LogQuery,
    ) -> Result<Self, Refusal> {
        let tick = query.follow.then(|| handle.tick.clone());
        let (dir, name) = (sandbox.store.dir().to_owned(), name.clone());
        let open = move || Follower::open(&dir, &name, &query);
        let follower = tokio::task::spawn_blocking(open).await;
        let follower = follower
            .map_err(io::Error::other)
            .and_then(|follower| follower)
            .map_err(|error| Refusal::internal(format!("the log cannot be read: {error}")))?;
        Ok(Self {
            follower: Some(follower),
            tick,
            object: None,
            // Of a process that lives the rest of the line is still to come.
            whole: is_live(&handle.object.borrow()),
            sandbox,
        })
    }

    /// Lets it end once the process has ended and all that it wrote is read.
    pub(super) fn ends_with(self, handle: &Handle) -> Self {
        let object = Some(handle.object.clone());
        Self { object, ..self }
    }

    /// The next whole lines; waits for them if they are followed. `None` at the end.
    pub(super) async fn next(&mut self) -> Option<io::Result<Vec<LogLine>>> {
        loop {
            if let Some(tick) = &mut self.tick {
                tick.mark_unchanged();
            }
            // An ended process has written everything before it is told of.
            let ended = self.object.as_ref().is_some_and(|o| has_ended(&o.borrow()));
            let mut follower = self.follower.take()?;
            let finish = ended || (self.tick.is_none() && !self.whole);
            let read = tokio::task::spawn_blocking(move || {
                let mut lines = follower.read();
                if let Ok(lines) = &mut lines
                    && lines.is_empty()
                    && finish
                {
                    *lines = follower.unfinished();
                }
                (follower, lines)
            });
            let (follower, lines) = read.await.ok()?;
            self.follower = Some(follower);
            match lines {
                Ok(lines) if lines.is_empty() => {}
                lines => return Some(lines),
            }
            if ended {
                return None;
            }
            let tick = self.tick.as_mut()?;
            tokio::select! {
                changed = tick.changed() => if changed.is_err() {
                    // The service is gone: what it wrote last is still read.
                    (self.tick, self.whole) = (None, false);
                },
                () = end(&mut self.object) => {}
                () = self.sandbox.closed.cancelled() => {
                    (self.tick, self.whole) = (None, false);
                }
            }
        }
    }
}

fn is_live(object: &ServiceObject) -> bool {
    object.pid.is_some() && !has_ended(object)
}

fn has_ended(object: &ServiceObject) -> bool {
    object.last_exit.is_some() || object.error.is_some()
}

/// Returns once the process has ended.
async fn end(object: &mut Option<watch::Receiver<Arc<ServiceObject>>>) {
    if let Some(object) = object
        && object.wait_for(|object| has_ended(object)).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}
