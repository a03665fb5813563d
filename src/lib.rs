//! Declarative sandboxes: a YAML manifest of sandboxes and their services is read, compared with
//! what is really there, and made true. `ARCHITECTURE.md` says where everything is.

pub mod apply;
pub mod cli;
pub mod event;
pub mod keeper;
pub mod manifest;
pub mod model;
pub mod plan;
pub mod platforms;
pub mod serve;
pub mod supervisor;
pub mod watch;
