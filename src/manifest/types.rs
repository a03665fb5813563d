//! The grammar: every field of a manifest, described once. The JSON Schema and the field reference
//! are generated from these types and their doc comments.
//!
//! A type here says what may be written. What it means (defaults, sugar, references) is decided in
//! `lower`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::json;

use super::field::{Dict, Either, Field, List};
use crate::model::{
    Condition, Cores, HumanDuration, IsolationWish, RestartPolicy, SandboxGoal, Scheme,
    ServiceGoal, ServiceKind, StatusRange, WatchAction,
};

/// The rule for names, as the schema of a map's keys.
const NAMES: Pattern = Pattern {
    pattern: "^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$",
};

#[derive(serde::Serialize)]
struct Pattern {
    pattern: &'static str,
}

/// A gabion manifest: sandboxes and the services in them.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["version"]))]
pub(super) struct Manifest {
    /// The version of this grammar. Required.
    pub version: Field<Version>,
    /// The stack's name: the owner mark on everything it creates. Default: the name of the folder
    /// that holds the manifest.
    pub stack: Field<Name>,
    /// Where sandboxes live, by a name of your choice. `local` needs no entry.
    #[schemars(extend("propertyNames" = NAMES))]
    pub platforms: Field<Dict<Platform>>,
    /// Where secret values come from, by name. Used as `${secret.name}` in `env` values, in
    /// texts of `files` and in platform settings; the values never reach a plan, a log, an argument or a file.
    #[schemars(extend("propertyNames" = NAMES))]
    pub secrets: Field<Dict<SecretSource>>,
    /// Variables with their defaults, used as `${var.name}` and set with `--var name=value`. A
    /// variable without a default has to be set.
    #[schemars(extend("propertyNames" = NAMES))]
    pub vars: Field<Dict<Text>>,
    /// What every sandbox and service starts from.
    pub defaults: Field<Defaults>,
    /// The sandboxes, by name.
    #[schemars(extend("propertyNames" = NAMES))]
    pub sandboxes: Field<Dict<Sandbox>>,
}

/// Where a secret's value comes from: exactly one of the fields.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SecretSource {
    /// The environment variable that holds it.
    pub env: Field<String>,
    /// The file that holds it, relative to the manifest; one newline at its end is left out.
    pub file: Field<String>,
}

/// What every sandbox and service starts from.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Defaults {
    /// The platform of sandboxes that name none. Default: `local`.
    pub platform: Field<String>,
    /// The isolation of sandboxes that name none.
    pub isolation: Field<IsolationWish>,
    /// The `hide` of sandboxes that have none.
    pub hide: Field<List<String>>,
    /// Environment of every service.
    pub env: Field<Dict<Text>>,
    /// The restart rule of services that have none.
    pub restart: Field<Either<RestartPolicy, RestartRule>>,
    /// How services are stopped that do not say it.
    pub stop: Field<StopRule>,
    /// What services may use at most that do not say it.
    pub limits: Field<LimitsRule>,
}

/// An isolated place that runs commands and hosts services.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Sandbox {
    /// The platform that it lives on: a name from `platforms`, or a kind such as `local`.
    pub platform: Field<String>,
    /// Its name on the platform. Default: `<stack>-<sandbox>`.
    pub name: Field<String>,
    /// The image, template or base that it is created from.
    pub base: Field<String>,
    /// Free text for people.
    pub description: Field<String>,
    /// Labels for people.
    pub topics: Field<List<String>>,
    /// A git repository that is cloned when the sandbox starts.
    pub repo: Field<Either<String, RepoRule>>,
    /// How long the platform keeps it when idle.
    pub keep_alive: Field<HumanDuration>,
    /// Virtual processors.
    pub vcpus: Field<Count>,
    /// Memory, such as `512Mi` or `2Gi`.
    pub memory: Field<Size>,
    /// Disk, such as `10Gi`.
    pub disk: Field<Size>,
    /// Disks that outlive what runs in it: the absolute path that each is mounted at, by its name. They are
    /// mounted when it starts, so a change stops and starts it.
    #[schemars(extend("propertyNames" = NAMES))]
    pub volumes: Field<Dict<String>>,
    /// Files that the platform writes when it starts it, by their absolute paths: a text, or where it is. Contents
    /// are kept as secrets. A change stops and starts it.
    pub files: Field<Dict<Either<Text, FileRule>>>,
    /// Environment of everything in it.
    pub env: Field<Dict<Text>>,
    /// The folder that its services run in, relative to the manifest. Default: a private folder.
    pub workspace: Field<String>,
    /// How much it is kept apart from the machine.
    pub isolation: Field<IsolationWish>,
    /// Paths that its services cannot see, absolute or relative to the manifest.
    pub hide: Field<List<String>>,
    /// Paths besides the workspace that its services may write to, absolute or relative to the
    /// manifest.
    pub writable: Field<List<String>>,
    /// What makes checkpoints of it consistent.
    pub checkpoint: Field<CheckpointRule>,
    /// An editor server: `true` for the platform's own, or a command, which becomes a service called
    /// `vscode`. Default: none.
    pub vscode: Field<Either<Flag, VscodeRule>>,
    /// Whether its public URL can be opened by anybody. Default: only with the account's token.
    pub public: Field<Flag>,
    /// What has to be ready before anything in it starts: a sandbox, or `sandbox/service`.
    pub needs: Field<List<Either<String, NeedRule>>>,
    /// Whether deleting it is refused.
    pub protect: Field<Flag>,
    /// Whether it should be up. Default: `running`.
    pub state: Field<SandboxGoal>,
    /// Leave it out unless one of these profiles is selected.
    pub profiles: Field<List<String>>,
    /// Its services and tasks, by name.
    #[schemars(extend("propertyNames" = NAMES))]
    pub services: Field<Dict<Box<Service>>>,
}

