//! What iris can honour.

use Scope::{Sandbox, Service};
use Support::{Fixed, Supplied, Unsupported};

use crate::model::{Capabilities, Scope, Support, Urls};

const MACHINE: &str = "a sandbox is a machine of its own";
const SIZE: &str = "its sandboxes are all alike";
const NO_FIELD: &str = "its services have no such field";

/// Fields that are not simply handed over.
const EXCEPTIONS: &[(Scope, &str, Support, &str)] = &[
    (Sandbox, "name", Fixed, "nothing renames a sandbox there"),
    (Sandbox, "description", Supplied, "kept in its store"),
    (Sandbox, "topics", Supplied, "kept in its store"),
    (Sandbox, "base", Unsupported, SIZE),
    (Sandbox, "vcpus", Unsupported, SIZE),
    (Sandbox, "memory", Unsupported, SIZE),
    (Sandbox, "disk", Unsupported, SIZE),
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
    (Sandbox, "repo", Unsupported, "clone it in a task"),
    (
        Sandbox,
        "keep_alive",
        Unsupported,
        "it is not suspended by itself",
    ),
    (
        Sandbox,
        "workspace",
        Unsupported,
        "say `working_dir` of a service",
    ),
    (Sandbox, "isolation: none", Unsupported, MACHINE),
    (Sandbox, "hide", Unsupported, MACHINE),
    (Sandbox, "writable", Unsupported, MACHINE),
    (
        Sandbox,
        "checkpoint.before",
        Unsupported,
        "its checkpoints run nothing",
    ),
    (
        Sandbox,
        "checkpoint.after",
        Unsupported,
        "its checkpoints run nothing",
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
        "its ports are not reached from outside",
    ),
    (Sandbox, "needs", Supplied, "gabion orders and awaits"),
    (Service, "kind: task", Supplied, "gabion awaits its end"),
    (Service, "needs", Supplied, "gabion orders and awaits"),
    (
        Service,
        "health",
        Supplied,
        "gabion asks by commands in the sandbox, but for `tcp`",
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
    (
        Service,
        "http_port",
        Unsupported,
        "its ports are not reached from outside",
    ),
    (
        Service,
        "restart",
        Supplied,
        "iris restarts what fails; `gabion watch` what has ended",
    ),
    (
        Service,
        "state",
        Supplied,
        "gabion keeps it in the sandbox's store",
    ),
    (Service, "stop.signal", Unsupported, "iris sends TERM"),
    (Service, "stop.grace", Unsupported, "iris kills after 5 s"),
    (Service, "stdin_open", Unsupported, NO_FIELD),
    (Service, "timeout", Supplied, "gabion stops it"),
    (Service, "tty", Unsupported, NO_FIELD),
    (Service, "limits", Unsupported, NO_FIELD),
    (Service, "watch", Supplied, "`gabion watch` does it"),
];

const SETTINGS: &[(&str, &str)] = &[
    (
        "url",
        "the gateway; IRIS_GATEWAY_URL, or https://api.iris.dev",
    ),
    ("token", "the team's API key; IRIS_API_KEY"),
    (
        "gateway_service",
        "the path of its Connect service; iris.v1.SandboxService",
    ),
    (
        "data_plane_url",
        "one sandbox spoken to directly, without the gateway",
    ),
    ("data_plane_token", "the token for it"),
    (
        "ready_timeout",
        "how long a sandbox may take to be ready; 60s",
    ),
];

/// The table.
pub fn capabilities() -> &'static Capabilities {
    &Capabilities {
        kind: "iris",
        summary: "machines on iris, whose services its supervisor runs",
        shared_network: false,
        urls: Urls::None("its ports are not reached from outside"),
        settings: SETTINGS,
        exceptions: EXCEPTIONS,
        demands: &[],
    }
}
