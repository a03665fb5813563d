//! Sandboxes themselves: protocol page pocketenv, §4.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::call::{Call, Keys, find, told};
use super::input::Input;
use super::note::{CLOUDFLARE, Note};
use super::problem::{Answer, Problem};
use super::status::{self, RUNNING, STOPPED};
use super::{catalogue, identity, start};
use crate::model::SandboxSpec;
use crate::serve::engine::{Account, Engine, Program, Result, Sandbox, Wish};

/// Who runs sandboxes.
const PROVIDERS: [&str; 10] = [
    "daytona",
    "vercel",
    "cloudflare",
    "deno",
    "sprites",
    "modal",
    "e2b",
    "blaxel",
    "hopx",
    "runloop",
];

/// The one that ordinary users cannot have.
const RESTRICTED: &str = "blaxel";

/// How long a topic may be, in characters.
pub(super) const LONGEST_TOPIC: usize = 50;

/// Processors, gigabytes of memory and of disk that a sandbox of a provider has.
fn size(provider: &str) -> [u32; 3] {
    match provider {
        CLOUDFLARE => [2, 8, 16],
        _ => [2, 4, 3],
    }
}

/// What lists show of a sandbox; without an owner it has no public record.
fn item(owner: Option<&Account>, sandbox: &Sandbox) -> Result<Map<String, Value>> {
    let (record, note) = (sandbox.record(), Note::of(sandbox));
    let [vcpus, memory, disk] = size(note.provider());
    let status = status::tell(sandbox)?;
    let mut item = Map::new();
    let fields = [
        ("id", json!(identity::sandbox_id(sandbox))),
        ("name", json!(record.name)),
        ("provider", json!(note.provider())),
        (
            "baseSandbox",
            json!(note.base.as_deref().unwrap_or(catalogue::BASES[0])),
        ),
        ("displayName", Value::Null),
        ("description", json!(record.description)),
        ("logo", Value::Null),
        ("readme", Value::Null),
        ("status", json!(status)),
        ("installs", json!(0)),
        (
            "uri",
            json!(owner.map(|account| identity::uri(account, sandbox))),
        ),
        ("vcpus", json!(vcpus)),
        ("memory", json!(memory)),
        ("disk", json!(disk)),
        ("createdAt", json!(identity::shown(record.created_at))),
    ];
    item.extend(fields.map(|(key, value)| (key.to_owned(), value)));
    if let Some(time) = note.started_at {
        item.insert("startedAt".to_owned(), json!(identity::shown(time)));
    }
    Ok(item)
}

/// What is shown of one sandbox.
fn object(owner: Option<&Account>, sandbox: &Sandbox) -> Result<Value> {
    let (record, note) = (sandbox.record(), Note::of(sandbox));
    let mut object = item(owner, sandbox)?;
    let topics = (!record.labels.is_empty()).then_some(record.labels);
    object.insert("topics".to_owned(), json!(topics));
    object.insert("repo".to_owned(), json!(note.repo));
    if let Some(account) = owner {
        object.insert("owner".to_owned(), person(account));
    }
    Ok(object.into())
}

/// An account as a person.
fn person(account: &Account) -> Value {
    let did = identity::did(account);
    let id = identity::person_id(account);
    let time = "2026-01-01T00:00:00.000Z";
    json!({
        "id": id,
        "did": did,
        "handle": identity::handle(account),
        "displayName": account.name(),
        "avatar": null,
        "createdAt": time,
        "updatedAt": time,
    })
}

pub(super) async fn profile(call: Call) -> Answer {
    let account = match call.param("did") {
        Some(actor) => actor_called(&call.engine, actor),
        None => Some(call.user()?.clone()),
    };
    let account = account.filter(|_| !call.switches.empty_profile);
    told(account.map_or(json!({}), |account| person(&account)))
}

