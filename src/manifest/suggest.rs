//! Did you mean …?

/// The name nearest to `word`, if one is near enough to be a slip of the hand.
pub(super) fn nearest<'n>(word: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    const LONGEST: usize = 100;
    let folded = fold(word);
    if folded.is_empty() || word.len() > LONGEST {
        return None;
    }
    let letters: Vec<char> = folded.chars().collect();
    // A third of the letters may be wrong; words of one or two letters are too short to tell.
    let limit = if letters.len() < 3 {
        0
    } else {
        letters.len().div_ceil(3).min(4)
    };
    let mut best = None;
    for name in names {
        if name == word || name.len() > LONGEST {
            continue;
        }
        let other: Vec<char> = fold(name).chars().collect();
        let allowed = best.map_or(limit, |(distance, _): (usize, _)| {
            distance.saturating_sub(1)
        });
        if let Some(distance) = distance(&letters, &other, allowed) {
            best = Some((distance, name));
            if distance == 0 {
                break;
            }
        }
    }
    best.map(|(_, name)| name)
}

/// How many letters have to be put in, left out, changed or swapped with the next, if not more
/// than `limit`.
fn distance(a: &[char], b: &[char], limit: usize) -> Option<usize> {
    if a.len().abs_diff(b.len()) > limit {
        return None;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut steps = (last[j] + usize::from(x != y))
                .min(last[j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                steps = steps.min(before[j - 1] + 1);
            }
            row.push(steps);
        }
        if row.iter().min().is_some_and(|least| *least > limit) {
            return None;
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().filter(|steps| *steps <= limit)
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
        assert_eq!(find("cdm"), Some("cmd"));
        assert_eq!(nearest("dat", ["web", "data"]), Some("data"));
        assert_eq!(nearest("s1", ["s2", "s3"]), None);
    }
}
