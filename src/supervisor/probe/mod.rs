//! Health: asks a service whether it is ready, at once and then less and less often; once it is ready,
//! asks at its interval whether it still is.
//!
//! In: a health check, and what its process was started with. Out: [`Report`]s with the last answer in
//! words. Decides nothing: what becomes of a service that is not well is its owner's business.

mod check;
mod exec;
mod http;
mod miss;
mod notify;
mod pause;
mod tcp;
mod tls;

#[cfg(target_os = "linux")]
#[path = "socket_linux.rs"]
mod socket;
#[cfg(not(target_os = "linux"))]
#[path = "socket_other.rs"]
mod socket;

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use self::miss::{Answers, Miss};
use self::notify::Note;
use self::pause::Pause;
use super::live::Inside;
use crate::model::{Health, HumanDuration, Probe, Secrets, show_duration};

pub(super) use self::check::check;
pub(super) use self::notify::environment;
pub(super) use self::socket::NotifySocket;

/// What a prober has found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Report {
    /// Not ready yet, because of this.
    Waiting(String),
    /// It has become ready.
    Ready,
    /// It did not become ready in time; the last answer.
    TimedOut(String),
    /// It was ready and has missed too often; the last answer.
    Sick(String),
    /// It answers again.
    Well,
    /// What it says of itself.
    Status(Option<String>),
    /// It has sent its first `WATCHDOG=1`, and has to go on with that.
    Watched,
}

/// Whether the service was ready before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    /// No.
    Starting,
    /// Yes, and it was well.
    Ready,
    /// Yes, but it was not well lately.
    Unhealthy,
}

/// From where probing goes on: nothing but plain values, so that it can go on in another supervisor.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begin {
    /// How far the service has come.
    pub before: Before,
    /// When its process was started.
    pub started: Timestamp,
    /// Whether it has ever sent `WATCHDOG=1`.
    pub watched: bool,
}

/// What probes are made with.
pub(super) struct Means {
    /// The main process; 0 if it is not known.
    pub pid: u32,
    /// Where probing programs are run.
    pub inside: Inside,
    /// Whether the text of a log probe has been seen.
    pub seen: watch::Receiver<bool>,
    /// Where the service notifies, if it does.
    pub notify: Option<Arc<NotifySocket>>,
    /// What is never shown, even if an answer holds it.
    pub secrets: Secrets,
}

/// The task that probes one process. Ends when this is dropped.
#[derive(Debug)]
pub(super) struct Prober {
    reports: mpsc::Receiver<Report>,
    task: JoinHandle<()>,
}

impl Prober {
    /// Starts probing at once.
    pub(super) fn start(health: &Health, begin: Begin, means: Means) -> Self {
        let (sender, reports) = mpsc::channel(8);
        let lived = Timestamp::now().duration_since(begin.started);
        let lived = Duration::try_from(lived).unwrap_or_default();
        let now = Instant::now();
        let task = Task {
            health: health.clone(),
            means,
            // A machine that was just booted may have no point of time so long ago.
            lived_before: lived,
            began: now,
            watched: begin.watched,
            sender,
        };
        Self {
            reports,
            task: tokio::spawn(task.run(begin.before)),
        }
    }

