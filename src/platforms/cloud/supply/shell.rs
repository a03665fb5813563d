//! Texts for `/bin/sh`.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};

/// One word that means just this text.
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A command of these words.
pub fn command(argv: &[String]) -> String {
    let words: Vec<_> = argv.iter().map(|word| quote(word)).collect();
    words.join(" ")
}

/// Lines that set environment variables.
pub fn exports(env: &BTreeMap<String, SecretString>) -> String {
    let line = |(name, value): (&String, &SecretString)| {
        format!("export {name}={}\n", quote(value.expose_secret()))
    };
    // What is no name for a shell cannot be set by one.
    let named = env.iter().filter(|(name, _)| is_name(name));
    named.map(line).collect()
}

fn is_name(name: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.bytes().all(word) && !name.starts_with(|first: char| first.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_what_they_were() {
        let words = ["", "a b", "it's", "$X `y` \"z\" \\", "new\nline", "*"].map(str::to_owned);
        let script = format!(
            "for w in {}; do printf '<%s>' \"$w\"; done",
            command(&words)
        );
        let ran = std::process::Command::new("sh")
            .arg("-c")
            .arg(script)
            .output();
        let said = String::from_utf8(ran.unwrap().stdout).unwrap();
        assert_eq!(said, words.map(|word| format!("<{word}>")).concat());
    }

    #[test]
    fn variables_are_set_or_left_out() {
        let env = [("A", "1 'x'"), ("a.b", "no"), ("B", "$A")];
        let env = env.map(|(name, value)| (name.to_owned(), SecretString::from(value)));
        let text = exports(&env.into());
        assert_eq!(text, "export A='1 '\\''x'\\'''\nexport B='$A'\n");
    }
}
