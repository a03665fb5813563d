//! The services: iris §4 and its extensions. Every route asks the owner of the service and shows
//! what it published.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::openapi::{Operation, Routes};
use super::request::{self, Name, Params, Payload, find, service_name};
use super::{Answer, DELETED, Deleted, Shared, start};
use crate::supervisor::input::Given;
use crate::supervisor::owner::{Control, Refusal};
use crate::supervisor::sandbox::Handle;
use crate::supervisor::signal;
use crate::supervisor::wire::{self, ServiceObject};

const TAG: &str = "services";

pub(super) fn add(routes: Routes) -> Routes {
    let operation = |id, summary| Operation::new(id, TAG, summary);
    let about_one = |id, summary| {
        operation(id, summary)
            .error(400, "The name cannot be one of a service")
            .error(404, "There is no such service")
    };
    let routes = routes
        .get(
            "/v1/services",
            list,
            operation("listServices", "Every service, by name")
                .answer::<Vec<ServiceObject>>(200, "The services"),
        )
        .get(
            "/v1/services/{name}",
            show,
            about_one("getService", "One service, now or as soon as it changes")
                .query::<Poll>()
                .answer::<ServiceObject>(200, "The service"),
        )
        .put(
            "/v1/services/{name}",
            define,
            operation("putService", "Store a definition")
                .text("A full replacement. A live process goes on as it is; nothing is started.")
                .body::<DefinitionBody>()
                .answer::<ServiceObject>(200, "Stored")
                .error(
                    400,
                    "A field is wrong, or the needs would close a cycle (`dependency_cycle`)",
                )
                .error(409, "The service is being deleted")
                .error(413, "The body is too large")
                .error(500, "The definition could not be stored"),
        )
        .delete(
            "/v1/services/{name}",
            delete,
            about_one("deleteService", "Stop and remove a service; its log stays")
                .answer::<Deleted>(200, "Its processes are gone")
                .error(500, "The definition could not be removed"),
        );
    add_controls(routes, about_one)
}

fn add_controls(
    routes: Routes,
    about_one: impl Fn(&'static str, &'static str) -> Operation,
) -> Routes {
    start::add(routes, &about_one)
        .post(
            "/v1/services/{name}/stop",
            stop,
            about_one("stopService", "Stop a service until it is started again")
                .answer::<ServiceObject>(200, "Its processes are gone"),
        )
        .post(
            "/v1/services/{name}/restart",
            restart,
            about_one("restartService", "Stop and start a service")
                .body::<SecretsBody>()
                .answer::<ServiceObject>(200, "It is ready again")
                .error(409, "It was stopped meanwhile, or a need did not start")
                .error(500, "`start_failed`")
                .error(504, "`health_timeout`"),
        )
        .post(
            "/v1/services/{name}/signal",
            send_signal,
            about_one(
                "signalService",
                "Send a signal to a service's process group",
            )
            .body::<SignalBody>()
            .answer::<ServiceObject>(200, "It was sent")
            .error(400, "There is no such signal")
            .error(409, "`not_running`"),
        )
        .post(
            "/v1/services/{name}/stdin",
            stdin,
            about_one("writeServiceStdin", "Write to a service's standard input")
                .text("Only where the definition says `stdin_open`.")
                .body::<StdinBody>()
                .answer::<ServiceObject>(200, "The process's end of the pipe has it all")
                .error(
                    409,
                    "`not_running`, its standard input is not open, or it has closed it",
                )
                .error(429, "It does not read what it was given before"),
        )
}

/// A definition (iris §4.2). `null`, `""`, `[]`, `{}`, `false` and 0 count as absent.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "describes what `wire::read_definition` reads")]
struct DefinitionBody {
    /// The executable; looked up in PATH if it has no slash. Or `command`.
    cmd: Option<String>,
    /// Its arguments.
    args: Option<Vec<String>>,
    /// A line for `/bin/sh -c`, instead of `cmd`.
    command: Option<String>,
    /// Variables over the base environment.
    env: Option<BTreeMap<String, String>>,
    /// Relative to the workspace.
    working_dir: Option<String>,
    /// The Unix user it runs as.
    user: Option<String>,
    /// A TCP port on loopback: ready once it accepts. Short for `health.tcp`.
    health_port: Option<u16>,
    /// What must be up first: names, or objects with `service` and `condition`.
    needs: Option<Vec<Value>>,
    /// Whether it runs in a container.
    container: Option<bool>,
    /// Whether its standard input is a pipe to write to, instead of empty.
    stdin_open: Option<bool>,
    /// The OCI image, with `container`.
    image: Option<String>,
    /// Values of the secrets that `env` names. Kept in memory only.
    secret_values: Option<BTreeMap<String, String>>,
    /// Everything else that a definition can say, as `definition` of a service object shows it.
    #[serde(flatten)]
    further: BTreeMap<String, Value>,
}

