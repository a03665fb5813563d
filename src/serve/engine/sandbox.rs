//! One sandbox: its record, and its supervisor, which is brought up when it is needed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::account::News;
use super::{EngineError, Exec, Kind, Record, Result};
use crate::model::{Checkpoint, Restored, SandboxName, SandboxSpec, Secrets};
use crate::platforms::local::Local;
use crate::platforms::{Act, Observe};
use crate::supervisor::{self, Client};

/// A sandbox of an account.
pub struct Sandbox {
    id: SandboxName,
    pub(super) local: Local,
    dir: PathBuf,
    /// Of the account that it is in.
    news: Mutex<News>,
    record: Mutex<Record>,
    client: Mutex<Option<Client>>,
    /// Held while it is brought up, stopped or removed. True once it is removed.
    life: tokio::sync::Mutex<bool>,
    /// The commands that run in it, by their number.
    pub(super) execs: Mutex<BTreeMap<u64, Arc<Exec>>>,
    /// Held while definitions are compared and stored.
    pub(super) defining: tokio::sync::Mutex<()>,
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is in it is replaced as a whole, so a panic elsewhere cannot have torn it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sandbox {
    /// One that was just made.
    pub(super) fn new(local: Local, id: SandboxName, record: Record, news: News) -> Result<Self> {
        let dir = local.dir(&id);
        record.write(&dir)?;
        Ok(Self {
            id,
            local,
            dir,
            news: Mutex::new(news),
            record: Mutex::new(record),
            client: Mutex::new(None),
            life: tokio::sync::Mutex::new(false),
            execs: Mutex::default(),
            defining: tokio::sync::Mutex::new(()),
        })
    }

    /// One that is there already.
    pub(super) fn open(local: Local, id: SandboxName, news: News) -> Result<Self> {
        let record = match Record::read(&local.dir(&id))? {
            Some(record) => record,
            // Its server was killed before it had written one.
            None => {
                let name = local.spec(&id)?.and_then(|spec| spec.name);
                Record::new(name.unwrap_or_else(|| id.to_string()))
            }
        };
        Self::new(local, id, record, news)
    }

    /// Lets another account hear of what changes.
    pub(super) fn set_news(&self, news: News) {
        *locked(&self.news) = news;
    }

    fn tell(&self) {
        locked(&self.news).tell();
    }

    /// Its key, which never changes: `sb_4k2m9x0qwe7r`.
    pub fn id(&self) -> &SandboxName {
        &self.id
    }

    /// The folder it is kept in.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the platforms keep about it.
    pub fn record(&self) -> Record {
        locked(&self.record).clone()
    }

    /// Whether it is called so.
    pub fn has_name(&self, name: &str) -> bool {
        locked(&self.record).name == name
    }

    /// Older ones sort first.
    pub(super) fn age(&self) -> (Timestamp, &SandboxName) {
        (locked(&self.record).created_at, &self.id)
    }

    /// Changes the record, and says when.
    pub fn update<T>(&self, change: impl FnOnce(&mut Record) -> T) -> Result<T> {
        let mut kept = locked(&self.record);
        let mut record = kept.clone();
        let told = change(&mut record);
        if record != *kept {
            record.updated_at = Timestamp::now();
            record.write(&self.dir)?;
            *kept = record;
            self.tell();
        }
        Ok(told)
    }

    /// Whether its supervisor serves.
    pub fn is_up(&self) -> bool {
        supervisor::is_serving(&self.dir)
    }

    /// The client of its supervisor, which is brought up if it is not.
    pub async fn awake(&self) -> Result<Client> {
        if let Some(client) = self.client_if_up()? {
            return Ok(client);
        }
        self.start().await?;
        self.client_if_up()?.ok_or_else(|| {
            let text = format!("sandbox {} is not running", self.id);
            EngineError::new(Kind::Unavailable, text)
        })
    }

    /// The client of its supervisor, if that serves.
    pub fn client_if_up(&self) -> Result<Option<Client>> {
        if !self.is_up() {
            return Ok(None);
        }
        let mut client = locked(&self.client);
        if client.is_none() {
            *client = Client::open(&self.dir)?;
        }
        Ok(client.clone())
    }

    /// Brings it up, with the services that ran when it was stopped.
    pub async fn start(&self) -> Result<()> {
        let removed = self.life.lock().await;
        if *removed {
            return Err(self.gone());
        }
        let spec = self.spec()?;
        self.local.start_sandbox(&self.id, &spec).await?;
        self.tell();
        Ok(())
    }

    /// Stops everything in it and keeps it.
    pub async fn stop(&self) -> Result<()> {
        let removed = self.life.lock().await;
        if *removed {
            return Err(self.gone());
        }
        *locked(&self.client) = None;
        self.local.stop_sandbox(&self.id).await?;
        self.tell();
        Ok(())
    }

    /// Removes it with everything in it.
    pub(super) async fn delete(&self) -> Result<()> {
        let mut removed = self.life.lock().await;
        if *removed {
            return Err(self.gone());
        }
        *locked(&self.client) = None;
        self.local.delete_sandbox(&self.id).await?;
        *removed = true;
        Ok(())
    }

    fn gone(&self) -> EngineError {
        EngineError::not_found("sandbox", self.id.as_str())
    }

    /// What it was made with.
    pub fn spec(&self) -> Result<SandboxSpec> {
        self.local.spec(&self.id)?.ok_or_else(|| self.gone())
    }

    /// Replaces the environment of everything that is started in it from now on.
    pub async fn set_variables(&self, variables: BTreeMap<String, String>) -> Result<()> {
        let spec = SandboxSpec {
            env: variables.clone(),
            ..self.spec()?
        };
        let secrets = Secrets::default();
        self.local.update_sandbox(&self.id, &spec, &secrets).await?;
        self.update(|record| record.variables = variables)
    }

    /// Its checkpoints, the oldest first.
    pub async fn checkpoints(&self) -> Result<Vec<Checkpoint>> {
        Ok(self.local.checkpoints(&self.id).await?)
    }

    /// Makes a checkpoint.
    pub async fn create_checkpoint(&self, name: Option<&str>) -> Result<Checkpoint> {
        let client = self.awake().await?;
        Ok(client.create_checkpoint(name, &Secrets::default()).await?)
    }

    /// Rewinds it to a checkpoint.
    pub async fn restore_checkpoint(&self, id: &str) -> Result<Restored> {
        let client = self.awake().await?;
        Ok(client.restore_checkpoint(id, &Secrets::default()).await?)
    }

    /// Removes a checkpoint.
    pub async fn delete_checkpoint(&self, id: &str) -> Result<()> {
        let client = self.awake().await?;
        Ok(client.delete_checkpoint(id).await?)
    }
}
