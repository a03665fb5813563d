//! `gabion key`: the keys that a platform gives to a sandbox. What is secret of them is read from stdin and
//! never shown.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::tz::TimeZone;

use super::attachments::stdin_text;
use super::context::{self, Context, print, print_json};
use super::error::{Error, Result};
use super::progress::printable;
use super::target::Target;
use crate::model::SandboxName;
use crate::platforms::{Key, KeyKind, NewKey};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion key list web
  gabion key set web ssh --public id_ed25519.pub < id_ed25519
  gabion key set web tailscale < auth-key.txt

A sandbox has one key of each kind: what it logs in to SSH servers with, and
what it joins a tailnet with. Another one takes its place; there is no way to
take it away, because the platform has none.

The platform puts keys into a sandbox when it starts it.")]
pub struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(clap::Subcommand)]
enum KeyCommand {
    /// Show which keys there are
    List(ListArgs),
    /// Set one, in place of the one of its kind, to what stdin has
    Set(SetArgs),
}

#[derive(clap::Args)]
struct ListArgs {
    /// The sandbox
    #[arg(value_name = "SANDBOX", add = super::address::completer())]
    sandbox: SandboxName,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion key set web ssh --public id_ed25519.pub < id_ed25519
  gabion key set web tailscale < auth-key.txt

The secret half is read from stdin, so that it is in no history and no list of
processes. The platform puts it into the sandbox when it starts it.")]
struct SetArgs {
    /// The sandbox
    #[arg(value_name = "SANDBOX", add = super::address::completer())]
    sandbox: SandboxName,
    #[command(subcommand)]
    kind: Kind,
}

#[derive(clap::Subcommand)]
#[command(subcommand_value_name = "KIND", subcommand_help_heading = "Kinds")]
enum Kind {
    /// What it logs in to SSH servers with; the private key is read from stdin
    Ssh {
        /// The file with the public key
        #[arg(long, value_name = "FILE")]
        public: PathBuf,
    },
    /// What it joins a tailnet with; the auth key is read from stdin
    Tailscale,
}

impl KeyArgs {
    /// Whether it changes something.
    pub fn changes_something(&self) -> bool {
        !matches!(self.command, KeyCommand::List(_))
    }
}

pub async fn run(context: &Context, args: &KeyArgs) -> Result<ExitCode> {
    match &args.command {
        KeyCommand::List(args) => list(context, args).await,
        KeyCommand::Set(args) => set(context, args).await,
    }
}

async fn list(context: &Context, args: &ListArgs) -> Result<ExitCode> {
    let target = Target::open(context, &args.sandbox, None).await?;
    let keys = target.platform()?.keys(&args.sandbox).await?;
    if args.json {
        print_json(&keys)?;
    } else if keys.is_empty() {
        print(&format!("{}: no keys\n", args.sandbox))?;
    } else {
        let rows = keys.iter().map(row);
        let heading = ["KIND", "SET", "KEY"];
        print(&context::table(context.color_stdout, heading, rows))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn row(key: &Key) -> [String; 3] {
    let kind = match key.kind {
        KeyKind::Ssh => "ssh",
        KeyKind::Tailscale => "tailscale",
    };
    let set_at = key.set_at.map(|it| it.to_zoned(TimeZone::system()));
    let set_at = set_at.map(|it| it.strftime("%Y-%m-%d %H:%M:%S").to_string());
    let shown = key.public.as_deref().or(key.redacted.as_deref());
    [
        kind.to_owned(),
        set_at.unwrap_or_else(|| "–".to_owned()),
        printable(shown.unwrap_or("–")),
    ]
}

async fn set(context: &Context, args: &SetArgs) -> Result<ExitCode> {
    let key = match &args.kind {
        Kind::Ssh { public } => NewKey::Ssh {
            public: public_key(public)?,
            private: secret()?.into(),
        },
        Kind::Tailscale => NewKey::Tailscale(secret()?.trim().into()),
    };
    let target = Target::open(context, &args.sandbox, None).await?;
    target.platform()?.set_key(&args.sandbox, &key).await?;
    Ok(ExitCode::SUCCESS)
}

fn secret() -> Result<String> {
    let text = stdin_text()?;
    match text.trim().is_empty() {
        true => Err(Error::failed("stdin has no key")),
        false => Ok(text),
    }
}

/// The line in a file. A private key in its place is not sent as if everybody might see it.
fn public_key(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::failed(format!("cannot read {}: {error}", path.display())))?;
    let line = text.trim();
    match is_public_key(line) {
        true => Ok(line.to_owned()),
        false => Err(Error::failed(format!(
            "{} is no public key of SSH",
            path.display()
        ))),
    }
}

/// Whether it is as `ssh-keygen` writes it: the kind, the key, in which the kind stands too, and a comment.
fn is_public_key(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let (Some(kind), Some(key)) = (words.next(), words.next()) else {
        return false;
    };
    let named = |key: &[u8]| key.get(4..4 + kind.len()) == Some(kind.as_bytes());
    !line.contains('\n') && STANDARD.decode(key).is_ok_and(|key| named(&key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_key_is_known_from_a_private_one() {
        let public =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGabionGabionGabionGabionGabionGabionGabionG";
        assert!(is_public_key(public));
        assert!(is_public_key(&format!("{public} me@home")));
        for other in [
            "",
            "ssh-ed25519",
            "ssh-rsa AAAAC3NzaC1lZDI1NTE5",
            "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk=\n-----END OPENSSH PRIVATE KEY-----",
            &format!("{public}\n{public}"),
        ] {
            assert!(!is_public_key(other), "{other}");
        }
    }
}
