//! Golden transcripts of plans, their JSON against the schema, and plans carried out on the
//! platform in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gabion::model::*;
use gabion::plan::file::{self, FileError, PlanFile};
use gabion::plan::{self, Cause, History, Operation, Options, Plan, Step, render, simulate};
use gabion::platforms::memory::{Memory, Record, Script};
use gabion::platforms::{Act, PlatformError, Progress};
use serde_json::{Value, json};

fn sandbox(name: &str) -> SandboxName {
    name.parse().unwrap()
}

fn address(text: &str) -> ServiceAddress {
    text.parse().unwrap()
}

/// `{"web": {"base": …, "services": {"api": {"cmd": …}}}}` in normal form.
fn desired(stack: Value) -> Desired {
    let mut desired = Desired::empty("shop");
    for (name, mut value) in stack.as_object().unwrap().clone() {
        let services = value.as_object_mut().unwrap().remove("services");
        value["platform"] = value.get("platform").cloned().unwrap_or("local".into());
        let mut wanted = DesiredSandbox {
            spec: Arc::new(serde_json::from_value(value).unwrap()),
            services: BTreeMap::new(),
            watch: BTreeMap::new(),
        };
        for (name, spec) in services.iter().flat_map(|it| it.as_object().unwrap()) {
            let spec: ServiceSpec = serde_json::from_value(spec.clone()).unwrap();
            wanted
                .services
                .insert(name.parse().unwrap(), Arc::new(spec));
        }
        desired.sandboxes.insert(sandbox(&name), wanted);
    }
    desired
}

/// Everything as wanted.
fn as_wanted(desired: &Desired) -> Observed {
    let nothing = Observed::default();
    let plan = plan::plan(desired, &nothing, &Options::default()).unwrap();
    simulate::run(desired, &nothing, &plan).unwrap()
}

fn service<'o>(observed: &'o mut Observed, at: &str) -> &'o mut ObservedService {
    let at = address(at);
    match observed.sandboxes.get_mut(&at.sandbox) {
        Some(Listing::Known(it)) => it.services.get_mut(&at.service).unwrap(),
        _ => panic!("no sandbox {}", at.sandbox),
    }
}

fn known<'o>(observed: &'o mut Observed, at: &str) -> &'o mut ObservedSandbox {
    match observed.sandboxes.get_mut(&sandbox(at)) {
        Some(Listing::Known(it)) => it,
        _ => panic!("no sandbox {at}"),
    }
}

fn plan(desired: &Desired, observed: &Observed) -> Plan {
    plan::plan(desired, observed, &Options::default()).unwrap()
}

/// What people see, and the order below it.
fn transcript(plan: &Plan) -> String {
    let style = render::Style {
        color: false,
        width: 80,
    };
    let text = render::text(plan, None, &style);
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "too wide: {line}");
        assert_eq!(line.trim_end(), line, "spaces at the end");
    }
    let value = render::json(plan, None);
    let errors: Vec<String> = jsonschema::validator_for(&render::json_schema())
        .unwrap()
        .iter_errors(&value)
        .map(|error| error.to_string())
        .collect();
    assert_eq!(errors, Vec::<String>::new());
    let mut order = String::new();
    for action in value["actions"].as_array().unwrap() {
        let names = |field: &str| {
            let names = action[field].as_array().unwrap().iter();
            names
                .map(|it| it.as_str().unwrap())
                .collect::<Vec<_>>()
                .join(" ")
        };
        order.push_str(action["id"].as_str().unwrap());
        for (field, word) in [("after", "after"), ("after_executed", "after executed")] {
            if !names(field).is_empty() {
                order.push_str(&format!(" {word} {}", names(field)));
            }
        }
        order.push('\n');
    }
    format!("{text}---\n{order}")
}

fn shop() -> Value {
    json!({
        "data": { "services": {
            "postgres": { "cmd": "postgres", "args": ["-D", "db"], "health": { "tcp": { "port": 5432 } } },
            "redis": { "cmd": "redis-server", "ports": [6379] },
            "migrate": { "kind": "task", "command": "./migrate.sh", "needs": ["postgres"] },
        } },
        "web": { "services": {
            "api": {
                "cmd": "node",
                "args": ["server.js", "--port", "3000"],
                "env": { "LOG_LEVEL": "info", "DB_PASSWORD": "${secret.db}" },
                "secrets": { "db": "d19e57" },
                "ports": [3000],
                "needs": [
                    { "service": "data/postgres", "restart": true },
                    { "service": "data/migrate", "condition": "completed" },
                ],
            },
            "worker": { "command": "./worker", "needs": ["data/redis", { "service": "api", "condition": "started" }] },
        } },
    })
}

