//! What a health check's values have to be like, whoever sends them.

use hyper::header::{HeaderName, HeaderValue};

use crate::model::{Health, HttpProbe, Probe};

/// Why a health check cannot be carried out, by the name of the field.
pub(in crate::supervisor) fn check(health: &Health) -> Result<(), String> {
    match &health.probe {
        Probe::Exec { argv } if argv.is_empty() => {
            return Err("`health.exec.argv` must name a program".to_owned());
        }
        Probe::Exec { argv } if argv.iter().any(|arg| arg.contains('\0')) => {
            return Err("`health.exec.argv` must not contain NUL".to_owned());
        }
        Probe::Http(probe) => check_http(probe)?,
        _ => {}
    }
    if health.retries == 0 {
        return Err("`health.retries` must be at least 1".to_owned());
    }
    if health.probe_timeout.0.is_zero() {
        return Err("`health.probe_timeout` must be more than 0s".to_owned());
    }
    Ok(())
}

fn check_http(probe: &HttpProbe) -> Result<(), String> {
    let path = &probe.path;
    if !path.starts_with('/') || path.contains(|c: char| c.is_control() || c == ' ') {
        let text = "`health.http.path` must start with `/`, without spaces and control characters";
        return Err(text.to_owned());
    }
    if let Some(host) = &probe.host
        && HeaderValue::from_str(host).is_err()
    {
        return Err("`health.http.host` must be the name of a host".to_owned());
    }
    for (name, value) in &probe.headers {
        if HeaderName::from_bytes(name.as_bytes()).is_err() || HeaderValue::from_str(value).is_err()
        {
            let name = name.escape_debug();
            return Err(format!(
                "`health.http.headers.{name}` is not an HTTP header"
            ));
        }
    }
    Ok(())
}
