//! Readiness: asks a service whether it is ready, at once and then less and less often; once it is
//! ready, asks at its interval whether it still is.
//!
//! In: a health check and what its process was started with. Out: [`Report`]s. Decides nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::os;
use super::spawn::Prepared;
use crate::model::{Health, HumanDuration, Probe, show_duration};

/// How long one TCP connection may take (protocol page iris, §4.5).
const TCP_LIMIT: Duration = Duration::from_secs(1);
/// How long one HTTP answer may take.
const HTTP_LIMIT: Duration = Duration::from_secs(5);
/// How long a probing program may take.
const EXEC_LIMIT: Duration = Duration::from_secs(10);
/// Misses in a row until a ready service counts as unhealthy (protocol page iris, §4.5).
const MISSES: u32 = 3;

/// What a prober has found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Report {
    /// Not ready yet, because of this.
    Waiting(String),
    /// It has become ready.
    Ready,
    /// It did not become ready in time; the last answer.
    TimedOut(String),
    /// It was ready and has missed several times; the last answer.
    Sick(String),
    /// It answers again.
    Well,
}

/// Whether the service was ready before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    Starting,
    Ready,
}

/// The task that probes one process. Ends when this is dropped.
#[derive(Debug)]
pub(super) struct Prober {
    reports: mpsc::Receiver<Report>,
    task: JoinHandle<()>,
}

impl Prober {
    /// Starts probing at once. `seen` tells whether the text of a log probe has been seen.
    pub(super) fn start(
        health: &Health,
        before: Before,
        prepared: Arc<Prepared>,
        seen: watch::Receiver<bool>,
    ) -> Self {
        let (sender, reports) = mpsc::channel(8);
        let task = Task {
            health: health.clone(),
            http: None,
            prepared,
            seen,
            sender,
        };
        Self {
            reports,
            task: tokio::spawn(task.run(before)),
        }
    }

