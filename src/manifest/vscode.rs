//! `vscode: { command, port }` is short for a service called `vscode`.
//!
//! It is written into the tree before any type is asked for, so that everything that looks at
//! services (needs, ports, what a platform can do) sees it like any other. The parts of the service
//! keep the places of the parts of `vscode`.

use std::borrow::Cow;
use std::collections::HashSet;

use super::codes;
use super::diagnostic::{Draft, Sink, Span};
use super::tree::{Kind, NodeId, Scalar, Tree};

/// The name of the service.
const NAME: &str = "vscode";

/// Adds the service to every sandbox that has a command for its editor server.
pub(super) fn unfold(tree: &mut Tree<'_>, root: NodeId, sink: &mut Sink) {
    let Some(sandboxes) = tree.get(root, "sandboxes") else {
        return;
    };
    let mut seen = HashSet::new();
    for (_, sandbox) in tree.entries(sandboxes).to_vec() {
        let sandbox = tree.resolve(sandbox);
        if seen.insert(sandbox) {
            unfold_sandbox(tree, sandbox, sink);
        }
    }
}

fn unfold_sandbox(tree: &mut Tree<'_>, sandbox: NodeId, sink: &mut Sink) {
    let entries = tree.entries(sandbox);
    let Some(at) = entries
        .iter()
        .position(|(key, _)| tree.text(*key) == Some(NAME))
    else {
        return;
    };
    let (key, rule) = entries[at];
    if !matches!(tree.kind(rule), Kind::Map(_)) {
        return;
    }
    let span = tree.span(key);
    let services = entries
        .iter()
        .position(|(key, _)| tree.text(*key) == Some("services"));
    let old = services.map(|at| tree.entries(sandbox)[at].1);
    if let Some(other) = old.and_then(|services| tree.get(services, NAME)) {
        let message = "the sandbox has both `vscode` and a service called `vscode`";
        let draft = Draft::error(codes::ONE_OF, span, message).label("adds a service `vscode`");
        let draft = draft.related(tree.key_span(other), "the other one");
        return sink.push(draft.help("rename the service, or leave `vscode` out"));
    }
    let Some(service) = service(tree, rule, span, sink) else {
        return;
    };
    let mut inside = old.map_or_else(Vec::new, |services| tree.entries(services).to_vec());
    inside.push((scalar(tree, NAME, span), service));
    let place = old.map_or(span, |services| tree.span(services));
    let inside = tree.add(Kind::Map(inside), place);
    let Kind::Map(entries) = &mut tree.node_mut(sandbox).kind else {
        return;
    };
    match services {
        Some(at) => entries[at].1 = inside,
        None => {
            let key = scalar(tree, "services", span);
            if let Kind::Map(entries) = &mut tree.node_mut(sandbox).kind {
                entries.push((key, inside));
            }
        }
    }
}

/// The service's map. What has the wrong type is left out; decoding `vscode` itself says so.
fn service(tree: &mut Tree<'_>, rule: NodeId, span: Span, sink: &mut Sink) -> Option<NodeId> {
    let command = tree
        .get(rule, "command")
        .filter(|command| !tree.is_null(*command));
    let Some(command) = command else {
        let draft = Draft::error(codes::MISSING, span, "`vscode` has no `command`");
        let draft = draft.label("`command` is missing");
        sink.push(draft.help(
            "write for example `vscode: { command: \"code-server --auth none --bind-addr \
             127.0.0.1:8443 .\", port: 8443 }`",
        ));
        return None;
    };
    let mut entries = Vec::new();
    match tree.elements(command).to_vec().as_slice() {
        [program, arguments @ ..] => {
            entries.push((scalar(tree, "cmd", span), *program));
            let list = tree.add(Kind::Seq(arguments.to_vec()), tree.span(command));
            entries.push((scalar(tree, "args", span), list));
        }
        [] if tree.text(command).is_some() => {
            entries.push((scalar(tree, "command", span), command));
        }
        [] => {
            if matches!(tree.kind(command), Kind::Seq(_)) {
                let at = tree.span(command);
                let draft = Draft::error(codes::BAD_VALUE, at, "`vscode` has nothing to execute");
                sink.push(draft.label("empty"));
            }
            return None;
        }
    }
    let port = tree.get(rule, "port");
    let number = |port: &NodeId| tree.text(*port).is_some_and(|it| it.parse::<i64>().is_ok());
    if let Some(port) = port.filter(number) {
        let at = tree.span(port);
        let list = tree.add(Kind::Seq(vec![port]), at);
        entries.push((scalar(tree, "ports", span), list));
        let check = (scalar(tree, "tcp", span), port);
        let check = tree.add(Kind::Map(vec![check]), at);
        entries.push((scalar(tree, "health", span), check));
    }
    Some(tree.add(Kind::Map(entries), span))
}

fn scalar(tree: &mut Tree<'_>, text: &'static str, span: Span) -> NodeId {
    let text = Cow::Borrowed(text);
    let plain = true;
    let interpolated = false;
    tree.add(
        Kind::Scalar(Scalar {
            text,
            plain,
            interpolated,
        }),
        span,
    )
}
