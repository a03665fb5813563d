//! stub
#![allow(missing_docs)]
use crate::model::{self, Desired, Secrets};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
pub struct Request {
    pub files: Vec<PathBuf>,
    pub env: BTreeMap<String, String>,
    pub vars: BTreeMap<String, String>,
    pub profiles: BTreeSet<String>,
    pub platforms: Vec<&'static model::Capabilities>,
}
pub struct PlatformConfig;
pub struct Loaded {
    pub stack: Option<String>,
    pub desired: Option<Desired>,
    pub secrets: Secrets,
    pub platforms: BTreeMap<String, PlatformConfig>,
    pub report: Report,
    pub files: Vec<PathBuf>,
}
#[derive(Debug, Default, Clone)]
pub struct Report;
impl Report {
    pub fn is_empty(&self) -> bool {
        true
    }
    pub fn has_errors(&self) -> bool {
        false
    }
    pub fn error_count(&self) -> usize {
        0
    }
    pub fn render_text(&self, _: bool, _: usize) -> String {
        String::new()
    }
    pub fn render_json(&self) -> String {
        String::new()
    }
    pub fn render_sarif(&self) -> String {
        String::new()
    }
    pub fn render_github(&self) -> String {
        String::new()
    }
}
pub fn load(_: &Request) -> Loaded {
    todo!()
}
pub fn schema() -> serde_json::Value {
    todo!()
}
pub fn reference_markdown() -> String {
    todo!()
}
