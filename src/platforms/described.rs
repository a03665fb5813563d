//! What exists on a platform, whoever made it, in the words of a manifest.

use std::collections::BTreeMap;

use super::cloud::mark::Owner;
use crate::model::{Program, SandboxSpec, ServiceSpec};

/// A sandbox as its platform tells of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Described {
    /// What the platform knows it by.
    pub id: String,
    /// Its name on the platform.
    pub name: String,
    /// Whose mark it carries, if it carries one.
    pub owner: Option<Owner>,
    /// Whether it is nobody's, and has to be claimed before it can be anybody's.
    pub unclaimed: bool,
    /// Its fields, as far as they can be read back.
    pub spec: SandboxSpec,
    /// Its services, by their names there, as far as they can be read back.
    pub services: BTreeMap<String, ServiceSpec>,
    /// What could not be read back, each with the reason.
    pub remarks: Vec<String>,
}

impl Described {
    /// One of which no more is known yet than what it is called.
    pub fn new(id: impl Into<String>, name: impl Into<String>, owner: Option<Owner>) -> Self {
        Self {
            id: id.into(),
            name: name.into(),
            owner,
            unclaimed: false,
            spec: SandboxSpec::default(),
            services: BTreeMap::new(),
            remarks: Vec::new(),
        }
    }
}

/// Whether a sandbox is the one that is asked for, by its name or by its id; any is, if none is asked for.
pub(super) fn is_asked_for(wanted: Option<&str>, name: &str, id: &str) -> bool {
    wanted.is_none_or(|wanted| wanted == name || wanted == id)
}

/// A service of which only its argument vector is known: a shell's line is written as one.
pub(super) fn of_argv(argv: &[String]) -> ServiceSpec {
    ServiceSpec::new(match argv {
        [shell, flag, command] if shell == "/bin/sh" && flag == "-c" => Program::Shell {
            command: command.clone(),
        },
        [cmd, args @ ..] => Program::Exec {
            cmd: cmd.clone(),
            args: args.to_vec(),
        },
        [] => Program::Exec {
            cmd: String::new(),
            args: Vec::new(),
        },
    })
}
