//! Renderings, the schema and the reference.

use gabion::manifest::{reference_markdown, schema};
use serde_json::Value;

use super::*;

fn report() -> manifest::Report {
    let text = "# 100%\nversion: 1\nstack: shop\nsandboxes:\n  web:\n    services:\n      a: { cmd: x, needs: [b] }\n      b: { cmd: x, needs: [a], prots: [1] }\n";
    static WRITTEN: std::sync::Once = std::sync::Once::new();
    let path = Path::new("target/tmp/a, b%.yaml");
    WRITTEN.call_once(|| {
        std::fs::create_dir_all("target/tmp").unwrap();
        std::fs::write(path, text).unwrap();
    });
    let mut request = request(path);
    request.vars.insert("x".to_owned(), "y".to_owned());
    manifest::load(&request).report
}

#[test]
fn json() {
    assert!(expect_file(
        Path::new("tests/manifest/report.json"),
        &report().render_json()
    ));
}

#[test]
fn sarif() {
    let sarif = report().render_sarif();
    let mut value: Value = serde_json::from_str(&sarif).unwrap();
    assert_eq!(value["version"], "2.1.0");
    let rules = value["runs"][0]["tool"]["driver"]["rules"]
        .as_array()
        .unwrap()
        .clone();
    for result in value["runs"][0]["results"].as_array().unwrap() {
        let rule = &rules[result["ruleIndex"].as_u64().unwrap() as usize];
        assert_eq!(rule["id"], result["ruleId"]);
    }
    value["runs"][0]["tool"]["driver"]["rules"] = Value::Null;
    value["runs"][0]["tool"]["driver"]["version"] = Value::Null;
    assert!(expect_file(
        Path::new("tests/manifest/report.sarif"),
        &format!("{value:#}\n")
    ));
}

#[test]
fn github() {
    assert!(expect_file(
        Path::new("tests/manifest/report.github"),
        &report().render_github()
    ));
}

#[test]
fn text() {
    let report = report();
    let plain = report.render_text(false, 80);
    assert!(
        plain.ends_with("3 errors in target/tmp/a, b%.yaml\n"),
        "{plain}"
    );
    assert!(!plain.contains('\u{1b}'));
    assert!(report.render_text(true, 80).contains('\u{1b}'));
    assert_eq!(
        load("version: 1\nsandboxes: {}\n")
            .report
            .render_text(false, 80),
        ""
    );
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    let loaded =
        load("version: 1\nsandboxes: { \"\\e[31mweb\\r\\n\": { platform: \"\\e]0;x\\a\" } }\n");
    let text = loaded.report.render_text(false, 80);
    assert!(loaded.report.has_errors());
    assert!(
        text.chars().all(|c| c == '\n' || !c.is_control()),
        "{text:?}"
    );
    assert_eq!(
        loaded.report.render_github().lines().count(),
        loaded.report.diagnostics.len()
    );
}

#[test]
fn the_schema_file_is_what_the_types_say() {
    let text = format!("{:#}\n", schema());
    assert!(
        expect_file(Path::new("schemas/gabion.schema.json"), &text),
        "write it with: UPDATE_EXPECT=1 cargo test --test manifest schema"
    );
}

fn instance(text: &str) -> Value {
    let mut value: serde_yaml::Value = serde_yaml::from_str(text).unwrap();
    value.apply_merge().unwrap();
    serde_json::to_value(value).unwrap()
}

#[test]
fn the_schema_accepts_what_is_good_and_sees_what_is_not() {
    let schema = schema();
    assert!(jsonschema::meta::is_valid(&schema));
    let validator = jsonschema::validator_for(&schema).unwrap();
    for path in files("tests/manifest/good") {
        let instance = instance(&std::fs::read_to_string(&path).unwrap());
        let errors: Vec<_> = validator
            .iter_errors(&instance)
            .map(|e| format!("{}: {e}", e.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{}: {errors:#?}", path.display());
    }
    for (text, good) in [
        ("version: 1", true),
        ("version: 2", false),
        ("sandboxes: {}", false),
        ("{version: 1, nope: 1}", false),
        (
            "{version: 1, sandboxes: {a: {services: {b: {ports: [70000]}}}}}",
            false,
        ),
        (
            "{version: 1, sandboxes: {a: {services: {b: {ports: ['${var.p}']}}}}}",
            true,
        ),
        (
            "{version: 1, sandboxes: {a: {services: {b: {restart: sometimes}}}}}",
            false,
        ),
        (
            "{version: 1, sandboxes: {a: {services: {b: {prots: [1]}}}}}",
            false,
        ),
    ] {
        assert_eq!(validator.is_valid(&instance(text)), good, "{text}");
    }
}

#[test]
fn every_field_is_described() {
    fn walk(value: &Value, at: &str) {
        if let Some(fields) = value["properties"].as_object() {
            for (name, field) in fields {
                assert!(field["description"].is_string(), "{at}.{name}");
            }
        }
    }
    let schema = schema();
    walk(&schema, "");
    for (name, definition) in schema["definitions"].as_object().unwrap() {
        walk(definition, name);
    }
    assert!(!schema.to_string().contains("\"x-"));
}

#[test]
fn the_reference_has_every_field() {
    let reference = reference_markdown();
    assert!(expect_file(Path::new("docs/manifest.md"), &reference));
    for field in [
        "`health_port`",
        "`env_file`",
        "`keep_alive`",
        "`max_backoff`",
        "M014",
    ] {
        assert!(reference.contains(field), "{field}");
    }
}