#[test]
fn nothing_to_do() {
    let wanted = desired(shop());
    insta::assert_snapshot!(transcript(&plan(&wanted, &as_wanted(&wanted))));
}

#[test]
fn the_first_time() {
    insta::assert_snapshot!(transcript(&plan(&desired(shop()), &Observed::default())));
}

#[test]
fn a_changed_service_a_new_one_and_one_less() {
    let old = desired(shop());
    let mut stack = shop();
    let services = &mut stack["web"]["services"];
    services["api"]["args"][2] = "3001".into();
    services["api"]["env"]["LOG_LEVEL"] = "debug".into();
    services["api"]["secrets"]["db"] = "d19e58".into();
    services["mailer"] = json!({ "cmd": "mailer", "needs": ["data/redis"] });
    services.as_object_mut().unwrap().remove("worker");
    let plan = plan(&desired(stack), &as_wanted(&old));
    insta::assert_snapshot!(transcript(&plan));
    let touched: Vec<String> = plan.by_address().keys().map(|it| it.to_string()).collect();
    assert_eq!(touched, ["web/api", "web/mailer", "web/worker"]);

    let mut history = History::new();
    for action in &plan.actions {
        history.insert(
            action.id(),
            vec![Duration::from_millis(9000), Duration::from_millis(700)],
        );
        history
            .entry(action.id())
            .or_default()
            .push(Duration::from_millis(1300));
    }
    let forecast = plan::forecast(&plan, &history).unwrap();
    let style = render::Style {
        color: true,
        width: 80,
    };
    insta::assert_snapshot!(
        "with_forecast_and_colour",
        render::text(&plan, Some(&forecast), &style)
    );
    let value = render::json(&plan, Some(&forecast));
    assert!(
        jsonschema::is_valid(&render::json_schema(), &value),
        "{value}"
    );
    assert_eq!(value["forecast"]["path"][0], "web/worker:stop");
    assert!(plan::forecast(&plan, &History::new()).is_none());
}

#[test]
fn one_argument_is_one_change() {
    let old = desired(shop());
    let mut stack = shop();
    stack["web"]["services"]["worker"]["command"] = "./worker --fast".into();
    insta::assert_snapshot!(transcript(&plan(&desired(stack), &as_wanted(&old))));
}

#[test]
fn a_hard_need_restarts_with_what_it_needs() {
    let old = desired(shop());
    let mut stack = shop();
    stack["data"]["services"]["postgres"]["args"][1] = "db2".into();
    insta::assert_snapshot!(transcript(&plan(&desired(stack), &as_wanted(&old))));
}

#[test]
fn policies_are_taken_over_in_place() {
    let old = desired(shop());
    let mut stack = shop();
    stack["data"]["services"]["postgres"]["stop"] = json!({ "signal": "INT", "grace": "10s" });
    stack["data"]["services"]["redis"]["description"] = "a cache\u{1b}[2J".into();
    stack["web"]["topics"] = json!(["shop", "web"]);
    insta::assert_snapshot!(transcript(&plan(&desired(stack), &as_wanted(&old))));
}

#[test]
fn what_is_down_is_started() {
    let wanted = desired(shop());
    let mut observed = as_wanted(&wanted);
    service(&mut observed, "data/postgres").state = ServiceState::Failed;
    service(&mut observed, "data/redis").state = ServiceState::BackingOff;
    service(&mut observed, "data/migrate").state = ServiceState::Failed;
    service(&mut observed, "web/worker").state = ServiceState::Starting;
    insta::assert_snapshot!(transcript(&plan(&wanted, &observed)));
}

#[test]
fn what_runs_something_else_is_replaced() {
    let wanted = desired(shop());
    let mut observed = as_wanted(&wanted);
    service(&mut observed, "data/redis").stale = true;
    service(&mut observed, "data/migrate").definition = Definition::Unknown;
    service(&mut observed, "web/worker").state = ServiceState::Stopping;
    insta::assert_snapshot!(transcript(&plan(&wanted, &observed)));
}

