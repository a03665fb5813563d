//! A sandbox as it is wanted.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{HumanDuration, Need};

/// A sandbox in normal form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// The name of the platform entry that it lives on; `local` by default.
    pub platform: String,
    /// Its name on the platform, where that differs from `<stack>-<sandbox>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The image, template or base to create it from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// Free text for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Labels for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topics: Vec<String>,
    /// A git repository that is cloned when the sandbox starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<Repo>,
    /// How long the platform keeps it when idle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<HumanDuration>,
    /// Virtual processors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u32>,
    /// Memory, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Disk, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<u64>,
    /// Disks that outlive what runs in it: the path that each is mounted at, by its name.
    #[serde(default, skip_serializing_if = "Volumes::is_empty")]
    pub volumes: Volumes,
    /// Files that the platform writes when it starts it: the secret that each one's content is, by its path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
    /// Environment of everything in it; already merged into each service's `env`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Digest of each secret that `env` and `files` use, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, String>,
    /// The folder its services run in. Absolute. `None`: a private folder that the platform makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<PathBuf>,
    /// The isolation asked for.
    #[serde(default)]
    pub isolation: IsolationWish,
    /// Paths that its services cannot see. Absolute.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hide: Vec<PathBuf>,
    /// Paths outside its workspace that its services may write to. Absolute.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub writable: Vec<PathBuf>,
    /// What makes a checkpoint of it consistent.
    #[serde(default, skip_serializing_if = "CheckpointSettings::is_none")]
    pub checkpoint: CheckpointSettings,
    /// Whether the platform's own editor server is exposed. An editor server with a command of its
    /// own is a service.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub vscode: bool,
    /// Whether its public URL can be opened by anybody.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub public: bool,
    /// What must be ready before anything in this sandbox starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<Need>,
    /// Whether deleting it is refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub protect: bool,
    /// Whether it should be up.
    #[serde(default)]
    pub state: SandboxGoal,
}

impl Default for SandboxSpec {
    fn default() -> Self {
        Self {
            platform: "local".to_owned(),
            name: None,
            base: None,
            description: None,
            topics: Vec::new(),
            repo: None,
            keep_alive: None,
            vcpus: None,
            memory: None,
            disk: None,
            volumes: Volumes::new(),
            files: BTreeMap::new(),
            env: BTreeMap::new(),
            secrets: BTreeMap::new(),
            workspace: None,
            isolation: IsolationWish::default(),
            hide: Vec::new(),
            writable: Vec::new(),
            checkpoint: CheckpointSettings::default(),
            vscode: false,
            public: false,
            needs: Vec::new(),
            protect: false,
            state: SandboxGoal::default(),
        }
    }
}

impl SandboxSpec {
    /// Whether a running sandbox has to be stopped and started to become `other`. Fields that are
    /// only shown or looked up when they are needed are taken over in place.
    pub fn needs_restart(&self, other: &Self) -> bool {
        let running = |spec: &Self| {
            (
                spec.base.clone(),
                spec.workspace.clone(),
                spec.repo.as_ref().map(|repo| repo.url.clone()),
                spec.isolation,
                spec.hide.clone(),
                spec.writable.clone(),
                spec.vcpus,
                spec.memory,
                spec.volumes.clone(),
                spec.digests_of_files(),
            )
        };
        running(self) != running(other)
    }

    /// What stands for the content of each file, by its path; nothing where it is not known.
    fn digests_of_files(&self) -> BTreeMap<String, Option<String>> {
        let files = self.files.iter();
        let digest =
            |(path, secret): (&String, &String)| (path.clone(), self.secrets.get(secret).cloned());
        files.map(digest).collect()
    }

    /// Whether both have a file at this path, of the same content.
    pub fn has_same_file(&self, other: &Self, path: &str) -> bool {
        let digest = |spec: &Self| spec.secrets.get(spec.files.get(path)?).cloned();
        digest(self).is_some_and(|it| digest(other) == Some(it))
    }

    /// Takes a file out.
    pub fn remove_file(&mut self, path: &str) {
        if let Some(secret) = self.files.remove(path) {
            self.secrets.remove(&secret);
        }
    }

