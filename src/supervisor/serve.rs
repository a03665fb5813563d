//! The supervisor's process: takes over from the one before, serves, brings services back, and stops them
//! when told to.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener as UnixListenerStd;
use std::path::Path;
use std::time::Duration;

use axum::serve::Listener;
use futures_util::future::select_all;
use secrecy::SecretString;
use tokio::net::unix::SocketAddr;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::api;
use super::attach;
use super::cgroup::Cgroups;
use super::checkpoint;
use super::container::{self, EngineSettings};
use super::files::Root;
use super::folder::FolderWatch;
use super::listen::{ListenError, serve_guarded, serve_until};
use super::logs::{Kept, LogEngine};
use super::os;
use super::owner::Inheritance;
use super::processes::{self, EntryNote};
use super::quiet::give_back_when_quiet;
use super::sandbox::{self, Sandbox};
use super::spawn::Base;
use super::store::Store;
use crate::keeper::{Child, Inherited, Keeper, READY, SOCKET, Superior, kill_group, one_arena};
use crate::model::{ServiceGoal, ServiceKind, ServiceName};

/// How long open connections are given to take their last answer.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Why a supervisor ended otherwise than it was told to.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServeError {
    #[error("the keeper was killed")]
    Orphaned,
    #[error("makes way for another program")]
    HandedOver,
    #[error("there is no sandbox in {0}")]
    NoSandbox(std::path::PathBuf),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("{0}: {1}")]
    Io(&'static str, #[source] io::Error),
}

fn at(what: &'static str) -> impl Fn(io::Error) -> ServeError {
    move |error| ServeError::Io(what, error)
}

/// Runs until SIGTERM, SIGINT, a shutdown request or the end of its folder.
pub(super) fn run(
    dir: &Path,
    inherited: &str,
    token: Option<SecretString>,
) -> Result<(), ServeError> {
    let inherited = Descriptors::take(inherited).map_err(at("what the keeper hands over"))?;
    let store = Store::at(dir).map_err(at("the sandbox's folder cannot be used"))?;
    if !store.has_sandbox() {
        return Err(ServeError::NoSandbox(store.dir().to_owned()));
    }
    let _lock = store.lock().map_err(at("the lock cannot be taken"))?;
    store
        .prepare()
        .map_err(at("the sandbox's folder cannot be used"))?;
    raise_file_limit();
    one_arena();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(8)
        .build()
        .map_err(at("the runtime cannot be built"))?;
    runtime.block_on(supervise(store, inherited, token))
}

/// What the keeper holds for its supervisors.
struct Descriptors {
    children: OwnedFd,
    control: OwnedFd,
    listener: UnixListenerStd,
    tcp: Option<std::net::TcpListener>,
    logs: Kept,
}

