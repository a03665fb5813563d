//! A plan as text for people, as JSON for machines, as Markdown for a pull request, and as a graph.
//! Values are shown with control characters escaped; digests of secrets are not in a plan to begin
//! with.

mod graph;
mod isolation;
pub(super) mod json;
mod markdown;
mod text;
mod value;

pub use graph::{dot, mermaid};
pub use isolation::isolation;
pub use json::{json, json_schema};
pub use markdown::markdown;
pub use text::{APPLY_HINT, Style, text};
