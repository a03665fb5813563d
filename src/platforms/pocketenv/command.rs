//! Commands: the platform knows no environment, no folder and no logs for services, so all that is in the
//! command, a script for `/bin/sh`.

use std::collections::BTreeMap;

use crate::model::{Program, ServiceKind, ServiceName, ServiceSpec};
use crate::platforms::cloud::mark::Owner;
use crate::platforms::cloud::supply::shell::{command, quote};

/// What is stored for a service that is not to run: a start of the sandbox starts all of them.
pub(super) const IDLE: &str = ":";

/// The files of a service in its sandbox: output, process, and the exit code of a task.
pub(super) struct Files {
    pub log: String,
    pub pid: String,
    pub exit: String,
}

/// The folder of gabion's own files in a sandbox.
fn folder(owner: &Owner) -> String {
    format!("/tmp/gabion-{}-{}", owner.stack, owner.sandbox)
}

impl Files {
    pub fn of(owner: &Owner, service: &ServiceName) -> Self {
        let path = |end: &str| format!("{}/{service}.{end}", folder(owner));
        Self {
            log: path("log"),
            pid: path("pid"),
            exit: path("exit"),
        }
    }
}

/// The script that a service is stored with. It holds no secret, but the names that the platform gives
/// them to processes by.
pub(super) fn stored(owner: &Owner, name: &ServiceName, spec: &ServiceSpec) -> String {
    let files = Files::of(owner, name);
    let mut script = format!(
        "mkdir -p {folder}\nexec >{log} 2>&1\necho $$ >{pid}\n",
        folder = quote(&folder(owner)),
        log = quote(&files.log),
        pid = quote(&files.pid),
    );
    script.push_str(&surroundings(name, spec));
    let program = match &spec.program {
        Program::Exec { .. } => command(&spec.program.argv()),
        Program::Shell { command } => format!("/bin/sh -c {}", quote(command)),
    };
    match spec.kind {
        ServiceKind::Service => script.push_str(&format!("exec {program}")),
        ServiceKind::Task => {
            let exit = quote(&files.exit);
            script.push_str(&format!(
                "{program}\necho $? >{exit}.new\nmv -f {exit}.new {exit}"
            ));
        }
    }
    script
}

/// Lines that set a service's environment and folder.
pub(super) fn surroundings(name: &ServiceName, spec: &ServiceSpec) -> String {
    let mut lines = environment(&spec.env, |secret| secret_name(name, spec, secret));
    if let Some(dir) = &spec.working_dir {
        let dir = quote(&dir.to_string_lossy());
        lines.push_str(&format!("cd {dir} || exit 1\n"));
    }
    lines
}

/// Lines that set variables. `${secret.x}` becomes the variable that `secret` knows for `x`; those that it
/// does not know stay as they are.
pub(super) fn environment(
    env: &BTreeMap<String, String>,
    secret: impl Fn(&str) -> Option<String>,
) -> String {
    let line = |(key, value): (&String, &String)| {
        let mut words = String::new();
        let mut rest = value.as_str();
        while let Some(start) = rest.find("${secret.") {
            let after = &rest[start + "${secret.".len()..];
            let known = after
                .split_once('}')
                .and_then(|(name, tail)| Some((secret(name)?, tail)));
            let end = known.as_ref().map_or(start + "${secret.".len(), |_| start);
            if end > 0 {
                words.push_str(&quote(&rest[..end]));
            }
            rest = match known {
                Some((variable, tail)) => {
                    words.push_str(&format!("\"${{{variable}}}\""));
                    tail
                }
                None => after,
            };
        }
        if !rest.is_empty() || words.is_empty() {
            words.push_str(&quote(rest));
        }
        format!("export {key}={words}\n")
    };
    env.iter().map(line).collect()
}

/// The name that a secret is attached by. It tells one value from another, so that a secret is never
/// changed, only replaced. `None` if the service does not use it.
pub(super) fn secret_name(name: &ServiceName, spec: &ServiceSpec, secret: &str) -> Option<String> {
    let digest = spec.secrets.get(secret)?;
    let digest = digest.get(..8).unwrap_or(digest);
    let name = format!("{}{secret}_{digest}", secret_prefix(name));
    Some(name.replace(|sign: char| !sign.is_ascii_alphanumeric(), "_"))
}

/// What the names of a service's secrets begin with.
pub(super) fn secret_prefix(name: &ServiceName) -> String {
    let name = name.as_str().replace('-', "_");
    format!("GABION_{name}__")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_variables_of_other_names() {
        let env = [
            ("A", "it's"),
            ("B", "x${secret.db}y${secret.other}"),
            ("C", ""),
            ("D", "${secret.db}"),
        ];
        let env = env.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let known = |name: &str| (name == "db").then(|| "S".to_owned());
        let lines = environment(&env.into(), known);
        let script = format!("S='a b'\n{lines}printf '%s|' \"$A\" \"$B\" \"$C\" \"$D\"");
        let ran = std::process::Command::new("sh")
            .args(["-c", &script])
            .output();
        let said = String::from_utf8(ran.unwrap().stdout).unwrap();
        assert_eq!(said, "it's|xa by${secret.other}||a b|");
    }
}
