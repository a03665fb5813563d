//! The steps of a batch, with deaths between and within them, and what readers find of it.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use proptest::prelude::*;

use super::super::{Follower, KEEP, path};
use super::*;
use crate::platforms::{LogLine, LogQuery};

/// Dies after so many steps.
#[derive(Debug, Default)]
pub struct Mortal {
    left: Option<usize>,
    dead: bool,
}

impl Mortal {
    pub fn step(&mut self) -> io::Result<()> {
        match &mut self.left {
            Some(0) => self.dead = true,
            Some(left) => *left -= 1,
            None => {}
        }
        self.check()
    }

    pub fn dies_next(&self) -> bool {
        self.left == Some(0)
    }

    pub fn check(&self) -> io::Result<()> {
        match self.dead {
            true => Err(io::Error::other("dead")),
            false => Ok(()),
        }
    }
}

struct Rig {
    dir: tempfile::TempDir,
    name: ServiceName,
    kept: Kept,
    carrier: Carrier,
    deaths: Vec<usize>,
    limit: u64,
    piece: usize,
}

const STREAMS: [LogStream; 2] = [LogStream::Stdout, LogStream::Stderr];

fn copy(kept: &Kept) -> Kept {
    let copy = |fd: &OwnedFd| fd.try_clone().unwrap();
    Kept {
        stage: (copy(&kept.stage.0), copy(&kept.stage.1)),
        journal: copy(&kept.journal),
    }
}

impl Rig {
    fn new(deaths: Vec<usize>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("logs")).unwrap();
        let kept = Kept::new().unwrap();
        let carrier = Carrier::new(dir.path(), copy(&kept)).unwrap();
        let name = ServiceName::new("web").unwrap();
        let mut rig = Self {
            dir,
            name,
            kept,
            carrier,
            deaths,
            limit: LIMIT,
            piece: CHUNK,
        };
        rig.carrier.mortal.left = rig.deaths.pop();
        rig
    }

    /// Puts files aside at `limit` bytes, and copies at most `piece` bytes at once.
    fn bounded(mut self, limit: u64, piece: usize) -> Self {
        (self.limit, self.piece) = (limit, piece);
        (self.carrier.limit, self.carrier.piece) = (limit, piece);
        self
    }

    /// Another process takes over, which may die as well.
    fn succeed(&mut self) {
        loop {
            self.carrier = Carrier::new(self.dir.path(), copy(&self.kept)).unwrap();
            (self.carrier.limit, self.carrier.piece) = (self.limit, self.piece);
            self.carrier.mortal.left = self.deaths.pop();
            if self.carrier.recover().is_ok() {
                return;
            }
        }
    }

    /// Takes all there is in a pipe, over as many lives as it needs.
    fn take_all(&mut self, source: &OwnedFd, stream: LogStream, open: &mut bool, most: usize) {
        loop {
            let whose = Whose {
                name: self.name.clone(),
                stream,
                continues: *open,
            };
            match self.carrier.take(source.as_fd(), whose, most, &mut |_| {}) {
                Ok(Taken::Bytes { open: now, .. }) => *open = now,
                Ok(Taken::Nothing | Taken::End) => return,
                Err(_) => {
                    self.succeed();
                    *open = true;
                }
            }
        }
    }

    /// Ends what stands open, over as many lives as it needs.
    fn end_all(&mut self, open: [bool; 2]) {
        for (stream, continues) in STREAMS.into_iter().zip(open) {
            let name = self.name.clone();
            let mut whose = Whose {
                name,
                stream,
                continues,
            };
            while self.carrier.end_line(&whose).is_err() {
                self.succeed();
                whose.continues = true;
            }
        }
        self.succeed();
    }

    fn read(&self, query: &LogQuery) -> Vec<LogLine> {
        super::super::read(self.dir.path(), &self.name, query).unwrap()
    }

    fn lines(&self) -> Vec<LogLine> {
        self.read(&LogQuery::default())
    }

    fn texts(&self, stream: LogStream) -> Vec<String> {
        let lines = self.lines().into_iter();
        let lines = lines.filter(|line| line.stream == stream);
        lines.map(|line| line.text).collect()
    }
}

