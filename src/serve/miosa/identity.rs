//! The UUID that stands for a sandbox's id: the same sixty-odd random bits, written otherwise.

use crate::model::SandboxName;

const SIGNS: &[u8] = b"0123456789abcdefghijkmnpqrstvwxyz";
const PREFIX: &str = "sb_";
const LENGTH: usize = 12;

/// The UUID of a sandbox. An id that the engine has not made stands for itself.
pub(super) fn uuid(id: &SandboxName) -> String {
    number(id.as_str()).map_or_else(|| id.to_string(), written)
}

/// The id that a UUID stands for.
pub(super) fn id(uuid: &str) -> Option<String> {
    let hex: String = uuid.chars().filter(|sign| *sign != '-').collect();
    let bits = u128::from_str_radix(&hex, 16).ok()?;
    // What stands around the version and the variant.
    let (high, middle, low) = (bits >> 80, (bits >> 64) & 0xfff, (bits >> 56) & 0xf);
    let mut number = u64::try_from((high << 16) | (middle << 4) | low).ok()?;
    if written(number) != uuid {
        return None;
    }
    let base = SIGNS.len() as u64;
    let mut signs = vec!['0'; LENGTH];
    for sign in signs.iter_mut().rev() {
        *sign = char::from(SIGNS[usize::try_from(number % base).ok()?]);
        number /= base;
    }
    (number == 0).then(|| PREFIX.chars().chain(signs).collect())
}

fn number(id: &str) -> Option<u64> {
    let signs = id.strip_prefix(PREFIX)?;
    let base = SIGNS.len() as u64;
    let digit = |sign: u8| Some(SIGNS.iter().position(|it| *it == sign)? as u64);
    let folded = |number: u64, sign: u8| number.checked_mul(base)?.checked_add(digit(sign)?);
    (signs.len() == LENGTH)
        .then(|| signs.bytes().try_fold(0, folded))
        .flatten()
}

fn written(number: u64) -> String {
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:x}00-000000000000",
        number >> 32,
        (number >> 16) & 0xffff,
        (number >> 4) & 0xfff,
        number & 0xf
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_has_a_uuid_of_its_own() {
        for text in ["sb_000000000000", "sb_4k2m9x0qwe7r", "sb_zzzzzzzzzzzz"] {
            let uuid = uuid(&SandboxName::new(text).unwrap());
            assert_eq!(uuid.len(), 36, "{uuid}");
            assert_eq!(id(&uuid).as_deref(), Some(text));
        }
        let other = SandboxName::new("web").unwrap();
        assert_eq!(uuid(&other), "web");
        for wrong in ["", "web", "00000000-0000-0000-0000-000000000000", "0-0"] {
            assert_eq!(id(wrong), None);
        }
    }
}
