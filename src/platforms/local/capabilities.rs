//! What the local platform can honour: partly a question of the machine.

use std::sync::OnceLock;

use crate::keeper::probe_isolation;
use crate::model::{Capabilities, Scope, Support, Urls};
use crate::supervisor::{LimitSupport, limit_support};

type Exception = (Scope, &'static str, Support, &'static str);

/// What holds on every machine.
const ALWAYS: [Exception; 9] = [
    (
        Scope::Sandbox,
        "name",
        Support::Unsupported,
        "a local sandbox is named by its address",
    ),
    (
        Scope::Sandbox,
        "base",
        Support::Unsupported,
        "processes run on this machine's own files",
    ),
    (
        Scope::Sandbox,
        "keep_alive",
        Support::Supplied,
        "a local sandbox stays until it is deleted",
    ),
    (
        Scope::Sandbox,
        "disk",
        Support::Unsupported,
        "processes share this machine's disk",
    ),
    (
        Scope::Sandbox,
        "volumes",
        Support::Unsupported,
        "its files are on this machine and stay there: see `workspace` and `writable`",
    ),
    (
        Scope::Sandbox,
        "files",
        Support::Unsupported,
        "its files are on this machine and stay there: `gabion cp` copies others in",
    ),
    (
        Scope::Sandbox,
        "vscode: true",
        Support::Unsupported,
        "name the program: `vscode: { command: …, port: … }`",
    ),
    (
        Scope::Sandbox,
        "public",
        Support::Unsupported,
        "a local sandbox is reached over this machine's own addresses",
    ),
    (
        Scope::Sandbox,
        "needs",
        Support::Supplied,
        "gabion orders and awaits",
    ),
];

/// For the end of the table.
const WATCH: Exception = (
    Scope::Service,
    "watch",
    Support::Supplied,
    "`gabion watch` does it",
);

const NO_NAMESPACE: &str = "this machine gives this user no namespaces of its own";

const NO_GROUP: &str = "needs a writable cgroup, which this machine does not have";

/// What the local platform can honour on this machine. It is looked at once.
pub fn capabilities() -> &'static Capabilities {
    static TABLE: OnceLock<(Vec<Exception>, OnceLock<Capabilities>)> = OnceLock::new();
    let (exceptions, table) = TABLE.get_or_init(|| {
        let strict = probe_isolation().is_ok();
        (exceptions(limit_support(), strict), OnceLock::new())
    });
    table.get_or_init(|| Capabilities {
        kind: "local",
        summary: "processes on this machine, one supervisor per sandbox",
        shared_network: true,
        demands: &[],
        urls: Urls::Loopback,
        settings: &[],
        exceptions,
    })
}

fn exceptions(limits: LimitSupport, strict: bool) -> Vec<Exception> {
    let mut all = ALWAYS.to_vec();
    if !strict {
        for field in ["isolation: strict", "hide", "writable"] {
            all.push((Scope::Sandbox, field, Support::Unsupported, NO_NAMESPACE));
        }
    }
    let mut no_group = |scope, field| all.push((scope, field, Support::Unsupported, NO_GROUP));
    if !limits.cpu {
        no_group(Scope::Sandbox, "vcpus");
        no_group(Scope::Service, "limits.cpu");
    }
    if !limits.processes {
        no_group(Scope::Service, "limits.processes");
    }
    if !limits.memory {
        no_group(Scope::Sandbox, "memory");
        all.push((
            Scope::Service,
            "limits.memory",
            Support::Supplied,
            "each process by itself, because there is no writable cgroup",
        ));
    }
    all.push(WATCH);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_cannot_limit_is_refused() {
        let refused = |has: bool| {
            let limits = LimitSupport {
                memory: has,
                cpu: has,
                processes: has,
            };
            let all = exceptions(limits, true).into_iter();
            let limits = all.filter(|(_, field, support, _)| {
                *support == Support::Unsupported
                    && (field.starts_with("limits") || matches!(*field, "memory" | "vcpus"))
            });
            limits.map(|(_, field, ..)| field).collect::<Vec<_>>()
        };
        assert_eq!(refused(true), Vec::<&str>::new());
        let all = ["vcpus", "limits.cpu", "limits.processes", "memory"];
        assert_eq!(refused(false), all);
    }
}
