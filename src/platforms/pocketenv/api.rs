//! The operations of the page, a function for each: protocol page pocketenv, §3. What is declared to take
//! no input is sent without a body.

use std::time::Duration;

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::seal::{Seal, redacted};
use super::wire::{
    Attached, AttachedPage, Backup, Backups, Created, Exposed, Found, Port, Ports, Profile, Pushed,
    Ran, Sandbox, Sandboxes, Service, Services,
};
use crate::platforms::Attachment;
use crate::platforms::cloud::http::{Client, HttpError, Request};

/// How many entries of a list are asked for at once; the platform declares no limit.
const PAGE: usize = 500;

/// How long a folder may take to be packed or unpacked.
const FOLDERS: Duration = Duration::from_secs(600);

/// What every operation's name begins with.
const PREFIX: &str = "io.pocketenv.";

type Result<T, E = HttpError> = std::result::Result<T, E>;

/// The operations.
pub(super) struct Api {
    http: Client,
    pub(super) seal: Seal,
}

/// What a sandbox is called, and what is written on it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Details {
    pub name: String,
    pub description: String,
    pub topics: Vec<String>,
    pub repo: Option<String>,
}

/// What a service is stored with. Without ports, those that it has stay.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stored {
    pub name: String,
    pub command: String,
    pub description: String,
    pub ports: Option<Vec<u16>>,
}

impl Stored {
    fn body(&self) -> Value {
        let mut service = json!({
            "name": self.name,
            "command": self.command,
            "description": self.description,
        });
        if let Some(ports) = &self.ports {
            service["ports"] = json!(ports);
        }
        json!({ "service": service })
    }

    /// Whether a service is stored so; ports are not shown.
    pub fn is(&self, service: &Service) -> bool {
        service.name == self.name
            && service.command == self.command
            && service.description.as_deref() == Some(&self.description)
    }
}

impl Api {
    pub fn new(http: Client, seal: Seal) -> Self {
        Self { http, seal }
    }

