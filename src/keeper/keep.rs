//! The keeper's process: encloses the sandbox, starts the supervisor, and starts it again whenever it
//! dies. Ends when the supervisor has ended as it was told to, and then nothing of the sandbox is left.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitOptions, getrlimit, setrlimit};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::children::Children;
use super::folder::{Folder, Settings};
use super::init::Init;
use super::os;
use super::program::Terms;
use super::signals::{Signals, is_readable, sleep};
use super::wire::{Channel, Hello};
use crate::model::IsolationWish;

/// What the supervisor inherits, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inherited {
    /// Speaks of children: [`super::Keeper`].
    pub children: i32,
    /// Speaks of the supervisor itself.
    pub control: i32,
    /// The API's socket, listening.
    pub listener: i32,
    /// The log engine's pipe, its reading and its writing end.
    pub stage: (i32, i32),
    /// The log engine's journal.
    pub journal: i32,
    /// A TCP socket for the API, listening.
    #[serde(default)]
    pub tcp: Option<i32>,
}

/// What a supervisor needs to serve the API over TCP.
#[derive(Debug)]
pub struct Remote {
    /// A TCP socket that listens.
    pub socket: OwnedFd,
    /// The variable that the supervisor finds the clients' token in, and the token.
    pub token: (&'static str, SecretString),
}

/// What a supervisor tells the keeper about itself.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Control {
    /// It serves.
    Ready,
    /// It is about to end, and its successor is to be this program.
    Upgrade { program: PathBuf },
}

/// Why a keeper ended otherwise than it was told to.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// One at a time.
    #[error("another keeper runs this sandbox: {0}")]
    Taken(PathBuf),
    /// There is nothing to keep.
    #[error("there is no sandbox in {0}")]
    NoSandbox(PathBuf),
    /// `isolation: strict` cannot be had.
    #[error("the sandbox asks for strict isolation, which cannot be had here: {0}")]
    NoIsolation(String),
    /// The supervisor ended before it served; its own log says why.
    #[error("the supervisor did not come up")]
    NoSupervisor,
    /// The processes of the sandbox are gone all at once.
    #[error("the sandbox's first process was killed")]
    InitDied,
    /// A system call failed.
    #[error("{0}: {1}")]
    Io(&'static str, #[source] io::Error),
}

pub(super) fn at(what: &'static str) -> impl Fn(io::Error) -> KeepError {
    move |error| KeepError::Io(what, error)
}

/// Keeps the sandbox in `dir` until its supervisor ends in order.
pub(super) fn run(dir: &Path, remote: Option<Remote>) -> Result<(), KeepError> {
    let mut folder = Folder::take(dir)?;
    let settings = folder
        .settings()
        .map_err(at("sandbox.json cannot be read"))?;
    os::adopt_orphans().map_err(at("orphans cannot be adopted"))?;
    let signals = Signals::new().map_err(at("signals"))?;
    let files = getrlimit(Resource::Nofile);
    let listener = folder.bind().map_err(at("the socket cannot be bound"))?;
    let (stage_reader, stage_writer) = io::pipe().map_err(at("a pipe"))?;
    let journal = os::memory_file().map_err(at("a file in memory"))?;
    let (init, hello) = enclose(&settings, files)?;
    raise_file_limit(files);
    os::hide_memory();
    let children = match &init {
        Some(_) => None,
        None => {
            let strict = false;
            Some(Children::new(hello, Terms { files, strict }).map_err(at("children"))?)
        }
    };
    let mut keeper = Keeper {
        folder,
        signals,
        listener: listener.into(),
        stage: (stage_reader.into(), stage_writer.into()),
        journal,
        remote,
        init,
        children,
        supervisor: None,
        program: None,
        failures: 0,
        was_ready: false,
        told_to_end: 0,
    };
    let ended = keeper.keep();
    keeper.end();
    ended
}

/// Namespaces for the services, as far as they are wanted and can be had.
fn enclose(settings: &Settings, files: Rlimit) -> Result<(Option<Init>, Hello), KeepError> {
    let mut hello = Hello {
        version: super::version().to_owned(),
        pid: std::process::id(),
        run: format!("{:016x}", fastrand::u64(..)),
        strict: true,
        reason: None,
    };
    if settings.wish != IsolationWish::None {
        match Init::start(&settings.walls, hello.clone(), files) {
            Ok(init) => return Ok((Some(init), hello)),
            Err(error) if settings.wish == IsolationWish::Strict => {
                return Err(KeepError::NoIsolation(error.to_string()));
            }
            Err(error) => {
                tracing::info!(%error, "no strict isolation");
                hello.reason = Some(error.to_string());
            }
        }
    }
    hello.strict = false;
    Ok((None, hello))
}

