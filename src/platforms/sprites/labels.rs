//! The mark of a sprite, in its labels: a short one that says whose it is, and its spec in pieces.

use super::wire::Sprite;
use crate::model::{SandboxName, SandboxSpec};
use crate::platforms::cloud::mark::{self, Owner, PREFIX, SandboxMark};

/// What the labels with the spec begin with.
const SPEC: &str = "gabion-spec";

/// How long a label is at most. What Sprites takes is not known; this is what is common elsewhere.
const LONGEST: usize = 63;

/// What the labels of a sprite say.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Found {
    /// It is nobody's, or another stack's.
    NotOurs,
    /// It is ours, and this is what it was made from.
    Ours(SandboxName, Box<SandboxSpec>),
    /// It is ours, and more cannot be told.
    Damaged(SandboxName),
}

/// The labels of a sprite: ours, then the topics, then those that it had from somebody else.
pub(super) fn labels(owner: &Owner, spec: &SandboxSpec, before: &[String]) -> Vec<String> {
    let mark = SandboxMark {
        owner: owner.clone(),
        spec: spec.clone(),
    };
    let mut labels = vec![owner.label()];
    labels.extend(mark::split(SPEC, &mark::encode(&mark), LONGEST));
    labels.extend(spec.topics.iter().cloned());
    let known = match read(before, &owner.stack) {
        Found::Ours(_, spec) => spec.topics,
        _ => Vec::new(),
    };
    for label in before.iter().filter(|label| !label.starts_with(PREFIX)) {
        if !known.contains(label) && !labels.contains(label) {
            labels.push(label.clone());
        }
    }
    labels
}

/// Reads the labels of a sprite for a stack.
pub(super) fn find(sprite: &Sprite, stack: &str) -> Found {
    let labels = sprite.labels.as_deref().unwrap_or_default();
    let mut found = read(labels, stack);
    if let Found::Ours(_, spec) = &mut found {
        // What was changed by hand; labels that others have added are theirs.
        spec.topics.retain(|topic| labels.contains(topic));
        if let Some(settings) = &sprite.url_settings {
            spec.public = settings.is_public();
        }
    }
    found
}

fn read(labels: &[String], stack: &str) -> Found {
    let mut owners = labels.iter().filter_map(|label| Owner::from_label(label));
    let Some(owner) = owners.find(|owner| owner.stack == stack) else {
        return Found::NotOurs;
    };
    let text = mark::join(SPEC, labels.iter().map(String::as_str));
    match text.and_then(|text| mark::decode::<SandboxMark>(&text)) {
        Some(mark) if mark.owner == owner => Found::Ours(owner.sandbox, Box::new(mark.spec)),
        _ => Found::Damaged(owner.sandbox),
    }
}

/// What a sandbox is called on the platform if its manifest does not say: names are part of host names.
pub(super) fn default_name(stack: &str, sandbox: &SandboxName) -> String {
    let name = format!("{stack}-{sandbox}").to_ascii_lowercase();
    name.replace('_', "-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platforms::sprites::wire::UrlSettings;

    fn owner() -> Owner {
        Owner {
            stack: "shop".to_owned(),
            sandbox: SandboxName::new("web").unwrap(),
        }
    }

    fn spec() -> SandboxSpec {
        SandboxSpec {
            platform: "cloud".to_owned(),
            topics: vec!["shop".to_owned(), "web front".to_owned()],
            description: Some("x".repeat(100)),
            public: true,
            ..SandboxSpec::default()
        }
    }

    fn sprite(labels: Vec<String>) -> Sprite {
        Sprite {
            name: "shop-web".to_owned(),
            labels: Some(labels),
            url_settings: Some(UrlSettings::new(true)),
            status: None,
            url: None,
            created_at: None,
        }
    }

    #[test]
    fn labels_say_whose_a_sprite_is_and_what_it_was_made_from() {
        let made = labels(&owner(), &spec(), &[]);
        assert!(made.len() > 4 && made.iter().all(|label| label.len() <= LONGEST));
        let name = owner().sandbox;
        let ours = Found::Ours(name.clone(), Box::new(spec()));
        assert_eq!(find(&sprite(made.clone()), "shop"), ours);
        assert_eq!(find(&sprite(made.clone()), "shop2"), Found::NotOurs);
        assert_eq!(
            find(&sprite(vec!["other".to_owned()]), "shop"),
            Found::NotOurs
        );
        let mut damaged = made;
        damaged.remove(1);
        assert_eq!(find(&sprite(damaged), "shop"), Found::Damaged(name));
    }

    #[test]
    fn what_was_changed_by_hand_is_seen_and_what_others_have_added_stays() {
        let mut made = labels(&owner(), &spec(), &[]);
        made.retain(|label| label != "shop");
        made.push("theirs".to_owned());
        let mut found = sprite(made.clone());
        found.url_settings = Some(UrlSettings::new(false));
        let Found::Ours(_, seen) = find(&found, "shop") else {
            panic!("not ours");
        };
        assert!(!seen.public);
        assert_eq!(seen.topics, ["web front"]);
        let mut wanted = spec();
        wanted.topics = vec!["new".to_owned()];
        let again = labels(&owner(), &wanted, &made);
        assert!(again.contains(&"theirs".to_owned()) && again.contains(&"new".to_owned()));
        assert!(!again.contains(&"web front".to_owned()));
        assert_eq!(
            again.iter().filter(|it| it.starts_with("gabion:")).count(),
            1
        );
    }

    #[test]
    fn names_fit_into_host_names() {
        let sandbox = SandboxName::new("Web_1").unwrap();
        assert_eq!(default_name("My_shop", &sandbox), "my-shop-web-1");
    }
}
