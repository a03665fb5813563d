//! What `${…}` in a text asks for.

use super::references::Wanted;

/// What to do where a variable is not set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Or<'t> {
    /// `${env.X}`: it is an error.
    Fail,
    /// `${env.X:-text}`
    Default(&'t str),
    /// `${env.X:?text}`: it is an error with these words.
    Message(&'t str),
}

/// What is asked for.
#[derive(Debug, PartialEq)]
pub(super) enum Placeholder<'t> {
    /// A variable of the caller's environment.
    Env(&'t str, Or<'t>),
    /// A variable of the manifest.
    Var(&'t str),
    /// A secret.
    Secret(&'t str),
    /// Where a service is reached.
    Reached(Wanted<'t>),
}

/// The placeholder that `text` (at `${`) begins with and its length in bytes. `None`: somebody
/// else's `${`. An error says why something that looks like ours is not, and how long it is.
pub(super) fn placeholder(
    text: &str,
) -> Result<Option<(Placeholder<'_>, usize)>, (&'static str, usize)> {
    let scopes = [
        "${env.",
        "${var.",
        "${secret.",
        "${services.",
        "${sandboxes.",
    ];
    let Some(scope) = scopes.into_iter().find(|scope| text.starts_with(scope)) else {
        return Ok(None);
    };
    let rest = &text[scope.len()..];
    let Some(closing) = closing(rest) else {
        return Err(("it has no closing brace", text.len()));
    };
    let length = scope.len() + closing + 1;
    let body = &rest[..closing];
    if scope == "${services." || scope == "${sandboxes." {
        let wanted = Wanted::parse(scope == "${sandboxes.", body).map_err(|why| (why, length))?;
        return Ok(Some((Placeholder::Reached(wanted), length)));
    }
    let env = scope == "${env.";
    let end = body
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || (!env && c == '-')))
        .unwrap_or(body.len());
    let (name, tail) = body.split_at(end);
    if name.is_empty() || (env && name.as_bytes()[0].is_ascii_digit()) {
        return Err(("it has no name", length));
    }
    let found = match (scope, tail) {
        ("${env.", "") => Placeholder::Env(name, Or::Fail),
        ("${var.", "") => Placeholder::Var(name),
        ("${secret.", "") => Placeholder::Secret(name),
        ("${env.", tail) => match (tail.strip_prefix(":-"), tail.strip_prefix(":?")) {
            (Some(default), _) => Placeholder::Env(name, Or::Default(default)),
            (_, Some(message)) => Placeholder::Env(name, Or::Message(message)),
            _ => {
                return Err((
                    "after the name come `:-default`, `:?message` or `}`",
                    length,
                ));
            }
        },
        _ => return Err(("only `env` takes a default or a message", length)),
    };
    Ok(Some((found, length)))
}

/// Where the brace closes, braces within counted.
fn closing(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => open += 1,
            b'}' if open == 0 => return Some(at),
            b'}' => open -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{Or, Placeholder, Wanted, placeholder};

    #[test]
    fn only_our_forms_are_ours() {
        let ours = |text| placeholder(text).unwrap().map(|(found, _)| found);
        assert_eq!(ours("${env.A}x"), Some(Placeholder::Env("A", Or::Fail)));
        assert_eq!(
            ours("${env.A:-}"),
            Some(Placeholder::Env("A", Or::Default("")))
        );
        assert_eq!(
            ours("${env.A:-${env.B:-c}}d"),
            Some(Placeholder::Env("A", Or::Default("${env.B:-c}")))
        );
        assert_eq!(
            ours("${env.A:?why not}"),
            Some(Placeholder::Env("A", Or::Message("why not")))
        );
        assert_eq!(ours("${var.a-b}"), Some(Placeholder::Var("a-b")));
        assert_eq!(ours("${secret.s}"), Some(Placeholder::Secret("s")));
        for (text, wanted) in [
            ("${services.a/b.port}", Wanted::Port("a/b")),
            ("${services.a/b.url}/x", Wanted::Url("a/b")),
            ("${sandboxes.a.url}", Wanted::SandboxUrl("a")),
        ] {
            assert_eq!(ours(text), Some(Placeholder::Reached(wanted)));
        }
        for other in ["${A}", "${A:-b}", "${envy.A}", "${", "${#x}", "${x.y}"] {
            assert_eq!(placeholder(other), Ok(None), "{other}");
        }
        for slip in [
            "${env.A",
            "${env.}",
            "${var.a:-b}",
            "${env.A+1}",
            "${env.1}",
            "${services.a.port}",
            "${services.a/b.host}",
            "${sandboxes.a/b.url}",
        ] {
            assert!(placeholder(slip).is_err(), "{slip}");
        }
    }
}
