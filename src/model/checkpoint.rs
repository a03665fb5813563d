//! What is told of checkpoints, restores and forks.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ServiceName;

/// A checkpoint of a sandbox: its files, the definitions of its services, and which of them ran.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// `cp_` and hexadecimal digits.
    pub id: String,
    /// What it was called when it was made; several may have the same name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// When its files were copied.
    pub created_at: Timestamp,
    /// The sizes of its files, in bytes.
    pub size_bytes: u64,
    /// How long the copying took.
    #[serde(default)]
    pub copy_duration_ms: u64,
    /// The services that ran, sorted.
    #[serde(default)]
    pub running: Vec<ServiceName>,
    /// Whether the sandbox's processes were held while the files were copied.
    #[serde(default)]
    pub frozen: bool,
    /// When its platform removes it; `None`: not by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The one folder that it is of, where it is not of the whole workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
}

/// What became of the services in a restore: sorted lists, each service in at most one (protocol page
/// iris, §6).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// How long it took.
    #[serde(default)]
    pub restore_duration_ms: u64,
    /// Ran when the checkpoint was made, and are running now.
    #[serde(default)]
    pub started_services: Vec<ServiceName>,
    /// Ran just before the restore, but not when the checkpoint was made.
    #[serde(default)]
    pub stopped_services: Vec<ServiceName>,
    /// Ran when the checkpoint was made, and are not running now.
    #[serde(default)]
    pub failed_services: Vec<ServiceName>,
}

/// What became of a fork.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forked {
    /// The services that run in it.
    pub started_services: Vec<ServiceName>,
    /// The services that should run in it, and do not.
    pub failed_services: Vec<ServiceName>,
    /// The sizes of its files, in bytes.
    pub size_bytes: u64,
}

/// A size for people: `128.0 MiB`.
pub fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut size = bytes as f64 / 1024.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        // 1023.95 would be shown as 1024.0.
        if size < 1023.95 {
            break;
        }
        size /= 1024.0;
        unit = next;
    }
    format!("{size:.1} {unit}")
}

#[test]
fn sizes_for_people() {
    for (bytes, shown) in [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (128 << 20, "128.0 MiB"),
        ((1 << 20) - 1, "1.0 MiB"),
        (u64::MAX, "16384.0 PiB"),
    ] {
        assert_eq!(human_size(bytes), shown);
    }
}
