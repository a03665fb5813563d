//! The iris gateway and data plane: protocol page iris, §2 to §6.

use serde_json::{Value, json};

use crate::rig::{ALICE, Rig, in_time, told};

impl Rig {
    /// Calls a method of the gateway.
    pub async fn call(&self, method: &str, message: Value) -> (u16, Value) {
        self.ask(
            "POST",
            &format!("/iris.v1.SandboxService/{method}"),
            message,
        )
        .await
    }

    /// Makes a sandbox, and tells its id and its data plane.
    pub async fn iris(&self, name: &str) -> Plane<'_> {
        let (status, made) = self.call("CreateSandbox", json!({ "name": name })).await;
        assert_eq!(status, 200, "{made}");
        self.plane(&made)
    }

    pub fn plane(&self, made: &Value) -> Plane<'_> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Plane {
            rig: self,
            id: text(&made["sandbox"]["id"]),
            domain: text(&made["sandbox"]["domain"]),
            token: text(&made["data_plane_token"]),
        }
    }
}

pub struct Plane<'a> {
    rig: &'a Rig,
    pub id: String,
    pub domain: String,
    pub token: String,
}

impl Plane<'_> {
    pub async fn ask(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        self.ask_with(&self.token, method, path, body).await
    }

    async fn ask_with(&self, token: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
        let url = format!("{}{path}", self.domain);
        let mut request = self
            .rig
            .http
            .request(method.parse().unwrap(), url)
            .bearer_auth(token);
        if !body.is_null() {
            request = request.json(&body);
        }
        told(in_time(request.send()).await.unwrap()).await
    }
}

#[tokio::test]
async fn a_sandbox_is_made_listed_suspended_resumed_and_deleted() {
    let rig = Rig::new().await;
    let plane = rig.iris("ci-box").await;
    let id = json!({ "sandbox_id": plane.id });
    let (_, got) = rig.call("GetSandbox", id.clone()).await;
    assert_eq!(got["sandbox"]["name"], "ci-box");
    assert_eq!(got["sandbox"]["state"], "running");
    assert_eq!(
        plane.ask("GET", "/v1/services", Value::Null).await,
        (200, json!([]))
    );
    let (_, suspended) = rig.call("SuspendSandbox", id.clone()).await;
    assert_eq!(suspended["sandbox"]["state"], "suspended");
    assert_eq!(plane.ask("GET", "/v1/services", Value::Null).await.0, 503);
    let (_, resumed) = rig.call("ResumeSandbox", id.clone()).await;
    assert_eq!(resumed["sandbox"]["state"], "running");
    let (_, listed) = rig.call("ListSandboxes", json!({})).await;
    assert_eq!(
        listed,
        json!({ "sandboxes": [resumed["sandbox"]], "next_page_token": "" })
    );
    assert_eq!(
        rig.call("DeleteSandbox", id.clone()).await,
        (200, json!({}))
    );
    let (status, gone) = rig.call("DeleteSandbox", id).await;
    assert_eq!((status, &gone["code"]), (404, &json!("not_found")));
    assert_eq!(plane.ask("GET", "/v1/services", Value::Null).await.0, 404);
}

