//! One sandbox with a hundred services that crash, fork, flood and do not listen, while its supervisor, its
//! keeper and its clients are killed at random.
//!
//! Ignored by default: `cargo test --test torture -- --ignored`. `GABION_TORTURE_KILLS` says how many are
//! killed, `GABION_TORTURE_SEED` repeats the choices of an earlier run, `GABION_TORTURE_ISOLATION=none` does
//! without namespaces. The same program is also what the services execute, and the clients.

#[cfg(target_os = "linux")]
mod check;
#[cfg(target_os = "linux")]
mod client;
#[cfg(target_os = "linux")]
mod instance;
#[cfg(target_os = "linux")]
mod machine;
#[cfg(target_os = "linux")]
mod storm;

#[cfg(target_os = "linux")]
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[1..] {
        ["instance", kind, name, seed] => instance::run(kind, name, number(seed)),
        ["client", dir, services, seed] => {
            client::run(dir.as_ref(), number(services), number(seed))
        }
        ["--list", ..] => {}
        _ if args.contains(&"--ignored") || args.contains(&"--include-ignored") => storm::run(),
        _ => println!("\nthe torture test is ignored: it takes a minute\n"),
    }
}

#[cfg(target_os = "linux")]
fn number(text: &str) -> u64 {
    text.parse().expect("a number")
}

#[cfg(not(target_os = "linux"))]
fn main() {}
