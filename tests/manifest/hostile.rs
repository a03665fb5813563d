//! Files that nobody means well with: a clear error, in bounded time and memory.

use std::fmt::Write;
use std::time::{Duration, Instant};

use super::*;

/// Far above what any of these takes, far below what an explosion takes.
const BOUND: Duration = Duration::from_secs(10);

/// Processor time of this thread where the system tells it, so that a busy machine does not count.
struct Clock(Duration, Instant);

impl Clock {
    fn start() -> Self {
        Self(Self::thread().unwrap_or_default(), Instant::now())
    }

    fn thread() -> Option<Duration> {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        let nanos = text.split_whitespace().next()?.parse().ok()?;
        Some(Duration::from_nanos(nanos))
    }

    fn elapsed(&self) -> Duration {
        Self::thread().map_or_else(|| self.1.elapsed(), |now| now - self.0)
    }
}

fn refused(text: &str, code: &str) {
    let begun = Clock::start();
    let loaded = load(text);
    assert!(begun.elapsed() < BOUND, "took {:?}", begun.elapsed());
    let found = &loaded.report.diagnostics;
    assert!(
        found.iter().any(|f| f.code == code),
        "{}",
        loaded.report.render_text(false, 80)
    );
    assert!(found.len() <= 2, "{}", loaded.report.render_text(false, 80));
    assert!(loaded.desired.is_none());
}

fn laughs(open: &str, close: &str, item: impl Fn(usize) -> String) -> String {
    let mut text = format!("a0: &a0 {open}{}{close}\n", item(0));
    for level in 1..30 {
        let items: Vec<_> = (0..9)
            .map(|n| item(n).replace('x', &format!("*a{}", level - 1)))
            .collect();
        let _ = writeln!(
            text,
            "a{level}: &a{level} {open}{}{close}",
            items.join(", ")
        );
    }
    text
}

#[test]
fn billion_laughs() {
    refused(&laughs("[", "]", |_| "x".to_owned()), "M002");
    refused(&laughs("{", "}", |n| format!("k{n}: x")), "M002");
    let merges = (1..30).fold("a0: &a0 { k: v }\n".to_owned(), |text, level| {
        let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
        format!("{text}a{level}: &a{level} {{ <<: [{aliases}] }}\n")
    });
    refused(&merges, "M002");
}

#[test]
fn quadratic_aliases() {
    let list = vec!["x"; 20_000].join(",");
    let aliases = vec!["*a"; 20_000].join(",");
    refused(&format!("a: &a [{list}]\nb: [{aliases}]\n"), "M002");
}

#[test]
fn chains_of_aliases_are_deep_too() {
    let mut text = "a0: &a0 [x]\n".to_owned();
    for level in 1..1000 {
        let _ = writeln!(text, "a{level}: &a{level} [*a{}]", level - 1);
    }
    refused(&text, "M002");
}

#[test]
fn nesting() {
    refused(&"[".repeat(100_000), "M002");
    refused(&"{a: ".repeat(100_000), "M002");
    refused(&"- ".repeat(100_000), "M002");
    let deep = (0..5_000).fold(String::new(), |text, level| {
        text + &" ".repeat(level) + "a:\n"
    });
    refused(&deep, "M002");
}

#[test]
fn more_values_than_any_manifest_needs() {
    refused(&format!("a: [{}]", "x,".repeat(1_100_000)), "M002");
}

#[test]
fn an_interpolation_bomb() {
    let many =
        r#""${var.a}${var.a}${var.a}${var.a}${var.a}${var.a}${var.a}${var.a}","#.repeat(10_000);
    let text = format!(
        "version: 1\nvars: {{ a: {} }}\nsandboxes: {{ web: {{ topics: [{many}] }} }}\n",
        "x".repeat(100_000)
    );
    let begun = Clock::start();
    let loaded = load(&text);
    assert!(begun.elapsed() < BOUND);
    assert!(
        loaded
            .report
            .diagnostics
            .iter()
            .any(|found| found.code == "M002")
    );
    let open = "${env.A:-".repeat(200_000);
    let begun = Clock::start();
    check(
        &format!("version: 1\nsandboxes: {{ web: {{ description: \"{open}\" }} }}\n"),
        &["M033 2:34"],
    );
    assert!(begun.elapsed() < BOUND);
}

#[test]
fn many_errors_are_counted_and_not_all_listed() {
    let mut text = "version: 1\nsandboxes:\n  web:\n    services:\n".to_owned();
    for number in 0..5_000 {
        let _ = writeln!(text, "      s{number}: {{ cmd: x, needs: [t{number}] }}");
    }
    let begun = Clock::start();
    let loaded = load(&text);
    let rendered = loaded.report.render_text(false, 80);
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
    assert_eq!(loaded.report.diagnostics.len(), 1000);
    assert!(rendered.contains("and 4000 more"), "{rendered}");
}

