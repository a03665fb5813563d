//! Where reading begins and how it goes on, from files that are written here.

use super::super::file::Log;
use super::super::format::{Text, stamp};
use super::super::read;
use super::*;

struct Rig {
    dir: tempfile::TempDir,
    name: ServiceName,
    log: Log,
    second: i64,
}

/// A log whose files are put aside at `limit` bytes.
fn rig(limit: u64) -> Rig {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("logs")).unwrap();
    let name = ServiceName::new("web").unwrap();
    let log = Log::new(dir.path(), &name).with_limit(limit);
    let second = 0;
    Rig {
        dir,
        name,
        log,
        second,
    }
}

impl Rig {
    /// Writes one batch, a second after the last.
    fn write(&mut self, stream: LogStream, continues: bool, bytes: &str) {
        self.second += 1;
        let at = Timestamp::from_second(1_767_609_000 + self.second).unwrap();
        let bytes = bytes.as_bytes();
        let text = Text {
            at,
            stream,
            continues,
            bytes,
        };
        self.log.prepare().unwrap();
        let mut records = Vec::new();
        text.write(&mut records);
        self.log.append(&records).unwrap();
    }

    fn follower(&self, query: &LogQuery) -> Follower {
        Follower::open(self.dir.path(), &self.name, query).unwrap()
    }

    fn read(&self, query: &LogQuery) -> Vec<String> {
        texts(read(self.dir.path(), &self.name, query).unwrap())
    }
}

fn texts(lines: Vec<LogLine>) -> Vec<String> {
    lines.into_iter().map(|line| line.text).collect()
}

fn last(count: usize, stream: Option<LogStream>) -> LogQuery {
    LogQuery {
        tail: Some(count),
        stream,
        ..LogQuery::default()
    }
}

use LogStream::{Stderr, Stdout};

#[test]
fn tails_are_whole_lines_over_all_files() {
    // Of one file and of as many as there may be.
    for limit in [1 << 20, 300] {
        let mut rig = rig(limit);
        let mut expected = Vec::new();
        for n in 0..10 {
            rig.write(Stdout, false, &format!("a{n}\nhead{n} "));
            rig.write(Stderr, false, &format!("e{n}\n"));
            rig.write(Stdout, true, &format!("end{n}\n"));
            expected.extend([format!("a{n}"), format!("e{n}"), format!("head{n} end{n}")]);
        }
        let kept = rig.read(&LogQuery::default());
        assert!(expected.ends_with(&kept), "{kept:?}");
        assert_eq!(kept.len() == expected.len(), limit > 300);
        let kept: Vec<_> = expected.split_off(expected.len() - kept.len());
        for count in 0..kept.len() + 2 {
            let wanted = &kept[kept.len().saturating_sub(count)..];
            assert_eq!(rig.read(&last(count, None)), wanted, "{limit} {count}");
            let of: Vec<_> = kept
                .iter()
                .filter(|text| text.starts_with('e'))
                .cloned()
                .collect();
            let wanted = &of[of.len().saturating_sub(count)..];
            assert_eq!(
                rig.read(&last(count, Some(Stderr))),
                wanted,
                "{limit} {count}"
            );
        }
    }
}

#[test]
fn since_finds_its_place() {
    let mut rig = rig(20_000);
    let filler = "x".repeat(1000);
    for n in 0..60 {
        rig.write(Stdout, false, &format!("{n} {filler}\n"));
    }
    for wanted in [0, 1, 17, 30, 59, 60, 61] {
        let since = Timestamp::from_second(1_767_609_000 + wanted).unwrap();
        let query = LogQuery {
            since: Some(since),
            ..LogQuery::default()
        };
        let first = rig
            .read(&query)
            .first()
            .map(|text| text.split(' ').next().unwrap().to_owned());
        let expected = (wanted <= 60).then(|| (wanted - 1).max(0).to_string());
        assert_eq!(first, expected, "{wanted}");
    }
}

#[test]
fn one_file_of_any_size_is_searched_by_time() {
    let mut rig = rig(1 << 30);
    let filler = "x".repeat(10_000);
    for n in 0..100 {
        rig.write(Stderr, false, &format!("{n} {filler}\n"));
    }
    for wanted in [1, 50, 77, 100] {
        let since = Timestamp::from_second(1_767_609_000 + wanted).unwrap();
        let query = LogQuery {
            since: Some(since),
            ..LogQuery::default()
        };
        let place = seek::since(&rig.follower(&query).all().unwrap(), since).unwrap();
        let exact = (wanted - 1) as u64 * 10_045;
        assert!(
            place.offset <= exact && place.offset + 200_000 > exact,
            "{place:?}"
        );
        assert_eq!(rig.read(&query).len() as i64, 101 - wanted);
    }
}

