use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

fn copy(from: &Path, to: &Path) -> Result<Copied, CopyError> {
    fs::create_dir(to).unwrap();
    copy_tree(
        open_root(from).unwrap(),
        open_root(to).unwrap(),
        LeaveOut::default(),
        &Default::default(),
    )
}

/// Everything that a copy must keep, by path; files with several names by their first.
fn facts(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut first = HashMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let mut entries: Vec<_> = fs::read_dir(&folder)
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        entries.sort();
        entries.push(folder.clone());
        for path in entries {
            let stat = fs::symlink_metadata(&path).unwrap();
            let relative = path.strip_prefix(root).unwrap().to_owned();
            let links = first
                .entry(stat.ino())
                .or_insert_with(|| relative.clone())
                .clone();
            let content = match stat.file_type() {
                kind if kind.is_file() => {
                    format!("{:?}", fs::read(&path).unwrap_or_default().len())
                }
                kind if kind.is_symlink() => format!("{:?}", fs::read_link(&path).unwrap()),
                kind => format!("{kind:?}"),
            };
            let fact = format!(
                "{:o} {}:{} {}.{} {links:?} {content}",
                stat.mode(),
                stat.uid(),
                stat.gid(),
                stat.mtime(),
                stat.mtime_nsec(),
            );
            if stat.is_dir() && path != folder {
                folders.push(path);
            }
            found.insert(relative, fact);
        }
    }
    found
}

