//! Which gabion this is, and which of two is newer.

/// In one piece, so that it can be found in the program's file.
const MARKED: &str = concat!("gabion version ", env!("CARGO_PKG_VERSION"));

/// This program's version.
pub fn version() -> &'static str {
    let marked = std::hint::black_box(MARKED);
    marked.rsplit(' ').next().unwrap_or(marked)
}

/// Whether `this` is a later version than `other`. What cannot be compared is not.
pub fn is_newer(this: &str, other: &str) -> bool {
    fn numbers(version: &str) -> Option<Vec<u64>> {
        let released = version.split(['-', '+']).next()?;
        released.split('.').map(|part| part.parse().ok()).collect()
    }
    match (numbers(this), numbers(other)) {
        (Some(this), Some(other)) => this > other,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(is_newer("0.10.0", "0.9.1"));
        assert!(is_newer("1.0.0", "0.9.1-rc.1"));
        assert!(!is_newer("0.1.0", "0.1.0"));
        assert!(!is_newer("0.1.0", "0.2.0"));
        assert!(!is_newer("", "0.2.0"));
        assert_eq!(version(), env!("CARGO_PKG_VERSION"));
    }
}
