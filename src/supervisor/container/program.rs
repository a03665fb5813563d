//! Whether a program is in a container that was made but not started. The small init that starts it
//! would only tell by its own exit code, which a shell uses too.

use bollard::query_parameters::ContainerArchiveInfoOptions;

use super::engine::{Engine, EngineError};
use crate::model::ServiceSpec;

/// Where engines look where neither the image nor the definition says.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Go's bits for folders and symbolic links.
const FOLDER: u32 = 1 << 31;
const LINK: u32 = 1 << 27;

/// What is found under a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Executable,
    /// Something else.
    Denied,
    Nothing,
}

/// Says what is wrong with the program of `spec` in the container `id`.
pub(super) async fn check(engine: &Engine, id: &str, spec: &ServiceSpec) -> Result<(), String> {
    match find(engine, id, spec).await {
        Ok(found) => found,
        Err(error) => {
            // The start will tell.
            tracing::debug!(container = %id, %error, "its program is not looked for");
            Ok(())
        }
    }
}

async fn find(
    engine: &Engine,
    id: &str,
    spec: &ServiceSpec,
) -> Result<Result<(), String>, EngineError> {
    let argv = spec.program.argv();
    let cmd = argv.first().map_or("", String::as_str);
    let image = spec.image.as_deref().unwrap_or_default();
    let config = engine.docker.inspect_container(id, None).await?.config;
    let config = config.unwrap_or_default();
    let dir = config.working_dir.filter(|dir| !dir.is_empty());
    let dir = dir.as_deref().unwrap_or("/");
    if cmd.contains('/') {
        return Ok(match look(engine, id, dir, cmd).await? {
            Found::Executable => Ok(()),
            Found::Denied => Err(format!("`{cmd}`: permission denied in `{image}`")),
            Found::Nothing => Err(format!("`{cmd}` does not exist in `{image}`")),
        });
    }
    let env = config.env.unwrap_or_default();
    let path = env.iter().rev().find_map(|pair| pair.strip_prefix("PATH="));
    for folder in path
        .unwrap_or(PATH)
        .split(':')
        .filter(|folder| !folder.is_empty())
    {
        if look(engine, id, dir, &format!("{folder}/{cmd}")).await? == Found::Executable {
            return Ok(Ok(()));
        }
    }
    Ok(Err(format!("`{cmd}` was not found in PATH of `{image}`")))
}

async fn look(engine: &Engine, id: &str, dir: &str, path: &str) -> Result<Found, EngineError> {
    let path = std::path::Path::new(dir).join(path);
    let options = ContainerArchiveInfoOptions {
        path: path.to_string_lossy().into_owned(),
    };
    let told = engine.docker.get_container_archive_info(id, Some(options));
    match told.await.map_err(EngineError::from) {
        Ok(found) if found.file_mode & FOLDER != 0 => Ok(Found::Denied),
        // Where it leads to is the image's business.
        Ok(found) if found.file_mode & LINK != 0 => Ok(Found::Executable),
        Ok(found) if found.file_mode & 0o111 == 0 => Ok(Found::Denied),
        Ok(_) => Ok(Found::Executable),
        Err(error) if error.is_not_found() => Ok(Found::Nothing),
        Err(error) => Err(error),
    }
}
