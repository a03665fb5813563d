//! The terminal while lines on it change in place, or while a command elsewhere has it.

use std::io::IsTerminal;

use rustix::termios::{self, LocalModes, OptionalActions, Termios};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::platforms::TerminalSize;

/// Keeps the terminal from writing `^C` between lines that change in place; dropping it gives the
/// terminal back as it was.
pub struct NoEcho(Option<Termios>);

impl NoEcho {
    /// Does nothing where there is no terminal, or where another job has it.
    pub fn new() -> Self {
        let stdin = std::io::stdin();
        // Whoever changes a terminal from the background is stopped.
        if termios::tcgetpgrp(&stdin) != Ok(rustix::process::getpgrp()) {
            return Self(None);
        }
        let Ok(before) = termios::tcgetattr(&stdin) else {
            return Self(None);
        };
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHOCTL);
        let changed = termios::tcsetattr(&stdin, OptionalActions::Now, &quiet);
        Self(changed.is_ok().then_some(before))
    }
}

/// Hands every key to a command that has a terminal of its own elsewhere; dropping it gives the
/// terminal back as it was.
pub struct Raw(Termios);

impl Raw {
    /// `None` if stdin and stdout are not both a terminal.
    pub fn new() -> Option<Self> {
        let stdin = std::io::stdin();
        if !(stdin.is_terminal() && std::io::stdout().is_terminal()) {
            return None;
        }
        let before = termios::tcgetattr(&stdin).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(&stdin, OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }

    /// The size of the terminal, kept up to date by a task for as long as somebody reads it.
    pub fn size(&self) -> std::io::Result<watch::Receiver<TerminalSize>> {
        let mut changes = signal(SignalKind::window_change())?;
        let (sender, size) = watch::channel(size());
        tokio::spawn(async move {
            while changes.recv().await.is_some() && sender.send(self::size()).is_ok() {}
        });
        Ok(size)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that has gone away needs no mending.
        let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}

fn size() -> TerminalSize {
    match termios::tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => TerminalSize {
            width: size.ws_col,
            height: size.ws_row,
        },
        _ => TerminalSize {
            width: 80,
            height: 24,
        },
    }
}

impl Drop for NoEcho {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // A terminal that has gone away needs no mending.
            let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}
