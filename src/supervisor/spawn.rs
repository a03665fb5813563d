//! From a definition to a command: program, environment, folder and user, each checked beforehand so
//! that an error says which one is wrong.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::unistd::{Gid, Uid, User};
use rustix::fs::Access;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, setrlimit};
use secrecy::{ExposeSecret, SecretString};
use tokio::process::Command;

use super::os;
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
    /// How many files they may open: what the supervisor itself was started with.
    pub file_limit: Rlimit,
}

/// Why a program could not be executed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpawnError {
    #[error(transparent)]
    Secret(#[from] MissingSecret),
    #[error("no container runtime")]
    Container,
    #[error("working_dir `{}` does not exist", .0.display())]
    NoFolder(PathBuf),
    #[error("working_dir `{}` is not a folder", .0.display())]
    NotAFolder(PathBuf),
    #[error(
        "`{user}` may not enter working_dir `{}`: \
         set `workspace` to a folder that {user} may use",
        dir.display()
    )]
    NoEntry { dir: PathBuf, user: String },
    #[error("it cannot be given a socket to notify: {0}")]
    Notify(io::Error),
    #[error("its identity cannot be noted in the sandbox's folder: {0}")]
    Note(io::Error),
    #[error("`{0}` was not found in PATH")]
    NotInPath(String),
    #[error("`{0}` does not exist")]
    NoProgram(String),
    #[error("`{0}`: permission denied")]
    Denied(String),
    #[error("`{0}` is not a program that this machine can execute")]
    BadFormat(String),
    #[error("there is no user `{0}`")]
    NoUser(String),
    #[error("running as `{0}` is not permitted: only root can change the user")]
    OtherUser(String),
    #[error("cannot look up user `{0}`: {1}")]
    User(String, io::Error),
    #[error("`{0}` cannot be executed: {1}")]
    Other(String, io::Error),
}

/// What the child says when it may not enter its folder: `EACCES` would be taken for one of the
/// program. That the folder is one was checked before.
const NO_ENTRY: Errno = Errno::NOTDIR;

/// The user to become.
#[derive(Debug, Clone)]
struct Identity {
    name: String,
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

/// Where the identity of a process is noted.
pub(super) struct Note {
    /// The file.
    pub file: CString,
    /// This boot of the machine.
    pub boot_id: String,
}

/// A program that was found executable by this definition. Holds secrets, so it cannot be printed.
#[derive(Clone)]
pub(super) struct Prepared {
    argv: Vec<String>,
    program: PathBuf,
    dir: PathBuf,
    env: BTreeMap<String, SecretString>,
    identity: Option<Identity>,
    file_limit: Rlimit,
}

impl Prepared {
    /// Checks everything that can be checked before the fork.
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
        let dir = base.workspace.join(relative);
        match dir.metadata() {
            Err(_) => return Err(SpawnError::NoFolder(dir)),
            Ok(found) if !found.is_dir() => return Err(SpawnError::NotAFolder(dir)),
            Ok(_) => {}
        }
        let prepared = Self {
            argv: Vec::new(),
            program: PathBuf::new(),
            dir,
            env,
            identity: user.map(identity).transpose()?.flatten(),
            file_limit: base.file_limit,
        };
        prepared.with_argv(spec.program.argv())
    }

