//! `gabion show ADDRESS`: everything that is known of one sandbox or service.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::address::AddressArg;
use super::context::{Context, print, print_json};
use super::error::{Error, Result};
use super::target::Target;
use crate::model::{
    Address, Definition, ObservedSandbox, ObservedService, Repo, SandboxSpec, SandboxState,
    ServiceAddress,
};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion show web                        the sandbox: definition, state, ports
  gabion show web/api                    the service
  gabion show web/api --json | jq .pid

It shows what is there, not what the manifest wants. Values of secrets are not
part of a definition.")]
pub struct ShowArgs {
    /// The sandbox or service
    #[arg(value_name = "ADDRESS", add = super::address::completer())]
    address: AddressArg,
    /// Print JSON instead of YAML
    #[arg(long)]
    json: bool,
}

pub async fn run(context: &Context, args: &ShowArgs) -> Result<ExitCode> {
    let sandbox = args.address.sandbox();
    let target = Target::open(context, sandbox, None).await?;
    let there = target
        .observed
        .known(sandbox)
        .ok_or_else(|| Error::failed(format!("`{sandbox}` cannot be read: see gabion status")))?;
    let shown = match &args.address {
        Address::Sandbox(_) => {
            let mut shown = of_sandbox(sandbox.as_str(), there);
            // Not every platform can tell.
            if let Ok(endpoints) = target.platform()?.endpoints(sandbox).await {
                shown["ports"] = json!(endpoints);
            }
            if let Ok(Some(check)) = target.platform()?.check(sandbox).await {
                shown["check"] = json!(check);
            }
            if let Ok(Some(usage)) = target.platform()?.usage(sandbox).await {
                shown["usage"] = json!(usage);
            }
            shown
        }
        Address::Service(address) => {
            let service = there.services.get(&address.service);
            let service = service.ok_or_else(|| Error::Failed {
                message: format!("service `{address}` is not there yet"),
                hint: Some("gabion apply makes it".to_owned()),
            })?;
            of_service(address, service)
        }
    };
    if args.json {
        print_json(&shown)?;
    } else {
        let text = serde_yaml::to_string(&shown);
        print(&text.map_err(|error| Error::failed(error.to_string()))?)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn of_sandbox(name: &str, there: &ObservedSandbox) -> Value {
    let spec = SandboxSpec {
        repo: there.spec.repo.as_ref().map(|repo| Repo {
            url: repo.shown_url(),
            ..repo.clone()
        }),
        ..(*there.spec).clone()
    };
    let services = there.services.iter();
    let services = services.map(|(name, service)| (name.to_string(), json!(service.state.word())));
    json!({
        "address": name,
        "platform": there.spec.platform,
        "state": match there.state {
            SandboxState::Running => "running",
            SandboxState::Stopped => "stopped",
        },
        "isolation": there.isolation,
        "definition": spec,
        "services": Value::Object(services.collect()),
    })
}

fn of_service(address: &ServiceAddress, there: &ObservedService) -> Value {
    json!({
        "address": address,
        "state": there.state.word(),
        "pid": there.pid,
        "started_at": there.started_at,
        "restarts": there.restarts,
        "last_exit": there.last_exit,
        "next_restart_at": there.next_restart_at,
        "message": there.message,
        "stale": there.stale,
        "definition": match &there.definition {
            Definition::Echo(spec) | Definition::Fixed(spec) => json!(**spec),
            Definition::Unknown => Value::Null,
        },
    })
}
