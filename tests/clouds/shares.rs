//! Links that let others in: each leads to what is exposed until it ends or is taken back, and is told only once.

use std::path::Path;

use gabion::platforms::cloud::http::tls;
use serde_json::Value;

use crate::common::{Project, eventually, free_port};
use crate::projects::{flat, no_changes, on};
use crate::served::{Served, runtime};

/// A project whose `web/api` answers at a port.
fn project(served: &Served, port: u16) -> Project {
    let project = on(
        served,
        "miosa",
        &format!(
            "  web:
    services:
      api:
        cmd: python3
        args: [-m, http.server, '{port}', --bind, 127.0.0.1]
        ports: [{port}]
        health_port: {port}
"
        ),
    );
    project.ok(&["apply", "--yes"]);
    project
}

/// The status that somebody without a token of the account gets.
fn status(url: &str) -> u16 {
    runtime().block_on(async {
        let http = reqwest::Client::builder().no_proxy();
        let http = http.tls_backend_preconfigured(tls::unused().expect("TLS"));
        let http = http.build().expect("a client");
        let answer = http.get(url).send().await.expect("an answer");
        answer.status().as_u16()
    })
}

/// Whether a file below this folder has this text in it.
fn is_written(folder: &Path, text: &str) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| {
        let kind = entry.file_type().expect("a type");
        let holds = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).contains(text);
        match kind.is_dir() {
            true => is_written(&entry.path(), text),
            false => kind.is_file() && std::fs::read(entry.path()).is_ok_and(holds),
        }
    })
}

/// Makes a link, which is on standard output and nowhere else.
fn made(served: &Served, project: &Project, args: &[&str]) -> String {
    let args: Vec<_> = ["-vvv", "share"].iter().chain(args).copied().collect();
    let run = project.ok(&args);
    let url = run.stdout().trim().to_owned();
    let (_, token) = url.split_once("?share=").expect("a token");
    assert!(!run.stderr().contains(token), "{run}");
    assert!(!is_written(project.dir.path(), token));
    assert!(!is_written(served.home(), token));
    url
}

fn links(project: &Project) -> Vec<Value> {
    let listed = project.ok(&["share", "web", "--list", "--json"]).stdout();
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    listed["links"].as_array().expect("a list").clone()
}

#[test]
fn a_link_to_a_sandbox_lets_anybody_in_until_it_is_taken_back() {
    let served = Served::start();
    let port = free_port();
    let project = project(&served, port);
    project.ok(&["expose", "web", &port.to_string()]);
    assert_eq!(links(&project), Vec::<Value>::new());
    let url = made(&served, &project, &["web"]);
    assert_eq!(status(&url), 200);
    let (bare, _) = url.split_once('?').expect("a token");
    assert_eq!(status(bare), 404);
    assert_eq!(status(&format!("{bare}?share=guessed")), 401);
    let listed = links(&project);
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["expires_at"], Value::Null);
    let id = listed[0]["id"].as_str().expect("an id");
    project.ok(&["unshare", "web", id]);
    assert_eq!(status(&url), 401);
    assert_eq!(links(&project), Vec::<Value>::new());
    project.ok(&["unshare", "web", id]);
    no_changes(&project);
}

#[test]
fn a_link_to_a_port_is_replaced_by_the_next_and_ends_with_what_it_leads_to() {
    let served = Served::start();
    let port = free_port();
    let project = project(&served, port);
    let number = port.to_string();
    let refused = project.run(&["share", "web/api"]);
    assert_eq!(refused.code(), Some(1), "{refused}");
    let hint = format!("gabion expose web {port}");
    assert!(flat(&refused).contains(&hint), "{refused}");
    project.ok(&["expose", "web", &number]);
    let first = made(&served, &project, &["web/api"]);
    assert_eq!(status(&first), 200);
    let second = made(&served, &project, &["web", "--port", &number]);
    assert_eq!((status(&first), status(&second)), (401, 200));
    project.ok(&["unshare", "web", "--port", &number]);
    assert_eq!(status(&second), 401);
    let third = made(&served, &project, &["web/api"]);
    assert_eq!(status(&third), 200);
    project.ok(&["unexpose", "web", &number]);
    assert_eq!(status(&third), 401);
    assert_eq!(links(&project), Vec::<Value>::new());
}

#[test]
fn links_end_by_themselves() {
    let served = Served::start();
    let port = free_port();
    let project = project(&served, port);
    project.ok(&["expose", "web", &port.to_string()]);
    for args in [&["web"][..], &["web/api"], &["web", "--token"]] {
        let long = made(&served, &project, &[args, &["--expires-in", "1h"]].concat());
        assert_eq!(status(&long), 200);
        let short = made(&served, &project, &[args, &["--expires-in", "1s"]].concat());
        eventually("the link has ended", || status(&short) == 401);
    }
    // Those of tokens and of ports are in no list.
    assert_eq!(links(&project).len(), 1);
}
