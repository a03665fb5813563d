//! `gabion plan --out` and `gabion apply FILE.json` on real processes, and bounds to deletions.

mod common;

use std::os::unix::fs::PermissionsExt;

use common::Project;
use serde_json::Value;

const MANIFEST: &str = "version: 1
stack: kept
secrets: { token: { file: token } }
sandboxes:
  box:
    services:
      one: { command: exec sleep 1001 }
      two: { command: exec sleep 1002, needs: [one], env: { TOKEN: '${secret.token}' } }
";

fn project() -> Project {
    let project = Project::new(MANIFEST);
    project.write("token", "s3cr3t-planted-value");
    project
}

#[test]
fn a_plan_is_kept_applied_once_and_refused_when_stale() {
    let project = project();
    let plan = project.ok(&["plan", "--out", "p.json"]);
    assert!(plan.stdout().contains("gabion apply p.json"), "{plan}");
    let mode = std::fs::metadata(project.path("p.json")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);

    // The manifest may move on: what is applied is the plan.
    project.edit("exec sleep 1001", "exec sleep 2001");
    let applied = project.ok(&["apply", "p.json", "--yes"]);
    assert!(applied.stdout().contains("as the plan says"), "{applied}");
    let next: Value = serde_json::from_str(&project.ok(&["plan", "--json"]).stdout()).unwrap();
    assert_eq!(next["actions"][0]["address"], "box/one", "{next}");
    let pids = (project.pid("box/one"), project.pid("box/two"));

    let again = project.run(&["apply", "p.json", "--yes"]);
    assert_eq!(again.code(), Some(1), "{again}");
    for line in ["stale", "box: was not there", "box/one: was not there"] {
        assert!(again.stderr().contains(line), "{again}");
    }

    // Drift in what the plan touches, and in nothing else, makes it stale.
    project.ok(&["plan", "--out", "p.json"]);
    project.ok(&["stop", "box/one"]);
    let drifted = project.run(&["apply", "p.json", "--yes"]);
    assert_eq!(drifted.code(), Some(1), "{drifted}");
    assert!(
        drifted
            .stderr()
            .contains("box/one: was running, is stopped"),
        "{drifted}"
    );
    assert!(!drifted.stderr().contains("box/two:"), "{drifted}");
    project.ok(&["plan", "box/one", "--out", "p.json"]);
    project.ok(&["stop", "box/two"]);
    project.ok(&["apply", "p.json", "--yes"]);
    assert_ne!(project.pid("box/one"), pids.0);
}

#[test]
fn neither_secrets_nor_digests_are_kept_and_a_changed_secret_is_noticed() {
    let project = project();
    project.ok(&["plan", "--out", "p.json"]);
    let text = project.read("p.json");
    assert!(!text.contains("s3cr3t"), "{text}");
    let file: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(file["definitions"]["box/two"]["secrets"][0], "token");
    project.ok(&["apply", "p.json", "--yes"]);

    let digest = stored_digest(&project);
    project.edit("needs: [one]", "needs: [one], description: the second");
    project.ok(&["plan", "--out", "p.json"]);
    let text = project.read("p.json");
    assert!(!text.contains(&digest), "{text}");
    project.write("token", "another");
    let run = project.run(&["apply", "p.json", "--yes"]);
    assert_eq!(run.code(), Some(1), "{run}");
    assert!(
        run.stderr()
            .contains("box/two: the value of the secret `token` changed"),
        "{run}"
    );
    project.ok(&["plan", "--out", "p.json"]);
    project.ok(&["apply", "p.json", "--yes"]);
    let left = project.ok(&["plan"]);
    assert!(left.stdout().contains("No changes"), "{left}");
}

/// The digest that stands for the secret in what the supervisor stores.
fn stored_digest(project: &Project) -> String {
    let found = std::process::Command::new("grep")
        .args(["-rhoE", "\"token\": ?\"[0-9a-f]{32}\""])
        .arg(&project.home)
        .output()
        .unwrap();
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    let digest = found.lines().next().and_then(|line| line.split('"').nth(3));
    digest.expect("a digest").to_owned()
}

