//! Plain data that every other room shares: addresses, specs, observed states, secrets.
//!
//! In: nothing. Out: types with a normal form, so that two equal definitions are `==`.
//! This room knows no YAML, no HTTP, no terminal and does no I/O.

mod address;
mod capability;
mod duration;
mod observed;
mod secrets;
mod spec;

pub use address::{Address, AddressError, NAME_RULE, SandboxName, ServiceAddress, ServiceName};
pub use capability::{Capabilities, Scope, Support};
pub use duration::{HumanDuration, show_duration};
pub use observed::{
    Definition, Exit, Isolation, Listing, Observed, ObservedSandbox, ObservedService, SandboxState,
    ServiceState,
};
pub use secrets::{MissingSecret, Secrets, digest};
pub use spec::{
    Condition, Desired, DesiredSandbox, Health, IsolationWish, Need, NeedTarget, Probe, Program,
    Restart, RestartPolicy, SandboxGoal, SandboxSpec, ServiceGoal, ServiceKind, ServiceSpec, Stop,
    WatchAction, WatchRule,
};
