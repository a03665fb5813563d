//! Plain data that every other room shares: addresses, specs, observed states, secrets.
//!
//! In: nothing. Out: types with a normal form, so that two equal definitions are `==`.
//! This room knows no YAML, no HTTP, no terminal and does no I/O.

mod address;
mod capability;
mod checkpoint;
mod desired;
mod duration;
mod health;
mod limits;
mod need;
mod observed;
mod reference;
mod sandbox;
mod secrets;
mod service;

pub use address::{Address, AddressError, NAME_RULE, SandboxName, ServiceAddress, ServiceName};
pub use capability::{Capabilities, Hindrance, Scope, Support, Urls};
pub use checkpoint::{Checkpoint, Forked, Restored, human_size};
pub use desired::{Desired, DesiredSandbox, WatchAction, WatchRule};
pub use duration::{HumanDuration, show_duration};
pub use health::{Health, HttpProbe, Probe, Scheme, StatusRange, Watchdog};
pub use limits::{Cores, Limits, show_size};
pub use need::{Condition, Need, NeedTarget};
pub use observed::{
    Definition, Exit, Isolation, Listing, Observed, ObservedSandbox, ObservedService, SandboxState,
    ServiceState, Taken,
};
pub use reference::{Reference, Url};
pub use sandbox::{
    CheckpointSettings, IsolationWish, Repo, SandboxGoal, SandboxSpec, Volumes, is_plain_path,
};
pub use secrets::{MissingSecret, Secrets, digest};
pub use service::{Program, Restart, RestartPolicy, ServiceGoal, ServiceKind, ServiceSpec, Stop};
