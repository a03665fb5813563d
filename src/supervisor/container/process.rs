//! One container of a service, driven like a process.

use std::time::{Duration, Instant};

use bollard::errors::Error;
use bollard::models::ContainerState;
use bollard::query_parameters::{
    KillContainerOptions, RemoveContainerOptions, WaitContainerOptions,
};
use futures_util::StreamExt;
use jiff::Timestamp;
use rustix::process::Signal;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::engine::{Engine, EngineError};
use super::output::{Output, Sink, Told};
use crate::model::Exit;
use crate::supervisor::signal;

/// The time until an engine that does not answer is asked again: nothing tells when it is back.
const RETRY: Duration = Duration::from_millis(250);

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::supervisor) struct Ended {
    /// Code, signal and time.
    pub exit: Exit,
    /// What code and signal do not tell.
    pub why: Option<&'static str>,
    /// The kernel has killed it for want of memory.
    pub out_of_memory: bool,
}

/// A container that was started.
#[derive(Debug)]
pub(in crate::supervisor) struct Container {
    /// Its main process, as this machine numbers it, if the engine runs on this machine.
    pub pid: Option<u32>,
    /// When it was started.
    pub started: Instant,
    /// The same for people, in whole microseconds as in the log.
    pub started_at: Timestamp,
    engine: Engine,
    id: String,
    signals: mpsc::UnboundedSender<Signal>,
    ended: watch::Receiver<bool>,
    told: Told,
    output: Output,
    _watching: OwnTask,
    _signalling: OwnTask,
}

/// A task that ends with its owner.
#[derive(Debug)]
struct OwnTask(JoinHandle<()>);

impl Drop for OwnTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Container {
    /// Watches a container that was started, by this supervisor or an earlier one; it may have ended.
    pub(super) fn watch(
        engine: Engine,
        id: String,
        state: &ContainerState,
        (sink, told): (Sink, Told),
    ) -> Self {
        let now = Timestamp::now();
        let started_at = time(state.started_at.as_deref()).unwrap_or(now);
        let age = Duration::try_from(now.duration_since(started_at)).unwrap_or_default();
        let (end, ended) = watch::channel(false);
        let (signals, orders) = mpsc::unbounded_channel();
        let watching = tokio::spawn(wait(engine.clone(), id.clone(), end));
        let signalling = tokio::spawn(send_signals(engine.clone(), id.clone(), orders));
        Self {
            pid: state
                .pid
                .and_then(|pid| u32::try_from(pid).ok())
                .filter(|pid| *pid != 0),
            started: Instant::now().checked_sub(age).unwrap_or_else(Instant::now),
            started_at: Timestamp::from_microsecond(started_at.as_microsecond())
                .unwrap_or(started_at),
            output: Output::start(engine.clone(), id.clone(), sink),
            engine,
            id,
            signals,
            ended,
            told,
            _watching: OwnTask(watching),
            _signalling: OwnTask(signalling),
        }
    }

    /// Whether its output has shown the text looked for.
    pub(in crate::supervisor) fn seen(&self) -> watch::Receiver<bool> {
        self.told.seen.clone()
    }

    /// Why output is being lost, if it is.
    pub(in crate::supervisor) fn log_trouble(&self) -> watch::Receiver<Option<String>> {
        self.told.trouble.clone()
    }

    /// The engine and the id to reach it by.
    pub(in crate::supervisor) fn inside(&self) -> (Engine, String) {
        (self.engine.clone(), self.id.clone())
    }

    /// Sends a signal to its main process.
    pub(in crate::supervisor) fn signal(&self, signal: Signal) {
        // Only a container that has ended takes no more signals.
        let _ = self.signals.send(signal);
    }

    /// Returns once it has ended or is gone. Cancel-safe.
    pub(in crate::supervisor) async fn ended(&mut self) {
        if self.ended.wait_for(|ended| *ended).await.is_err() {
            tracing::error!(container = %self.id, "nobody waits for its end any more");
        }
    }

    /// After it has ended: writes down the last of the output and removes it.
    pub(in crate::supervisor) async fn finish(self) -> Ended {
        self.output.finish().await;
        let inspected = self.engine.docker.inspect_container(&self.id, None);
        let ended = match inspected.await.map_err(EngineError::from) {
            Ok(found) => how(&found.state.unwrap_or_default()),
            Err(error) if error.is_not_found() => Ended {
                why: Some("its container was removed"),
                out_of_memory: false,
                exit: exit(137, Timestamp::now()),
            },
            Err(error) => {
                tracing::warn!(container = %self.id, %error, "how it ended is unknown");
                Ended {
                    why: Some("the container engine does not tell how"),
                    out_of_memory: false,
                    exit: exit(-1, Timestamp::now()),
                }
            }
        };
        if let Err(error) = remove(&self.engine, &self.id).await {
            tracing::warn!(container = %self.id, %error, "it is not removed");
        }
        ended
    }
}

