//! From a definition to a running container: engine, image, container, start; or taking over the one
//! that an earlier supervisor has started.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, HealthConfig, HostConfig, HostConfigLogConfig,
    ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};
use bollard::query_parameters::{CreateContainerOptions, StartContainerOptions};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::engine::{Engine, EngineError};
use super::find::EngineSettings;
use super::output::{Sink, Told};
use super::place::{self, Place};
use super::process::{Container, remove, time};
use super::{program, pull};
use crate::model::{Health, Limits, Probe, ServiceKind, ServiceName, ServiceSpec};
use crate::supervisor::port;

/// What is to be started.
pub(in crate::supervisor) struct Order {
    /// Where engines are looked for.
    pub settings: EngineSettings,
    /// The sandbox's folder.
    pub dir: PathBuf,
    /// The service.
    pub name: ServiceName,
    /// The revision of its definition.
    pub revision: u64,
    /// Its definition.
    pub spec: ServiceSpec,
    /// Its environment, with secrets put in; an error if one is missing.
    pub env: Result<BTreeMap<String, SecretString>, String>,
    /// Whether a container of an earlier supervisor is taken over.
    pub adopt: Adopt,
    /// Told of new lines in its log.
    pub tick: watch::Sender<u64>,
}

/// Whether a container of an earlier supervisor is taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::supervisor) enum Adopt {
    /// It is removed.
    Never,
    /// It is, if it is what is wanted.
    IfThere,
    /// It is, and no other is made.
    Only,
}

/// Why a container was not started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::supervisor) struct StartError {
    /// The code of the protocol page iris, §3.
    pub code: &'static str,
    /// What happened.
    pub message: String,
    /// Whether another try may help.
    pub passing: bool,
    /// Whether it had been started, and is gone.
    pub lost: bool,
}

impl StartError {
    fn new(message: impl Into<String>) -> Self {
        Self {
            code: "start_failed",
            message: message.into(),
            passing: false,
            lost: false,
        }
    }

    fn passing(message: impl Into<String>) -> Self {
        Self {
            passing: true,
            ..Self::new(message)
        }
    }
}

impl From<EngineError> for StartError {
    fn from(error: EngineError) -> Self {
        match &error {
            EngineError::None(_) => Self::passing(format!("{error}; {}", EngineError::HINT)),
            EngineError::Broken(_) => Self::passing(error.to_string()),
            EngineError::Setting(_) | EngineError::Refused { .. } => Self::new(error.to_string()),
        }
    }
}

/// What has happened to a start.
#[derive(Debug)]
pub(in crate::supervisor) enum Step {
    /// It has come so far.
    Progress(String),
    /// It is done.
    Done(Result<Box<Container>, StartError>),
}

/// A start that is going on.
#[derive(Debug)]
pub(in crate::supervisor) struct Starting {
    progress: watch::Receiver<String>,
    task: JoinHandle<Result<Box<Container>, StartError>>,
    cancel: CancellationToken,
}

impl Starting {
    /// Begins a start.
    pub(in crate::supervisor) fn begin(order: Order) -> Self {
        let (told, progress) = watch::channel(String::new());
        let cancel = CancellationToken::new();
        let task = tokio::spawn(start(order, told, cancel.clone()));
        Self {
            progress,
            task,
            cancel,
        }
    }

    /// The next step. Cancel-safe. Not to be called after the last one.
    pub(in crate::supervisor) async fn next(&mut self) -> Step {
        tokio::select! {
            biased;
            Ok(()) = self.progress.changed() => Step::Progress(self.progress.borrow().clone()),
            done = &mut self.task => Step::Done(match done {
                Ok(done) => done,
                Err(error) => Err(StartError::new(format!("an internal error: {error}"))),
            }),
        }
    }

