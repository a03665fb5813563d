//! Marks in descriptions: after the text for people, in a line of its own, `gabion:STACK/SANDBOX` and the
//! mark itself.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::sealed_files::FileIds;
use super::wire::Service;
use crate::model::ServiceName;
use crate::platforms::cloud::mark::{self, Owner, SandboxMark, ServiceMark};

/// What is written on a sandbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct SandboxLabel {
    #[serde(flatten)]
    pub mark: SandboxMark,
    /// What the files of the mark are known by there, once they are attached.
    #[serde(default, skip_serializing_if = "FileIds::is_empty")]
    pub files: FileIds,
}

/// What is written on a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Label {
    #[serde(flatten)]
    pub mark: ServiceMark,
    /// Whether it is a task that has exited 0.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub done: bool,
}

/// A description with a mark in it.
pub(super) fn write(text: Option<&str>, owner: &Owner, mark: &impl Serialize) -> String {
    let line = format!("{} {}", owner.label(), mark::encode(mark));
    match text {
        Some(text) => format!("{text}\n{line}"),
        None => line,
    }
}

/// The text for people, and the mark. `None` if there is no mark, or one that cannot be read.
fn read<M: DeserializeOwned>(description: Option<&str>) -> Option<(Option<String>, M)> {
    let description = description?;
    let (text, line) = match description.rsplit_once('\n') {
        Some((text, line)) => (Some(text.to_owned()), line),
        None => (None, description),
    };
    let (label, encoded) = line.split_once(' ')?;
    Owner::from_label(label)?;
    Some((text, mark::decode(encoded)?))
}

/// The mark of a sandbox, and its text for people.
pub(super) fn of_sandbox(description: Option<&str>) -> Option<(Option<String>, SandboxLabel)> {
    read(description)
}

/// The mark of a service, and its text for people.
pub(super) fn of_service(service: &Service) -> Option<(Option<String>, Label)> {
    read(service.description.as_deref())
}

/// The service that carries the mark of this one.
pub(super) fn find<'s>(
    services: &'s [Service],
    owner: &Owner,
    name: &ServiceName,
) -> Option<(&'s Service, Label)> {
    services.iter().find_map(|service| {
        let (_, label) = of_service(service)?;
        let ours = label.mark.owner == *owner && label.mark.service == *name;
        ours.then_some((service, label))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{SandboxName, SandboxSpec};

    #[test]
    fn marks_stand_behind_the_text_for_people() {
        let owner = Owner {
            stack: "shop".to_owned(),
            sandbox: SandboxName::new("web").unwrap(),
        };
        let spec = SandboxSpec::default();
        let mark = SandboxLabel {
            mark: SandboxMark {
                owner: owner.clone(),
                spec,
            },
            files: FileIds::from([("/etc/app.conf".to_owned(), "file_1".to_owned())]),
        };
        for text in [None, Some("the shop"), Some("two\nlines"), Some("")] {
            let written = write(text, &owner, &mark);
            let (found, read) = of_sandbox(Some(&written)).unwrap();
            assert_eq!((found.as_deref(), &read), (text, &mark));
        }
        for other in [
            "",
            "the shop",
            "gabion:shop/web",
            "gabion:shop/web x",
            "a\nb c",
        ] {
            assert_eq!(of_sandbox(Some(other)), None);
        }
        assert_eq!(of_sandbox(None), None);
    }
}
