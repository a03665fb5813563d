//! `gabion status`: the state of every service.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use comfy_table::{Table, presets};
use jiff::Timestamp;
use serde::Serialize;

use super::address::AddressArg;
use super::context::{Context, paint, print};
use super::error::Result;
use crate::model::{
    Address, Desired, Exit, HumanDuration, Isolation, Listing, Observed, ObservedService, Repo,
    SandboxName, SandboxSpec, SandboxState, ServiceAddress, ServiceKind, ServiceSpec, ServiceState,
    Volumes, show_duration,
};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion status
  gabion status web
  gabion status --json | jq '.services[] | select(.ready | not)'")]
pub struct StatusArgs {
    /// Show only these sandboxes and services
    #[arg(value_name = "ADDRESS", add = super::address::completer())]
    addresses: Vec<AddressArg>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The shape of `--json`.
#[derive(Serialize)]
struct Status {
    version: u32,
    stack: String,
    sandboxes: Vec<SandboxRow>,
    services: Vec<ServiceRow>,
}

#[derive(Serialize)]
struct SandboxRow {
    name: SandboxName,
    platform: String,
    /// `running`, `stopped`, `absent` or `unknown`.
    state: &'static str,
    isolation: Option<Isolation>,
    keeper_pid: Option<u32>,
    supervisor_pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    topics: Vec<String>,
    /// Without the password in its URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    repo: Option<Repo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_alive: Option<HumanDuration>,
    #[serde(skip_serializing_if = "Volumes::is_empty")]
    volumes: Volumes,
    /// The paths of those that the platform writes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    files: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

#[derive(Serialize)]
struct ServiceRow {
    address: ServiceAddress,
    kind: ServiceKind,
    /// A service state, or `absent`.
    state: String,
    /// `null` for tasks.
    ready: Option<bool>,
    pid: Option<u32>,
    ports: Vec<u16>,
    started_at: Option<Timestamp>,
    restarts: u32,
    last_exit: Option<Exit>,
    next_restart_at: Option<Timestamp>,
    message: Option<String>,
    /// Whether the manifest still names it.
    in_manifest: bool,
}

pub async fn run(context: &Context, args: &StatusArgs) -> Result<ExitCode> {
    let (loaded, desired) = context.load_stack()?;
    let mut platforms = context.platforms(&loaded, &desired.stack)?;
    let observed = context.observe(&mut platforms, &desired).await?;
    let only = super::address::resolve(&args.addresses, &desired, &observed)?;
    let status = collect(&desired, &observed, &only);
    if args.json {
        let json = serde_json::to_string_pretty(&status);
        print(&format!("{}\n", json.map_err(std::io::Error::from)?))?;
    } else {
        print(&table(&status, context))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn collect(desired: &Desired, observed: &Observed, only: &[Address]) -> Status {
    let shown =
        |address: &ServiceAddress| only.is_empty() || only.iter().any(|a| a.covers(address));
    let names: BTreeSet<&SandboxName> = desired
        .sandboxes
        .keys()
        .chain(observed.sandboxes.keys())
        .collect();
    let mut status = Status {
        version: 1,
        stack: desired.stack.clone(),
        sandboxes: Vec::new(),
        services: Vec::new(),
    };
    for name in names {
        if only.is_empty() || only.iter().any(|address| address.sandbox() == name) {
            status.sandboxes.push(sandbox_row(name, desired, observed));
        }
        let there = observed.known(name).map(|sandbox| &sandbox.services);
        let wanted = desired.sandboxes.get(name).map(|sandbox| &sandbox.services);
        let services: BTreeSet<_> = there
            .into_iter()
            .flat_map(|services| services.keys())
            .chain(wanted.into_iter().flat_map(|services| services.keys()))
            .collect();
        for service in services {
            let address = ServiceAddress::new(name.clone(), service.clone());
            if shown(&address) {
                let there = there.and_then(|services| services.get(service));
                let unknown = matches!(observed.sandboxes.get(name), Some(Listing::Unknown { .. }));
                let spec = wanted
                    .and_then(|services| services.get(service))
                    .map(AsRef::as_ref);
                status
                    .services
                    .push(service_row(address, spec, there, unknown));
            }
        }
    }
    status
}

fn sandbox_row(name: &SandboxName, desired: &Desired, observed: &Observed) -> SandboxRow {
    let wanted = desired.sandboxes.get(name);
    let mut row = SandboxRow {
        name: name.clone(),
        platform: wanted.map_or_else(|| "local".to_owned(), |s| s.spec.platform.clone()),
        state: "absent",
        isolation: None,
        keeper_pid: None,
        supervisor_pid: None,
        description: None,
        topics: Vec::new(),
        repo: None,
        keep_alive: None,
        volumes: Volumes::new(),
        files: Vec::new(),
        message: None,
    };
    if let Some(wanted) = wanted {
        row.describe(&wanted.spec);
    }
    match observed.sandboxes.get(name) {
        None => {}
        Some(Listing::Unknown { reason }) => {
            row.state = "unknown";
            row.message = Some(reason.clone());
        }
        Some(Listing::Known(sandbox)) => {
            row.platform.clone_from(&sandbox.spec.platform);
            row.state = match sandbox.state {
                SandboxState::Running => "running",
                SandboxState::Stopped => "stopped",
            };
            row.isolation = sandbox.isolation;
            row.keeper_pid = sandbox.keeper_pid;
            row.supervisor_pid = sandbox.supervisor_pid;
            row.describe(&sandbox.spec);
        }
    }
    row
}

impl SandboxRow {
    /// What it has and what is said of it, on one line.
    fn about(&self) -> Option<String> {
        let isolation = self.isolation.filter(|_| self.state == "running");
        let isolation = isolation.map(|isolation| match isolation {
            Isolation::Strict => "isolation strict".to_owned(),
            Isolation::None => "isolation none".to_owned(),
        });
        let topics =
            (!self.topics.is_empty()).then(|| format!("topics {}", self.topics.join(", ")));
        let repo = self.repo.as_ref().map(|repo| match &repo.reference {
            Some(reference) => format!("repo {} ({reference})", repo.url),
            None => format!("repo {}", repo.url),
        });
        let keep_alive = self.keep_alive.map(|time| format!("keep alive {time}"));
        let volumes = self.volumes.iter();
        let volumes: Vec<_> = volumes
            .map(|(name, path)| format!("{name}={path}"))
            .collect();
        let volumes = (!volumes.is_empty()).then(|| format!("volumes {}", volumes.join(", ")));
        let files = (!self.files.is_empty()).then(|| format!("files {}", self.files.join(", ")));
        let parts = [
            isolation,
            self.description.clone(),
            topics,
            repo,
            keep_alive,
            volumes,
            files,
        ];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        let about = (!parts.is_empty()).then(|| parts.join("; "))?;
        Some(super::progress::printable(&about))
    }

    fn describe(&mut self, spec: &SandboxSpec) {
        self.description.clone_from(&spec.description);
        self.topics.clone_from(&spec.topics);
        self.repo = spec.repo.as_ref().map(|repo| Repo {
            url: repo.shown_url(),
            ..repo.clone()
        });
        self.keep_alive = spec.keep_alive;
        self.volumes.clone_from(&spec.volumes);
        self.files = spec.files.keys().cloned().collect();
    }
}

fn service_row(
    address: ServiceAddress,
    wanted: Option<&ServiceSpec>,
    there: Option<&ObservedService>,
    unknown: bool,
) -> ServiceRow {
    let spec = wanted.or_else(|| there.and_then(|service| service.spec().map(AsRef::as_ref)));
    let kind = spec.map_or(ServiceKind::Service, |spec| spec.kind);
    let state = match there {
        Some(service) if kind == ServiceKind::Task && service.state == ServiceState::Starting => {
            "running"
        }
        Some(service) => service.state.word(),
        None if unknown => "unknown",
        None => "absent",
    };
    ServiceRow {
        address,
        kind,
        state: state.to_owned(),
        ready: (kind == ServiceKind::Service)
            .then(|| there.is_some_and(|service| service.state == ServiceState::Running)),
        pid: there.and_then(|service| service.pid),
        ports: spec
            .map(|spec| spec.all_ports().collect())
            .unwrap_or_default(),
        started_at: there.and_then(|service| service.started_at),
        restarts: there.map_or(0, |service| service.restarts),
        last_exit: there.and_then(|service| service.last_exit.clone()),
        next_restart_at: there.and_then(|service| service.next_restart_at),
        message: there.and_then(|service| service.message.clone()),
        in_manifest: wanted.is_some(),
    }
}

fn table(status: &Status, context: &Context) -> String {
    if status.sandboxes.iter().all(|row| row.state == "absent") {
        return format!(
            "{}: nothing is there yet. Make it with: gabion apply\n",
            status.stack
        );
    }
    let now = Timestamp::now();
    let rows: Vec<_> = status.services.iter().map(|row| cells(row, now)).collect();
    let fits = |text: &str| {
        let widest = text.lines().map(|line| line.trim_end().chars().count());
        !std::io::stdout().is_terminal() || widest.max() <= Some(context.width_stdout())
    };
    let says = |at: usize| rows.iter().any(|row| row[at] != "–" && row[at] != "0");
    // Columns that say nothing make room for those that do, and the gaps after them.
    let text = [set(&rows, |_| true, 2), set(&rows, says, 2)];
    let text = text.into_iter().find(|text| fits(text));
    let text = text.unwrap_or_else(|| set(&rows, says, 1));
    let mut out = String::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_end();
        let line = match index
            .checked_sub(1)
            .and_then(|index| status.services.get(index))
        {
            None => paint(context.color_stdout, anstyle::Style::new().bold(), line),
            Some(row) => paint(context.color_stdout, row_style(row), line),
        };
        out.push_str(&line);
        out.push('\n');
    }
    for row in &status.sandboxes {
        if let Some(about) = row.about() {
            out.push_str(&format!("sandbox {}: {about}\n", row.name));
        }
    }
    for row in status.sandboxes.iter().filter(|row| row.state != "running") {
        let message = row.message.as_deref().unwrap_or_default();
        let gap = if message.is_empty() { "" } else { ": " };
        out.push_str(&format!(
            "sandbox {} is {}{gap}{message}\n",
            row.name, row.state
        ));
    }
    for row in &status.services {
        // Why it is not ready, why it was restarted, or what it says of itself.
        if let Some(message) = row.message.as_ref() {
            let message = super::progress::printable(message);
            let next = row.next_restart_at.filter(|next| *next > now);
            let next = next.map_or_else(String::new, |next| {
                let left = Duration::try_from(next.duration_since(now)).unwrap_or_default();
                format!("; next try in {}", show_duration(left))
            });
            out.push_str(&format!("{}: {message}{next}\n", row.address));
        }
        if !row.in_manifest && status.services.iter().any(|row| row.in_manifest) {
            out.push_str(&format!(
                "{}: not in the manifest; apply deletes it\n",
                row.address
            ));
        }
    }
    out
}

const COLUMNS: [&str; 8] = [
    "SERVICE",
    "STATE",
    "READY",
    "PID",
    "PORTS",
    "UP",
    "RESTARTS",
    "LAST EXIT",
];

/// The rows as a table of the columns that are wanted.
fn set(rows: &[[String; 8]], wanted: impl Fn(usize) -> bool, gap: u16) -> String {
    let columns: Vec<usize> = (0..COLUMNS.len()).filter(|at| wanted(*at)).collect();
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(columns.iter().map(|at| COLUMNS[*at]));
    for row in rows {
        table.add_row(columns.iter().map(|at| &row[*at]));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, gap));
    }
    table.to_string()
}

fn row_style(row: &ServiceRow) -> anstyle::Style {
    use anstyle::AnsiColor;
    match row.state.as_str() {
        "running" | "completed" => anstyle::Style::new(),
        "failed" => AnsiColor::Red.on_default(),
        "stopped" | "absent" => anstyle::Style::new().dimmed(),
        _ => AnsiColor::Yellow.on_default(),
    }
}

fn cells(row: &ServiceRow, now: Timestamp) -> [String; 8] {
    let dash = || "–".to_owned();
    let since =
        |at: Timestamp| show_age(Duration::try_from(now.duration_since(at)).unwrap_or_default());
    let ports: Vec<String> = row.ports.iter().map(ToString::to_string).collect();
    let last_exit = row
        .last_exit
        .as_ref()
        .map_or_else(dash, |exit| format!("{exit}, {} ago", since(exit.at)));
    [
        row.address.to_string(),
        row.state.clone(),
        row.ready
            .map_or_else(dash, |ready| if ready { "yes" } else { "no" }.to_owned()),
        row.pid.map_or_else(dash, |pid| pid.to_string()),
        if ports.is_empty() {
            dash()
        } else {
            ports.join(",")
        },
        row.started_at
            .filter(|_| row.pid.is_some())
            .map_or_else(dash, since),
        row.restarts.to_string(),
        last_exit,
    ]
}

/// An age in whole units: `41s`, `2h 4m`.
fn show_age(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..60 => format!("{seconds}s"),
        _ => show_duration(age),
    }
}