/// Removes a container, killing it if it runs. One that is not there counts as removed.
pub(super) async fn remove(engine: &Engine, id: &str) -> Result<(), EngineError> {
    let options = RemoveContainerOptions {
        force: true,
        // Anonymous volumes that the image asks for would be left otherwise.
        v: true,
        ..RemoveContainerOptions::default()
    };
    let removed = engine.docker.remove_container(id, Some(options)).await;
    match removed.map_err(EngineError::from) {
        // Being removed by somebody else.
        Err(EngineError::Refused {
            status: 404 | 409, ..
        })
        | Ok(()) => Ok(()),
        Err(error) => Err(error),
    }
}

fn how(state: &ContainerState) -> Ended {
    let code = state.exit_code.and_then(|code| i32::try_from(code).ok());
    let at = time(state.finished_at.as_deref()).unwrap_or_else(Timestamp::now);
    Ended {
        exit: exit(code.unwrap_or(-1), at),
        why: None,
        out_of_memory: state.oom_killed == Some(true),
    }
}

/// An engine tells no signals, only the code that shells make of them.
fn exit(code: i32, at: Timestamp) -> Exit {
    const FATAL: [i32; 12] = [1, 2, 3, 4, 6, 7, 8, 9, 11, 13, 14, 15];
    let number = code - 128;
    Exit {
        code,
        signal: FATAL.contains(&number).then(|| signal::name_of(number)),
        at,
    }
}

/// A time as the engine tells it; the year 1 stands for never.
pub(super) fn time(text: Option<&str>) -> Option<Timestamp> {
    let at: Timestamp = text?.parse().ok()?;
    (at > Timestamp::UNIX_EPOCH).then_some(at)
}

/// Tells of the end of a container, however long that takes.
async fn wait(engine: Engine, id: String, end: watch::Sender<bool>) {
    loop {
        let options = WaitContainerOptions {
            condition: "not-running".to_owned(),
        };
        let waiting = engine.docker.wait_container(&id, Some(options));
        match std::pin::pin!(waiting).next().await {
            Some(Ok(_) | Err(Error::DockerContainerWaitError { .. })) => break,
            Some(Err(error)) => {
                let error = EngineError::from(error);
                if error.is_not_found() {
                    break;
                }
                tracing::debug!(container = %id, %error, "its end is waited for once more");
            }
            None => {}
        }
        tokio::time::sleep(RETRY).await;
    }
    end.send_replace(true);
}

async fn send_signals(engine: Engine, id: String, mut orders: mpsc::UnboundedReceiver<Signal>) {
    while let Some(signal) = orders.recv().await {
        while let Err(error) = send_signal(&engine, &id, signal).await {
            match error {
                // It has ended, or never knew this signal.
                EngineError::Refused { .. } => {
                    tracing::debug!(container = %id, %error, "a signal was not taken");
                    break;
                }
                _ => tracing::warn!(container = %id, %error, "a signal is sent once more"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

async fn send_signal(engine: &Engine, id: &str, signal: Signal) -> Result<(), EngineError> {
    let options = KillContainerOptions {
        signal: format!("SIG{}", signal::name_of(signal.as_raw())),
    };
    Ok(engine.docker.kill_container(id, Some(options)).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_tell_of_signals_and_memory() {
        let state = |code, oom| ContainerState {
            exit_code: Some(code),
            oom_killed: Some(oom),
            finished_at: Some("2026-01-05T10:30:00.5Z".to_owned()),
            ..ContainerState::default()
        };
        let ended = how(&state(3, false));
        assert_eq!(
            (ended.exit.code, ended.exit.signal, ended.out_of_memory),
            (3, None, false)
        );
        assert_eq!(ended.exit.at.as_millisecond() % 1000, 500);
        let ended = how(&state(137, true));
        assert_eq!(ended.exit.signal.as_deref(), Some("KILL"));
        assert!(ended.out_of_memory);
        assert_eq!(how(&state(200, false)).exit.signal, None);
        assert_eq!(time(Some("0001-01-01T00:00:00Z")), None);
    }
}
