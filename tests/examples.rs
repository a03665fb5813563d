//! The examples do what they say, run as a user would.

mod common;

use common::{Project, eventually, free_port};

fn curl(method: &str, port: u16, path: &str) -> String {
    use std::io::{Read, Write};
    let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", port)) else {
        return String::new();
    };
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nContent-Length: 0\r\n\r\n"
    )
    .unwrap();
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    text
}

fn vars(ports: &[(&str, u16)]) -> Vec<String> {
    ports
        .iter()
        .flat_map(|(name, port)| ["--var".to_owned(), format!("{name}={port}")])
        .collect()
}

fn with<'a>(vars: &'a [String], rest: &[&'a str]) -> Vec<&'a str> {
    vars.iter()
        .map(String::as_str)
        .chain(rest.iter().copied())
        .collect()
}

// The quickstart is run by tests/lifecycle.rs.

#[test]
fn monorepo_overlays_profiles_and_secrets() {
    let project = Project::example("monorepo");
    let [accounts, gateway, echo] = [free_port(), free_port(), free_port()];
    let vars = vars(&[
        ("accounts_port", accounts),
        ("gateway_port", gateway),
        ("echo_port", echo),
    ]);

    project.ok(&with(&vars, &["apply", "--yes"]));
    assert!(curl("GET", gateway, "/").contains("info: local account"));
    assert_eq!(curl("GET", echo, "/"), "");
    project.ok(&with(&vars, &["--profile", "debug", "apply", "--yes"]));
    assert!(curl("GET", echo, "/").contains("200 OK"));
    project.ok(&with(&vars, &["--profile", "debug", "destroy", "--yes"]));

    let staging = ["-f", "gabion.yaml", "-f", "gabion.staging.yaml"];
    let all: Vec<&str> = staging
        .iter()
        .copied()
        .chain(with(&vars, &["apply", "--yes"]))
        .collect();
    project.ok(&all);
    assert!(curl("GET", gateway, "/").contains("warning: local account"));
    let all: Vec<&str> = staging
        .iter()
        .copied()
        .chain(with(&vars, &["destroy", "--yes"]))
        .collect();
    project.ok(&all);
}

/// The example, on ports of its own and as an ordinary user.
struct Shop {
    project: Project,
    vars: Vec<String>,
    api: u16,
}

fn shop() -> Shop {
    let mut project = Project::example("shop");
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    if nix::unistd::Uid::effective().is_root() {
        // PostgreSQL refuses to run as root.
        project.run_as(nobody.uid.as_raw(), nobody.gid.as_raw());
    }
    let [postgres, redis, api] = [free_port(), free_port(), free_port()];
    let vars = vars(&[
        ("postgres_port", postgres),
        ("redis_port", redis),
        ("api_port", api),
    ]);
    Shop { project, vars, api }
}

#[test]
#[ignore = "needs PostgreSQL and Redis, which .ci/run installs"]
fn shop_takes_orders_and_ships_them() {
    let Shop { project, vars, api } = shop();
    project.ok(&with(&vars, &["apply", "--yes"]));

    assert!(curl("POST", api, "/orders/tea").contains("\"id\": 1"));
    eventually("the order is shipped", || {
        curl("GET", api, "/orders").contains("\"shipped\": true")
    });
    let logs = project.ok(&with(&vars, &["logs", "web/worker"]));
    assert!(logs.stdout().contains("shipped order 1"), "{logs}");

    // The data outlives a restart of the server.
    project.ok(&with(&vars, &["restart", "data/postgres"]));
    assert!(curl("GET", api, "/orders").contains("tea"));
    project.ok(&with(&vars, &["destroy", "--yes"]));
    assert_eq!(project.processes(), Vec::<u32>::new());
}

/// What pgbench keeps equal in every transaction: the sums of its tables.
const SUMS: &str = "select (select sum(abalance) from pgbench_accounts) = (select sum(bbalance) from pgbench_branches)
    and (select sum(bbalance) from pgbench_branches) = (select sum(tbalance) from pgbench_tellers)
    and (select sum(tbalance) from pgbench_tellers) = (select sum(delta) from pgbench_history),
    (select count(*) from pgbench_history)";

#[test]
#[ignore = "needs PostgreSQL, which .ci/run installs"]
fn a_database_survives_a_checkpoint_under_load() {
    let Shop { project, vars, .. } = shop();
    let ok = |rest: &[&str]| project.ok(&with(&vars, rest)).stdout();
    ok(&["apply", "--yes", "data/postgres"]);
    let exec = |command: &[&str]| ok(&[&["exec", "data", "--"], command].concat());
    exec(&["pgbench", "--initialize", "--quiet", "--scale", "4"]);
    let transactions = || -> u64 {
        let text = exec(&["psql", "-Atc", "select count(*) from pgbench_history"]);
        text.trim().parse().unwrap()
    };
    let load = [
        "exec", "data", "--", "pgbench", "--client", "4", "--time", "600",
    ];
    let mut load = project.command(&with(&vars, &load));
    load.stdout(std::process::Stdio::null());
    load.stderr(std::process::Stdio::null());
    let mut load = load.spawn().unwrap();
    eventually("the load has begun", || transactions() > 100);
    ok(&["checkpoint", "create", "data", "under-load"]);
    let then = transactions();
    eventually("the load has gone on", || transactions() > then);
    // The load ends with its connections.
    ok(&["checkpoint", "restore", "data", "under-load", "--yes"]);
    load.wait().unwrap();

    let sums = exec(&["psql", "-Atc", SUMS]);
    let (equal, count) = sums.trim().split_once('|').unwrap();
    assert_eq!(equal, "t");
    let count: u64 = count.parse().unwrap();
    assert!((100..=then).contains(&count), "{count} of {then}");
    exec(&["pg_amcheck", "--install-missing", "--heapallindexed"]);
    ok(&["destroy", "--yes"]);
}

#[test]
fn the_key_that_is_sealed_for_offline_can_be_read() {
    let key = format!(
        "POCKETENV_PUBLIC_KEY={}",
        gabion::serve::pocketenv::seal::public_key()
    );
    let help = Project::empty().run(&["serve", "--help"]);
    let readme = include_str!("../README.md");
    assert!(help.stdout().contains(&key), "{help}");
    assert!(readme.contains(&key));
}
