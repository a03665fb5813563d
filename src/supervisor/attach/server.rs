//! The supervisor's side.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use secrecy::SecretString;
use tokio::net::{UnixListener, UnixStream};

use super::{Reply, Run, SOCKET, Word};
use crate::keeper::{Line, SocketPath, Stream};
use crate::model::{Program, Secrets, ServiceSpec};
use crate::supervisor::aside::{Aside, code_of};
use crate::supervisor::sandbox::Sandbox;
use crate::supervisor::signal;
use crate::supervisor::spawn::Prepared;

/// Listens in the sandbox's folder. This process is its only supervisor, so what is there is nobody's.
pub(in crate::supervisor) fn bind(dir: &Path) -> io::Result<UnixListener> {
    let socket = SocketPath::named(dir, SOCKET)?;
    match std::fs::remove_file(socket.path()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket.path())?;
    std::fs::set_permissions(socket.path(), std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves callers until the sandbox closes.
pub(in crate::supervisor) async fn serve(listener: UnixListener, sandbox: Arc<Sandbox>) {
    let own = rustix::process::geteuid().as_raw();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = sandbox.closing.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let peer = stream.peer_cred().map(|peer| peer.uid());
                if peer.is_ok_and(|uid| uid == own || uid == 0) {
                    let sandbox = sandbox.clone();
                    tokio::spawn(async move {
                        if let Err(error) = attend(stream, &sandbox).await {
                            tracing::debug!(%error, "a caller of exec has gone");
                        }
                    });
                }
            }
            Err(error) => {
                // Out of descriptors, most likely: others are freed meanwhile.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn attend(stream: UnixStream, sandbox: &Arc<Sandbox>) -> io::Result<()> {
    let mut line = Line::new(stream.into_std()?.into())?;
    let (word, descriptors) = line.hear::<Word>().await?;
    let Word::Run(run) = word else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut program = match start(sandbox, *run, descriptors).await {
        Ok(program) => program,
        Err(reason) => return line.say(&Reply::Refused(reason), Vec::new()).await,
    };
    let terminal = program.end_of(1).into_iter().collect();
    line.say(&Reply::Started, terminal).await?;
    loop {
        tokio::select! {
            end = program.ended() => {
                if let Err(error) = program.clear().await {
                    tracing::warn!(%error, "not all of a program is gone");
                }
                return line.say(&Reply::Ended(code_of(end)), Vec::new()).await;
            }
            // Its end is the end of the program.
            heard = line.hear::<Word>() => match heard {
                Ok((Word::Signal(name), _)) => {
                    if let Some(signal) = signal::by_name(&name) {
                        program.signal(signal);
                    }
                }
                Ok((Word::Run(_), _)) => {}
                Err(error) => {
                    let _ = program.clear().await;
                    return Err(error);
                }
            },
            () = sandbox.closing.cancelled() => {
                let _ = program.clear().await;
                return Ok(());
            }
        }
    }
}

/// Executes what was asked for; otherwise says why not.
async fn start(
    sandbox: &Arc<Sandbox>,
    run: Run,
    descriptors: Vec<OwnedFd>,
) -> Result<Aside, String> {
    let mut secrets = Secrets::default();
    for (name, value) in run.secrets {
        secrets.insert(name, SecretString::from(value));
    }
    let [cmd, args @ ..] = run.argv.as_slice() else {
        return Err("there is nothing to run".to_owned());
    };
    let mut spec = match &run.service {
        Some(name) => {
            let handle = sandbox.handle(name);
            let definition = handle.and_then(|handle| handle.object.borrow().definition.clone());
            definition.ok_or_else(|| format!("there is no service `{name}`"))?
        }
        None => {
            let described = sandbox.store.spec().map_err(|error| error.to_string())?;
            let mut spec = ServiceSpec::new(Program::Exec {
                cmd: String::new(),
                args: Vec::new(),
            });
            if !run.bare {
                spec.env = described.env;
                spec.secrets = described.secrets;
            }
            spec
        }
    };
    spec.container = false;
    spec.program = Program::Exec {
        cmd: cmd.clone(),
        args: args.to_vec(),
    };
    for (name, value) in run.env {
        spec.env.entry(name).or_insert(value);
    }
    spec.env.extend(run.over);
    spec.working_dir = run.dir.or(spec.working_dir);
    let prepared = Prepared::new(&spec, &secrets, &sandbox.base).map_err(|e| e.to_string())?;
    let started = match run.tty {
        true => {
            let window = run.window.unwrap_or((24, 80));
            Aside::start_on_terminal(&sandbox.keeper, &prepared, window).await
        }
        false => {
            let streams = [Stream::Given; 3];
            Aside::start(&sandbox.keeper, &prepared, streams, descriptors).await
        }
    };
    started.map_err(|error| error.to_string())
}
