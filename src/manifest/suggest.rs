//! Did you mean …?

/// The name nearest to `word`, if one is near enough to be a slip of the hand.
pub(super) fn nearest<'n>(word: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    const LONGEST: usize = 100;
    let folded = fold(word);
    if folded.is_empty() || word.len() > LONGEST {
        return None;
    }
    let mut near = Vec::new();
    for name in names {
        if name == word || name.len() > LONGEST {
            continue;
        }
        if fold(name) == folded {
            return Some(name);
        }
        near.push(name);
    }
    if word.chars().count() < 3 {
        return None;
    }
    similar::get_close_matches(word, &near, 1, 0.66).pop()
}

/// Case and separators do not count: `healthPort` is `health_port`.
fn fold(name: &str) -> String {
    let letters = name.chars().filter(|c| !matches!(c, '-' | '_' | '.' | ' '));
    letters.flat_map(char::to_lowercase).collect()
}

/// `a`, `b` or `c`.
pub(super) fn one_of(names: &[&str]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((only, [])) => only.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        let names = ["postgres", "health_port", "database", "cmd", "env"];
        let find = |word| nearest(word, names);
        assert_eq!(find("postgress"), Some("postgres"));
        assert_eq!(find("healthPort"), Some("health_port"));
        assert_eq!(find("databse"), Some("database"));
        assert_eq!(find("comand"), None);
        assert_eq!(find("Env"), Some("env"));
        assert_eq!(find("xx"), None);
    }
}