/// A long-running process, or a task that runs once. Has either `cmd` or `command`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Service {
    /// A service runs until it is stopped; a task runs once and has to exit 0.
    pub kind: Field<ServiceKind>,
    /// The program, executed without a shell; looked up in `PATH` if it has no slash.
    pub cmd: Field<Text>,
    /// The arguments of `cmd`.
    pub args: Field<List<Text>>,
    /// A line for `/bin/sh -c`, instead of `cmd` and `args`.
    pub command: Field<String>,
    /// Environment variables. The place for secrets: `${secret.name}`.
    pub env: Field<Dict<Text>>,
    /// Files of `KEY=VALUE` lines, relative to the manifest. Their values are kept as secrets;
    /// `env` wins over them.
    pub env_file: Field<Either<String, List<String>>>,
    /// Working directory, relative to the workspace. Default: the workspace.
    pub working_dir: Field<String>,
    /// The user that it runs as.
    pub user: Field<Text>,
    /// What it may use at most, with everything it starts.
    pub limits: Field<LimitsRule>,
    /// Whether its standard streams are a pseudo-terminal.
    pub tty: Field<Flag>,
    /// Whether its standard input stays open, for others to write to.
    pub stdin_open: Field<Flag>,
    /// TCP ports that it listens on.
    pub ports: Field<List<Port>>,
    /// The port that the sandbox's public URL leads to; one service of a sandbox can have it. On this
    /// machine, a port like those in `ports`.
    pub http_port: Field<Port>,
    /// Short for `health: { tcp: PORT }`.
    pub health_port: Field<Port>,
    /// How it is found out that it is ready. Without, it is ready once it was started.
    pub health: Field<HealthRule>,
    /// What has to be up before it starts: a service of the same sandbox, or `sandbox/service`.
    pub needs: Field<List<Either<String, NeedRule>>>,
    /// Whether it runs in a container of its own, on this machine's network, without volumes. `cmd` and
    /// `args` replace the image's entry point and command; `env` is laid over the image's.
    pub container: Field<Flag>,
    /// The OCI image of the container; pulled if it is missing, and not again after that.
    pub image: Field<String>,
    /// Free text for people.
    pub description: Field<String>,
    /// What happens when it exits by itself. Default: `on-failure`.
    pub restart: Field<Either<RestartPolicy, RestartRule>>,
    /// How it is stopped.
    pub stop: Field<StopRule>,
    /// For a task, how long it may run; for a service, how long it may take to become ready.
    pub timeout: Field<HumanDuration>,
    /// Whether it should run. Default: `running`.
    pub state: Field<ServiceGoal>,
    /// What `gabion watch` does when files change.
    pub watch: Field<List<WatchEntry>>,
    /// Leave it out unless one of these profiles is selected.
    pub profiles: Field<List<String>>,
}

/// The content of a file that is not in the manifest.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["from"]))]
pub(super) struct FileRule {
    /// A file of text, relative to the manifest; nothing is put into it. Required.
    pub from: Field<String>,
}

/// A git repository in full.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["url"]))]
pub(super) struct RepoRule {
    /// Where it is cloned from: a URL, `user@host:path`, or a path relative to the manifest. Required.
    pub url: Field<String>,
    /// The branch, tag or commit. Default: what the repository's `HEAD` points to.
    pub r#ref: Field<String>,
    /// How many commits of its history are fetched. Default: all.
    pub depth: Field<Count>,
}

