//! Tasks on platforms that start again whatever ends: the task is run by a script that keeps its exit
//! code in a file, and then waits to be stopped.

use crate::model::ServiceName;

/// What is executed: `/bin/sh -c SCRIPT gabion-task FILE CMD ARGS…`.
const SCRIPT: &str = r#"file=$1
shift
if [ ! -e "$file" ]; then
  "$@"
  echo "$?" >"$file.new"
  mv -f "$file.new" "$file"
fi
while :; do sleep 3600; done"#;

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

/// A script that waits for the exit code of a run, for at most so many seconds, and writes it.
pub fn wait_script(file: &str, seconds: u64) -> String {
    let file = super::shell::quote(file);
    format!(
        "i=0
while [ ! -e {file} ]; do
  i=$((i + 1))
  [ \"$i\" -gt {tries} ] && exit {not_ready}
  sleep 0.1 2>/dev/null || sleep 1
done
cat {file}
",
        tries = seconds * 10,
        not_ready = super::probe::NOT_READY,
    )
}
