//! How it is found out that a service is ready, and that it still works.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::HumanDuration;

/// The health check of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// What is asked.
    #[serde(flatten)]
    pub probe: Probe,
    /// How long it may take to become ready, from its own start.
    #[serde(default = "Health::default_timeout")]
    pub timeout: HumanDuration,
    /// Time between probes once it is ready.
    #[serde(default = "Health::default_interval")]
    pub interval: HumanDuration,
    /// Time from its start in which misses do not count against it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub start_period: HumanDuration,
    /// How long one probe may take.
    #[serde(
        default = "Health::default_probe_timeout",
        skip_serializing_if = "is_default_probe_timeout"
    )]
    pub probe_timeout: HumanDuration,
    /// Misses in a row until a ready service counts as unhealthy; at least one.
    #[serde(
        default = "Health::default_retries",
        skip_serializing_if = "is_default_retries"
    )]
    pub retries: u32,
    /// Whether an unhealthy service is stopped and started again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restart: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn is_default_probe_timeout(value: &HumanDuration) -> bool {
    *value == Health::default_probe_timeout()
}

fn is_default_retries(value: &u32) -> bool {
    *value == Health::default_retries()
}

impl Health {
    /// 30 s (protocol page iris, §4.5).
    pub const fn default_timeout() -> HumanDuration {
        HumanDuration::from_secs(30)
    }

    /// 5 s (protocol page iris, §4.5).
    pub const fn default_interval() -> HumanDuration {
        HumanDuration::from_secs(5)
    }

    /// 5 s.
    pub const fn default_probe_timeout() -> HumanDuration {
        HumanDuration::from_secs(5)
    }

    /// 3 (protocol page iris, §4.5).
    pub const fn default_retries() -> u32 {
        3
    }

    /// `probe` with the default times.
    pub fn new(probe: Probe) -> Self {
        Self {
            probe,
            timeout: Self::default_timeout(),
            interval: Self::default_interval(),
            start_period: HumanDuration::default(),
            probe_timeout: Self::default_probe_timeout(),
            retries: Self::default_retries(),
            restart: false,
        }
    }

    /// How long a start is awaited: `timeout`, and never less than `start_period`.
    pub fn time_to_ready(&self) -> Duration {
        self.timeout.max(self.start_period).0
    }

    /// The environment that its probe needs the process to have (sd_notify(3), sd_watchdog_enabled(3)),
    /// but for the address of the socket. `None`: nothing at all.
    pub fn notifies(&self) -> Option<Watchdog> {
        let notifies = matches!(self.probe, Probe::Notify {});
        notifies.then(|| Watchdog(self.restart.then(|| self.silence())))
    }

    /// How long a service that sends `WATCHDOG=1` may be silent.
    pub fn silence(&self) -> Duration {
        self.interval.0.saturating_mul(self.retries.max(1))
    }
}

/// How often a service that notifies is told to send `WATCHDOG=1`; `None`: it is not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watchdog(pub Option<Duration>);

/// What a health check asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// A TCP connection to the port on loopback is accepted.
    Tcp {
        /// 1–65535.
        port: u16,
    },
    /// `GET` on loopback answers as it should.
    Http(HttpProbe),
    /// A program, run with the service's environment, exits 0.
    Exec {
        /// Its argument vector.
        argv: Vec<String>,
    },
    /// A line of output contains the text.
    Log {
        /// The text to look for.
        contains: String,
    },
    /// The service says so itself, with sd_notify(3).
    Notify {},
}

impl Probe {
    /// The port it connects to, if it does.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp { port } | Self::Http(HttpProbe { port, .. }) => Some(*port),
            Self::Exec { .. } | Self::Log { .. } | Self::Notify {} => None,
        }
    }
}

/// A question over HTTP, and the answers that are good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpProbe {
    /// 1–65535.
    pub port: u16,
    /// The path, starting with `/`.
    pub path: String,
    /// With or without TLS.
    #[serde(default, skip_serializing_if = "is_default")]
    pub scheme: Scheme,
    /// The good statuses. Empty: 200–399.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub status: Vec<StatusRange>,
    /// A text that the body of a good answer contains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Headers that are sent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The name that is asked for, in `Host` and to TLS. `None`: `localhost`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

impl HttpProbe {
    /// A plain `GET` of `path`.
    pub fn new(port: u16, path: impl Into<String>) -> Self {
        Self {
            port,
            path: path.into(),
            scheme: Scheme::Http,
            status: Vec::new(),
            body: None,
            headers: BTreeMap::new(),
            host: None,
        }
    }

    /// Whether a status is good.
    pub fn accepts(&self, status: u16) -> bool {
        match self.status.as_slice() {
            [] => (200..400).contains(&status),
            ranges => ranges.iter().any(|range| range.contains(status)),
        }
    }
}

/// With or without TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    /// Plain.
    #[default]
    Http,
    /// Over TLS. Any certificate is taken, because only loopback is asked.
    Https,
}

/// Statuses from one to another, both included; reads and writes as `204` or `200-399`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusRange {
    first: u16,
    last: u16,
}

impl StatusRange {
    /// Whether `status` is in it.
    pub fn contains(self, status: u16) -> bool {
        (self.first..=self.last).contains(&status)
    }
}

impl FromStr for StatusRange {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.trim().parse().ok();
        let (first, last) = match text.split_once(['-', '–']) {
            Some((first, last)) => (number(first), number(last)),
            None => (number(text), number(text)),
        };
        match (first, last) {
            (Some(first @ 100..=599), Some(last @ 100..=599)) if first <= last => {
                Ok(Self { first, last })
            }
            _ => Err(format!(
                "`{text}` is not an HTTP status: write for example `200` or `200-399`"
            )),
        }
    }
}

impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl Serialize for StatusRange {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StatusRange {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u16),
            Text(String),
        }
        let text = match Written::deserialize(d)? {
            Written::Number(number) => number.to_string(),
            Written::Text(text) => text,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn statuses_are_one_or_a_range() {
        for (text, shown) in [
            ("204", "204"),
            ("200-399", "200-399"),
            (" 200 - 200", "200"),
        ] {
            let range: StatusRange = text.parse().unwrap();
            assert_eq!(range.to_string(), shown);
        }
        for bad in ["", "99", "600", "300-200", "2xx", "200-", "-200"] {
            assert!(bad.parse::<StatusRange>().is_err(), "{bad:?}");
        }
        let mut probe = HttpProbe::new(80, "/");
        let good = |probe: &HttpProbe| [199, 200, 399, 400].map(|status| probe.accepts(status));
        assert_eq!(good(&probe), [false, true, true, false]);
        probe.status = vec!["200".parse().unwrap(), "400-499".parse().unwrap()];
        assert_eq!(good(&probe), [false, true, false, true]);
    }

    #[test]
    fn only_what_differs_from_the_defaults_is_written() {
        let mut health = Health::new(Probe::Http(HttpProbe::new(80, "/")));
        let plain = json!({"http": {"port": 80, "path": "/"}, "timeout": "30s", "interval": "5s"});
        assert_eq!(serde_json::to_value(&health).unwrap(), plain);
        assert_eq!(serde_json::from_value::<Health>(plain).unwrap(), health);
        health.probe = Probe::Notify {};
        health.restart = true;
        health.retries = 2;
        let text = serde_json::to_string(&health).unwrap();
        assert_eq!(serde_json::from_str::<Health>(&text).unwrap(), health);
        assert_eq!(
            health.notifies(),
            Some(Watchdog(Some(Duration::from_secs(10))))
        );
    }
}
