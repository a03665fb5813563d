//! What Miosa can honour.

use crate::model::{Capabilities, Scope, Support, Urls};

use Scope::{Sandbox, Service};
use Support::{Fixed, Supplied, Unsupported};

const MADE: &str = "a sandbox keeps its template and disk";
const SIZED: &str = "a sandbox keeps its size, unless the entry says `resizes_in_place: true`";
const NO_FIELD: &str = "Miosa runs commands as they are, as one user";

/// Fields that are not simply handed over.
const EXCEPTIONS: &[(Scope, &str, Support, &str)] = &[
    (Sandbox, "base", Fixed, MADE),
    (Sandbox, "vcpus", Fixed, SIZED),
    (Sandbox, "memory", Fixed, SIZED),
    (Sandbox, "disk", Fixed, MADE),
    (
        Sandbox,
        "volumes",
        Unsupported,
        "a sandbox has one disk, which it keeps",
    ),
    (
        Sandbox,
        "files",
        Unsupported,
        "nobody writes files when it starts: `gabion cp` copies them in",
    ),
    (Sandbox, "description", Supplied, "kept in its metadata"),
    (Sandbox, "repo", Unsupported, "clone it in a task"),
    (
        Sandbox,
        "workspace",
        Unsupported,
        "services run in /workspace",
    ),
    (
        Sandbox,
        "isolation: none",
        Unsupported,
        "a sandbox is a machine of its own",
    ),
    (
        Sandbox,
        "hide",
        Unsupported,
        "a sandbox is a machine of its own",
    ),
    (
        Sandbox,
        "writable",
        Unsupported,
        "a sandbox is a machine of its own",
    ),
    (
        Sandbox,
        "checkpoint.before",
        Unsupported,
        "its snapshots run nothing",
    ),
    (
        Sandbox,
        "checkpoint.after",
        Unsupported,
        "its snapshots run nothing",
    ),
    (
        Sandbox,
        "vscode: true",
        Unsupported,
        "name the program: `vscode: { command: …, port: … }`",
    ),
    (
        Sandbox,
        "public",
        Unsupported,
        "its previews are shared by links",
    ),
    (Sandbox, "needs", Supplied, "gabion orders and awaits"),
    (Service, "kind: task", Supplied, "gabion awaits its end"),
    (Service, "needs", Supplied, "gabion orders and awaits"),
    (
        Service,
        "health",
        Supplied,
        "gabion asks by commands in the sandbox",
    ),
    (
        Service,
        "health.notify",
        Unsupported,
        "nothing there listens to sd_notify",
    ),
    (
        Service,
        "health.restart",
        Unsupported,
        "nothing there asks once it is ready",
    ),
    (
        Service,
        "health.interval",
        Supplied,
        "nothing asks once it is ready",
    ),
    (
        Service,
        "health.retries",
        Supplied,
        "nothing asks once it is ready",
    ),
    (Service, "http_port", Supplied, "gabion exposes the port"),
    (
        Service,
        "restart",
        Supplied,
        "`gabion watch` starts again what has ended",
    ),
    (
        Service,
        "state",
        Supplied,
        "gabion keeps it in the sandbox's metadata",
    ),
    (Service, "stop.signal", Unsupported, "Miosa sends TERM"),
    (Service, "stop.grace", Unsupported, "Miosa kills after 5 s"),
    (
        Service,
        "stdin_open",
        Supplied,
        "where the entry says `stdin: true`",
    ),
    (Service, "timeout", Supplied, "gabion stops it"),
    (Service, "tty", Unsupported, NO_FIELD),
    (Service, "user", Unsupported, NO_FIELD),
    (Service, "limits", Unsupported, NO_FIELD),
    (Service, "container", Unsupported, NO_FIELD),
    (Service, "image", Unsupported, NO_FIELD),
    (Service, "watch", Supplied, "`gabion watch` does it"),
];

const SETTINGS: &[(&str, &str)] = &[
    (
        "url",
        "where it is; MIOSA_BASE_URL, or https://api.miosa.ai",
    ),
    ("token", "its key; MIOSA_API_KEY"),
    (
        "ready_timeout",
        "how long a sandbox may take to be ready; 120s",
    ),
    ("stdin", "whether processes can be written to; false"),
    (
        "merges_variables",
        "whether setting one variable leaves the others; false",
    ),
    (
        "lists_account",
        "whether the whole account is searched for the stack, which adopting needs; false",
    ),
    (
        "resizes_in_place",
        "whether a sandbox can be given other `vcpus` and `memory`; false",
    ),
    (
        "services",
        "what services are: `processes`, or `named` services of Miosa; processes",
    ),
    (
        "lists_services",
        "whether named services can be listed; true",
    ),
    (
        "service_env",
        "whether named services get an environment; true",
    ),
];

/// The table.
pub fn capabilities() -> &'static Capabilities {
    &Capabilities {
        kind: "miosa",
        summary: "machines on Miosa, with services as processes or as its named services",
        shared_network: false,
        urls: Urls::HttpPort,
        settings: SETTINGS,
        exceptions: EXCEPTIONS,
        demands: &[],
    }
}
