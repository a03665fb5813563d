//! Names and addresses: the keys of everything in plans, logs and messages.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The rule for stack, sandbox and service names, in words, for messages.
///
/// It is the service name rule of the iris protocol without the dot (a name is also one
/// component of a path and of a host name).
pub const NAME_RULE: &str =
    "letters, digits, `-` and `_`, starting with a letter or digit, at most 63 characters";

fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes[0].is_ascii_alphanumeric()
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// A name or address that breaks [`NAME_RULE`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address: write `sandbox` or `sandbox/service`, each of {NAME_RULE}")]
pub struct AddressError(pub String);

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Checks `text` against [`NAME_RULE`].
            pub fn new(text: impl Into<String>) -> Result<Self, AddressError> {
                let text = text.into();
                if is_name(&text) { Ok(Self(text)) } else { Err(AddressError(text)) }
            }

            /// The name as text; safe as one path component.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = AddressError;
            fn from_str(text: &str) -> Result<Self, AddressError> {
                Self::new(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                Self::new(String::deserialize(d)?).map_err(serde::de::Error::custom)
            }
        }
    };
}

name_type! {
    /// The name of a sandbox within its stack.
    SandboxName
}
name_type! {
    /// The name of a service within its sandbox.
    ServiceName
}

impl ServiceName {
    /// The name of a process that is not a service. No service can have it; safe as one path
    /// component.
    pub(crate) fn of_process(number: u64) -> Self {
        Self(format!("{PROCESS}{number}"))
    }

    /// Whether this is the name of a process that is not a service.
    pub(crate) fn is_process(&self) -> bool {
        self.0.starts_with(PROCESS)
    }

    /// Reads a name of either kind, as it stands in the name of a file of ours.
    pub(crate) fn of_either(text: &str) -> Option<Self> {
        let number = text.strip_prefix(PROCESS).map(str::parse);
        match number {
            Some(number) => number.ok().map(Self::of_process),
            None => Self::new(text).ok(),
        }
    }
}

/// What the names of processes that are not services begin with.
const PROCESS: &str = "process@";

/// `sandbox/service`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceAddress {
    /// The sandbox that hosts the service.
    pub sandbox: SandboxName,
    /// The service's own name.
    pub service: ServiceName,
}

impl ServiceAddress {
    /// Joins two names that were already checked.
    pub fn new(sandbox: SandboxName, service: ServiceName) -> Self {
        Self { sandbox, service }
    }
}

impl fmt::Display for ServiceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.sandbox, self.service))
    }
}

impl fmt::Debug for ServiceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.sandbox, self.service)
    }
}

impl FromStr for ServiceAddress {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text.parse()? {
            Address::Service(address) => Ok(address),
            Address::Sandbox(_) => Err(AddressError(text.to_owned())),
        }
    }
}

/// `sandbox` or `sandbox/service`. A sandbox sorts before its services.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A whole sandbox.
    Sandbox(SandboxName),
    /// One service in a sandbox.
    Service(ServiceAddress),
}

impl Address {
    /// The sandbox that is, or hosts, the thing addressed.
    pub fn sandbox(&self) -> &SandboxName {
        match self {
            Self::Sandbox(name) => name,
            Self::Service(address) => &address.sandbox,
        }
    }

    /// The service's name, if this addresses a service.
    pub fn service(&self) -> Option<&ServiceName> {
        match self {
            Self::Sandbox(_) => None,
            Self::Service(address) => Some(&address.service),
        }
    }

    /// Whether `self` is `other`, or the sandbox that hosts it.
    pub fn covers(&self, other: &ServiceAddress) -> bool {
        match self {
            Self::Sandbox(name) => *name == other.sandbox,
            Self::Service(address) => address == other,
        }
    }
}

impl Ord for Address {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.sandbox(), self.service()).cmp(&(other.sandbox(), other.service()))
    }
}

impl PartialOrd for Address {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl From<SandboxName> for Address {
    fn from(name: SandboxName) -> Self {
        Self::Sandbox(name)
    }
}

impl From<ServiceAddress> for Address {
    fn from(address: ServiceAddress) -> Self {
        Self::Service(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sandbox(name) => name.fmt(f),
            Self::Service(address) => address.fmt(f),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Address {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let bad = |_| AddressError(text.to_owned());
        match text.split_once('/') {
            None => Ok(Self::Sandbox(SandboxName::new(text).map_err(bad)?)),
            Some((sandbox, service)) => Ok(Self::Service(ServiceAddress::new(
                SandboxName::new(sandbox).map_err(bad)?,
                ServiceName::new(service).map_err(bad)?,
            ))),
        }
    }
}

macro_rules! serde_as_text {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
serde_as_text!(Address, ServiceAddress);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip_and_hostile_names_are_refused() {
        for good in ["web", "web/api", "a-b_c/D9"] {
            assert_eq!(good.parse::<Address>().unwrap().to_string(), good);
        }
        for bad in [
            "", "/", "a/", "/b", "a/b/c", "..", "a/..", "-a", ".a", "a b", "a\0", "é",
        ] {
            assert!(bad.parse::<Address>().is_err(), "{bad:?}");
        }
        assert!(SandboxName::new("x".repeat(64)).is_err());
    }
}
