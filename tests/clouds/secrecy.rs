//! Tokens and secrets are told to whom they are meant for, and to nobody else: not by an output at its
//! loudest, not in a file, not in a command line, not in an error, whatever a platform answers.

mod echo;

use gabion::serve::faults::Plan;

use crate::common::{Project, Run};
use crate::projects::{SECRET, on};
use crate::served::{Served, TOKEN};
use echo::Echo;

/// A task, and services that have the secret from their own environment and from their sandbox's.
const SANDBOXES: &str = r#"  web:
    env: { SHARED: "${secret.pass}" }
    services:
      setup: { kind: task, command: 'test -n "$PASS"', env: { PASS: "${secret.pass}" } }
      api:
        command: 'echo mode $MODE; exec sleep 1000'
        env: { MODE: slow, PASS: "a ${secret.pass} b" }
        health: { log: mode }
        needs: [setup]
      shared: { cmd: sleep, args: ["1000"], health: { exec: 'test -n "$SHARED"' } }
"#;

/// What is in a file of a sandbox, beside a line that may be seen.
const CONTENT: &str = "planted-content-77c2";

/// A project with these sandboxes, and with files that hold secrets where a platform writes some.
fn project(served: &Served, kind: &str) -> Project {
    let files = r#"  web:
    files:
      /tmp/gabion-secrecy/conf: "pass=${secret.pass}"
      /tmp/gabion-secrecy/key: { from: key.txt }
"#;
    let sandboxes = match kind {
        "pocketenv" => SANDBOXES.replace("  web:\n", files),
        _ => SANDBOXES.to_owned(),
    };
    let project = on(served, kind, &sandboxes);
    project.write("key.txt", &format!("begin\n{CONTENT}\n"));
    project
}

/// All that was said, and the project that it was said about.
struct Said {
    project: Project,
    planted: Vec<String>,
    text: String,
}

impl Said {
    fn about(project: Project) -> Self {
        let planted = [TOKEN, SECRET, CONTENT].map(str::to_owned).into();
        let text = String::new();
        Self {
            project,
            planted,
            text,
        }
    }

    /// At its loudest.
    fn run(&mut self, args: &[&str]) -> Run {
        let loud: Vec<_> = ["-vvv"].iter().chain(args).copied().collect();
        let run = self.project.run(&loud);
        for planted in &self.planted {
            let shown = format!("{run}").contains(planted.as_str());
            assert!(!shown, "{args:?} shows {planted}: {run}");
        }
        self.text += &format!("{run}");
        run
    }

    fn ok(&mut self, args: &[&str]) -> Run {
        let run = self.run(args);
        assert!(run.0.status.success(), "{args:?}: {run}");
        run
    }

    /// No file of the project and no command line on this machine holds what was planted.
    fn nothing_is_left_lying_about(&self) {
        let mut folders = vec![self.project.dir.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let name = entry.file_name();
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                } else if name != "token.txt" && name != "pass.txt" && name != "key.txt" {
                    self.is_clean(&format!("{:?}", entry.path()), &entry.path());
                }
            }
        }
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let command = entry.path().join("cmdline");
            self.is_clean("a command line", &command);
        }
    }

    fn is_clean(&self, what: &str, file: &std::path::Path) {
        let text = std::fs::read(file).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        for planted in &self.planted {
            assert!(!text.contains(planted.as_str()), "{planted} is in {what}");
        }
    }
}

/// What works says nothing of them.
fn nothing_shows_them(kind: &str) {
    let served = Served::start();
    let mut said = Said::about(project(&served, kind));
    said.ok(&["plan", "--out", "plan.json"]);
    said.ok(&["apply", "--yes", "plan.json"]);
    for args in [
        &["plan", "--json"][..],
        &["status", "--json"],
        &["show", "web/api"],
        &["logs", "web/api"],
        &["exec", "web", "--", "echo", "said"],
        &["exec", "web/api", "--", "sh", "-c", "test -n \"$PASS\""],
        &["restart", "web/api"],
    ] {
        said.ok(args);
        said.nothing_is_left_lying_about();
    }
    // What a platform cannot do is said without them, too.
    said.run(&["checkpoint", "create", "web"]);
    said.run(&["sandboxes", "--json"]);
    said.project.write("pass.txt", &format!("{SECRET}-2"));
    said.project
        .write("key.txt", &format!("other\n{CONTENT}\n"));
    said.ok(&["plan"]);
    said.ok(&["plan", "--out", "plan.json"]);
    said.ok(&["apply", "--yes", "--json"]);
    said.nothing_is_left_lying_about();

    // The last words of a service that fails are shown, but for what it was trusted with.
    said.project.edit(
        "echo mode $MODE;",
        "echo was $PASS; cat /tmp/gabion-secrecy/*; exit 3;",
    );
    let failed = said.run(&["apply", "--yes"]);
    assert_eq!(failed.code(), Some(1), "{failed}");
    said.nothing_is_left_lying_about();
    said.ok(&["destroy", "--yes", "--json"]);
    said.nothing_is_left_lying_about();
}

/// What fails says nothing of them.
fn no_error_shows_them(kind: &str) {
    let served = Served::start();
    let echo = Echo::before(&served);
    let project = project(&served, kind);
    project.edit(&served.url, &echo.url);
    let mut said = Said::about(project);
    said.ok(&["apply", "--yes"]);

    // A platform that repeats what it was sent, with the token and the new value.
    said.project.write("pass.txt", &format!("{SECRET}-2"));
    said.project.edit("MODE: slow", "MODE: fast");
    said.project
        .write("key.txt", &format!("other\n{CONTENT}\n"));
    echo.repeats(true);
    let failed = said.run(&["apply", "--yes"]);
    assert_eq!(failed.code(), Some(1), "{failed}");
    assert!(said.text.contains("you sent"), "{}", said.text);
    said.run(&["exec", "web/api", "--", "true"]);
    said.nothing_is_left_lying_about();
    echo.repeats(false);

    // One that fails in other ways, before and after it has done what it was to do.
    for rule in [
        "* **:before=500@1-4",
        "POST **:after=500@1-2",
        "PUT **:after=truncated@1-2",
        "* **:before=401@1",
    ] {
        served.faults.reset(Plan {
            rules: vec![rule.parse().unwrap()],
            ..Plan::default()
        });
        said.run(&["apply", "--yes"]);
    }
    served.faults.reset(Plan::default());
    said.ok(&["apply", "--yes"]);
    said.nothing_is_left_lying_about();

    // A token that it does not know.
    said.planted.push("planted-other-token".to_owned());
    said.project.write("token.txt", "planted-other-token");
    let refused = said.run(&["plan"]);
    assert_ne!(refused.code(), Some(0), "{refused}");
    said.project.write("token.txt", TOKEN);
    said.ok(&["destroy", "--yes"]);
}

macro_rules! clouds {
    ($($kind:ident)*) => {$(
        mod $kind {
            #[test]
            fn nothing_shows_them() {
                super::nothing_shows_them(stringify!($kind));
            }

            #[test]
            fn no_error_shows_them() {
                super::no_error_shows_them(stringify!($kind));
            }
        }
    )*};
}

clouds! { iris sprites pocketenv miosa }