/// Every child takes a few descriptors, and the usual soft limit of 1,024 is soon reached.
pub(super) fn raise_file_limit(now: Rlimit) {
    let raised = Rlimit {
        current: now.maximum,
        maximum: now.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// A running supervisor.
struct Supervisor {
    pid: Pid,
    control: Channel,
    since: Instant,
    ready: bool,
}

struct Keeper {
    folder: Folder,
    signals: Signals,
    listener: OwnedFd,
    stage: (OwnedFd, OwnedFd),
    journal: OwnedFd,
    remote: Option<Remote>,
    /// Number 1 of the namespaces, where there are some; it has the children then.
    init: Option<Init>,
    children: Option<Children>,
    supervisor: Option<Supervisor>,
    /// The program to start as supervisor; `None`: this one.
    program: Option<PathBuf>,
    /// Supervisors in a row that did not come to serve.
    failures: u32,
    /// Whether any supervisor has served yet.
    was_ready: bool,
    /// How often it was told to end.
    told_to_end: u32,
}

impl Keeper {
    fn keep(&mut self) -> Result<(), KeepError> {
        loop {
            if self.supervisor.is_none() {
                self.start_supervisor()?;
            }
            self.wait().map_err(at("poll"))?;
            if self.signals.told_to_end() {
                self.pass_on_end();
            }
            if self.signals.any() {
                if self.init.as_ref().is_some_and(Init::has_ended) {
                    // Its number may be somebody else's from here on.
                    self.init = None;
                    return Err(KeepError::InitDied);
                }
                if let Some(children) = &mut self.children {
                    children.ended();
                }
                if self.supervisor_ended()? {
                    return Ok(());
                }
            }
            self.listen_to_supervisor();
            if let Some(children) = &mut self.children {
                if children.exits().is_some_and(is_readable) {
                    children.ended();
                }
                children.converse();
                let supervisor = self
                    .supervisor
                    .as_ref()
                    .map(|s| s.pid.as_raw_nonzero().get());
                let supervisor = supervisor.and_then(|pid| u32::try_from(pid).ok());
                children.tidy(supervisor.as_slice());
            }
        }
    }

    /// Sleeps until there is something to do.
    fn wait(&self) -> io::Result<()> {
        let mut waited = vec![PollFd::new(&self.signals.reader, PollFlags::IN)];
        if let Some(supervisor) = &self.supervisor {
            waited.push(PollFd::from_borrowed_fd(
                supervisor.control.as_fd(),
                PollFlags::IN,
            ));
        }
        let children = self.children.as_ref();
        if let Some((socket, full)) = children.and_then(Children::channel) {
            let mut flags = PollFlags::IN;
            flags.set(PollFlags::OUT, full);
            waited.push(PollFd::from_borrowed_fd(socket, flags));
        }
        if let Some(exits) = children.and_then(Children::exits) {
            waited.push(PollFd::from_borrowed_fd(exits, PollFlags::IN));
        }
        sleep(&mut waited, children.and_then(Children::patience))
    }

    fn start_supervisor(&mut self) -> Result<(), KeepError> {
        self.pause_after_failures();
        let (ours, theirs) = Channel::pair().map_err(at("a socket"))?;
        let (control, their_control) = Channel::pair().map_err(at("a socket"))?;
        match (&mut self.init, &mut self.children) {
            (Some(init), _) => init.connect(ours).map_err(at("the first process"))?,
            (None, Some(children)) => children.connect(ours).map_err(at("children"))?,
            (None, None) => {}
        }
        let pid = match self.execute(&theirs, &their_control) {
            Ok(pid) => pid,
            Err(error) if self.program.take().is_some() => {
                tracing::error!(%error, "the new program cannot be executed; goes on with the old one");
                self.execute(&theirs, &their_control)
                    .map_err(at("the supervisor"))?
            }
            Err(error) => return Err(KeepError::Io("the supervisor", error)),
        };
        self.supervisor = Some(Supervisor {
            pid,
            control: Channel::new(control).map_err(at("a socket"))?,
            since: Instant::now(),
            ready: false,
        });
        Ok(())
    }

    /// A supervisor that cannot come up is tried again, but does not take all of the machine.
    fn pause_after_failures(&self) {
        if self.failures > 2 {
            let pause = Duration::from_millis(100) * 2_u32.pow(self.failures.min(8) - 2);
            std::thread::sleep(pause.min(Duration::from_secs(5)));
        }
    }

    fn execute(&self, children: &OwnedFd, control: &OwnedFd) -> io::Result<Pid> {
        let mut inherited = vec![
            children.as_fd(),
            control.as_fd(),
            self.listener.as_fd(),
            self.stage.0.as_fd(),
            self.stage.1.as_fd(),
            self.journal.as_fd(),
        ];
        inherited.extend(self.remote.as_ref().map(|remote| remote.socket.as_fd()));
        let numbers = Inherited {
            children: children.as_raw_fd(),
            control: control.as_raw_fd(),
            listener: self.listener.as_raw_fd(),
            stage: (self.stage.0.as_raw_fd(), self.stage.1.as_raw_fd()),
            journal: self.journal.as_raw_fd(),
            tcp: self.remote.as_ref().map(|remote| remote.socket.as_raw_fd()),
        };
        let own = Path::new("/proc/self/exe");
        let own = if own.exists() {
            own.to_owned()
        } else {
            std::env::current_exe()?
        };
        let mut command = Command::new(self.program.as_ref().unwrap_or(&own));
        command
            .arg0("gabion")
            .arg("supervise")
            .arg(self.folder.dir())
            .arg("--inherited")
            .arg(serde_json::to_string(&numbers)?)
            .stdin(Stdio::null());
        if let Some(Remote { token, .. }) = &self.remote {
            command.env(token.0, token.1.expose_secret());
        }
        if self.was_ready {
            // Nobody waits for the word that it serves.
            command.stdout(Stdio::null());
        }
        let parent = rustix::process::getpid();
        let strict = self.init.is_some();
        let inherited: Vec<_> = inherited.iter().map(|fd| fd.as_raw_fd()).collect();
        // SAFETY: the closure runs between fork and exec and only makes system calls.
        unsafe {
            command.pre_exec(move || {
                os::close_others_on_exec()?;
                for number in &inherited {
                    let kept = BorrowedFd::borrow_raw(*number);
                    rustix::io::fcntl_setfd(kept, rustix::io::FdFlags::empty())?;
                }
                match strict {
                    true => os::die_with_parent(parent),
                    // It has the processes to kill that the kernel does not.
                    false => Ok(()),
                }
            });
        }
        let child = command.spawn()?;
        i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn listen_to_supervisor(&mut self) {
        let Some(supervisor) = &mut self.supervisor else {
            return;
        };
        // Its end is seen by its being a child.
        let _ = supervisor.control.fill();
        while let Ok(Some((control, _))) = supervisor.control.next() {
            match control {
                Control::Ready => {
                    supervisor.ready = true;
                    self.failures = 0;
                    if !std::mem::replace(&mut self.was_ready, true) {
                        let_go_of_stdout();
                        os::give_back_memory();
                    }
                }
                Control::Upgrade { program } => self.program = Some(program),
            }
        }
    }

    /// Sees to a supervisor that has ended. Whether that was in order, and all is over.
    fn supervisor_ended(&mut self) -> Result<bool, KeepError> {
        let Some(supervisor) = &self.supervisor else {
            return Ok(false);
        };
        let (pid, since) = (supervisor.pid, supervisor.since);
        let Ok(Some((_, status))) = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG) else {
            return Ok(false);
        };
        self.listen_to_supervisor();
        let ready = self
            .supervisor
            .take()
            .is_some_and(|supervisor| supervisor.ready);
        if status.exit_status() == Some(0) {
            return Ok(true);
        }
        if self.told_to_end > 0 {
            return Ok(true);
        }
        if !ready {
            if !self.was_ready {
                return Err(KeepError::NoSupervisor);
            }
            if !self.folder.is_there() {
                // There is nothing left to supervise.
                return Ok(true);
            }
            self.failures = self.failures.saturating_add(1);
            if let Some(program) = self.program.take() {
                tracing::error!(program = %program.display(), "it does not come up; goes on with the old one");
            }
        }
        let lived = since.elapsed().as_millis();
        tracing::warn!(
            ?status,
            lived_ms = lived,
            "the supervisor has died; starts another"
        );
        Ok(false)
    }

    /// Told to end: tells the supervisor, which stops the services first. One that does not listen is
    /// not waited for.
    fn pass_on_end(&mut self) {
        const PATIENCE: u32 = 2;
        self.told_to_end += 1;
        let Some(supervisor) = &self.supervisor else {
            return;
        };
        let signal = match self.told_to_end > PATIENCE {
            true => Signal::KILL,
            false => Signal::TERM,
        };
        let _ = rustix::process::kill_process(supervisor.pid, signal);
    }

    /// Leaves nothing of the sandbox behind.
    fn end(&mut self) {
        if let Some(supervisor) = self.supervisor.take() {
            let _ = rustix::process::kill_process(supervisor.pid, Signal::KILL);
            let _ = rustix::process::waitpid(Some(supervisor.pid), WaitOptions::empty());
        }
        if let Some(init) = self.init.take() {
            init.kill();
        }
        if let Some(children) = &self.children {
            children.kill();
            os::kill_children();
        }
        self.folder.unbind();
    }
}

/// Lets go of the pipe to whoever started the sandbox.
pub(super) fn let_go_of_stdout() {
    if let Ok(null) = File::options().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}
