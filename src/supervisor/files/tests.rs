use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn wanted(path: &str) -> Wanted<'_> {
    Wanted::new(path).unwrap()
}

/// A root with a secret beside it, and links that try to lead there.
fn cage() -> (tempfile::TempDir, Root) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("secret"), "outside").unwrap();
    let root = dir.path().join("root");
    std::fs::create_dir_all(root.join("a/b")).unwrap();
    symlink("/secret", root.join("absolute")).unwrap();
    symlink("../secret", root.join("relative")).unwrap();
    symlink("../..", root.join("a/up")).unwrap();
    symlink(dir.path(), root.join("outside")).unwrap();
    let opened = Root::open(&root).unwrap();
    (dir, opened)
}

#[test]
fn paths_are_absolute_and_end_in_a_name() {
    assert_eq!(Wanted::new("a").unwrap_err().status, 400);
    assert_eq!(Wanted::new("/a\0").unwrap_err().status, 400);
    for (path, folder, name) in [
        ("/a", "/", "a"),
        ("/a/b", "/a/", "b"),
        ("/a/b/", "/a/", "b"),
    ] {
        let (found, found_name) = wanted(path).split().unwrap();
        assert_eq!((found.0, found_name), (folder, name));
    }
    for path in ["/", "/a/..", "/a/.", "//"] {
        assert_eq!(wanted(path).split().unwrap_err().status, 400, "{path}");
    }
}

#[test]
fn nothing_leads_out_of_the_root() {
    let (dir, root) = cage();
    for path in [
        "/absolute",
        "/relative",
        "/../secret",
        "/a/up/secret",
        "/outside/secret",
        "/a/../../secret",
    ] {
        assert_eq!(root.read(wanted(path)).unwrap_err().status, 404, "{path}");
        assert!(root.stat(wanted(path)).is_err(), "{path}");
    }
    // Each of these stays inside, or is refused.
    for path in ["/relative", "/a/up/new", "/../new", "/outside/new"] {
        let _ = root.write(wanted(path), b"x", 0o644);
        let _ = root.make_folder(wanted(path), true);
        let _ = root.remove(wanted(path), true);
        let _ = root.rename(wanted("/a/b"), wanted(path));
    }
    let left = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(left, 2);
    assert_eq!(
        std::fs::read_to_string(dir.path().join("secret")).unwrap(),
        "outside"
    );
}

#[test]
fn files_are_written_whole_with_their_folders() {
    let (dir, root) = cage();
    root.write(wanted("/x/y/z"), b"one", 0o600).unwrap();
    root.write(wanted("/x/y/z"), b"two", 0o755).unwrap();
    assert_eq!(root.read(wanted("/x/y/z")).unwrap(), b"two");
    let file = dir.path().join("root/x/y/z");
    assert_eq!(
        file.metadata().unwrap().permissions().mode() & 0o7777,
        0o755
    );
    assert_eq!(
        std::fs::read_dir(file.parent().unwrap()).unwrap().count(),
        1
    );
    assert_eq!(
        root.write(wanted("/x/y"), b"", 0o644).unwrap_err().status,
        409
    );
    assert_eq!(
        root.write(wanted("/x/y/z/w"), b"", 0o644)
            .unwrap_err()
            .status,
        409
    );
    let large = vec![0; LIMIT + 1];
    assert_eq!(
        root.write(wanted("/l"), &large, 0o644).unwrap_err().status,
        413
    );
    std::fs::write(dir.path().join("root/large"), &large).unwrap();
    assert_eq!(root.read(wanted("/large")).unwrap_err().status, 413);
    assert_eq!(root.read(wanted("/a")).unwrap_err().status, 409);
}

#[test]
fn folders_are_listed_removed_and_moved() {
    let (_dir, root) = cage();
    root.write(wanted("/a/b/c"), b"12", 0o644).unwrap();
    let names = |listed: Listed| -> Vec<String> {
        listed.entries.into_iter().map(|entry| entry.name).collect()
    };
    assert_eq!(names(root.list(wanted("/a"), 1).unwrap()), ["b", "up"]);
    assert_eq!(
        names(root.list(wanted("/a"), 2).unwrap()),
        ["b", "b/c", "up"]
    );
    assert_eq!(root.list(wanted("/gone"), 1).unwrap_err().status, 404);
    assert_eq!(root.remove(wanted("/a/b"), false).unwrap_err().status, 409);
    assert_eq!(
        root.rename(wanted("/a"), wanted("/a/b/d"))
            .unwrap_err()
            .status,
        400
    );
    root.rename(wanted("/a/b/c"), wanted("/moved")).unwrap();
    assert_eq!(root.read(wanted("/moved")).unwrap(), b"12");
    assert_eq!(
        root.rename(wanted("/moved"), wanted("/a"))
            .unwrap_err()
            .status,
        409
    );
    root.remove(wanted("/a/b"), false).unwrap();
    root.remove(wanted("/a"), true).unwrap();
    assert_eq!(root.remove(wanted("/a"), true).unwrap_err().status, 404);
    assert_eq!(
        root.make_folder(wanted("/p/q"), false).unwrap_err().status,
        404
    );
    root.make_folder(wanted("/p/q"), true).unwrap();
    root.make_folder(wanted("/p/q"), true).unwrap();
    assert_eq!(
        root.make_folder(wanted("/p/q"), false).unwrap_err().status,
        409
    );
}

#[test]
fn pipes_are_not_opened() {
    let (dir, root) = cage();
    let pipe = dir.path().join("root/pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    assert_eq!(root.read(wanted("/pipe")).unwrap_err().status, 400);
}
