//! `gabion supervise DIR`: how gabion keeps a local sandbox.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use secrecy::SecretString;

use super::context::say;
use super::error::USAGE;
use crate::keeper::Remote;
use crate::supervisor::{Listen, ListenError, token_from};

/// Where the token is looked for without `--token-file`.
const TOKEN: &str = "GABION_SUPERVISOR_TOKEN";

#[derive(clap::Args)]
pub struct SuperviseArgs {
    /// The sandbox's folder
    dir: PathBuf,
    /// What a supervisor inherits from its keeper; without it, this process is the keeper
    #[arg(long, hide = true, conflicts_with = "listen")]
    inherited: Option<String>,
    /// Serve the API on this TCP address too; port 0 is one that is free
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// A file, readable by its owner only, with the token that clients show
    ///
    /// Without it, the token is in GABION_SUPERVISOR_TOKEN.
    #[arg(long, value_name = "FILE", requires = "listen")]
    token_file: Option<PathBuf>,
    /// Listen where other machines can reach it, although nothing is encrypted
    #[arg(long, requires = "listen")]
    insecure: bool,
}

impl SuperviseArgs {
    fn listen(&self) -> Result<Option<Listen>, ListenError> {
        let Some(address) = self.listen else {
            return Ok(None);
        };
        let token = match &self.token_file {
            Some(path) => token_from(path)?,
            // An empty one is refused as too weak.
            None => SecretString::from(std::env::var(TOKEN).unwrap_or_default()),
        };
        let insecure = self.insecure;
        Ok(Some(Listen {
            address,
            token,
            insecure,
        }))
    }
}

pub fn run(args: &SuperviseArgs) -> ExitCode {
    if let Some(inherited) = &args.inherited {
        let token = std::env::var(TOKEN).ok().map(SecretString::from);
        return crate::supervisor::main(&args.dir, inherited, token);
    }
    let bound = args
        .listen()
        .and_then(|listen| listen.map(Listen::bind).transpose());
    match bound {
        Ok(bound) => {
            let remote = bound.map(|bound| Remote {
                socket: bound.socket,
                token: (TOKEN, bound.token),
            });
            crate::keeper::main(&args.dir, remote)
        }
        Err(error) => {
            say(format_args!("error: {error}"));
            if matches!(error, ListenError::WeakToken) && args.token_file.is_none() {
                say(format_args!("help: give one in --token-file or {TOKEN}"));
            }
            ExitCode::from(USAGE)
        }
    }
}
