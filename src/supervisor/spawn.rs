//! From a definition to what the keeper executes: program, environment, folder and user.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::unistd::{Gid, Uid, User};
use secrecy::{ExposeSecret, SecretString};

use super::cgroup::{Cgroup, Controller, SandboxCgroups};
use super::os;
use crate::keeper::{ChildId, Identity, Obstacle, Spawn, Stream};
use crate::model::{MissingSecret, Secrets, ServiceSpec};

/// What every service gets, whatever its definition says.
#[derive(Debug, Clone)]
pub(super) struct Base {
    /// Where programs are looked up.
    pub path: String,
    /// The supervisor's own home.
    pub home: String,
    /// The supervisor's own user.
    pub user: String,
    /// The language of messages.
    pub lang: String,
    /// The folder that services run in.
    pub workspace: PathBuf,
    /// The groups that limit them and hold them together.
    pub cgroups: SandboxCgroups,
}

/// Why a program could not be executed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpawnError {
    #[error(transparent)]
    Secret(#[from] MissingSecret),
    #[error("it runs in a container")]
    Container,
    #[error(transparent)]
    Obstacle(#[from] Obstacle),
    #[error("limit `files` is {0}, and this user may have at most {1}")]
    Files(u64, u64),
    #[error("its limits cannot be kept to: {0}")]
    Limits(#[source] io::Error),
    #[error("its output cannot be read: {0}")]
    Log(#[source] io::Error),
    #[error("its standard input cannot be opened: {0}")]
    Input(#[source] io::Error),
    #[error("the keeper does not answer: {0}")]
    Keeper(#[source] io::Error),
    #[error("it cannot be given a socket to notify: {0}")]
    Notify(#[source] io::Error),
    #[error("there is no user `{0}`")]
    NoUser(String),
    #[error("running as `{0}` is not permitted: only root can change the user")]
    OtherUser(String),
    #[error("cannot look up user `{0}`: {1}")]
    User(String, io::Error),
}

/// A definition with everything filled in. Holds secrets, so it cannot be printed.
#[derive(Clone)]
pub(super) struct Prepared {
    argv: Vec<String>,
    dir: PathBuf,
    env: BTreeMap<String, SecretString>,
    identity: Option<Identity>,
    files: Option<u64>,
    address_space: Option<u64>,
    cgroup: Option<Arc<Cgroup>>,
}

impl Prepared {
    /// Fills in secrets, the base environment and the user.
    pub(super) fn new(
        spec: &ServiceSpec,
        secrets: &Secrets,
        base: &Base,
    ) -> Result<Self, SpawnError> {
        if spec.container {
            return Err(SpawnError::Container);
        }
        let user = spec.user.as_deref().map(find_user).transpose()?;
        let mut env = BTreeMap::new();
        let (home, name) = match &user {
            Some(user) => (user.dir.to_string_lossy().into_owned(), user.name.clone()),
            None => (base.home.clone(), base.user.clone()),
        };
        for (key, value) in [
            ("PATH", base.path.clone()),
            ("HOME", home),
            ("USER", name),
            ("LANG", base.lang.clone()),
        ] {
            env.insert(key.to_owned(), SecretString::from(value));
        }
        env.extend(secrets.expand_env(spec)?);
        let relative = spec.working_dir.as_deref().unwrap_or(Path::new(""));
        Ok(Self {
            argv: spec.program.argv(),
            dir: base.workspace.join(relative),
            env,
            identity: user.map(identity).transpose()?.flatten(),
            files: file_limit(spec.limits.files)?,
            // Of each process by itself, where there is no group.
            address_space: spec
                .limits
                .memory
                .filter(|_| !base.cgroups.can(Controller::Memory)),
            cgroup: None,
        })
    }

    /// Another program with the same environment, folder and user.
    pub(super) fn with_argv(&self, argv: Vec<String>) -> Self {
        Self {
            argv,
            ..self.clone()
        }
    }

    /// The same with more environment.
    pub(super) fn with_env(mut self, more: Vec<(&'static str, String)>) -> Self {
        let more = more.into_iter();
        self.env
            .extend(more.map(|(key, value)| (key.to_owned(), SecretString::from(value))));
        self
    }

    /// The same in a group: everything that it starts is in it.
    pub(super) fn within(mut self, cgroup: Option<Arc<Cgroup>>) -> Self {
        self.cgroup = cgroup;
        self
    }

    /// Makes a request one for a process of the group. `given` are the descriptors that go with it.
    pub(super) fn enter(
        &self,
        request: &mut Spawn,
        given: &mut Vec<OwnedFd>,
    ) -> Result<(), SpawnError> {
        if let Some(cgroup) = &self.cgroup {
            let entries = cgroup.entry_fds().map_err(SpawnError::Limits)?;
            request.cgroups = entries.len();
            given.extend(entries);
            let birthplace = cgroup.birthplace();
            request.born = birthplace.is_some();
            given.extend(birthplace);
        }
        Ok(())
    }

    /// What the keeper is asked for.
    pub(super) fn spawn(&self, id: ChildId, key: String, streams: [Stream; 3]) -> Spawn {
        let env = self.env.iter();
        Spawn {
            id,
            key,
            note: None,
            argv: self.argv.clone(),
            env: env
                .map(|(name, value)| (name.clone(), value.expose_secret().to_owned()))
                .collect(),
            dir: self.dir.clone(),
            identity: self.identity.clone(),
            files: self.files,
            address_space: self.address_space,
            streams,
            tty: false,
            window: None,
            cgroups: 0,
            born: false,
        }
    }
}

/// How many files it may open, unless that is more than this user may give.
fn file_limit(wanted: Option<u64>) -> Result<Option<u64>, SpawnError> {
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    match (wanted, most) {
        (Some(wanted), Some(most)) if wanted > most && !Uid::effective().is_root() => {
            Err(SpawnError::Files(wanted, most))
        }
        _ => Ok(wanted),
    }
}

fn find_user(name: &str) -> Result<User, SpawnError> {
    let failed = |error: nix::Error| SpawnError::User(name.to_owned(), error.into());
    let by_name = User::from_name(name).map_err(failed)?;
    let found = match (by_name, name.parse().map(Uid::from_raw)) {
        (None, Ok(uid)) => User::from_uid(uid).map_err(failed)?,
        (found, _) => found,
    };
    found.ok_or_else(|| SpawnError::NoUser(name.to_owned()))
}

/// `None` if nothing has to change.
fn identity(user: User) -> Result<Option<Identity>, SpawnError> {
    let own = Uid::effective();
    if own == user.uid {
        return Ok(None);
    }
    if !own.is_root() {
        return Err(SpawnError::OtherUser(user.name));
    }
    let groups = os::groups_of(&user).map_err(|e| SpawnError::User(user.name.clone(), e))?;
    Ok(Some(Identity {
        name: user.name,
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        groups: groups.into_iter().map(Gid::as_raw).collect(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Program;

    fn base() -> Base {
        Base {
            path: "/usr/bin:/bin".into(),
            home: "/".into(),
            user: "me".into(),
            lang: "C".into(),
            workspace: "/".into(),
            cgroups: SandboxCgroups::none(),
        }
    }

    #[test]
    fn memory_is_limited_without_groups_too() {
        let mut spec = ServiceSpec::new(Program::Shell {
            command: "true".into(),
        });
        spec.limits.memory = Some(1 << 30);
        spec.limits.files = Some(9);
        let prepared = Prepared::new(&spec, &Secrets::default(), &base());
        let request = prepared
            .ok()
            .unwrap()
            .spawn(1, String::new(), [Stream::Null; 3]);
        assert_eq!(
            (request.address_space, request.files),
            (Some(1 << 30), Some(9))
        );
    }

    #[test]
    fn what_cannot_be_filled_in_is_named() {
        let base = base();
        let spec = ServiceSpec::new(Program::Exec {
            cmd: "sh".into(),
            args: Vec::new(),
        });
        let mut stranger = spec.clone();
        stranger.user = Some("no-such-user".into());
        let mut secret = spec.clone();
        secret.env.insert("A".into(), "${secret.x}".into());
        secret.secrets.insert("x".into(), "digest".into());
        for (spec, part) in [
            (stranger, "there is no user `no-such-user`"),
            (secret, "the value of secret `x` is not at hand"),
        ] {
            let error = Prepared::new(&spec, &Secrets::default(), &base);
            let error = error.err().unwrap().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
