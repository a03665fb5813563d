//! `gabion serve`: the platforms' own protocols over sandboxes on this machine.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tokio::signal::unix::{SignalKind, signal};

use super::context::{Context, print, say};
use super::error::{Error, Result};
use crate::apply::StackLock;
use crate::model::{HumanDuration, IsolationWish};
use crate::serve::auth::account_name;
use crate::serve::faults::{Plan, Rule};
use crate::serve::{Faults, Server, Settings, Switches, miosa, pocketenv};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion serve --token dev           on a free port; the first line says which
  gabion serve --listen 127.0.0.1:8080 --token alice --token bob
  curl -H 'Authorization: Bearer alice' http://127.0.0.1:8080/v1/sprites
  gabion serve --token dev --latency 50ms \
      --fault 'PUT /v1/sprites/*/services/*:after=lost@3'

Every token is an account of its own. Sandboxes are real processes; they go on
when the server ends, and are there again when it is started with the same
token.

Pocketenv's clients seal secrets and files for the server. To seal them for
this one, set
  POCKETENV_PUBLIC_KEY=5a1ad8b4581c3549d8a7bc81f5257adfa0b40cd40c35d41d786377136f339147")]
pub struct ServeArgs {
    /// Where to listen; port 0 is one that is free
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// A bearer token that clients may show; repeatable
    #[arg(long = "token", value_name = "TOKEN", required = true, value_parser = token)]
    tokens: Vec<SecretString>,
    /// Listen where other machines can reach it, although nothing is encrypted
    #[arg(long)]
    insecure: bool,
    /// How sandboxes are kept apart from this machine
    #[arg(long, value_name = "HOW", default_value = "auto", value_parser = isolation)]
    isolation: IsolationWish,
    /// How long a token for one sandbox is valid; an hour without it
    #[arg(long, value_name = "DURATION", help_heading = "For testing")]
    pass_lifetime: Option<HumanDuration>,
    /// How long every request takes on its way, as 50ms
    #[arg(long, value_name = "DURATION", help_heading = "For testing")]
    latency: Option<HumanDuration>,
    /// The part of requests, from 0 to 1, that goes wrong
    #[arg(long, value_name = "RATE", default_value = "0", hide_default_value = true,
          value_parser = rate, help_heading = "For testing")]
    fail: f64,
    /// What chance is made of: the same requests meet the same faults
    #[arg(
        long,
        value_name = "NUMBER",
        default_value = "0",
        help_heading = "For testing"
    )]
    seed: u64,
    /// Which requests go wrong, and how; repeatable
    ///
    /// METHOD PATH:WHEN=WHAT[@WHICH]. In PATH, `*` stands for anything without a slash and `**` for
    /// anything. WHEN is `before` or `after` the request has had its effect. WHAT is `lost` (the
    /// connection is closed), `truncated` (in the middle of the answer), or a status, with `Retry-After`
    /// behind a slash: `429/2`. WHICH are the requests that fit, counted from 1: `3`, `3-5`, `3-`.
    #[arg(long = "fault", value_name = "RULE", help_heading = "For testing")]
    faults: Vec<Rule>,
    /// Append a line of JSON for every request to this file
    #[arg(long, value_name = "FILE", help_heading = "For testing")]
    request_log: Option<PathBuf>,
    /// What the Miosa protocol leaves open, as pid-string or logs=lines; repeatable
    #[arg(
        long = "miosa",
        value_name = "SWITCH[=VALUE]",
        help_heading = "For testing"
    )]
    miosa: Vec<String>,
    /// How else the Pocketenv platform behaves, as lenient or initializing=3; repeatable
    ///
    /// `lenient` takes `{}` for no body. `empty-profile`: nobody's profile can be told. `initializing=N`: a
    /// new sandbox of another provider than cloudflare is told as INITIALIZING N times; `stuck`: it stays so.
    /// `silent-starts=N`: so many starts of services in a new sandbox are answered with 200 and not done.
    /// `rate=N`: so many requests are answered in 30 seconds, and the rest with 429.
    #[arg(
        long = "pocketenv",
        value_name = "SWITCH[=VALUE]",
        help_heading = "For testing"
    )]
    pocketenv: Vec<String>,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.0..=1.0).contains(rate));
    rate.ok_or_else(|| "a number from 0 to 1".to_owned())
}

fn token(text: &str) -> Result<SecretString, String> {
    match !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(SecretString::from(text)),
        false => Err("a token is made of letters, digits and signs, without spaces".to_owned()),
    }
}

fn isolation(text: &str) -> Result<IsolationWish, String> {
    serde_json::from_value(text.into()).map_err(|_| "auto, strict or none".to_owned())
}

/// Keeps other servers from the sandboxes of these tokens: each holds in memory what they are.
async fn lock(context: &Context, tokens: &[SecretString]) -> Result<Vec<StackLock>> {
    let mut locks = Vec::new();
    let accounts: BTreeSet<_> = tokens.iter().map(account_name).collect();
    for account in accounts {
        let path = context.lock_file(&account)?;
        let lock = StackLock::acquire(&path, "gabion serve", Duration::ZERO, |_| {}).await;
        locks.push(lock.map_err(|error| Error::Failed {
            message: format!("another server has the sandboxes of this token: {error}"),
            hint: Some("end it, use another --token or another GABION_HOME".to_owned()),
        })?);
    }
    Ok(locks)
}

pub async fn run(context: &Context, args: ServeArgs) -> Result<ExitCode> {
    if !args.listen.ip().is_loopback() && !args.insecure {
        return Err(Error::Usage {
            message: format!("{} can be reached from other machines", args.listen),
            hint: Some("listen on 127.0.0.1, or say --insecure".to_owned()),
        });
    }
    let wrong =
        |option: &'static str| move |message: String| Error::usage(format!("{option}: {message}"));
    let switches = Switches {
        miosa: miosa::Switches::read(&args.miosa).map_err(wrong("--miosa"))?,
        pocketenv: pocketenv::Switches::read(&args.pocketenv).map_err(wrong("--pocketenv"))?,
    };
    let _locks = lock(context, &args.tokens).await?;
    let mut settings = Settings::new(context.home()?, std::env::current_exe()?, args.tokens);
    settings.isolation = args.isolation;
    if let Some(lifetime) = args.pass_lifetime {
        settings.pass_lifetime = lifetime.0;
    }
    let mut faults = Faults::new(Plan {
        latency: args.latency.unwrap_or_default().0,
        fail: args.fail,
        seed: args.seed,
        rules: args.faults,
    });
    if let Some(path) = &args.request_log {
        faults = faults.logged_to(path)?;
    }
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let server = Server::bind(args.listen, &settings, Arc::new(faults), switches).await;
    let server = server.map_err(|error| Error::failed(error.to_string()))?;
    print(&format!("ready {}\n", server.engine().base_url()))?;
    server
        .run(async {
            tokio::select! {
                _ = interrupted.recv() => {}
                _ = terminated.recv() => {}
            }
        })
        .await;
    say(format_args!("ends; sandboxes go on"));
    Ok(ExitCode::SUCCESS)
}
