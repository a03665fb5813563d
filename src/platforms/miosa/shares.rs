//! Links that let others in (§4).

use std::time::Duration;

use secrecy::SecretString;
use serde_json::{Value, json};

use super::Miosa;
use super::wire::Shared;
use crate::model::SandboxName;
use crate::platforms::{Link, LinkId, LinkTo, PlatformError, Result};

/// All that a link is to let anybody do.
const SCOPE: &str = "read";

impl Miosa {
    pub(super) async fn list_links(&self, sandbox: &SandboxName) -> Result<Vec<Link>> {
        let known = self.get(sandbox).await?;
        let shares = self.api.shares(&known.id).await?;
        Ok(shares.into_iter().map(shown).collect())
    }

    pub(super) async fn make_link(
        &self,
        sandbox: &SandboxName,
        to: LinkTo,
        time: Option<Duration>,
    ) -> Result<(Link, SecretString)> {
        let known = self.get(sandbox).await?;
        let time = time.map(|time| time.as_secs().max(1));
        let mut made = match to {
            LinkTo::Sandbox | LinkTo::Passing => {
                let kind = match to {
                    LinkTo::Passing => "preview-token",
                    _ => "shares",
                };
                let body = body(json!({ "scope": SCOPE }), "expires_in", time);
                self.api.share(&known.id, &[kind], &body).await?
            }
            LinkTo::Port(port) => {
                let preview = self.preview(sandbox, &known.id, port).await?;
                let body = body(json!({}), "ttl_seconds", time);
                let path = ["previews", preview.as_str(), "share"];
                self.api.share(&known.id, &path, &body).await?
            }
        };
        let url = made.url.take();
        let url = url.ok_or_else(|| PlatformError::new("a link was made, but not told"))?;
        let mut link = shown(made);
        if to != LinkTo::Sandbox {
            link.id = None;
        }
        Ok((link, url))
    }

    pub(super) async fn take_link(&self, sandbox: &SandboxName, link: &LinkId) -> Result<()> {
        let known = self.get(sandbox).await?;
        let done = match link {
            LinkId::Listed(share) => self.api.unshare(&known.id, &["shares", share]).await,
            LinkId::Port(port) => {
                let preview = self.preview(sandbox, &known.id, *port).await?;
                let path = ["previews", preview.as_str(), "share"];
                self.api.unshare(&known.id, &path).await
            }
        };
        Ok(done?)
    }

    /// The preview of a port.
    async fn preview(&self, sandbox: &SandboxName, id: &str, port: u16) -> Result<String> {
        let previews = self.api.previews(id).await?.into_iter();
        let mut of_it = previews.filter(|(_, of, _)| *of == port);
        let found = of_it.next().map(|(preview, ..)| preview);
        found.ok_or_else(|| {
            PlatformError::new(format!("port {port} of `{sandbox}` is not exposed"))
                .hint(format!("gabion expose {sandbox} {port}"))
        })
    }
}

fn body(mut body: Value, key: &str, seconds: Option<u64>) -> Value {
    if let Some(seconds) = seconds {
        body[key] = seconds.into();
    }
    body
}

fn shown(shared: Shared) -> Link {
    Link {
        id: shared.id,
        scope: shared.scope,
        expires_at: shared.expires_at,
    }
}
