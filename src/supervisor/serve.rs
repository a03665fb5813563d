//! The supervisor's process: takes the folder, clears what an earlier one left, serves, brings
//! services back, and stops them when told to.

use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use axum::serve::Listener;
use futures_util::future::select_all;
use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::api;
use super::folder::FolderWatch;
use super::launch::READY;
use super::logs::{Kept, LogEngine};
use super::os::{self, SocketPath};
use super::sandbox::Sandbox;
use super::spawn::Base;
use super::store::Store;

/// How long open connections are given to take their last answer.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Why a supervisor ended otherwise than it was told to.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServeError {
    #[error("another supervisor runs this sandbox: {0}")]
    Taken(std::path::PathBuf),
    #[error("there is no sandbox in {0}")]
    NoSandbox(std::path::PathBuf),
    #[error("{0}: {1}")]
    Io(&'static str, #[source] io::Error),
}

fn at(what: &'static str) -> impl Fn(io::Error) -> ServeError {
    move |error| ServeError::Io(what, error)
}

/// Runs until SIGTERM, SIGINT, a shutdown request or the end of its folder. To be called on the main thread, which must
/// outlive every service: the kernel kills a service when the thread that forked it ends.
pub(super) fn run(dir: &Path) -> Result<(), ServeError> {
    let store = Store::at(dir).map_err(at("the sandbox's folder cannot be used"))?;
    let missing = || ServeError::NoSandbox(store.dir().to_owned());
    // Not even a lock is left in a folder that is not a sandbox's.
    if !store.has_sandbox() {
        return Err(missing());
    }
    let lock = store.lock().map_err(at("the lock cannot be taken"))?;
    let Some(_lock) = lock else {
        return Err(ServeError::Taken(store.dir().to_owned()));
    };
    // Removed while the lock was waited for or taken.
    if !store.has_sandbox() {
        return Err(missing());
    }
    store
        .prepare()
        .map_err(at("the sandbox's folder cannot be used"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(8)
        .build()
        .map_err(at("the runtime cannot be built"))?;
    runtime.block_on(supervise(store))
}

async fn supervise(store: Store) -> Result<(), ServeError> {
    os::adopt_orphans().map_err(at("orphans cannot be adopted"))?;
    let mut children = signal(SignalKind::child()).map_err(at("signals"))?;
    tokio::spawn(async move {
        while children.recv().await.is_some() {
            os::reap_strays();
        }
    });
    let mut ends = EndSignals::new().map_err(at("signals"))?;
    kill_leftovers(&store)
        .await
        .map_err(at("processes of an earlier supervisor"))?;
    let base = base(&store).map_err(at("sandbox.json cannot be read"))?;
    raise_file_limit();
    let socket = SocketPath::open(store.dir()).map_err(at("the sandbox's folder"))?;
    let listener = bind(socket.path()).map_err(at("the socket cannot be bound"))?;
    let folder =
        FolderWatch::new(store.dir()).map_err(at("the sandbox's folder cannot be watched"))?;
    let kept = Kept::new().map_err(at("the logs"))?;
    let logs = LogEngine::start(store.dir(), kept).map_err(at("the logs"))?;
    let sandbox = Sandbox::new(store, base, logs);
    sandbox
        .load()
        .map_err(at("the definitions cannot be read"))?;
    let closed = sandbox.closed.clone();
    let serving = axum::serve(Guarded(listener), api::router(sandbox.clone()))
        .with_graceful_shutdown(async move { closed.cancelled().await });
    let serving = tokio::spawn(serving.into_future());
    tell_ready();
    sandbox.bring_back();
    tracing::info!(pid = std::process::id(), "serves");
    tokio::select! {
        () = ends.next() => {}
        () = sandbox.closed.cancelled() => {}
        () = folder.lost() => {
            tracing::warn!("the sandbox's folder or its socket is gone");
        }
    }
    tokio::select! {
        () = sandbox.halt() => {}
        () = ends.next() => {
            tracing::warn!("told to end once more, kills what is left");
            sandbox.kill().await;
        }
    }
    if let Err(error) = os::kill_strays().await {
        tracing::warn!(%error, "cannot look for what services have left");
    }
    // From here on nobody can connect, so a client takes this supervisor for gone.
    if folder.is_there() {
        let _ = std::fs::remove_file(socket.path());
    }
    sandbox.closed.cancel();
    let _ = tokio::time::timeout(LAST_ANSWERS, serving).await;
    tracing::info!("ends");
    Ok(())
}

/// The signals that tell a supervisor to end.
struct EndSignals([Signal; 4]);

impl EndSignals {
    fn new() -> io::Result<Self> {
        Ok(Self([
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
            signal(SignalKind::quit())?,
        ]))
    }

    /// Returns with the next one of them. Cancel-safe.
    async fn next(&mut self) {
        select_all(self.0.iter_mut().map(|signal| Box::pin(signal.recv()))).await;
    }
}

/// Every service takes a few descriptors, and the usual soft limit of 1,024 is soon reached.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    ) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// What a supervisor that was killed has left running is killed too: nobody reads its output any
/// more, and its successor starts it anew.
pub(super) async fn kill_leftovers(store: &Store) -> io::Result<()> {
    let Ok(boot_id) = os::boot_id() else {
        return Ok(());
    };
    for (name, running) in store.running()? {
        if running.boot_id == boot_id {
            tracing::warn!(service = %name, pid = running.pid, "clears a process left behind");
            os::kill_session(running.pid, running.start_time).await?;
        }
    }
    Ok(())
}

/// What every service gets. The one place that reads the supervisor's own environment.
pub(super) fn base(store: &Store) -> io::Result<Base> {
    let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let own = nix::unistd::User::from_uid(nix::unistd::Uid::effective())
        .ok()
        .flatten();
    let (user, home) = match own {
        Some(own) => (own.name, own.dir.to_string_lossy().into_owned()),
        None => (String::new(), String::new()),
    };
    let or = |value: String, otherwise: &str| match value.is_empty() {
        true => otherwise.to_owned(),
        false => value,
    };
    Ok(Base {
        path: var("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".to_owned()),
        home: var("HOME").unwrap_or_else(|| or(home, "/")),
        user: or(user, "nobody"),
        lang: var("LANG").unwrap_or_else(|| "C.UTF-8".to_owned()),
        workspace: store.workspace()?,
        file_limit: rustix::process::getrlimit(rustix::process::Resource::Nofile),
    })
}

/// The lock is held, so a socket that is there belongs to nobody.
fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Tells the launcher, which waits for this line, and lets go of the pipe to it.
fn tell_ready() {
    let mut stdout = io::stdout();
    // A launcher that has gone does not matter.
    let _ = writeln!(stdout, "{READY}").and_then(|()| stdout.flush());
    if let Ok(null) = std::fs::File::options().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}

/// Lets only the sandbox's owner and root in.
struct Guarded(UnixListener);

impl Listener for Guarded {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (UnixStream, SocketAddr) {
        let own = rustix::process::geteuid().as_raw();
        loop {
            match self.0.accept().await {
                Ok((stream, address)) => match stream.peer_cred() {
                    Ok(peer) if peer.uid() == own || peer.uid() == 0 => return (stream, address),
                    Ok(peer) => tracing::warn!(uid = peer.uid(), "a stranger was turned away"),
                    Err(error) => tracing::debug!(%error, "a client went before it was let in"),
                },
                Err(error) => {
                    // Out of descriptors, most likely: others are freed meanwhile.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}
