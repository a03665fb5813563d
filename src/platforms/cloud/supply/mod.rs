//! What clouds lack and gabion supplies, by means that every cloud has: a shell in the sandbox.
//!
//! * [`ready`] awaits a service: probes are shell scripts that run inside ([`probe`]).
//! * [`task`] makes a service of a task, on platforms that start again whatever ends.
//!
//! In: specs and a platform's way of running a script. Out: scripts, and the end of a wait. Starts and
//! stops nothing itself.

pub mod probe;
mod ready;
pub mod shell;
pub mod task;

pub use ready::{Asked, Inside, ready};