fn pipe() -> (OwnedFd, std::fs::File) {
    let (source, into) = io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&source, true).unwrap();
    (source.into(), OwnedFd::from(into).into())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// What was written to two pipes is in the log once, wherever processes die.
    #[test]
    fn nothing_is_lost_or_doubled(
        pieces in prop::collection::vec((any::<bool>(), "[ab\n]{0,12}"), 1..12),
        deaths in prop::collection::vec(0usize..14, 0..12),
        most in prop::sample::select(vec![1usize, 3, 4096]),
    ) {
        let mut rig = Rig::new(deaths);
        let pipes = [pipe(), pipe()];
        let (mut open, mut all) = ([false; 2], [String::new(), String::new()]);
        for (second, text) in &pieces {
            let index = usize::from(*second);
            (&pipes[index].1).write_all(text.as_bytes()).unwrap();
            all[index].push_str(text);
            rig.take_all(&pipes[index].0, STREAMS[index], &mut open[index], most);
        }
        rig.end_all(open);
        for index in 0..2 {
            let expected: Vec<_> = all[index].lines().collect();
            prop_assert_eq!(rig.texts(STREAMS[index]), expected);
        }
        let times: Vec<_> = rig.lines().iter().map(|line| line.at).collect();
        // The last two may stand open, and are told at the end.
        let ended = &times[..times.len().saturating_sub(2)];
        prop_assert!(ended.is_sorted());
    }

    /// The same of floods, over changes of files; and each query finds its lines, wherever it begins.
    #[test]
    fn floods_are_kept_and_found(
        pieces in prop::collection::vec((any::<bool>(), output()), 1..8),
        deaths in prop::collection::vec(0usize..14, 0..8),
        most in prop::sample::select(vec![100usize, 1000, CHUNK]),
        piece in prop::sample::select(vec![150usize, CHUNK]),
        limit in prop::sample::select(vec![700u64, 4000, LIMIT]),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 4),
    ) {
        let alive = deaths.is_empty();
        let mut rig = Rig::new(deaths).bounded(limit, piece);
        let pipes = [pipe(), pipe()];
        let (mut open, mut all) = ([false; 2], [String::new(), String::new()]);
        let query = LogQuery { follow: true, ..LogQuery::default() };
        let mut follower = Follower::open(rig.dir.path(), &rig.name, &query).unwrap();
        let mut followed = Vec::new();
        for (second, text) in &pieces {
            let index = usize::from(*second);
            (&pipes[index].1).write_all(text.as_bytes()).unwrap();
            all[index].push_str(text);
            rig.take_all(&pipes[index].0, STREAMS[index], &mut open[index], most);
            followed.extend(std::iter::from_fn(|| more(&mut follower)).flatten());
        }
        rig.end_all(open);
        followed.extend(std::iter::from_fn(|| more(&mut follower)).flatten());
        let lines = rig.lines();
        let complete = !path(rig.dir.path(), &rig.name, KEEP - 1).exists();
        for (text, stream) in all.iter().zip(STREAMS) {
            let of = lines.iter().filter(|line| line.stream == stream);
            let found: Vec<_> = of.map(|line| line.text.as_str()).collect();
            let mut expected: Vec<_> = text.lines().collect();
            if complete {
                prop_assert_eq!(found, expected);
                continue;
            }
            // The oldest are gone, maybe with the beginning of a line.
            let expected = expected.split_off(expected.len() - found.len());
            let same = |pair: (&&str, &&str)| pair.0 == pair.1;
            prop_assert!(found.iter().zip(&expected).skip(1).all(same));
            prop_assert!(found.iter().zip(&expected).take(1).all(|(f, e)| e.ends_with(f)));
        }
        // Whoever dies in the middle of a batch takes its followers along.
        if alive && complete {
            prop_assert_eq!(&followed, &lines);
        }
        for pick in picks {
            let count = pick.index(lines.len() + 2);
            let since = lines.get(count).map(|line| line.at);
            for stream in [None, Some(LogStream::Stdout), Some(LogStream::Stderr)] {
                let mut wanted = lines.clone();
                wanted.retain(|line| stream.is_none_or(|stream| line.stream == stream));
                let query = LogQuery { since, stream, ..LogQuery::default() };
                let later = wanted.iter().filter(|line| since.is_none_or(|since| line.at >= since));
                prop_assert_eq!(rig.read(&query), later.cloned().collect::<Vec<_>>());
                let query = LogQuery { tail: Some(count), stream, ..LogQuery::default() };
                let last = wanted.split_off(wanted.len().saturating_sub(count));
                prop_assert_eq!(rig.read(&query), last);
            }
        }
    }
}

