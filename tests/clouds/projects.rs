//! Projects whose sandboxes live on a server, and what tests ask of them.

use gabion::serve::pocketenv::seal::public_key;
use serde_json::Value;

use crate::common::{Project, Run};
use crate::served::{Served, TOKEN};

/// The value of `${secret.pass}`, which must not be seen anywhere.
pub const SECRET: &str = "planted-secret-93ac";

/// A project whose sandboxes are on that server, which it speaks to as a platform of that kind.
///
/// `kind` may have settings behind it, as in `miosa, stdin: true`.
pub fn on(served: &Served, kind: &str, sandboxes: &str) -> Project {
    let url = &served.url;
    let key = match kind.starts_with("pocketenv") {
        true => format!(", public_key: '{}'", public_key()),
        false => String::new(),
    };
    let project = Project::new(&format!(
        r#"version: 1
stack: shop
secrets:
  token: {{ file: token.txt }}
  pass: {{ file: pass.txt }}
platforms:
  cloud: {{ kind: {kind}, url: "{url}", token: "${{secret.token}}"{key} }}
defaults: {{ platform: cloud }}
sandboxes:
{sandboxes}"#
    ));
    project.write("token.txt", TOKEN);
    project.write("pass.txt", SECRET);
    project
}

/// Runs it as another machine would that has the same manifest, and nothing else of ours.
pub fn elsewhere(project: &Project, args: &[&str]) -> Run {
    let mut command = project.command(args);
    let run = Run(command
        .env("GABION_HOME", project.path("elsewhere"))
        .output()
        .unwrap());
    assert!(run.0.status.success(), "elsewhere, gabion {args:?}\n{run}");
    run
}

/// Everything is as the manifest says.
pub fn no_changes(project: &Project) {
    nothing_in(&project.ok(&["plan"]));
}

/// It is so to another machine, too.
pub fn no_changes_elsewhere(project: &Project) {
    nothing_in(&elsewhere(project, &["plan"]));
}

/// There is nothing to do in a plan.
pub fn nothing_in(plan: &Run) {
    assert!(plan.stdout().contains("No changes"), "{plan}");
}

/// The actions of `plan --json`, as `address:kind`.
pub fn planned(run: &Run) -> Vec<String> {
    let plan: Value = serde_json::from_str(&run.stdout()).expect("JSON");
    let actions = plan["actions"].as_array().expect("actions").iter();
    let id = |action: &Value| action["id"].as_str().expect("text").to_owned();
    actions.map(id).collect()
}

/// All steps of an apply that stops sandbox `web`, changes it, and starts it with its service `api`.
pub const RESTART: [&str; 4] = ["web:stop", "web:update", "web:start", "web/api:start"];

/// The operation of each write on Pocketenv since the first `from` requests, but for commands.
pub fn pocketenv_writes(served: &Served, from: usize) -> Vec<String> {
    let requests = served.requests(from).into_iter();
    let operation = |it: String| {
        let operation = it.strip_prefix("POST /xrpc/io.pocketenv.")?;
        (operation != "sandbox.exec").then(|| operation.to_owned())
    };
    requests.filter_map(operation).collect()
}

/// What was said, however it is broken into lines.
pub fn flat(run: &Run) -> String {
    let words: Vec<_> = run.stderr().split_whitespace().map(str::to_owned).collect();
    words.join(" ")
}
