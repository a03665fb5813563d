//! Tasks on platforms that start again whatever ends: the task is run by a script that keeps its exit
//! code in a file, and then waits to be stopped.

use crate::model::ServiceName;

/// What is executed: `/bin/sh -c SCRIPT gabion-task FILE CMD ARGS…`.
const SCRIPT: &str = r#"file=$1
shift
if [ ! -e "$file" ]; then
  : >"$file.begun"
  "$@"
  echo "$?" >"$file.new"
  mv -f "$file.new" "$file"
fi
while :; do sleep 3600; done"#;

/// What is written of a run that has begun and not ended.
const BEGUN: &str = "begun";

/// What stands for the script's name.
const NAME: &str = "gabion-task";

/// Where the exit code of one run of a task is kept, in the sandbox. `run` is made of letters and digits.
pub fn exit_file(service: &ServiceName, run: &str) -> String {
    format!("/tmp/gabion-task-{service}-{run}")
}

/// The argument vector that runs a task once; without `argv`, one that runs nothing.
pub fn argv(file: &str, argv: Option<&[String]>) -> Vec<String> {
    let nothing = ["true".to_owned()];
    let head = ["/bin/sh", "-c", SCRIPT, NAME, file].map(str::to_owned);
    let tail = argv.unwrap_or(&nothing);
    head.into_iter().chain(tail.iter().cloned()).collect()
}

/// The argument vector of a task that is to be run soon, and not yet: it waits.
pub fn waiting() -> Vec<String> {
    ["/bin/sh", "-c", "while :; do sleep 3600; done"]
        .map(str::to_owned)
        .into()
}

/// A script that waits for the exit code of a run, for at most so many seconds, and writes it. If it has not
/// come, it exits with [`NOT_READY`](super::probe::NOT_READY), and [`has_begun`] understands what it writes.
pub fn wait_script(file: &str, seconds: u64) -> String {
    let file = super::shell::quote(file);
    format!(
        "i=0
while [ ! -e {file} ]; do
  i=$((i + 1))
  if [ \"$i\" -gt {tries} ]; then
    [ -e {file}.begun ] && echo {BEGUN}
    exit {not_ready}
  fi
  sleep 0.1 2>/dev/null || sleep 1
done
cat {file}
",
        tries = seconds * 10,
        not_ready = super::probe::NOT_READY,
    )
}

/// Whether a run of [`argv`] whose exit code has not come was begun at all, by what the script that waited for
/// it wrote. If not, another process is in its place.
pub fn has_begun(said: &str) -> bool {
    said.trim() == BEGUN
}
