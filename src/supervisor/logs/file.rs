//! The files of one log: appends to the newest one, puts it aside when it is full, and mends what a
//! killed process or a full disk has left.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::format::{self, HEAD_ROOM, Record, Tag};
use super::{KEEP, LIMIT, path};
use crate::model::ServiceName;

/// One log, to be written.
#[derive(Debug)]
pub(super) struct Log {
    dir: PathBuf,
    name: ServiceName,
    /// Absent before its first use, and where it cannot be opened.
    file: Option<File>,
    limit: u64,
    /// Whether what was in its way may be gone.
    stale: bool,
    /// Whether it was told that it cannot be put aside.
    told: bool,
    /// The bytes of output that could not be written since the last that could.
    pub lost: u64,
    /// Why they could not.
    pub trouble: Option<String>,
}

impl Log {
    pub(super) fn new(dir: &Path, name: &ServiceName) -> Self {
        Self {
            dir: dir.to_owned(),
            name: name.clone(),
            file: None,
            limit: LIMIT,
            stale: false,
            told: false,
            lost: 0,
            trouble: None,
        }
    }

    /// To be called before a batch: opens the file, or another one if that is due, and returns its
    /// size. Where no other can be had the lines go on into the one that is open.
    pub(super) fn prepare(&mut self) -> io::Result<u64> {
        let Some(file) = &self.file else {
            return self.renew();
        };
        let found = file.metadata()?;
        let full = found.len() >= self.limit;
        // Somebody may have removed it, or what is in its way.
        if !full && !self.stale && found.nlink() > 0 {
            return Ok(found.len());
        }
        let renewed = match full {
            true => self.put_aside().and_then(|()| self.renew()),
            false => self.renew(),
        };
        if let Err(error) = &renewed
            && !self.told
        {
            tracing::warn!(service = %self.name, %error, "its log is not rotated");
        }
        self.told = renewed.is_err();
        renewed.or(Ok(found.len()))
    }

    fn renew(&mut self) -> io::Result<u64> {
        let file = newest(&self.dir, &self.name)?;
        let size = file.metadata()?.len();
        self.file = Some(file);
        self.stale = false;
        Ok(size)
    }

    fn put_aside(&self) -> io::Result<()> {
        for age in (0..KEEP - 1).rev() {
            let older = path(&self.dir, &self.name, age + 1);
            match std::fs::rename(path(&self.dir, &self.name, age), older) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Appends records.
    pub(super) fn append(&mut self, records: &[u8]) -> io::Result<()> {
        match &mut self.file {
            Some(file) => file.write_all(records),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Takes back what was appended to a file that had `size` bytes. What stands there is shorter if
    /// somebody has emptied it.
    pub(super) fn take_back(&self, size: u64) -> io::Result<()> {
        match &self.file {
            Some(file) if file.metadata()?.len() > size => file.set_len(size),
            _ => Ok(()),
        }
    }

    /// Notes that so many bytes of output are lost.
    pub(super) fn lose(&mut self, bytes: u64, error: &io::Error) {
        self.lost += bytes;
        self.trouble = Some(reason(error));
        self.stale = true;
    }

    /// Puts the newest file aside when it has so many bytes.
    pub(super) fn with_limit(mut self, limit: u64) -> Self {
        self.limit = limit;
        self
    }
}

/// What an error of the system means, without its number.
pub(super) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((text, _)) => text.to_owned(),
        None => text,
    }
}

/// Opens the newest file, fit to be appended to.
fn newest(dir: &Path, name: &ServiceName) -> io::Result<File> {
    let mut file = File::options()
        .create(true)
        .append(true)
        .read(true)
        .mode(0o600)
        .open(path(dir, name, 0))?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Ok(file);
    }
    let mut size = found.len();
    if size > 0 && ends_torn(&file, size)? {
        if size < HEAD_ROOM as u64 && !start(&file)?.contains(&b'\n') {
            // Not even the first record was written.
            file.set_len(0)?;
            size = 0;
        } else {
            file.write_all(b"\n")?;
        }
    }
    let before = match size {
        0 => before(&path(dir, name, 1))?,
        _ => 0,
    };
    if before > 0 {
        file.write_all(format::header(format::now(), before).as_bytes())?;
    }
    Ok(file)
}

fn ends_torn(file: &File, size: u64) -> io::Result<bool> {
    let mut last = [0];
    file.read_exact_at(&mut last, size - 1)?;
    Ok(last != *b"\n")
}

/// How many bytes of a log there were up to the end of one of its files.
fn before(file: &Path) -> io::Result<u64> {
    let file = match File::open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        other => other?,
    };
    Ok(header(&file)?.unwrap_or(0) + file.metadata()?.len())
}

