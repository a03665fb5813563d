//! What must be up before something starts.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{SandboxName, ServiceAddress, ServiceName};

/// One dependency.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Need {
    /// What is needed.
    pub target: NeedTarget,
    /// How far it must have come.
    pub condition: Condition,
    /// A hard dependency: whenever the needed service is stopped or replaced, this one is stopped
    /// before and started again after.
    pub restart: bool,
}

/// What a [`Need`] points at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NeedTarget {
    /// A service of the same sandbox.
    Local(ServiceName),
    /// A service of another sandbox.
    Remote(ServiceAddress),
    /// Every service of another sandbox (only in a sandbox's `needs`).
    Sandbox(SandboxName),
}

impl NeedTarget {
    /// The service meant, seen from `home`; `None` for a whole sandbox.
    pub fn resolve(&self, home: &SandboxName) -> Option<ServiceAddress> {
        match self {
            Self::Local(service) => Some(ServiceAddress::new(home.clone(), service.clone())),
            Self::Remote(address) => Some(address.clone()),
            Self::Sandbox(_) => None,
        }
    }
}

impl fmt::Display for NeedTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(service) => service.fmt(f),
            Self::Remote(address) => address.fmt(f),
            Self::Sandbox(sandbox) => write!(f, "{sandbox}/*"),
        }
    }
}

impl FromStr for NeedTarget {
    type Err = super::AddressError;
    /// A bare name is a service of the same sandbox; `sandbox/*` is a whole sandbox.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            None => ServiceName::new(text).map(Self::Local),
            Some((sandbox, "*")) => SandboxName::new(sandbox).map(Self::Sandbox),
            Some(_) => text.parse().map(Self::Remote),
        }
    }
}

/// Written as plain text where only the target differs from the defaults, as in iris `needs`.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum NeedForm {
    Plain(String),
    Full {
        service: String,
        #[serde(default)]
        condition: Condition,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        restart: bool,
    },
}

impl Serialize for Need {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let service = self.target.to_string();
        if self.condition == Condition::Ready && !self.restart {
            NeedForm::Plain(service).serialize(s)
        } else {
            let (condition, restart) = (self.condition, self.restart);
            NeedForm::Full {
                service,
                condition,
                restart,
            }
            .serialize(s)
        }
    }
}

impl<'de> Deserialize<'de> for Need {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let (service, condition, restart) = match NeedForm::deserialize(d)? {
            NeedForm::Plain(service) => (service, Condition::Ready, false),
            NeedForm::Full {
                service,
                condition,
                restart,
            } => (service, condition, restart),
        };
        let target = service.parse().map_err(serde::de::Error::custom)?;
        Ok(Self {
            target,
            condition,
            restart,
        })
    }
}

/// How far a needed service must have come.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Its program was executed.
    Started,
    /// Its health check passed.
    #[default]
    Ready,
    /// It exited with 0 (tasks).
    Completed,
}
