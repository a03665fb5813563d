//! What good manifests mean.

use gabion::model::{
    Condition, HumanDuration, Probe, Program, Reference, RestartPolicy, ServiceKind, ServiceSpec,
};
use secrecy::ExposeSecret;

use super::*;

fn good(loaded: Loaded) -> Loaded {
    assert!(
        loaded.report.diagnostics.is_empty(),
        "{}",
        loaded.report.render_text(false, 100)
    );
    loaded
}

fn services(body: &str) -> String {
    let body = body.replace('\n', "\n      ");
    format!("version: 1\nstack: shop\nsandboxes:\n  web:\n    services:\n      {body}\n")
}

fn service(loaded: &Loaded, address: &str) -> ServiceSpec {
    let desired = loaded.desired.as_ref().unwrap();
    desired
        .service(&address.parse().unwrap())
        .unwrap()
        .as_ref()
        .clone()
}

fn one(body: &str) -> ServiceSpec {
    service(&good(load(&services(body))), "web/a")
}

/// Its command line.
fn words(spec: &ServiceSpec) -> String {
    match &spec.program {
        Program::Shell { command } => command.clone(),
        Program::Exec { cmd, args } => format!("{cmd} {}", args.join(" ")),
    }
}

#[test]
fn where_services_are_reached_is_put_in_and_implies_a_need() {
    let path = Path::new("tests/manifest/good/references.yaml");
    let loaded = good(manifest::load(&case(path)));
    let needs = |address: &str| -> Vec<String> {
        let needs = service(&loaded, address).needs;
        needs.iter().map(|need| need.target.to_string()).collect()
    };
    let db = service(&loaded, "data/db");
    assert_eq!(
        (words(&db).as_str(), db.needs.len()),
        ("postgres -p 5432", 0)
    );
    assert_eq!(words(&service(&loaded, "data/seed")), "./seed 5432");
    assert_eq!(needs("data/seed"), ["db"]);
    let api = service(&loaded, "web/api");
    assert_eq!(words(&api), "./api --db 5432");
    assert_eq!(api.env["CACHE"], "127.0.0.1:9000");
    assert_eq!(api.env["SELF"], "http://127.0.0.1:3000/healthz");
    assert_eq!(needs("web/api"), ["data/cache", "data/db", "data/seed"]);
    assert_eq!(
        words(&service(&loaded, "web/site")),
        "./site http://127.0.0.1:3000"
    );
    assert_eq!(needs("web/site"), ["api"]);
}

