//! The key-value store of a sandbox (protocol page iris, §7), kept in one file that is written whole
//! or not at all.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::owner::Refusal;

const FILE: &str = "store.json";

/// The most keys.
pub(super) const KEYS: usize = 10_000;

/// The longest key, in bytes.
pub(super) const KEY_LENGTH: usize = 512;

/// The largest value, in bytes of JSON.
pub(super) const VALUE_SIZE: usize = 1 << 20;

/// The most that all keys and values take together, in bytes.
pub(super) const TOTAL_SIZE: usize = 64 << 20;

/// A value, shared between what is kept and what is written.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Kept {
    /// As JSON text.
    #[serde(with = "as_json")]
    pub value: Arc<str>,
    /// When it is forgotten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

impl Kept {
    fn lives_at(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| end > now)
    }
}

/// One change.
#[derive(Debug)]
pub(super) enum Change {
    Set {
        key: String,
        value: Value,
        expires_at: Option<Timestamp>,
    },
    Delete {
        key: String,
    },
}

type Entries = BTreeMap<String, Kept>;

/// The store. It is read when it is first asked for something.
#[derive(Debug)]
pub(super) struct KeyValues {
    path: PathBuf,
    entries: tokio::sync::Mutex<Option<Entries>>,
}

impl KeyValues {
    /// The store of the sandbox in this folder.
    pub(super) fn kept_in(dir: &Path) -> Self {
        Self {
            path: dir.join(FILE),
            entries: tokio::sync::Mutex::default(),
        }
    }

    /// The value of a key.
    pub(super) async fn get(&self, key: &str) -> Result<Option<Kept>, Refusal> {
        let mut held = self.entries.lock().await;
        let entries = self.loaded(&mut held).await?;
        let now = Timestamp::now();
        Ok(entries.get(key).filter(|kept| kept.lives_at(now)).cloned())
    }

    /// The first `limit` keys that begin with `prefix`, and whether there are more.
    pub(super) async fn list(
        &self,
        prefix: &str,
        limit: usize,
    ) -> Result<(Vec<String>, bool), Refusal> {
        let mut held = self.entries.lock().await;
        let entries = self.loaded(&mut held).await?;
        let now = Timestamp::now();
        let from = entries.range::<str, _>((
            std::ops::Bound::Included(prefix),
            std::ops::Bound::Unbounded,
        ));
        let mut found = from
            .take_while(|(key, _)| key.starts_with(prefix))
            .filter(|(_, kept)| kept.lives_at(now))
            .map(|(key, _)| key.clone());
        let keys: Vec<_> = found.by_ref().take(limit).collect();
        Ok((keys, found.next().is_some()))
    }

    /// Makes all changes or none; on disk when this returns. Says of each whether there was a value.
    pub(super) async fn change(&self, changes: Vec<Change>) -> Result<Vec<bool>, Refusal> {
        let mut held = self.entries.lock().await;
        let mut entries = self.loaded(&mut held).await?.clone();
        let now = Timestamp::now();
        entries.retain(|_, kept| kept.lives_at(now));
        let mut had = Vec::new();
        for change in changes {
            had.push(apply(&mut entries, change)?);
        }
        let size: usize = entries
            .iter()
            .map(|(key, kept)| key.len() + kept.value.len())
            .sum();
        if entries.len() > KEYS || size > TOTAL_SIZE {
            let limit = TOTAL_SIZE >> 20;
            let text = format!("the store holds at most {KEYS} keys and {limit} MiB");
            return Err(too_large(text));
        }
        let path = self.path.clone();
        let writing = tokio::task::spawn_blocking(move || {
            let written = write(&path, &entries);
            (entries, written)
        });
        let not_kept = |error| Refusal::internal(format!("the store is not written: {error}"));
        let (entries, written) = writing
            .await
            .map_err(|error| not_kept(io::Error::other(error)))?;
        written.map_err(not_kept)?;
        *held = Some(entries);
        Ok(had)
    }

    async fn loaded<'a>(&self, held: &'a mut Option<Entries>) -> Result<&'a Entries, Refusal> {
        if held.is_none() {
            let path = self.path.clone();
            let read = tokio::task::spawn_blocking(move || read(&path)).await;
            let read = read.map_err(io::Error::other).and_then(|read| read);
            let failed = |error| Refusal::internal(format!("the store cannot be read: {error}"));
            *held = Some(read.map_err(failed)?);
        }
        Ok(held.get_or_insert_default())
    }
}