#[test]
fn where_a_definition_is_fixed_while_it_runs_every_change_is_a_restart() {
    let old = desired(shop());
    let mut stack = shop();
    stack["data"]["services"]["redis"]["description"] = "the cache".into();
    let wanted = desired(stack);
    let ids = |observed: &Observed| -> Vec<String> {
        let plan = plan(&wanted, observed);
        plan.actions.iter().map(|action| action.id()).collect()
    };
    let mut observed = as_wanted(&old);
    assert_eq!(ids(&observed), ["data/redis:upsert"]);
    let redis = service(&mut observed, "data/redis");
    redis.definition = Definition::Fixed(redis.spec().unwrap().clone());
    assert_eq!(
        ids(&observed),
        ["data/redis:stop", "data/redis:upsert", "data/redis:start"]
    );
    let mut same = as_wanted(&wanted);
    let redis = service(&mut same, "data/redis");
    redis.definition = Definition::Fixed(redis.spec().unwrap().clone());
    assert_eq!(ids(&same), Vec::<String>::new());
}

#[test]
fn a_sandbox_that_is_down() {
    let wanted = desired(shop());
    let mut observed = as_wanted(&wanted);
    known(&mut observed, "web").state = SandboxState::Stopped;
    insta::assert_snapshot!(transcript(&plan(&wanted, &observed)));
}

#[test]
fn a_sandbox_that_needs_another_base() {
    let old = desired(shop());
    let mut stack = shop();
    stack["data"]["base"] = "debian:13".into();
    insta::assert_snapshot!(transcript(&plan(&desired(stack), &as_wanted(&old))));
}

#[test]
fn volumes_that_come_move_and_go() {
    let mut stack = shop();
    stack["data"]["volumes"] = json!({ "cache": "/var/cache", "data": "/var/lib/data" });
    let old = desired(stack.clone());
    stack["data"]["volumes"] = json!({ "data": "/srv/data", "logs": "/var/log" });
    insta::assert_snapshot!(transcript(&plan(&desired(stack), &as_wanted(&old))));
}

#[test]
fn files_that_come_change_and_go() {
    let mut stack = shop();
    let set = |data: &mut Value, files: &[(&str, &str)]| {
        let named = |path: &str| format!("{path} of data");
        let names = files.iter().map(|(path, _)| (*path, named(path)));
        let digests = files.iter().map(|(path, digest)| (named(path), *digest));
        data["files"] = names
            .collect::<BTreeMap<_, _>>()
            .into_iter()
            .collect::<Value>();
        data["secrets"] = digests
            .collect::<BTreeMap<_, _>>()
            .into_iter()
            .collect::<Value>();
    };
    let before = [
        ("/etc/app.conf", "d1"),
        ("/etc/old", "d2"),
        ("/etc/same", "d3"),
    ];
    set(&mut stack["data"], &before);
    let old = desired(stack.clone());
    let after = [
        ("/etc/app.conf", "d4"),
        ("/etc/new", "d5"),
        ("/etc/same", "d3"),
    ];
    set(&mut stack["data"], &after);
    insta::assert_snapshot!(transcript(&plan(&desired(stack), &as_wanted(&old))));
}

