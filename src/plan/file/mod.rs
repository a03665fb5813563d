//! The plan file: a plan that is kept, read and carried out later.
//!
//! In: a plan and what it was made from. Out: readable JSON, and from that JSON the plan again, or
//! the reason why it must not be carried out. Three rules make it safe:
//!
//! * No secret and no digest of one is in the file: definitions name their secrets, and the manifest
//!   supplies the digests again when the file is read. Whether a value differed from the one in use
//!   is kept as a fact, so that a value that changes in between is noticed.
//! * What was observed is kept as state and fingerprint; if anything the plan touches is different
//!   now, the plan is stale (`stale`).
//! * The file says *what* is to be done; the order is derived again from the definitions, and the
//!   result is simulated (`rebuild`). Editing the file cannot start a service before what it needs.

mod rebuild;
mod seen;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::render::json::{ActionJson, SummaryJson, actions, summary};
use super::{Cause, Plan, Problem, Step, StepKind};
use crate::model::{
    Address, Desired, DesiredSandbox, Observed, SandboxName, SandboxSpec, ServiceAddress,
    ServiceGoal, ServiceSpec,
};
pub use seen::{Seen, SeenUrl, Stale};

/// The version of the shape that is written, and the only one that is read.
pub const VERSION: u64 = 1;

/// How a plan file is told from other JSON.
const FORMAT: &str = "gabion-plan-file";

/// Why a file cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// It is JSON of something else, or no JSON.
    #[error("it is not a plan file: {0}")]
    NotAPlanFile(String),
    /// It is of another version of gabion.
    #[error("it has version {0}, and this gabion reads version {VERSION}")]
    Version(String),
    /// Something in it has the wrong shape.
    #[error("it is malformed: {0}")]
    Malformed(String),
    /// A definition uses a secret that the manifest does not give that address.
    #[error("{address} uses the secret `{name}`, which the manifest does not give it")]
    Secret {
        /// Who uses it.
        address: Address,
        /// The secret.
        name: String,
    },
    /// A step cannot be done on what is there.
    #[error("{id} cannot be done: {why}")]
    Step {
        /// `web/api:start`.
        id: String,
        /// Why.
        why: String,
    },
    /// All of it together breaks a rule of order.
    #[error("its actions break a rule: {0}")]
    Unsound(String),
}

/// What `gabion plan --out` writes. It holds no secret and no digest of one.
#[derive(Serialize, JsonSchema)]
#[schemars(title = "gabion plan file")]
struct FileJson<'a> {
    /// `gabion-plan-file`.
    format: &'static str,
    /// The version of this shape. A file of another version is refused.
    #[schemars(range(min = 1, max = 1))]
    version: u64,
    /// The stack planned for.
    stack: &'a str,
    /// The plan in numbers.
    summary: SummaryJson,
    /// What is to be done, as in `gabion plan --json`. Only address, kind and cause are read again:
    /// the order is derived from the definitions.
    actions: Vec<ActionJson<'a>>,
    /// What could not be planned. A plan with problems can be saved, but not applied.
    problems: &'a [Problem],
    /// By address, the definition that its actions write or start. `secrets` has names only.
    #[schemars(with = "BTreeMap<String, BTreeMap<String, Value>>")]
    definitions: BTreeMap<&'a Address, Value>,
    /// By address, the secrets of its definition whose value is not the one in use.
    #[schemars(with = "BTreeMap<String, BTreeSet<String>>")]
    changed_secrets: BTreeMap<&'a Address, BTreeSet<&'a str>>,
    /// What is there, is left alone by the plan, and is not wanted running as it is: nothing waits
    /// for it.
    #[schemars(with = "BTreeMap<String, Unwanted>")]
    unwanted: BTreeMap<Address, Unwanted>,
    /// By address, what was there.
    #[schemars(with = "BTreeMap<String, Seen>")]
    observed: BTreeMap<Address, Seen>,
    /// Where services were reached whose URLs are in the definitions.
    urls: Vec<SeenUrl>,
}

