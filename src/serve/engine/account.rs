//! One account: its sandboxes, which no other account sees.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::watch;

use super::{EngineError, Record, Result, Sandbox, Settings};
use crate::model::{IsolationWish, SandboxName, SandboxSpec, Secrets};
use crate::platforms::local::Local;
use crate::platforms::{Act, ForkOptions};

/// The sandboxes of one token.
pub struct Account {
    name: String,
    /// Who its token says that it is.
    did: Option<String>,
    local: Local,
    isolation: IsolationWish,
    sandboxes: Mutex<BTreeMap<SandboxName, Arc<Sandbox>>>,
    /// Counts what changes in it.
    news: News,
    /// The names of sandboxes that are being made.
    reserved: Mutex<BTreeSet<String>>,
}

/// Tells that something has changed.
#[derive(Clone, Default)]
pub(super) struct News(Arc<watch::Sender<u64>>);

impl News {
    pub(super) fn tell(&self) {
        self.0.send_modify(|count| *count += 1);
    }
}

/// A sandbox that is asked for.
pub struct Wish {
    /// What the platforms keep about it.
    pub record: Record,
    /// Whether its name must be no other sandbox's in the account.
    pub unique_name: bool,
    /// How it is made; what the record says is filled in.
    pub spec: SandboxSpec,
}

impl Wish {
    /// Nameless ones are called by their id.
    fn called(mut self, id: &SandboxName) -> Self {
        if self.record.name.is_empty() {
            self.record.name = id.to_string();
        }
        self
    }

    /// A plain sandbox of this name, unique in the account.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            record: Record::new(name),
            unique_name: true,
            spec: SandboxSpec::default(),
        }
    }
}

impl Account {
    /// Finds the sandboxes that are there already.
    pub(super) fn open(settings: &Settings, name: String, did: Option<String>) -> Result<Self> {
        let local = Local::new(&settings.home, &name, &settings.program);
        let news = News::default();
        let mut sandboxes = BTreeMap::new();
        for id in local.sandboxes()? {
            let sandbox = Sandbox::open(local.clone(), id.clone(), news.clone())?;
            sandboxes.insert(id, Arc::new(sandbox));
        }
        Ok(Self {
            name,
            did,
            local,
            isolation: settings.isolation,
            sandboxes: Mutex::new(sandboxes),
            news,
            reserved: Mutex::default(),
        })
    }

    /// A name that stands for the token and does not tell it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Who its token says that it is: a Pocketenv token names its user.
    pub fn did(&self) -> Option<&str> {
        self.did.as_deref()
    }

