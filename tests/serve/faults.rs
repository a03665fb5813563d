//! What goes wrong on purpose, and the log of requests.

use std::time::Duration;

use gabion::serve::faults::Plan;
use serde_json::{Value, json};

use crate::rig::{Rig, in_time, told};

fn plan(rules: &[&str]) -> Plan {
    Plan {
        rules: rules.iter().map(|rule| rule.parse().unwrap()).collect(),
        ..Plan::default()
    }
}

async fn create(rig: &Rig, name: &str) -> reqwest::Result<reqwest::Response> {
    let request = rig.request("POST".parse().unwrap(), "/v1/sprites");
    in_time(request.json(&json!({ "name": name })).send()).await
}

async fn exists(rig: &Rig, name: &str) -> bool {
    rig.faults.reset(Plan::default());
    let path = format!("/v1/sprites/{name}");
    rig.ask("GET", &path, Value::Null).await.0 == 200
}

#[tokio::test]
async fn before_is_without_effect_and_after_is_with_it() {
    let rig = Rig::new().await;
    let cases = [
        ("before=lost", None, false),
        ("before=503", Some(503), false),
        ("before=429/2", Some(429), false),
        ("after=lost", None, true),
        ("after=500", Some(500), true),
        ("after=truncated", Some(201), true),
    ];
    for (number, (fault, status, done)) in cases.into_iter().enumerate() {
        let name = format!("box-{number}");
        rig.faults
            .reset(plan(&[&format!("POST /v1/sprites:{fault}")]));
        let answer = create(&rig, &name).await;
        let told = answer.as_ref().ok().map(|answer| answer.status().as_u16());
        assert_eq!(told, status, "{fault}");
        if fault == "before=429/2" {
            assert_eq!(answer.as_ref().unwrap().headers()["retry-after"], "2");
        }
        if fault == "after=truncated" {
            assert!(answer.unwrap().bytes().await.is_err());
        }
        assert_eq!(exists(&rig, &name).await, done, "{fault}");
    }
}

#[tokio::test]
async fn a_stream_is_cut_in_the_middle_of_a_line() {
    let rig = Rig::new().await;
    rig.sprite("box").await;
    rig.faults
        .reset(plan(&["PUT /v1/sprites/*/services/*:after=truncated"]));
    let request = rig.request(
        "PUT".parse().unwrap(),
        "/v1/sprites/box/services/web?duration=20s",
    );
    let body = json!({ "cmd": "sleep", "args": ["1000"] });
    let mut answer = in_time(request.json(&body).send()).await.unwrap();
    let first = in_time(answer.chunk()).await.unwrap().unwrap();
    assert!(!first.contains(&b'\n') && first.starts_with(b"{"));
    assert!(in_time(answer.chunk()).await.is_err());
    // What was begun comes to its end.
    rig.until("box", "web", |it| it["state"]["status"] == "running")
        .await;
}

#[tokio::test]
async fn a_rule_meets_the_requests_that_it_counts() {
    let rig = Rig::new().await;
    rig.faults.reset(plan(&["GET /v1/sprites:before=503@2-3"]));
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(rig.ask("GET", "/v1/sprites", Value::Null).await.0);
        rig.ask("GET", "/v1/sprites/none", Value::Null).await;
    }
    assert_eq!(statuses, [200, 503, 503, 200]);
}

#[tokio::test]
async fn the_same_seed_meets_the_same_requests() {
    let rig = Rig::new().await;
    let mut told = Vec::new();
    for seed in [7, 7, 8] {
        rig.faults.reset(Plan {
            fail: 0.5,
            seed,
            ..Plan::default()
        });
        for _ in 0..32 {
            // Whatever comes of it.
            let _ = in_time(rig.request("GET".parse().unwrap(), "/v1/sprites").send()).await;
        }
        let faults = rig
            .faults
            .requests()
            .into_iter()
            .map(|request| request.fault);
        told.push(faults.collect::<Vec<_>>());
    }
    assert_eq!(told[0], told[1]);
    assert_ne!(told[0], told[2]);
    let met = told[0].iter().flatten().count();
    assert!((4..28).contains(&met), "{met}");
}

#[tokio::test]
async fn every_request_takes_its_time_and_is_counted() {
    let rig = Rig::new().await;
    let latency = Duration::from_millis(50);
    rig.faults.reset(Plan {
        latency,
        ..Plan::default()
    });
    let begun = std::time::Instant::now();
    let request = rig.request("GET".parse().unwrap(), "/v1/sprites?prefix=a");
    assert_eq!(told(request.send().await.unwrap()).await.0, 200);
    assert!(begun.elapsed() >= latency);
    let requests = rig.faults.requests();
    assert_eq!(requests.len(), 1);
    let (method, path) = (requests[0].method.as_str(), requests[0].path.as_str());
    assert_eq!(
        (method, path, requests[0].status),
        ("GET", "/v1/sprites", Some(200))
    );
}
