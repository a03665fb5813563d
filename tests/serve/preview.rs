//! The URLs of services.

use serde_json::{Value, json};

use crate::rig::{BOB, Rig, in_time};

/// A server that tells what it is asked, as a definition with its port.
fn server(port: u16) -> Value {
    let program = "
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get('content-length', 0)))
        said = f\"{self.path} {self.headers.get('authorization')} {body.decode()}\".encode()
        self.send_response(201)
        self.send_header('content-length', str(len(said)))
        self.end_headers()
        self.wfile.write(said)
server = http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Handler)
print('listens', flush=True)
server.serve_forever()
";
    json!({ "cmd": "python3", "args": ["-c", program, port.to_string()], "http_port": port })
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test]
async fn the_url_of_a_sprite_leads_to_its_http_service() {
    let rig = Rig::new().await;
    let made = rig.sprite("box").await;
    let url = made["url"].as_str().unwrap();
    let ask = |token: Option<&str>| {
        let mut request = rig.http.post(format!("{url}/a%20b?c=d")).body("hey");
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        async move {
            let answer = in_time(request.send()).await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        }
    };
    let own = Some(crate::rig::ALICE);
    assert_eq!(ask(own).await.0, 502);
    let port = free_port();
    let path = "/v1/sprites/box/services/web?duration=30s";
    let mut stream = rig.stream("PUT", path, server(port)).await;
    while stream.next().await.unwrap()["data"] != "listens\n" {}
    assert_eq!(ask(own).await, (201, "/a%20b?c=d None hey".to_owned()));
    assert_eq!(ask(None).await.0, 401);
    assert_eq!(ask(Some(BOB)).await.0, 401);
    let public = json!({ "url_settings": { "auth": "public" } });
    assert_eq!(rig.ask("PUT", "/v1/sprites/box", public).await.0, 200);
    assert_eq!(ask(None).await.0, 201);
}

#[tokio::test]
async fn what_is_not_exposed_is_not_there() {
    let rig = Rig::new().await;
    let made = rig.sprite("box").await;
    let url = made["url"].as_str().unwrap();
    for url in [
        format!("{url}-22/"),
        format!("{url}-x"),
        format!("{}/preview/none", rig.url),
    ] {
        let answer = rig
            .http
            .get(&url)
            .bearer_auth(crate::rig::ALICE)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status().as_u16(), 404, "{url}");
    }
}