#[test]
fn a_follower_goes_on_through_changes_of_files() {
    let mut rig = rig(100);
    let mut follower = rig.follower(&LogQuery {
        follow: true,
        ..LogQuery::default()
    });
    assert!(follower.read().unwrap().is_empty());
    rig.write(Stdout, false, "one\n");
    assert_eq!(texts(follower.read().unwrap()), ["one"]);
    assert!(follower.read().unwrap().is_empty());
    let mut all = Vec::new();
    for n in 0..6 {
        rig.write(Stdout, false, &format!("{n} begins,"));
        rig.write(Stdout, true, " ends\n");
    }
    loop {
        let lines = follower.read().unwrap();
        if lines.is_empty() {
            break;
        }
        all.extend(texts(lines));
    }
    let expected: Vec<_> = (0..6).map(|n| format!("{n} begins, ends")).collect();
    assert_eq!(all, expected);
}

#[test]
fn a_follower_that_is_too_slow_is_told_how_much_it_missed() {
    let mut rig = rig(100);
    rig.write(Stdout, false, "first\n");
    let mut follower = rig.follower(&LogQuery::default());
    assert_eq!(texts(follower.read().unwrap()), ["first"]);
    for n in 0..30 {
        rig.write(Stdout, false, &format!("{n}\n"));
    }
    let mut all = Vec::new();
    loop {
        let lines = follower.read().unwrap();
        if lines.is_empty() {
            break;
        }
        all.extend(texts(lines));
    }
    let marker = all
        .iter()
        .position(|text| text.starts_with("gabion: "))
        .unwrap();
    let missed: u64 = all[marker].split(' ').nth(1).unwrap().parse().unwrap();
    let kept = rig.read(&LogQuery::default());
    assert_eq!(all[marker + 1..], kept);
    assert!(missed > 500, "{missed}");
    assert_eq!(all.last().unwrap(), "29");
}

#[test]
fn a_flood_is_found_in_its_middle() {
    let mut rig = rig(1 << 30);
    let all: Vec<_> = (0..100_000).map(|n| n.to_string()).collect();
    for lines in all.chunks(10_000) {
        rig.write(Stdout, false, &(lines.join("\n") + "\n"));
        rig.write(Stderr, false, "aside\n");
    }
    for count in [0, 1, 63, 9_999, 10_000, 10_001, 55_555] {
        let wanted = &all[all.len() - count..];
        assert_eq!(rig.read(&last(count, Some(Stdout))), wanted, "{count}");
    }
    // The last batch is half written when somebody begins to read.
    let file = path(rig.dir.path(), &rig.name, 0);
    let size = file.metadata().unwrap().len();
    rig.write(Stdout, false, &(all[..1000].join("\n") + "\n"));
    let written = std::fs::read(&file).unwrap();
    let cut = size as usize + 2000;
    rig.log.take_back(cut as u64).unwrap();
    let told = written[size as usize..cut]
        .iter()
        .filter(|byte| **byte == b'\n');
    let told = told.count();
    let mut follower = rig.follower(&last(0, None));
    assert!(follower.read().unwrap().is_empty());
    rig.log.append(&written[cut..]).unwrap();
    assert_eq!(texts(follower.read().unwrap()), all[told..1000]);
}

#[test]
fn what_is_taken_back_is_not_told_of_twice() {
    let mut rig = rig(1000);
    rig.write(Stdout, false, "one\n");
    let mut follower = rig.follower(&LogQuery::default());
    let size = rig.log.prepare().unwrap();
    rig.write(Stdout, false, "two\nthree");
    assert_eq!(texts(follower.read().unwrap()), ["one", "two"]);
    rig.log.take_back(size).unwrap();
    assert!(follower.read().unwrap().is_empty());
    rig.write(Stdout, false, "four\n");
    assert_eq!(texts(follower.read().unwrap()), ["three", "four"]);
}

#[test]
fn what_stands_open_is_told_of_last() {
    let mut rig = rig(1000);
    rig.write(Stdout, false, "one\ntwo");
    let mut follower = rig.follower(&LogQuery::default());
    assert_eq!(texts(follower.read().unwrap()), ["one"]);
    assert!(follower.read().unwrap().is_empty());
    assert_eq!(texts(follower.unfinished()), ["two"]);
    assert_eq!(rig.read(&last(1, None)), ["two"]);
    // What an earlier version wrote is read as well.
    let file = path(rig.dir.path(), &rig.name, 1);
    let at = stamp(Timestamp::from_second(1_767_608_000).unwrap());
    std::fs::write(file, format!("{at} [stdout] of old\n")).unwrap();
    assert_eq!(rig.read(&LogQuery::default()), ["of old", "one", "two"]);
}
