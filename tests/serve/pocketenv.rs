//! Pocketenv: the conformance vectors of protocol page pocketenv, §12, each by its number, and what the
//! page says of bodies, starts and attached resources besides.

mod backups;
mod claim;
mod keys;
mod storage;

use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use crate::rig::{BOB, Rig, in_time, told};

const SLEEP: &str = "exec sleep 1000";

pub fn path(operation: &str) -> String {
    format!("/xrpc/io.pocketenv.{operation}")
}

pub async fn get(rig: &Rig, operation: &str) -> (u16, Value) {
    rig.ask("GET", &path(operation), Value::Null).await
}

/// Posts; `null` is no body.
pub async fn post(rig: &Rig, operation: &str, body: Value) -> (u16, Value) {
    rig.ask("POST", &path(operation), body).await
}

/// Posts a body and expects success.
pub async fn done(rig: &Rig, operation: &str, body: Value) -> Value {
    let (status, answer) = post(rig, operation, body).await;
    assert_eq!(status, 200, "{operation}: {answer}");
    answer
}

/// A server with one sandbox, and the sandbox's id.
pub async fn boxed() -> (Rig, String) {
    let rig = Rig::new().await;
    let made = done(&rig, "sandbox.createSandbox", json!({ "base": "openclaw" })).await;
    let id = made["id"].as_str().unwrap().to_owned();
    (rig, id)
}

async fn add(rig: &Rig, id: &str, name: &str, more: Value) -> (u16, Value) {
    let mut service = json!({ "name": name, "command": SLEEP });
    service
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let body = json!({ "service": service });
    post(rig, &format!("service.addService?sandboxId={id}"), body).await
}

async fn services(rig: &Rig, id: &str) -> Vec<Value> {
    let (status, body) = get(rig, &format!("service.getServices?sandboxId={id}")).await;
    assert_eq!(status, 200, "{body}");
    body["services"].as_array().unwrap().clone()
}

/// The id of the only service.
async fn only_service(rig: &Rig, id: &str) -> String {
    let all = services(rig, id).await;
    assert_eq!(all.len(), 1);
    all[0]["id"].as_str().unwrap().to_owned()
}

async fn statuses(rig: &Rig, id: &str) -> Vec<Value> {
    let all = services(rig, id).await;
    all.into_iter().map(|it| it["status"].clone()).collect()
}

async fn ports(rig: &Rig, id: &str) -> Value {
    let (_, body) = get(rig, &format!("sandbox.getExposedPorts?id={id}")).await;
    body["ports"].clone()
}

async fn run(rig: &Rig, id: &str, command: &str) -> String {
    let body = json!({ "command": command });
    let ran = done(rig, &format!("sandbox.exec?id={id}"), body).await;
    ran["stdout"].as_str().unwrap().to_owned()
}

/// The caller's sandboxes.
pub async fn own(rig: &Rig) -> Value {
    let (_, profile) = get(rig, "actor.getProfile").await;
    let did = profile["did"].as_str().unwrap();
    get(rig, &format!("actor.getActorSandboxes?did={did}"))
        .await
        .1
}

/// What is answered where the platform says no more than that it has failed.
fn internal() -> (u16, Value) {
    let body = json!({ "error": "InternalServerError", "message": "Internal Server Error" });
    (500, body)
}

#[tokio::test]
async fn vector_1_an_unknown_sandbox_is_an_empty_answer() {
    let rig = Rig::new().await;
    assert_eq!(
        get(&rig, "sandbox.getSandbox?id=nope").await,
        (200, json!({}))
    );
}

#[tokio::test]
async fn vector_2_a_start_needs_a_body_and_a_sandbox() {
    let rig = Rig::new().await;
    let start = "sandbox.startSandbox?id=nope";
    let (status, body) = post(&rig, start, json!({})).await;
    assert_eq!((status, &body["error"]), (404, &json!("SandboxNotFound")));
    let (status, body) = raw(&rig, start, "", "").await;
    assert_eq!((status, &body["error"]), (400, &json!("InvalidRequest")));
    assert_eq!(
        body["message"],
        "A request body is expected but none was provided"
    );
}