    /// The next report; never returns if there will be none. Cancel-safe.
    pub(super) async fn next(&mut self) -> Report {
        match self.reports.recv().await {
            Some(report) => report,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why a probe failed: as long as there is hope, and in the end.
struct Miss {
    now: String,
    late: String,
}

impl Miss {
    fn new(now: impl Into<String>, late: impl Into<String>) -> Self {
        Self {
            now: now.into(),
            late: late.into(),
        }
    }
}

struct Task {
    health: Health,
    http: Option<reqwest::Client>,
    prepared: Arc<Prepared>,
    seen: watch::Receiver<bool>,
    sender: mpsc::Sender<Report>,
}

impl Task {
    async fn run(mut self, before: Before) {
        if before == Before::Starting && !self.become_ready().await {
            return;
        }
        if !matches!(self.health.probe, Probe::Log { .. }) {
            self.stay_ready().await;
        }
    }

    /// Probes until it is ready (true) or out of time (false).
    async fn become_ready(&mut self) -> bool {
        let start = Instant::now();
        let HumanDuration(limit) = self.health.timeout;
        // What to say at the end: the last real answer, if there was one.
        let mut last = None;
        let probing = async {
            let mut told = String::new();
            while let Err(miss) = self.attempt().await {
                if told != miss.now {
                    told.clone_from(&miss.now);
                    self.report(Report::Waiting(miss.now)).await;
                }
                last = Some(miss.late);
                tokio::time::sleep(delay(start.elapsed(), limit)).await;
            }
        };
        if timeout(limit, probing).await.is_ok() {
            self.report(Report::Ready).await;
            return true;
        }
        let last = last.unwrap_or_else(|| self.no_answer().late);
        let text = format!("{last} after {}", show_limit(limit));
        self.report(Report::TimedOut(text)).await;
        false
    }

    /// Probes at its interval for as long as it runs.
    async fn stay_ready(&mut self) {
        let HumanDuration(interval) = self.health.interval;
        let mut misses = 0;
        loop {
            tokio::time::sleep(interval.max(Duration::from_millis(1))).await;
            match self.attempt().await {
                Ok(()) if misses >= MISSES => {
                    misses = 0;
                    self.report(Report::Well).await;
                }
                Ok(()) => misses = 0,
                Err(miss) => {
                    misses += 1;
                    if misses >= MISSES {
                        self.report(Report::Sick(miss.late)).await;
                    }
                }
            }
        }
    }

    async fn report(&self, report: Report) {
        // Nobody listens any more only when this task is about to be aborted.
        let _ = self.sender.send(report).await;
    }

    /// Asks once.
    async fn attempt(&mut self) -> Result<(), Miss> {
        match &self.health.probe {
            Probe::Tcp { port } => match accepts(*port).await {
                true => Ok(()),
                false => Err(closed(*port)),
            },
            Probe::Http { port, path } => http(&mut self.http, *port, path).await,
            Probe::Exec { argv } => exec(&self.prepared, argv).await,
            // There is nothing to ask: the output is waited for.
            Probe::Log { contains } => {
                let miss = log_miss(contains);
                if !*self.seen.borrow() {
                    self.report(Report::Waiting(miss.now.clone())).await;
                }
                let ended = self.seen.wait_for(|seen| *seen).await.is_err();
                if ended {
                    // The output has ended, so the process will be found to have ended too.
                    std::future::pending::<()>().await;
                }
                Ok(())
            }
        }
    }

    /// What to say when an attempt took all the time there was.
    fn no_answer(&self) -> Miss {
        match &self.health.probe {
            Probe::Tcp { port } => closed(*port),
            Probe::Http { port, path } => no_http_answer(*port, path),
            Probe::Exec { argv } => exec_miss(argv, "has not ended yet", "did not end"),
            Probe::Log { contains } => log_miss(contains),
        }
    }
}

/// The time until the next probe: a tenth of the time since the start, so that a fast service is
/// seen fast and a slow one is not bothered.
fn delay(elapsed: Duration, limit: Duration) -> Duration {
    let delay = (elapsed / 10).clamp(Duration::from_millis(1), Duration::from_millis(100));
    delay.min(limit.saturating_sub(elapsed))
}

/// Whole seconds without a decimal: `30 s`.
pub(super) fn show_limit(limit: Duration) -> String {
    let text = show_duration(limit);
    match text.strip_suffix(".0 s") {
        Some(seconds) => format!("{seconds} s"),
        None => text,
    }
}

const LOOPBACK: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

/// Whether a connection to a port on loopback is accepted.
pub(super) async fn accepts(port: u16) -> bool {
    for address in LOOPBACK {
        let connecting = TcpStream::connect(SocketAddr::new(address, port));
        if let Ok(Ok(stream)) = timeout(TCP_LIMIT, connecting).await
            // A connection to a port that nobody listens on can meet itself.
            && stream.local_addr().ok() != stream.peer_addr().ok()
        {
            return true;
        }
    }
    false
}

fn closed(port: u16) -> Miss {
    Miss::new(
        format!("port {port} not open yet"),
        format!("port {port} not open"),
    )
}

fn no_http_answer(port: u16, path: &str) -> Miss {
    Miss::new(
        format!("GET :{port}{path} not answered yet"),
        format!("GET :{port}{path} not answered"),
    )
}

async fn http(client: &mut Option<reqwest::Client>, port: u16, path: &str) -> Result<(), Miss> {
    let broken = |error: reqwest::Error| Miss::new(error.to_string(), error.to_string());
    let client = match client {
        Some(client) => client,
        None => client.insert(http_client().map_err(broken)?),
    };
    // Behind a slash of our own, so that no path can name another host.
    let url = format!(
        "http://localhost:{port}/{}",
        path.strip_prefix('/').unwrap_or(path)
    );
    match client.get(url).send().await {
        Ok(answer) if (200..400).contains(&answer.status().as_u16()) => Ok(()),
        Ok(answer) => {
            let status = answer.status().as_u16();
            Err(Miss::new(
                format!("GET :{port}{path} answered {status}"),
                format!("GET :{port}{path} still answered {status}"),
            ))
        }
        Err(error) if error.is_connect() => Err(closed(port)),
        Err(_) => Err(no_http_answer(port, path)),
    }
}

fn http_client() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(0)
        .timeout(HTTP_LIMIT)
        .resolve_to_addrs("localhost", &LOOPBACK.map(|ip| SocketAddr::new(ip, 0)))
        .build()
}

fn exec_miss(argv: &[String], now: &str, late: &str) -> Miss {
    let program = argv.first().map_or("", String::as_str);
    Miss::new(
        format!("health check `{program}` {now}"),
        format!("health check `{program}` {late}"),
    )
}

async fn exec(prepared: &Prepared, argv: &[String]) -> Result<(), Miss> {
    let broken = |text: String| Miss::new(text.clone(), text);
    let prepared = prepared
        .with_argv(argv.to_vec())
        .map_err(|error| broken(format!("health check: {error}")))?;
    let mut command = prepared.command(None);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| broken(format!("health check: {}", prepared.error(error))))?;
    let _own = child.id().map(os::Own::new);
    let session = Session(child.id());
    let ended = timeout(EXEC_LIMIT, child.wait()).await;
    drop(session);
    match ended {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => {
            let text = match status.code() {
                Some(code) => format!("exited with {code}"),
                None => "was killed".to_owned(),
            };
            Err(exec_miss(argv, &text, &format!("still {text}")))
        }
        Ok(Err(error)) => Err(broken(format!("health check: {error}"))),
        Err(_) => Err(exec_miss(argv, "has not ended yet", "did not end")),
    }
}

/// Kills the process group of a probing program when dropped.
struct Session(Option<u32>);

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            os::kill_group(leader);
        }
    }
}

fn log_miss(contains: &str) -> Miss {
    Miss::new(
        format!("no line with `{contains}` in its output yet"),
        format!("no line with `{contains}` in its output"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_is_a_tenth_within_bounds() {
        let limit = Duration::from_secs(30);
        for (elapsed, expected) in [(0, 1), (5, 1), (50, 5), (500, 50), (20_000, 100)] {
            let elapsed = Duration::from_millis(elapsed);
            assert_eq!(delay(elapsed, limit), Duration::from_millis(expected));
        }
        let nearly = limit - Duration::from_micros(10);
        assert_eq!(delay(nearly, limit), Duration::from_micros(10));
    }

    #[test]
    fn limits_are_shown_without_needless_decimals() {
        for (millis, text) in [(30_000, "30 s"), (1_500, "1.5 s"), (90_000, "1m 30s")] {
            assert_eq!(show_limit(Duration::from_millis(millis)), text);
        }
    }
}
