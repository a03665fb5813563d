//! The JSON Schema and the field reference, both from the types of the grammar.

use std::fmt::Write;

use serde_json::Value;

use super::codes::CODES;
use super::types::Manifest;

/// The JSON Schema (draft 7) of a manifest.
pub fn schema() -> Value {
    let settings = schemars::generate::SchemaSettings::draft07().for_deserialize();
    let mut schema = settings
        .into_generator()
        .into_root_schema_for::<Manifest>()
        .to_value();
    tidy(&mut schema);
    if let Some(top) = schema.as_object_mut() {
        top.insert("title".to_owned(), "gabion manifest".into());
        let anchors = "Anything: a place for anchors.";
        let extensions = serde_json::json!({ "^x-": { "description": anchors } });
        top.insert("patternProperties".to_owned(), extensions);
    }
    schema
}

/// Without `default` and `format` entries, which say nothing here; texts on one line each.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            let is_schema = map.contains_key("type")
                || map.contains_key("$ref")
                || map.contains_key("anyOf")
                || map.contains_key("allOf");
            if is_schema
                && !map
                    .get("default")
                    .is_some_and(|d| d.is_object() && d.get("type").is_some())
            {
                map.remove("default");
            }
            if let Some(Value::String(text)) = map.get_mut("description") {
                *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            }
            map.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// The field reference in Markdown: one table for each kind of map, then the codes of problems.
pub fn reference_markdown() -> String {
    let schema = schema();
    let mut out = String::from(
        "# The manifest, field by field\n\nGenerated from the Rust types: `gabion schema --markdown`.\n",
    );
    section(&mut out, "Top level", &schema);
    let order = [
        "Platform",
        "SecretSource",
        "Defaults",
        "Sandbox",
        "Service",
        "HealthRule",
        "TcpRule",
        "HttpRule",
        "NeedRule",
        "RestartRule",
        "StopRule",
        "LimitsRule",
        "RepoRule",
        "CheckpointRule",
        "VscodeRule",
        "WatchEntry",
    ];
    for name in order {
        if let Some(definition) = schema["definitions"].get(name) {
            section(&mut out, title(name), definition);
        }
    }
    out.push_str("\n## Problems\n\n| code | problem | meaning |\n|---|---|---|\n");
    for code in CODES {
        let _ = writeln!(
            out,
            "| {} | {} | {} |",
            code.id,
            code.title,
            cell(code.explanation)
        );
    }
    out
}

fn title(name: &str) -> &'static str {
    match name {
        "Platform" => "`platforms.<name>`",
        "SecretSource" => "`secrets.<name>`",
        "Defaults" => "`defaults`",
        "Sandbox" => "`sandboxes.<name>`",
        "Service" => "`services.<name>`",
        "HealthRule" => "`health`",
        "TcpRule" => "`health.tcp`",
        "HttpRule" => "`health.http`",
        "NeedRule" => "an entry of `needs`",
        "RestartRule" => "`restart`",
        "StopRule" => "`stop`",
        "LimitsRule" => "`limits`",
        "RepoRule" => "`repo`",
        "CheckpointRule" => "`checkpoint`",
        "VscodeRule" => "`vscode`",
        "WatchEntry" => "an entry of `watch`",
        _ => "other",
    }
}

fn section(out: &mut String, title: &str, schema: &Value) {
    let about = schema["description"].as_str().unwrap_or_default();
    let _ = write!(
        out,
        "\n### {title}\n\n{about}\n\n| field | value | meaning |\n|---|---|---|\n"
    );
    let Some(fields) = schema["properties"].as_object() else {
        return;
    };
    for (name, field) in fields {
        let meaning = field["description"].as_str().unwrap_or_default();
        let _ = writeln!(
            out,
            "| `{name}` | {} | {} |",
            cell(&value(field)),
            cell(meaning)
        );
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// What a field takes, in few words.
fn value(schema: &Value) -> String {
    if let Some(target) = schema["$ref"].as_str() {
        return named(target.rsplit('/').next().unwrap_or_default());
    }
    for several in ["anyOf", "allOf", "oneOf"] {
        if let Some(options) = schema[several].as_array() {
            let mut words: Vec<_> = options
                .iter()
                .filter(|option| {
                    !option["pattern"]
                        .as_str()
                        .is_some_and(|p| p.starts_with("\\$"))
                })
                .map(value)
                .collect();
            words.dedup();
            return words.join(" or ");
        }
    }
    if let Some(only) = schema.get("const") {
        return format!(
            "`{}`",
            only.as_str()
                .map_or_else(|| only.to_string(), str::to_owned)
        );
    }
    if let Some(words) = schema["enum"].as_array() {
        let words: Vec<_> = words
            .iter()
            .filter_map(Value::as_str)
            .map(|w| format!("`{w}`"))
            .collect();
        return words.join(", ");
    }
    match schema["type"].as_str() {
        Some("array") => format!("list of {}", value(&schema["items"])),
        Some("object") => match schema.get("additionalProperties") {
            Some(Value::Object(inner)) => {
                format!("map of {}", value(&Value::Object(inner.clone())))
            }
            _ => "map".to_owned(),
        },
        Some("integer") => match (schema["minimum"].as_u64(), schema["maximum"].as_u64()) {
            (Some(from), Some(to)) => format!("number, {from} to {to}"),
            _ => "number".to_owned(),
        },
        Some("number") => "number".to_owned(),
        Some("boolean") => "`true` or `false`".to_owned(),
        Some("string") => "text".to_owned(),
        _ => "text".to_owned(),
    }
}

fn named(definition: &str) -> String {
    match definition {
        "Duration" => "duration".to_owned(),
        "Platform" | "SecretSource" | "Defaults" | "Sandbox" | "Service" | "HealthRule"
        | "TcpRule" | "HttpRule" | "NeedRule" | "RestartRule" | "StopRule" | "LimitsRule"
        | "RepoRule" | "CheckpointRule" | "VscodeRule" | "WatchEntry" => {
            format!("map, see {}", title(definition))
        }
        other => match schema()["definitions"].get(other) {
            Some(found) if found.get("$ref").is_none() => value(found),
            _ => other.to_owned(),
        },
    }
}
