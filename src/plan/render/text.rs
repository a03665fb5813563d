//! The text for people.
use super::super::{Forecast, Plan};

/// How text is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Whether to use colours.
    pub color: bool,
    /// The width of a line, in columns.
    pub width: usize,
}

/// The plan as text.
pub fn text(plan: &Plan, _forecast: Option<&Forecast>, _style: &Style) -> String {
    format!("{}\n", plan.stack)
}