/// Kinds that differ in which ports have URLs.
fn with_urls(urls: Urls, kind: &'static str) -> &'static Capabilities {
    Box::leak(Box::new(Capabilities {
        kind,
        urls,
        settings: &[],
        exceptions: &[],
        ..LOCAL
    }))
}

fn in_clouds(web: &str, other: &str) -> Loaded {
    let text = format!(
        "version: 1
stack: shop
sandboxes:
  web: {{ platform: whole, services: {{ api: {web} }} }}
  other: {{ platform: single, services: {{ use: {other}, site: {{ cmd: x, ports: [80, 8080] }} }} }}
  dark: {{ platform: dark, services: {{ api: {{ cmd: x, http_port: 80 }} }} }}
"
    );
    let single = Urls::Ports {
        least: 1025,
        reserved: &[3000],
    };
    load_files(&[("gabion.yaml", &text)], |request| {
        let more = [
            with_urls(Urls::Sandbox, "whole"),
            with_urls(single, "single"),
            with_urls(Urls::None("nobody gets in"), "dark"),
        ];
        request.platforms.extend(more);
    })
}

#[test]
fn what_only_a_platform_can_tell_stays_a_reference_and_implies_a_need() {
    let loaded = good(in_clouds(
        "{ cmd: x, http_port: 80, env: { SELF: '${sandboxes.web.url}' } }",
        "{ command: 'x ${services.web/api.url}', env: { A: '${services.other/site.url}/a' } }",
    ));
    let api = service(&loaded, "web/api");
    let written: Vec<_> = api.references.iter().collect();
    let reached = |service: &str, port| Reference {
        service: service.parse().unwrap(),
        port,
    };
    let (name, own) = ("sandboxes.web.url".to_owned(), reached("web/api", 80));
    assert_eq!((written, api.needs.len()), (vec![(&name, &own)], 0));
    let user = service(&loaded, "other/use");
    assert_eq!(words(&user), "x ${services.web/api.url}");
    assert_eq!(user.env["A"], "${services.other/site.url}/a");
    let found: Vec<_> = user.references.into_values().collect();
    assert_eq!(found, [reached("other/site", 8080), own]);
    let needs: Vec<_> = user.needs.iter().map(|it| it.target.to_string()).collect();
    assert_eq!(needs, ["site", "web/api"]);
}

#[test]
fn what_will_never_have_a_url_is_refused_where_it_is_named() {
    let plain = "{ cmd: x, http_port: 80 }";
    let told = |loaded: &Loaded| -> Vec<String> {
        let all = loaded.report.diagnostics.iter();
        all.map(|it| it.message.clone()).collect()
    };
    for (web, other, why) in [
        (
            plain,
            "{ cmd: x, env: { A: '${services.dark/api.url}' } }",
            "nobody gets in",
        ),
        (
            "{ cmd: x, ports: [80] }",
            "{ cmd: x, args: ['${services.web/api.url}'] }",
            "has no `http_port`",
        ),
        (
            plain,
            "{ cmd: x, ports: [80, 3000], env: { A: '${services.other/use.url}' } }",
            "from 1025 up, but for 3000",
        ),
        (
            plain,
            "{ cmd: x, ports: [2000], env: { A: '${services.other/use.url}' } }",
            "cannot be told its own URL",
        ),
        (
            "{ kind: task, cmd: x, http_port: 80 }",
            "{ cmd: x, args: ['${services.web/api.url}'] }",
            "is a task",
        ),
        (
            plain,
            "{ cmd: x, description: '${services.web/api.url}' }",
            "too late here",
        ),
    ] {
        let loaded = in_clouds(web, other);
        let all = told(&loaded);
        assert!(all.iter().any(|it| it.contains(why)), "{why}: {all:?}");
        let found = &loaded.report.diagnostics[0];
        assert!(
            found.code == "M035" && found.location.is_some(),
            "{found:?}"
        );
    }
}

#[test]
fn a_full_manifest() {
    let loaded = good(manifest::load(&case(Path::new(
        "tests/manifest/good/full.yaml",
    ))));
    assert_eq!(loaded.stack.as_deref(), Some("shop"));
    let mut view = format!("{:#?}", loaded.desired.as_ref().unwrap());
    let here = std::fs::canonicalize("tests/manifest/good").unwrap();
    view = view.replace(here.to_str().unwrap(), "(here)");
    view.push_str(&format!(
        "\n{:#?}\n{:#?}\n{:#?}\n",
        loaded.platforms, loaded.secrets, loaded.files
    ));
    assert!(!view.contains("s3cret") && !view.contains("from file") && !view.contains("t0ken"));
    assert!(expect_file(
        Path::new("tests/manifest/good/full.txt"),
        &view
    ));
    let secret = |name: &str| loaded.secrets.get(name).unwrap().expose_secret().to_owned();
    assert_eq!(secret("db_password"), "s3cret");
    assert_eq!(secret("api.env:TOKEN"), "from file");
    let token = loaded.platforms["cloud"]
        .setting("token", &loaded.secrets)
        .unwrap();
    assert_eq!(token.expose_secret(), "t0ken");
    let api = service(&loaded, "web/api");
    let env = loaded.secrets.expand_env(&api).unwrap();
    assert_eq!(env["TOKEN"].expose_secret(), "from file");
    assert_eq!(env["PORT"].expose_secret(), "3000");
}

#[test]
fn every_good_manifest_is_good() {
    for path in files("tests/manifest/good") {
        good(manifest::load(&case(&path)));
    }
}

#[test]
fn text_is_kept_as_written() {
    let spec = one(
        "a: { cmd: x, args: [1.10, no, 0x1F, ~, 12:30, on], env: { V: 1.10, N: no, E: , D: 2026-01-01 } }",
    );
    let args = ["1.10", "no", "0x1F", "~", "12:30", "on"]
        .map(str::to_owned)
        .to_vec();
    assert_eq!(
        spec.program,
        Program::Exec {
            cmd: "x".to_owned(),
            args
        }
    );
    let env: Vec<_> = spec
        .env
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    assert_eq!(
        env,
        [("D", "2026-01-01"), ("E", ""), ("N", "no"), ("V", "1.10")]
    );
}

#[test]
fn both_spellings_are_equal() {
    let pairs = [
        (
            "a: { cmd: x, health_port: 80 }",
            "a: { cmd: x, health: { tcp: { port: 80 } } }",
        ),
        (
            "a: { cmd: x, health_port: 80, timeout: 3s }",
            "a: { cmd: x, health: { tcp: 80, timeout: 3s } }",
        ),
        (
            "a: { cmd: x, health: { http: { port: 80 } } }",
            "a: { cmd: x, health: { http: { port: 80, path: / } } }",
        ),
        (
            "a: { cmd: x, health: { exec: 'a b' } }",
            "a: { cmd: x, health: { exec: [/bin/sh, -c, a b] } }",
        ),
        (
            "a: { cmd: x, restart: always }",
            "a: { cmd: x, restart: { policy: always } }",
        ),
        ("a: { cmd: x, restart: no }", "a: { cmd: x, restart: 'no' }"),
        (
            "a: { cmd: x, stop: { signal: SIGINT } }",
            "a: { cmd: x, stop: { signal: int } }",
        ),
        (
            "a: { cmd: x, needs: [b, c] }\nb: { cmd: x }\nc: { cmd: x }",
            "a: { cmd: x, needs: [web/c, { service: b, condition: ready, restart: false }] }\nb: { cmd: x }\nc: { cmd: x }",
        ),
        (
            "a: { cmd: x, needs: [t] }\nt: { kind: task, cmd: x }",
            "a: { cmd: x, needs: [{ service: t, condition: completed }] }\nt: { kind: task, cmd: x }",
        ),
        (
            "a: { cmd: x, state: running, ports: , env: }",
            "a: { cmd: x }",
        ),
    ];
    for (one_way, other) in pairs {
        assert_eq!(one(one_way), one(other), "{one_way}");
    }
}

#[test]
fn tasks() {
    let spec = one("a: { kind: task, command: ls, timeout: 5m }");
    assert_eq!(spec.kind, ServiceKind::Task);
    assert_eq!(spec.timeout, Some(HumanDuration::from_secs(300)));
    assert_eq!(spec.restart.policy, RestartPolicy::No);
    let spec = one(
        "a: { cmd: x, needs: [{ service: t, condition: started, restart: true }] }\nt: { kind: task, cmd: x }",
    );
    assert_eq!(spec.needs[0].condition, Condition::Started);
    assert!(spec.needs[0].restart);
}

#[test]
fn anchors_aliases_and_merge_keys() {
    let text = services(
        "a: &a { cmd: x, env: &e { A: 1, B: 2 }, ports: [80] }\n\
         b: { <<: *a, ports: [81], env: { <<: *e, B: 3 } }\n\
         c: { <<: [{ cmd: y, ports: [82] }, *a] }\n\
         d: { \"<<\": no }",
    );
    let loaded = load(&text);
    assert_eq!(codes(&loaded), ["M013 9:7", "M007 9:12"]);
    let loaded = good(load(&text[..text.find("      d:").unwrap()]));
    let b = service(&loaded, "web/b");
    assert_eq!(b.ports, [81]);
    assert_eq!((b.env["A"].as_str(), b.env["B"].as_str()), ("1", "3"));
    let c = service(&loaded, "web/c");
    assert_eq!(c.program.argv(), ["y"]);
    assert_eq!(c.env["B"], "2");
}

#[test]
fn interpolation() {
    let text = services(
        "a:\n  cmd: x\n  args: ['$$', '$X', '${X}', '${x.y}', '$${env.A}', '${env.B:-b}', '${env.E:-e}', '${env.N:-${env.A}}', '${var.v}', '${env.Q}']\n  ports: ['${env.P}']\n  container: \"${env.NO:-false}\"",
    ) + "vars: { v: '${env.A}!' }\n";
    let loaded = load_files(&[("gabion.yaml", &text)], |request| {
        for (key, value) in [
            ("A", "[1, 2]"),
            ("E", ""),
            ("P", "80"),
            ("Q", "a: ${env.A} ${secret.s}"),
        ] {
            request.env.insert(key.to_owned(), value.to_owned());
        }
    });
    let spec = service(&good(loaded), "web/a");
    assert_eq!(
        spec.program.argv()[1..],
        [
            "$$",
            "$X",
            "${X}",
            "${x.y}",
            "$[1, 2]",
            "b",
            "e",
            "[1, 2]",
            "[1, 2]!",
            "a: ${env.A} ${secret.s}"
        ]
    );
    assert_eq!(spec.ports, [80]);
}

#[test]
fn variables_can_be_overridden() {
    let text = services("a: { cmd: '${var.v}' }") + "vars: { v: one }\n";
    let loaded = load_files(&[("gabion.yaml", &text)], |request| {
        request.vars.insert("v".to_owned(), "two".to_owned());
    });
    assert_eq!(service(&good(loaded), "web/a").program.argv(), ["two"]);
}

#[test]
fn files_are_laid_over_each_other() {
    let base = "version: 1\nstack: shop\nsandboxes:\n  web:\n    topics: [a, b]\n    services:\n      a: { cmd: x, env: { A: 1, B: 2 } }\n";
    let over = "sandboxes:\n  web:\n    topics: [c]\n    services:\n      a: { env: { B: 3 }, prots: [1] }\n      b: { cmd: y }\n";
    let loaded = load_files(&[("gabion.yaml", base), ("prod/over.yaml", over)], |_| {});
    assert_eq!(codes(&loaded), ["M007 5:27"]);
    let at = loaded.report.diagnostics[0].location.as_ref().unwrap();
    assert!(at.file.ends_with("prod/over.yaml"));
    let over = over.replace(", prots: [1]", "");
    let loaded = good(load_files(
        &[("gabion.yaml", base), ("prod/over.yaml", &over)],
        |_| {},
    ));
    let a = service(&loaded, "web/a");
    assert_eq!((a.env["A"].as_str(), a.env["B"].as_str()), ("1", "3"));
    let web = &loaded.desired.as_ref().unwrap().sandboxes["web"];
    assert_eq!(web.spec.topics, ["c"]);
    assert_eq!(web.services.len(), 2);
}

#[test]
fn the_environment_has_layers() {
    let text = "version: 1\ndefaults: { env: { A: 1, B: 1, C: 1, D: 1 } }\nsandboxes:\n  web:\n    env: { B: 2, C: 2, D: 2 }\n    services:\n      a: { cmd: x, env_file: [x.env], env: { D: 4 } }\n";
    let loaded = good(load_files(
        &[("gabion.yaml", text), ("x.env", "C=3\nD=3\n")],
        |_| {},
    ));
    assert_eq!(loaded.stack.as_deref(), Some("shop"));
    let a = service(&loaded, "web/a");
    let env: Vec<_> = a.env.values().map(String::as_str).collect();
    assert_eq!(env, ["1", "2", "${secret.x.env:C}", "4"]);
    assert_eq!(a.secrets.keys().collect::<Vec<_>>(), ["x.env:C"]);
    assert!(loaded.files.iter().any(|file| file.ends_with("x.env")));
    let web = &loaded.desired.as_ref().unwrap().sandboxes["web"].spec;
    assert_eq!(web.env["D"], "2");
}

#[test]
fn a_changed_secret_is_a_changed_definition() {
    let text =
        services("a: { cmd: x, env: { A: '${secret.s}' } }") + "secrets: { s: { env: S } }\n";
    let with = |value: &str| {
        let loaded = load_files(&[("gabion.yaml", &text)], |request| {
            request.env.insert("S".to_owned(), value.to_owned());
        });
        service(&good(loaded), "web/a")
    };
    assert_eq!(with("1"), with("1"));
    assert_ne!(with("1").secrets, with("2").secrets);
    assert_eq!(with("1").env, with("2").env);
}

#[test]
fn contents_of_files_are_secrets_of_their_own() {
    let text = r#"version: 1
secrets: { s: { env: S } }
vars: { port: 8080 }
sandboxes:
  web:
    env: { A: "${secret.s}" }
    files:
      /etc/app.conf: "listen ${var.port}; password ${secret.s}; home ${HOME}"
      /etc/raw: { from: raw }
      /etc/number: 1.10
  other:
    files: { /etc/app.conf: plain }
"#;
    let with = |value: &str, raw: &str| {
        let files = [("gabion.yaml", text), ("raw", raw)];
        good(load_files(&files, |request| {
            request.env.insert("S".to_owned(), value.to_owned());
        }))
    };
    let spec = |loaded: &Loaded| {
        let spec = &loaded.desired.as_ref().unwrap().sandboxes["web"].spec;
        gabion::model::SandboxSpec::clone(spec)
    };
    let raw = "${secret.s}\n\n";
    let first = with("1", raw);
    let content = |name: &str| first.secrets.get(name).unwrap().expose_secret().to_owned();
    let app = "listen 8080; password 1; home ${HOME}";
    assert_eq!(content("/etc/app.conf of web"), app);
    assert_eq!(content("/etc/app.conf of other"), "plain");
    assert_eq!(content("/etc/raw of web"), raw);
    assert_eq!(content("/etc/number of web"), "1.10");
    assert!(first.files.iter().any(|file| file.ends_with("raw")));
    let files = spec(&first).files;
    assert_eq!(files["/etc/raw"], "/etc/raw of web");
    assert_eq!(files.len(), 3);

    // What is not changed is the same, and needs no restart.
    let restarts = |other: &Loaded| spec(&first).needs_restart(&spec(other));
    assert_eq!(spec(&first), spec(&with("1", raw)));
    assert!(restarts(&with("2", raw)) && restarts(&with("1", "raw")));
    let serialized = format!("{:?}", spec(&first));
    assert!(!serialized.contains("listen"), "{serialized}");
}

#[test]
fn files_of_a_sandbox_fit_into_a_request() {
    let text = "version: 1\nsandboxes: { web: { files: { /a: { from: a } } } }\n";
    for (size, fits) in [(64 << 10, true), ((64 << 10) + 1, false)] {
        let content = "x".repeat(size);
        let loaded = load_files(&[("gabion.yaml", text), ("a", &content)], |_| {});
        let inline = text.replace("{ from: a }", &content);
        for loaded in [loaded, load(&inline)] {
            let said = loaded
                .report
                .diagnostics
                .iter()
                .map(|it| it.message.clone());
            let said: Vec<_> = said.collect();
            assert_eq!(loaded.desired.is_some(), fits, "{said:?}");
            let told = said.iter().any(|it| it.contains("is larger than 64 KiB"));
            assert_eq!(told, !fits, "{said:?}");
        }
    }
}

#[test]
fn profiles_leave_out_what_is_not_selected() {
    let text = services(
        "a: { cmd: x }\nb: { cmd: x, profiles: [dev], ports: ['${env.NOT_SET}'], env: { A: '${env.NOT_SET}' } }",
    );
    let loaded = good(load(&text));
    assert_eq!(loaded.desired.unwrap().services().count(), 1);
    let loaded = load_files(&[("gabion.yaml", &text)], |request| {
        request.profiles.insert("dev".to_owned());
    });
    assert_eq!(codes(&loaded), ["M024 7:46", "M024 7:75"]);
}

#[test]
fn a_value_shared_with_something_left_out_is_still_checked() {
    let text = services(
        "a: { cmd: x, profiles: [dev], env: &e { A: '${env.NOT_SET}' } }\nb: { cmd: x, env: *e }",
    );
    check(&text, &["M024 6:51"]);
}

#[test]
fn byte_order_marks_line_ends_and_empty_maps() {
    check(
        "\u{feff}version: 1\r\nsandboxes:\r\n  web:\r\n    services:\r\n",
        &[],
    );
    check(
        "\u{feff}version: 1\r\nsandboxes:\r\n  wéb: {}\r\n  x: { é: 1, y: 2 }\r\n",
        &["M011 3:3", "M007 4:8", "M007 4:14"],
    );
    check("version: 1\nsandboxes: { a: }\n", &[]);
}

#[test]
fn probes() {
    let probe = |text: &str| {
        one(&format!("a: {{ cmd: x, health: {{ {text} }} }}"))
            .health
            .unwrap()
            .probe
    };
    assert_eq!(
        probe("log: up"),
        Probe::Log {
            contains: "up".to_owned()
        }
    );
    assert_eq!(
        probe("exec: [a, 1]"),
        Probe::Exec {
            argv: vec!["a".to_owned(), "1".to_owned()]
        }
    );
    assert_eq!(probe("tcp: 1"), Probe::Tcp { port: 1 });
    assert_eq!(probe("notify: true"), Probe::Notify {});
    assert_eq!(probe("tcp: 1, notify: false"), Probe::Tcp { port: 1 });
    let accepts = |status: &str, answer| match probe(&format!("http: {{ port: 1{status} }}")) {
        Probe::Http(probe) => probe.accepts(answer),
        other => panic!("{other:?}"),
    };
    for (status, good, bad) in [
        ("", 399, 400),
        (", status: 404", 404, 200),
        (", status: 200-204", 203, 205),
        (", status: [200, '204', 300-309]", 301, 201),
    ] {
        assert!(accepts(status, good) && !accepts(status, bad), "{status}");
    }
}

#[test]
fn one_mistake_does_not_hide_the_next() {
    check(
        &services(
            "a: { cmd: [x], ports: [x, 0], nope: 1, needs: [b], restart: sometimes }\nb: { }",
        ),
        &[
            "M008 6:17",
            "M008 6:30",
            "M012 6:33",
            "M007 6:37",
            "M009 6:67",
            "M013 7:7",
        ],
    );
    // What a broken sandbox would have is not known, so needs on it are let be.
    check(
        "version: 1\nsandboxes:\n  web: { services: { a: { cmd: x, needs: [data/db] } } }\n  data: [db]\n",
        &["M008 4:9"],
    );
    // After a syntax error the rest is not missed, but what was read is looked at.
    check(
        "vrsion: 1\nsandboxes:\n  web: { nope: 1 }\n  x: 'open\n",
        &["M007 1:1", "M007 3:10", "M004 4:6"],
    );
}

#[test]
fn the_stack_is_named_after_its_folder() {
    let text = "version: 1\nsandboxes: {}\n";
    let named = |folder: &str| load_files(&[(&format!("{folder}/gabion.yaml"), text)], |_| {});
    assert_eq!(good(named("my-shop")).stack.as_deref(), Some("my-shop"));
    let loaded = named("my shop");
    assert_eq!(codes(&loaded), ["M011 1:1"]);
    assert_eq!(loaded.stack, None);
    // It is known even if nothing else is.
    let broken = load("version: 1\nstack: other\nsandboxes: [\n");
    assert_eq!(broken.stack.as_deref(), Some("other"));
    assert!(broken.desired.is_none());
}

#[test]
fn secrets_of_platforms_matter_only_where_they_are_used() {
    let text = "version: 1\nplatforms: { cloud: { kind: sprites, token: '${secret.t}' } }\n\
                secrets: { t: { env: T } }\nsandboxes: { web: { platform: local } }\n";
    let loaded = good(load(text));
    assert_eq!(
        loaded.platforms.keys().collect::<Vec<_>>(),
        ["cloud", "local"]
    );
    check(
        &text.replace("platform: local", "platform: cloud"),
        &["M028 3:22"],
    );
}

#[test]
fn circles_that_go_through_sandboxes() {
    let text = |one: &str, two: &str| {
        format!(
            "version: 1\nsandboxes:\n  a: {{ needs: [{one}], services: {{ x: {{ cmd: x }} }} }}\n  \
             b: {{ needs: [{two}], services: {{ y: {{ cmd: y, needs: [] }} }} }}\n"
        )
    };
    check(&text("b", ""), &[]);
    check(&text("b", "a"), &["M020 3:16"]);
    check(&text("b/y", "a/x"), &["M020 3:16"]);
    check(
        &text("b", "").replace("needs: [] }", "needs: [a/x] }"),
        &["M020 3:16"],
    );
}

#[test]
fn fields_that_begin_with_x_are_a_place_for_anchors() {
    let loaded = good(load(
        "version: 1
stack: shop
x-python: &python { cmd: python3, env: { PYTHONUNBUFFERED: '1' } }
sandboxes:
  web:
    services:
      a: { <<: *python, args: [a.py] }
",
    ));
    assert_eq!(service(&loaded, "web/a").env["PYTHONUNBUFFERED"], "1");
}
