//! Where the engine's socket is, found as the `docker` command finds it, then at the places where
//! rootless Docker and Podman keep theirs.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::engine::EngineError;

/// What decides where an engine is looked for. Handed in: this room does not read the environment.
#[derive(Debug, Clone, Default)]
pub struct EngineSettings {
    /// `DOCKER_HOST`.
    pub host: Option<String>,
    /// `DOCKER_CONTEXT`.
    pub context: Option<String>,
    /// `DOCKER_CONFIG`, the folder of the docker command's settings.
    pub config: Option<PathBuf>,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<PathBuf>,
}

impl EngineSettings {
    /// Reads the variables through `var`.
    pub fn from_vars(var: impl Fn(&str) -> Option<String>) -> Self {
        let var = |name: &str| var(name).filter(|value| !value.is_empty());
        Self {
            host: var("DOCKER_HOST"),
            context: var("DOCKER_CONTEXT"),
            config: var("DOCKER_CONFIG").map(PathBuf::from),
            home: var("HOME").map(PathBuf::from),
            runtime_dir: var("XDG_RUNTIME_DIR").map(PathBuf::from),
        }
    }
}

/// Where an engine may listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// A Unix socket.
    Unix(PathBuf),
    /// `host:port` on loopback, plain HTTP.
    Tcp(String),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// Where to look, in this order. Exactly one place if the user named it: another engine would have
/// other images and other containers.
pub(super) fn candidates(settings: &EngineSettings) -> Result<Vec<Address>, EngineError> {
    if let Some(host) = &settings.host {
        return Ok(vec![parse(host, "DOCKER_HOST")?]);
    }
    let config = settings.config.clone();
    let config = config.or_else(|| Some(settings.home.as_ref()?.join(".docker")));
    let context = settings.context.clone();
    let context = context.or_else(|| current_context(config.as_deref()?));
    if let Some(context) = context.filter(|name| name != "default") {
        let host = context_host(config.as_deref(), &context)?;
        return Ok(vec![parse(&host, &format!("docker context `{context}`"))?]);
    }
    let mut found = vec![PathBuf::from("/var/run/docker.sock")];
    if let Some(runtime) = &settings.runtime_dir {
        found.push(runtime.join("docker.sock"));
        found.push(runtime.join("podman/podman.sock"));
    }
    if let Some(home) = &settings.home {
        found.push(home.join(".docker/run/docker.sock"));
    }
    found.push(PathBuf::from("/run/podman/podman.sock"));
    Ok(found.into_iter().map(Address::Unix).collect())
}

fn parse(host: &str, said_by: &str) -> Result<Address, EngineError> {
    let refused = |why: &str| EngineError::Setting(format!("{said_by} is `{host}`: {why}"));
    let (scheme, rest) = host
        .split_once("://")
        .ok_or_else(|| refused("expected unix://PATH or tcp://127.0.0.1:PORT"))?;
    match scheme {
        "unix" if rest.starts_with('/') => Ok(Address::Unix(PathBuf::from(rest))),
        "unix" => Err(refused("the path of a socket starts with `/`")),
        "tcp" | "http" => {
            let address = rest.trim_end_matches('/');
            match is_loopback(address) {
                true => Ok(Address::Tcp(address.to_owned())),
                // Whoever reaches an engine is root on its machine, and plain HTTP shows everything.
                false => Err(refused("plain TCP is used on loopback only")),
            }
        }
        _ => Err(refused("only unix:// and tcp:// on loopback are supported")),
    }
}

fn is_loopback(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else {
        return false;
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let ip = host.parse::<std::net::IpAddr>();
    port.parse::<u16>().is_ok() && (host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback()))
}

fn current_context(config: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(rename = "currentContext")]
        current_context: Option<String>,
    }
    // The docker command takes a file that is missing or broken for one without a context, too.
    let text = std::fs::read(config.join("config.json")).ok()?;
    let config: Config = serde_json::from_slice(&text).ok()?;
    config.current_context.filter(|name| !name.is_empty())
}

