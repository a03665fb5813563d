//! `gabion ports` and `gabion url`: where services are reached. `gabion expose`, `unexpose` and
//! `vscode`: what makes them reachable.

use std::process::ExitCode;

use serde::Serialize;

use super::address::AddressArg;
use super::context::{Context, print, print_json, say, table};
use super::error::{Error, Result};
use super::target::Target;
use crate::model::{Address, Listing, SandboxName};
use crate::platforms::Endpoint;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion ports
  gabion ports web
  gabion ports web/api --json")]
pub struct PortsArgs {
    /// Only these sandboxes and services
    #[arg(value_name = "ADDRESS", add = super::address::completer())]
    addresses: Vec<AddressArg>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion url web/api
  curl \"$(gabion url web/api)/healthz\"
  gabion url web --port 8080")]
pub struct UrlArgs {
    /// The service, or the sandbox if one of its ports is reached
    #[arg(value_name = "ADDRESS", add = super::address::completer())]
    address: AddressArg,
    /// Which of its ports; the first without it
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
}

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion expose web 3000
  gabion expose web 3000 --description 'the shop'")]
pub struct ExposeArgs {
    /// The sandbox
    #[arg(value_name = "SANDBOX", add = super::address::completer())]
    sandbox: SandboxName,
    /// The port inside it
    #[arg(value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Free text, where the platform keeps one
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
}

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion unexpose web 3000")]
pub struct UnexposeArgs {
    /// The sandbox
    #[arg(value_name = "SANDBOX", add = super::address::completer())]
    sandbox: SandboxName,
    /// The port inside it
    #[arg(value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
}

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion vscode web                      opens the platform's editor, prints its URL

On this machine the editor is a service: see `vscode:` in the manifest.")]
pub struct VscodeArgs {
    /// The sandbox
    #[arg(value_name = "SANDBOX", add = super::address::completer())]
    sandbox: SandboxName,
}

/// One row, and one element of `--json`.
#[derive(Serialize)]
struct Row {
    sandbox: SandboxName,
    #[serde(flatten)]
    endpoint: Endpoint,
}

pub async fn ports(context: &Context, args: &PortsArgs) -> Result<ExitCode> {
    let rows = rows(context, &args.addresses).await?;
    if args.json {
        print_json(&serde_json::json!({ "version": 1, "ports": rows }))?;
    } else if rows.is_empty() {
        print("No ports are declared or exposed.\n")?;
    } else {
        let dash = || "–".to_owned();
        let cells = rows.iter().map(|row| {
            let service = row.endpoint.service.as_ref();
            [
                service.map_or_else(
                    || row.sandbox.to_string(),
                    |it| format!("{}/{it}", row.sandbox),
                ),
                row.endpoint.port.to_string(),
                row.endpoint.url.clone().unwrap_or_else(dash),
            ]
        });
        let heading = ["ADDRESS", "PORT", "URL"];
        print(&table(context.color_stdout, heading, cells))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub async fn url(context: &Context, args: &UrlArgs) -> Result<ExitCode> {
    let address = &args.address;
    let rows = rows(context, std::slice::from_ref(address)).await?;
    let wanted = |row: &&Row| args.port.is_none_or(|port| port == row.endpoint.port);
    let reached: Vec<_> = rows.iter().filter(wanted).collect();
    let url = reached.iter().find_map(|row| row.endpoint.url.as_deref());
    let url = url.ok_or_else(|| {
        let (what, hint) = match (reached.first(), args.port) {
            (Some(row), _) => (
                format!("port {} of `{address}` is not exposed", row.endpoint.port),
                format!("gabion expose {} {}", row.sandbox, row.endpoint.port),
            ),
            (None, Some(port)) => (
                format!("`{address}` has no port {port}"),
                format!("gabion ports {address}"),
            ),
            (None, None) => (
                format!("`{address}` declares no port"),
                "declare it with `ports:`".to_owned(),
            ),
        };
        Error::Failed {
            message: what,
            hint: Some(hint),
        }
    })?;
    print(&format!("{url}\n"))?;
    Ok(ExitCode::SUCCESS)
}

async fn rows(context: &Context, addresses: &[Address]) -> Result<Vec<Row>> {
    let (loaded, desired) = context.load_stack()?;
    let mut platforms = context.platforms(&loaded, &desired.stack)?;
    let observed = context.observe(&mut platforms, &desired).await?;
    let only = super::address::resolve(addresses, &desired, &observed)?;
    let mut rows = Vec::new();
    for (sandbox, listing) in &observed.sandboxes {
        if !only.is_empty() && !only.iter().any(|it| it.sandbox() == sandbox) {
            continue;
        }
        if let Listing::Unknown { reason } = listing {
            say(format_args!("note: `{sandbox}` cannot be read: {reason}"));
            continue;
        }
        let endpoints = platforms.of(sandbox)?.endpoints(sandbox).await?;
        let shown = endpoints.into_iter().filter(|endpoint| {
            only.is_empty()
                || only.iter().any(|it| {
                    it.sandbox() == sandbox
                        && it
                            .service()
                            .is_none_or(|it| endpoint.service.as_ref() == Some(it))
                })
        });
        rows.extend(shown.map(|endpoint| Row {
            sandbox: sandbox.clone(),
            endpoint,
        }));
    }
    Ok(rows)
}

pub async fn expose(context: &Context, args: &ExposeArgs) -> Result<ExitCode> {
    let target = Target::open(context, &args.sandbox, None).await?;
    let platform = target.platform()?;
    let description = args.description.as_deref();
    let endpoint = platform
        .expose(&args.sandbox, args.port, description)
        .await?;
    match endpoint.url {
        Some(url) => print(&format!("{url}\n"))?,
        None => say(format_args!(
            "port {} is exposed; where, is not known yet",
            args.port
        )),
    }
    Ok(ExitCode::SUCCESS)
}

pub async fn unexpose(context: &Context, args: &UnexposeArgs) -> Result<ExitCode> {
    let target = Target::open(context, &args.sandbox, None).await?;
    target
        .platform()?
        .unexpose(&args.sandbox, args.port)
        .await?;
    Ok(ExitCode::SUCCESS)
}

pub async fn vscode(context: &Context, args: &VscodeArgs) -> Result<ExitCode> {
    let target = Target::open(context, &args.sandbox, None).await?;
    let url = target.platform()?.open_editor(&args.sandbox).await?;
    print(&format!("{url}\n"))?;
    Ok(ExitCode::SUCCESS)
}