#[test]
fn files_that_do_not_fit_are_refused() {
    let project = project();
    project.ok(&["plan", "--out", "p.json"]);
    let good = project.read("p.json");
    let refused = |text: &str, why: &str| {
        project.write("q.json", text);
        let run = project.run(&["apply", "q.json", "--yes"]);
        assert_eq!(run.code(), Some(1), "{run}");
        assert!(run.stderr().contains(why), "{why}: {run}");
        assert!(!run.stderr().contains("panicked"), "{run}");
    };
    refused("", "not a plan file");
    refused(&project.ok(&["plan", "--json"]).stdout(), "not a plan file");
    refused(
        &good.replace("\"version\": 1", "\"version\": 9"),
        "version 9",
    );
    refused(
        &good.replace("\"stack\": \"kept\"", "\"stack\": \"other\""),
        "`other`",
    );
    refused(
        &good.replace("\"kind\": \"upsert\"", "\"kind\": \"stop\""),
        "box/one:",
    );
    refused(
        &good.replace("sleep 1001\"", "sleep 1001\", \"secrets\": [\"token\"]"),
        "token",
    );
    let huge = std::fs::File::create(project.path("q.json")).unwrap();
    huge.set_len(65 << 20).unwrap();
    let run = project.run(&["apply", "q.json", "--yes"]);
    assert!(run.stderr().contains("larger than 64 MiB"), "{run}");
    for (args, code) in [
        (&["apply", "no.json", "--yes"][..], 1),
        (&["apply", "p.json", "box/one", "--yes"], 64),
        (&["apply", "p.txt", "--yes"], 64),
        (&["plan", "--out", "p.txt"], 64),
        (&["plan", "--out", "no/such/folder/p.json"], 1),
        (&["apply", "p.json"], 64),
    ] {
        let run = project.run(args);
        assert_eq!(run.code(), Some(code), "{args:?} {run}");
    }
    assert!(project.services().values().all(|it| it["pid"].is_null()));
}

#[test]
fn a_plan_with_problems_is_kept_and_not_applied() {
    let project = project();
    project.edit("  box:\n", "  box:\n    protect: true\n");
    project.ok(&["apply", "--yes"]);
    project.edit("  box:\n    protect: true\n", "  new:\n");
    let run = project.run(&["plan", "--out", "p.json"]);
    assert_eq!(run.code(), Some(1), "{run}");
    let run = project.run(&["apply", "p.json", "--yes"]);
    assert_eq!(run.code(), Some(1), "{run}");
    assert!(
        run.stderr().contains("1 problem") && run.stderr().contains("box is protected"),
        "{run}"
    );
    project.edit("  new:\n", "  box:\n");
    project.ok(&["apply", "--yes"]);
}

#[test]
fn deletions_have_a_bound() {
    let project = project();
    project.ok(&["apply", "--yes", "--max-deletes", "0"]);
    project.ok(&["plan", "--destroy", "--out", "p.json"]);
    project.edit("      one: { command: exec sleep 1001 }\n", "");
    project.edit(", needs: [one]", "");
    for args in [
        &["plan", "--max-deletes", "0", "--out", "q.json"][..],
        &["apply", "--yes", "--max-deletes", "0"],
        &["apply", "p.json", "--yes", "--max-deletes", "0"],
    ] {
        let run = project.run(args);
        assert_eq!(run.code(), Some(1), "{args:?} {run}");
        assert!(run.stderr().contains("box/one"), "{args:?} {run}");
    }
    assert!(!project.path("q.json").exists());
    let by_environment = project
        .command(&["apply", "--yes"])
        .env("GABION_MAX_DELETES", "0")
        .output()
        .unwrap();
    assert_eq!(by_environment.status.code(), Some(1));
    assert_eq!(project.services().len(), 2);
    project.ok(&["apply", "--yes", "--max-deletes", "1"]);
    assert_eq!(project.services().len(), 1);
}

#[test]
fn renderings_have_a_format() {
    let project = project();
    for (format, begin) in [
        ("text", "kept on local"),
        ("json", "{"),
        ("markdown", "### gabion plan"),
        ("dot", "digraph {"),
        ("mermaid", "flowchart LR"),
    ] {
        let run = project.ok(&["plan", "--format", format]);
        assert!(run.stdout().starts_with(begin), "{run}");
    }
    assert_eq!(
        project.run(&["plan", "--json", "--format", "dot"]).code(),
        Some(64)
    );
}
