//! The manifest room, from text to report.
//!
//! `tests/manifest/bad/*.yaml` each have a `.txt` beside them with the report that they must get;
//! `UPDATE_EXPECT=1 cargo test --test manifest` writes it anew. A first line such as `# env: A=b`,
//! `# var: a=b` or `# profile: dev` sets what the case is loaded with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gabion::manifest::{self, Loaded, Request};
use gabion::model::{Capabilities, Scope, Support, Urls};

#[path = "manifest/api.rs"]
mod api;
#[path = "manifest/generated.rs"]
mod generated;
#[path = "manifest/hostile.rs"]
mod hostile;
#[path = "manifest/meaning.rs"]
mod meaning;

static LOCAL: Capabilities = Capabilities {
    kind: "local",
    summary: "this machine",
    shared_network: true,
    urls: Urls::Loopback,
    settings: &[],
    demands: &[],
    exceptions: &[(
        Scope::Sandbox,
        "vcpus",
        Support::Unsupported,
        "a process group has no processors of its own",
    )],
};

static SPRITES: Capabilities = Capabilities {
    kind: "sprites",
    summary: "a cloud",
    shared_network: false,
    urls: Urls::Sandbox,
    settings: &[
        ("token", "the account's"),
        ("regions", "where"),
        ("retries", "how often"),
    ],
    demands: &[],
    exceptions: &[
        (
            Scope::Sandbox,
            "isolation",
            Support::Unsupported,
            "it is always a virtual machine",
        ),
        (
            Scope::Service,
            "user",
            Support::Unsupported,
            "everything runs as one user",
        ),
        (
            Scope::Service,
            "stop",
            Support::Unsupported,
            "it stops services its own way",
        ),
        (
            Scope::Service,
            "health.exec",
            Support::Unsupported,
            "it cannot run checks",
        ),
        (
            Scope::Service,
            "needs",
            Support::Supplied,
            "gabion starts them in order",
        ),
    ],
};

fn request(file: impl Into<PathBuf>) -> Request {
    Request {
        files: vec![file.into()],
        platforms: vec![&LOCAL, &SPRITES],
        ..Request::default()
    }
}

/// A request for a case, with what its first lines ask for.
fn case(path: &Path) -> Request {
    let mut request = request(path);
    let text = std::fs::read_to_string(path).unwrap();
    for line in text.lines() {
        let pairs = |line: &str| -> BTreeMap<String, String> {
            let pairs = line
                .split_whitespace()
                .filter_map(|pair| pair.split_once('='));
            pairs
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect()
        };
        if let Some(line) = line.strip_prefix("# env:") {
            request.env = pairs(line);
        } else if let Some(line) = line.strip_prefix("# var:") {
            request.vars = pairs(line);
        } else if let Some(line) = line.strip_prefix("# profile:") {
            request.profiles = line.split_whitespace().map(str::to_owned).collect();
        } else {
            break;
        }
    }
    request
}

/// Loads `text` as `gabion.yaml` in a folder called `shop`.
fn load(text: &str) -> Loaded {
    load_files(&[("gabion.yaml", text)], |_| {})
}

/// Loads files, those that end in `.yaml` as manifests in the order given.
fn load_files(files: &[(&str, &str)], change: impl FnOnce(&mut Request)) -> Loaded {
    let folder = tempfile::tempdir().unwrap();
    let shop = folder.path().join("shop");
    let mut request = request("");
    request.files.clear();
    for (name, text) in files {
        let path = shop.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        if name.ends_with(".yaml") {
            request.files.push(path);
        }
    }
    change(&mut request);
    manifest::load(&request)
}

/// The codes of a report with their lines and columns: `M007 3:5`.
fn codes(loaded: &Loaded) -> Vec<String> {
    let found = loaded.report.diagnostics.iter();
    found
        .map(|found| match &found.location {
            Some(at) => format!("{} {}:{}", found.code, at.line, at.column),
            None => found.code.to_owned(),
        })
        .collect()
}

fn check(text: &str, expected: &[&str]) {
    let loaded = load(text);
    assert_eq!(
        codes(&loaded),
        expected,
        "{}",
        loaded.report.render_text(false, 100)
    );
    assert_eq!(loaded.desired.is_none(), loaded.report.has_errors());
}

/// Compares with a file, or writes it if `UPDATE_EXPECT` is set.
fn expect_file(path: &Path, actual: &str) -> bool {
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(path, actual).unwrap();
        return true;
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    if expected != actual {
        eprintln!("{} differs; now it would be:\n{actual}", path.display());
    }
    expected == actual
}

fn files(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    files
}

#[test]
fn every_bad_manifest_gets_its_report() {
    let mut wrong = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for path in files("tests/manifest/bad") {
        let loaded = manifest::load(&case(&path));
        let text = loaded.report.render_text(false, 100);
        seen.extend(loaded.report.diagnostics.iter().map(|found| found.code));
        if !expect_file(&path.with_extension("txt"), &text) {
            wrong.push(path);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
    // M002 needs files that nobody wants in a repository: see `hostile`.
    let all = manifest::CODES.iter().map(|code| code.id);
    let missing: Vec<_> = all
        .filter(|id| *id != "M002" && !seen.contains(id))
        .collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
}

#[test]
fn ten_mistakes_are_ten_reports() {
    let loaded = manifest::load(&case(Path::new("tests/manifest/bad/ten-mistakes.yaml")));
    let codes: std::collections::BTreeSet<_> = loaded
        .report
        .diagnostics
        .iter()
        .map(|found| found.code)
        .collect();
    assert!(codes.len() >= 10, "{codes:?}");
}
