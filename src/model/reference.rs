//! The URLs that definitions name, before and after their platforms have told them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Program, ServiceAddress, ServiceSpec};

/// Where a port of a service is reached, which only its platform can tell.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Reference {
    /// The service that is reached.
    pub service: ServiceAddress,
    /// The port inside its sandbox.
    pub port: u16,
}

/// What a platform says of a [`Reference`]. Unknown is never absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Url {
    /// It is reached here.
    Known(String),
    /// It could not be asked.
    Unknown {
        /// Why, in words for people.
        reason: String,
    },
}

impl ServiceSpec {
    /// The definition with the URLs that `known` gives in place of their references.
    pub fn resolved(&self, known: impl Fn(&Reference) -> Option<String>) -> Self {
        let mut urls = BTreeMap::new();
        let mut spec = self.clone();
        spec.references.retain(|written, reference| {
            let url = known(reference);
            let is_known = url.is_some();
            urls.extend(url.map(|url| (written.clone(), url)));
            !is_known
        });
        if urls.is_empty() {
            return spec;
        }
        spec.env
            .values_mut()
            .for_each(|text| *text = put_in(text, &urls));
        spec.program = match spec.program {
            Program::Shell { command } => Program::Shell {
                command: put_in(&command, &urls),
            },
            Program::Exec { cmd, args } => Program::Exec {
                cmd,
                args: args.iter().map(|text| put_in(text, &urls)).collect(),
            },
        };
        spec
    }
}

/// `text` with every `${name}` replaced that has a value; what is put in is not read again.
fn put_in(text: &str, values: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let (before, after) = (&rest[..start], &rest[start + 2..]);
        out.push_str(before);
        let named = after.split_once('}');
        match named.and_then(|(name, tail)| Some((values.get(name)?, tail))) {
            Some((value, tail)) => {
                out.push_str(value);
                rest = tail;
            }
            None => {
                out.push_str("${");
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_is_put_in_and_only_once() {
        let command = "a ${services.w/a.url}/x ${services.w/b.url} ${HOME}${".to_owned();
        let mut spec = ServiceSpec::new(Program::Shell { command });
        spec.env
            .insert("A".into(), "<${services.w/a.url}>${secret.s}".into());
        for name in ["a", "b"] {
            let service = format!("w/{name}").parse().unwrap();
            let reference = Reference { service, port: 1 };
            let written = format!("services.w/{name}.url");
            spec.references.insert(written, reference);
        }
        let url = "http://h/${services.w/b.url}";
        let known = |it: &Reference| (it.service.service.as_str() == "a").then(|| url.to_owned());
        let resolved = spec.resolved(known);
        let command = format!("a {url}/x ${{services.w/b.url}} ${{HOME}}${{");
        assert_eq!(resolved.program, Program::Shell { command });
        assert_eq!(resolved.env["A"], format!("<{url}>${{secret.s}}"));
        let left: Vec<_> = resolved.references.keys().collect();
        assert_eq!(left, ["services.w/b.url"]);
        assert_eq!(spec.resolved(|_| None), spec);
    }
}
