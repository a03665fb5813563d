//! Sealing values for the server (protocol page pocketenv, §7): libsodium's sealed boxes, in base64url.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use crypto_box::PublicKey;
use crypto_box::aead::OsRng;
use secrecy::{ExposeSecret, SecretString};

/// The hosted server's key.
pub(super) const DEFAULT: &str = "2bf96e12d109e6948046a7803ef1696e12c11f04f20a6ce64dbd4bcd93db9341";

/// Whom values are sealed for.
#[derive(Debug, Clone)]
pub(super) struct Seal(PublicKey);

impl Seal {
    /// For the key with these 64 hexadecimal digits.
    pub fn new(hex: &str) -> Option<Self> {
        let digits = hex.trim();
        if digits.len() != 64 || !digits.is_ascii() {
            return None;
        }
        let mut key = [0; 32];
        for (at, byte) in key.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).ok()?;
        }
        Some(Self(PublicKey::from(key)))
    }

    /// Another text each time, which only the server can open.
    pub fn seal(&self, value: &SecretString) -> Option<String> {
        let sealed = self.0.seal(&mut OsRng, value.expose_secret().as_bytes());
        Some(URL_SAFE_NO_PAD.encode(sealed.ok()?))
    }
}

/// What is shown of a sealed value: its ends, if it is long enough for that.
pub(super) fn redacted(value: &SecretString) -> String {
    let signs: Vec<char> = value.expose_secret().chars().collect();
    let stars = |count: usize| "*".repeat(count);
    if signs.len() <= 14 {
        return stars(signs.len());
    }
    let (head, tail) = (&signs[..11], &signs[signs.len() - 3..]);
    let head: String = head.iter().collect();
    let tail: String = tail.iter().collect();
    format!("{head}{}{tail}", stars(signs.len() - 14))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crypto_box::SecretKey;

    #[test]
    fn only_the_server_opens_what_is_sealed() {
        let key = SecretKey::generate(&mut OsRng);
        let hex: String = key
            .public_key()
            .to_bytes()
            .iter()
            .map(|it| format!("{it:02x}"))
            .collect();
        let seal = Seal::new(&hex).unwrap();
        let value = SecretString::from("hush");
        let (one, other) = (seal.seal(&value).unwrap(), seal.seal(&value).unwrap());
        assert_ne!(one, other);
        for text in [one, other] {
            let bytes = URL_SAFE_NO_PAD.decode(text).unwrap();
            assert_eq!(key.unseal(&bytes).unwrap(), b"hush");
        }
        assert!(Seal::new(DEFAULT).is_some());
        for wrong in ["", "2bf9", &"x".repeat(64)] {
            assert!(Seal::new(wrong).is_none());
        }
    }

    #[test]
    fn only_the_ends_of_long_values_are_shown() {
        let shown = |text: &str| redacted(&SecretString::from(text));
        assert_eq!(shown("short"), "*****");
        assert_eq!(shown("abcdefghijklmnop"), "abcdefghijk**nop");
    }
}
