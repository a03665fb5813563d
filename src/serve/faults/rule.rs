//! Which requests go wrong, and how.

use std::fmt;
use std::str::FromStr;

use axum::http::StatusCode;

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The connection is closed without an answer.
    Lost(When),
    /// It is answered with this status, and `Retry-After` in seconds.
    Status(When, u16, Option<u32>),
    /// It is done, and the connection is closed in the middle of the answer.
    Truncated,
}

/// Whether the request has its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// It is not done.
    Before,
    /// It is done.
    After,
}

impl Fault {
    /// One of each kind, with usual statuses.
    pub const KINDS: [Self; 8] = [
        Self::Lost(When::Before),
        Self::Status(When::Before, 429, Some(0)),
        Self::Status(When::Before, 500, None),
        Self::Status(When::Before, 503, None),
        Self::Lost(When::After),
        Self::Status(When::After, 500, None),
        Self::Status(When::After, 503, None),
        Self::Truncated,
    ];

    /// Whether the request has its effect all the same.
    pub fn when(self) -> When {
        match self {
            Self::Lost(when) | Self::Status(when, ..) => when,
            Self::Truncated => When::After,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = match self.when() {
            When::Before => "before",
            When::After => "after",
        };
        match self {
            Self::Lost(_) => write!(f, "{when}=lost"),
            Self::Status(_, status, None) => write!(f, "{when}={status}"),
            Self::Status(_, status, Some(wait)) => write!(f, "{when}={status}/{wait}"),
            Self::Truncated => write!(f, "{when}=truncated"),
        }
    }
}

/// A text that is not a [`Rule`] or a [`Fault`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a fault: write METHOD PATH:WHEN=WHAT[@WHICH], as PUT /v1/sprites/*/services/*:after=lost@3"
)]
pub struct RuleError(String);

impl FromStr for Fault {
    type Err = RuleError;

    /// `before=lost`, `before=429/2`, `after=500`, `after=truncated`.
    fn from_str(text: &str) -> Result<Self, RuleError> {
        let wrong = || RuleError(text.to_owned());
        let (when, what) = text.split_once('=').ok_or_else(wrong)?;
        let when = match when {
            "before" => When::Before,
            "after" => When::After,
            _ => return Err(wrong()),
        };
        if what == "lost" {
            return Ok(Self::Lost(when));
        }
        if what == "truncated" {
            return (when == When::After)
                .then_some(Self::Truncated)
                .ok_or_else(wrong);
        }
        let (status, wait) = match what.split_once('/') {
            Some((status, wait)) => (status, Some(wait.parse().map_err(|_| wrong())?)),
            None => (what, None),
        };
        let status = status.parse().map_err(|_| wrong())?;
        match StatusCode::from_u16(status) {
            Ok(known) if known.is_client_error() || known.is_server_error() => {
                Ok(Self::Status(when, status, wait))
            }
            _ => Err(wrong()),
        }
    }
}

/// A fault and the requests that it happens to: `PUT /v1/sprites/*/services/*:after=lost@3`.
///
/// `*` as the method is any; in a path it stands for what has no slash, `**` for anything. `@3` is the
/// third request that fits, `@3-5` some of them, `@3-` all from there on; without it, it is every one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    method: String,
    path: String,
    fault: Fault,
    first: u64,
    last: u64,
    /// How many requests have fitted so far.
    fitted: u64,
}

impl Rule {
    /// The fault of this request, if it is one of the rule's. Counts it if it fits.
    pub(super) fn meets(&mut self, method: &str, path: &str) -> Option<Fault> {
        let fits = (self.method == "*" || self.method == method)
            && matches(self.path.as_bytes(), path.as_bytes());
        if !fits {
            return None;
        }
        self.fitted += 1;
        (self.first..=self.last)
            .contains(&self.fitted)
            .then_some(self.fault)
    }
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let wrong = || RuleError(text.to_owned());
        let (method, rest) = text.split_once(' ').ok_or_else(wrong)?;
        // A path may have colons of its own.
        let (path, what) = rest.rsplit_once(':').ok_or_else(wrong)?;
        let (fault, which) = match what.split_once('@') {
            Some((fault, which)) => (fault, Some(which)),
            None => (what, None),
        };
        let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
        let (first, last) = match which {
            None => (1, u64::MAX),
            Some(which) => match which.split_once('-') {
                None => (number(which)?, number(which)?),
                Some((first, "")) => (number(first)?, u64::MAX),
                Some((first, last)) => (number(first)?, number(last)?),
            },
        };
        if method.is_empty() || !path.starts_with(['/', '*']) || first == 0 || last < first {
            return Err(wrong());
        }
        Ok(Self {
            method: method.to_owned(),
            path: path.to_owned(),
            fault: fault.parse().map_err(|_| wrong())?,
            first,
            last,
            fitted: 0,
        })
    }
}

/// Whether a path fits a pattern.
fn matches(pattern: &[u8], path: &[u8]) -> bool {
    match pattern {
        [] => path.is_empty(),
        [b'*', b'*', rest @ ..] => (0..=path.len()).any(|skip| matches(rest, &path[skip..])),
        [b'*', rest @ ..] => {
            let end = path
                .iter()
                .position(|sign| *sign == b'/')
                .unwrap_or(path.len());
            (0..=end).any(|skip| matches(rest, &path[skip..]))
        }
        [sign, rest @ ..] => path.first() == Some(sign) && matches(rest, &path[1..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_meet_what_they_say() {
        let cases = [
            ("PUT /a/*/b:after=lost", "PUT", "/a/x/b", true),
            ("PUT /a/*/b:after=lost", "POST", "/a/x/b", false),
            ("PUT /a/*/b:after=lost", "PUT", "/a/x/y/b", false),
            ("* /a/**:before=503", "GET", "/a/x/y", true),
            ("* **:before=lost", "GET", "/", true),
            ("GET /a:before=429/2", "GET", "/a/", false),
            ("POST /x:y/*:after=truncated", "POST", "/x:y/z", true),
        ];
        for (rule, method, path, met) in cases {
            let mut rule: Rule = rule.parse().unwrap();
            assert_eq!(rule.meets(method, path).is_some(), met, "{rule:?}");
        }
    }

    #[test]
    fn rules_count_what_fits() {
        for (which, met) in [
            ("", "1111"),
            ("@2", "0100"),
            ("@2-3", "0110"),
            ("@3-", "0011"),
        ] {
            let mut rule: Rule = format!("GET /a:before=500{which}").parse().unwrap();
            let mut seen = String::new();
            for _ in 0..4 {
                assert_eq!(rule.meets("GET", "/b"), None);
                seen.push(if rule.meets("GET", "/a").is_some() {
                    '1'
                } else {
                    '0'
                });
            }
            assert_eq!(seen, met, "{which}");
        }
    }

    #[test]
    fn faults_are_written_as_they_are_read() {
        for fault in Fault::KINDS {
            assert_eq!(fault.to_string().parse(), Ok(fault));
        }
    }

    #[test]
    fn what_is_not_a_rule_is_refused() {
        for text in [
            "",
            "GET /a",
            "GET /a:lost",
            "GET /a:before=truncated",
            "GET /a:before=200",
            "GET /a:after=429/x",
            "GET /a:after=lost@0",
            "GET /a:after=lost@3-2",
            "GET a:after=lost",
            "/a:after=lost",
        ] {
            assert!(text.parse::<Rule>().is_err(), "{text}");
        }
    }
}