#[tokio::test]
async fn both_ways_of_writing_are_understood_and_mirrored() {
    let rig = Rig::new().await;
    let plane = rig.iris("one").await;
    let (status, token) = rig
        .call("IssueDataPlaneToken", json!({ "sandboxId": plane.id }))
        .await;
    assert_eq!(status, 200);
    assert!(token["dataPlaneToken"].is_string());
    let expires: i64 = token["dataPlaneTokenExpiresAtUnix"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(expires > jiff::Timestamp::now().as_second() + 3000);
    let (_, token) = rig
        .call("IssueDataPlaneToken", json!({ "sandbox_id": plane.id }))
        .await;
    assert!(token["data_plane_token_expires_at_unix"].is_i64());
}

#[tokio::test]
async fn names_are_labels_and_lists_have_pages() {
    let rig = Rig::new().await;
    for name in ["same", "same", ""] {
        rig.iris(name).await;
    }
    let mut names = Vec::new();
    let mut token = json!("");
    loop {
        let message = json!({ "page_size": "2", "page_token": token });
        let (_, page) = rig.call("ListSandboxes", message).await;
        let sandboxes = page["sandboxes"].as_array().unwrap();
        names.extend(
            sandboxes
                .iter()
                .map(|it| it["name"].as_str().unwrap().to_owned()),
        );
        token = page["next_page_token"].clone();
        if token == "" {
            break;
        }
    }
    assert_eq!(names.len(), 3);
    assert_eq!(names.iter().filter(|name| *name == "same").count(), 2);
}

#[tokio::test]
async fn the_gateway_refuses_in_the_words_of_connect() {
    let rig = Rig::new().await;
    for (method, message, status, code) in [
        (
            "GetSandbox",
            json!({ "sandbox_id": "sb_none" }),
            404,
            "not_found",
        ),
        ("GetSandbox", json!({}), 400, "invalid_argument"),
        (
            "CreateSandbox",
            json!({ "name": 3 }),
            400,
            "invalid_argument",
        ),
        ("Explode", json!({}), 501, "unimplemented"),
    ] {
        let (told, body) = rig.call(method, message).await;
        assert_eq!((told, &body["code"]), (status, &json!(code)), "{method}");
        assert!(body["message"].is_string());
    }
    let url = format!("{}/iris.v1.SandboxService/ListSandboxes", rig.url);
    let (status, body) = told(rig.http.post(url).json(&json!({})).send().await.unwrap()).await;
    assert_eq!((status, &body["code"]), (401, &json!("unauthenticated")));
}

#[tokio::test]
async fn the_data_plane_takes_its_own_tokens_only() {
    let rig = Rig::new().await;
    let (one, other) = (rig.iris("one").await, rig.iris("other").await);
    let ask = |token: String| {
        let one = &one;
        async move {
            one.ask_with(&token, "GET", "/v1/services", Value::Null)
                .await
                .0
        }
    };
    assert_eq!(ask(one.token.clone()).await, 200);
    assert_eq!(ask(other.token.clone()).await, 403);
    // The gateway's token is not the data plane's.
    assert_eq!(ask(ALICE.to_owned()).await, 401);
    assert_eq!(ask("x".to_owned()).await, 401);
    // What is the supervisor's own business is not there.
    for path in ["/v1/shutdown", "/v1/upgrade", "/v2/services", "/"] {
        assert_eq!(one.ask("POST", path, json!({})).await.0, 404, "{path}");
    }
    let url = format!("{}/v1/health", one.domain);
    assert_eq!(
        told(rig.http.get(url).send().await.unwrap()).await,
        (200, json!({ "ok": true }))
    );
}

#[tokio::test]
async fn a_token_ends_with_its_time() {
    let mut rig = Rig::new().await;
    rig.pass_lifetime = std::time::Duration::ZERO;
    rig.restart().await;
    let plane = rig.iris("one").await;
    let (status, body) = plane.ask("GET", "/v1/services", Value::Null).await;
    assert_eq!((status, &body["code"]), (401, &json!("unauthorized")));
}

#[tokio::test]
async fn the_data_plane_is_all_of_the_supervisors_api() {
    let rig = Rig::new().await;
    let plane = rig.iris("box").await;
    let body = json!({ "cmd": "/bin/sh", "args": ["-c", "echo hi; exec sleep 1000"] });
    let (status, put) = plane.ask("PUT", "/v1/services/web", body).await;
    assert_eq!((status, &put["status"]), (200, &json!("stopped")));
    let (_, started) = plane
        .ask("POST", "/v1/services/web/start", Value::Null)
        .await;
    assert_eq!(started["status"], "running");
    let exec = json!({ "cmd": ["sh", "-c", "echo $A; exit 3"], "env": { "A": "1" } });
    let (status, ran) = plane.ask("POST", "/v1/exec", exec).await;
    assert_eq!(
        (status, &ran["stdout"], &ran["exit_code"]),
        (200, &json!("1\n"), &json!(3))
    );
    let url = format!("{}/v1/files?path=/tmp/x%20y", plane.domain);
    let request = rig
        .http
        .post(url)
        .bearer_auth(&plane.token)
        .header("x-file-mode", "755");
    assert_eq!(
        told(request.body("bytes").send().await.unwrap()).await.0,
        200
    );
    let (_, stat) = plane
        .ask("GET", "/v1/files/stat?path=/tmp/x%20y", Value::Null)
        .await;
    assert_eq!((&stat["size"], &stat["mode"]), (&json!(5), &json!("0755")));
    let marker = json!({ "value": { "owner": "shop" } });
    assert_eq!(
        plane
            .ask("PUT", "/v1/store/reconciler%2Fmanaged", marker)
            .await
            .0,
        200
    );
    let (_, kept) = plane
        .ask("GET", "/v1/store/reconciler%2Fmanaged", Value::Null)
        .await;
    assert_eq!(kept["value"], json!({ "owner": "shop" }));
    let (_, deleted) = plane.ask("DELETE", "/v1/services/web", Value::Null).await;
    assert_eq!(deleted, json!({ "deleted": true, "ok": true }));
    assert_eq!(
        plane.ask("DELETE", "/v1/services/web", Value::Null).await.0,
        404
    );
}

#[tokio::test]
async fn a_fork_has_the_files_and_definitions_of_its_source() {
    let rig = Rig::new().await;
    let source = rig.iris("source").await;
    let body = json!({ "cmd": "/bin/sh", "args": ["-c", "exec sleep 1000"] });
    source.ask("PUT", "/v1/services/web", body).await;
    source
        .ask("POST", "/v1/services/web/start", Value::Null)
        .await;
    let write = json!({ "cmd": "echo kept > file" });
    assert_eq!(source.ask("POST", "/v1/exec", write).await.1["ok"], true);
    let message = json!({ "sandbox_id": source.id, "name": "fork" });
    let (status, made) = rig.call("ForkSandbox", message).await;
    assert_eq!((status, &made["sandbox"]["name"]), (200, &json!("fork")));
    let fork = rig.plane(&made);
    assert_ne!(fork.id, source.id);
    let (_, ran) = fork
        .ask("POST", "/v1/exec", json!({ "cmd": "cat file" }))
        .await;
    assert_eq!(ran["stdout"], "kept\n");
    let (_, services) = fork.ask("GET", "/v1/services", Value::Null).await;
    assert_eq!(
        (&services[0]["name"], &services[0]["status"]),
        (&json!("web"), &json!("running"))
    );
    let (_, service) = source.ask("GET", "/v1/services/web", Value::Null).await;
    assert_eq!(service["status"], "running");
}
