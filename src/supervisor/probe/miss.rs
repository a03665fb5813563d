//! Why a probe has failed, in words for people.

use crate::model::{HttpProbe, Scheme, Secrets};

/// The most characters of an answer that are shown.
const SHOWN: usize = 200;

/// Why a probe failed: as long as there is hope, and in the end; and what was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Miss {
    now: String,
    late: String,
    answer: Option<String>,
}

impl Miss {
    pub fn new(now: impl Into<String>, late: impl Into<String>) -> Self {
        Self {
            now: now.into(),
            late: late.into(),
            answer: None,
        }
    }

    /// The same words at any time.
    pub fn plain(text: impl Into<String>) -> Self {
        let text = text.into();
        Self::new(text.clone(), text)
    }

    pub fn with(self, answer: Option<String>) -> Self {
        Self { answer, ..self }
    }

    /// While there is hope.
    pub fn now(&self) -> String {
        self.told(&self.now)
    }

    /// In the end.
    pub fn late(&self) -> String {
        self.told(&self.late)
    }

    /// In the end, after this time.
    pub fn after(&self, time: &str) -> String {
        self.told(&format!("{} after {time}", self.late))
    }

    fn told(&self, text: &str) -> String {
        match &self.answer {
            Some(answer) => format!("{text}: {answer}"),
            None => text.to_owned(),
        }
    }
}

/// Makes answers fit to be shown: the values of these secrets are not in them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answers<'a>(pub &'a Secrets);

impl Answers<'_> {
    /// One line of printable characters, not too long. `None` if nothing is left.
    pub fn clean(self, text: &str) -> Option<String> {
        let text = self.0.conceal(text);
        let printable = text.replace(char::is_control, " ");
        let words: Vec<_> = printable.split_whitespace().collect();
        let line = words.join(" ");
        let mut shown: String = line.chars().take(SHOWN).collect();
        if shown.len() < line.len() {
            shown.push('…');
        }
        (!shown.is_empty()).then_some(shown)
    }

    /// The last line that is not empty.
    pub fn last_line(self, output: &[u8]) -> Option<String> {
        let output = String::from_utf8_lossy(output);
        let mut lines = output.lines().rev();
        lines.find_map(|line| self.clean(line))
    }
}

pub(super) fn closed(port: u16) -> Miss {
    Miss::new(
        format!("port {port} not open yet"),
        format!("port {port} not open"),
    )
}

/// `GET :80/healthz`.
pub(super) fn question(probe: &HttpProbe) -> String {
    let scheme = match probe.scheme {
        Scheme::Http => "",
        Scheme::Https => "https ",
    };
    format!("GET {scheme}:{}{}", probe.port, probe.path)
}

pub(super) fn no_http_answer(probe: &HttpProbe) -> Miss {
    let question = question(probe);
    Miss::new(
        format!("{question} not answered yet"),
        format!("{question} not answered"),
    )
}

pub(super) fn exec(argv: &[String], now: &str, late: &str) -> Miss {
    let program = argv.first().map_or("", String::as_str);
    Miss::new(
        format!("health check `{program}` {now}"),
        format!("health check `{program}` {late}"),
    )
}

pub(super) fn no_line(contains: &str) -> Miss {
    Miss::new(
        format!("no line with `{contains}` in its output yet"),
        format!("no line with `{contains}` in its output"),
    )
}

pub(super) fn no_note() -> Miss {
    Miss::new("no READY=1 from it yet", "no READY=1 from it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_one_line_without_secrets() {
        let mut secrets = Secrets::default();
        secrets.insert("pw", "hunter2".to_owned().into());
        let answers = Answers(&secrets);
        for (text, shown) in [
            ("", None),
            (" \u{1b}[31mred\r\n line ", Some("[31mred line")),
            (
                "password hunter2 is wrong",
                Some("password ${secret.pw} is wrong"),
            ),
        ] {
            assert_eq!(answers.clean(text).as_deref(), shown);
        }
        let long = answers.clean(&"é".repeat(300)).unwrap();
        assert_eq!(long.chars().count(), SHOWN + 1);
        let last = answers.last_line(b"first\nlast \xff\n\n");
        assert_eq!(last.as_deref(), Some("last \u{fffd}"));
    }

    #[test]
    fn the_answer_comes_last() {
        let miss = closed(80).with(Some("no".to_owned()));
        assert_eq!(miss.now(), "port 80 not open yet: no");
        assert_eq!(miss.late(), "port 80 not open: no");
        assert_eq!(miss.after("3 s"), "port 80 not open after 3 s: no");
    }
}