/// What is done around a checkpoint, so that what is copied is consistent.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct CheckpointRule {
    /// A program, or a shell line, run in the sandbox before. If it fails, so does the checkpoint.
    pub before: Field<Either<String, List<Text>>>,
    /// A program, or a shell line, run in the sandbox after, whether the checkpoint succeeded or not.
    pub after: Field<Either<String, List<Text>>>,
    /// Whether its processes are held while files are copied. Default: true.
    pub freeze: Field<Flag>,
}

/// An editor server with a command of its own.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["command"]))]
pub(super) struct VscodeRule {
    /// A program with its arguments, or a shell line. Required.
    pub command: Field<Either<String, List<Text>>>,
    /// The port that it listens on; it is ready once it accepts connections.
    pub port: Field<Port>,
}

/// What a service may use at most, with everything it starts.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LimitsRule {
    /// Memory, such as `512Mi`.
    pub memory: Field<Size>,
    /// Processor cores, such as `1.5`.
    pub cpu: Field<Cpu>,
    /// Open files of each process.
    pub files: Field<Count>,
    /// Processes and threads at a time.
    pub processes: Field<Count>,
}

/// A health check: exactly one of `tcp`, `http`, `exec`, `log` and `notify`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct HealthRule {
    /// A TCP connection to this port is accepted.
    pub tcp: Field<Either<Port, TcpRule>>,
    /// `GET` answers with a good status.
    pub http: Field<HttpRule>,
    /// A program, or a shell line, exits 0.
    pub exec: Field<Either<String, List<Text>>>,
    /// A line of output contains this text.
    pub log: Field<String>,
    /// It says so itself: `READY=1` to the socket in `NOTIFY_SOCKET`, as `systemd-notify --ready`
    /// does. `STATUS=` is shown. Once it has sent `WATCHDOG=1`, it has to send it again within
    /// `interval` times `retries`; with `restart`, that time is in `WATCHDOG_USEC`.
    pub notify: Field<Flag>,
    /// How long it may take to become ready. Default: `30s`.
    pub timeout: Field<HumanDuration>,
    /// Time between checks once it is ready. Default: `5s`.
    pub interval: Field<HumanDuration>,
    /// Time from its start in which failed checks do not count. It is awaited for at least so long.
    /// Default: `0s`.
    pub start_period: Field<HumanDuration>,
    /// How long one check may take. Default: `5s`.
    pub probe_timeout: Field<HumanDuration>,
    /// Failed checks in a row that make it unhealthy. Default: `3`.
    pub retries: Field<Count>,
    /// Stop it when it is unhealthy and start it again, as its restart rule says. Default: `false`.
    pub restart: Field<Flag>,
}

/// A TCP check.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["port"]))]
pub(super) struct TcpRule {
    /// The port. Required.
    pub port: Field<Port>,
}

/// An HTTP check.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["port"]))]
pub(super) struct HttpRule {
    /// The port. Required.
    pub port: Field<Port>,
    /// The path. Default: `/`.
    pub path: Field<String>,
    /// `http`, or `https` with any certificate: only this machine is asked. Default: `http`.
    pub scheme: Field<Scheme>,
    /// The good statuses: one, a range such as `200-399`, or a list of them. Default: `200-399`.
    pub status: Field<Either<Status, List<Status>>>,
    /// A text that the body has to contain, within its first megabyte.
    pub body: Field<String>,
    /// Headers to send.
    pub headers: Field<Dict<Text>>,
    /// The host name that is asked for, in the `Host` header and to TLS. Default: `localhost`.
    pub host: Field<String>,
}

/// A need in full.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["service"]))]
pub(super) struct NeedRule {
    /// What is needed: a service of the same sandbox, or `sandbox/service`. Required.
    pub service: Field<String>,
    /// How far it has to have come. Default: `completed` for a task, `ready` for a service.
    pub condition: Field<Condition>,
    /// Stop before, and start again after, whenever the needed service is stopped or replaced.
    pub restart: Field<Flag>,
}

/// A restart rule in full.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RestartRule {
    /// When it is started again. Default: `on-failure`.
    pub policy: Field<RestartPolicy>,
    /// Delay before the second restart in a row; each further one doubles it. Default: `100ms`.
    pub backoff: Field<HumanDuration>,
    /// The longest delay. Default: `30s`.
    pub max_backoff: Field<HumanDuration>,
    /// Restarts before it counts as failed for good. Default: no limit.
    pub max_restarts: Field<Count>,
    /// The time within which `max_restarts` are too many. Default: those in a row count.
    pub within: Field<HumanDuration>,
    /// How long it has to be ready until the row of restarts is forgotten. Default: `30s`.
    pub reset_after: Field<HumanDuration>,
}

/// How a service is stopped.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct StopRule {
    /// The signal, with or without `SIG`. Default: `TERM`.
    pub signal: Field<Signal>,
    /// Time between the signal and SIGKILL. Default: `5s`.
    pub grace: Field<HumanDuration>,
}