/// A request with just these headers and body.
async fn raw(rig: &Rig, operation: &str, headers: &str, body: &str) -> (u16, Value) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let host = rig.url.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(host).await.unwrap();
    let request = format!(
        "POST {} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {}\r\nconnection: close\r\n{headers}\r\n{body}",
        path(operation),
        crate::rig::ALICE,
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    in_time(stream.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

#[tokio::test]
async fn bodies_are_where_they_belong() {
    let (rig, id) = boxed().await;
    let start = format!("sandbox.startSandbox?id={id}");
    let json_type = "content-type: application/json\r\n";
    let empty = "content-length: 0\r\n";
    let told = |(status, body): (u16, Value)| (status, body["message"].clone());
    let (status, _) = raw(&rig, &start, &format!("{empty}{json_type}"), "").await;
    assert_eq!(status, 200);
    assert_eq!(
        told(raw(&rig, &start, empty, "").await),
        (
            400,
            json!("Request encoding (Content-Type) required but not provided")
        )
    );
    let text = "content-length: 2\r\ncontent-type: text/plain\r\n";
    assert_eq!(
        told(raw(&rig, &start, text, "{}").await),
        (
            400,
            json!("Wrong request encoding (Content-Type): text/plain")
        )
    );
    let broken = format!("content-length: 1\r\n{json_type}");
    let (status, body) = raw(&rig, &start, &broken, "{").await;
    assert_eq!((status, &body["error"]), (400, &json!("SyntaxError")));
    assert_eq!(
        told(post(&rig, &start, json!({ "repo": null })).await),
        (400, json!("Input/repo must be a string"))
    );
    // An object of just so many bytes is taken, and not one more.
    let sized = |bytes: usize| json!({ "more": "x".repeat(bytes - r#"{"more":""}"#.len()) });
    assert_eq!(post(&rig, &start, sized(100 << 10)).await.0, 200);
    let refused = json!({
        "error": "PayloadTooLargeError", "message": "request entity too large",
    });
    let large = sized((100 << 10) + 1);
    assert_eq!(post(&rig, &start, large).await, (413, refused));
}

#[tokio::test]
async fn vector_3_a_stop_takes_no_body() {
    let (rig, id) = boxed().await;
    let stop = format!("sandbox.stopSandbox?id={id}");
    let (status, body) = post(&rig, &stop, json!({})).await;
    assert_eq!((status, &body["error"]), (400, &json!("InvalidRequest")));
    assert_eq!(
        body["message"],
        "A request body was provided when none was expected"
    );
    assert_eq!(post(&rig, &stop, Value::Null).await, (200, json!({})));
}

#[tokio::test]
async fn vector_4_creates_are_checked() {
    let rig = Rig::new().await;
    let create = |body: Value| {
        let rig = &rig;
        async move {
            let (status, body) = post(rig, "sandbox.createSandbox", body).await;
            let message = body["message"].as_str().unwrap_or_default().to_owned();
            (status, body["error"].clone(), message)
        }
    };
    let (status, _, message) = create(json!({ "name": "x" })).await;
    assert_eq!(status, 400);
    assert_eq!(message, "Input must have the property \"base\"");
    let (status, error, _) = create(json!({ "base": "nosuch" })).await;
    assert_eq!((status, error), (502, json!("SandboxProviderError")));
    let (status, _, message) = create(json!({ "base": "openclaw", "provider": "fly" })).await;
    assert_eq!(status, 400);
    assert_eq!(
        message,
        "Input/provider must be one of (daytona|vercel|cloudflare|deno|sprites|modal|e2b|blaxel|hopx|runloop)"
    );
    let (status, _, message) = create(json!({ "base": "openclaw", "disk": 1 })).await;
    assert_eq!(
        (status, message.as_str()),
        (400, "Input/disk can not be less than 3")
    );
    for key in ["envs", "secrets"] {
        for items in [json!([]), json!([{ "name": "A", "value": "b" }])] {
            let (status, error, message) = create(json!({ "base": "openclaw", key: items })).await;
            assert_eq!((status, error), (400, json!("InvalidRequest")));
            let wanted = format!("Lexicon not found: lex:io.pocketenv.sandbox.defs#{key}");
            assert_eq!(message, wanted);
        }
    }
    assert_eq!(own(&rig).await["total"], 0);
}

#[tokio::test]
async fn vector_5_names_are_given_after_the_create() {
    let rig = Rig::new().await;
    let body = json!({ "base": "openclaw", "name": "x", "description": "demo" });
    let made = done(&rig, "sandbox.createSandbox", body).await;
    assert_ne!(made["name"], "x");
    assert_eq!(made["description"], "demo");
    let details = json!({
        "$type": "io.pocketenv.sandbox.defs#sandboxDetailsPref",
        "name": "x", "description": "mine", "topics": ["web"],
    });
    let body = json!({ "sandboxId": made["id"], "preferences": [details] });
    assert_eq!(
        done(&rig, "sandbox.putPreferences", body.clone()).await,
        Value::Null
    );
    let (_, found) = get(&rig, "sandbox.getSandbox?id=x").await;
    let found = &found["sandbox"];
    assert_eq!(found["id"], made["id"]);
    assert_eq!(found["description"], "mine");
    assert_eq!(found["topics"], json!(["web"]));
    assert_eq!(found["status"], "RUNNING");
    let mut unknown = body.clone();
    unknown["sandboxId"] = json!("x");
    assert_eq!(
        done(&rig, "sandbox.putPreferences", unknown).await,
        Value::Null
    );
    let mut untyped = body;
    untyped["preferences"][0]
        .as_object_mut()
        .unwrap()
        .remove("$type");
    assert_eq!(post(&rig, "sandbox.putPreferences", untyped).await.0, 400);
}

#[tokio::test]
async fn vector_6_repo_and_base_make_a_create_idempotent() {
    let rig = Rig::new().await;
    let body = json!({ "base": "openclaw", "repo": "file:///nowhere" });
    let first = done(&rig, "sandbox.createSandbox", body.clone()).await;
    let second = done(&rig, "sandbox.createSandbox", body).await;
    assert_eq!(first["id"], second["id"]);
    assert_eq!(own(&rig).await["total"], 1);
    let body = json!({ "base": "nix", "repo": "file:///nowhere" });
    let other = done(&rig, "sandbox.createSandbox", body).await;
    assert_ne!(first["id"], other["id"]);
}

#[tokio::test]
async fn vector_7_a_service_of_a_running_sandbox_is_started_and_exposed() {
    let (rig, id) = boxed().await;
    assert_eq!(
        add(&rig, &id, "api", json!({ "ports": [18080] })).await,
        (200, Value::Null)
    );
    let all = services(&rig, &id).await;
    assert_eq!(all[0]["status"], "RUNNING");
    let mut keys: Vec<_> = all[0].as_object().unwrap().keys().cloned().collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        [
            "command",
            "createdAt",
            "description",
            "id",
            "name",
            "status"
        ]
    );
    assert_eq!(all.len(), 1);
    let ports = ports(&rig, &id).await;
    assert_eq!(ports.as_array().unwrap().len(), 1);
    assert_eq!(ports[0]["port"], 18080);
    assert_eq!(ports[0]["description"], "Port 18080 for service api");
    assert!(ports[0]["previewUrl"].is_string());
}

#[tokio::test]
async fn vector_8_a_service_of_a_stopped_sandbox_starts_with_it() {
    let (rig, id) = boxed().await;
    done(&rig, &format!("sandbox.stopSandbox?id={id}"), Value::Null).await;
    assert_eq!(
        add(&rig, &id, "api", json!({ "ports": [18080] })).await.0,
        200
    );
    assert_eq!(statuses(&rig, &id).await, ["STOPPED"]);
    assert_eq!(ports(&rig, &id).await[0].get("previewUrl"), None);
    done(&rig, &format!("sandbox.startSandbox?id={id}"), json!({})).await;
    assert_eq!(statuses(&rig, &id).await, ["RUNNING"]);
    assert!(ports(&rig, &id).await[0]["previewUrl"].is_string());
}

#[tokio::test]
async fn vector_9_names_and_ports_are_taken_once() {
    let (rig, id) = boxed().await;
    assert_eq!(
        add(&rig, &id, "api", json!({ "ports": [18080] })).await.0,
        200
    );
    let before = services(&rig, &id).await;
    let rows = ports(&rig, &id).await;
    assert_eq!(add(&rig, &id, "api", json!({})).await, internal());
    for ports in [json!([18080]), json!([18081, 18081])] {
        let more = json!({ "ports": ports });
        assert_eq!(add(&rig, &id, "web", more).await, internal());
    }
    assert_eq!(services(&rig, &id).await, before);
    assert_eq!(ports(&rig, &id).await, rows);
}

#[tokio::test]
async fn vector_10_a_port_that_is_refused_leaves_the_service() {
    let (rig, id) = boxed().await;
    let (status, body) = add(&rig, &id, "api", json!({ "ports": [3000] })).await;
    assert_eq!((status, &body["error"]), (400, &json!("InvalidRequest")));
    assert_eq!(body["message"], "Request failed with status code 400");
    let all = services(&rig, &id).await;
    assert_eq!((all.len(), &all[0]["name"]), (1, &json!("api")));
    let row = json!({ "port": 3000, "description": "Port 3000 for service api" });
    assert_eq!(ports(&rig, &id).await, json!([row]));
}

#[tokio::test]
async fn vector_11_an_update_keeps_what_it_does_not_name() {
    let (rig, id) = boxed().await;
    let more = json!({ "ports": [18080], "description": "the API" });
    assert_eq!(add(&rig, &id, "api", more).await.0, 200);
    let service = only_service(&rig, &id).await;
    let update = format!("service.updateService?serviceId={service}");
    let body = |ports: Value| {
        let mut body = json!({ "service": { "name": "api", "command": "exec sleep 999" } });
        if !ports.is_null() {
            body["service"]["ports"] = ports;
        }
        body
    };
    let before = ports(&rig, &id).await;
    done(&rig, &update, body(Value::Null)).await;
    let now = services(&rig, &id).await;
    assert_eq!(now[0]["description"], "the API");
    assert_eq!(now[0]["command"], "exec sleep 999");
    assert_eq!(now[0]["status"], "RUNNING");
    assert_eq!(ports(&rig, &id).await, before);
    done(&rig, &update, body(json!([18090]))).await;
    let row = json!({ "port": 18090, "description": "Port 18090 for service api" });
    assert_eq!(ports(&rig, &id).await, json!([row]));
    assert_eq!(services(&rig, &id).await[0]["description"], "the API");
    assert_eq!(statuses(&rig, &id).await, ["RUNNING"]);
    assert_eq!(
        run(&rig, &id, "pgrep -fx 'sleep 1000' | wc -l")
            .await
            .trim(),
        "1"
    );
    let restart = format!("service.restartService?serviceId={service}");
    done(&rig, &restart, Value::Null).await;
    assert_eq!(
        run(&rig, &id, "pgrep -fx 'sleep 999' | wc -l").await.trim(),
        "1"
    );
}

#[tokio::test]
async fn vector_12_asking_twice() {
    let (rig, id) = boxed().await;
    add(&rig, &id, "api", json!({})).await;
    let service = only_service(&rig, &id).await;
    let ask = |operation: &str| {
        let operation = format!("service.{operation}?serviceId={service}");
        let rig = &rig;
        async move { post(rig, &operation, Value::Null).await }
    };
    assert_eq!(ask("startService").await, (200, Value::Null));
    assert_eq!(ask("stopService").await, (200, Value::Null));
    assert_eq!(statuses(&rig, &id).await, ["STOPPED"]);
    assert_eq!(ask("stopService").await, (200, Value::Null));
    assert_eq!(ask("startService").await, (200, Value::Null));
    assert_eq!(statuses(&rig, &id).await, ["RUNNING"]);
    assert_eq!(ask("deleteService").await, (200, Value::Null));
    let (status, body) = ask("deleteService").await;
    assert_eq!((status, &body["error"]), (404, &json!("XRPCNotSupported")));
    assert_eq!(body["message"], "Service not found");
}

#[tokio::test]
async fn vector_13_a_stop_stops_every_service() {
    let (rig, id) = boxed().await;
    add(&rig, &id, "api", json!({})).await;
    add(&rig, &id, "web", json!({})).await;
    done(&rig, &format!("sandbox.stopSandbox?id={id}"), Value::Null).await;
    assert_eq!(statuses(&rig, &id).await, ["STOPPED", "STOPPED"]);
    let (_, shown) = get(&rig, &format!("sandbox.getSandbox?id={id}")).await;
    assert_eq!(shown["sandbox"]["status"], "STOPPED");
}

#[tokio::test]
async fn vector_14_what_is_deleted_is_gone() {
    let (rig, id) = boxed().await;
    add(&rig, &id, "api", json!({})).await;
    let delete = format!("sandbox.deleteSandbox?id={id}");
    assert_eq!(post(&rig, &delete, Value::Null).await, (200, json!({})));
    let (status, body) = post(&rig, &delete, Value::Null).await;
    assert_eq!((status, &body["error"]), (404, &json!("SandboxNotFound")));
    let list = format!("service.getServices?sandboxId={id}");
    assert_eq!(get(&rig, &list).await, (200, json!({ "services": [] })));
    let show = format!("sandbox.getSandbox?id={id}");
    assert_eq!(get(&rig, &show).await, (200, json!({})));
}

#[tokio::test]
async fn vector_15_tokens() {
    let (rig, id) = boxed().await;
    let url = format!(
        "{}{}",
        rig.url,
        path(&format!("service.getServices?sandboxId={id}"))
    );
    let garbage = rig.http.get(&url).bearer_auth("garbage").send();
    assert_eq!(told(garbage.await.unwrap()).await, internal());
    let anonymous = rig.http.get(&url).send().await.unwrap();
    let refused = json!({ "error": "AuthenticationRequired", "message": "Unauthorized" });
    assert_eq!(told(anonymous).await, (401, refused));
    let bob = rig.http.get(&url).bearer_auth(BOB).send();
    let (status, body) = told(bob.await.unwrap()).await;
    assert_eq!((status, body), (200, json!({ "services": [] })));
}

#[tokio::test]
async fn vector_16_verbs_and_names() {
    let rig = Rig::new().await;
    let (status, body) = get(&rig, "sandbox.startSandbox?id=x").await;
    assert_eq!((status, &body["error"]), (400, &json!("InvalidRequest")));
    assert_eq!(body["message"], "Incorrect HTTP method (GET) expected POST");
    let (status, body) = get(&rig, "sandbox.nope").await;
    assert_eq!(
        (status, &body["error"]),
        (501, &json!("MethodNotImplemented"))
    );
}

#[tokio::test]
async fn vector_17_variables() {
    let (rig, id) = boxed().await;
    let variable = |value: &str| json!({ "sandboxId": id, "name": "MODE", "value": value });
    let body = json!({ "variable": variable("dev") });
    assert_eq!(
        post(&rig, "variable.addVariable", body.clone()).await.0,
        200
    );
    assert_eq!(post(&rig, "variable.addVariable", body).await, internal());
    let list = format!("variable.getVariables?sandboxId={id}");
    let first = get(&rig, &list).await.1["variables"][0].clone();
    assert_eq!(
        (&first["name"], &first["value"]),
        (&json!("MODE"), &json!("dev"))
    );
    let body = json!({ "id": first["id"], "variable": variable("prod") });
    assert_eq!(post(&rig, "variable.updateVariable", body).await.0, 200);
    let (_, now) = get(&rig, &list).await;
    assert_eq!(
        (&now["total"], &now["variables"][0]["value"]),
        (&json!(1), &json!("prod"))
    );
    assert_ne!(now["variables"][0]["updatedAt"], first["updatedAt"]);
    let delete = format!(
        "variable.deleteVariable?id={}",
        first["id"].as_str().unwrap()
    );
    assert_eq!(post(&rig, &delete, Value::Null).await.0, 200);
    let (status, body) = post(&rig, &delete, Value::Null).await;
    assert_eq!((status, &body["error"]), (404, &json!("XRPCNotSupported")));
    assert_eq!(body["message"], "Variable not found");
}

#[tokio::test]
async fn vector_18_ports() {
    let (rig, id) = boxed().await;
    let expose = format!("sandbox.exposePort?id={id}");
    let unexpose = format!("sandbox.unexposePort?id={id}");
    let (status, body) = post(&rig, &expose, json!({ "port": 18080 })).await;
    assert_eq!(status, 200);
    assert!(body["previewUrl"].is_string());
    assert_eq!(
        post(&rig, &expose, json!({ "port": 18080 })).await,
        internal()
    );
    let (status, body) = post(&rig, &expose, json!({ "port": 80 })).await;
    assert_eq!(status, 400);
    assert_eq!(body["message"], "Input/port can not be less than 1025");
    assert_eq!(post(&rig, &expose, json!({ "port": 3000 })).await.0, 400);
    assert_eq!(ports(&rig, &id).await[1], json!({ "port": 3000 }));
    for port in [3000, 18080, 18080] {
        let body = json!({ "port": port });
        assert_eq!(post(&rig, &unexpose, body).await, (200, Value::Null));
    }
    assert_eq!(ports(&rig, &id).await, json!([]));
}

#[tokio::test]
async fn vector_19_pages() {
    let (rig, _) = boxed().await;
    done(&rig, "sandbox.createSandbox", json!({ "base": "nix" })).await;
    let (_, profile) = get(&rig, "actor.getProfile").await;
    let did = profile["did"].as_str().unwrap();
    let list = format!("actor.getActorSandboxes?did={did}");
    let (status, body) = get(&rig, &format!("{list}&limit=1")).await;
    assert_eq!(status, 200);
    assert_eq!(body["sandboxes"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&body["total"], &body["sandboxes"][0]["baseSandbox"]),
        (&json!(2), &json!("nix"))
    );
    let (status, body) = get(&rig, &format!("{list}&limit=0")).await;
    assert_eq!((status, &body["error"]), (400, &json!("InvalidRequest")));
    assert_eq!(body["message"], "Error: limit can not be less than 1");
}

#[tokio::test]
async fn what_is_attached_takes_effect_at_the_next_start() {
    let (rig, id) = boxed().await;
    let body = json!({ "variable": { "sandboxId": id, "name": "MODE", "value": "dev" } });
    done(&rig, "variable.addVariable", body).await;
    let body = json!({ "secret": { "sandboxId": id, "name": "KEY", "value": "hush" } });
    done(&rig, "secret.addSecret", body).await;
    let (_, secrets) = get(&rig, &format!("secret.getSecrets?sandboxId={id}")).await;
    assert!(!secrets.to_string().contains("hush"));
    let body = json!({ "file": { "sandboxId": id, "path": "/tmp/note", "content": "hello" } });
    done(&rig, "file.addFile", body).await;
    let show = "echo $MODE $KEY; cat /tmp/note 2>/dev/null";
    assert_eq!(run(&rig, &id, show).await, "\n");
    done(&rig, &format!("sandbox.startSandbox?id={id}"), json!({})).await;
    assert_eq!(run(&rig, &id, show).await, "dev hush\nhello");
    let body = json!({ "service": { "name": "api", "command": "echo $MODE $KEY >/tmp/env; exec sleep 1000" } });
    done(&rig, &format!("service.addService?sandboxId={id}"), body).await;
    let wait = "until [ -s /tmp/env ]; do :; done; cat /tmp/env";
    assert_eq!(run(&rig, &id, wait).await, "dev hush\n");
}

#[tokio::test]
async fn services_need_the_provider_that_has_them() {
    let rig = Rig::new().await;
    let body = json!({ "base": "openclaw", "provider": "modal" });
    let made = done(&rig, "sandbox.createSandbox", body).await;
    let id = made["id"].as_str().unwrap();
    let (status, body) = add(&rig, id, "api", json!({})).await;
    assert_eq!(status, 404);
    assert_eq!(body["message"], "Request failed with status code 404");
    assert_eq!(statuses(&rig, id).await, ["STOPPED"]);
}

#[tokio::test]
async fn a_service_of_one_protocol_is_one_of_the_others() {
    let (rig, id) = boxed().await;
    assert_eq!(add(&rig, &id, "api", json!({})).await.0, 200);
    let sprites = rig.get("/v1/sprites").await;
    let name = sprites["sprites"][0]["name"].as_str().unwrap();
    let service = rig.get(&format!("/v1/sprites/{name}/services/api")).await;
    assert_eq!(service["state"]["status"], "running");
    rig.put(name, "web", crate::rig::shell(SLEEP)).await;
    assert_eq!(statuses(&rig, &id).await, ["RUNNING", "RUNNING"]);
    let request = rig
        .http
        .post(format!("{}{}", rig.url, path("sandbox.createSandbox")));
    let request = request
        .header(CONTENT_TYPE, "application/json")
        .body("{\"base\":\"nix\"}");
    assert_eq!(
        in_time(request.send()).await.unwrap().status().as_u16(),
        401
    );
}

#[tokio::test]
async fn sandboxes_that_end_do_not_disturb_who_looks_for_a_service() {
    let (rig, id) = boxed().await;
    assert_eq!(add(&rig, &id, "api", json!({})).await.0, 200);
    let service = only_service(&rig, &id).await;
    let mut others = Vec::new();
    for _ in 0..6 {
        let made = done(&rig, "sandbox.createSandbox", json!({ "base": "openclaw" })).await;
        others.push(made["id"].as_str().unwrap().to_owned());
    }
    let left = std::cell::Cell::new(others.len());
    let deletes = futures_util::future::join_all(others.iter().map(async |other| {
        let deleted = format!("sandbox.deleteSandbox?id={other}");
        done(&rig, &deleted, Value::Null).await;
        left.set(left.get() - 1);
    }));
    let looks = async {
        while left.get() > 0 {
            let stop = |id: &str| format!("service.stopService?serviceId={id}");
            let (status, body) = post(&rig, &stop("nothing"), Value::Null).await;
            assert_eq!(status, 404, "{body}");
            done(&rig, &stop(&service), Value::Null).await;
        }
    };
    tokio::join!(deletes, looks);
}
