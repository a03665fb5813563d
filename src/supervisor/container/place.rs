//! Whose a container is: its name and its labels, which are all that a later supervisor or command
//! has to find it by.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::find::hex;
use crate::model::{ServiceName, ServiceSpec};

/// The folder that all sandboxes of a user are in, as a digest: a path is nobody's business.
const HOME: &str = "dev.gabion.home";
const STACK: &str = "dev.gabion.stack";
const SANDBOX: &str = "dev.gabion.sandbox";
pub(super) const SERVICE: &str = "dev.gabion.service";
const REVISION: &str = "dev.gabion.revision";
/// What runs in it, as a digest: equal if a live container need not be replaced.
pub(super) const DEFINITION: &str = "dev.gabion.definition";

/// One sandbox, as its containers name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::supervisor) struct Place {
    home: String,
    stack: String,
    sandbox: String,
}

impl Place {
    /// The sandbox kept in `dir`, which is `…/<stack>/<sandbox>`.
    pub(in crate::supervisor) fn of(dir: &Path) -> io::Result<Self> {
        let dir = dir.canonicalize()?;
        let home = dir.ancestors().nth(2).unwrap_or(&dir);
        let name = |path: Option<&Path>| {
            let name = path.and_then(Path::file_name).unwrap_or_default();
            name.to_string_lossy().into_owned()
        };
        Ok(Self {
            home: digest(home),
            stack: name(dir.parent()),
            sandbox: name(Some(&dir)),
        })
    }

    /// The name of a service's container. The digest at its end keeps `a-b` + `c` and `a` + `b-c`
    /// apart, and equal stacks of different homes.
    pub(super) fn container(&self, service: &ServiceName) -> String {
        let all = [&self.home, &self.stack, &self.sandbox, service.as_str()].join("/");
        let mark = &hex(&Sha256::digest(all))[..8];
        // Still readable in a list of containers.
        let part = |text: &str| text.chars().take(50).collect::<String>();
        let (stack, sandbox) = (part(&self.stack), part(&self.sandbox));
        format!("gabion-{stack}-{sandbox}-{service}-{mark}")
    }

    pub(super) fn labels(
        &self,
        service: &ServiceName,
        revision: u64,
        spec: &ServiceSpec,
    ) -> HashMap<String, String> {
        [
            (HOME, self.home.clone()),
            (STACK, self.stack.clone()),
            (SANDBOX, self.sandbox.clone()),
            (SERVICE, service.to_string()),
            (REVISION, revision.to_string()),
            (DEFINITION, definition(spec)),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    }

    /// The label filters that find every container of the sandbox.
    pub(super) fn filters(&self) -> Vec<String> {
        let mut filters = stack_filters(&self.home, &self.stack);
        filters.push(format!("{SANDBOX}={}", self.sandbox));
        filters
    }
}

/// The label filters that find every container of a stack, with `home` the folder of all stacks.
pub(super) fn filters_of_stack(home: &Path, stack: &str) -> io::Result<Vec<String>> {
    Ok(stack_filters(&digest(&home.canonicalize()?), stack))
}

/// The name of the sandbox that a container's labels tell.
pub(super) fn sandbox_of(labels: &HashMap<String, String>) -> Option<&str> {
    labels.get(SANDBOX).map(String::as_str)
}

fn stack_filters(home: &str, stack: &str) -> Vec<String> {
    vec![format!("{HOME}={home}"), format!("{STACK}={stack}")]
}

fn digest(path: &Path) -> String {
    hex(&Sha256::digest(path.as_os_str().as_encoded_bytes()))[..16].to_owned()
}

/// Equal for definitions that a live container need not be replaced between.
pub(super) fn definition(spec: &ServiceSpec) -> String {
    #[derive(serde::Serialize)]
    struct Process<'a> {
        kind: crate::model::ServiceKind,
        argv: Vec<String>,
        env: &'a std::collections::BTreeMap<String, String>,
        secrets: &'a std::collections::BTreeMap<String, String>,
        working_dir: Option<&'a Path>,
        user: Option<&'a str>,
        image: Option<&'a str>,
        limits: &'a crate::model::Limits,
    }
    let process = Process {
        kind: spec.kind,
        argv: spec.program.argv(),
        env: &spec.env,
        secrets: &spec.secrets,
        working_dir: spec.working_dir.as_deref(),
        user: spec.user.as_deref(),
        image: spec.image.as_deref(),
        limits: &spec.limits,
    };
    // Plain data with text keys: writing it down cannot fail.
    let text = serde_json::to_vec(&process).unwrap_or_default();
    hex(&Sha256::digest(text))[..32].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_tell_sandboxes_apart() {
        let root = tempfile::tempdir().unwrap();
        let place = |path: &str| {
            let dir = root.path().join(path);
            std::fs::create_dir_all(&dir).unwrap();
            Place::of(&dir).unwrap()
        };
        let web = ServiceName::new("web").unwrap();
        let (one, two) = (place("s/a-b/c"), place("s/a/b-c"));
        let name = one.container(&web);
        assert!(name.starts_with("gabion-a-b-c-web-"), "{name}");
        assert_ne!(name, two.container(&web));
        assert_ne!(one.filters(), two.filters());
        assert_ne!(name, place("t/a-b/c").container(&web));
        let of_stack = filters_of_stack(&root.path().join("s"), "a-b").unwrap();
        assert!(one.filters().starts_with(&of_stack));
    }
}
