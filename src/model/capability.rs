//! What a platform can honour, as data: checked by `manifest`, printed by `gabion platforms`.

/// How a platform deals with one manifest field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// The platform does it.
    Native,
    /// gabion supplies what the platform lacks.
    Supplied,
    /// The platform does it when it makes a sandbox, and cannot change it later.
    Fixed,
    /// Using the field there is an error at plan time.
    Unsupported,
}

/// Whether a field belongs to a sandbox or to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// A field of `sandboxes.<name>`.
    Sandbox,
    /// A field of `sandboxes.<name>.services.<name>`.
    Service,
}

/// Which ports of services a platform gives URLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urls {
    /// Every port, at this machine's loopback address.
    Loopback,
    /// The `http_port`: there the URL of the sandbox leads, which has it from the beginning.
    Sandbox,
    /// The `http_port`, once the service is started.
    HttpPort,
    /// Those of `ports` that may be exposed, once the service is started.
    Ports {
        /// The lowest one that may be exposed.
        least: u16,
        /// Those above that may not.
        reserved: &'static [u16],
    },
    /// None, because of this.
    None(&'static str),
}

/// One platform kind's row in the capability table.
#[derive(Debug, Clone, Copy)]
pub struct Capabilities {
    /// The word written as `platform:` or `kind:`.
    pub kind: &'static str,
    /// One line on what it is.
    pub summary: &'static str,
    /// Whether all sandboxes share one network, so that two of them cannot have the same port.
    pub shared_network: bool,
    /// Which ports are reached at a URL that can be named in a manifest.
    pub urls: Urls,
    /// The settings that an entry of `platforms:` may have besides `kind`, each with what it is for.
    pub settings: &'static [(&'static str, &'static str)],
    /// Fields that are not [`Support::Native`], with a reason for people.
    pub exceptions: &'static [(Scope, &'static str, Support, &'static str)],
    /// Fields of a sandbox that need a setting of the platform's entry to have one value, which it has
    /// unless it is written: field, setting and value.
    pub demands: &'static [(&'static str, &'static str, &'static str)],
}

/// A field that a kind of platform honours in general, but not on this machine now. Found out by whoever
/// reads the machine, and handed to `manifest`, which knows where the field is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hindrance {
    /// The kind of platform.
    pub kind: &'static str,
    /// Where the field is.
    pub scope: Scope,
    /// Its name.
    pub field: &'static str,
    /// What is missing: `needs a container engine, and none answers`.
    pub problem: String,
    /// What was found instead.
    pub why: String,
    /// What to do.
    pub help: String,
}

impl Capabilities {
    /// The fields of a sandbox that cannot be changed once it is there.
    pub fn fixed(&self) -> impl Iterator<Item = &'static str> {
        let fixed = |(scope, _, support, _): &&(Scope, _, Support, _)| {
            *scope == Scope::Sandbox && *support == Support::Fixed
        };
        self.exceptions
            .iter()
            .filter(fixed)
            .map(|(_, field, ..)| *field)
    }

    /// How `field` is dealt with, and why if not natively.
    pub fn support(&self, scope: Scope, field: &str) -> (Support, &'static str) {
        self.exceptions
            .iter()
            .find(|(at, name, ..)| *at == scope && *name == field)
            .map_or((Support::Native, ""), |(_, _, support, why)| {
                (*support, why)
            })
    }
}