/// The steps of a plan that makes `data` have these fields, by address.
fn steps_for_sandbox_fields(fields: Value) -> Vec<String> {
    let old = desired(shop());
    let mut stack = shop();
    for (field, value) in fields.as_object().unwrap() {
        stack["data"][field] = value.clone();
    }
    let plan = plan(&desired(stack), &as_wanted(&old));
    let json = render::json(&plan, None);
    let actions = json["actions"].as_array().unwrap().iter();
    actions
        .map(|action| action["id"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn what_a_sandbox_runs_in_needs_a_restart_of_it() {
    for fields in [
        json!({ "isolation": "strict" }),
        json!({ "hide": ["/root"] }),
        json!({ "writable": ["/var/tmp"] }),
        json!({ "memory": 1 << 30 }),
        json!({ "vcpus": 2 }),
        json!({ "volumes": { "data": "/var/lib/data" } }),
        json!({ "files": { "/etc/app.conf": "name" }, "secrets": { "name": "d1" } }),
        json!({ "repo": { "url": "https://example.org/shop.git" } }),
    ] {
        let steps = steps_for_sandbox_fields(fields.clone());
        for step in ["data:stop", "data:update", "data:start", "data/redis:start"] {
            assert!(steps.contains(&step.to_owned()), "{fields}: {steps:?}");
        }
    }
}

#[test]
fn what_is_only_said_of_a_sandbox_changes_in_place() {
    for fields in [
        json!({ "description": "d", "topics": ["t"] }),
        json!({ "keep_alive": "10m" }),
        json!({ "env": { "A": "${secret.a}" }, "secrets": { "a": "d1" } }),
        json!({ "checkpoint": { "before": ["sync"], "freeze": true } }),
    ] {
        assert_eq!(steps_for_sandbox_fields(fields), ["data:update"]);
    }
}

#[test]
fn limits_and_terminals_need_another_process() {
    for (field, value) in [
        ("limits", json!({ "cpu": 1.5 })),
        (
            "limits",
            json!({ "memory": 64 << 20, "files": 64, "processes": 8 }),
        ),
        ("tty", json!(true)),
        ("stdin_open", json!(true)),
    ] {
        let old = desired(shop());
        let mut stack = shop();
        stack["data"]["services"]["redis"][field] = value;
        let plan = plan(&desired(stack), &as_wanted(&old));
        let text = transcript(&plan);
        assert!(text.contains("data/redis:stop"), "{text}");
        assert!(text.contains("data/redis:start"), "{text}");
    }
}

#[test]
fn a_password_in_the_url_of_a_repository_is_not_shown() {
    let old = desired(shop());
    let mut stack = shop();
    stack["data"]["repo"] = json!({ "url": "https://me:t0ken@example.org/x.git" });
    let text = transcript(&plan(&desired(stack), &as_wanted(&old)));
    assert!(
        text.contains("https://***@example.org/x.git") && !text.contains("t0ken"),
        "{text}"
    );
}

#[test]
fn wanted_stopped() {
    let old = desired(shop());
    let mut stack = shop();
    stack["web"]["state"] = "stopped".into();
    stack["data"]["services"]["redis"]["state"] = "stopped".into();
    insta::assert_snapshot!(transcript(&plan(&desired(stack), &as_wanted(&old))));
}

#[test]
fn a_sandbox_less() {
    let observed = as_wanted(&desired(shop()));
    let mut stack = shop();
    stack.as_object_mut().unwrap().remove("web");
    insta::assert_snapshot!(transcript(&plan(&desired(stack), &observed)));
}

#[test]
fn destroyed() {
    let observed = as_wanted(&desired(shop()));
    let options = Options {
        destroy: true,
        targets: vec![],
    };
    let plan = plan::plan(&Desired::empty("shop"), &observed, &options).unwrap();
    insta::assert_snapshot!(transcript(&plan));
}

#[test]
fn problems_are_told() {
    let mut stack = shop();
    stack["old"] = json!({ "protect": true, "services": { "keep": { "cmd": "keep" } } });
    stack["far"] = json!({ "platform": "cloud", "services": {} });
    stack["made"] = json!({ "memory": 1_u64 << 30, "services": {} });
    stack["held"] = json!({ "services": { "one": { "cmd": "one" } } });
    let mut observed = as_wanted(&desired(stack.clone()));
    observed
        .fixed
        .insert(sandbox("made"), vec!["disk", "memory"]);
    let in_the_way = vec![
        Taken::File {
            path: "/etc/app.conf".to_owned(),
        },
        Taken::Volume {
            name: "theirs".to_owned(),
            path: "/srv".to_owned(),
        },
    ];
    observed.taken.insert(sandbox("held"), in_the_way);
    let reason = "connection refused".into();
    observed
        .sandboxes
        .insert(sandbox("data"), Listing::Unknown { reason });
    stack.as_object_mut().unwrap().remove("old");
    stack["far"]["platform"] = "local".into();
    stack["web"]["services"]["api"]["args"][2] = "3001".into();
    stack["web"]["services"]["worker"]["description"] = "works".into();
    stack["made"]["memory"] = json!(2_u64 << 30);
    stack["held"]["files"] = json!({ "/etc/app.conf": "/etc/app.conf of held" });
    stack["held"]["services"]["one"]["args"] = json!(["more"]);
    insta::assert_snapshot!(transcript(&plan(&desired(stack), &observed)));
}

#[test]
fn a_port_is_free_before_its_new_owner_starts() {
    let one = |a: u16, b: u16| {
        let service =
            |port: u16| json!({ "cmd": "serve", "args": [port.to_string()], "ports": [port] });
        desired(json!({ "web": { "services": { "a": service(a), "b": service(b) } } }))
    };
    insta::assert_snapshot!(transcript(&plan(
        &one(3001, 3000),
        &as_wanted(&one(3000, 3001))
    )));
}

#[test]
fn long_values_and_texts_are_diffs() {
    let one = |args: Vec<String>, script: &str, line: &str| {
        let env = json!({ "SCRIPT": script, "FLAG": line });
        let service = json!({ "cmd": "serve", "args": args, "env": env });
        desired(json!({ "web": { "services": { "api": service } } }))
    };
    let args = |changed: &str| {
        let mut args: Vec<String> = (0..12).map(|at| format!("--option-{at}=value")).collect();
        args[7] = changed.into();
        args
    };
    let long = |word: &str| {
        format!(
            "{} {word} {}",
            "much the same".repeat(6),
            "and so on ".repeat(7)
        )
    };
    let old = one(
        args("--seven"),
        "set -e\na=1\nrun one\nrun two\nexit\n",
        &long("before"),
    );
    let new = one(
        args("--eight=\u{1b}[31m"),
        "set -e\na=1\nrun three\nrun two\nexit\n",
        &long("after"),
    );
    insta::assert_snapshot!(transcript(&plan(&new, &as_wanted(&old))));
}

#[test]
fn circles_and_dangling_needs_are_problems() {
    let wanted = desired(json!({ "web": { "services": {
        "a": { "cmd": "a", "needs": ["b"] },
        "b": { "cmd": "b", "needs": ["c"] },
        "c": { "cmd": "c", "needs": ["a"] },
        "d": { "cmd": "d", "needs": ["nothing"] },
        "e": { "cmd": "e", "needs": ["e"] },
        "f": { "cmd": "f" },
    } } }));
    insta::assert_snapshot!(transcript(&plan(&wanted, &Observed::default())));
}

#[test]
fn limited_to_targets() {
    let targets = vec!["web/worker".parse().unwrap(), "web/nope".parse().unwrap()];
    let options = Options {
        destroy: false,
        targets,
    };
    let plan = plan::plan(&desired(shop()), &Observed::default(), &options).unwrap();
    insta::assert_snapshot!(transcript(&plan));
}

fn operate(op: Operation, observed: &Observed, names: &[&str]) -> String {
    let names: Vec<Address> = names.iter().map(|name| name.parse().unwrap()).collect();
    let wanted = desired(shop());
    transcript(&plan::operate(&wanted, observed, op, &names, Cause::Requested).unwrap())
}

#[test]
fn operations() {
    let mut observed = as_wanted(&desired(shop()));
    insta::assert_snapshot!(
        "restart",
        operate(
            Operation::Restart,
            &observed,
            &["data/postgres", "data/migrate"]
        )
    );
    insta::assert_snapshot!(
        "stop",
        operate(Operation::Stop, &observed, &["data/postgres"])
    );
    insta::assert_snapshot!(
        "stop_sandbox",
        operate(Operation::Stop, &observed, &["data"])
    );
    insta::assert_snapshot!(
        "restart_sandbox",
        operate(Operation::RestartSandbox, &observed, &["data"])
    );
    known(&mut observed, "web").state = SandboxState::Stopped;
    service(&mut observed, "data/postgres").state = ServiceState::Stopped;
    insta::assert_snapshot!(
        "start",
        operate(Operation::Start, &observed, &["web/api", "no/such"])
    );
}

#[test]
fn the_schemas_are_not_stale() {
    not_stale("plan.schema.json", &render::json_schema());
    not_stale("plan-file.schema.json", &file::json_schema());
}

fn not_stale(name: &str, schema: &Value) {
    let path = format!("{}/schemas/{name}", env!("CARGO_MANIFEST_DIR"));
    let schema = serde_json::to_string_pretty(schema).unwrap() + "\n";
    if std::env::var_os("GABION_BLESS").is_some() {
        std::fs::write(&path, &schema).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == schema,
        "schemas/{name} is stale: run with GABION_BLESS=1"
    );
}

/// A plan that changes, adds and deletes, and what it was made from.
fn some_change() -> (Desired, Observed, Plan) {
    let observed = as_wanted(&desired(shop()));
    let mut stack = shop();
    let services = &mut stack["web"]["services"];
    services["api"]["args"][2] = "3001".into();
    services["api"]["secrets"]["db"] = "d19e58".into();
    services["mailer"] = json!({ "cmd": "mailer", "needs": ["data/redis"] });
    services.as_object_mut().unwrap().remove("worker");
    let wanted = desired(stack);
    let plan = plan(&wanted, &observed);
    (wanted, observed, plan)
}

#[test]
fn graphs_leave_out_what_follows() {
    let plan = plan(&desired(shop()), &Observed::default());
    insta::assert_snapshot!("dot", render::dot(&plan));
    insta::assert_snapshot!("mermaid", render::mermaid(&plan));
}

#[test]
fn markdown() {
    insta::assert_snapshot!(render::markdown(&some_change().2, None));
}

#[test]
fn markdown_keeps_what_is_hostile_in_its_block() {
    let script = "one\n```\n</details>\n@team <script>\n````\n";
    let one = |word: &str| {
        desired(json!({ "web": { "services": { "api": {
            "command": format!("{script}{word}"),
            "description": format!("``` @team #1 <img src=x> {word}"),
        } } } }))
    };
    let mut plan = plan(&one("b"), &as_wanted(&one("a")));
    plan.problems.push(plan::Problem {
        address: "web/other".parse().unwrap(),
        message: "said </code>\n\n# @team [x](y) `".to_owned(),
    });
    insta::assert_snapshot!(render::markdown(&plan, None));
}

#[test]
fn markdown_fits_into_a_comment() {
    let mut services = json!({});
    for at in 0..2_000 {
        services[format!("s{at}")] = json!({ "cmd": "x".repeat(500) });
    }
    let wanted = desired(json!({ "web": { "services": services } }));
    let text = render::markdown(&plan(&wanted, &Observed::default()), None);
    assert!(text.len() < 65_536, "{}", text.len());
    assert!(text.contains("more addresses"), "{text}");
}

#[test]
fn the_plan_file() {
    let (wanted, observed, plan) = some_change();
    let text = file::save(&plan, &wanted, &observed);
    let value: Value = serde_json::from_str(&text).unwrap();
    let validator = jsonschema::validator_for(&file::json_schema()).unwrap();
    assert_eq!(validator.iter_errors(&value).count(), 0);
    assert!(!text.contains("d19e5"), "{text}");
    insta::assert_snapshot!(text);

    let file = PlanFile::parse(&text).unwrap();
    let definitions = file.definitions(&wanted).unwrap();
    assert_eq!(file.stale(&definitions, &observed), []);
    assert_eq!(file.rebuild(&definitions, &observed).unwrap(), plan);

    // Once it is applied, it is stale.
    let after = simulate::run(&wanted, &observed, &plan).unwrap();
    let stale: Vec<String> = file
        .stale(&definitions, &after)
        .iter()
        .map(ToString::to_string)
        .collect();
    let expected = [
        "web/api: its definition changed",
        "web/mailer: was not there, and is now",
        "web/worker: was there, and is gone",
    ];
    assert_eq!(stale, expected);
}

#[test]
fn a_plan_file_is_stale_only_for_what_it_touches() {
    let (wanted, observed, plan) = some_change();
    let file = PlanFile::parse(&file::save(&plan, &wanted, &observed)).unwrap();
    let definitions = file.definitions(&wanted).unwrap();
    let stale = |observed: &Observed, wanted: &Desired| {
        let definitions = file.definitions(wanted).unwrap();
        let stale = file.stale(&definitions, observed);
        stale.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let mut other = observed.clone();
    service(&mut other, "data/postgres").state = ServiceState::Unhealthy;
    service(&mut other, "web/api").pid = Some(7);
    assert_eq!(stale(&other, &wanted), Vec::<String>::new());
    service(&mut other, "web/worker").state = ServiceState::Failed;
    service(&mut other, "web/api").stale = true;
    assert_eq!(
        stale(&other, &wanted),
        [
            "web/api: runs an older definition than the one it has",
            "web/worker: was running, is failed"
        ]
    );
    // The value of the secret was changed back.
    assert_eq!(
        stale(&observed, &desired(shop())),
        ["web/api: the value of the secret `db` changed"]
    );
    let nothing = Desired::empty("shop");
    assert!(matches!(
        file.definitions(&nothing),
        Err(FileError::Secret { .. })
    ));
    // What it needs and does not touch went away: not stale, but not sound.
    let mut other = observed.clone();
    service(&mut other, "data/redis").state = ServiceState::Stopped;
    assert_eq!(stale(&other, &wanted), Vec::<String>::new());
    let refused = file.rebuild(&definitions, &other).unwrap_err().to_string();
    assert!(refused.contains("data/redis"), "{refused}");
}

fn saved_json(plan: &Plan, desired: &Desired, observed: &Observed) -> Value {
    serde_json::from_str(&file::save(plan, desired, observed)).unwrap()
}

#[test]
fn an_edited_plan_file_is_refused_or_does_no_harm() {
    let wanted = desired(shop());
    let nothing = Observed::default();
    let first = plan(&wanted, &nothing);
    let saved = saved_json(&first, &wanted, &nothing);
    let rebuilt = |saved: &Value, observed: &Observed| {
        let file = PlanFile::parse(&saved.to_string())?;
        let definitions = file.definitions(&wanted)?;
        file.rebuild(&definitions, observed)
    };
    // The order is not read from the file.
    let mut edited = saved.clone();
    for action in edited["actions"].as_array_mut().unwrap() {
        action["after"] = json!([]);
    }
    edited["actions"].as_array_mut().unwrap().reverse();
    assert_eq!(rebuilt(&edited, &nothing).unwrap(), first);

    // Each action left out, doubled, or of another kind or place; each definition left out.
    let mut refusals = 0;
    let mut check = |edited: &Value| {
        if let Ok(plan) = rebuilt(edited, &nothing) {
            let after = simulate::run(&wanted, &nothing, &plan);
            assert!(after.is_ok(), "{after:?}");
        } else {
            refusals += 1;
        }
    };
    for at in 0..first.actions.len() {
        let mut edited = saved.clone();
        edited["actions"].as_array_mut().unwrap().remove(at);
        check(&edited);
        let mut edited = saved.clone();
        let copy = edited["actions"][at].clone();
        edited["actions"].as_array_mut().unwrap().push(copy);
        check(&edited);
        for kind in [
            "create", "update", "start", "stop", "delete", "upsert", "run",
        ] {
            let mut edited = saved.clone();
            edited["actions"][at]["kind"] = kind.into();
            check(&edited);
        }
        for place in ["web", "web/api", "data/postgres", "no/such"] {
            let mut edited = saved.clone();
            edited["actions"][at]["address"] = place.into();
            check(&edited);
        }
    }
    for name in saved["definitions"].as_object().unwrap().keys() {
        for value in [
            json!(null),
            json!({}),
            json!({ "cmd": 1 }),
            json!({ "secrets": 1 }),
        ] {
            let mut edited = saved.clone();
            edited["definitions"][name] = value;
            check(&edited);
        }
    }
    assert!(refusals > 100, "{refusals}");

    // A protected sandbox is not deleted, and no definition comes in with a start.
    let mut stack = shop();
    stack["web"]["protect"] = true.into();
    let observed = as_wanted(&desired(stack));
    let none = plan::plan(
        &Desired::empty("shop"),
        &as_wanted(&wanted),
        &Options::default(),
    );
    let saved = saved_json(&none.unwrap(), &Desired::empty("shop"), &observed);
    let refused = rebuilt(&saved, &observed).unwrap_err().to_string();
    assert_eq!(refused, "web:delete cannot be done: it is protected");
    let mut observed = as_wanted(&wanted);
    service(&mut observed, "data/redis").state = ServiceState::Failed;
    let mut saved = saved_json(&plan(&wanted, &observed), &wanted, &observed);
    assert!(rebuilt(&saved, &observed).is_ok());
    saved["definitions"]["data/redis"]["cmd"] = "rm".into();
    let refused = rebuilt(&saved, &observed).unwrap_err().to_string();
    assert!(refused.contains("not the one that is there"), "{refused}");
}

#[test]
fn what_is_no_plan_file_is_refused() {
    let deep = "[".repeat(100_000);
    for (text, what) in [
        ("", "not a plan file"),
        ("{}", "not a plan file"),
        ("[1]", "not a plan file"),
        (&deep, "not a plan file"),
        (r#"{"format":"gabion-plan-file"}"#, "version"),
        (r#"{"format":"gabion-plan-file","version":2}"#, "version 2"),
        (r#"{"format":"gabion-plan-file","version":1}"#, "malformed"),
    ] {
        let refused = PlanFile::parse(text).unwrap_err().to_string();
        assert!(refused.contains(what), "{refused}");
    }
}

#[test]
fn deletions_count_what_goes_with_a_sandbox() {
    let mut observed = as_wanted(&desired(shop()));
    service(&mut observed, "web/api").state = ServiceState::Stopped;
    let mut stack = shop();
    stack.as_object_mut().unwrap().remove("web");
    let services = stack["data"]["services"].as_object_mut().unwrap();
    services.remove("redis");
    let plan = plan(&desired(stack), &observed);
    let gone: Vec<String> = plan::deletions(&plan, &observed)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(gone, ["data/redis", "web", "web/api", "web/worker"]);
}

#[test]
fn ten_thousand_services_are_planned_in_linear_time() {
    let many = |n: usize| {
        let mut stack = json!({});
        for at in 0..n / 10 {
            let mut services = json!({});
            for number in 0..10 {
                let needs = if number == 0 {
                    json!([])
                } else {
                    json!([format!("s{}", number - 1)])
                };
                services[format!("s{number}")] =
                    json!({ "cmd": "serve", "needs": needs, "ports": [3000 + number] });
            }
            stack[format!("box{at}")] = json!({ "services": services });
        }
        desired(stack)
    };
    let time = |n: usize| {
        let wanted = many(n);
        let begin = std::time::Instant::now();
        let observed = as_wanted(&wanted);
        let first = begin.elapsed();
        let begin = std::time::Instant::now();
        assert!(plan(&wanted, &observed).is_empty());
        (first, begin.elapsed())
    };
    let (small, large) = (time(1_000), time(10_000));
    println!("1,000: {small:?}; 10,000: {large:?}");
    assert!(
        large.0 < small.0 * 40 + Duration::from_millis(200),
        "{small:?} {large:?}"
    );
    assert!(large.1 < Duration::from_secs(1), "{large:?}");
}

struct Quiet;

impl Progress for Quiet {
    fn executed(&self) {}
    fn waiting(&self, _: &str) {}
}

async fn act(platform: &Memory, address: &Address, step: &Step) -> Result<(), PlatformError> {
    let mut secrets = Secrets::default();
    secrets.insert("db", "hunter2".to_owned().into());
    let (place, service) = match address {
        Address::Sandbox(name) => (name, None),
        Address::Service(service) => (&service.sandbox, Some(service)),
    };
    match (step, service) {
        (Step::CreateSandbox(spec), _) => platform.create_sandbox(place, spec, &secrets).await,
        (Step::UpdateSandbox(spec), _) => platform.update_sandbox(place, spec, &secrets).await,
        (Step::StartSandbox(spec), _) => platform.start_sandbox(place, spec).await,
        (Step::StopSandbox, _) => platform.stop_sandbox(place).await,
        (Step::DeleteSandbox, _) => platform.delete_sandbox(place).await,
        (Step::UpsertService(spec), Some(at)) => platform.upsert_service(at, spec, &secrets).await,
        (Step::StartService(spec) | Step::RunTask(spec), Some(at)) => {
            platform.start_service(at, spec, &secrets, &Quiet).await
        }
        (Step::StopService, Some(at)) => platform.stop_service(at).await,
        (Step::DeleteService, Some(at)) => platform.delete_service(at).await,
        _ => panic!("{step:?} of {address}"),
    }
}

#[tokio::test]
async fn on_the_platform_in_memory_only_what_changed_restarts() {
    let platform = Memory::new(as_wanted(&desired(shop())));
    let before = platform.pids();
    let mut stack = shop();
    stack["web"]["services"]["worker"]["command"] = "./worker --fast".into();
    let wanted = desired(stack);
    let changed = plan(&wanted, &platform.state());
    for action in &changed.actions {
        act(&platform, &action.address, &action.step).await.unwrap();
    }
    assert!(plan(&wanted, &platform.state()).is_empty());
    let worker = address("web/worker");
    for (at, pid) in platform.pids() {
        assert_eq!(before[&at] == pid, at != worker, "{at}");
    }
    assert_eq!(
        platform.done(),
        ["web/worker:stop", "web/worker:upsert", "web/worker:start"]
    );
    assert_eq!(platform.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn the_platform_in_memory_fails_and_hangs_as_told() {
    let wanted = desired(shop());
    let platform = Memory::new(as_wanted(&wanted));
    let redis = address("data/redis");
    let spec = wanted.service(&redis).unwrap().clone();
    platform.stop_service(&redis).await.unwrap();
    let error = PlatformError::new("exited with 1 after 0.3 s");
    let script = Script::Fail(error.clone());
    platform.script(redis.clone(), plan::StepKind::Start, script);
    let start = Step::StartService(spec);
    let at: Address = redis.clone().into();
    assert_eq!(act(&platform, &at, &start).await, Err(error));
    assert!(matches!(platform.records().last(), Some(Record::Failed(_))));
    let failed = Cause::NotRunning {
        state: ServiceState::Failed,
    };
    assert_eq!(plan(&wanted, &platform.state()).actions[0].cause, failed);

    let script = Script::NeverReady("port 6379 not open yet".into());
    platform.script(redis.clone(), plan::StepKind::Start, script);
    tokio::select! {
        biased;
        _ = act(&platform, &at, &start) => panic!("it is never ready"),
        () = async { for _ in 0..10 { tokio::task::yield_now().await } } => {}
    }
    assert_eq!(
        plan(&wanted, &platform.state()).actions[0].cause,
        Cause::NotReady
    );
    platform.set_hook(|_, observed| {
        observed.sandboxes.clear();
    });
    assert!(
        act(&platform, &at, &start).await.is_err(),
        "the hook took the sandbox away"
    );
}

#[test]
fn wanted_running_again() {
    let wanted = desired(shop());
    let mut stack = shop();
    stack["web"]["state"] = "stopped".into();
    stack["data"]["services"]["redis"]["state"] = "stopped".into();
    let old = desired(stack);
    let stopped = plan(&old, &as_wanted(&wanted));
    let observed = simulate::run(&old, &as_wanted(&wanted), &stopped).unwrap();
    insta::assert_snapshot!(transcript(&plan(&wanted, &observed)));
}
