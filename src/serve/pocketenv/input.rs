//! The fields of a request's body, checked in the words of the platform (protocol page pocketenv, §1.1).

use serde_json::{Map, Value};

use super::problem::{Answer, Problem};

/// An object of the body. Keys that nobody asks for are ignored.
#[derive(Debug, Default)]
pub(super) struct Input {
    /// `Input`, or `Input/service`.
    path: String,
    fields: Map<String, Value>,
}

impl Input {
    pub fn new(fields: Map<String, Value>) -> Self {
        let path = "Input".to_owned();
        Self { path, fields }
    }

    /// `Input/port must be an integer`.
    fn wrong(&self, key: &str, must: &str) -> Problem {
        Problem::invalid(format!("{}/{key} {must}", self.path))
    }

    fn missing(&self, key: &str) -> Problem {
        Problem::invalid(format!("{} must have the property \"{key}\"", self.path))
    }

    pub fn has(&self, key: &str) -> bool {
        self.fields.contains_key(key)
    }

    /// Whether a key is there and is `null`, which some operations take for "no more".
    pub fn is_null(&self, key: &str) -> bool {
        self.fields.get(key).is_some_and(Value::is_null)
    }

    /// What is there, as it is.
    pub fn raw(&self, key: &str) -> Option<&Value> {
        self.fields.get(key)
    }

    pub fn text(&self, key: &str) -> Answer<Option<String>> {
        match self.fields.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(self.wrong(key, "must be a string")),
        }
    }

    pub fn needed_text(&self, key: &str) -> Answer<String> {
        self.text(key)?.ok_or_else(|| self.missing(key))
    }

    pub fn flag(&self, key: &str) -> Answer<Option<bool>> {
        match self.fields.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(self.wrong(key, "must be a boolean")),
        }
    }

    pub fn integer(&self, key: &str, least: i64, most: i64) -> Answer<Option<i64>> {
        let Some(value) = self.fields.get(key) else {
            return Ok(None);
        };
        self.bounded(key, value, least, most).map(Some)
    }

    pub fn needed_integer(&self, key: &str, least: i64, most: i64) -> Answer<i64> {
        let integer = self.integer(key, least, most)?;
        integer.ok_or_else(|| self.missing(key))
    }

    fn bounded(&self, key: &str, value: &Value, least: i64, most: i64) -> Answer<i64> {
        match value.as_i64() {
            None => Err(self.wrong(key, "must be an integer")),
            Some(number) if number < least => {
                Err(self.wrong(key, &format!("can not be less than {least}")))
            }
            Some(number) if number > most => {
                Err(self.wrong(key, &format!("can not be greater than {most}")))
            }
            Some(number) => Ok(number),
        }
    }

    pub fn items(&self, key: &str) -> Answer<Option<&[Value]>> {
        match self.fields.get(key) {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(_) => Err(self.wrong(key, "must be an array")),
        }
    }

    /// Texts of at most so many characters.
    pub fn texts(&self, key: &str, longest: usize) -> Answer<Option<Vec<String>>> {
        let Some(items) = self.items(key)? else {
            return Ok(None);
        };
        let text = |(at, item): (usize, &Value)| {
            let at = format!("{key}/{at}");
            let text = item.as_str();
            let text = text.ok_or_else(|| self.wrong(&at, "must be a string"))?;
            match text.chars().count() > longest {
                true => Err(self.wrong(
                    &at,
                    &format!("must not be longer than {longest} characters"),
                )),
                false => Ok(text.to_owned()),
            }
        };
        items
            .iter()
            .enumerate()
            .map(text)
            .collect::<Answer<_>>()
            .map(Some)
    }

    /// Port numbers, in no range: that is for the provider to say.
    pub fn ports(&self, key: &str) -> Answer<Option<Vec<u16>>> {
        let Some(items) = self.items(key)? else {
            return Ok(None);
        };
        let port = |(at, item): (usize, &Value)| {
            let key = format!("{key}/{at}");
            let number = self.bounded(&key, item, 0, u16::MAX.into())?;
            Ok(u16::try_from(number).unwrap_or(u16::MAX))
        };
        items
            .iter()
            .enumerate()
            .map(port)
            .collect::<Answer<_>>()
            .map(Some)
    }

    /// The object below a key, which has to be there.
    pub fn object(&self, key: &str) -> Answer<Input> {
        match self.fields.get(key) {
            None => Err(self.missing(key)),
            Some(Value::Object(fields)) => Ok(Self {
                path: format!("{}/{key}", self.path),
                fields: fields.clone(),
            }),
            Some(_) => Err(self.wrong(key, "must be an object")),
        }
    }

    /// One of a few words.
    pub fn word(&self, key: &str, words: &[&str]) -> Answer<Option<String>> {
        let text = self.text(key)?;
        match &text {
            Some(text) if !words.contains(&text.as_str()) => {
                let must = format!("must be one of ({})", words.join("|"));
                Err(self.wrong(key, &must))
            }
            _ => Ok(text),
        }
    }
}
