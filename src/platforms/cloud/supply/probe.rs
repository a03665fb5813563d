//! Health checks as shell scripts that run inside a sandbox: they ask again and again for a while, and
//! exit 0 as soon as the answer is good. Otherwise the last line that they write says what was wrong.
//!
//! They get by with `sh` and what a plain Linux has: `bash` or `nc` for ports, `curl` or `bash` for HTTP.

use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::SecretString;

use super::shell::{command, exports, quote};
use crate::model::{Health, HttpProbe, Probe, Scheme};

/// What a script exits with if the answer was never good.
pub const NOT_READY: i32 = 75;

/// The time between two questions.
const PAUSE: Duration = Duration::from_millis(100);

/// How its process was started, for probes that are programs.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// Its environment, secrets put in.
    pub env: BTreeMap<String, SecretString>,
    /// Its working directory, if it is not the one that commands have anyway.
    pub dir: Option<String>,
}

/// A script that asks for about `slice`. `None` for what no command in the sandbox can find out: lines
/// of output, and what a service says of itself.
pub fn script(health: &Health, around: &Surroundings, slice: Duration) -> Option<SecretString> {
    let limit = health.probe_timeout.0.as_secs().max(1);
    let probe = match &health.probe {
        Probe::Tcp { port } => tcp(*port),
        Probe::Http(probe) => http(probe, limit),
        Probe::Exec { argv } => exec(argv, around, limit),
        Probe::Log { .. } | Probe::Notify {} => return None,
    };
    let tries = (slice.as_millis() / PAUSE.as_millis()).max(1);
    let pause = PAUSE.as_secs_f64();
    let text = format!(
        "{probe}
i=0
while :; do
  said=$(probe 2>&1) && exit 0
  i=$((i + 1))
  [ \"$i\" -ge {tries} ] && break
  sleep {pause} 2>/dev/null || sleep 1
done
printf '%s\\n' \"$said\" | tail -n 1
exit {NOT_READY}
"
    );
    Some(SecretString::from(text))
}

/// What is said while it is not ready, if the script has said nothing.
pub fn words(probe: &Probe) -> String {
    match probe {
        Probe::Tcp { port } => format!("port {port} not open yet"),
        Probe::Http(probe) => format!("{} not answered yet", question(probe)),
        Probe::Exec { argv } => {
            let program = argv.first().map_or("", String::as_str);
            format!("health check `{program}` not passed yet")
        }
        Probe::Log { contains } => format!("no line with `{contains}` in its output yet"),
        Probe::Notify {} => "no READY=1 from it yet".to_owned(),
    }
}

/// `GET :80/healthz`.
fn question(probe: &HttpProbe) -> String {
    let scheme = match probe.scheme {
        Scheme::Http => "",
        Scheme::Https => "https ",
    };
    format!("GET {scheme}:{}{}", probe.port, probe.path)
}

fn tcp(port: u16) -> String {
    // The port in /proc/net/tcp is hexadecimal, and 0A is the state of one that is listened on.
    format!(
        "probe() {{
  if command -v bash >/dev/null; then
    bash -c 'exec 3<>/dev/tcp/localhost/{port}' 2>/dev/null && return
    bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}' 2>/dev/null && return
  elif command -v nc >/dev/null; then
    nc -z localhost {port} 2>/dev/null && return
  else
    cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | grep -q ':{port:04X} [0-9A-F:]* 0A ' && return
  fi
  echo 'port {port} not open yet'
  return 1
}}"
    )
}

fn http(probe: &HttpProbe, limit: u64) -> String {
    let scheme = match probe.scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    let port = probe.port;
    let path = probe.path.split('#').next().unwrap_or_default();
    let host = probe
        .host
        .clone()
        .unwrap_or_else(|| format!("localhost:{port}"));
    let mut headers = vec![format!("Host: {host}")];
    headers.extend(
        probe
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}")),
    );
    let options: Vec<_> = headers
        .iter()
        .map(|it| format!("-H {}", quote(it)))
        .collect();
    let url = quote(&format!("{scheme}://localhost:{port}{path}"));
    let lines = headers.iter().map(|it| format!("{it}\r\n"));
    let raw = format!("GET {path} HTTP/1.0\r\n{}\r\n", lines.collect::<String>());
    let by_hand = match probe.scheme {
        Scheme::Http => format!(
            "elif command -v bash >/dev/null; then
    answer=$(RAW={raw} bash -c 'exec 3<>/dev/tcp/localhost/{port} && printf %s \"$RAW\" >&3 && cat <&3' 2>/dev/null)
    code=${{answer#* }}; code=${{code%% *}}",
            raw = quote(&raw),
        ),
        Scheme::Https => String::new(),
    };
    let ranges: Vec<_> = match probe.status.as_slice() {
        [] => vec!["{ [ \"$code\" -ge 200 ] && [ \"$code\" -le 399 ]; }".to_owned()],
        ranges => ranges
            .iter()
            .map(|range| accepts(&range.to_string()))
            .collect(),
    };
    let body = match &probe.body {
        None => String::new(),
        Some(text) => format!(
            "case $answer in *{text}*) ;; *) echo {why}; return 1;; esac",
            text = quote(text),
            why = quote(&format!("{} answered without `{text}`", question(probe))),
        ),
    };
    let shown = quote(&question(probe));
    format!(
        "probe() {{
  code=
  if command -v curl >/dev/null; then
    answer=$(curl -sk --max-time {limit} -w '\\n%{{http_code}}' {options} {url} 2>/dev/null)
    code=${{answer##*
}}
  {by_hand}
  else
    echo 'neither curl nor bash is there to ask with'; return 1
  fi
  case $code in
    [1-5][0-9][0-9]) ;;
    *) echo {shown}' not answered yet'; return 1;;
  esac
  if ! {{ {accepted}; }}; then
    echo {shown}\" answered $code\"; return 1
  fi
  {body}
}}",
        options = options.join(" "),
        accepted = ranges.join(" || "),
    )
}

/// A test of `$code` against `204` or `200-399`.
fn accepts(range: &str) -> String {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    format!("{{ [ \"$code\" -ge {first} ] && [ \"$code\" -le {last} ]; }}")
}

fn exec(argv: &[String], around: &Surroundings, limit: u64) -> String {
    let program = argv.first().map_or("", String::as_str);
    let enter = match &around.dir {
        Some(dir) => format!("cd {} || return 1\n  ", quote(dir)),
        None => String::new(),
    };
    format!(
        "{exports}limit=
command -v timeout >/dev/null && limit='timeout {limit}'
probe() {{
  {enter}$limit {command} </dev/null && return
  echo {failed}\" exited with $?\"
  return 1
}}",
        exports = exports(&around.env),
        command = command(argv),
        failed = quote(&format!("health check `{program}`")),
    )
}
