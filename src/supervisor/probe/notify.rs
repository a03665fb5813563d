//! What a service says of itself: the messages of sd_notify(3).

use std::time::Duration;

use super::socket::NotifySocket;
use crate::model::Watchdog;

/// The longest message that is read.
const LONGEST: usize = 4 << 10;

/// One thing that a service says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Note {
    /// `READY=1`
    Ready,
    /// `STATUS=…`
    Status(String),
    /// `STOPPING=1`
    Stopping,
    /// `WATCHDOG=1`
    Watchdog,
    /// `WATCHDOG=trigger`
    Trigger,
}

/// What a service that notifies gets into its environment.
pub(in crate::supervisor) fn environment(
    socket: &NotifySocket,
    watchdog: Watchdog,
) -> Vec<(&'static str, String)> {
    let mut env = vec![("NOTIFY_SOCKET", socket.address().to_owned())];
    if let Watchdog(Some(time)) = watchdog {
        let most = Duration::from_secs(86_400 * 365);
        env.push(("WATCHDOG_USEC", time.min(most).as_micros().to_string()));
    }
    env
}

/// The next thing that the service led by `leader` says. Cancel-safe.
pub(super) async fn next(socket: &NotifySocket, leader: u32) -> Note {
    loop {
        if let Some(note) = socket.said() {
            return note;
        }
        let mut message = [0; LONGEST];
        match socket.receive(&mut message, leader).await {
            Ok(Some(length)) => socket.say(parse(&message[..length])),
            // From somebody else.
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(leader, %error, "a service cannot be heard any more");
                return std::future::pending().await;
            }
        }
    }
}

/// One message is lines of `NAME=value`; unknown ones are left out.
fn parse(message: &[u8]) -> Vec<Note> {
    let text = String::from_utf8_lossy(message);
    let note = |line: &str| {
        Some(match line.split_once('=')? {
            ("READY", "1") => Note::Ready,
            ("STATUS", text) => Note::Status(text.to_owned()),
            ("STOPPING", "1") => Note::Stopping,
            ("WATCHDOG", "1") => Note::Watchdog,
            ("WATCHDOG", "trigger") => Note::Trigger,
            _ => return None,
        })
    };
    text.lines().filter_map(note).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_lines() {
        for (message, notes) in [
            (&b"READY=1"[..], vec![Note::Ready]),
            (
                b"READY=1\nSTATUS=a = b\nMAINPID=3\n",
                vec![Note::Ready, Note::Status("a = b".to_owned())],
            ),
            (b"READY=0\nnonsense\n\xff", vec![]),
            (b"WATCHDOG=1", vec![Note::Watchdog]),
            (
                b"WATCHDOG=trigger\nSTOPPING=1",
                vec![Note::Trigger, Note::Stopping],
            ),
        ] {
            assert_eq!(parse(message), notes);
        }
    }
}
