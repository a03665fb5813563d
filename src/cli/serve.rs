//! `gabion serve`: the platforms' own protocols over sandboxes on this machine.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use secrecy::SecretString;
use tokio::signal::unix::{SignalKind, signal};

use super::context::{Context, print, say};
use super::error::{Error, Result};
use crate::model::{HumanDuration, IsolationWish};
use crate::serve::{Faults, Server, Settings};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion serve --token dev           on a free port; the first line says which
  gabion serve --listen 127.0.0.1:8080 --token alice --token bob
  curl -H 'Authorization: Bearer alice' http://127.0.0.1:8080/v1/sprites

Every token is an account of its own. Sandboxes are real processes; they go on
when the server ends, and are there again when it is started with the same
token.")]
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
    /// How long every request takes on its way, as 50ms
    #[arg(long, value_name = "DURATION")]
    latency: Option<HumanDuration>,
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

pub async fn run(context: &Context, args: ServeArgs) -> Result<ExitCode> {
    if !args.listen.ip().is_loopback() && !args.insecure {
        return Err(Error::Usage {
            message: format!("{} can be reached from other machines", args.listen),
            hint: Some("listen on 127.0.0.1, or say --insecure".to_owned()),
        });
    }
    let settings = Settings {
        home: context.home()?,
        program: std::env::current_exe()?,
        tokens: args.tokens,
        isolation: args.isolation,
    };
    let faults = Faults::with_latency(args.latency.unwrap_or_default().0);
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let server = Server::bind(args.listen, &settings, Arc::new(faults)).await;
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
