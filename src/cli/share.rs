//! `gabion share` and `gabion unshare`: links that let others in. A link is a secret: it is told once, to whoever
//! has asked for it.

use std::process::ExitCode;

use jiff::tz::TimeZone;
use secrecy::ExposeSecret;

use super::address::AddressArg;
use super::context::{Context, print, print_json, say, table};
use super::error::{Error, Result};
use super::progress::printable;
use super::target::Target;
use crate::model::{Address, HumanDuration, SandboxName, ServiceName};
use crate::platforms::{Link, LinkId, LinkTo};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion share web                       a link to what the sandbox exposes
  gabion share web/api --expires-in 1h   one to a port of a service
  gabion share web --port 3000
  gabion share web --token               one that cannot be taken back
  gabion share web --list                which there are

Whoever has the link is let in, so it is printed only once, and no list shows
it. A port has one link, and has to be exposed first: see `gabion expose`.")]
pub struct ShareArgs {
    /// The sandbox, or a service of it for its port
    #[arg(value_name = "ADDRESS", add = super::address::completer())]
    address: AddressArg,
    /// Only this port
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// A link that is in no list and ends by itself
    #[arg(long, conflicts_with = "port")]
    token: bool,
    /// When it is to end
    #[arg(long, value_name = "TIME")]
    expires_in: Option<HumanDuration>,
    /// List the links of the sandbox instead, without what is secret of them
    #[arg(long, conflicts_with_all = ["port", "token", "expires_in"])]
    list: bool,
    /// With --list: print JSON
    #[arg(long, requires = "list")]
    json: bool,
}

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion unshare web 3fa8                by an id that `gabion share web --list` shows
  gabion unshare web --port 3000")]
pub struct UnshareArgs {
    /// The sandbox
    #[arg(value_name = "SANDBOX", add = super::address::completer())]
    sandbox: SandboxName,
    /// The link to the sandbox with this id
    #[arg(value_name = "ID", required_unless_present = "port")]
    id: Option<String>,
    /// The link to this port
    #[arg(long, value_name = "PORT", conflicts_with = "id",
          value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
}

impl ShareArgs {
    /// Whether it does more than to look.
    pub fn changes_something(&self) -> bool {
        !self.list
    }
}

pub async fn share(context: &Context, args: &ShareArgs) -> Result<ExitCode> {
    let sandbox = args.address.sandbox();
    let target = Target::open(context, sandbox, None).await?;
    if args.list {
        let links = target.platform()?.links(sandbox).await?;
        return list(context, args, &links);
    }
    let to = match (args.token, args.port, &args.address) {
        (true, _, _) => LinkTo::Passing,
        (false, Some(port), _) => LinkTo::Port(port),
        (false, None, Address::Sandbox(_)) => LinkTo::Sandbox,
        (false, None, Address::Service(service)) => {
            LinkTo::Port(port(&target, &service.service).await?)
        }
    };
    let time = args.expires_in.map(|time| time.0);
    let (link, url) = target.platform()?.share(sandbox, to, time).await?;
    print(&format!("{}\n", url.expose_secret()))?;
    let until = match link.expires_at {
        Some(_) => format!("it ends at {}", ends(&link)),
        None => "it does not end by itself".to_owned(),
    };
    let back = match (to, &link.id) {
        (LinkTo::Port(port), _) => format!("; gabion unshare {sandbox} --port {port}"),
        (LinkTo::Sandbox, Some(id)) => format!("; gabion unshare {sandbox} {}", printable(id)),
        (LinkTo::Sandbox, None) | (LinkTo::Passing, _) => String::new(),
    };
    say(format_args!("{sandbox}: {until}{back}"));
    Ok(ExitCode::SUCCESS)
}

pub async fn unshare(context: &Context, args: &UnshareArgs) -> Result<ExitCode> {
    let target = Target::open(context, &args.sandbox, None).await?;
    let link = match (&args.id, args.port) {
        (Some(id), _) => LinkId::Listed(id.clone()),
        (None, Some(port)) => LinkId::Port(port),
        (None, None) => return Ok(ExitCode::SUCCESS),
    };
    target.platform()?.unshare(&args.sandbox, &link).await?;
    Ok(ExitCode::SUCCESS)
}

fn list(context: &Context, args: &ShareArgs, links: &[Link]) -> Result<ExitCode> {
    if args.json {
        print_json(&serde_json::json!({ "version": 1, "links": links }))?;
    } else if links.is_empty() {
        print("There are none.\n")?;
    } else {
        let text = |text: &Option<String>| text.as_deref().map_or("–".to_owned(), printable);
        let rows = links
            .iter()
            .map(|link| [text(&link.id), text(&link.scope), ends(link)]);
        print(&table(context.color_stdout, ["ID", "SCOPE", "ENDS"], rows))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// When a link ends, for people.
fn ends(link: &Link) -> String {
    link.expires_at.map_or("–".to_owned(), |at| {
        let at = at.to_zoned(TimeZone::system());
        at.strftime("%Y-%m-%d %H:%M").to_string()
    })
}

/// The first port of a service.
async fn port(target: &Target, service: &ServiceName) -> Result<u16> {
    let sandbox = &target.sandbox;
    let endpoints = target.platform()?.endpoints(sandbox).await?;
    let mut own = endpoints
        .iter()
        .filter(|it| it.service.as_ref() == Some(service));
    own.next().map(|it| it.port).ok_or_else(|| Error::Failed {
        message: format!("`{sandbox}/{service}` declares no port"),
        hint: Some("declare it with `ports:`".to_owned()),
    })
}
