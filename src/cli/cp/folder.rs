//! Folders in and out of a sandbox, as archives: what comes out of one is not trusted.

use std::fs::File;
use std::io::{self, Seek};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use tar::{Archive, Builder, EntryType};
use tokio::task::spawn_blocking;

use super::super::error::{Error, Result};
use super::super::target::Target;

/// Copies what is in the folder `from` to `path` in the sandbox: into a folder of the same name there if `path` is
/// a folder already, as `docker cp` does.
pub async fn copy_in(target: &Target, from: &Path, path: &str) -> Result<()> {
    let contents = from.ends_with(".") || from.as_os_str().to_string_lossy().ends_with("/.");
    let absolute = std::path::absolute(from).map_err(|error| at(from, error))?;
    let name = absolute.file_name().map(|it| it.to_string_lossy());
    let platform = target.platform()?;
    let (sandbox, secrets) = (&target.sandbox, &target.loaded.secrets);
    let there = platform.is_folder(sandbox, path, secrets).await?;
    let into = match name.filter(|_| !contents && (there || path.ends_with('/'))) {
        Some(name) => format!("{}/{name}", path.trim_end_matches('/')),
        None => path.to_owned(),
    };
    let source = from.to_owned();
    let packed = blocking(move || pack(&source)).await?;
    let packed = packed.map_err(|error| at(from, error))?;
    let mut packed = tokio::fs::File::from_std(packed);
    platform
        .write_folder(sandbox, &into, &mut packed, secrets)
        .await?;
    Ok(())
}

/// Copies what is in the folder `path` of the sandbox to `to`: into a folder of the same name here if `to` is a
/// folder already.
pub async fn copy_out(target: &Target, path: &str, to: &Path) -> Result<()> {
    let contents = path == "." || path.ends_with("/.");
    let name = Path::new(path).file_name().filter(|_| !contents);
    let into = match (to.is_dir(), name) {
        (true, Some(name)) => to.join(name),
        _ => to.to_owned(),
    };
    if into.symlink_metadata().is_ok() && !into.is_dir() {
        return Err(Error::failed(format!(
            "{}: it is no folder",
            into.display()
        )));
    }
    let packed = tempfile::tempfile()?;
    let mut out = tokio::fs::File::from_std(packed.try_clone()?);
    let secrets = &target.loaded.secrets;
    target
        .platform()?
        .read_folder(&target.sandbox, path, &mut out, secrets)
        .await?;
    let place = into.clone();
    let unpacked = blocking(move || unpack(packed, &place)).await?;
    unpacked.map_err(|error| at(&into, error))
}

fn at(path: &Path, error: io::Error) -> Error {
    Error::failed(format!("{}: {error}", path.display()))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let done = spawn_blocking(work).await;
    done.map_err(|error| Error::failed(format!("copying: {error}")))
}

/// The contents of a folder, in a file that has no name.
fn pack(folder: &Path) -> io::Result<File> {
    let file = tempfile::tempfile()?;
    let mut archive = Builder::new(GzEncoder::new(file, Compression::fast()));
    archive.follow_symlinks(false);
    archive.append_dir_all(".", folder)?;
    let mut file = archive.into_inner()?.finish()?;
    file.rewind()?;
    Ok(file)
}

/// Unpacks an archive as the folder `into`, which appears whole; in one that is there, files are replaced.
fn unpack(mut file: File, into: &Path) -> io::Result<()> {
    file.rewind()?;
    if into.is_dir() {
        return unpack_in(file, into);
    }
    let parent = match into.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let staged = tempfile::Builder::new()
        .prefix(".gabion-cp")
        .tempdir_in(parent)?;
    unpack_in(file, staged.path())?;
    std::fs::rename(staged.path(), into)?;
    // There is nothing to be removed any more.
    let _ = staged.keep();
    Ok(())
}

/// Unpacks what may be in a folder: folders, files and links, none of them outside of it or by way of a link that
/// leads out of it. They are the user's, without special permissions.
fn unpack_in(file: File, folder: &Path) -> io::Result<()> {
    let mut archive = Archive::new(GzDecoder::new(file));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let what = |problem: &str| io::Error::other(format!("{}: {problem}", path.display()));
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {}
            EntryType::Directory | EntryType::Symlink | EntryType::Link => {}
            _ => return Err(what("it is no file, folder or link")),
        }
        match entry.unpack_in(folder) {
            Ok(true) => {}
            Ok(false) => return Err(what("it leads out of the folder")),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// An archive of what `fill` puts into it.
    fn archive(fill: impl FnOnce(&mut Builder<GzEncoder<File>>)) -> File {
        let file = tempfile::tempfile().unwrap();
        let mut archive = Builder::new(GzEncoder::new(file, Compression::fast()));
        fill(&mut archive);
        archive.into_inner().unwrap().finish().unwrap()
    }

    /// An entry whose path is taken as it is.
    fn entry(archive: &mut Builder<GzEncoder<File>>, kind: EntryType, path: &str, link: &str) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o6777);
        header.set_size(0);
        let raw = header.as_old_mut();
        raw.name[..path.len()].copy_from_slice(path.as_bytes());
        raw.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        archive.append(&header, io::empty()).unwrap();
    }

    #[test]
    fn what_is_packed_is_unpacked() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::create_dir_all(from.join("a/empty")).unwrap();
        std::fs::write(from.join("a/odd \u{e9}\n-name"), "text").unwrap();
        std::fs::write(from.join("run"), "#!/bin/sh").unwrap();
        let mode = PermissionsExt::from_mode(0o750);
        std::fs::set_permissions(from.join("run"), mode).unwrap();
        symlink("run", from.join("link")).unwrap();
        unpack(pack(&from).unwrap(), &to).unwrap();
        assert!(to.join("a/empty").is_dir());
        let text = std::fs::read_to_string(to.join("a/odd \u{e9}\n-name"));
        assert_eq!(text.unwrap(), "text");
        let mode = to.join("run").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o750);
        assert_eq!(to.join("link").read_link().unwrap(), Path::new("run"));
        // Nothing else is left beside it.
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn nothing_is_unpacked_outside_of_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        let out = outside.to_str().unwrap();
        let absolute = format!("{out}/absolute");
        let hostile: [(&str, File); 6] = [
            (
                "up",
                archive(|it| entry(it, EntryType::Regular, "../outside/up", "")),
            ),
            (
                "through a link",
                archive(|it| {
                    entry(it, EntryType::Symlink, "way", out);
                    entry(it, EntryType::Regular, "way/through", "");
                }),
            ),
            (
                "through an upward link",
                archive(|it| {
                    entry(it, EntryType::Symlink, "way", "../outside");
                    entry(it, EntryType::Directory, "way/folder", "");
                }),
            ),
            (
                "a hard link",
                archive(|it| entry(it, EntryType::Link, "hard", "/etc/passwd")),
            ),
            (
                "a device",
                archive(|it| entry(it, EntryType::Char, "null", "")),
            ),
            (
                "a pipe",
                archive(|it| entry(it, EntryType::Fifo, "pipe", "")),
            ),
        ];
        for (what, file) in hostile {
            let into = dir.path().join("into");
            assert!(unpack(file, &into).is_err(), "{what}");
            assert!(!into.exists(), "{what}");
        }
        // Of an absolute path only what is below the root is taken; special permissions are left out.
        let into = dir.path().join("into");
        let file = archive(|it| entry(it, EntryType::Regular, &absolute, ""));
        unpack(file, &into).unwrap();
        let inside = into.join(absolute.trim_start_matches('/'));
        let mode = inside.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7000, 0);
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    }
}
