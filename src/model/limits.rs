//! What a service may use at most.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The limits of a service with everything it starts. `None`: no limit of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Processor time per time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cores>,
    /// Open files of each process (`RLIMIT_NOFILE`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// Processes and threads at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u32>,
}

impl Limits {
    /// Whether nothing is limited.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// A number of processor cores in thousandths; as a number in JSON: `1.5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cores(u32);

impl Cores {
    /// The least that the kernel's scheduler takes: 1 ms of every 100 ms.
    pub const MIN: Self = Self(10);

    /// From thousandths.
    pub const fn from_millis(millis: u32) -> Self {
        Self(millis)
    }

    /// In thousandths.
    pub const fn millis(self) -> u32 {
        self.0
    }

    /// Rounded to thousandths; `None` if it is less than [`Cores::MIN`] or no such number.
    pub fn new(cores: f64) -> Option<Self> {
        let millis = (cores * 1000.0).round();
        let fits = millis >= f64::from(Self::MIN.0) && millis <= f64::from(u32::MAX);
        fits.then_some(Self(millis as u32))
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.0) / 1000.0)
    }
}

/// A number of bytes for people: `64 MiB`, `1.5 GiB`.
pub fn show_size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [
        (1 << 40, "TiB"),
        (1 << 30, "GiB"),
        (1 << 20, "MiB"),
        (1 << 10, "KiB"),
    ];
    let unit = UNITS.into_iter().find(|(size, _)| bytes >= *size);
    unit.map_or_else(
        || format!("{bytes} bytes"),
        |(size, unit)| {
            let tenths = (bytes as f64 / size as f64 * 10.0).round() / 10.0;
            format!("{tenths} {unit}")
        },
    )
}

impl Serialize for Cores {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 % 1000 {
            0 => serializer.serialize_u32(self.0 / 1000),
            _ => serializer.serialize_f64(f64::from(self.0) / 1000.0),
        }
    }
}

impl<'de> Deserialize<'de> for Cores {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let cores = f64::deserialize(deserializer)?;
        Self::new(cores).ok_or_else(|| {
            let message = format!("{cores} is not a number of cores: expected 0.01 or more");
            serde::de::Error::custom(message)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_short() {
        for (bytes, text) in [
            (512, "512 bytes"),
            (64 << 20, "64 MiB"),
            (3 << 29, "1.5 GiB"),
            (1_000_000, "976.6 KiB"),
        ] {
            assert_eq!(show_size(bytes), text);
        }
    }

    #[test]
    fn cores_are_read_and_written_as_numbers() {
        for (text, millis) in [("1", 1000), ("1.5", 1500), ("0.25", 250), ("2.0", 2000)] {
            let cores: Cores = serde_json::from_str(text).unwrap();
            assert_eq!(cores.millis(), millis);
            let again = serde_json::to_string(&cores).unwrap();
            assert_eq!(serde_json::from_str::<Cores>(&again).unwrap(), cores);
        }
        for text in ["0", "-1", "0.001", "1e300", "\"1\""] {
            assert!(serde_json::from_str::<Cores>(text).is_err(), "{text}");
        }
    }
}
