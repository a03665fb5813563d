//! URLs that platforms tell, before they are put into command lines.

use crate::model::Url;

/// A URL as it may be put into a definition: nothing in it may mean something to a shell.
pub(super) fn checked(url: String) -> Url {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "-._~:/@%=+,?".contains(c);
    match url.starts_with("http") && url.chars().all(harmless) {
        true => Url::Known(url),
        false => Url::Unknown {
            reason: format!("`{}` is no plain URL", url.escape_debug()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_urls_are_put_into_command_lines() {
        let good = "https://a-1.example:8443/x?port=80";
        assert_eq!(checked(good.to_owned()), Url::Known(good.to_owned()));
        for bad in [
            "https://a/;id",
            "https://a/$(id)",
            "https://a/ b",
            "/etc",
            "",
        ] {
            let found = checked(bad.to_owned());
            assert!(matches!(found, Url::Unknown { .. }), "{bad}");
        }
    }
}
