//! Files in a sandbox that are listed, made, moved, copied, changed and removed: by the platform's routes where it
//! has some, by programs of the sandbox where not.

use serde_json::{Value, json};

use crate::common::{Project, Run};
use crate::projects::{flat, no_changes, on};
use crate::served::Served;

const SANDBOXES: &str = "  web: { services: { api: { cmd: sleep, args: [\"1000\"] } } }
  other: {}
";

/// Any name that a file can have is told as it is.
const ODD: &str = "a b\n81a4 c";

/// What `gabion fs list` tells of a folder: each name, and whether it is a folder.
fn list(project: &Project, folder: &str) -> Vec<(String, bool)> {
    let listed = project.ok(&["fs", "list", folder, "--json"]).stdout();
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    let files = listed["files"].as_array().expect("a list").iter();
    let known = files.map(|it| (it["name"].as_str(), it["folder"].as_bool()));
    known
        .map(|(name, folder)| (name.expect("a name").to_owned(), folder.expect("a flag")))
        .collect()
}

fn stat(project: &Project, file: &str) -> Value {
    let told = project.ok(&["fs", "stat", file, "--json"]).stdout();
    let told: Value = serde_json::from_str(&told).expect("JSON");
    told["file"].clone()
}

fn refused(project: &Project, args: &[&str], says: &str) {
    let run: Run = project.run(args);
    assert_eq!(run.code(), Some(1), "{args:?}: {run}");
    assert!(flat(&run).contains(says), "{args:?}, `{says}`: {run}");
}

fn files_are_kept(project: &Project) {
    let ok = |args: &[&str]| project.ok(args).stdout();
    project.write("page", "hello");
    refused(project, &["fs", "mkdir", "web:/tmp/fs/deep"], "/tmp/fs");
    ok(&["fs", "mkdir", "-p", "web:/tmp/fs/deep"]);
    ok(&["fs", "mkdir", "--parents", "web:/tmp/fs/deep"]);
    refused(
        project,
        &["fs", "mkdir", "web:/tmp/fs/deep"],
        "/tmp/fs/deep",
    );
    assert_eq!(list(project, "web:/tmp/fs/deep"), []);
    assert_eq!(ok(&["fs", "ls", "web:/tmp/fs/deep"]), "Nothing is in it.\n");
    ok(&["cp", "page", &format!("web:/tmp/fs/{ODD}")]);
    ok(&["cp", "page", "web:/tmp/fs/.page"]);
    let all = [(".page", false), (ODD, false), ("deep", true)];
    let all = all.map(|(name, folder)| (name.to_owned(), folder));
    assert_eq!(list(project, "web:/tmp/fs"), all);
    // A list of a file is the file.
    assert_eq!(list(project, "web:/tmp/fs/.page"), all[..1]);
    let table = ok(&["fs", "list", "web:/tmp/fs"]);
    let rows: Vec<_> = table.lines().collect();
    assert_eq!(rows.len(), 4, "{table}");
    assert!(
        rows[0].starts_with("MODE  ") && rows[0].ends_with("NAME"),
        "{table}"
    );
    assert!(
        rows[1].contains("5 B") && rows[1].ends_with(".page"),
        "{table}"
    );
    assert!(rows[2].ends_with("a b\u{fffd}81a4 c"), "{table}");
    assert!(rows[3].ends_with("deep/"), "{table}");

    let page = stat(project, "web:/tmp/fs/.page");
    assert_eq!((&page["name"], &page["size"]), (&json!(".page"), &json!(5)));
    assert_eq!(stat(project, "web:/tmp/fs/deep")["folder"], true);
    assert_eq!(stat(project, "web:/")["folder"], true);
    for look in ["list", "stat"] {
        let missing = ["fs", look, "web:/tmp/fs/nothing"];
        refused(project, &missing, "/tmp/fs/nothing: there is no such file");
    }

    // Another path, in place of a file that is there; with all that is in a folder.
    ok(&["fs", "mv", "web:/tmp/fs/.page", "web:/tmp/fs/deep/page"]);
    ok(&[
        "fs",
        "move",
        &format!("web:/tmp/fs/{ODD}"),
        "web:/tmp/fs/deep/page",
    ]);
    ok(&["fs", "move", "web:/tmp/fs/deep", "web:/tmp/fs/moved"]);
    assert_eq!(list(project, "web:/tmp/fs"), [("moved".to_owned(), true)]);
    assert_eq!(ok(&["cp", "web:/tmp/fs/moved/page", "-"]), "hello");
    let missing = ["fs", "move", "web:/tmp/fs/nothing", "web:/tmp/fs/new"];
    refused(project, &missing, "/tmp/fs/nothing");

    let copy = ["fs", "copy", "web:/tmp/fs/moved", "web:/tmp/fs/copied"];
    refused(project, &copy, "it is a folder");
    ok(&[&copy[..], &["--recursive"]].concat());
    ok(&[
        "fs",
        "copy",
        "web:/tmp/fs/moved/page",
        "web:/tmp/fs/copied/second",
    ]);
    assert_eq!(ok(&["cp", "web:/tmp/fs/copied/second", "-"]), "hello");
    assert_eq!(list(project, "web:/tmp/fs/copied").len(), 2);

    ok(&["fs", "chmod", "750", "web:/tmp/fs/copied/page"]);
    ok(&["fs", "chmod", "-r", "700", "web:/tmp/fs/moved"]);
    let modes = ["copied/page", "moved", "moved/page", "copied/second"];
    let modes = modes.map(|path| format!("/tmp/fs/{path}"));
    let exec = ["exec", "web", "--", "stat", "-c", "%a"].into_iter();
    let exec: Vec<_> = exec.chain(modes.iter().map(String::as_str)).collect();
    assert_eq!(ok(&exec), "750\n700\n700\n644\n");
    refused(
        project,
        &["fs", "chmod", "600", "web:/tmp/fs/nothing"],
        "/tmp/fs/nothing",
    );

    refused(project, &["fs", "rm", "web:/tmp/fs/copied"], "not empty");
    ok(&["fs", "rm", "web:/tmp/fs/copied/page"]);
    ok(&["fs", "remove", "web:/tmp/fs/copied/second"]);
    ok(&["fs", "remove", "web:/tmp/fs/copied"]);
    ok(&["fs", "remove", "-r", "web:/tmp/fs/moved"]);
    assert_eq!(list(project, "web:/tmp/fs"), []);
    for options in [&["-r"][..], &[]] {
        let missing = [&["fs", "rm", "web:/tmp/fs/moved"], options].concat();
        refused(project, &missing, "/tmp/fs/moved: there is no such file");
    }

    let elsewhere = project.run(&["fs", "move", "web:/tmp/a", "other:/tmp/a"]);
    assert_eq!(elsewhere.code(), Some(64), "{elsewhere}");
    assert!(flat(&elsewhere).contains("`web` and `other` are not one sandbox"));
    // Nothing of it is the manifest's business.
    no_changes(project);
}

