//! Where a platform is: its base URL, and whether a token may be sent there.

use std::net::IpAddr;
use std::path::PathBuf;

use reqwest::Url;

/// A base URL that a token may be sent to: `https://…`, `http://` on loopback, or `unix:///path`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BaseUrl {
    url: Url,
    socket: Option<PathBuf>,
}

/// Why a text is no base URL of a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BaseUrlError {
    /// It is no URL, or one of another kind.
    #[error("`{0}` is not a URL: write `https://…`, or `unix:///path` for a socket")]
    NotAUrl(String),
    /// The token could be read on the way.
    #[error("`{0}` is not safe for a token: only `https://` is, but on this machine itself")]
    NotSafe(String),
    /// It holds what belongs into `token`, or what no path can be added to.
    #[error("the URL `{0}` has more than scheme, host, port and path")]
    TooMuch(String),
}

impl BaseUrl {
    /// Reads a URL; slashes at its end mean nothing.
    pub fn parse(text: &str) -> Result<Self, BaseUrlError> {
        let shown = || shown(text);
        if let Some(path) = text.strip_prefix("unix://") {
            if !path.starts_with('/') {
                return Err(BaseUrlError::NotAUrl(shown()));
            }
            let url = Url::parse("http://localhost").map_err(|_| BaseUrlError::NotAUrl(shown()))?;
            let socket = Some(PathBuf::from(path));
            return Ok(Self { url, socket });
        }
        let mut url = Url::parse(text).map_err(|_| BaseUrlError::NotAUrl(shown()))?;
        match url.scheme() {
            "https" => {}
            "http" if is_loopback(&url) => {}
            "http" => return Err(BaseUrlError::NotSafe(shown())),
            _ => return Err(BaseUrlError::NotAUrl(shown())),
        }
        let more = url.query().is_some() || url.fragment().is_some();
        if more || !url.username().is_empty() || url.password().is_some() {
            return Err(BaseUrlError::TooMuch(shown()));
        }
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        Ok(Self { url, socket: None })
    }

    /// The URL of a path below, each segment percent-encoded.
    pub(super) fn join(&self, segments: &[&str]) -> Url {
        let mut url = self.url.clone();
        // Only URLs that cannot have a path refuse, and none of those is a `BaseUrl`.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    /// Whether the connection is encrypted.
    pub fn is_tls(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// The Unix socket, if it is one.
    pub fn socket(&self) -> Option<&PathBuf> {
        self.socket.as_ref()
    }
}

impl std::fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.socket {
            Some(path) => write!(f, "unix://{}", path.display()),
            None => f.write_str(self.url.as_str().trim_end_matches('/')),
        }
    }
}

/// The text without what may be a password.
fn shown(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((_, host)) => format!("…@{host}"),
        None => text.to_owned(),
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_go_only_where_nobody_else_can_read_them() {
        for (text, shown) in [
            ("https://api.example.org", "https://api.example.org"),
            ("https://api.example.org/v1//", "https://api.example.org/v1"),
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
            ("http://127.1.2.3", "http://127.1.2.3"),
            ("http://[::1]:80", "http://[::1]"),
            ("http://localhost:1/x", "http://localhost:1/x"),
            ("unix:///run/x.sock", "unix:///run/x.sock"),
        ] {
            assert_eq!(BaseUrl::parse(text).unwrap().to_string(), shown, "{text}");
        }
        for text in [
            "http://api.example.org",
            "http://10.0.0.1",
            "http://localhost.example.org",
            "http://127.0.0.1.example.org",
            "ftp://localhost",
            "api.example.org",
            "",
            "unix://relative",
            "https://me:pw@example.org",
            "https://example.org/?a=b",
            "https://example.org/#x",
        ] {
            let error = BaseUrl::parse(text).unwrap_err().to_string();
            assert!(!error.contains("pw"), "{error}");
        }
    }

    #[test]
    fn segments_cannot_leave_their_place() {
        let base = BaseUrl::parse("https://h/api").unwrap();
        let joined = base.join(&["v1", "a/b", "..", "c?d#e%", "é"]);
        assert_eq!(joined.path(), "/api/v1/a%2Fb/c%3Fd%23e%25/%C3%A9");
        let bare = BaseUrl::parse("https://h").unwrap();
        assert_eq!(bare.join(&["x"]).as_str(), "https://h/x");
    }
}
