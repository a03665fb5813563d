//! What a service executes: holds its lock for its whole life, writes numbered lines, and behaves badly in the
//! way of its kind.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::libc;
use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;

/// The ways of behaving badly.
pub const KINDS: [&str; 8] = [
    "crashes", "forks", "setsid", "daemon", "deaf", "floods", "listens", "stable",
];

/// There once nobody is to crash any more.
pub const CALM: &str = "calm";
/// What keepers there have been so far.
pub const EPOCH: &str = "epoch";
/// One line for each instance that was not alone.
pub const VIOLATIONS: &str = "violations";

/// Written at once, so that nothing that is counted was not written.
fn line(text: &str) {
    let mut out = std::io::stdout();
    let _ = out.write_all(format!("{text}\n").as_bytes());
    let _ = out.flush();
}

pub fn run(kind: &str, name: &str, seed: u64) {
    let lock = alone(name);
    let pid = std::process::id();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanos = now.unwrap_or_default().subsec_nanos();
    let mut random = fastrand::Rng::with_seed(seed ^ (u64::from(pid) << 32) ^ u64::from(nanos));
    let id = format!("{:016x}", random.u64(..));
    let epoch = std::fs::read_to_string(EPOCH).unwrap_or_default();
    let count = OpenOptions::new()
        .create(true)
        .append(true)
        .open("counts")
        .expect("counts");
    let own = new_file(&format!("{name}-{id}.count"));
    // In one piece, because all write there.
    let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let begun = format!("{name} {id} {} {}\n", epoch.trim(), namespace.display());
    (&count).write_all(begun.as_bytes()).expect("a line");
    misbehave(kind, name, &lock);
    let mut written = 0_u64;
    let mut steps = random.u32(1..80);
    loop {
        let burst = if kind == "floods" {
            random.u64(50..500)
        } else {
            random.u64(0..8)
        };
        for _ in 0..burst {
            written += 1;
            line(&format!("T {id} {written}"));
        }
        let _ = own.write_all_at(&written.to_le_bytes(), 0);
        pause(random.u64(1..60));
        let calm = Path::new(CALM).exists();
        steps = steps.saturating_sub(1);
        if steps == 0 && kind != "stable" && !calm {
            end(&mut random);
        }
        if calm {
            pause(200);
        }
    }
}

/// The lock is its own until it and all that it has forked is gone.
fn alone(name: &str) -> File {
    let lock = new_file(&format!("{name}.lock"));
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        let told = OpenOptions::new()
            .create(true)
            .append(true)
            .open(VIOLATIONS);
        let text = format!("{name} is not alone ({})\n", std::process::id());
        let _ = told.expect("a file").write_all(text.as_bytes());
        std::process::exit(70);
    }
    lock
}

fn new_file(path: &str) -> File {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    options.open(path).expect("a file")
}

/// Lets time pass, as a program does that has work to do.
fn pause(millis: u64) {
    std::thread::sleep(std::time::Duration::from_millis(millis));
}

fn end(random: &mut fastrand::Rng) {
    match random.u8(0..5) {
        0 => std::process::exit(0),
        1 | 2 => std::process::exit(i32::from(random.u8(1..100))),
        3 => std::process::abort(),
        _ => {
            let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
        }
    }
}

fn misbehave(kind: &str, name: &str, _lock: &File) {
    match kind {
        "forks" => {
            fork_idle(false);
            fork_idle(false);
        }
        "setsid" => fork_idle(true),
        // SAFETY: there is one thread only.
        "daemon" if unsafe { libc::fork() } == 0 => {
            fork_idle(true);
            std::process::exit(0);
        }
        "deaf" => {
            // SAFETY: ignoring a signal touches no memory.
            unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
        }
        "listens" => {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            let port = listener.local_addr().expect("an address").port();
            std::fs::write(format!("{name}.port"), port.to_string()).expect("a file");
            std::mem::forget(listener);
        }
        _ => {}
    }
}

/// A child that does nothing, for ever. It holds the lock as well.
fn fork_idle(own_session: bool) {
    // SAFETY: there is one thread only.
    if unsafe { libc::fork() } == 0 {
        if own_session {
            let _ = rustix::process::setsid();
            // SAFETY: ignoring a signal touches no memory.
            unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
        }
        loop {
            // SAFETY: waits for a signal.
            unsafe { libc::pause() };
        }
    }
}