    pub(super) fn get(&self, operation: &str) -> Request<'_> {
        self.http.get(&["xrpc", &format!("{PREFIX}{operation}")])
    }

    pub(super) fn post(&self, operation: &str) -> Request<'_> {
        self.http.post(&["xrpc", &format!("{PREFIX}{operation}")])
    }

    pub async fn profile(&self) -> Result<Profile> {
        self.get("actor.getProfile").fetch().await
    }

    /// Every sandbox of somebody, the newest first.
    pub async fn actor_sandboxes(&self, actor: &str) -> Result<Vec<Sandbox>> {
        self.all("actor.getActorSandboxes", Some(actor)).await
    }

    /// What sandboxes can be made from.
    pub async fn catalogue(&self) -> Result<Vec<Sandbox>> {
        self.all("sandbox.getSandboxes", None).await
    }

    async fn all(&self, operation: &str, actor: Option<&str>) -> Result<Vec<Sandbox>> {
        let mut all = Vec::new();
        loop {
            let mut request = self.get(operation);
            if let Some(actor) = actor {
                request = request.query("did", actor);
            }
            let request = request
                .query("limit", PAGE.to_string())
                .query("offset", all.len().to_string());
            let page: Sandboxes = request.fetch().await?;
            let last = page.sandboxes.is_empty();
            all.extend(page.sandboxes);
            if last || all.len() >= page.total {
                return Ok(all);
            }
        }
    }

    pub async fn sandbox(&self, id: &str) -> Result<Option<Sandbox>> {
        let request = self.get("sandbox.getSandbox").query("id", id);
        let found: Found = request.fetch().await?;
        Ok(found.sandbox)
    }

    /// Makes a sandbox, which is given a name of the platform's choice.
    pub async fn create(&self, base: &str, provider: &str, keep_alive: bool) -> Result<String> {
        let mut body = json!({ "base": base, "provider": provider });
        if keep_alive {
            body["keepAlive"] = json!(true);
        }
        let request = self.post("sandbox.createSandbox").json(&body);
        let created: Created = request.fetch().await?;
        Ok(created.id)
    }

    pub async fn put_details(&self, id: &str, details: &Details) -> Result<()> {
        let preference = json!({
            "$type": "io.pocketenv.sandbox.defs#sandboxDetailsPref",
            "name": details.name,
            "description": details.description,
            "topics": (!details.topics.is_empty()).then_some(&details.topics),
            "repo": details.repo,
        });
        let body = json!({ "sandboxId": id, "preferences": [preference] });
        let request = self.post("sandbox.putPreferences").json(&body);
        request.send().await.map(drop)
    }

    pub async fn start(&self, id: &str, repo: Option<&str>, keep_alive: bool) -> Result<()> {
        let mut body = json!({});
        if let Some(repo) = repo {
            body["repo"] = json!(repo);
        }
        if keep_alive {
            body["keepAlive"] = json!(true);
        }
        let request = self.post("sandbox.startSandbox").query("id", id);
        request.json(&body).send().await.map(drop)
    }

    pub async fn stop(&self, id: &str) -> Result<()> {
        let request = self.post("sandbox.stopSandbox").query("id", id);
        request.send().await.map(drop)
    }

    pub async fn delete(&self, id: &str) -> Result<()> {
        let request = self.post("sandbox.deleteSandbox").query("id", id);
        request.send().await.map(drop)
    }

    pub async fn exec(&self, id: &str, command: &str) -> Result<Ran> {
        let request = self.post("sandbox.exec").query("id", id);
        request.json(&json!({ "command": command })).fetch().await
    }

    pub async fn ports(&self, id: &str) -> Result<Vec<Port>> {
        let request = self.get("sandbox.getExposedPorts").query("id", id);
        let ports: Ports = request.fetch().await?;
        Ok(ports.ports)
    }

    pub async fn expose(
        &self,
        id: &str,
        port: u16,
        description: Option<&str>,
    ) -> Result<Option<String>> {
        let mut body = json!({ "port": port });
        if let Some(description) = description {
            body["description"] = json!(description);
        }
        let request = self.post("sandbox.exposePort").query("id", id);
        let exposed: Exposed = request.json(&body).fetch().await?;
        Ok(exposed.preview_url)
    }

    pub async fn unexpose(&self, id: &str, port: u16) -> Result<()> {
        let request = self.post("sandbox.unexposePort").query("id", id);
        let request = request.json(&json!({ "port": port }));
        request.send().await.map(drop)
    }

    pub async fn expose_vscode(&self, id: &str) -> Result<Option<String>> {
        let request = self.post("sandbox.exposeVscode").query("id", id);
        let exposed: Exposed = request.fetch().await?;
        Ok(exposed.preview_url)
    }

    /// Has a folder backed up, some time soon, and removed after a time: this one, or the platform's own.
    pub async fn create_backup(
        &self,
        id: &str,
        folder: &str,
        description: &str,
        time: Option<Duration>,
    ) -> Result<()> {
        let mut body = json!({ "directory": folder, "description": description });
        if let Some(time) = time {
            body["ttl"] = json!(time.as_secs());
        }
        let request = self.post("sandbox.createBackup").query("id", id);
        request.json(&body).send().await.map(drop)
    }

    /// The backups that are made and not over.
    pub async fn backups(&self, id: &str) -> Result<Vec<Backup>> {
        let request = self.get("sandbox.getBackups").query("id", id);
        let backups: Backups = request.fetch().await?;
        Ok(backups.backups)
    }

    /// Brings a folder back.
    pub async fn restore_backup(&self, backup: &str) -> Result<()> {
        let request = self.post("sandbox.restoreBackup");
        let request = request.json(&json!({ "backupId": backup }));
        request.send().await.map(drop)
    }

    /// Makes a sandbox the user's that is nobody's.
    pub async fn claim(&self, id: &str) -> Result<()> {
        let request = self.post("sandbox.claimSandbox").query("id", id);
        request.send().await.map(drop)
    }

    /// Has a folder packed, and returns what the storage has it by.
    pub async fn push_directory(&self, id: &str, folder: &str) -> Result<String> {
        let body = json!({ "sandboxId": id, "directoryPath": folder });
        let request = self.post("sandbox.pushDirectory").json(&body);
        let pushed: Pushed = request.timeout(FOLDERS).fetch().await?;
        Ok(pushed.uuid)
    }

    /// Has an archive of the storage unpacked in a folder.
    pub async fn pull_directory(&self, id: &str, folder: &str, uuid: &str) -> Result<()> {
        let body = json!({ "sandboxId": id, "directoryPath": folder, "uuid": uuid });
        let request = self.post("sandbox.pullDirectory").json(&body);
        request.timeout(FOLDERS).send().await.map(drop)
    }

    pub async fn services(&self, sandbox: &str) -> Result<Vec<Service>> {
        let request = self.get("service.getServices").query("sandboxId", sandbox);
        let services: Services = request.fetch().await?;
        Ok(services.services)
    }

    /// Stores a service, and starts it if its sandbox runs.
    pub async fn add_service(&self, sandbox: &str, stored: &Stored) -> Result<()> {
        let request = self.post("service.addService").query("sandboxId", sandbox);
        request.json(&stored.body()).send().await.map(drop)
    }

    pub async fn update_service(&self, service: &str, stored: &Stored) -> Result<()> {
        let request = self
            .post("service.updateService")
            .query("serviceId", service);
        request.json(&stored.body()).send().await.map(drop)
    }

    pub async fn start_service(&self, service: &str) -> Result<()> {
        self.about_service("service.startService", service).await
    }

    pub async fn stop_service(&self, service: &str) -> Result<()> {
        self.about_service("service.stopService", service).await
    }

    pub async fn delete_service(&self, service: &str) -> Result<()> {
        self.about_service("service.deleteService", service).await
    }

    async fn about_service(&self, operation: &str, service: &str) -> Result<()> {
        let request = self.post(operation).query("serviceId", service);
        request.send().await.map(drop)
    }

    /// What is attached to a sandbox.
    pub async fn attached(&self, sandbox: &str, kind: Attachment) -> Result<Vec<Attached>> {
        let operation = operation(kind, "get", "s");
        let mut all = Vec::new();
        loop {
            let request = self
                .get(&operation)
                .query("sandboxId", sandbox)
                .query("limit", PAGE.to_string())
                .query("offset", all.len().to_string());
            let page: AttachedPage = request.fetch().await?;
            let last = page.items.is_empty();
            all.extend(page.items);
            if last || all.len() >= page.total {
                return Ok(all);
            }
        }
    }

    /// Attaches something: another value for `id`, or something new. The content of a file that is there
    /// cannot be changed.
    pub async fn attach(
        &self,
        sandbox: &str,
        kind: Attachment,
        id: Option<&str>,
        name: &str,
        value: &SecretString,
    ) -> Result<()> {
        let plain = || value.expose_secret().to_owned();
        let mut body = json!({});
        body[noun(kind)] = match kind {
            Attachment::Variable => json!({ "sandboxId": sandbox, "name": name, "value": plain() }),
            Attachment::Secret => {
                body["redacted"] = json!(redacted(value));
                json!({ "sandboxId": sandbox, "name": name, "value": self.seal.seal(value) })
            }
            Attachment::File => {
                json!({ "sandboxId": sandbox, "path": name, "content": self.seal.seal(value) })
            }
            Attachment::Volume => json!({ "sandboxId": sandbox, "name": name, "path": plain() }),
        };
        let verb = match id {
            Some(_) => "update",
            None => "add",
        };
        if let Some(id) = id {
            body["id"] = json!(id);
        }
        let request = self.post(&operation(kind, verb, ""));
        request.json(&body).send().await.map(drop)
    }

    pub async fn detach(&self, kind: Attachment, id: &str) -> Result<()> {
        let request = self.post(&operation(kind, "delete", "")).query("id", id);
        request.send().await.map(drop)
    }
}

fn noun(kind: Attachment) -> &'static str {
    match kind {
        Attachment::Variable => "variable",
        Attachment::Secret => "secret",
        Attachment::File => "file",
        Attachment::Volume => "volume",
    }
}

/// `file.addFile`, `volume.getVolumes`.
fn operation(kind: Attachment, verb: &str, end: &str) -> String {
    let noun = noun(kind);
    let (first, rest) = noun.split_at(1);
    format!("{noun}.{verb}{}{rest}{end}", first.to_uppercase())
}

/// When something was made, in the order of making; what does not say it is the oldest.
pub(super) fn age(sandbox: &Sandbox) -> (Option<Timestamp>, &str) {
    (sandbox.created_at, &sandbox.id)
}
