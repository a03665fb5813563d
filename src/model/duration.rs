//! Durations as people write them: `500ms`, `10s`, `1m 30s`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest duration that is read. Any point of time can be moved by it.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 86_400);

/// A duration that reads and writes as text with units (`250ms`, `10s`, `2h`); a bare number is refused,
/// because its unit would be a guess.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct HumanDuration(pub Duration);

impl HumanDuration {
    /// A whole number of seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// A whole number of milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = self.0.as_millis();
        if millis == 0 {
            return f.pad("0s");
        }
        let mut text = String::new();
        for (unit, size) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
            if millis >= size {
                text.push_str(&format!("{}{unit}", millis / size));
                millis %= size;
            }
        }
        f.pad(&text)
    }
}

impl fmt::Debug for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for HumanDuration {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is not a duration: write for example `500ms`, `10s` or `1m30s`");
        let span: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
        let duration = Duration::try_from(span).map_err(|_| wrong())?;
        match duration > LONGEST {
            true => Err(format!(
                "`{text}` is too long: a duration is at most 10 years"
            )),
            false => Ok(Self(duration)),
        }
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for HumanDuration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A duration with its unit, such as `500ms`, `10s` or `1m30s`.",
            "examples": ["500ms", "10s", "1m30s"]
        })
    }
}

/// A measured duration for people: one decimal below a minute (`0.1 s`), then `2m 4s`, `2h 4m`, `3d 2h`.
pub fn show_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 if duration < Duration::from_millis(100) => format!("{} ms", duration.as_millis()),
        0..60 => format!("{:.1} s", duration.as_secs_f64()),
        60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_round_trip_and_need_a_unit() {
        for (text, millis) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("1m30s", 90_000),
            ("2h", 7_200_000),
        ] {
            let parsed: HumanDuration = text.parse().unwrap();
            assert_eq!(parsed, HumanDuration::from_millis(millis));
            assert_eq!(parsed.to_string(), text);
        }
        for bad in ["10", "", "soon", "-3s"] {
            assert!(bad.parse::<HumanDuration>().is_err(), "{bad:?}");
        }
        for (long, fits) in [("80000h", true), ("90000h", false), ("2000000000h", false)] {
            assert_eq!(long.parse::<HumanDuration>().is_ok(), fits, "{long}");
        }
    }
}
