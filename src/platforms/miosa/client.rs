//! One method for each operation of the protocol page miosa, §4 and §5.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::wire::{
    FileRecord, Process, Ran, Record, Resized, Shared, listed, log_lines, named, read, resized,
    says_ready, shared, unwrapped,
};
use crate::platforms::cloud::http::{Answer, Client, HttpError, Lines, Request, Retry};

type Result<T, E = HttpError> = std::result::Result<T, E>;

/// The largest page of a list.
const PAGE: usize = 100;

/// What asks for a stream: the plain type alone is refused (§11).
const STREAM: &str = "text/event-stream, application/json;q=0.9";

/// How long nothing may come over a stream.
const IDLE: Duration = Duration::from_secs(24 * 3600);

/// Speaks to one account. Cheap to clone.
#[derive(Clone)]
pub(super) struct Api(pub Client);

/// A key for one change, a UUID of version 4: with it the change is made once.
pub(super) fn key() -> String {
    let (high, low) = (fastrand::u64(..), fastrand::u64(..));
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        0x8000 | ((low >> 48) & 0x3fff),
        low & 0xffff_ffff_ffff
    )
}

async fn value(request: Request<'_>) -> Result<Value> {
    let answer: Answer = request.send().await?;
    // An empty body is an answer, too.
    let body = serde_json::from_slice(&answer.body).unwrap_or_default();
    Ok(unwrapped(body))
}

