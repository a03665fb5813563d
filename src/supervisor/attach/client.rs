//! The caller's side, in the process that has the terminal.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use secrecy::ExposeSecret;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Reply, Run, SOCKET, Word};
use crate::keeper::{Line, SocketPath};
use crate::model::{Secrets, ServiceName};

/// What is run in a sandbox.
#[derive(Debug)]
pub struct Attached<'a> {
    /// With its environment, user and folder; `None`: the sandbox's.
    pub service: Option<&'a ServiceName>,
    /// The program and its arguments.
    pub argv: &'a [String],
    /// The secrets that its environment uses.
    pub secrets: &'a Secrets,
}

/// Runs a program in the sandbox kept in `dir`, with this process's own standard streams and terminal,
/// and returns its exit code: 128 + signal number if it was killed. An error says why it was not executed.
pub async fn attach(dir: &Path, what: &Attached<'_>) -> io::Result<i32> {
    let socket = SocketPath::named(dir, SOCKET)?;
    let stream = tokio::net::UnixStream::connect(socket.path()).await?;
    let mut line = Line::new(stream.into_std()?.into())?;
    let tty = isatty(io::stdin()) && isatty(io::stdout());
    let own = || -> io::Result<Vec<OwnedFd>> {
        let streams = [
            io::stdin().as_fd().try_clone_to_owned()?,
            io::stdout().as_fd().try_clone_to_owned()?,
            io::stderr().as_fd().try_clone_to_owned()?,
        ];
        Ok(streams.into())
    };
    let secrets = what.secrets.iter();
    let run = Run {
        service: what.service.cloned(),
        argv: what.argv.to_vec(),
        env: std::env::var("TERM")
            .map(|term| ("TERM".to_owned(), term))
            .into_iter()
            .collect(),
        over: Vec::new(),
        dir: None,
        secrets: secrets
            .map(|(name, value)| (name.to_owned(), value.expose_secret().to_owned()))
            .collect(),
        bare: false,
        tty,
        window: tcgetwinsize(io::stdin())
            .ok()
            .map(|size| (size.ws_row, size.ws_col)),
    };
    let descriptors = if tty { Vec::new() } else { own()? };
    line.say(&Word::Run(Box::new(run)), descriptors).await?;
    let terminal = match line.hear::<Reply>().await? {
        (Reply::Started, descriptors) => descriptors.into_iter().next(),
        (Reply::Refused(reason), _) => return Err(io::Error::other(reason)),
        (Reply::Ended(code), _) => return Ok(code),
    };
    let relay = terminal.map(Relay::start).transpose()?;
    let code = follow(&mut line, relay.as_ref()).await;
    if let Some(relay) = relay {
        relay.finish().await;
    }
    code
}

/// Waits for the end, and passes on what this process is told meanwhile.
async fn follow(line: &mut Line, relay: Option<&Relay>) -> io::Result<i32> {
    let mut signals = Signals::new()?;
    loop {
        tokio::select! {
            heard = line.hear::<Reply>() => match heard?.0 {
                Reply::Ended(code) => return Ok(code),
                Reply::Refused(reason) => return Err(io::Error::other(reason)),
                Reply::Started => {}
            },
            name = signals.next() => match (name, relay) {
                ("WINCH", Some(relay)) => relay.resize(),
                ("WINCH", None) => {}
                (name, _) => line.say(&Word::Signal(name.to_owned()), Vec::new()).await?,
            },
        }
    }
}

/// What a terminal or a parent tells this process.
struct Signals([(&'static str, Signal); 5]);

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self([
            ("INT", signal(SignalKind::interrupt())?),
            ("TERM", signal(SignalKind::terminate())?),
            ("HUP", signal(SignalKind::hangup())?),
            ("QUIT", signal(SignalKind::quit())?),
            ("WINCH", signal(SignalKind::window_change())?),
        ]))
    }

    /// The next one's name. Cancel-safe.
    async fn next(&mut self) -> &'static str {
        let next = self.0.iter_mut().map(|(name, signal)| {
            Box::pin(async {
                signal.recv().await;
                *name
            })
        });
        futures_util::future::select_all(next).await.0
    }
}

/// This process's terminal, made one with that of the program.
struct Relay {
    terminal: OwnedFd,
    before: Termios,
    output: tokio::task::JoinHandle<()>,
}

impl Relay {
    fn start(terminal: OwnedFd) -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        let (input, output) = (terminal.try_clone()?, terminal.try_clone()?);
        // Blocked in a read until this process ends, which nobody waits for.
        std::thread::spawn(move || copy(&mut io::stdin().lock(), &mut std::fs::File::from(input)));
        let output = tokio::task::spawn_blocking(move || {
            copy(&mut std::fs::File::from(output), &mut Screen);
        });
        let relay = Self {
            terminal,
            before,
            output,
        };
        relay.resize();
        Ok(relay)
    }

    /// Gives the program's terminal the size of this one.
    fn resize(&self) {
        if let Ok(size) = tcgetwinsize(io::stdin()) {
            let _ = rustix::termios::tcsetwinsize(&self.terminal, size);
        }
    }

    /// Shows the last of the output and puts this terminal back as it was.
    async fn finish(self) {
        drop(self.terminal);
        let _ = self.output.await;
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Standard output, without anything in between.
struct Screen;

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(rustix::stdio::stdout(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Copies until either side has ended.
fn copy(from: &mut impl Read, to: &mut impl Write) {
    let mut chunk = [0; 4096];
    loop {
        match from.read(&mut chunk) {
            Ok(0) => return,
            Ok(length) => {
                if to.write_all(&chunk[..length]).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
