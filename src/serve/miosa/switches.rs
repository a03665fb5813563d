//! What the protocol page leaves open: how this server decides it (protocol page miosa, §9).

use serde::{Deserialize, Serialize};

use crate::serve::switches;

/// The open questions. The default of each is the page's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Switches {
    /// Records stand alone instead of under `data`.
    pub bare: bool,
    /// Numbers of processes are texts.
    pub pid_string: bool,
    /// A process has `state` instead of `status`.
    pub state_key: bool,
    /// Processes do not tell when they were started.
    pub no_started_at: bool,
    /// Processes do not tell their names.
    pub no_name: bool,
    /// Commands are told up to so many bytes.
    pub command_bytes: Option<usize>,
    /// Processes that have ended stay in the list.
    pub keep_exited: bool,
    /// How logs are told.
    pub logs: LogShape,
    /// A PATCH of `metadata` replaces all of it.
    pub replace_metadata: bool,
    /// Lists leave `metadata` out.
    pub list_without_metadata: bool,
    /// Lists tell what was destroyed, too.
    pub list_destroyed: bool,
    /// Lists come in pages.
    pub paged: bool,
    /// What was stopped is `stopped` instead of `paused`.
    pub stopped: bool,
    /// So often a new sandbox is told as `provisioning`.
    pub provisioning: u32,
    /// So often a running sandbox is told as not ready.
    pub unready: u32,
    /// So often a resume is refused.
    pub unresumable: u32,
    /// Processes can be written to.
    pub stdin: bool,
    /// Of a named service only its name and its state are told.
    pub short_services: bool,
    /// Named services cannot be listed.
    pub no_service_list: bool,
    /// Named services get no environment.
    pub no_service_env: bool,
    /// A restore makes another sandbox.
    pub restore_elsewhere: bool,
    /// What comes of another size.
    pub resize: Resize,
    /// Errors are flat: `{"error":"text","code":"CODE"}`.
    pub flat_errors: bool,
}

/// What comes of another size for a sandbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resize {
    /// It has it at once.
    #[default]
    Live,
    /// It has it once it is resumed the next time.
    Restart,
    /// Another sandbox is made that has it, and this one is left.
    Copy,
    /// Another sandbox is made that has it, and this one is removed.
    Replace,
    /// Nothing.
    Never,
}

/// How the lines of a process are told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogShape {
    /// `{"data":"text"}`
    #[default]
    Data,
    /// `"text"`
    String,
    /// `{"logs":"text"}`
    Logs,
    /// `{"lines":["text"]}`
    Lines,
    /// `text/plain`
    Text,
}

impl Switches {
    /// Reads `name` or `name=value`, as `pid-string` or `logs=lines`.
    pub fn read(texts: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, String> {
        switches::read(texts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_are_read_from_words() {
        let read = Switches::read(["bare", "logs=lines", "command-bytes=20", "stdin=false"]);
        let wanted = Switches {
            bare: true,
            logs: LogShape::Lines,
            command_bytes: Some(20),
            ..Switches::default()
        };
        assert_eq!(read, Ok(wanted));
        assert!(Switches::read(["bore"]).is_err_and(|error| error.contains("bore")));
        assert!(Switches::read(["unready=many"]).is_err());
    }
}
