use std::cell::Cell;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::model::{Program, ServiceSpec};

thread_local! {
    /// How many entries are moved before the process "dies".
    static MOVES: Cell<Option<usize>> = const { Cell::new(None) };
}

/// A panic stands for the death of the process: nothing tidies up after it.
pub(super) fn fault() -> io::Result<()> {
    match MOVES.get() {
        Some(0) => panic!("dies here"),
        left => MOVES.set(left.map(|left| left - 1)),
    }
    Ok(())
}

fn record(command: &str) -> Record {
    Record::new(ServiceSpec::new(Program::Shell {
        command: command.to_owned(),
    }))
}

fn named(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

/// A sandbox with an old workspace, and the files and records of another one.
struct Scene {
    temp: tempfile::TempDir,
    store: Store,
}

impl Scene {
    fn new(workspace: Option<&str>) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let workspace = workspace.map(|name| temp.path().join(name));
        let sandbox = match &workspace {
            // Gabion's own state is in the workspace.
            Some(workspace) => workspace.join("a/state/sandboxes/stack/box"),
            None => temp.path().join("box"),
        };
        fs::create_dir_all(&sandbox).unwrap();
        let spec = serde_json::json!({ "spec": { "platform": "local", "workspace": workspace } });
        fs::write(sandbox.join("sandbox.json"), spec.to_string()).unwrap();
        let store = Store::at(&sandbox).unwrap();
        store.prepare().unwrap();
        store.save(&named("old"), &record("old")).unwrap();
        store.save(&named("both"), &record("old")).unwrap();
        let scene = Self { temp, store };
        let live = scene.workspace();
        fs::create_dir_all(live.join("a")).unwrap();
        fs::write(live.join("a/both"), "old").unwrap();
        fs::write(live.join("a/gone"), "old").unwrap();
        fs::write(live.join("both"), "old").unwrap();
        fs::create_dir(live.join("changes")).unwrap();
        fs::write(live.join("gone"), "old").unwrap();
        let files = scene.files();
        fs::create_dir_all(files.join("a")).unwrap();
        fs::write(files.join("a/both"), "new").unwrap();
        fs::write(files.join("both"), "new").unwrap();
        fs::write(files.join("changes"), "new").unwrap();
        fs::create_dir_all(files.join("added/deep")).unwrap();
        fs::set_permissions(&files, fs::Permissions::from_mode(0o750)).unwrap();
        scene
    }

    fn workspace(&self) -> PathBuf {
        self.store.workspace().unwrap()
    }

    fn files(&self) -> PathBuf {
        self.temp.path().join("files")
    }

    fn stage(&self) -> io::Result<Swap> {
        let records = [
            (named("both"), record("new")),
            (named("new"), record("new")),
        ];
        Swap::stage(&self.store, &self.files(), records.into())
    }

    /// Files and definitions as text.
    fn state(&self) -> String {
        let mut lines = Vec::new();
        let mut folders = vec![self.workspace()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.ends_with("a/state") {
                    continue;
                }
                let relative = path
                    .strip_prefix(self.workspace())
                    .unwrap()
                    .display()
                    .to_string();
                match path.is_dir() {
                    true => folders.push(path),
                    false => {
                        lines.push(format!("{relative}={}", fs::read_to_string(path).unwrap()))
                    }
                }
                if !relative.is_empty() {
                    lines.push(relative);
                }
            }
        }
        for (name, record) in self.store.load().unwrap() {
            lines.push(format!("{name}: {:?}", record.definition.program));
        }
        lines.sort();
        lines.join("\n")
    }

    fn is_clean(&self) -> bool {
        !self.store.dir().join(JOURNAL).exists() && leftovers(&self.store).is_empty()
    }
}

#[test]
fn a_crash_at_any_move_leads_to_the_old_or_the_new_state() {
    for workspace in [None, Some("ws")] {
        let finished = Scene::new(workspace);
        let old = finished.state();
        finished.stage().unwrap().all().unwrap();
        let new = finished.state();
        assert!(new.contains("both=new") && !new.contains("old"), "{new}");
        assert!(finished.is_clean());
        let mode = fs::metadata(finished.workspace())
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o750);

        let scene = Scene::new(workspace);
        drop(scene.stage().unwrap());
        recover(&scene.store).unwrap();
        assert_eq!(scene.state(), old);
        assert!(scene.is_clean());

        let mut moves = 0;
        loop {
            let scene = Scene::new(workspace);
            let swap = scene.stage().unwrap();
            MOVES.set(Some(moves));
            let died =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| swap.all())).is_err();
            // Dies once more while it completes what was interrupted.
            MOVES.set(Some(1));
            let again = std::panic::catch_unwind(|| recover(&scene.store));
            MOVES.set(None);
            drop(again);
            recover(&scene.store).unwrap();
            assert_eq!(scene.state(), new, "after {moves} moves");
            assert!(scene.is_clean());
            if !died {
                break;
            }
            moves += 1;
        }
        assert!(moves > 6, "{moves}");
    }
}

#[test]
fn what_cannot_be_done_leaves_the_old_state() {
    let scene = Scene::new(None);
    let old = scene.state();
    fs::remove_dir_all(scene.files()).unwrap();
    assert!(scene.stage().is_err());
    assert_eq!(scene.state(), old);
    assert!(scene.is_clean());

    let scene = Scene::new(None);
    let swap = scene.stage().unwrap();
    // The new files are lost half-way.
    fs::remove_dir_all(swap.journal.staging.join("new")).unwrap();
    fs::write(swap.journal.staging.join("new"), "").unwrap();
    assert!(swap.all().is_err());
    fs::remove_file(scene.store.dir().join(JOURNAL)).unwrap();
    assert_eq!(scene.state(), old);
}
