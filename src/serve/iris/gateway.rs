//! The gateway: protocol page iris, §2.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::connect::{Message, Problem};
use super::domain;
use crate::serve::auth;
use crate::serve::engine::{Account, Engine, Record, Sandbox, Wish};

type Result<T, E = Problem> = std::result::Result<T, E>;

/// One call: who asks, and for what.
struct Call {
    engine: Engine,
    account: Arc<Account>,
    message: Message,
}

pub(super) async fn call(
    State(engine): State<Engine>,
    Path(method): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response> {
    let account = auth::account(&engine, &headers);
    let account = account
        .ok_or_else(|| Problem::new("unauthenticated", "the token is missing or another one"))?;
    let call = Call {
        engine,
        account,
        message: Message::read(&body)?,
    };
    let answer = match method.as_str() {
        "CreateSandbox" => call.create().await?,
        "ForkSandbox" => call.fork().await?,
        "IssueDataPlaneToken" => call.token(call.sandbox()?)?,
        "ListSandboxes" => call.list()?,
        "GetSandbox" => json!({ "sandbox": call.object(&*call.sandbox()?) }),
        "SuspendSandbox" => {
            let sandbox = call.sandbox()?;
            sandbox.stop().await?;
            json!({ "sandbox": call.object(&sandbox) })
        }
        "ResumeSandbox" => {
            let sandbox = call.sandbox()?;
            sandbox.start().await?;
            json!({ "sandbox": call.object(&sandbox) })
        }
        "DeleteSandbox" => {
            call.account.delete(&*call.sandbox()?).await?;
            json!({})
        }
        _ => {
            let text = format!("there is no method {method}");
            return Err(Problem::new("unimplemented", text));
        }
    };
    Ok(call.message.answer(answer))
}

impl Call {
    fn sandbox(&self) -> Result<Arc<Sandbox>> {
        let id = self.message.text("sandbox_id")?;
        let id = id.ok_or_else(|| Problem::invalid("`sandbox_id` is required"))?;
        Ok(self.account.by_id(id)?)
    }

    fn object(&self, sandbox: &Sandbox) -> Value {
        json!({
            "id": sandbox.id(),
            "name": sandbox.record().name,
            "domain": domain(&self.engine, sandbox),
            "state": if sandbox.is_up() { "running" } else { "suspended" },
        })
    }

    /// What is asked for. Names are labels: none is required, and none is another's.
    fn wish(&self) -> Result<Wish> {
        Ok(Wish {
            record: Record::new(self.message.text("name")?.unwrap_or_default()),
            unique_name: false,
            ..Wish::named("")
        })
    }

    async fn create(&self) -> Result<Value> {
        let sandbox = self.account.create(self.wish()?).await?;
        self.with_token(sandbox)
    }

    async fn fork(&self) -> Result<Value> {
        let source = self.sandbox()?;
        let fork = self.account.fork(&source, None, self.wish()?).await?;
        self.with_token(fork)
    }

    fn token(&self, sandbox: Arc<Sandbox>) -> Result<Value> {
        let pass = self.engine.issue_pass(sandbox)?;
        Ok(json!({
            "data_plane_token": pass.token.expose_secret(),
            "data_plane_token_expires_at_unix": pass.expires_at.as_second(),
        }))
    }

    fn with_token(&self, sandbox: Arc<Sandbox>) -> Result<Value> {
        let object = self.object(&sandbox);
        let mut answer = self.token(sandbox)?;
        answer["sandbox"] = object;
        Ok(answer)
    }

    fn list(&self) -> Result<Value> {
        let size = self.message.number("page_size")?.filter(|size| *size > 0);
        let size = size.map_or(usize::MAX, |size| {
            usize::try_from(size).unwrap_or(usize::MAX)
        });
        let after = self.message.text("page_token")?.unwrap_or_default();
        let mut all = self.account.sandboxes();
        all.sort_by(|one, other| one.id().cmp(other.id()));
        all.retain(|sandbox| sandbox.id().as_str() > after);
        let more = all.len() > size;
        all.truncate(size);
        let next = all
            .last()
            .filter(|_| more)
            .map(|sandbox| sandbox.id().as_str());
        let shown: Vec<_> = all.iter().map(|sandbox| self.object(sandbox)).collect();
        Ok(json!({ "sandboxes": shown, "next_page_token": next.unwrap_or_default() }))
    }
}