fn context_host(config: Option<&Path>, context: &str) -> Result<String, EngineError> {
    #[derive(Deserialize)]
    struct Meta {
        #[serde(rename = "Endpoints")]
        endpoints: Endpoints,
    }
    #[derive(Deserialize)]
    struct Endpoints {
        docker: Endpoint,
    }
    #[derive(Deserialize)]
    struct Endpoint {
        #[serde(rename = "Host")]
        host: String,
    }
    let missing = || EngineError::Setting(format!("there is no docker context `{context}`"));
    let folder = hex(&Sha256::digest(context));
    let config = config.ok_or_else(missing)?;
    let path = config.join("contexts/meta").join(folder).join("meta.json");
    let text = std::fs::read(path).map_err(|_| missing())?;
    let meta: Meta = serde_json::from_slice(&text).map_err(|error| {
        EngineError::Setting(format!(
            "docker context `{context}` cannot be read: {error}"
        ))
    })?;
    Ok(meta.endpoints.docker.host)
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(host: &str) -> Result<Vec<Address>, EngineError> {
        candidates(&EngineSettings {
            host: Some(host.to_owned()),
            ..EngineSettings::default()
        })
    }

    #[test]
    fn docker_host_wins_and_is_checked() {
        let unix = host("unix:///run/x.sock").unwrap();
        assert_eq!(unix, [Address::Unix("/run/x.sock".into())]);
        for good in [
            "tcp://127.0.0.1:2375",
            "http://localhost:1/",
            "tcp://[::1]:2375",
        ] {
            assert!(
                matches!(host(good).unwrap()[..], [Address::Tcp(_)]),
                "{good}"
            );
        }
        for bad in [
            "/run/x.sock",
            "unix://x",
            "tcp://10.0.0.1:2375",
            "tcp://localhost",
            "ssh://a",
        ] {
            let error = host(bad).unwrap_err().to_string();
            assert!(
                error.contains("DOCKER_HOST is") && error.contains(bad),
                "{error}"
            );
        }
    }

    #[test]
    fn a_context_is_looked_up_like_docker_does() {
        let dir = tempfile::tempdir().unwrap();
        let settings = |context: Option<&str>| EngineSettings {
            context: context.map(str::to_owned),
            config: Some(dir.path().to_owned()),
            ..EngineSettings::default()
        };
        std::fs::write(
            dir.path().join("config.json"),
            r#"{"currentContext":"mine"}"#,
        )
        .unwrap();
        let error = candidates(&settings(None)).unwrap_err().to_string();
        assert_eq!(error, "there is no docker context `mine`");
        // The folder's name is the digest of the context's.
        let name = hex(&Sha256::digest("mine"));
        let meta = dir.path().join("contexts/meta").join(name);
        std::fs::create_dir_all(&meta).unwrap();
        let text = r#"{"Name":"mine","Endpoints":{"docker":{"Host":"unix:///m.sock"}}}"#;
        std::fs::write(meta.join("meta.json"), text).unwrap();
        let mine = [Address::Unix("/m.sock".into())];
        assert_eq!(candidates(&settings(None)).unwrap(), mine);
        assert_eq!(candidates(&settings(Some("mine"))).unwrap(), mine);
        assert_eq!(
            candidates(&settings(Some("default"))).unwrap()[0],
            Address::Unix("/var/run/docker.sock".into())
        );
    }

    #[test]
    fn the_usual_places_are_tried_in_order() {
        let settings = EngineSettings {
            home: Some("/home/me".into()),
            runtime_dir: Some("/run/user/7".into()),
            ..EngineSettings::default()
        };
        let found: Vec<_> = candidates(&settings).unwrap();
        let found: Vec<_> = found.iter().map(Address::to_string).collect();
        assert_eq!(
            found,
            [
                "/var/run/docker.sock",
                "/run/user/7/docker.sock",
                "/run/user/7/podman/podman.sock",
                "/home/me/.docker/run/docker.sock",
                "/run/podman/podman.sock",
            ]
        );
    }
}
