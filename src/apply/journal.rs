//! What was done, when, and how long it took: a help for forecasts. Losing it loses nothing else.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::{Event, What};
use crate::plan::History;

/// How many durations are kept in mind for one action.
const REMEMBERED: usize = 5;
/// The size in bytes at which the older half is dropped.
const MAX_SIZE: u64 = 1 << 20;

/// The journal file of a stack: one JSON object per finished action and line.
#[derive(Debug, Clone)]
pub struct Journal {
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    at: jiff::Timestamp,
    action: String,
    seconds: f64,
    ok: bool,
}

impl Journal {
    /// The journal kept at `path`, which need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// How long each action took lately. What cannot be read counts as not recorded.
    pub fn history(&self) -> History {
        let mut recent: BTreeMap<String, VecDeque<Duration>> = BTreeMap::new();
        for entry in read(&self.path).into_iter().filter(|entry| entry.ok) {
            let Ok(duration) = Duration::try_from_secs_f64(entry.seconds) else {
                continue;
            };
            let durations = recent.entry(entry.action).or_default();
            durations.push_back(duration);
            if durations.len() > REMEMBERED {
                durations.pop_front();
            }
        }
        recent
            .into_iter()
            .map(|(action, durations)| (action, durations.into()))
            .collect()
    }

    /// Adds the finished actions among `events`.
    pub fn record<'a>(&self, events: impl IntoIterator<Item = &'a Event>) -> std::io::Result<()> {
        let mut lines = Vec::new();
        for event in events {
            let (action, seconds, ok) = match &event.what {
                What::ActionDone { action, seconds } => (action, *seconds, true),
                What::ActionFailed {
                    action, seconds, ..
                } => (action, *seconds, false),
                _ => continue,
            };
            let action = action.action.clone();
            serde_json::to_writer(
                &mut lines,
                &Entry {
                    at: event.at,
                    action,
                    seconds,
                    ok,
                },
            )?;
            lines.push(b'\n');
        }
        if lines.is_empty() {
            return Ok(());
        }
        if let Some(folder) = self.path.parent() {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)?;
        }
        let mut options = std::fs::OpenOptions::new();
        let mut file = options
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&self.path)?;
        file.write_all(&lines)?;
        if file.metadata()?.len() > MAX_SIZE {
            self.drop_older_half()?;
        }
        Ok(())
    }

    fn drop_older_half(&self) -> std::io::Result<()> {
        let entries = read(&self.path);
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        for entry in &entries[entries.len() / 2..] {
            serde_json::to_writer(&mut file, entry)?;
            file.write_all(b"\n")?;
        }
        file.persist(&self.path)?;
        Ok(())
    }
}

fn read(path: &Path) -> Vec<Entry> {
    let Ok(file) = std::fs::File::open(path) else {
        return Vec::new();
    };
    let lines = BufReader::new(file).lines().map_while(Result::ok);
    lines
        .filter_map(|line| serde_json::from_str(&line).ok())
        .collect()
}
