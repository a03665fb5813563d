//! A line of output that a service is ready by: one that it has written since it was started.

use crate::common::Project;
use crate::projects::{flat, on};
use crate::served::Served;

fn old_words_do_not_count(kind: &str) {
    let served = Served::start();
    let project: Project = on(
        &served,
        kind,
        "  web:
    services:
      api:
        command: 'echo listening; exec sleep 1000'
        health: { log: listening, timeout: 2s }
",
    );
    project.ok(&["apply", "--yes"]);
    project.edit("echo listening;", "echo silent;");
    let failed = project.run(&["apply", "--yes"]);
    assert_eq!(failed.code(), Some(1), "{failed}");
    let said = flat(&failed);
    assert!(said.contains("not ready after 2.0 s"), "{failed}");
    assert!(said.contains("no line with `listening`"), "{failed}");
    // Nor when there is no process whose own they could be.
    project.edit("echo silent;", "sleep 0.3; exit 3;");
    let failed = project.run(&["apply", "--yes"]);
    assert_eq!(failed.code(), Some(1), "{failed}");
    project.edit("sleep 0.3; exit 3;", "echo listening again;");
    project.ok(&["apply", "--yes"]);
}

macro_rules! clouds {
    ($($kind:ident)*) => {$(
        #[test]
        fn $kind() {
            old_words_do_not_count(stringify!($kind));
        }
    )*};
}

mod words_of_an_earlier_process_do_not_make_a_service_ready {
    use super::old_words_do_not_count;

    clouds! { iris miosa pocketenv sprites }
}