    /// Gives up what can be given up; a container that is about to start is still told of.
    pub(in crate::supervisor) fn cancel(&self) {
        self.cancel.cancel();
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

async fn start(
    order: Order,
    told: watch::Sender<String>,
    cancel: CancellationToken,
) -> Result<Box<Container>, StartError> {
    let preparing = async {
        let engine = Engine::connect(&order.settings).await?;
        let place = Place::of(&order.dir)
            .map_err(|error| StartError::new(format!("the sandbox's folder: {error}")))?;
        let name = place.container(&order.name);
        match old(&engine, &name).await? {
            Some(found) if order.adopt != Adopt::Never && is_same(&found, &order.spec) => {
                return Ok(Prepared::Adopted(Box::new(take_over(
                    engine, found, &order,
                )?)));
            }
            Some(_) => remove(&engine, &name).await?,
            None => {}
        }
        if order.adopt == Adopt::Only {
            return Err(StartError {
                lost: true,
                ..StartError::new("its container was removed")
            });
        }
        if order.spec.kind == ServiceKind::Service
            && let Some(message) = port::taken(&order.spec).await
        {
            return Err(StartError::passing(message));
        }
        let image = order.spec.image.as_deref().unwrap_or_default();
        pull::ensure(&engine, image, &told)
            .await
            .map_err(|error| StartError {
                code: "image_pull_failed",
                message: format!("`{image}` cannot be pulled: {error}"),
                passing: true,
                lost: false,
            })?;
        let body = body(&engine, &place, &order).await?;
        Ok(Prepared::New {
            engine,
            name,
            body: Box::new(body),
        })
    };
    let prepared = tokio::select! {
        prepared = preparing => prepared?,
        () = cancel.cancelled() => return Err(StartError::new("it was stopped")),
    };
    match prepared {
        Prepared::Adopted(container) => Ok(container),
        Prepared::New { engine, name, body } => {
            let (sink, told) = sink(&order);
            let id = create(&engine, &name, *body, &order.spec).await?;
            let found = engine.docker.inspect_container(&id, None).await;
            let state = found.map_err(EngineError::from)?.state.unwrap_or_default();
            Ok(Box::new(Container::watch(engine, id, &state, (sink, told))))
        }
    }
}

enum Prepared {
    /// One of an earlier supervisor.
    Adopted(Box<Container>),
    /// Everything is there to make one.
    New {
        engine: Engine,
        name: String,
        body: Box<ContainerCreateBody>,
    },
}

async fn old(engine: &Engine, name: &str) -> Result<Option<ContainerInspectResponse>, EngineError> {
    let found = engine.docker.inspect_container(name, None).await;
    match found.map_err(EngineError::from) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a container runs, or ran, what the definition says.
fn is_same(found: &ContainerInspectResponse, spec: &ServiceSpec) -> bool {
    let labels = found
        .config
        .as_ref()
        .and_then(|config| config.labels.as_ref());
    let digest = labels.and_then(|labels| labels.get(place::DEFINITION));
    let state = found.state.as_ref();
    let was_started = state.is_some_and(|state| time(state.started_at.as_deref()).is_some());
    was_started && digest == Some(&place::definition(spec))
}

fn take_over(
    engine: Engine,
    found: ContainerInspectResponse,
    order: &Order,
) -> Result<Container, StartError> {
    let state = found.state.unwrap_or_default();
    let id = found.id.unwrap_or_default();
    let (mut sink, told) = sink(order);
    if let Some(started) = time(state.started_at.as_deref()) {
        let resumed = sink.resume(&order.dir, &order.name, started);
        resumed.map_err(|error| StartError::new(format!("its log cannot be read: {error}")))?;
    }
    tracing::info!(service = %order.name, container = %id, "takes over its container");
    Ok(Container::watch(engine, id, &state, (sink, told)))
}

fn sink(order: &Order) -> (Sink, Told) {
    let looked_for = match &order.spec.health {
        Some(Health {
            probe: Probe::Log { contains },
            ..
        }) => Some(contains.clone()),
        _ => None,
    };
    Sink::new(&order.dir, &order.name, looked_for, order.tick.clone())
}

/// The container that a definition describes (protocol page iris, §4.5).
async fn body(
    engine: &Engine,
    place: &Place,
    order: &Order,
) -> Result<ContainerCreateBody, StartError> {
    let spec = &order.spec;
    let env = order.env.as_ref().map_err(StartError::new)?;
    let mut argv = spec.program.argv();
    let cmd = argv.split_off(argv.len().min(1));
    Ok(ContainerCreateBody {
        image: spec.image.clone(),
        entrypoint: Some(argv),
        cmd: Some(cmd),
        env: Some(
            env.iter()
                .map(|(key, value)| format!("{key}={}", value.expose_secret()))
                .collect(),
        ),
        user: spec.user.clone(),
        working_dir: working_dir(engine, spec).await?,
        labels: Some(place.labels(&order.name, order.revision, spec)),
        // Readiness is ours to find out.
        healthcheck: Some(HealthConfig {
            test: Some(vec!["NONE".to_owned()]),
            ..HealthConfig::default()
        }),
        host_config: Some(HostConfig {
            network_mode: Some("host".to_owned()),
            auto_remove: Some(false),
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::NO),
                ..RestartPolicy::default()
            }),
            // As a process: the program is not PID 1, which would ignore most signals.
            init: Some(true),
            log_config: Some(log_config(engine).await?),
            ..limits(&spec.limits)
        }),
        ..ContainerCreateBody::default()
    })
}