#[test]
fn everything_that_makes_a_file_is_kept() {
    let temp = tempfile::tempdir().unwrap();
    let from = temp.path().join("from");
    for folder in ["", "closed", "closed/deep", "empty"] {
        fs::create_dir(from.join(folder)).unwrap();
    }
    for (name, size) in [
        ("a", 3),
        ("closed/b", 200_000),
        ("closed/deep/c", 0),
        ("large", 40 << 20),
    ] {
        let bytes: Vec<u8> = (0..size).map(|at: u32| (at / 7) as u8).collect();
        fs::write(from.join(name), bytes).unwrap();
    }
    fs::hard_link(from.join("a"), from.join("closed/also-a")).unwrap();
    symlink("a", from.join("link")).unwrap();
    symlink("/nowhere", from.join("closed/dangling")).unwrap();
    fs::hard_link(from.join("link"), from.join("same-link")).unwrap();
    rustix::fs::mknodat(CWD, from.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(from.join("socket")).unwrap();
    for (name, mode) in [
        ("a", 0o640),
        ("large", 0o4755),
        ("fifo", 0o604),
        ("empty", 0o1777),
    ] {
        fs::set_permissions(from.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    // An ACL of the user bin, and an attribute of our own.
    let acl = b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x04\0\x02\0\0\0\x04\0\x04\0\xff\xff\xff\xff\x10\0\x04\0\xff\xff\xff\xff \0\0\0\xff\xff\xff\xff";
    let empty = XattrFlags::empty();
    rustix::fs::setxattr(from.join("a"), "system.posix_acl_access", acl, empty).unwrap();
    rustix::fs::setxattr(from.join("closed"), "user.long", &[7; 3000], empty).unwrap();
    rustix::fs::setxattr(from.join("large"), "user.note", b"x", empty).unwrap();
    // Data, a hole, data, a hole up to the end.
    let sparse = fs::File::create(from.join("sparse")).unwrap();
    use std::os::unix::fs::FileExt;
    sparse.write_all_at(b"begin", 0).unwrap();
    sparse.write_all_at(b"middle", 70 << 20).unwrap();
    sparse.set_len(300 << 20).unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::lchown(from.join("link"), Some(1), Some(2)).unwrap();
        std::os::unix::fs::chown(from.join("closed"), Some(3), Some(4)).unwrap();
    }
    fs::set_permissions(from.join("closed"), fs::Permissions::from_mode(0o2550)).unwrap();
    let past = fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH);
    fs::File::open(from.join("closed"))
        .unwrap()
        .set_times(past)
        .unwrap();

    let to = temp.path().join("to");
    let copied = copy(&from, &to).unwrap();
    let mut wanted = facts(&from);
    wanted.remove(Path::new("socket"));
    assert_eq!(facts(&to), wanted);
    assert_eq!(copied.entries, 13);
    assert_eq!(copied.bytes, 3 + 200_000 + (40 << 20) + (300 << 20));
    for name in ["closed/b", "large", "sparse"] {
        assert!(
            fs::read(from.join(name)).unwrap() == fs::read(to.join(name)).unwrap(),
            "{name}"
        );
    }
    let blocks = fs::metadata(to.join("sparse")).unwrap().blocks();
    assert!(blocks * 512 < 1 << 20, "{blocks}");
    let mut value = vec![0; 4096];
    let mut attribute = |name: &str, key: &str| {
        let length = rustix::fs::getxattr(to.join(name), key, &mut value[..]).unwrap();
        value[..length].to_vec()
    };
    assert_eq!(attribute("a", "system.posix_acl_access"), acl);
    assert_eq!(attribute("closed", "user.long"), [7; 3000]);
    assert_eq!(attribute("large", "user.note"), b"x");
}

use rustix::fs::XattrFlags;

#[test]
fn many_files_in_one_folder_and_many_folders_in_a_row() {
    let temp = tempfile::tempdir().unwrap();
    let from = temp.path().join("from");
    let mut deep = from.join("wide");
    fs::create_dir_all(&deep).unwrap();
    for number in 0..1000 {
        fs::write(deep.join(number.to_string()), number.to_string()).unwrap();
    }
    for _ in 0..200 {
        deep.push("d");
        fs::create_dir(&deep).unwrap();
    }
    fs::write(deep.join("bottom"), "x").unwrap();
    let to = temp.path().join("to");
    assert_eq!(copy(&from, &to).unwrap().entries, 1202);
    assert_eq!(facts(&to), facts(&from));
    remove_tree(open_root(temp.path()).unwrap(), c"to").unwrap();
    assert!(!to.exists());
    remove_tree(open_root(temp.path()).unwrap(), c"to").unwrap();
}

#[test]
fn what_is_left_out_and_what_cannot_be_copied() {
    let temp = tempfile::tempdir().unwrap();
    let from = temp.path().join("from");
    for folder in ["keep/state", "keep/other", ".aside/x"] {
        fs::create_dir_all(from.join(folder)).unwrap();
    }
    let to = temp.path().join("to");
    fs::create_dir(&to).unwrap();
    let state = open_root(&from.join("keep/state")).unwrap();
    let leave_out = LeaveOut {
        folders: vec![identity_of(&state).unwrap()],
        name: Some(".aside"),
    };
    copy_tree(
        open_root(&from).unwrap(),
        open_root(&to).unwrap(),
        leave_out,
        &Default::default(),
    )
    .unwrap();
    assert!(to.join("keep/other").exists());
    assert!(!to.join("keep/state").exists() && !to.join(".aside").exists());
    // There is one of this name already.
    let again = copy_tree(
        open_root(&from).unwrap(),
        open_root(&to).unwrap(),
        LeaveOut::default(),
        &Default::default(),
    );
    let error = again.unwrap_err().to_string();
    assert!(error.starts_with("keep: "), "{error}");
}

#[test]
fn links_swapped_in_lead_nowhere() {
    let temp = tempfile::tempdir().unwrap();
    let outside = temp.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    let from = temp.path().join("from");
    fs::create_dir_all(from.join("a/b")).unwrap();
    fs::write(from.join("a/b/secret"), "public").unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // A folder and a file turn into links and back, all the time.
            while !stop.load(Ordering::Relaxed) {
                let (folder, aside) = (from.join("a/b"), from.join("a/aside"));
                fs::rename(&folder, &aside).unwrap();
                symlink(&outside, &folder).unwrap();
                fs::remove_file(&folder).unwrap();
                fs::rename(&aside, &folder).unwrap();
                let (file, link) = (from.join("a/b/secret"), from.join("a/link"));
                symlink(outside.join("secret"), &link).unwrap();
                fs::rename(&file, from.join("a/file")).unwrap();
                fs::rename(&link, &file).unwrap();
                fs::rename(from.join("a/file"), &file).unwrap();
            }
        });
        for round in 0..300 {
            let to = temp.path().join(format!("to{round}"));
            // Names come and go, which may make a copy fail; it must not succeed with the wrong text.
            let _ = copy(&from, &to);
            let mut folders = vec![to];
            while let Some(folder) = folders.pop() {
                for entry in fs::read_dir(folder).unwrap().flatten() {
                    let kind = entry.file_type().unwrap();
                    if kind.is_dir() {
                        folders.push(entry.path());
                    } else if kind.is_file() {
                        assert_ne!(fs::read(entry.path()).unwrap(), b"secret");
                    }
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}
