//! The client of Sprites against `gabion serve`: protocol page sprites, §2 to §7.

mod acts;
mod bounds;
mod changes;
mod exec;
pub mod front;
mod listing;

use serde_json::Value;

use crate::common::{Project, free_port};
use crate::projects::on;
use crate::served::Served;

const PATH: &str = "/v1/sprites";

const SPRITE: &str = "/v1/sprites/shop-web";

fn service(name: &str) -> String {
    format!("{SPRITE}/services/{name}")
}

/// A task, a service with a port behind it, and one with a secret behind that; and one by itself.
fn project(served: &Served) -> Project {
    let port = free_port();
    on(
        served,
        "sprites",
        &format!(
            r#"  web:
    topics: [front]
    env: {{ TIER: one }}
    services:
      setup: {{ kind: task, command: "echo once >>ran.txt" }}
      db:
        command: "echo port {port}; exec python3 -m http.server --bind 127.0.0.1 {port}"
        http_port: {port}
        health: {{ http: {{ port: {port}, path: / }} }}
        needs: [setup]
      api:
        command: "echo mode $MODE; exec sleep 1000"
        env: {{ MODE: slow, PASS: "${{secret.pass}}" }}
        health: {{ log: mode }}
        stop: {{ grace: 2s }}
        needs: [db]
      idle: {{ cmd: sleep, args: ["1000"], description: does nothing }}
"#
        ),
    )
}

fn pids(project: &Project) -> [u64; 3] {
    ["web/db", "web/api", "web/idle"].map(|service| project.pid(service))
}

/// Names of the sprites that there are.
fn sprites(served: &Served) -> Vec<String> {
    let (_, body) = served.ask("GET", PATH, Value::Null);
    let all = body["sprites"].as_array().expect("sprites").iter();
    let name = |sprite: &Value| sprite["name"].as_str().expect("text").to_owned();
    all.map(name).collect()
}
