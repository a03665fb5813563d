//! What Sprites can honour, and why not the rest: protocol page sprites, §7.

use crate::model::Support::{Fixed, Supplied, Unsupported};
use crate::model::{Capabilities, Scope, Support, Urls};

type Exception = (Scope, &'static str, Support, &'static str);

const fn sandbox(field: &'static str, support: Support, why: &'static str) -> Exception {
    (Scope::Sandbox, field, support, why)
}

const fn service(field: &'static str, support: Support, why: &'static str) -> Exception {
    (Scope::Service, field, support, why)
}

const MADE: &str = "a sprite stays as it was made";
const KEPT: &str = "gabion keeps it with the sprite";
const ASKED_INSIDE: &str = "asked by a command in the sprite while it is started";
const BY_SPRITES: &str = "Sprites decides when a crashed service is started again";
const ONE_USER: &str = "everything in a sprite runs as one user, without limits of its own";
const NO_INPUT: &str = "Sprites gives a service neither a terminal nor an input";
const NO_CONTAINER: &str = "a sprite runs programs, not containers";
const NO_MACHINE: &str = "a sprite sees nothing of this machine";

/// The table.
pub fn capabilities() -> &'static Capabilities {
    &CAPABILITIES
}

static CAPABILITIES: Capabilities = Capabilities {
    kind: "sprites",
    summary: "sprites of Fly.io: microVMs that sleep when idle and wake on a request",
    shared_network: false,
    urls: Urls::Sandbox,
    settings: &[
        (
            "url",
            "where the API is; default: SPRITES_API_URL, or https://api.sprites.dev",
        ),
        ("token", "default: SPRITES_TOKEN, or SPRITE_TOKEN"),
        ("region", "where new sprites are made"),
    ],
    demands: &[],
    exceptions: &[
        sandbox("name", Fixed, MADE),
        sandbox("vcpus", Fixed, MADE),
        sandbox("memory", Fixed, MADE),
        sandbox("disk", Fixed, MADE),
        sandbox(
            "volumes",
            Unsupported,
            "a sprite has one disk, which it keeps",
        ),
        sandbox(
            "files",
            Unsupported,
            "nobody writes files when it wakes: `gabion cp` copies them in",
        ),
        sandbox(
            "base",
            Unsupported,
            "every sprite is made from the same image",
        ),
        sandbox("description", Supplied, KEPT),
        sandbox("repo", Unsupported, "clone it in a task: `git clone …`"),
        sandbox(
            "keep_alive",
            Unsupported,
            "a sprite sleeps when it is idle, and wakes on a request",
        ),
        sandbox("workspace", Unsupported, NO_MACHINE),
        sandbox(
            "isolation: none",
            Unsupported,
            "a sprite is a virtual machine",
        ),
        sandbox("hide", Unsupported, NO_MACHINE),
        sandbox("writable", Unsupported, NO_MACHINE),
        sandbox("checkpoint.before", Supplied, "gabion runs it"),
        sandbox("checkpoint.after", Supplied, "gabion runs it"),
        sandbox(
            "checkpoint.freeze",
            Unsupported,
            "Sprites decides how files are copied",
        ),
        sandbox("vscode: true", Unsupported, "Sprites has no editor server"),
        sandbox("needs", Supplied, "gabion orders and awaits"),
        sandbox("protect", Supplied, KEPT),
        sandbox(
            "state: stopped",
            Unsupported,
            "a sprite wakes on any request, so it cannot be kept down",
        ),
        service(
            "kind: task",
            Supplied,
            "run by a service that keeps its exit code",
        ),
        service("user", Unsupported, ONE_USER),
        service("limits", Unsupported, ONE_USER),
        service("tty", Unsupported, NO_INPUT),
        service("stdin_open", Unsupported, NO_INPUT),
        service("health", Supplied, ASKED_INSIDE),
        service(
            "health.notify",
            Unsupported,
            "Sprites gives a service no socket to notify",
        ),
        service("health.restart", Unsupported, BY_SPRITES),
        service("container", Unsupported, NO_CONTAINER),
        service("image", Unsupported, NO_CONTAINER),
        service("description", Supplied, KEPT),
        service("restart: no", Unsupported, BY_SPRITES),
        service("restart: always", Unsupported, BY_SPRITES),
        service("restart.policy: no", Unsupported, BY_SPRITES),
        service("restart.policy: always", Unsupported, BY_SPRITES),
        service("restart.backoff", Unsupported, BY_SPRITES),
        service("restart.max_backoff", Unsupported, BY_SPRITES),
        service("restart.max_restarts", Unsupported, BY_SPRITES),
        service("restart.within", Unsupported, BY_SPRITES),
        service("restart.reset_after", Unsupported, BY_SPRITES),
        service(
            "stop.signal",
            Unsupported,
            "Sprites decides how a service is told to stop",
        ),
        service(
            "state: stopped",
            Supplied,
            "started and stopped again when it is defined: Sprites has no other way",
        ),
        service("watch", Supplied, "`gabion watch` does it"),
    ],
};