/// Values of secrets that are not known yet.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "describes what `request::secrets` reads")]
pub(super) struct SecretsBody {
    /// By name. Kept in memory only.
    secret_values: Option<BTreeMap<String, String>>,
}

/// A signal.
#[derive(Deserialize, JsonSchema)]
struct SignalBody {
    /// Its name, with or without `SIG`.
    signal: String,
}

/// What to write to a standard input.
#[derive(Deserialize, JsonSchema)]
pub(super) struct StdinBody {
    /// The text, written as it is: a line end is the sender's business.
    #[serde(default)]
    pub data: String,
    /// Whether the input ends after it.
    #[serde(default)]
    pub eof: bool,
}

impl StdinBody {
    pub(super) fn given(self) -> Given {
        Given {
            data: self.data.into_bytes(),
            eof: self.eof,
        }
    }
}

async fn list(State(api): Shared) -> Json<Value> {
    let handles = api.sandbox.handles();
    let objects: Vec<_> = handles
        .values()
        .map(|h| h.object.borrow().clone())
        .collect();
    Json(json!(
        objects.iter().map(|object| &**object).collect::<Vec<_>>()
    ))
}

#[derive(Deserialize, JsonSchema)]
struct Poll {
    /// Answer only once the object's `seq` is greater.
    after: Option<u64>,
    /// How long that is awaited; 30,000 without it.
    timeout_ms: Option<u64>,
}

/// With `after`, answers once the sequence number is greater, or with what there is at the timeout.
async fn show(
    State(api): Shared,
    Name(name): Name,
    Params(poll): Params<Poll>,
) -> Answer<Json<Value>> {
    let mut handle = find(&api.sandbox, &name)?;
    if let Some(after) = poll.after {
        let limit = Duration::from_millis(poll.timeout_ms.unwrap_or(30_000));
        tokio::select! {
            changed = handle.object.wait_for(|object| object.seq > after) => {
                changed.map_err(|_| Refusal::not_found(&name))?;
            }
            () = tokio::time::sleep(limit) => {}
            () = api.sandbox.closed.cancelled() => {}
        }
    }
    let object = handle.object.borrow().clone();
    Ok(Json(json!(*object)))
}

async fn define(
    State(api): Shared,
    Name(name): Name,
    Payload(body): Payload,
) -> Answer<Json<Value>> {
    let name = service_name(&name)?;
    let mut body = request::object(&body)?;
    let secrets = wire::take_secrets(&mut body).map_err(Refusal::invalid)?;
    let spec = wire::read_definition(&name, body).map_err(Refusal::invalid)?;
    // A task of its own, so that a definition is never stored without an owner.
    let defining = tokio::spawn(async move { api.sandbox.define(&name, spec, secrets).await });
    let defined = defining
        .await
        .map_err(|e| Refusal::internal(e.to_string()))?;
    let handle = defined?;
    Ok(shown(&handle))
}

async fn delete(State(api): Shared, Name(name): Name) -> Answer<Json<Deleted>> {
    find(&api.sandbox, &name)?.ask(Control::Delete).await?;
    Ok(DELETED)
}

async fn stop(State(api): Shared, Name(name): Name) -> Answer<Json<Value>> {
    let handle = find(&api.sandbox, &name)?;
    handle.ask(Control::Stop).await?;
    Ok(shown(&handle))
}

async fn restart(
    State(api): Shared,
    Name(name): Name,
    Payload(body): Payload,
) -> Answer<Json<Value>> {
    let handle = find(&api.sandbox, &name)?;
    let secrets = request::secrets(&body)?;
    let restart = |reply| Control::Restart { secrets, reply };
    handle.ask(restart).await?;
    Ok(shown(&handle))
}

async fn send_signal(
    State(api): Shared,
    Name(name): Name,
    Payload(body): Payload,
) -> Answer<Json<Value>> {
    let handle = find(&api.sandbox, &name)?;
    let SignalBody { signal: name } = request::shape(&body)?;
    let unknown = || Refusal::invalid(format!("`{name}` is not the name of a signal"));
    let signal = signal::by_name(&name).ok_or_else(unknown)?;
    let send = |reply| Control::Signal { signal, reply };
    handle.ask(send).await?;
    Ok(shown(&handle))
}

async fn stdin(
    State(api): Shared,
    Name(name): Name,
    Payload(body): Payload,
) -> Answer<Json<Value>> {
    let handle = find(&api.sandbox, &name)?;
    let given = request::shape::<StdinBody>(&body)?.given();
    handle.ask(|reply| Control::Input { given, reply }).await?;
    Ok(shown(&handle))
}

/// What the owner published, with the `ok` that every change is answered with.
pub(super) fn shown(handle: &Handle) -> Json<Value> {
    let mut body = json!(**handle.object.borrow());
    if let Value::Object(body) = &mut body {
        body.insert("ok".to_owned(), Value::Bool(true));
    }
    Json(body)
}
