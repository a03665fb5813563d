//! The invariants of ARCHITECTURE.md that the code's text can show.

use std::path::{Path, PathBuf};

/// Every source file below `src`, with its text up to its unit tests.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(&folder)).unwrap()
        {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = std::fs::read_to_string(entry.path()).unwrap();
                let code = text
                    .split("#[cfg(test)]")
                    .next()
                    .unwrap_or_default()
                    .to_owned();
                found.push((path.display().to_string(), code));
            }
        }
    }
    assert!(found.len() > 50);
    found
}

/// The files outside `allowed` that contain one of `words`.
fn offenders(words: &[&str], allowed: &[&str]) -> Vec<String> {
    let offends = |(path, text): &(String, String)| {
        !allowed.iter().any(|start| path.starts_with(start))
            && words.iter().any(|word| text.contains(word))
    };
    sources()
        .into_iter()
        .filter(offends)
        .map(|(path, _)| path)
        .collect()
}

#[test]
fn only_the_command_line_and_the_supervisor_process_read_the_environment() {
    let own_process = [
        "src/cli/",
        "src/supervisor/serve.rs",
        "src/supervisor/attach/client.rs",
        "src/keeper/launch.rs",
    ];
    let words = [
        "env::var",
        "env::vars",
        "current_dir()",
        "home_dir",
        "IsTerminal",
    ];
    assert_eq!(offenders(&words, &own_process), Vec::<String>::new());
}

#[test]
fn nothing_imports_the_command_line() {
    assert_eq!(
        offenders(&["crate::cli"], &["src/cli/"]),
        Vec::<String>::new()
    );
}

#[test]
fn the_library_prints_nothing() {
    let words = [
        "println!(",
        "print!(",
        "dbg!(",
        "io::stdout()",
        "io::stderr()",
    ];
    // The supervisor tells its launcher that it is ready, on its own standard output.
    assert_eq!(
        offenders(
            &words,
            &[
                "src/cli/",
                "src/supervisor/serve.rs",
                // Hands its own standard streams on.
                "src/supervisor/attach/client.rs",
            ]
        ),
        Vec::<String>::new()
    );
}

#[test]
fn the_planner_does_no_io_and_reads_no_clock() {
    let words = [
        "std::fs",
        "std::io",
        "tokio",
        "Instant",
        "SystemTime",
        "Timestamp::now",
    ];
    let planner: Vec<String> = offenders(&words, &[])
        .into_iter()
        .filter(|path| path.starts_with("src/plan/"))
        .collect();
    assert_eq!(planner, Vec::<String>::new());
}

#[test]
fn the_supervisor_knows_neither_manifests_nor_plans() {
    let words = ["crate::manifest", "crate::plan"];
    let rooms: Vec<String> = offenders(&words, &[])
        .into_iter()
        .filter(|path| path.starts_with("src/supervisor/") || path.starts_with("src/model/"))
        .collect();
    assert_eq!(rooms, Vec::<String>::new());
}

/// `clouds::sprites::acts` is `tests/clouds/sprites/acts.rs` or `tests/clouds/sprites/acts/mod.rs`, and
/// `acts` is `tests/acts.rs`. The last word may be a test in it.
fn is_a_test(name: &str) -> bool {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let module = |words: &[&str]| {
        let folder = tests.join(words.join("/"));
        let text = |path: PathBuf| std::fs::read_to_string(path).ok();
        text(folder.with_extension("rs")).or_else(|| text(folder.join("mod.rs")))
    };
    let words: Vec<_> = name.split("::").collect();
    let Some((test, above)) = words.split_last() else {
        return false;
    };
    let is_in = |text: String| text.contains(&format!("fn {test}("));
    module(&words).is_some() || module(above).is_some_and(is_in)
}

#[test]
fn every_test_that_the_table_of_operations_names_exists() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (_, tests) = page.split_once("## Tests").expect("the tests");
    let rows = tests.lines().filter(|line| line.starts_with('|'));
    let names: Vec<_> = rows
        .flat_map(|row| row.split('`').skip(1).step_by(2))
        .collect();
    assert!(names.len() > 40, "{names:?}");
    let missing: Vec<_> = names.into_iter().filter(|it| !is_a_test(it)).collect();
    assert_eq!(missing, Vec::<&str>::new());
}
