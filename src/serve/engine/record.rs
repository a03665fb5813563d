//! What platforms keep about a sandbox beside its definition and its processes: `platform.json` in its
//! folder, readable by its owner only, written atomically.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::share::Share;
use crate::model::{ServiceName, ServiceSpec};

const FILE: &str = "platform.json";

/// The platforms' side of one sandbox.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What its owner calls it. Unique where the protocol says so.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When anything here was last changed.
    pub updated_at: Timestamp,
    /// The account that has claimed it, if it was made without one.
    #[serde(default)]
    pub claimed_by: Option<String>,
    /// Free text for people.
    #[serde(default)]
    pub description: Option<String>,
    /// Words for people and for owner marks: Sprites' labels, Pocketenv's topics.
    #[serde(default)]
    pub labels: Vec<String>,
    /// The environment of everything that is started in it.
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
    /// Who may follow the URL of its HTTP service.
    #[serde(default)]
    pub access: Access,
    /// The ports that are exposed, each at a URL of its own, and who may follow it.
    #[serde(default)]
    pub previews: BTreeMap<u16, Access>,
    /// The links that let others follow these URLs, by their ids.
    #[serde(default)]
    pub shares: BTreeMap<String, Share>,
    /// What is known of services beside their definitions.
    #[serde(default)]
    pub services: BTreeMap<ServiceName, ServiceNote>,
    /// What only one protocol knows, by the protocol's name.
    #[serde(default)]
    pub extra: BTreeMap<String, Value>,
}

/// Who may follow a URL.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Whoever shows the account's token.
    #[default]
    Owner,
    /// Anybody.
    Public,
}

/// What is known of a service beside its definition.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceNote {
    /// The environment that was asked for.
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// The sandbox's variables that were laid below it.
    #[serde(default)]
    below: BTreeMap<String, String>,
    /// What only one protocol knows, by the protocol's name.
    #[serde(default)]
    pub extra: BTreeMap<String, Value>,
}

impl Record {
    /// The record of a new sandbox.
    pub fn new(name: impl Into<String>) -> Self {
        let now = Timestamp::now();
        Self {
            name: name.into(),
            created_at: now,
            updated_at: now,
            claimed_by: None,
            description: None,
            labels: Vec::new(),
            variables: BTreeMap::new(),
            access: Access::default(),
            previews: BTreeMap::new(),
            shares: BTreeMap::new(),
            services: BTreeMap::new(),
            extra: BTreeMap::new(),
        }
    }

    /// What `protocol` keeps here; the default where it keeps nothing yet, or nothing that it knows.
    pub fn extra<T: DeserializeOwned + Default>(&self, protocol: &str) -> T {
        read_extra(&self.extra, protocol)
    }

    /// Keeps something for `protocol`.
    pub fn set_extra(&mut self, protocol: &str, value: &impl Serialize) {
        write_extra(&mut self.extra, protocol, value);
    }

    /// Lays the sandbox's variables below a definition's environment, and notes both.
    pub(super) fn merge_env(&mut self, name: &ServiceName, spec: &mut ServiceSpec) {
        let note = self.services.entry(name.clone()).or_default();
        note.below.clone_from(&self.variables);
        note.env = std::mem::take(&mut spec.env);
        spec.env = merged(&note.below, &note.env);
    }

    /// The environment that was asked for, without the sandbox's variables.
    pub fn own_env(&self, name: &str, env: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        match self.services.get(name) {
            Some(note) if merged(&note.below, &note.env) == *env => note.env.clone(),
            // Somebody else has defined it since.
            _ => env.clone(),
        }
    }

    /// Reads the record of the sandbox kept in `dir`; `None` if it has none.
    pub(super) fn read(dir: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(dir.join(FILE)) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes it into that folder; the file is there whole or not at all.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        // Made with mode 0600.
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.persist(dir.join(FILE))?;
        Ok(())
    }
}

impl ServiceNote {
    /// What `protocol` keeps here; the default where it keeps nothing yet.
    pub fn extra<T: DeserializeOwned + Default>(&self, protocol: &str) -> T {
        read_extra(&self.extra, protocol)
    }

    /// Keeps something for `protocol`.
    pub fn set_extra(&mut self, protocol: &str, value: &impl Serialize) {
        write_extra(&mut self.extra, protocol, value);
    }
}

fn read_extra<T: DeserializeOwned + Default>(extra: &BTreeMap<String, Value>, key: &str) -> T {
    let kept = extra.get(key).cloned();
    kept.and_then(|kept| serde_json::from_value(kept).ok())
        .unwrap_or_default()
}

fn write_extra(extra: &mut BTreeMap<String, Value>, key: &str, value: &impl Serialize) {
    // Plain data with text keys: writing it down cannot fail.
    let value = serde_json::to_value(value).unwrap_or_default();
    extra.insert(key.to_owned(), value);
}

fn merged(
    below: &BTreeMap<String, String>,
    above: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut merged = below.clone();
    merged.extend(above.clone());
    merged
}