/// A path to watch.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["path"]))]
pub(super) struct WatchEntry {
    /// A file or folder, relative to the manifest. Required.
    pub path: Field<String>,
    /// What to do. Default: `restart`.
    pub action: Field<WatchAction>,
}

/// A platform: its `kind`, and settings that the kind knows.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Platform(pub Dict<serde_yaml::Value>);

macro_rules! scalar {
    ($(#[$doc:meta])* $name:ident($inner:ty), $title:literal, $schema:tt) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Deserialize)]
        #[serde(transparent)]
        pub(super) struct $name(pub $inner);

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                $title.into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

/// What an interpolation looks like where the schema asks for a number or a truth value.
const PATTERN: &str = r"\$\{(env|var)\.";

scalar! {
    /// The version of the grammar.
    Version(i64), "Version", { "const": 1 }
}
scalar! {
    /// A name; checked when it is used.
    Name(String), "Name", { "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$|\\$\\{" }
}
scalar! {
    /// Any scalar; its text is taken as written, nothing is the empty text.
    Text(String), "Text", { "type": ["string", "number", "boolean", "null"] }
}
scalar! {
    /// A port; its range is checked later, to say so with a code of its own.
    Port(i64), "Port", { "anyOf": [
        { "type": "integer", "minimum": 1, "maximum": 65535 },
        { "type": "string", "pattern": PATTERN }
    ] }
}
scalar! {
    /// A small number.
    Count(u32), "Count", { "anyOf": [
        { "type": "integer", "minimum": 0 },
        { "type": "string", "pattern": PATTERN }
    ] }
}
scalar! {
    /// A number of processor cores.
    Cpu(Cores), "Cpu", { "anyOf": [
        { "type": "number", "minimum": 0.01 },
        { "type": "string", "pattern": PATTERN }
    ] }
}
scalar! {
    /// Yes or no.
    Flag(bool), "Flag", { "anyOf": [
        { "type": "boolean" },
        { "type": "string", "pattern": PATTERN }
    ] }
}
scalar! {
    /// The name of a signal, checked later.
    Signal(String), "Signal", {
        "type": "string",
        "examples": ["TERM", "INT", "QUIT", "HUP", "USR1"]
    }
}

/// A number of bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size(pub u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        size(&text).map(Self).ok_or_else(|| {
            let message = format!(
                "`{text}` is not a size: write for example `512Mi`, `2Gi` or a number of bytes"
            );
            serde::de::Error::custom(message)
        })
    }
}

/// `512`, `512M` (10⁶), `512Mi` (2²⁰), `1.5Gi`.
fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim().strip_suffix('B').unwrap_or(unit.trim());
    let factor: u64 = match unit {
        "" => 1,
        "k" | "K" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    if let Ok(number) = number.parse::<u64>() {
        return number.checked_mul(factor);
    }
    let bytes = number.parse::<f64>().ok()? * factor as f64;
    (bytes.is_finite() && bytes < u64::MAX as f64 && factor > 1).then_some(bytes as u64)
}

/// A status, or a range of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Status(pub StatusRange);

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Status {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Status".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "integer", "minimum": 100, "maximum": 599 },
            {
                "type": "string",
                "pattern": r"^\s*[1-5][0-9]{2}\s*([-–]\s*[1-5][0-9]{2}\s*)?$|\$\{(env|var)\.",
                "examples": ["200", "200-399"]
            }
        ] })
    }
}

impl JsonSchema for Size {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "integer", "minimum": 0 },
            {
                "type": "string",
                "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*([kKMGT]i?)?B?\s*$|\$\{(env|var)\.",
                "examples": ["512Mi", "2Gi", "10G"]
            }
        ] })
    }
}

impl JsonSchema for Platform {
    fn schema_name() -> Cow<'static, str> {
        "Platform".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A platform: its `kind`, and settings that the kind knows.",
            "type": "object",
            "properties": {
                "kind": { "type": "string", "description": "The kind of platform, such as `local` or `docker`. Required." }
            },
            "required": ["kind"],
            "additionalProperties": json!(true)
        })
    }
}

/// The signals that can be named, without `SIG`.
pub(super) const SIGNALS: &[&str] = &[
    "ABRT", "ALRM", "BUS", "CHLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "KILL", "PIPE",
    "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU",
    "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
];

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("512", Some(512)),
            ("512M", Some(512_000_000)),
            ("512Mi", Some(512 << 20)),
            ("2GiB", Some(2 << 30)),
            ("1.5Gi", Some(3 << 29)),
            ("1 K", Some(1000)),
            ("", None),
            ("x", None),
            ("5X", None),
            ("-1", None),
            ("99999999999T", None),
        ] {
            assert_eq!(size(text), bytes, "{text}");
        }
    }
}
