//! The terminal while lines on it change in place.

use rustix::termios::{self, LocalModes, OptionalActions, Termios};

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

impl Drop for NoEcho {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // A terminal that has gone away needs no mending.
            let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}
