//! Whether a platform was asked no more often than its protocol page allows.

use std::collections::BTreeMap;

use gabion::serve::faults::{Fault, Logged, When};

use super::Swept;

/// How often each request was made that writes, by `METHOD path`.
pub type Writes = BTreeMap<String, usize>;

impl Swept {
    /// Whether a request changes nothing, or is made again until something is so.
    fn is_question(&self, request: &Logged) -> bool {
        request.method == "GET" || (self.asks)(&request.method, &request.path)
    }

    /// The writes among requests. Stacks have names of their own.
    pub fn writes(&self, requests: &[Logged], stack: &str) -> Writes {
        let mut writes = Writes::new();
        for request in requests.iter().filter(|it| !self.is_question(it)) {
            let key = format!("{} {}", request.method, request.path);
            *writes.entry(anonymous(&key, stack)).or_default() += 1;
        }
        writes
    }

    /// What a client did that it must not, after one request that went wrong in a step in which nothing
    /// else happened at the same time: it asked again for what may not be repeated, without having looked.
    pub fn repeated_blindly(&self, requests: &[Logged], fault: Fault) -> Option<String> {
        let failed = requests.iter().position(|it| it.fault.is_some())?;
        let not_done = matches!(fault, Fault::Status(When::Before, 429, _));
        let it = &requests[failed];
        if not_done || self.is_question(it) || (self.repeats)(&it.method, &it.path, fault) {
            return None;
        }
        let next = requests.get(failed + 1)?;
        let again = next.method == it.method && next.path == it.path;
        again.then(|| format!("{} {}", it.method, it.path))
    }
}

/// Ids that a server gives differ from sandbox to sandbox.
fn anonymous(key: &str, stack: &str) -> String {
    let part = |part: &str| match is_id(part) {
        true => "ID".to_owned(),
        false => part.replace(stack, "STACK"),
    };
    key.split('/').map(part).collect::<Vec<_>>().join("/")
}

/// UUIDs, the sandboxes of iris, and the numbers of processes.
fn is_id(part: &str) -> bool {
    if part.starts_with("sb_") {
        return true;
    }
    let hex = part.len() >= 32 && part.bytes().all(|it| it == b'-' || it.is_ascii_hexdigit());
    hex || (!part.is_empty() && part.bytes().all(|it| it.is_ascii_digit()))
}