    /// Those of `fields`, by their names in a manifest, that differ from `other`.
    pub fn differing<'f>(&self, other: &Self, fields: &[&'f str]) -> Vec<&'f str> {
        let [this, other] =
            [self, other].map(|spec| serde_json::to_value(spec).unwrap_or_default());
        let differs = |field: &&&str| this.get(**field) != other.get(**field);
        fields.iter().filter(differs).copied().collect()
    }
}

/// The paths that volumes are mounted at, by their names.
pub type Volumes = BTreeMap<String, String>;

/// Whether a path can be that of a volume or a file in a sandbox: it is absolute, below `/`, and written in one way
/// only.
pub fn is_plain_path(path: &str) -> bool {
    let part = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(char::is_control);
    let parts = path.strip_prefix('/').map(|rest| rest.split('/'));
    parts.is_some_and(|mut parts| parts.all(part))
}

/// A git repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repo {
    /// Where it is cloned from.
    pub url: String,
    /// The branch, tag or commit. `None`: what the repository's `HEAD` points to.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// How many commits of its history are fetched. `None`: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<u32>,
}

impl Repo {
    /// The user or token in the URL, and the URL around it: `https://`, `me:token`,
    /// `example.org/x.git`. `None` if there is nothing to keep to oneself.
    pub fn credentials(&self) -> Option<(&str, &str, &str)> {
        let scheme_end = self.url.find("://")? + "://".len();
        let (scheme, rest) = self.url.split_at(scheme_end);
        let authority = &rest[..rest.find('/').unwrap_or(rest.len())];
        let (user, _) = authority.rsplit_once('@')?;
        // A name alone may be a token too; over ssh it is only ever a name.
        let secret = scheme != "ssh://" || user.contains(':');
        secret.then(|| (scheme, user, &rest[user.len() + 1..]))
    }

    /// The URL without the user or token in it, for people.
    pub fn shown_url(&self) -> String {
        match self.credentials() {
            Some((scheme, _, rest)) => format!("{scheme}***@{rest}"),
            None => self.url.clone(),
        }
    }
}

/// What is done around a checkpoint, so that what is copied is consistent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointSettings {
    /// The argument vector of what is run in the sandbox before; if it fails, so does the checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Vec<String>>,
    /// The argument vector of what is run in the sandbox after, whether the checkpoint succeeded or
    /// not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Vec<String>>,
    /// Whether the sandbox's processes are held while files are copied. `None`: they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freeze: Option<bool>,
}

impl CheckpointSettings {
    /// Whether the sandbox's processes are held while files are copied.
    pub fn freezes(&self) -> bool {
        self.freeze.unwrap_or(true)
    }

    /// Whether nothing is done.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether a sandbox should be up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SandboxGoal {
    /// Up, with its services in their own wanted states.
    #[default]
    Running,
    /// Kept, but with nothing running in it.
    Stopped,
}

/// The isolation a manifest asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IsolationWish {
    /// The strongest that the machine can do.
    #[default]
    Auto,
    /// Own process, mount and IPC namespaces; an error where they cannot be had.
    Strict,
    /// Process groups only.
    None,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_volumes_and_files_are_below_the_root() {
        for good in ["/data", "/var/lib/data", "/a b/.c", "/..."] {
            assert!(is_plain_path(good), "{good}");
        }
        for bad in [
            "", "/", "data", "./a", "/a/", "/a//b", "/a/./b", "/a/../b", "/a\n",
        ] {
            assert!(!is_plain_path(bad), "{bad:?}");
        }
    }

    #[test]
    fn credentials_are_not_shown() {
        for (url, shown) in [
            ("https://example.org/x.git", "https://example.org/x.git"),
            (
                "https://me:t0ken@example.org/x",
                "https://***@example.org/x",
            ),
            ("https://t0ken@example.org", "https://***@example.org"),
            (
                "https://a@b:c@example.org/x@y",
                "https://***@example.org/x@y",
            ),
            ("ssh://git@example.org/x", "ssh://git@example.org/x"),
            ("ssh://git:pw@example.org/x", "ssh://***@example.org/x"),
            ("git@example.org:x.git", "git@example.org:x.git"),
            ("file:///tmp/a@b", "file:///tmp/a@b"),
        ] {
            let repo = Repo {
                url: url.to_owned(),
                reference: None,
                depth: None,
            };
            assert_eq!(repo.shown_url(), shown);
        }
    }
}