    fn map(&self) -> MutexGuard<'_, BTreeMap<SandboxName, Arc<Sandbox>>> {
        lock(&self.sandboxes)
    }

    /// Changes whenever a sandbox is made, changed, started, stopped or removed.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.0.subscribe()
    }

    /// Every sandbox, the oldest first.
    pub fn sandboxes(&self) -> Vec<Arc<Sandbox>> {
        let mut all: Vec<_> = self.map().values().cloned().collect();
        all.sort_by(|one, other| one.age().cmp(&other.age()));
        all
    }

    /// The sandbox with this id.
    pub fn by_id(&self, id: &str) -> Result<Arc<Sandbox>> {
        let found = self.map().get(id).cloned();
        found.ok_or_else(|| EngineError::not_found("sandbox", id))
    }

    /// The oldest sandbox of this name.
    pub fn by_name(&self, name: &str) -> Result<Arc<Sandbox>> {
        let map = self.map();
        let called = map.values().filter(|sandbox| sandbox.has_name(name));
        let oldest = called.min_by(|one, other| one.age().cmp(&other.age()));
        let oldest = oldest.cloned();
        oldest.ok_or_else(|| EngineError::not_found("sandbox", name))
    }

    /// Makes a sandbox and brings it up.
    pub async fn create(&self, wish: Wish) -> Result<Arc<Sandbox>> {
        let id = new_id();
        let wish = wish.called(&id);
        let _name = self.reserve(&wish)?;
        let spec = SandboxSpec {
            name: Some(wish.record.name.clone()),
            env: wish.record.variables.clone(),
            isolation: self.isolation,
            ..wish.spec
        };
        let secrets = Secrets::default();
        self.local.create_sandbox(&id, &spec, &secrets).await?;
        self.added(&self.local, id, wish.record)
    }

    /// Makes a sandbox with the files, definitions and running services of another one, as it is or as it was
    /// at the checkpoint `from`.
    pub async fn fork(
        &self,
        source: &Sandbox,
        from: Option<String>,
        wish: Wish,
    ) -> Result<Arc<Sandbox>> {
        let id = new_id();
        let wish = wish.called(&id);
        let _name = self.reserve(&wish)?;
        let none = Secrets::default();
        let options = ForkOptions {
            from,
            stopped: false,
        };
        // Beside its source, which may have been claimed.
        let local = &source.local;
        local
            .fork_sandbox(source.id(), &id, &options, &none)
            .await?;
        let record = Record {
            claimed_by: source.record().claimed_by,
            ..wish.record
        };
        self.added(local, id, record)
    }

    /// Keeps others from taking the same name until the sandbox is listed.
    fn reserve(&self, wish: &Wish) -> Result<Reserved<'_>> {
        let name = &wish.record.name;
        let mut reserved = lock(&self.reserved);
        let taken = reserved.contains(name) || self.by_name(name).is_ok();
        if wish.unique_name && taken {
            let text = format!("there is a sandbox `{name}` already");
            return Err(EngineError::conflict(text));
        }
        reserved.insert(name.clone());
        let name = name.clone();
        Ok(Reserved {
            account: self,
            name,
        })
    }

    fn added(&self, local: &Local, id: SandboxName, mut record: Record) -> Result<Arc<Sandbox>> {
        let mut map = self.map();
        // Whoever finds one alone in the list has made the oldest.
        record.created_at = Timestamp::now();
        let sandbox = Sandbox::new(local.clone(), id.clone(), record, self.news.clone())?;
        let sandbox = Arc::new(sandbox);
        map.insert(id, sandbox.clone());
        drop(map);
        self.news.tell();
        Ok(sandbox)
    }

    /// Takes in a sandbox that another account had.
    pub(super) fn take_in(&self, sandbox: Arc<Sandbox>) {
        sandbox.set_news(self.news.clone());
        self.map().insert(sandbox.id().clone(), sandbox);
        self.news.tell();
    }

    /// Lets go of a sandbox, which goes on. `None` if it is not here any more.
    pub(super) fn let_go(&self, id: &SandboxName) -> Option<Arc<Sandbox>> {
        let sandbox = self.map().remove(id)?;
        self.news.tell();
        Some(sandbox)
    }

    /// Removes a sandbox with everything in it.
    pub async fn delete(&self, sandbox: &Sandbox) -> Result<()> {
        sandbox.delete().await?;
        self.map().remove(sandbox.id());
        self.news.tell();
        Ok(())
    }
}

/// A name that is kept for a sandbox that is being made.
struct Reserved<'a> {
    account: &'a Account,
    name: String,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        lock(&self.account.reserved).remove(&self.name);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whole after every statement, so a panic elsewhere cannot have torn it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `sb_` and twelve digits and letters, as iris writes them.
fn new_id() -> SandboxName {
    const SIGNS: &[u8] = b"0123456789abcdefghijkmnpqrstvwxyz";
    let sign = || char::from(SIGNS[fastrand::usize(..SIGNS.len())]);
    let id: String = "sb_"
        .chars()
        .chain(std::iter::repeat_with(sign).take(12))
        .collect();
    SandboxName::new(id).unwrap_or_else(|_| unreachable!("made of letters and digits"))
}