/// `routes` are the operations that are the platform's own business.
fn on_a_cloud(kind: &str, routes: &[(&str, &str)]) {
    let served = Served::start();
    let project = on(&served, kind, SANDBOXES);
    project.ok(&["apply", "--yes"]);
    let before = served.requests(0).len();
    files_are_kept(&project);
    let requests = served.requests(before);
    for (method, path) in routes {
        let of_it = |it: &String| it.starts_with(method) && it.ends_with(path);
        let asked = requests.iter().any(of_it);
        assert!(asked, "{method} {path}: {requests:#?}");
    }
}

#[test]
fn on_this_machine() {
    let project = Project::new(&format!(
        "version: 1\nstack: files\nsandboxes:\n{SANDBOXES}"
    ));
    project.ok(&["apply", "--yes"]);
    files_are_kept(&project);
    // A relative path begins where services run.
    project.ok(&["fs", "mkdir", "web:a/b", "--parents"]);
    assert_eq!(list(&project, "web:a"), [("b".to_owned(), true)]);
    let listed = project.ok(&["exec", "web", "--", "ls", "a"]);
    assert_eq!(listed.stdout(), "b\n");
}

#[test]
fn on_iris() {
    let routes = [
        ("GET", "/v1/files/list"),
        ("GET", "/v1/files/stat"),
        ("DELETE", "/v1/files"),
        ("POST", "/v1/files/mkdir"),
        ("POST", "/v1/files/move"),
    ];
    on_a_cloud("iris", &routes);
}

#[test]
fn on_sprites() {
    let routes = [
        ("GET", "/fs/list"),
        ("DELETE", "/fs/delete"),
        ("POST", "/fs/rename"),
        ("POST", "/fs/copy"),
        ("POST", "/fs/chmod"),
    ];
    on_a_cloud("sprites", &routes);
}

#[test]
fn on_pocketenv() {
    on_a_cloud("pocketenv", &[]);
}

#[test]
fn on_miosa() {
    let routes = [
        ("GET", "/fs"),
        ("DELETE", "/fs"),
        ("POST", "/fs/mkdir"),
        ("POST", "/fs/stat"),
    ];
    on_a_cloud("miosa", &routes);
}