    /// The same with more environment.
    pub(super) fn with_env(mut self, more: Vec<(&'static str, String)>) -> Self {
        let more = more.into_iter();
        self.env
            .extend(more.map(|(key, value)| (key.to_owned(), SecretString::from(value))));
        self
    }

    /// Another program with the same environment, folder and user.
    pub(super) fn with_argv(&self, argv: Vec<String>) -> Result<Self, SpawnError> {
        let cmd = argv.first().map_or("", String::as_str);
        let path = self.env.get("PATH").map_or("", |path| path.expose_secret());
        let program = find_program(cmd, path, &self.dir)?;
        Ok(Self {
            argv,
            program,
            ..self.clone()
        })
    }

    /// The command with this process's own standard streams, session and terminal.
    pub(super) fn attached(&self) -> Command {
        let mut command = std::process::Command::new(&self.program);
        command
            .args(self.argv.iter().skip(1))
            .env_clear()
            .current_dir(&self.dir);
        for (key, value) in &self.env {
            command.env(key, value.expose_secret());
        }
        Command::from(command)
    }

    /// The command: in a session of its own, killed by the kernel should this process end. With
    /// `note`, its identity is written into that file before it is executed, so that whatever it
    /// leaves behind can be found, at whatever moment the supervisor is killed.
    pub(super) fn command(&self, note: Option<Note>) -> Command {
        let mut command = std::process::Command::new(&self.program);
        let mut argv = self.argv.iter().map(OsString::from);
        if let Some(name) = argv.next() {
            command.arg0(name);
        }
        command.args(argv).env_clear().stdin(Stdio::null());
        for (key, value) in &self.env {
            command.env(key, value.expose_secret());
        }
        let parent = rustix::process::getpid();
        let dir = self.dir.clone();
        let identity = self.identity.clone();
        let file_limit = self.file_limit;
        // SAFETY: the closure runs between fork and exec. It only makes system calls, on values that
        // were allocated before the fork.
        unsafe {
            command.pre_exec(move || {
                rustix::process::setsid()?;
                os::close_others_on_exec()?;
                setrlimit(Resource::Nofile, file_limit)?;
                if let Some(note) = &note {
                    os::note_identity(&note.file, &note.boot_id)?;
                }
                if let Some(identity) = &identity {
                    os::set_groups(&identity.groups)?;
                    nix::unistd::setgid(identity.gid)?;
                    nix::unistd::setuid(identity.uid)?;
                }
                // As the user of the service, who has to find its way to its own files.
                match rustix::process::chdir(&dir) {
                    Err(Errno::ACCESS) => return Err(NO_ENTRY.into()),
                    other => other?,
                }
                os::die_with_parent(parent)
            });
        }
        Command::from(command)
    }

    /// What an error of `spawn` means.
    pub(super) fn error(&self, error: io::Error) -> SpawnError {
        let cmd = self.argv.first().cloned().unwrap_or_default();
        match error.kind() {
            _ if error.raw_os_error() == Some(NO_ENTRY.raw_os_error()) => {
                let user = self.identity.as_ref().map(|identity| identity.name.clone());
                SpawnError::NoEntry {
                    dir: self.dir.clone(),
                    user: user.unwrap_or_else(|| "this user".to_owned()),
                }
            }
            io::ErrorKind::PermissionDenied => SpawnError::Denied(cmd),
            io::ErrorKind::NotFound => SpawnError::Other(
                cmd,
                io::Error::other("it, or the interpreter it names, does not exist"),
            ),
            _ if error.raw_os_error() == Some(Errno::NOEXEC.raw_os_error()) => {
                SpawnError::BadFormat(cmd)
            }
            _ => SpawnError::Other(cmd, error),
        }
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
        uid: user.uid,
        gid: user.gid,
        groups,
    }))
}

fn find_program(cmd: &str, path: &str, dir: &Path) -> Result<PathBuf, SpawnError> {
    let executable = |file: &Path| rustix::fs::access(file, Access::EXEC_OK).is_ok();
    let is_file = |file: &Path| file.metadata().is_ok_and(|found| found.is_file());
    if cmd.contains('/') {
        let file = dir.join(cmd);
        return match file.metadata() {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(SpawnError::Denied(cmd.to_owned()))
            }
            Err(_) => Err(SpawnError::NoProgram(cmd.to_owned())),
            // Root may "execute" anything that has one execute bit; without any, exec refuses too.
            Ok(found) if !found.is_file() || found.mode() & 0o111 == 0 || !executable(&file) => {
                Err(SpawnError::Denied(cmd.to_owned()))
            }
            Ok(_) => Ok(file),
        };
    }
    let mut denied = false;
    for folder in path.split(':').filter(|folder| !folder.is_empty()) {
        let file = dir.join(folder).join(cmd);
        if !cmd.is_empty() && is_file(&file) {
            if executable(&file) {
                return Ok(file);
            }
            denied = true;
        }
    }
    Err(match denied {
        true => SpawnError::Denied(cmd.to_owned()),
        false => SpawnError::NotInPath(cmd.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Program;

    fn base(dir: &Path) -> Base {
        Base {
            path: "/usr/bin:/bin".into(),
            home: "/".into(),
            user: "me".into(),
            lang: "C".into(),
            workspace: dir.into(),
            file_limit: rustix::process::getrlimit(Resource::Nofile),
        }
    }

    fn spec(cmd: &str) -> ServiceSpec {
        ServiceSpec::new(Program::Exec {
            cmd: cmd.into(),
            args: Vec::new(),
        })
    }

    #[test]
    fn each_obstacle_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("plain"), "x").unwrap();
        let mut lost = spec("sh");
        lost.working_dir = Some("gone".into());
        let mut file = spec("sh");
        file.working_dir = Some("plain".into());
        let mut stranger = spec("sh");
        stranger.user = Some("no-such-user".into());
        let mut secret = spec("sh");
        secret.env.insert("A".into(), "${secret.x}".into());
        secret.secrets.insert("x".into(), "digest".into());
        let mut path = spec("sh");
        path.env.insert("PATH".into(), "/nowhere".into());
        for (spec, part) in [
            (spec("nodde"), "`nodde` was not found in PATH"),
            (spec("./nodde"), "`./nodde` does not exist"),
            (spec("./plain"), "`./plain`: permission denied"),
            (path, "`sh` was not found in PATH"),
            (lost, "gone` does not exist"),
            (file, "plain` is not a folder"),
            (stranger, "there is no user `no-such-user`"),
            (secret, "the value of secret `x` is not at hand"),
        ] {
            let error = Prepared::new(&spec, &Secrets::default(), &base(dir.path()));
            let error = error.err().unwrap().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
