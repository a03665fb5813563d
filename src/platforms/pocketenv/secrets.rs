//! Secrets of services: attached to the sandbox, sealed, each by a name that tells its value from another.
//! The platform hands them to processes when it starts a sandbox, and not before.

use std::collections::BTreeSet;

use secrecy::ExposeSecret;

use super::super::cloud::supply::shell::quote;
use super::command::{secret_name, secret_prefix};
use super::surely::surely;
use super::wire::Attached;
use super::{Inner, label};
use crate::model::{Secrets, ServiceName, ServiceSpec};
use crate::platforms::{Attachment, PlatformError, Result};

impl Inner {
    /// Attaches the secrets that a service uses, and removes those that it used before.
    pub(super) async fn settle_secrets(
        &self,
        id: &str,
        name: &ServiceName,
        spec: &ServiceSpec,
        secrets: &Secrets,
    ) -> Result<()> {
        let there = self.api.attached(id, Attachment::Secret).await?;
        let mut wanted = BTreeSet::new();
        for secret in spec.secrets.keys() {
            let Some(variable) = secret_name(name, spec, secret) else {
                continue;
            };
            if !there.iter().any(|it| it.name() == variable) {
                let value = secrets.get(secret).ok_or_else(|| {
                    PlatformError::new(format!("the value of secret `{secret}` is not at hand"))
                })?;
                self.set_attached(id, Attachment::Secret, &variable, value)
                    .await?;
            }
            wanted.insert(variable);
        }
        let prefix = secret_prefix(name);
        for old in there {
            if old.name().starts_with(&prefix) && !wanted.contains(old.name()) {
                self.remove_attached(Attachment::Secret, id, &old.id)
                    .await?;
            }
        }
        Ok(())
    }

    /// Makes sure that processes get the secrets of a service. If they do not, the sandbox is started
    /// again, which starts all of its services: those that run are stopped before.
    pub(super) async fn bring_into_effect(
        &self,
        id: &str,
        name: &ServiceName,
        spec: &ServiceSpec,
    ) -> Result<()> {
        let names = spec.secrets.keys();
        let names: Vec<_> = names
            .filter_map(|secret| secret_name(name, spec, secret))
            .collect();
        if names.is_empty() {
            return Ok(());
        }
        let _refreshing = self.refreshing.lock().await;
        let tests = names.iter().map(|name| format!("[ -n \"${{{name}+x}}\" ]"));
        let test = tests.collect::<Vec<_>>().join(" && ");
        if self.api.exec(id, &test).await?.exit_code == 0 {
            return Ok(());
        }
        for service in self.note_down(id).await? {
            self.stop_running(id, &service).await?;
        }
        // With its repository and its time.
        let sandbox = self.api.sandbox(id).await?;
        let found = sandbox.and_then(|it| label::of_sandbox(it.description.as_deref()));
        let spec = found.map(|(_, label)| label.mark.spec).unwrap_or_default();
        self.start(id, &spec).await?;
        // They come in the background.
        match self.becomes_true(id, &test).await? {
            true => Ok(()),
            false => Err(PlatformError::new(
                "the platform has not handed its secrets to the sandbox",
            )),
        }
    }

    /// Waits for what the platform does in the background: whether a test in the sandbox is true at last.
    pub(super) async fn becomes_true(&self, id: &str, test: &str) -> Result<bool> {
        let wait = format!(
            "i=0; until {test}; do i=$((i + 1)); [ $i -ge 100 ] && exit 1; sleep 0.1; done"
        );
        let wait = format!("/bin/sh -c {}", quote(&wait));
        Ok(self.api.exec(id, &wait).await?.exit_code == 0)
    }

    /// Attaches something to a sandbox, in place of what has the same name.
    pub(super) async fn set_attached(
        &self,
        id: &str,
        kind: Attachment,
        name: &str,
        value: &secrecy::SecretString,
    ) -> Result<()> {
        let there = self.api.attached(id, kind).await?;
        let mut known = there.iter().find(|it| it.name() == name);
        // The platform changes a file's path, but not its content.
        if let Some(old) = known.take_if(|_| kind == Attachment::File) {
            self.remove_attached(kind, id, &old.id).await?;
        }
        let known = known.map(|it| it.id.as_str());
        self.put_attached(id, kind, known, name, value).await
    }

    /// Attaches something new, or gives the `known` one another value.
    pub(super) async fn put_attached(
        &self,
        id: &str,
        kind: Attachment,
        known: Option<&str>,
        name: &str,
        value: &secrecy::SecretString,
    ) -> Result<()> {
        let is_so = |it: &Attached| {
            it.name() == name
                && match kind {
                    Attachment::Volume => it.path() == Some(value.expose_secret()),
                    // Whether one that was there has its new value cannot be seen.
                    _ => known.is_none(),
                }
        };
        surely(
            || self.api.attach(id, kind, known, name, value),
            || async {
                let there = self.api.attached(id, kind).await?;
                Ok(there.iter().any(is_so).then_some(()))
            },
        )
        .await
    }

    /// Removes one.
    pub(super) async fn remove_attached(
        &self,
        kind: Attachment,
        sandbox: &str,
        id: &str,
    ) -> Result<()> {
        surely(
            || self.api.detach(kind, id),
            || async {
                let there = self.api.attached(sandbox, kind).await?;
                Ok(there.iter().all(|it| it.id != id).then_some(()))
            },
        )
        .await
    }
}
