//! What Pocketenv can honour: protocol page pocketenv.

use super::CLOUDFLARE;
use super::ports;
use crate::model::{Capabilities, Scope, Support, Urls};

use Scope::{Sandbox, Service};
use Support::{Fixed, Supplied, Unsupported};

const HIDDEN: &str = "sandboxes there see nothing of this machine";
const CHOSEN: &str = "the provider decides, and never changes it";
const SNAPSHOT: &str = "its backups run nothing, and freeze nothing";
const LIMIT: &str = "nothing limits a service there";

/// The table.
pub fn capabilities() -> &'static Capabilities {
    static TABLE: Capabilities = Capabilities {
        kind: "pocketenv",
        summary: "sandboxes at pocketenv.io, over XRPC",
        shared_network: false,
        urls: Urls::Ports {
            least: ports::VSCODE + 1,
            reserved: &[ports::RESERVED],
        },
        settings: &[
            ("url", "where it is; default https://api.pocketenv.io"),
            ("token", "the token; default $POCKETENV_TOKEN"),
            (
                "public_key",
                "the server's key, in hexadecimal, that secrets are sealed for",
            ),
            (
                "provider",
                "who runs the sandboxes; default cloudflare, and services need that",
            ),
            (
                "base",
                "the base of sandboxes that name none; default openclaw",
            ),
            (
                "backup_directory",
                "what checkpoints keep; default where commands run",
            ),
            (
                "ready_timeout",
                "how long a provider may take to make a sandbox; default 60s",
            ),
        ],
        demands: &[("services", "provider", CLOUDFLARE)],
        exceptions: &[
            (
                Sandbox,
                "base",
                Fixed,
                "a sandbox keeps the base it was made from",
            ),
            (
                Sandbox,
                "keep_alive",
                Supplied,
                "it is a yes or no there: any time means yes",
            ),
            (
                Sandbox,
                "repo.ref",
                Unsupported,
                "it is told a URL, and clones what its HEAD points to",
            ),
            (
                Sandbox,
                "repo.depth",
                Unsupported,
                "it is told a URL, and decides itself how much it fetches",
            ),
            (Sandbox, "vcpus", Unsupported, CHOSEN),
            (Sandbox, "memory", Unsupported, CHOSEN),
            (Sandbox, "disk", Unsupported, CHOSEN),
            (
                Sandbox,
                "env",
                Supplied,
                "gabion puts it into the commands of services",
            ),
            (
                Sandbox,
                "workspace",
                Unsupported,
                "services run where the sandbox's commands do",
            ),
            (
                Sandbox,
                "isolation: none",
                Unsupported,
                "every sandbox there is isolated",
            ),
            (Sandbox, "hide", Unsupported, HIDDEN),
            (Sandbox, "writable", Unsupported, HIDDEN),
            (Sandbox, "checkpoint", Unsupported, SNAPSHOT),
            (
                Sandbox,
                "public",
                Unsupported,
                "there is a URL for each port instead",
            ),
            (Sandbox, "needs", Supplied, "gabion orders and awaits"),
            (Service, "kind", Supplied, "gabion awaits its exit code"),
            (
                Service,
                "env",
                Supplied,
                "gabion puts it into the command; secrets are attached to the sandbox, sealed",
            ),
            (Service, "env_file", Supplied, "as `env`"),
            (
                Service,
                "working_dir",
                Supplied,
                "gabion puts it into the command",
            ),
            (
                Service,
                "ports",
                Supplied,
                "each has a URL, but for 3000 and those below 1025",
            ),
            (
                Service,
                "http_port",
                Unsupported,
                "there is a URL for each port instead: see `ports`",
            ),
            (
                Service,
                "user",
                Unsupported,
                "services run as the sandbox's user",
            ),
            (Service, "limits.memory", Unsupported, LIMIT),
            (Service, "limits.cpu", Unsupported, LIMIT),
            (Service, "limits.files", Unsupported, LIMIT),
            (Service, "limits.processes", Unsupported, LIMIT),
            (
                Service,
                "tty",
                Unsupported,
                "services there have no terminal",
            ),
            (
                Service,
                "stdin_open",
                Unsupported,
                "nothing can be sent to a service there",
            ),
            (
                Service,
                "health",
                Supplied,
                "gabion asks by a command in the sandbox, while it starts",
            ),
            (
                Service,
                "health.notify",
                Unsupported,
                "nobody there listens to what a service says of itself",
            ),
            (
                Service,
                "health.restart",
                Unsupported,
                "nobody there asks a service that is ready",
            ),
            (Service, "needs", Supplied, "gabion orders and awaits"),
            (
                Service,
                "container",
                Unsupported,
                "services are processes there",
            ),
            (
                Service,
                "image",
                Unsupported,
                "services are processes there",
            ),
            (
                Service,
                "restart",
                Unsupported,
                "what has ended there stays so until it is restarted",
            ),
            (
                Service,
                "stop",
                Unsupported,
                "the platform decides how a service is stopped",
            ),
            (Service, "timeout", Supplied, "gabion gives up waiting"),
            (Service, "watch", Supplied, "`gabion watch` does it"),
        ],
    };
    &TABLE
}
