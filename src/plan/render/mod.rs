//! A plan as text for people and as JSON for machines. Values are shown with control characters
//! escaped; digests of secrets are not in a plan to begin with.

mod json;
mod text;
mod value;

pub use json::{json, json_schema};
pub use text::{APPLY_HINT, Style, text};