fn too_large(text: impl Into<String>) -> Refusal {
    Refusal::new(413, "too_large", text)
}

fn apply(entries: &mut Entries, change: Change) -> Result<bool, Refusal> {
    match change {
        Change::Delete { key } => Ok(entries.remove(&key).is_some()),
        Change::Set {
            key,
            value,
            expires_at,
        } => {
            check_key(&key)?;
            let value = value.to_string();
            if value.len() > VALUE_SIZE {
                let text = format!("a value may take {VALUE_SIZE} bytes as JSON");
                return Err(too_large(text));
            }
            let kept = Kept {
                value: value.into(),
                expires_at,
            };
            Ok(entries.insert(key, kept).is_some())
        }
    }
}

/// Keys are free text without control characters.
pub(super) fn check_key(key: &str) -> Result<(), Refusal> {
    if key.is_empty() || key.len() > KEY_LENGTH || key.contains(char::is_control) {
        let text = format!("a key has 1 to {KEY_LENGTH} bytes, without control characters");
        return Err(Refusal::invalid(text));
    }
    Ok(())
}

/// What is on disk. A file that is torn is put aside under another name.
fn read(path: &Path) -> io::Result<Entries> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Entries::new()),
        other => other?,
    };
    match serde_json::from_slice(&bytes) {
        Ok(entries) => Ok(entries),
        Err(error) => {
            tracing::error!(%error, "the key-value store is damaged");
            std::fs::rename(path, path.with_extension("damaged"))?;
            Ok(Entries::new())
        }
    }
}

/// The disk is waited for: nobody would write these values again.
fn write(path: &Path, entries: &Entries) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    {
        let mut buffered = io::BufWriter::new(file.as_file_mut());
        serde_json::to_writer(&mut buffered, entries)?;
        buffered.flush()?;
    }
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(dir)?.sync_all()
}

/// JSON text inside of JSON.
mod as_json {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_json::Value;

    pub(super) fn serialize<S: Serializer>(text: &Arc<str>, s: S) -> Result<S::Ok, S::Error> {
        let value: Value = serde_json::from_str(text).map_err(serde::ser::Error::custom)?;
        value.serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Arc<str>, D::Error> {
        Ok(Value::deserialize(d)?.to_string().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(key: &str, value: Value) -> Change {
        Change::Set {
            key: key.to_owned(),
            value,
            expires_at: None,
        }
    }

    #[tokio::test]
    async fn all_changes_are_made_or_none_and_they_survive() {
        let dir = tempfile::tempdir().unwrap();
        let store = KeyValues::kept_in(dir.path());
        store.change(vec![set("a", 1.into())]).await.unwrap();
        let bad = store
            .change(vec![set("b", 2.into()), set("", 3.into())])
            .await;
        assert_eq!(bad.unwrap_err().status, 400);
        let again = KeyValues::kept_in(dir.path());
        assert_eq!(&*again.get("a").await.unwrap().unwrap().value, "1");
        assert!(again.get("b").await.unwrap().is_none());
    }

    #[tokio::test]
    async fn what_has_expired_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let store = KeyValues::kept_in(dir.path());
        let expired = Change::Set {
            key: "a".to_owned(),
            value: 1.into(),
            expires_at: Some(Timestamp::now()),
        };
        store.change(vec![expired]).await.unwrap();
        assert!(store.get("a").await.unwrap().is_none());
        store.change(vec![set("b", 2.into())]).await.unwrap();
        let text = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        assert_eq!(text, r#"{"b":{"value":2}}"#);
    }

    #[tokio::test]
    async fn sizes_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let store = KeyValues::kept_in(dir.path());
        let long = Value::String("x".repeat(VALUE_SIZE));
        let refused = store.change(vec![set("a", long)]).await.unwrap_err();
        assert_eq!((refused.status, refused.code), (413, "too_large"));
        let many = (0..=KEYS).map(|n| set(&format!("k{n}"), Value::Null));
        let refused = store.change(many.collect()).await.unwrap_err();
        assert_eq!(refused.status, 413);
        assert_eq!(store.list("", 10).await.unwrap(), (Vec::new(), false));
    }

    #[tokio::test]
    async fn a_damaged_file_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "{\"a\":").unwrap();
        let store = KeyValues::kept_in(dir.path());
        assert!(store.get("a").await.unwrap().is_none());
        assert!(dir.path().join("store.damaged").exists());
    }
}
