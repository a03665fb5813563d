//! Bounds to what a plan may do.

use super::error::{Error, Result};
use crate::model::Observed;
use crate::plan::{Plan, deletions};

/// Options that bound the damage of a plan.
#[derive(clap::Args)]
pub struct Limits {
    /// Refuse a plan that deletes more than N sandboxes and services
    #[arg(long, value_name = "N", env = "GABION_MAX_DELETES", hide_env = true)]
    max_deletes: Option<usize>,
}

impl Limits {
    /// An error that names what would be deleted, if that is too much.
    pub fn check(&self, plan: &Plan, observed: &Observed) -> Result<()> {
        let Some(most) = self.max_deletes else {
            return Ok(());
        };
        let gone = deletions(plan, observed);
        if gone.len() <= most {
            return Ok(());
        }
        let names: Vec<String> = gone.iter().map(ToString::to_string).collect();
        Err(Error::Failed {
            message: format!(
                "the plan deletes {} sandboxes and services, and --max-deletes allows {most}: {}",
                gone.len(),
                names.join(", ")
            ),
            hint: Some("nothing was changed; a larger --max-deletes allows it".to_owned()),
        })
    }
}
