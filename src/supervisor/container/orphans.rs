//! Containers that nobody drives any more: found by their labels and removed.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use bollard::models::ContainerSummary;
use bollard::query_parameters::ListContainersOptions;

use super::engine::{Engine, EngineError};
use super::find::EngineSettings;
use super::place::{self, Place};
use super::process::remove;
use crate::model::{SandboxName, ServiceName, ServiceSpec};

/// Removes every container of the sandbox kept in `dir`.
pub(in crate::supervisor) async fn clear_all(
    settings: &EngineSettings,
    dir: &Path,
) -> Result<(), EngineError> {
    clear_unwanted(settings, dir, &BTreeMap::new()).await
}

/// Removes every container of the sandbox kept in `dir` that does not run, or has not run, one of
/// the `wanted` definitions.
pub(in crate::supervisor) async fn clear_unwanted(
    settings: &EngineSettings,
    dir: &Path,
    wanted: &BTreeMap<ServiceName, ServiceSpec>,
) -> Result<(), EngineError> {
    let filters = Place::of(dir).map_err(folder)?.filters();
    let wanted: Vec<_> = wanted
        .iter()
        .map(|(name, spec)| (name.as_str(), place::definition(spec)))
        .collect();
    let keeps = |container: &ContainerSummary| {
        let label = |key: &str| container.labels.as_ref()?.get(key).cloned();
        let (name, definition) = (label(place::SERVICE), label(place::DEFINITION));
        wanted.iter().any(|(wanted, digest)| {
            name.as_deref() == Some(*wanted) && definition.as_ref() == Some(digest)
        })
    };
    clear(settings, filters, keeps).await
}

/// Removes every container of `stack` whose sandbox is not among `known`. `home` is the folder that
/// all stacks are in.
pub(in crate::supervisor) async fn clear_stack(
    settings: &EngineSettings,
    home: &Path,
    stack: &str,
    known: &[SandboxName],
) -> Result<(), EngineError> {
    let filters = place::filters_of_stack(home, stack).map_err(folder)?;
    let keeps = |container: &ContainerSummary| {
        let sandbox = container.labels.as_ref().and_then(place::sandbox_of);
        known.iter().any(|known| sandbox == Some(known.as_str()))
    };
    clear(settings, filters, keeps).await
}

/// Removes the container of one service, if there is one.
pub(in crate::supervisor) async fn remove_service(
    settings: &EngineSettings,
    dir: &Path,
    service: &ServiceName,
) -> Result<(), EngineError> {
    let place = Place::of(dir).map_err(folder)?;
    let engine = Engine::connect(settings).await?;
    remove(&engine, &place.container(service)).await
}

async fn clear(
    settings: &EngineSettings,
    labels: Vec<String>,
    keeps: impl Fn(&ContainerSummary) -> bool,
) -> Result<(), EngineError> {
    let engine = Engine::connect(settings).await?;
    let options = ListContainersOptions {
        all: true,
        filters: Some([("label".to_owned(), labels)].into()),
        ..ListContainersOptions::default()
    };
    let found = engine.docker.list_containers(Some(options)).await?;
    for container in found.iter().filter(|container| !keeps(container)) {
        let Some(id) = &container.id else { continue };
        let name = container.names.iter().flatten().next();
        tracing::warn!(
            container = name.unwrap_or(id),
            "clears a container left behind"
        );
        remove(&engine, id).await?;
    }
    Ok(())
}

fn folder(error: io::Error) -> EngineError {
    EngineError::Setting(format!("the sandbox's folder: {error}"))
}