    /// The next report; never returns if there will be none. Cancel-safe.
    pub(super) async fn next(&mut self) -> Report {
        match self.reports.recv().await {
            Some(report) => report,
            None => pending().await,
        }
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Task {
    health: Health,
    means: Means,
    /// How long the process had lived when this task began.
    lived_before: Duration,
    began: Instant,
    watched: bool,
    sender: mpsc::Sender<Report>,
}

impl Task {
    async fn run(mut self, before: Before) {
        if before == Before::Starting && !self.become_ready().await {
            return;
        }
        match &self.health.probe {
            // It has been seen, and that cannot change.
            Probe::Log { .. } if before == Before::Unhealthy => self.report(Report::Well).await,
            Probe::Log { .. } => {}
            Probe::Notify {} => self.listen(before == Before::Unhealthy).await,
            _ => self.stay_ready(before == Before::Unhealthy).await,
        }
    }

    /// How long the process has lived.
    fn lived(&self) -> Duration {
        self.lived_before.saturating_add(self.began.elapsed())
    }

    /// Probes until it is ready (true) or out of time (false).
    async fn become_ready(&mut self) -> bool {
        let limit = self.health.time_to_ready();
        let left = limit.saturating_sub(self.lived_before);
        let pause = match &self.health.probe {
            Probe::Exec { .. } => Pause::PROCESS,
            _ => Pause::CONNECTION,
        };
        // What to say at the end: the last real answer, if there was one.
        let mut last = None;
        let probing = async {
            let mut told = String::new();
            while let Err(miss) = self.attempt().await {
                let text = miss.now();
                if told != text {
                    told.clone_from(&text);
                    self.report(Report::Waiting(text)).await;
                }
                last = Some(miss);
                let lived = self.lived();
                pause.wait(lived, limit.saturating_sub(lived)).await;
            }
        };
        if timeout(left, probing).await.is_ok() {
            self.report(Report::Ready).await;
            return true;
        }
        let last = last.unwrap_or_else(|| self.no_answer());
        let text = last.after(&show_limit(limit));
        self.report(Report::TimedOut(text)).await;
        false
    }

    /// Probes at its interval for as long as it runs.
    async fn stay_ready(&mut self, sick: bool) {
        let HumanDuration(interval) = self.health.interval;
        let limit = self.health.retries.max(1);
        let mut misses = if sick { limit } else { 0 };
        loop {
            sleep(interval.max(Duration::from_millis(1))).await;
            match self.attempt().await {
                Ok(()) if misses >= limit => {
                    misses = 0;
                    self.report(Report::Well).await;
                }
                Ok(()) => misses = 0,
                Err(_) if self.lived() < self.health.start_period.0 => {}
                Err(miss) => {
                    misses = misses.saturating_add(1);
                    if misses >= limit {
                        self.report(Report::Sick(miss.late())).await;
                    }
                }
            }
        }
    }

    /// Hears what a ready service says of itself, and when it falls silent.
    async fn listen(&mut self, mut sick: bool) {
        let silence = self.health.silence();
        let mut last = Instant::now();
        let mut ends = false;
        loop {
            let due = match self.watched && !sick && !ends {
                true => {
                    let grace = self.health.start_period.0.saturating_sub(self.lived());
                    let after = Instant::now().checked_add(grace);
                    last.checked_add(silence).zip(after).map(|(a, b)| a.max(b))
                }
                false => None,
            };
            let note = tokio::select! {
                note = self.note() => note,
                () = until(due) => {
                    sick = true;
                    let text = format!("no WATCHDOG=1 for {}", show_limit(silence));
                    self.report(Report::Sick(text)).await;
                    continue;
                }
            };
            match note {
                Note::Watchdog => {
                    last = Instant::now();
                    self.watched().await;
                    if std::mem::take(&mut sick) {
                        self.report(Report::Well).await;
                    }
                }
                Note::Trigger => {
                    sick = true;
                    let text = "it says that it has failed (WATCHDOG=trigger)".to_owned();
                    self.report(Report::Sick(text)).await;
                }
                Note::Stopping => {
                    ends = true;
                    self.report(Report::Status(Some("stopping".to_owned())))
                        .await;
                }
                Note::Status(text) => self.status(&text).await,
                Note::Ready => {}
            }
        }
    }

    async fn watched(&mut self) {
        if !self.watched {
            self.watched = true;
            self.report(Report::Watched).await;
        }
    }

    async fn status(&self, text: &str) {
        let text = Answers(&self.means.secrets).clean(text);
        self.report(Report::Status(text)).await;
    }

    async fn report(&self, report: Report) {
        // Nobody listens any more only when this task is about to be aborted.
        let _ = self.sender.send(report).await;
    }

    /// What the service says next.
    async fn note(&self) -> Note {
        match &self.means.notify {
            Some(socket) => notify::next(socket, self.means.pid).await,
            None => pending().await,
        }
    }

    /// Asks once.
    async fn attempt(&mut self) -> Result<(), Miss> {
        let HumanDuration(limit) = self.health.probe_timeout;
        let answers = Answers(&self.means.secrets);
        let asked = timeout(limit, async {
            match &self.health.probe {
                Probe::Tcp { port } => tcp::attempt(*port).await,
                Probe::Http(probe) => http::attempt(probe, answers).await,
                _ => Ok(()),
            }
        });
        match &self.health.probe {
            Probe::Tcp { .. } | Probe::Http(_) => {
                asked.await.unwrap_or_else(|_| Err(self.no_answer()))
            }
            // It keeps to the limit itself, so that what was said until then is told.
            Probe::Exec { argv } => exec::attempt(&self.means.inside, argv, answers, limit).await,
            // There is nothing to ask: it is waited for.
            Probe::Log { contains } => {
                self.line(contains, self.means.seen.clone()).await;
                Ok(())
            }
            Probe::Notify {} => {
                drop(asked);
                self.ready_note().await;
                Ok(())
            }
        }
    }

    async fn line(&self, contains: &str, mut seen: watch::Receiver<bool>) {
        if !*seen.borrow() {
            let miss = miss::no_line(contains);
            self.report(Report::Waiting(miss.now())).await;
        }
        let ended = seen.wait_for(|seen| *seen).await.is_err();
        if ended {
            // The output has ended, so the process will be found to have ended too.
            pending::<()>().await;
        }
    }

    async fn ready_note(&mut self) {
        self.report(Report::Waiting(miss::no_note().now())).await;
        loop {
            match self.note().await {
                Note::Ready => return,
                Note::Watchdog => self.watched().await,
                Note::Status(text) => self.status(&text).await,
                Note::Trigger | Note::Stopping => {}
            }
        }
    }

    /// What to say when an attempt took all the time there was.
    fn no_answer(&self) -> Miss {
        match &self.health.probe {
            Probe::Tcp { port } => miss::closed(*port),
            Probe::Http(probe) => miss::no_http_answer(probe),
            Probe::Exec { argv } => miss::exec(argv, "has not ended yet", "did not end"),
            Probe::Log { contains } => miss::no_line(contains),
            Probe::Notify {} => miss::no_note(),
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}

/// Whole seconds without a decimal: `30 s`.
pub(super) fn show_limit(limit: Duration) -> String {
    let text = show_duration(limit);
    match text.strip_suffix(".0 s") {
        Some(seconds) => format!("{seconds} s"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::container::Engine;

    #[test]
    fn limits_are_shown_without_needless_decimals() {
        for (millis, text) in [(30_000, "30 s"), (1_500, "1.5 s"), (90_000, "1m 30s")] {
            assert_eq!(show_limit(Duration::from_millis(millis)), text);
        }
    }

    #[tokio::test]
    async fn a_start_goes_on_with_the_time_that_is_left() {
        let mut health = Health::new(Probe::Notify {});
        health.timeout = HumanDuration::from_secs(3);
        let inside = Inside::Container(Engine::unreachable(), String::new());
        let late = |health: &Health, lived: Duration| {
            let began = Timestamp::now() - jiff::SignedDuration::try_from(lived).unwrap();
            let begin = Begin {
                before: Before::Starting,
                started: began,
                watched: false,
            };
            let means = Means {
                pid: 0,
                inside: inside.clone(),
                seen: watch::channel(false).1,
                notify: None,
                secrets: Secrets::default(),
            };
            let mut prober = Prober::start(health, begin, means);
            async move {
                let start = Instant::now();
                let waits = prober.next().await;
                assert_eq!(waits, Report::Waiting("no READY=1 from it yet".into()));
                (prober.next().await, start.elapsed())
            }
        };
        let says = Report::TimedOut("no READY=1 from it after 3 s".into());
        for (lived, left) in [(2_800, 200), (100_000, 0)] {
            let (report, waited) = late(&health, Duration::from_millis(lived)).await;
            assert_eq!(report, says);
            let left = Duration::from_millis(left);
            assert!(waited + Duration::from_millis(20) > left, "{waited:?}");
            assert!(waited < Duration::from_secs(2), "{waited:?}");
        }
        health.start_period = HumanDuration::from_millis(4_000);
        let (_, waited) = late(&health, Duration::from_millis(3_700)).await;
        assert!(waited > Duration::from_millis(250), "{waited:?}");
    }
}