/// A plan file that was read, and not compared with the world yet.
#[derive(Debug, Clone, Deserialize)]
pub struct PlanFile {
    /// The stack planned for.
    pub stack: String,
    /// What could not be planned.
    pub problems: Vec<Problem>,
    summary: Counts,
    actions: Vec<SavedStep>,
    definitions: BTreeMap<Address, Value>,
    changed_secrets: BTreeMap<Address, BTreeSet<String>>,
    unwanted: BTreeMap<Address, Unwanted>,
    observed: BTreeMap<Address, Seen>,
    #[serde(default)]
    urls: Vec<SeenUrl>,
}

/// How a sandbox or service is not wanted as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Unwanted {
    /// It is not in the manifest.
    Absent,
    /// The service is wanted stopped.
    Stopped,
    /// The sandbox is wanted on another platform.
    Moved,
}

#[derive(Debug, Clone, Deserialize)]
struct Counts {
    sandboxes: usize,
    services: usize,
    unchanged: usize,
}

#[derive(Debug, Clone, Deserialize)]
struct SavedStep {
    address: Address,
    kind: StepKind,
    cause: Cause,
}

impl SavedStep {
    fn id(&self) -> String {
        format!("{}:{}", self.address, self.kind)
    }
}

/// The definitions of a plan file, with the digests that the manifest gives their secrets.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Definitions {
    /// Of sandboxes.
    pub sandboxes: BTreeMap<SandboxName, Arc<SandboxSpec>>,
    /// Of services.
    pub services: BTreeMap<ServiceAddress, Arc<ServiceSpec>>,
}

impl Definitions {
    /// `manifest` with these laid over it: where everything the plan touches is to live.
    pub fn over(&self, manifest: &Desired) -> Desired {
        let mut all = manifest.clone();
        for (name, spec) in &self.sandboxes {
            place(&mut all, name, spec);
        }
        all
    }
}

/// Gives a sandbox this spec, and keeps its services.
fn place(desired: &mut Desired, name: &SandboxName, spec: &Arc<SandboxSpec>) {
    let wanted = desired.sandboxes.entry(name.clone());
    let wanted = wanted.or_insert_with(|| DesiredSandbox {
        spec: Arc::clone(spec),
        services: BTreeMap::new(),
        watch: BTreeMap::new(),
    });
    wanted.spec = Arc::clone(spec);
}

/// `plan` as the text of a plan file. `desired` and `observed` are what it was made from.
pub fn save(plan: &Plan, desired: &Desired, observed: &Observed) -> String {
    let mut definitions = BTreeMap::new();
    let mut changed_secrets = BTreeMap::new();
    for action in &plan.actions {
        let secrets = match &action.step {
            Step::CreateSandbox(spec) | Step::UpdateSandbox(spec) | Step::StartSandbox(spec) => {
                definitions.insert(&action.address, without_digests(&**spec));
                &spec.secrets
            }
            Step::UpsertService(spec) | Step::StartService(spec) | Step::RunTask(spec) => {
                definitions.insert(&action.address, without_digests(&**spec));
                &spec.secrets
            }
            Step::StopSandbox | Step::DeleteSandbox | Step::StopService | Step::DeleteService => {
                continue;
            }
        };
        let changed = seen::changed_secrets(observed, &action.address, secrets);
        if !changed.is_empty() {
            changed_secrets.insert(&action.address, changed);
        }
    }
    let shape = FileJson {
        format: FORMAT,
        version: VERSION,
        stack: &plan.stack,
        summary: summary(plan),
        actions: actions(plan),
        problems: &plan.problems,
        definitions,
        changed_secrets,
        unwanted: unwanted(plan, desired, observed),
        observed: seen::see(observed),
        urls: seen::see_urls(observed),
    };
    let mut text = serde_json::to_string_pretty(&shape).unwrap_or_default();
    text.push('\n');
    text
}