fn actor_called(engine: &Engine, actor: &str) -> Option<Arc<Account>> {
    let mut accounts = engine.accounts();
    let found = accounts.find(|it| identity::did(it) == actor || identity::handle(it) == actor);
    found.cloned()
}

pub(super) async fn of_actor(call: Call) -> Answer {
    let actor = call.needed_param("did")?;
    if !actor.starts_with("did:") && !actor.contains('.') {
        return Err(Problem::invalid(
            "Error: did must be a valid did or a handle",
        ));
    }
    let page = call.page(30)?;
    let running = call.param("isRunning").map(|text| text == "true");
    let Some(account) = actor_called(&call.engine, actor) else {
        return told(json!({ "sandboxes": [], "total": 0 }));
    };
    let mut all = account.sandboxes();
    let wanted = running.map(|running| if running { RUNNING } else { STOPPED });
    all.retain(|sandbox| wanted.is_none_or(|wanted| status::status(sandbox) == wanted));
    // The newest first.
    all.reverse();
    let total = all.len();
    let shown = page.of(all).into_iter();
    let shown = shown.map(|sandbox| item(Some(&account), &sandbox));
    let shown = shown.collect::<Result<Vec<_>>>()?;
    told(json!({ "sandboxes": shown, "total": total }))
}

pub(super) async fn show(call: Call) -> Answer {
    let text = call.needed_param("id")?;
    // Whose it is does not matter here.
    let own = call.caller().into_iter().chain(call.engine.accounts());
    let found = own
        .filter_map(|account| Some((account, find(account, text, Keys::IdOrNameOrUri)?)))
        .next();
    if let Some((account, sandbox)) = found {
        return told(json!({ "sandbox": object(Some(account), &sandbox)? }));
    }
    if let Some(sandbox) = find(call.engine.unclaimed(), text, Keys::IdOrName) {
        return told(json!({ "sandbox": object(None, &sandbox)? }));
    }
    told(match catalogue::base(text) {
        Some(base) => json!({ "sandbox": catalogue::entry(base) }),
        None => json!({}),
    })
}

/// What a create asks for, as far as it is answered.
fn echoed(input: &Input) -> Answer<Map<String, Value>> {
    input.text("description")?;
    input.texts("topics", LONGEST_TOPIC)?;
    input.text("readme")?;
    for (key, least) in [("vcpus", 1), ("memory", 1), ("disk", 3)] {
        input.integer(key, least, i64::MAX)?;
    }
    let keys = ["description", "topics", "vcpus", "memory", "disk", "readme"];
    let echoed = keys
        .iter()
        .filter_map(|key| Some(((*key).to_owned(), input.raw(key)?.clone())));
    Ok(echoed.collect())
}