impl Descriptors {
    fn take(numbers: &str) -> io::Result<Self> {
        let numbers: Inherited = serde_json::from_str(numbers)?;
        let own = |number: i32| -> io::Result<OwnedFd> {
            if number < 3 {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            // SAFETY: the keeper has left them open for this process, once each, and nothing here has
            // opened or closed any descriptor yet.
            let owned = unsafe { OwnedFd::from_raw_fd(number) };
            rustix::io::fcntl_setfd(&owned, rustix::io::FdFlags::CLOEXEC)?;
            Ok(owned)
        };
        Ok(Self {
            children: own(numbers.children)?,
            control: own(numbers.control)?,
            listener: own(numbers.listener)?.into(),
            tcp: numbers.tcp.map(own).transpose()?.map(Into::into),
            logs: Kept {
                stage: (own(numbers.stage.0)?, own(numbers.stage.1)?),
                journal: own(numbers.journal)?,
            },
        })
    }
}

async fn supervise(
    store: Store,
    inherited: Descriptors,
    token: Option<SecretString>,
) -> Result<(), ServeError> {
    let mut ends = EndSignals::new().map_err(at("signals"))?;
    let keeper = Keeper::connect(inherited.children).await;
    let (keeper, mut legacy) = keeper.map_err(at("the keeper"))?;
    let superior = Superior::new(inherited.control).map_err(at("the keeper"))?;
    let engine = engine_settings();
    if legacy.notes.is_empty() && legacy.children.is_empty() {
        kill_leftovers(&store)
            .await
            .map_err(at("processes of an earlier keeper"))?;
        clear_containers(&store, &engine).await;
    }
    let rewound = checkpoint::is_interrupted(&store).map_err(at("restore.json"))?;
    if rewound {
        let ended = end(std::mem::take(&mut legacy.children)).await;
        ended.map_err(at("processes from before a restore"))?;
    }
    checkpoint::recover(&store).map_err(at("an interrupted checkpoint or restore"))?;
    let base = base(&store).map_err(at("sandbox.json cannot be read"))?;
    let listener = UnixListener::from_std(inherited.listener).map_err(at("the socket"))?;
    let folder =
        FolderWatch::new(store.dir()).map_err(at("the sandbox's folder cannot be watched"))?;
    let logs = LogEngine::start(store.dir(), inherited.logs).map_err(at("the logs"))?;
    let base = (base, engine);
    let sandbox = Sandbox::new(store, base, keeper.clone(), legacy.hello.clone(), logs);
    let root = Root::new(legacy.root);
    let (inheritances, entries) = inheritances(legacy.notes, legacy.children);
    sandbox
        .load(inheritances, entries, rewound)
        .map_err(at("the definitions cannot be read"))?;
    let callers = attach::bind(sandbox.store.dir()).map_err(at("the socket for exec"))?;
    tokio::spawn(attach::serve(callers, sandbox.clone()));
    let closed = sandbox.closed.clone();
    let router = api::router(sandbox.clone(), root);
    let mut address = None;
    let remote = match inherited.tcp {
        None => None,
        Some(listener) => {
            let listener = TcpListener::from_std(listener).map_err(at("the TCP socket"))?;
            let token = token.as_ref().and_then(api::Token::new);
            let token = token.ok_or(ListenError::WeakToken)?;
            address = Some(listener.local_addr().map_err(at("the address"))?);
            let serving = serve_guarded(listener, router.clone(), token, closed.clone());
            Some(tokio::spawn(serving))
        }
    };
    let serving = tokio::spawn(serve_until(Guarded(listener), router, closed));
    tell_ready(address);
    superior.ready().map_err(at("the keeper"))?;
    tokio::spawn(give_back_when_quiet(sandbox.changes.listen()));
    sandbox.bring_back();
    tracing::info!(pid = std::process::id(), "serves");
    tokio::select! {
        () = ends.next() => {}
        () = sandbox.closed.cancelled() => {}
        () = folder.lost() => {
            tracing::warn!("the sandbox's folder or its socket is gone");
        }
        () = keeper.lost() => return after_keeper(&sandbox).await,
        program = sandbox.handed_over() => {
            superior.hand_over_to(program).map_err(at("the keeper"))?;
            sandbox.closed.cancel();
            let _ = tokio::time::timeout(LAST_ANSWERS, serving).await;
            return Err(ServeError::HandedOver);
        }
    }
    tokio::select! {
        () = sandbox.halt() => {}
        () = ends.next() => {
            tracing::warn!("told to end once more, kills what is left");
            sandbox.kill().await;
        }
        () = keeper.lost() => return after_keeper(&sandbox).await,
    }
    if let Err(error) = sandbox.base.cgroups.clear().await {
        tracing::warn!(%error, "control groups are left");
    }
    // From here on nobody can connect, so a client takes this supervisor for gone.
    if folder.is_there() {
        let _ = std::fs::remove_file(sandbox.store.dir().join(SOCKET));
    }
    sandbox.closed.cancel();
    let _ = tokio::time::timeout(LAST_ANSWERS, async {
        let _ = serving.await;
        if let Some(remote) = remote {
            let _ = remote.await;
        }
    })
    .await;
    tracing::info!("ends");
    Ok(())
}

/// Ends what an earlier supervisor was about to stop.
async fn end(children: Vec<Child>) -> io::Result<()> {
    for mut child in children {
        let family = os::descendants([child.pid]);
        os::kill_session(child.pid, os::start_time(child.pid)).await?;
        os::kill_family(family).await?;
        child.ended().await;
    }
    Ok(())
}

/// What earlier supervisors of this keeper have left, by service, and about processes.
fn inheritances(
    notes: BTreeMap<String, (String, Vec<OwnedFd>)>,
    children: Vec<Child>,
) -> (BTreeMap<ServiceName, Inheritance>, Vec<EntryNote>) {
    let mut entries = Vec::new();
    let mut found: BTreeMap<ServiceName, Inheritance> = BTreeMap::new();
    for (key, (note, descriptors)) in notes {
        if let Some(name) = sandbox::of_socket_key(&key) {
            found.entry(name).or_default().notify = descriptors.into_iter().next();
            continue;
        }
        if let Some(name) = sandbox::of_input_key(&key) {
            found.entry(name).or_default().input = descriptors.into_iter().next();
            continue;
        }
        entries.extend(processes::of_note(&key, &note));
        let Some(name) = sandbox::of_key(&key) else {
            continue;
        };
        match serde_json::from_str(&note) {
            Ok(hand) => found.entry(name).or_default().hand = Some(hand),
            Err(error) => tracing::error!(service = %name, %error, "a note cannot be read"),
        }
    }
    for child in children {
        match sandbox::of_key(&child.key) {
            Some(name) => found.entry(name).or_default().children.push(child),
            // Of a request that nobody waits for any more.
            None => {
                kill_group(child.pid);
            }
        }
    }
    (found, entries)
}

/// The keeper was killed: what it had executed dies now, and so does this process.
async fn after_keeper(sandbox: &Sandbox) -> Result<(), ServeError> {
    let killed = kill_leftovers(&sandbox.store).await;
    if let Err(error) = killed {
        tracing::error!(%error, "not everything can be killed");
    }
    let store = &sandbox.store;
    if store.has_containers()
        && let Err(error) = container::clear_all(&sandbox.engine, store.dir()).await
    {
        tracing::error!(%error, "not every container can be removed");
    }
    if let Err(error) = os::kill_family(os::marked(&sandbox.run_mark())).await {
        tracing::error!(%error, "not everything can be killed");
    }
    Err(ServeError::Orphaned)
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
    // A spec that cannot be read is no reason to leave anything running.
    let spec = store.spec().unwrap_or_default();
    let cgroups = Cgroups::detect().of_sandbox(store.dir(), &spec);
    cgroups.clear().await?;
    cgroups.sweep();
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

/// Where container engines are looked for.
pub(super) fn engine_settings() -> EngineSettings {
    EngineSettings::from_vars(|name| std::env::var(name).ok())
}

/// Removes containers of an earlier keeper, but for those that run what is still wanted: they are
/// taken over when their services are brought back.
async fn clear_containers(store: &Store, engine: &EngineSettings) {
    if !store.has_containers() {
        return;
    }
    let records = store.load().unwrap_or_default().into_iter();
    let wanted = records.filter(|(_, record)| {
        let spec = &record.definition;
        record.goal == ServiceGoal::Running && spec.container && spec.kind == ServiceKind::Service
    });
    let wanted = wanted.map(|(name, record)| (name, record.definition));
    let wanted = wanted.collect();
    if let Err(error) = container::clear_unwanted(engine, store.dir(), &wanted).await {
        tracing::error!(%error, "containers of an earlier keeper may be left");
    }
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
        cgroups: Cgroups::detect().of_sandbox(store.dir(), &store.spec()?),
    })
}

/// Tells the launcher, which waits for this line, and lets go of the pipe to it.
fn tell_ready(address: Option<std::net::SocketAddr>) {
    let mut stdout = io::stdout();
    // A launcher that has gone does not matter.
    let told = match address {
        Some(address) => {
            tracing::info!(%address, "serves over TCP");
            writeln!(stdout, "{READY} http://{address}")
        }
        None => writeln!(stdout, "{READY}"),
    };
    let _ = told.and_then(|()| stdout.flush());
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