fn unwanted(plan: &Plan, desired: &Desired, observed: &Observed) -> BTreeMap<Address, Unwanted> {
    let touched = plan.by_address();
    let mut unwanted = BTreeMap::new();
    let mut add = |address: Address, how| {
        if !touched.contains_key(&address) {
            unwanted.insert(address, how);
        }
    };
    for name in observed.sandboxes.keys() {
        let Some(found) = observed.known(name) else {
            continue;
        };
        match desired.sandboxes.get(name) {
            None => add(name.clone().into(), Unwanted::Absent),
            Some(wanted) if wanted.spec.platform != found.spec.platform => {
                add(name.clone().into(), Unwanted::Moved);
            }
            Some(_) => {}
        }
        for service in found.services.keys() {
            let address = ServiceAddress::new(name.clone(), service.clone());
            match desired.service(&address).map(|spec| spec.state) {
                Some(ServiceGoal::Running) => {}
                Some(ServiceGoal::Stopped) => add(address.into(), Unwanted::Stopped),
                None => add(address.into(), Unwanted::Absent),
            }
        }
    }
    unwanted
}

/// A spec with the names of its secrets in place of their digests.
fn without_digests(spec: &impl Serialize) -> Value {
    let mut value = serde_json::to_value(spec).unwrap_or_default();
    if let Some(secrets) = value.get_mut("secrets") {
        let names = secrets.as_object().into_iter().flat_map(|it| it.keys());
        *secrets = names.cloned().collect();
    }
    value
}

/// The JSON Schema (draft 7) of what [`save`] returns.
pub fn json_schema() -> Value {
    let settings = schemars::generate::SchemaSettings::draft07().for_serialize();
    settings
        .into_generator()
        .into_root_schema_for::<FileJson<'static>>()
        .to_value()
}

impl PlanFile {
    /// Reads the content of a plan file.
    pub fn parse(text: &str) -> Result<Self, FileError> {
        let value: Value = serde_json::from_str(text)
            .map_err(|error| FileError::NotAPlanFile(error.to_string()))?;
        if value.get("format").and_then(Value::as_str) != Some(FORMAT) {
            let why = format!("it does not say `\"format\": \"{FORMAT}\"`");
            return Err(FileError::NotAPlanFile(why));
        }
        let version = value.get("version").cloned().unwrap_or_default();
        if version.as_u64() != Some(VERSION) {
            return Err(FileError::Version(version.to_string()));
        }
        Self::deserialize(value).map_err(|error| FileError::Malformed(error.to_string()))
    }

    /// Its definitions, with the digests of their secrets as `manifest` gives them.
    pub fn definitions(&self, manifest: &Desired) -> Result<Definitions, FileError> {
        let mut definitions = Definitions::default();
        for (address, value) in &self.definitions {
            match address {
                Address::Sandbox(name) => {
                    let wanted = manifest.sandboxes.get(name).map(|it| &it.spec.secrets);
                    let spec = with_digests(address, value, wanted)?;
                    definitions.sandboxes.insert(name.clone(), Arc::new(spec));
                }
                Address::Service(service) => {
                    let wanted = manifest.service(service).map(|it| &it.secrets);
                    let spec = with_digests(address, value, wanted)?;
                    definitions.services.insert(service.clone(), Arc::new(spec));
                }
            }
        }
        Ok(definitions)
    }
}

/// A spec from the file, with digests in place of the names of its secrets.
fn with_digests<T: for<'de> Deserialize<'de>>(
    address: &Address,
    value: &Value,
    digests: Option<&BTreeMap<String, String>>,
) -> Result<T, FileError> {
    let mut value = value.clone();
    let malformed = |why: String| FileError::Malformed(format!("definition of {address}: {why}"));
    if let Some(secrets) = value.get_mut("secrets") {
        let names = Vec::<String>::deserialize(&*secrets);
        let names = names.map_err(|error| malformed(format!("secrets: {error}")))?;
        let pairs =
            names.into_iter().map(
                |name| match digests.and_then(|digests| digests.get(&name)) {
                    Some(digest) => Ok((name, Value::String(digest.clone()))),
                    None => Err(FileError::Secret {
                        address: address.clone(),
                        name,
                    }),
                },
            );
        *secrets = Value::Object(pairs.collect::<Result<_, _>>()?);
    }
    T::deserialize(value).map_err(|error| malformed(error.to_string()))
}