/// The bounds that the engine keeps it in.
fn limits(limits: &Limits) -> HostConfig {
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let memory = limits.memory.map(number);
    let files = limits.files.map(number).map(|files| ResourcesUlimits {
        name: Some("nofile".to_owned()),
        soft: Some(files),
        hard: Some(files),
    });
    HostConfig {
        memory,
        // No more by way of swapping.
        memory_swap: memory,
        nano_cpus: limits
            .cpu
            .map(|cores| i64::from(cores.millis()) * 1_000_000),
        pids_limit: limits.processes.map(i64::from),
        ulimits: files.map(|files| vec![files]),
        ..HostConfig::default()
    }
}

/// A log that can be read back, whatever the engine's default is, and that does not fill the disk.
async fn log_config(engine: &Engine) -> Result<HostConfigLogConfig, EngineError> {
    let version = engine.docker.version().await?;
    let components = version.components.unwrap_or_default();
    let podman = components.iter().any(|part| part.name.contains("Podman"));
    let bounded = [("max-size", "64m"), ("max-file", "2")];
    let bounded = bounded.map(|(key, value)| (key.to_owned(), value.to_owned()));
    Ok(HostConfigLogConfig {
        typ: Some("json-file".to_owned()),
        config: (!podman).then(|| bounded.into()),
    })
}

/// An absolute folder; a relative one is below the image's.
async fn working_dir(engine: &Engine, spec: &ServiceSpec) -> Result<Option<String>, EngineError> {
    let Some(dir) = &spec.working_dir else {
        return Ok(None);
    };
    if dir.is_absolute() {
        return Ok(Some(dir.to_string_lossy().into_owned()));
    }
    let image = spec.image.as_deref().unwrap_or_default();
    let image = engine.docker.inspect_image(image).await?;
    let base = image.config.and_then(|config| config.working_dir);
    let base = base.filter(|base| !base.is_empty());
    let joined = Path::new(base.as_deref().unwrap_or("/")).join(dir);
    Ok(Some(joined.to_string_lossy().into_owned()))
}

/// Makes and starts a container; nothing is left of one that cannot be started.
async fn create(
    engine: &Engine,
    name: &str,
    mut body: ContainerCreateBody,
    spec: &ServiceSpec,
) -> Result<String, StartError> {
    loop {
        let options = CreateContainerOptions {
            name: Some(name.to_owned()),
            ..CreateContainerOptions::default()
        };
        let created = engine
            .docker
            .create_container(Some(options), body.clone())
            .await;
        let id = created.map_err(|error| refused(error.into(), spec))?.id;
        if let Err(error) = program::check(engine, &id, spec).await {
            discard(engine, &id).await;
            return Err(StartError::new(error));
        }
        let started = engine
            .docker
            .start_container(&id, None::<StartContainerOptions>)
            .await;
        let error = match started {
            Ok(()) => return Ok(id),
            Err(error) => EngineError::from(error),
        };
        discard(engine, &id).await;
        let no_init =
            error.to_string().contains("docker-init") || error.to_string().contains("catatonit");
        match body
            .host_config
            .as_mut()
            .filter(|host| no_init && host.init == Some(true))
        {
            // An engine that was installed without its small init.
            Some(host) => host.init = None,
            None => return Err(refused(error, spec)),
        }
    }
}

async fn discard(engine: &Engine, id: &str) {
    if let Err(error) = remove(engine, id).await {
        tracing::warn!(container = %id, %error, "one that did not start is not removed");
    }
}

/// The engine's words, in ours where we know what they mean.
fn refused(error: EngineError, spec: &ServiceSpec) -> StartError {
    let EngineError::Refused { message, .. } = &error else {
        return error.into();
    };
    let (image, user) = (spec.image.as_deref(), spec.user.as_deref());
    let (image, user) = (image.unwrap_or_default(), user.unwrap_or_default());
    let no_user = ["unable to find user", "unable to find group"];
    StartError::new(match no_user.iter().any(|words| message.contains(words)) {
        true => format!("there is no user `{user}` in `{image}`"),
        false => message.clone(),
    })
}
