//! Checkpoints.
mod copy;
