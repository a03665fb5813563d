//! The caller's side where the program's streams end in this process: for callers that are somewhere else.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::{Winsize, tcsetwinsize};
use secrecy::ExposeSecret;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{Reply, Run, SOCKET, Word};
use crate::keeper::{Line, SocketPath};
use crate::model::Secrets;
use crate::platforms::TerminalSize;

/// A program to run in a sandbox.
#[derive(Debug, Default)]
pub struct Command {
    /// It and its arguments.
    pub argv: Vec<String>,
    /// Over the sandbox's environment.
    pub env: Vec<(String, String)>,
    /// Where; relative to the workspace, which is the default.
    pub dir: Option<PathBuf>,
    /// The secrets that the sandbox's environment uses.
    pub secrets: Secrets,
    /// Whether that environment is left out.
    pub bare: bool,
    /// The size of its terminal; `None`: it has pipes.
    pub terminal: Option<TerminalSize>,
}

/// A program that runs. Ends, with all that it has started, when this is dropped.
pub struct Session {
    line: Line,
    terminal: Option<OwnedFd>,
    /// Its standard input, or its terminal's; once.
    pub input: Option<Input>,
    /// What it writes: its standard output and error output, or its terminal's only output; once.
    pub outputs: Vec<Output>,
}

impl Session {
    /// Runs a program in the sandbox kept in `dir`. An error says why it was not executed.
    pub async fn start(dir: &Path, command: Command) -> io::Result<Self> {
        let socket = SocketPath::named(dir, SOCKET)?;
        let stream = tokio::net::UnixStream::connect(socket.path()).await?;
        let mut line = Line::new(stream.into_std()?.into())?;
        let mut ends = Ends::default();
        if command.terminal.is_none() {
            ends = Ends::pipes()?;
        }
        let secrets = command.secrets.iter();
        let size = command.terminal;
        let run = Run {
            service: None,
            argv: command.argv,
            env: size
                .iter()
                .map(|_| ("TERM".into(), "xterm-256color".into()))
                .collect(),
            over: command.env,
            dir: command.dir,
            secrets: secrets
                .map(|(name, value)| (name.to_owned(), value.expose_secret().to_owned()))
                .collect(),
            bare: command.bare,
            tty: size.is_some(),
            window: size.map(|size| (size.height, size.width)),
        };
        line.say(&Word::Run(Box::new(run)), ends.theirs).await?;
        let terminal = match line.hear::<Reply>().await? {
            (Reply::Started, descriptors) => descriptors.into_iter().next(),
            (Reply::Refused(reason), _) => return Err(io::Error::other(reason)),
            (Reply::Ended(_), _) => return Err(io::ErrorKind::InvalidData.into()),
        };
        if let Some(terminal) = &terminal {
            ends.input = Some(Input::new(terminal.try_clone()?)?);
            ends.outputs.push(Output::new(terminal.try_clone()?)?);
        }
        Ok(Self {
            line,
            terminal,
            input: ends.input,
            outputs: ends.outputs,
        })
    }

    /// Gives its terminal another size, if it has one.
    pub fn resize(&self, size: TerminalSize) {
        if let Some(terminal) = &self.terminal {
            let size = Winsize {
                ws_row: size.height,
                ws_col: size.width,
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            // Of a program that has ended, nobody cares.
            let _ = tcsetwinsize(terminal, size);
        }
    }

    /// Sends a signal, by its name with or without `SIG`, to its process group.
    pub async fn signal(&mut self, name: &str) -> io::Result<()> {
        self.line
            .say(&Word::Signal(name.to_owned()), Vec::new())
            .await
    }

    /// Its exit code once it has ended: 128 + signal number if it was killed. Cancel-safe.
    pub async fn ended(&mut self) -> io::Result<i32> {
        loop {
            match self.line.hear::<Reply>().await?.0 {
                Reply::Ended(code) => return Ok(code),
                Reply::Refused(reason) => return Err(io::Error::other(reason)),
                Reply::Started => {}
            }
        }
    }
}

/// Our end of what a program reads. When dropped, the program meets the end of its input.
#[derive(Debug)]
pub struct Input(AsyncFd<OwnedFd>);

impl Input {
    fn new(end: OwnedFd) -> io::Result<Self> {
        Ok(Self(without_waiting(end, Interest::WRITABLE)?))
    }

    /// Writes all of it. An error once nobody reads it any more.
    pub async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let write = |end: &OwnedFd| Ok(rustix::io::write(end, bytes)?);
            let written = self.0.async_io(Interest::WRITABLE, write).await?;
            bytes = &bytes[written..];
        }
        Ok(())
    }
}

/// Our end of what a program writes.
#[derive(Debug)]
pub struct Output(AsyncFd<OwnedFd>);

impl Output {
    fn new(end: OwnedFd) -> io::Result<Self> {
        Ok(Self(without_waiting(end, Interest::READABLE)?))
    }

    /// Reads some of it; 0 at the end. Cancel-safe.
    pub async fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        let read = |end: &OwnedFd| Ok(rustix::io::read(end, &mut *into)?);
        of_terminal(self.0.async_io(Interest::READABLE, read).await)
    }

    /// Reads what is there, without waiting for more; 0 if there is nothing.
    pub fn read_rest(&self, into: &mut [u8]) -> io::Result<usize> {
        match rustix::io::read(self.0.get_ref(), into) {
            Err(Errno::AGAIN) => Ok(0),
            other => of_terminal(other.map_err(Into::into)),
        }
    }
}

/// A terminal that no program has any more is told as an error.
fn of_terminal(read: io::Result<usize>) -> io::Result<usize> {
    match read {
        Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => Ok(0),
        other => other,
    }
}

/// The ends of a program's streams.
#[derive(Default)]
struct Ends {
    /// In the order of their numbers in the program.
    theirs: Vec<OwnedFd>,
    input: Option<Input>,
    outputs: Vec<Output>,
}

impl Ends {
    fn pipes() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        let mut ends = Self {
            theirs: vec![read],
            input: Some(Input::new(write)?),
            outputs: Vec::new(),
        };
        for _ in ["stdout", "stderr"] {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            ends.theirs.push(write);
            ends.outputs.push(Output::new(read)?);
        }
        Ok(ends)
    }
}

fn without_waiting(end: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    rustix::io::ioctl_fionbio(&end, true)?;
    // SAFETY: an `OwnedFd` that nobody else can reach stays open, and the same, until it is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(end, interest) }?)
}
