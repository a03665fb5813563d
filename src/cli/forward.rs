//! `gabion forward`: ports of a sandbox as ports of this machine.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::address::AddressArg;
use super::context::{Context, print, say};
use super::error::{Error, Result};
use super::progress::printable;
use super::target::Target;
use crate::model::SandboxName;
use crate::platforms::Act;

/// Between two tries to accept a connection, after one has failed.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion forward data 5432               127.0.0.1:5432 leads to port 5432 of `data`
  gabion forward data 15432:5432         another port here
  gabion forward data 0:5432             any free port here
  gabion forward web/api                 every port that the service declares

Listens on 127.0.0.1 only, until Ctrl-C. A connection that fails is told and
does not end the others.")]
pub struct ForwardArgs {
    /// The sandbox, or a service if it is about the ports that it declares
    #[arg(value_name = "ADDRESS", add = super::address::completer())]
    address: AddressArg,
    /// Which ports of the sandbox, each with another one for here before it if that is not the same
    #[arg(value_name = "[HERE:]PORT")]
    ports: Vec<Forwarded>,
}

/// A port of a sandbox, and the port here that leads to it; 0 is any that is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Forwarded {
    here: u16,
    there: u16,
}

impl FromStr for Forwarded {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (here, there) = text.split_once(':').unwrap_or((text, text));
        match (here.parse(), there.parse()) {
            (Ok(here), Ok(there @ 1..)) => Ok(Self { here, there }),
            _ => Err("write PORT or HERE:PORT, each up to 65535".to_owned()),
        }
    }
}

/// A connection that somebody has made here, and the port that it is for.
struct Connection {
    stream: TcpStream,
    port: u16,
}

pub async fn run(context: &Context, args: &ForwardArgs) -> Result<ExitCode> {
    let sandbox = args.address.sandbox();
    let target = Target::open(context, sandbox, None).await?;
    let platform = target.platform()?;
    if !platform.forwards_ports() {
        return Err(platform.cannot("carry connections to ports").into());
    }
    let ports = match args.ports.is_empty() {
        true => declared(&target, &args.address)?,
        false => args.ports.clone(),
    };
    let mut listeners = Vec::with_capacity(ports.len());
    for Forwarded { here, there } in ports {
        listeners.push((listen(here, &args.address, there).await?, there));
    }
    let (sender, mut connections) = mpsc::channel(1);
    for (listener, there) in listeners {
        print(&format!(
            "{} -> {sandbox}:{there}\n",
            listener.local_addr()?
        ))?;
        tokio::spawn(accept(listener, there, sender.clone()));
    }
    drop(sender);
    let mut carried = FuturesUnordered::new();
    loop {
        tokio::select! {
            connection = connections.recv() => match connection {
                Some(connection) => carried.push(carry(platform, sandbox, connection)),
                None => return Ok(ExitCode::SUCCESS),
            },
            Some(()) = carried.next() => {}
        }
    }
}

/// The ports that services of the sandbox declare, or that one of them does.
fn declared(target: &Target, address: &AddressArg) -> Result<Vec<Forwarded>> {
    let known = target.observed.known(&target.sandbox);
    let services = known.into_iter().flat_map(|it| &it.services);
    let asked = services.filter(|(name, _)| address.service().is_none_or(|it| it == *name));
    let specs = asked.filter_map(|(_, service)| service.spec());
    let mut ports: Vec<_> = specs.flat_map(|spec| spec.all_ports()).collect();
    ports.sort_unstable();
    ports.dedup();
    if ports.is_empty() {
        let text = format!("`{address}` declares no ports: name one");
        return Err(Error::usage(text));
    }
    let same = |port| Forwarded {
        here: port,
        there: port,
    };
    Ok(ports.into_iter().map(same).collect())
}

async fn listen(here: u16, address: &AddressArg, there: u16) -> Result<TcpListener> {
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, here));
    TcpListener::bind(at).await.map_err(|error| Error::Failed {
        message: format!("{at}: {error}"),
        hint: Some(format!(
            "gabion forward {address} 0:{there} takes any port that is free"
        )),
    })
}

async fn accept(listener: TcpListener, port: u16, to: mpsc::Sender<Connection>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if to.send(Connection { stream, port }).await.is_err() {
                    return;
                }
            }
            // There are no descriptors left, or the other side has gone already.
            Err(error) => {
                say(format_args!("port {port}: {error}"));
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn carry(platform: &dyn Act, sandbox: &SandboxName, connection: Connection) {
    let Connection { stream, port } = connection;
    if let Err(error) = platform.forward(sandbox, port, stream).await {
        let error = printable(&error.to_string());
        say(format_args!("{sandbox}:{port}: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read() {
        for (text, here, there) in [("80", 80, 80), ("8080:80", 8080, 80), ("0:80", 0, 80)] {
            assert_eq!(text.parse(), Ok(Forwarded { here, there }), "{text}");
        }
        for bad in ["", "0", "80:", ":80", "80:0", "1:2:3", "70000", "-1"] {
            assert!(bad.parse::<Forwarded>().is_err(), "{bad}");
        }
    }
}