pub(super) async fn create(call: Call) -> Answer {
    let input = &call.input;
    let wanted = input.needed_text("base")?;
    input.text("name")?;
    for key in ["envs", "secrets"] {
        if input.has(key) {
            let text = format!("Lexicon not found: lex:io.pocketenv.sandbox.defs#{key}");
            return Err(Problem::invalid(text));
        }
    }
    let provider = input.word("provider", &PROVIDERS)?;
    let provider = provider.unwrap_or_else(|| CLOUDFLARE.to_owned());
    let repo = input.text("repo")?;
    input.flag("keepAlive")?;
    let mut answer = echoed(input)?;
    let account = match call.caller() {
        Some(account) => account,
        // Any proof of being a browser will do here.
        None if call.challenged => call.engine.unclaimed(),
        None => return Err(Problem::no_challenge()),
    };
    if provider == RESTRICTED {
        return Err(Problem::forbidden(RESTRICTED));
    }
    let base = catalogue::base(&wanted)
        .filter(|base| provider == CLOUDFLARE || *base == catalogue::BASES[0])
        .ok_or_else(|| Problem::provider("Failed to create sandbox"))?;
    let same = |sandbox: &Arc<Sandbox>| {
        let note = Note::of(sandbox);
        repo.is_some() && note.repo == repo && note.base.as_deref() == Some(base)
    };
    let mut own = call.caller().map_or_else(Vec::new, |it| it.sandboxes());
    own.retain(same);
    let known = own.into_iter().next();
    let sandbox = match known {
        Some(sandbox) => sandbox,
        None => {
            let mut wish = Wish::named(generated_name());
            Note::change_in(&mut wish.record, |note| {
                note.base = Some(base.to_owned());
                note.provider = Some(provider.clone());
                note.repo = repo;
                if provider != CLOUDFLARE {
                    note.initializing = call.switches.initializing;
                    note.stuck = call.switches.stuck;
                }
                note.silent_starts = call.switches.silent_starts;
            });
            wish.spec = SandboxSpec::default();
            let made = account.create(wish).await;
            made.map_err(|error| Problem::provider(error.message))?
        }
    };
    start::bring_up(&call.engine, &sandbox, None).await?;
    answer.extend(
        [
            ("id", json!(identity::sandbox_id(&sandbox))),
            ("name", json!(sandbox.record().name)),
            ("provider", json!(provider)),
            (
                "createdAt",
                json!(identity::shown(sandbox.record().created_at)),
            ),
            (
                "uri",
                json!(call.caller().map(|it| identity::uri(it, &sandbox))),
            ),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    );
    told(answer)
}

/// Makes a sandbox the caller's that is nobody's.
pub(super) async fn claim(call: Call) -> Answer {
    let id = call.needed_param("id")?;
    let account = call.user()?;
    let found = find(call.engine.unclaimed(), id, Keys::Id);
    let sandbox = found.ok_or_else(|| Problem::not_found("Sandbox"))?;
    call.engine.claim(&sandbox, account)?;
    let (record, note) = (sandbox.record(), Note::of(&sandbox));
    let [vcpus, memory, disk] = size(note.provider());
    told(json!({
        "id": id,
        "name": record.name,
        "provider": note.provider(),
        "description": record.description,
        "vcpus": vcpus,
        "memory": memory,
        "disk": disk,
        "createdAt": identity::shown(record.created_at),
        "uri": identity::uri(account, &sandbox),
    }))
}

/// `calm-heron-4f2k`.
fn generated_name() -> String {
    const ADJECTIVES: [&str; 8] = [
        "calm", "bold", "warm", "quick", "quiet", "bright", "plain", "brave",
    ];
    const NOUNS: [&str; 8] = [
        "heron", "otter", "maple", "river", "stone", "cloud", "finch", "cedar",
    ];
    const SIGNS: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let one = |words: &[&'static str; 8]| words[fastrand::usize(..words.len())];
    let sign = || char::from(SIGNS[fastrand::usize(..SIGNS.len())]);
    let end: String = std::iter::repeat_with(sign).take(4).collect();
    format!("{}-{}-{end}", one(&ADJECTIVES), one(&NOUNS))
}

pub(super) async fn remove(call: Call) -> Answer {
    let sandbox = call.own_by_id()?;
    let removed = call.user()?.delete(&sandbox).await;
    removed.map_err(|error| Problem::provider(error.message))?;
    told(json!({}))
}

pub(super) async fn exec(call: Call) -> Answer {
    let sandbox = call.own_by_id()?;
    let command = call.input.needed_text("command")?;
    if status::status(&sandbox) != RUNNING {
        return Err(Problem::refused());
    }
    let program = Program {
        argv: ["/bin/sh", "-c", &command].map(str::to_owned).into(),
        env: start::secret_values(&Note::of(&sandbox)),
        ..Program::default()
    };
    let ran = sandbox.run(program, Default::default()).await?;
    told(json!({
        "stdout": String::from_utf8_lossy(&ran.stdout),
        "stderr": String::from_utf8_lossy(&ran.stderr),
        "exitCode": ran.code,
    }))
}