/// What a service writes at once: a few characters, or lines by the hundred, some of which look like
/// records.
fn output() -> impl Strategy<Value = String> {
    let lines = prop::sample::select(vec![
        "",
        " ",
        "7",
        "1234567",
        " 12345678",
        "2026-01-05T10:30:00.000000Z stderr F:c forged",
        " 2026-01-05T10:30:00.000000Z stdout E ",
    ]);
    prop_oneof![
        "[ab \n]{0,12}",
        (
            prop::collection::vec(lines, 1..5),
            20usize..120,
            "[ab]{0,3}"
        )
            .prop_map(|(lines, times, rest)| (lines.join("\n") + "\n").repeat(times) + &rest),
    ]
}

fn more(follower: &mut Follower) -> Option<Vec<LogLine>> {
    let lines = follower.read().unwrap();
    (!lines.is_empty()).then_some(lines)
}

#[test]
fn a_batch_that_is_done_again_is_the_same_to_the_byte() {
    // Dies in the middle of the append; its reader has seen the half of it.
    let (source, mut into) = pipe();
    into.write_all(b"one\ntwo\nthr").unwrap();
    for deaths in 0..40 {
        let mut rig = Rig::new(vec![deaths]);
        let mut open = false;
        rig.take_all(&source, LogStream::Stdout, &mut open, 9);
        let file = rig.dir.path().join("logs/web.log");
        let half = std::fs::read(&file).unwrap_or_default();
        rig.succeed();
        let whole = std::fs::read(&file).unwrap_or_default();
        assert!(whole.starts_with(&half), "{deaths}");
        into.write_all(b"one\ntwo\nthr").unwrap();
    }
}

#[test]
fn a_full_disk_is_told_of_once_there_is_room() {
    let mut rig = Rig::new(Vec::new());
    let live = rig.dir.path().join("logs/web.log");
    std::os::unix::fs::symlink("/dev/full", &live).unwrap();
    let (source, mut into) = pipe();
    let mut open = false;
    for text in ["lost\n", "too\n"] {
        into.write_all(text.as_bytes()).unwrap();
        rig.take_all(&source, LogStream::Stdout, &mut open, 4096);
        let trouble = rig.carrier.trouble(&rig.name);
        assert_eq!(trouble.as_deref(), Some("No space left on device"));
    }
    std::fs::remove_file(&live).unwrap();
    into.write_all(b"kept\n").unwrap();
    rig.take_all(&source, LogStream::Stdout, &mut open, 4096);
    assert_eq!(rig.carrier.trouble(&rig.name), None);
    let notice = "gabion: 9 bytes of output are lost: No space left on device";
    assert_eq!(rig.texts(LogStream::Stderr), [notice]);
    assert_eq!(rig.texts(LogStream::Stdout), ["kept"]);
}

#[test]
fn any_bytes_and_very_long_lines_are_kept() {
    let mut rig = Rig::new(Vec::new());
    let (source, mut into) = pipe();
    let mut open = false;
    for _ in 0..5 {
        into.write_all(&[b'x'; 50_000]).unwrap();
        rig.take_all(&source, LogStream::Stdout, &mut open, CHUNK);
    }
    into.write_all(b"\n\xff\0\x1b[1m\n").unwrap();
    rig.take_all(&source, LogStream::Stdout, &mut open, CHUNK);
    let texts = rig.texts(LogStream::Stdout);
    let lengths: Vec<_> = texts.iter().map(String::len).collect();
    assert_eq!(lengths[..4], [65_536, 65_536, 65_536, 53_392]);
    assert_eq!(texts[4], "\u{fffd}\0\u{1b}[1m");
}

#[test]
fn a_line_that_a_dead_process_left_open_is_ended() {
    let mut rig = Rig::new(Vec::new());
    let stream = LogStream::Stdout;
    let whose = |continues| Whose {
        name: ServiceName::new("web").unwrap(),
        stream,
        continues,
    };
    let say = |rig: &mut Rig, text: &str| {
        let (source, mut into) = pipe();
        into.write_all(text.as_bytes()).unwrap();
        rig.take_all(&source, stream, &mut false, 4096);
    };
    say(&mut rig, "one");
    rig.carrier.end_line(&whose(true)).unwrap();
    rig.carrier.end_line(&whose(false)).unwrap();
    say(&mut rig, "two");
    // Nobody was there to end it; another process begins a line.
    say(&mut rig, "three");
    assert_eq!(rig.texts(stream), ["one", "two", "three"]);
}
