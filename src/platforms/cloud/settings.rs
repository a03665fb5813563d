//! The settings of a platform entry: from the manifest, or else from the environment variables that
//! the platform's own tools read.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::http::{BaseUrl, Client, Connections, Endpoint};
use crate::manifest::PlatformConfig;
use crate::model::{HumanDuration, Secrets};
use crate::platforms::{PlatformError, Result};

/// Reads an environment variable; handed in by whoever may.
pub type Var<'a> = &'a (dyn Fn(&str) -> Option<String> + Sync);

/// One platform entry and its surroundings.
#[derive(Clone, Copy)]
pub struct Settings<'a> {
    /// The entry's name in the manifest.
    pub name: &'a str,
    /// What the manifest says of it.
    pub config: &'a PlatformConfig,
    /// The values behind `${secret.name}`.
    pub secrets: &'a Secrets,
    /// The environment.
    pub var: Var<'a>,
    /// The pools and budgets of this process.
    pub connections: &'a Connections,
}

/// Where a platform's settings are looked for.
#[derive(Debug, Clone, Copy)]
pub struct Sources {
    /// Where it is if nobody says otherwise.
    pub url: &'static str,
    /// The variables that hold its URL; the first that is set counts.
    pub url_vars: &'static [&'static str],
    /// The variables that hold its token; the first that is set counts.
    pub token_vars: &'static [&'static str],
}

impl Settings<'_> {
    /// A setting, or else the first of the variables that is set.
    pub fn text(&self, setting: &str, vars: &[&str]) -> Option<SecretString> {
        let written = self.config.setting(setting, self.secrets);
        // A secret without a value stays as written, and is no value.
        let written = written.filter(|text| {
            let text = text.expose_secret();
            !text.is_empty() && !text.contains("${secret.")
        });
        let from_var = |name: &&str| (self.var)(name).filter(|value| !value.is_empty());
        written.or_else(|| vars.iter().find_map(from_var).map(SecretString::from))
    }

    /// A setting that is no secret.
    pub fn plain(&self, setting: &str) -> Option<String> {
        let text = self.text(setting, &[])?;
        Some(text.expose_secret().to_owned())
    }

    /// A setting that is a duration; `default` if it is not there.
    pub fn duration(&self, setting: &str, default: Duration) -> Result<Duration> {
        let Some(text) = self.plain(setting) else {
            return Ok(default);
        };
        let read: Result<HumanDuration, _> = text.parse();
        read.map(|it| it.0)
            .map_err(|error| self.wrong(setting, &error))
    }

    /// A setting that is true or false; `default` if it is not there.
    pub fn flag(&self, setting: &str, default: bool) -> Result<bool> {
        match self.plain(setting).as_deref() {
            None => Ok(default),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(other) => Err(self.wrong(setting, &format!("`{other}` is not true or false"))),
        }
    }

    /// Whether the platform's token is at hand.
    pub fn has_token(&self, sources: &Sources) -> bool {
        self.text("token", sources.token_vars).is_some()
    }

    /// Where the platform is, and the token for it. Without a token it is an error.
    pub fn endpoint(&self, sources: &Sources) -> Result<Endpoint> {
        self.endpoint_at("url", sources)
    }

    /// As [`Settings::endpoint`], where another setting says where it is.
    pub fn endpoint_at(&self, setting: &str, sources: &Sources) -> Result<Endpoint> {
        let token = self.text("token", sources.token_vars).ok_or_else(|| {
            let vars = sources.token_vars.join(" or ");
            PlatformError::new(format!("{} has no token", self.shown())).hint(format!(
                "set `token: \"${{secret.…}}\"` in `platforms:`, or the environment variable {vars}"
            ))
        })?;
        Ok(Endpoint::new(self.url_at(setting, sources)?, Some(token)))
    }

    /// Where the platform is.
    pub fn url(&self, sources: &Sources) -> Result<BaseUrl> {
        self.url_at("url", sources)
    }

    fn url_at(&self, setting: &str, sources: &Sources) -> Result<BaseUrl> {
        let text = self.text(setting, sources.url_vars);
        let text = text.as_ref().map_or(sources.url, |it| it.expose_secret());
        BaseUrl::parse(text).map_err(|error| self.wrong(setting, &error.to_string()))
    }

    /// A client for an endpoint, whose errors show no secret of the manifest.
    pub fn client(&self, endpoint: Endpoint) -> Result<Client> {
        Client::new(self.connections, endpoint, self.secrets.clone())
    }

    /// The error of a setting that cannot be used.
    pub fn wrong(&self, setting: &str, why: &str) -> PlatformError {
        PlatformError::new(format!("{}: `{setting}`: {why}", self.shown()))
    }

    /// `platform `cloud` (kind `sprites`)`.
    fn shown(&self) -> String {
        match self.name == self.config.kind {
            true => format!("platform `{}`", self.name),
            false => format!("platform `{}` (kind `{}`)", self.name, self.config.kind),
        }
    }
}
