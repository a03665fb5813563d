//! The command line of a service's process, or of its named service: a marker that says which service it is, and from which
//! definition it was started, and then the program (protocol page miosa, §6).
//!
//! `env GABION_SERVICE=shop/web/api GABION_REV=3f9a1c… GABION_RUN=x7k2 sh -c '…'`
//!
//! The marker is part of the process's environment as well, by which commands in the sandbox find it.

use sha2::{Digest, Sha256};

use super::wire::Process;
use crate::model::{
    HumanDuration, Program, Restart, ServiceAddress, ServiceGoal, ServiceKind, ServiceSpec, Stop,
};
use crate::platforms::cloud::supply::shell::{command, quote};
use crate::platforms::cloud::supply::task::exit_file;

/// Where services run that say nothing else.
pub(super) const WORKSPACE: &str = "/workspace";

/// What a process says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Marker {
    /// `shop/web/api`
    pub service: String,
    /// Of its definition.
    pub rev: String,
    /// This one start of it.
    pub run: String,
}

impl Marker {
    /// One for a new start.
    pub(super) fn new(stack: &str, service: &ServiceAddress, spec: &ServiceSpec) -> Self {
        Self {
            service: key(stack, service),
            rev: rev(spec),
            run: format!("{:012x}", fastrand::u64(..1 << 48)),
        }
    }

    /// What the command of a process begins with, if it is one of ours and was not cut before its end.
    pub(super) fn of(process: &Process) -> Option<Self> {
        let mut words = process.command.as_deref()?.strip_prefix("env ")?.split(' ');
        let mut value = |name: &str| {
            let (key, value) = words.next()?.split_once('=')?;
            (key == name).then(|| value.to_owned())
        };
        let marker = Self {
            service: value("GABION_SERVICE")?,
            rev: value("GABION_REV")?,
            run: value("GABION_RUN")?,
        };
        // A word behind it: the run is whole.
        words.next().map(|_| marker)
    }
}

/// What a service says first whose output of this run is to be told from what it has said before.
pub(super) fn first_line(run: &str) -> String {
    format!("gabion run {run}")
}

/// Whether no command is told of a process, or only the beginning of one of ours.
pub(super) fn is_cut(process: &Process) -> bool {
    let told = process.command.as_deref().unwrap_or_default();
    let ours = "env GABION_SERVICE=";
    Marker::of(process).is_none() && (told.starts_with(ours) || ours.starts_with(told))
}

/// What a service is called in markers.
pub(super) fn key(stack: &str, service: &ServiceAddress) -> String {
    format!("{stack}/{service}")
}

/// A short digest of all that needs a new process when it changes.
pub(super) fn rev(spec: &ServiceSpec) -> String {
    let process = ServiceSpec {
        ports: Vec::new(),
        http_port: None,
        health: None,
        needs: Vec::new(),
        description: None,
        restart: Restart::default(),
        stop: Stop::default(),
        timeout: None::<HumanDuration>,
        state: ServiceGoal::Running,
        ..spec.clone()
    };
    // Plain data: its JSON can always be written.
    let text = serde_json::to_vec(&process).unwrap_or_default();
    let digest = Sha256::digest(text);
    digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The folder that is asked for.
pub(super) fn folder(spec: &ServiceSpec) -> String {
    match &spec.working_dir {
        None => WORKSPACE.to_owned(),
        Some(dir) if dir.is_absolute() => dir.display().to_string(),
        Some(dir) => format!("{WORKSPACE}/{}", dir.display()),
    }
}

/// Changes into the folder by itself, too, because the platform may not do it (§4, "cwd warning").
pub(super) fn enter(spec: &ServiceSpec) -> String {
    let Some(dir) = &spec.working_dir else {
        return String::new();
    };
    let whole = quote(&folder(spec));
    match dir.is_absolute() {
        true => format!("cd {whole} && "),
        false => format!(
            "{{ cd {whole} 2>/dev/null || cd {}; }} && ",
            quote(&dir.display().to_string())
        ),
    }
}

/// The whole command of a process, with what is done before anything else. It holds no secret values.
pub(super) fn line(
    spec: &ServiceSpec,
    service: &ServiceAddress,
    marker: &Marker,
    first: &str,
) -> String {
    let enter = format!("{first}{}", enter(spec));
    let program = match &spec.program {
        Program::Shell { command } => format!("sh -c {}", quote(command)),
        exec => command(&exec.argv()),
    };
    let script = match spec.kind {
        ServiceKind::Service => format!("{enter}exec {program}"),
        // Whoever awaits it reads the code from the file: it may be forgotten by the platform.
        ServiceKind::Task => {
            let file = quote(&exit_file(&service.service, &marker.run));
            format!(
                "{enter}{program}; code=$?; echo $code >{file}.new; mv -f {file}.new {file}; \
                 exit $code"
            )
        }
    };
    let Marker { service, rev, run } = marker;
    format!(
        "env GABION_SERVICE={service} GABION_REV={rev} GABION_RUN={run} sh -c {}",
        quote(&script)
    )
}

/// A script that sends a signal to every process of a service.
pub(super) fn signal_script(stack: &str, service: &ServiceAddress, signal: &str) -> String {
    let mark = quote(&format!("GABION_SERVICE={}", key(stack, service)));
    format!(
        "sent=1
for it in /proc/[0-9]*; do
  if tr '\\0' '\\n' <\"$it/environ\" 2>/dev/null | grep -qxF {mark}; then
    kill -s {signal} \"${{it#/proc/}}\" && sent=0
  fi
done
exit $sent"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> ServiceSpec {
        ServiceSpec::new(Program::Exec {
            cmd: "printf".to_owned(),
            args: vec!["<%s>".to_owned(), "it's $X".to_owned()],
        })
    }

    fn process(command: String) -> Process {
        serde_json::from_value(serde_json::json!({ "pid": 1, "command": command })).unwrap()
    }

    #[test]
    fn a_marker_is_read_from_the_command_that_it_was_written_into() {
        let address: ServiceAddress = "web/api".parse().unwrap();
        let marker = Marker::new("shop", &address, &spec());
        let line = line(&spec(), &address, &marker, "");
        assert_eq!(Marker::of(&process(line.clone())), Some(marker));
        let ran = std::process::Command::new("sh")
            .arg("-c")
            .arg(&line)
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(ran.stdout).unwrap(), "<it's $X>");
        for cut in ["", "env", "node server.js", &line[..40], &line[..70]] {
            assert_eq!(Marker::of(&process(cut.to_owned())), None, "{cut}");
            let ours = !cut.starts_with("node");
            assert_eq!(is_cut(&process(cut.to_owned())), ours, "{cut}");
        }
        assert!(!is_cut(&process(line)));
    }

    #[test]
    fn only_what_needs_a_new_process_changes_the_revision() {
        let mut other = spec();
        other.description = Some("text".to_owned());
        other.ports = vec![80];
        assert_eq!(rev(&other), rev(&spec()));
        assert!(!spec().needs_new_process(&other));
        other.env.insert("A".to_owned(), "1".to_owned());
        assert_ne!(rev(&other), rev(&spec()));
    }
}