#[test]
fn one_line_of_errors_is_not_shown_a_thousand_times() {
    let services = (0..20_000).fold(String::new(), |text, n| {
        format!("{text}s{n}: {{ nope: 1 }}, ")
    });
    let text = format!("version: 1\nsandboxes: {{ web: {{ services: {{ {services} }} }} }}\n");
    let begun = Clock::start();
    let loaded = load(&text);
    let rendered = loaded.report.render_text(false, 80);
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
    assert!(rendered.len() < 1_000_000, "{}", rendered.len());
}

fn refused_file(path: &Path, code: &str, words: &str) {
    let begun = Clock::start();
    let loaded = manifest::load(&request(path));
    assert!(begun.elapsed() < BOUND);
    let text = loaded.report.render_text(false, 200);
    assert_eq!(loaded.report.diagnostics.len(), 1, "{text}");
    assert_eq!(loaded.report.diagnostics[0].code, code, "{text}");
    assert!(text.contains(words), "{text}");
    assert!(loaded.desired.is_none());
    assert_eq!(loaded.files, [path]);
}

#[test]
fn files_that_are_no_manifests() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    refused_file(&folder.path().join("none"), "M001", "does not exist");
    refused_file(folder.path(), "M001", "is a folder");
    refused_file(
        Path::new("/dev/zero"),
        "M001",
        "is a pipe, a socket or a device",
    );
    refused_file(&file("nul", b"a: 1\nb: x\0y"), "M003", "nul:2:5");
    refused_file(&file("latin", b"a: 1\nb: \xe9"), "M003", "latin:2:4");
    refused_file(&file("utf16", b"\xff\xfea\0"), "M003", "UTF-16");
    let big = folder.path().join("big");
    std::fs::File::create(&big)
        .unwrap()
        .set_len(100 << 20)
        .unwrap();
    refused_file(&big, "M002", "is larger than 16 MiB");
    let fifo = folder.path().join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    if made.is_ok_and(|status| status.success()) {
        refused_file(&fifo, "M001", "is a pipe");
    }
}

#[test]
fn env_files_and_secrets_are_bounded_too() {
    let text = "version: 1\nsecrets: { z: { file: /dev/zero } }\nsandboxes:\n  web:\n    services:\n      \
                a: { cmd: x, env_file: /dev/zero, env: { A: '${secret.z}' } }\n";
    check(text, &["M028 2:23", "M001 6:30"]);
}

#[test]
fn many_services_are_quick() {
    let mut text = "version: 1\nsandboxes:\n".to_owned();
    for sandbox in 0..100 {
        let _ = writeln!(text, "  box{sandbox}:\n    services:");
        for service in 0..100 {
            let port = 1000 + sandbox * 100 + service;
            let _ = writeln!(
                text,
                "      service{service}:\n        cmd: server\n        args: [--port, {port}, --name, x]\n        \
                 env:\n          PORT: \"{port}\"\n          LEVEL: info\n        ports: [{port}]\n        \
                 health: {{ http: {{ port: {port}, path: /healthz }}, timeout: 30s }}\n        \
                 restart: on-failure"
            );
            if service > 0 {
                let _ = writeln!(text, "        needs: [service{}]", service - 1);
            }
        }
    }
    let begun = Clock::start();
    let loaded = load(&text);
    let took = begun.elapsed();
    assert!(
        !loaded.report.has_errors(),
        "{}",
        loaded.report.render_text(false, 80)
    );
    assert_eq!(loaded.desired.unwrap().services().count(), 10_000);
    eprintln!("10,000 services in {took:?}");
    assert!(took < BOUND, "{took:?}");
}

#[test]
fn a_long_chain_and_a_long_circle() {
    let mut text = "version: 1\nsandboxes:\n  web:\n    services:\n".to_owned();
    let length = 20_000;
    for number in 0..length {
        let _ = writeln!(
            text,
            "      s{number}: {{ cmd: x, needs: [s{}] }}",
            number + 1
        );
    }
    let chain = format!("{text}      s{length}: {{ cmd: x }}\n");
    let circle = format!("{text}      s{length}: {{ cmd: x, needs: [s0] }}\n");
    let begun = Clock::start();
    assert!(load(&chain).desired.is_some());
    let loaded = load(&circle);
    assert_eq!(codes(&loaded), ["M020 5:29"]);
    let rendered = loaded.report.render_text(false, 80);
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
    assert!(rendered.len() < 100_000, "{}", rendered.len());
    assert_eq!(loaded.report.diagnostics[0].related.len(), 63);
}