impl Api {
    fn at<'s>(&'s self, method: Method, id: &str, rest: &[&str]) -> Request<'s> {
        let path: Vec<_> = ["sandboxes", id].iter().chain(rest).copied().collect();
        self.0.request(method, &path)
    }

    fn get<'s>(&'s self, id: &str, rest: &[&str]) -> Request<'s> {
        self.at(Method::GET, id, rest)
    }

    fn post<'s>(&'s self, id: &str, rest: &[&str]) -> Request<'s> {
        self.at(Method::POST, id, rest).json(&json!({}))
    }

    /// Makes a sandbox, once for each key.
    pub(super) async fn create(&self, body: &Value, key: &str) -> Result<Record> {
        let request = self.0.post(&["sandboxes"]).json(body).idempotency_key(key);
        request.fetch_as(record).await
    }

    /// Every sandbox, or those of one external project.
    pub(super) async fn list(&self, project: Option<&str>) -> Result<Vec<Record>> {
        let mut all: Vec<Record> = Vec::new();
        for page in 1.. {
            let mut request = self.0.get(&["sandboxes"]);
            if let Some(project) = project {
                request = request.query("external_project_id", project);
            }
            let request = request.query("page_size", PAGE.to_string());
            let request = request.query("page", page.to_string());
            let (records, total) = request.fetch_as(page_of).await?;
            let before = all.len();
            for record in records {
                if all.iter().all(|known| known.id != record.id) {
                    all.push(record);
                }
            }
            let whole = total.is_none_or(|total| all.len() >= total);
            if whole || all.len() == before {
                break;
            }
        }
        Ok(all)
    }

    /// One sandbox; `None` if it does not exist.
    pub(super) async fn show(&self, id: &str) -> Result<Option<Record>> {
        match self.get(id, &[]).fetch_as(record).await {
            Ok(record) => Ok(Some(record)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Changes fields of a sandbox. The answer may be partial.
    pub(super) async fn update(&self, id: &str, body: &Value) -> Result<Value> {
        let request = self.at(Method::PATCH, id, &[]).json(body);
        value(request.idempotency_key(&key())).await
    }

    /// Stops everything in a sandbox.
    pub(super) async fn stop(&self, id: &str) -> Result<Value> {
        value(self.post(id, &["stop"]).idempotency_key(&key())).await
    }

    /// Holds everything in a sandbox.
    pub(super) async fn pause(&self, id: &str) -> Result<Value> {
        value(self.post(id, &["pause"]).idempotency_key(&key())).await
    }

    /// Has the time of a sandbox begin again: so many seconds, or what it was given.
    pub(super) async fn extend(&self, id: &str, seconds: Option<u64>) -> Result<()> {
        let body = seconds.map_or(json!({}), |seconds| json!({ "timeout_sec": seconds }));
        let request = self.at(Method::POST, id, &["extend"]).json(&body);
        value(request.idempotency_key(&key())).await.map(drop)
    }

    /// Brings a sandbox up again.
    pub(super) async fn resume(&self, id: &str) -> Result<Value> {
        value(self.post(id, &["resume"]).idempotency_key(&key())).await
    }

    /// Removes a sandbox; one that is not there counts as removed.
    pub(super) async fn delete(&self, id: &str) -> Result<()> {
        gone(value(self.at(Method::DELETE, id, &[])).await)
    }

    /// Whether a sandbox can run commands.
    pub(super) async fn is_ready(&self, id: &str) -> Result<bool> {
        Ok(says_ready(&value(self.get(id, &["readiness"])).await?))
    }

    /// The processes, those that run and perhaps those that have ended.
    pub(super) async fn processes(&self, id: &str) -> Result<Vec<Process>> {
        self.get(id, &["processes"]).fetch_as(processes).await
    }

    /// Starts a process. Never repeated by itself where it may have been started.
    pub(super) async fn start(&self, id: &str, body: &Value) -> Result<Process> {
        let request = self.at(Method::POST, id, &["processes"]).json(body);
        request.retry(Retry::IfNotDone).fetch_as(process).await
    }

    /// Ends a process: TERM, and KILL after 5 s. A named service is removed.
    pub(super) async fn kill(&self, id: &str, process: &Process) -> Result<()> {
        gone(value(self.at(Method::DELETE, id, &process.path())).await)
    }

    /// The named services. That they can be listed is assumed (§6).
    pub(super) async fn services(&self, id: &str) -> Result<Vec<Process>> {
        self.get(id, &["services"]).fetch_as(services).await
    }

    /// A named service; `None` if it does not exist.
    pub(super) async fn service(&self, id: &str, name: &str) -> Result<Option<Process>> {
        let request = self.get(id, &["services", name]);
        match request.fetch_as(|it| service(it, Some(name))).await {
            Ok(service) => Ok(Some(service)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a named service, which starts it. Never repeated by itself where it may have been made.
    pub(super) async fn create_service(&self, id: &str, body: &Value) -> Result<Process> {
        let request = self.at(Method::POST, id, &["services"]).json(body);
        let name = body["name"].as_str();
        let request = request.retry(Retry::IfNotDone);
        request.fetch_as(|it| service(it, name)).await
    }

    /// Starts a named service that is stopped (assumed, §6).
    pub(super) async fn start_service(&self, id: &str, name: &str) -> Result<()> {
        let request = self.post(id, &["services", name, "start"]);
        value(request.idempotency_key(&key())).await.map(drop)
    }

    /// Stops a named service (assumed, §6); one that is not there counts as stopped.
    pub(super) async fn stop_service(&self, id: &str, name: &str) -> Result<()> {
        let request = self.post(id, &["services", name, "stop"]);
        gone(value(request.idempotency_key(&key())).await)
    }

    /// The last lines that a process wrote; none of one that is gone.
    pub(super) async fn logs(&self, id: &str, of: [&str; 2], tail: usize) -> Result<Vec<String>> {
        let request = self.get(id, &[of[0], of[1], "logs"]);
        match request.query("tail", tail.to_string()).send().await {
            Ok(answer) => Ok(log_lines(&answer.body)),
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// What a process writes, as it writes it.
    pub(super) async fn stream(&self, id: &str, pid: &str) -> Result<Lines> {
        let request = self.get(id, &["processes", pid, "stream"]);
        request.header("accept", STREAM).lines(IDLE).await
    }

    /// Writes to a process.
    pub(super) async fn write(&self, id: &str, pid: &str, data: &str) -> Result<()> {
        let request = self.at(Method::POST, id, &["processes", pid, "stdin"]);
        value(request.json(&json!({ "data": data })))
            .await
            .map(drop)
    }

    /// Runs a command to its end.
    pub(super) async fn exec(&self, id: &str, body: &Value, limit: Duration) -> Result<Ran> {
        let request = self.at(Method::POST, id, &["exec"]).json(body);
        let request = request.retry(Retry::IfNotDone).timeout(limit);
        request.fetch_as(ran).await
    }

    /// Runs a command and tells its output as it comes.
    pub(super) async fn exec_stream(&self, id: &str, body: &Value) -> Result<Lines> {
        let request = self.at(Method::POST, id, &["exec", "stream"]).json(body);
        let request = request.retry(Retry::IfNotDone).header("accept", STREAM);
        request.lines(IDLE).await
    }

    /// What listens in a sandbox.
    pub(super) async fn ports(&self, id: &str) -> Result<Vec<u16>> {
        let body = value(self.get(id, &["ports"])).await?;
        let ports = listed(body, &["ports"]).into_iter();
        let port = |it: Value| it["port"].as_u64().and_then(|port| port.try_into().ok());
        Ok(ports.filter_map(port).collect())
    }

    /// What a sandbox has used, as the platform tells it.
    pub(super) async fn usage(&self, id: &str) -> Result<Value> {
        value(self.get(id, &["usage"])).await
    }

    /// How it has done within the last hour.
    pub(super) async fn metrics(&self, id: &str) -> Result<Value> {
        value(self.get(id, &["metrics"]).query("window", "1h")).await
    }

    /// Makes a port reachable; where, if it says so.
    pub(super) async fn expose(&self, id: &str, body: &Value) -> Result<Option<String>> {
        let request = self.at(Method::POST, id, &["expose"]).json(body);
        let body = value(request.idempotency_key(&key())).await?;
        let keys = ["url", "preview_url", "public_url"];
        let url = keys.iter().find_map(|key| body[*key].as_str());
        Ok(url.map(str::to_owned))
    }

    /// What is reachable: id, port and URL.
    pub(super) async fn previews(&self, id: &str) -> Result<Vec<(String, u16, Option<String>)>> {
        let body = self.get(id, &["previews"]).fetch_as(json_body).await?;
        let read = |it: &Value| {
            let port = it["port"].as_u64()?.try_into().ok()?;
            let url = it["url"].as_str().map(str::to_owned);
            Some((it["id"].as_str()?.to_owned(), port, url))
        };
        let all = listed(body, &["data", "previews", "items"]);
        Ok(all.iter().filter_map(read).collect())
    }

    /// Ends that.
    pub(super) async fn remove_preview(&self, id: &str, preview: &str) -> Result<()> {
        gone(value(self.at(Method::DELETE, id, &["previews", preview])).await)
    }

    /// Gives a sandbox another size.
    pub(super) async fn resize(&self, id: &str, cpus: u32, mib: u64) -> Result<Resized> {
        let body = json!({ "cpu_count": cpus, "memory_mb": mib });
        let request = self.at(Method::PATCH, id, &["resources"]).json(&body);
        Ok(resized(&value(request).await?))
    }

    /// Makes a link of one of these kinds: `["shares"]`, `["preview-token"]`, `["previews", id, "share"]`.
    pub(super) async fn share(&self, id: &str, kind: &[&str], body: &Value) -> Result<Shared> {
        let request = self.at(Method::POST, id, kind).json(body);
        let made = value(request.idempotency_key(&key())).await?;
        Ok(shared(&made))
    }

    /// The links that are listed.
    pub(super) async fn shares(&self, id: &str) -> Result<Vec<Shared>> {
        let body = self.get(id, &["shares"]).fetch_as(json_body).await?;
        let all = listed(body, &["data", "shares", "items"]);
        Ok(all.iter().map(shared).collect())
    }

    /// Takes a link back: `["shares", id]` or `["previews", id, "share"]`.
    pub(super) async fn unshare(&self, id: &str, which: &[&str]) -> Result<()> {
        gone(value(self.at(Method::DELETE, id, which)).await)
    }

    /// The names of the variables.
    pub(super) async fn variables(&self, id: &str) -> Result<Vec<String>> {
        let body = self.get(id, &["env"]).fetch_as(json_body).await?;
        let all = listed(body, &["data", "vars", "items"]);
        let name = |it: &Value| {
            it["name"]
                .as_str()
                .or(it["key"].as_str())
                .map(str::to_owned)
        };
        Ok(all.iter().filter_map(name).collect())
    }

    /// Sets variables and hands them to the sandbox.
    pub(super) async fn set_variables(&self, id: &str, vars: &Value) -> Result<()> {
        let body = json!({ "vars": vars });
        value(self.at(Method::PUT, id, &["env"]).json(&body)).await?;
        self.sync(id).await
    }

    /// Removes a variable.
    pub(super) async fn unset_variable(&self, id: &str, name: &str) -> Result<()> {
        gone(value(self.at(Method::DELETE, id, &["env", name])).await)?;
        self.sync(id).await
    }

    async fn sync(&self, id: &str) -> Result<()> {
        let request = self.post(id, &["env", "sync"]);
        value(request.idempotency_key(&key())).await.map(drop)
    }

    /// The bytes of a file.
    pub(super) async fn read_file(&self, id: &str, path: &str) -> Result<Answer> {
        let request = self.get(id, &["fs", "download"]);
        request.query("path", path).send().await
    }

    /// Replaces a file.
    pub(super) async fn write_file(&self, id: &str, path: &str, base64: &str) -> Result<()> {
        let body = json!({ "path": path, "content_base64": base64 });
        let request = self.at(Method::POST, id, &["fs", "write"]).json(&body);
        value(request.idempotency_key(&key())).await.map(drop)
    }

    /// What is in a folder.
    pub(super) async fn list_files(&self, id: &str, path: &str) -> Result<Vec<FileRecord>> {
        let request = self.get(id, &["fs"]).query("path", path);
        request.fetch_as(files).await
    }

    /// What is known of a file or folder.
    pub(super) async fn stat_file(&self, id: &str, path: &str) -> Result<FileRecord> {
        let request = self.at(Method::POST, id, &["fs", "stat"]);
        let request = request.json(&json!({ "path": path })).retry(Retry::Safe);
        request.fetch_as(file).await
    }

    /// Removes a file, or a folder with all that is in it. Not repeated where it may have been done: the file is
    /// not there then.
    pub(super) async fn remove_file(&self, id: &str, path: &str) -> Result<()> {
        let request = self.at(Method::DELETE, id, &["fs"]).query("path", path);
        value(request.retry(Retry::IfNotDone)).await.map(drop)
    }

    /// Makes a folder.
    pub(super) async fn make_folder(&self, id: &str, path: &str, parents: bool) -> Result<()> {
        let body = json!({ "path": path, "recursive": parents });
        let request = self.at(Method::POST, id, &["fs", "mkdir"]).json(&body);
        value(request.idempotency_key(&key())).await.map(drop)
    }

    /// Makes a snapshot.
    pub(super) async fn create_snapshot(&self, id: &str, comment: Option<&str>) -> Result<Value> {
        let mut body = Map::new();
        if let Some(comment) = comment {
            body.insert("comment".to_owned(), comment.into());
        }
        let request = self.at(Method::POST, id, &["snapshots"]).json(&body);
        value(request.idempotency_key(&key())).await
    }

    /// The snapshots.
    pub(super) async fn snapshots(&self, id: &str) -> Result<Vec<Value>> {
        let body = self.get(id, &["snapshots"]).fetch_as(json_body).await?;
        Ok(listed(body, &["data", "snapshots", "items"]))
    }

    /// Rewinds a sandbox to a snapshot. The answer may be of another sandbox.
    pub(super) async fn restore(&self, id: &str, snapshot: &str) -> Result<Value> {
        let request = self.post(id, &["restore", snapshot]);
        value(request.idempotency_key(&key())).await
    }

    /// Makes a sandbox with the files of another one.
    pub(super) async fn fork(&self, id: &str, body: &Value) -> Result<Record> {
        let request = self.at(Method::POST, id, &["fork"]).json(body);
        request.idempotency_key(&key()).fetch_as(record).await
    }

    /// Removes a snapshot.
    pub(super) async fn delete_snapshot(&self, id: &str, snapshot: &str) -> Result<()> {
        gone(value(self.at(Method::DELETE, id, &["snapshots", snapshot])).await)
    }
}

/// What is not there counts as removed.
fn gone(removed: Result<Value>) -> Result<()> {
    match removed {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

fn json_body(answer: &Answer) -> Result<Value, String> {
    answer.json()
}

fn record(answer: &Answer) -> Result<Record, String> {
    read(unwrapped(answer.json()?))
}

fn process(answer: &Answer) -> Result<Process, String> {
    read(unwrapped(answer.json()?))
}

fn service(answer: &Answer, name: Option<&str>) -> Result<Process, String> {
    named(unwrapped(answer.json()?), name)
}

fn services(answer: &Answer) -> Result<Vec<Process>, String> {
    let all = listed(answer.json()?, &["data", "services", "items"]);
    all.into_iter().map(|it| named(it, None)).collect()
}

fn files(answer: &Answer) -> Result<Vec<FileRecord>, String> {
    let all = listed(answer.json()?, &["files", "data", "entries"]);
    all.into_iter().map(read).collect()
}

fn file(answer: &Answer) -> Result<FileRecord, String> {
    read(unwrapped(answer.json()?))
}

fn ran(answer: &Answer) -> Result<Ran, String> {
    read(unwrapped(answer.json()?))
}

fn processes(answer: &Answer) -> Result<Vec<Process>, String> {
    let all = listed(answer.json()?, &["data", "processes", "items"]);
    all.into_iter().map(read).collect()
}

/// The records of a page, and how many there are in all.
fn page_of(answer: &Answer) -> Result<(Vec<Record>, Option<usize>), String> {
    let body: Value = answer.json()?;
    let total = body["page"]["total"].as_u64();
    let all = listed(body, &["data", "sandboxes", "items"]);
    let all: Result<Vec<_>, _> = all.into_iter().map(read).collect();
    Ok((all?, total.and_then(|total| total.try_into().ok())))
}