fn start(file: &File) -> io::Result<Vec<u8>> {
    let mut start = vec![0; HEAD_ROOM];
    let length = file.read_at(&mut start, 0)?;
    start.truncate(length);
    Ok(start)
}

/// How many bytes were put aside before a file, if it says so.
pub(super) fn header(file: &File) -> io::Result<Option<u64>> {
    let start = start(file)?;
    let line = start.split(|byte| *byte == b'\n').next();
    let record = line.and_then(Record::parse);
    let record = record.filter(|record| record.tag == Tag::Header);
    Ok(record.and_then(|record| std::str::from_utf8(record.text).ok()?.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox() -> (tempfile::TempDir, ServiceName) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("logs")).unwrap();
        (dir, ServiceName::new("web").unwrap())
    }

    fn text(dir: &Path, age: usize) -> Option<String> {
        let file = path(dir, &ServiceName::new("web").unwrap(), age);
        std::fs::read_to_string(file).ok()
    }

    #[test]
    fn a_full_file_is_put_aside_and_the_oldest_goes() {
        let (dir, name) = sandbox();
        let dir = dir.path();
        let mut log = Log::new(dir, &name).with_limit(100);
        let line = |n| format!("2026-01-05T10:30:00.000000Z stdout F line {n:070}\n");
        for n in 0..20 {
            log.prepare().unwrap();
            log.append(line(n).as_bytes()).unwrap();
        }
        let ages: Vec<_> = (0..7).map_while(|age| text(dir, age)).collect();
        assert_eq!(ages.len(), KEEP);
        assert!(ages[0].ends_with(&line(19)));
        // Each says how much there was before it.
        let mut expected = None;
        for age in (0..KEEP).rev() {
            let file = File::open(path(dir, &name, age)).unwrap();
            let said = header(&file).unwrap().unwrap();
            assert!(expected.is_none_or(|expected| said == expected), "{age}");
            expected = Some(said + file.metadata().unwrap().len());
        }
    }

    #[test]
    fn what_was_torn_is_mended() {
        let (dir, name) = sandbox();
        let dir = dir.path();
        let live = path(dir, &name, 0);
        let long = "2026-01-05T10:30:00.000000Z stdout F a line that is torn in the middle";
        std::fs::write(&live, long).unwrap();
        Log::new(dir, &name).prepare().unwrap();
        assert_eq!(text(dir, 0).unwrap(), format!("{long}\n"));
        // A first record that is not whole is none.
        std::fs::rename(&live, path(dir, &name, 1)).unwrap();
        std::fs::write(&live, "2026-01-05T10:30:00.0000").unwrap();
        Log::new(dir, &name).prepare().unwrap();
        let header = format!(" stdout H {}\n", long.len() + 1);
        assert!(
            text(dir, 0).unwrap().ends_with(&header),
            "{:?}",
            text(dir, 0)
        );
    }

    #[test]
    fn no_line_is_lost_when_a_log_cannot_be_rotated() {
        let (dir, name) = sandbox();
        let dir = dir.path();
        let live = path(dir, &name, 0);
        let mut log = Log::new(dir, &name).with_limit(4);
        log.prepare().unwrap();
        log.append(b"one\n").unwrap();
        // Its file was removed: it begins a new one.
        std::fs::remove_file(&live).unwrap();
        assert_eq!(log.prepare().unwrap(), 0);
        log.append(b"two\n").unwrap();
        assert_eq!(text(dir, 0).unwrap(), "two\n");
        // A folder in the way: it goes on with the old one.
        std::fs::create_dir_all(path(dir, &name, KEEP - 1).join("full")).unwrap();
        std::fs::write(path(dir, &name, KEEP - 2), "").unwrap();
        assert_eq!(log.prepare().unwrap(), 4);
        log.append(b"three\n").unwrap();
        assert_eq!(text(dir, 0).unwrap(), "two\nthree\n");
        // What was appended is taken back, but nothing is added to a file that somebody has emptied.
        log.take_back(4).unwrap();
        assert_eq!(text(dir, 0).unwrap(), "two\n");
        std::fs::write(&live, "").unwrap();
        log.take_back(4).unwrap();
        assert_eq!(text(dir, 0).unwrap(), "");
    }
}
