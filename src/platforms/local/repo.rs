//! Clones a sandbox's repository into its workspace, once.
//!
//! `git` runs as a program of its own, without a shell and without a terminal to ask questions on.
//! It works beside the workspace, which is replaced as a whole when all is there.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use tokio::process::Command;

use crate::model::Repo;
use crate::platforms::{PlatformError, Result};

/// The ways to reach a repository that run no program of the URL's choice.
const PROTOCOLS: &str = "file:git:http:https:ssh";
/// Variables that would make git work on another repository, as they are set in its hooks.
const OTHER_REPOSITORY: [&str; 7] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
];
/// The length of a whole commit id.
const COMMIT: usize = 40;
/// The shortest that git shortens one to.
const SHORT_COMMIT: usize = 7;

/// Makes `workspace` a clone of `repo`. One that is a clone of it already is left as it is, whatever
/// its state; anything else in it is an error.
pub(super) async fn clone_into(repo: &Repo, workspace: &Path) -> Result<()> {
    let unreadable = |error: io::Error| {
        PlatformError::new(format!("cannot read {}: {error}", workspace.display()))
    };
    if !is_empty(workspace).map_err(unreadable)? {
        return check_clone(repo, workspace).await;
    }
    let draft = draft_of(workspace)?;
    // What an earlier try has left, when it was killed.
    remove(&draft)?;
    let made = make(repo, &draft).await;
    let placed = made.and_then(|()| place(&draft, workspace));
    if placed.is_err() {
        remove(&draft)?;
    }
    placed
}

fn is_empty(dir: &Path) -> io::Result<bool> {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// A folder beside the workspace, so that it can be moved there in one step.
fn draft_of(workspace: &Path) -> Result<PathBuf> {
    let name = workspace.file_name().and_then(OsStr::to_str);
    let draft = name.map(|name| workspace.with_file_name(format!(".gabion-clone-{name}")));
    draft.ok_or_else(|| {
        PlatformError::new(format!(
            "a repository cannot be cloned into {}",
            workspace.display()
        ))
    })
}

fn remove(draft: &Path) -> Result<()> {
    match std::fs::remove_dir_all(draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(PlatformError::new(format!(
            "cannot remove {}: {error}",
            draft.display()
        ))),
        _ => Ok(()),
    }
}

fn place(draft: &Path, workspace: &Path) -> Result<()> {
    let placed = workspace
        .metadata()
        .and_then(|found| std::fs::set_permissions(draft, found.permissions()))
        // Replaces an empty folder, and nothing else.
        .and_then(|()| std::fs::rename(draft, workspace));
    placed.map_err(|error| {
        let message = format!("cannot put the clone at {}: {error}", workspace.display());
        PlatformError::new(message)
    })
}

/// The URL for argv, which everybody can see: without a user or token in it.
fn plain_url(repo: &Repo) -> String {
    match repo.credentials() {
        Some((scheme, _, rest)) => format!("{scheme}{rest}"),
        None => repo.url.clone(),
    }
}

async fn make(repo: &Repo, draft: &Path) -> Result<()> {
    let url = plain_url(repo);
    let depth = repo.depth.map(|depth| format!("--depth={depth}"));
    let mut clone = vec!["clone".to_owned(), "--quiet".to_owned()];
    let reference = repo.reference.as_deref();
    let maybe_commit = |name: &&str| {
        let length = SHORT_COMMIT..=COMMIT;
        length.contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let commit = reference.filter(maybe_commit);
    match (commit, reference) {
        // A name that is also a branch's or a tag's is found among them.
        (Some(_), _) => clone.push("--no-checkout".to_owned()),
        (None, Some(name)) => clone.push(format!("--branch={name}")),
        (None, None) => {}
    }
    let whole = commit.is_some_and(|commit| commit.len() < COMMIT);
    clone.extend(depth.clone().filter(|_| !whole));
    clone.extend(["--".to_owned(), url, draft.display().to_string()]);
    let mut git = git(repo);
    git.args(clone);
    run(git, repo).await?;
    let Some(commit) = commit else { return Ok(()) };
    if commit.len() == COMMIT
        && let Some(depth) = depth
    {
        let mut git = self::git(repo);
        git.arg("-C").arg(draft);
        git.args(["fetch", "--quiet", &depth, "origin", commit]);
        run(git, repo).await?;
    }
    let mut git = self::git(repo);
    git.arg("-C").arg(draft);
    git.args(["checkout", "--quiet", commit, "--"]);
    run(git, repo).await
}

/// Whether the workspace is a clone of the repository; an error that says so if it is not.
async fn check_clone(repo: &Repo, workspace: &Path) -> Result<()> {
    let own = workspace.join(".git");
    if own.exists() {
        let mut git = git(repo);
        // Reads a file and runs nothing that the file says: services may have written it.
        git.arg("--git-dir").arg(&own);
        git.args(["config", "--local", "--get-regexp", r"^remote\..*\.url$"]);
        let output = answer(git).await?;
        let remotes = String::from_utf8_lossy(&output.stdout);
        let urls = remotes.lines().filter_map(|line| line.split_once(' '));
        let wanted = plain_url(repo);
        let mut urls = urls.map(|(_, url)| url.to_owned());
        if urls.any(|url| same(&url, &wanted) || same(&url, &repo.url)) {
            return Ok(());
        }
    }
    let message = format!(
        "the workspace {} is not empty, and is no clone of {}",
        workspace.display(),
        repo.shown_url()
    );
    Err(PlatformError::new(message)
        .hint("empty it, or set `workspace` to another folder; gabion changes nothing in it"))
}

/// Whether two URLs are the same to people.
fn same(one: &str, other: &str) -> bool {
    let plain = |url: &str| {
        let url = url.trim_end_matches('/');
        url.strip_suffix(".git").unwrap_or(url).to_owned()
    };
    plain(one) == plain(other)
}

/// The program, with nothing that it could ask questions with.
fn git(repo: &Repo) -> Command {
    let mut command = Command::new("git");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_ALLOW_PROTOCOL", PROTOCOLS)
        .env("LC_ALL", "C")
        .kill_on_drop(true);
    for variable in OTHER_REPOSITORY {
        command.env_remove(variable);
    }
    if let Some((scheme, user, rest)) = repo.credentials() {
        // The environment is its own to see, and nothing of this is kept in the clone.
        let host = &rest[..rest.find('/').unwrap_or(rest.len())];
        command
            .env("GIT_CONFIG_COUNT", "1")
            .env(
                "GIT_CONFIG_KEY_0",
                format!("url.{scheme}{user}@{host}/.insteadOf"),
            )
            .env("GIT_CONFIG_VALUE_0", format!("{scheme}{host}/"));
    }
    // SAFETY: the closure runs between fork and exec and only makes a system call.
    unsafe {
        // Without a terminal, ssh asks nobody for a password or about a host.
        command.pre_exec(|| Ok(rustix::process::setsid().map(drop)?));
    }
    command
}

async fn answer(mut git: Command) -> Result<Output> {
    git.output().await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            PlatformError::new("`repo` needs `git`, which was not found in PATH")
                .hint("install git")
        }
        _ => PlatformError::new(format!("git cannot be run: {error}")),
    })
}

async fn run(git: Command, repo: &Repo) -> Result<()> {
    let output = answer(git).await?;
    if output.status.success() {
        return Ok(());
    }
    let mut said = String::from_utf8_lossy(&output.stderr).into_owned();
    if let Some((_, user, _)) = repo.credentials() {
        let secret = user.split_once(':').map_or(user, |(_, password)| password);
        said = said.replace(user, "***");
        if !secret.is_empty() {
            said = said.replace(secret, "***");
        }
    }
    let lines: Vec<_> = said.lines().map(str::to_owned).collect();
    let last = lines.iter().rev().find(|line| line.starts_with("fatal: "));
    let why = last.map_or("git failed", |line| line.trim_start_matches("fatal: "));
    let message = format!("cannot clone {}: {why}", repo.shown_url());
    let mut error = PlatformError::new(message);
    error.0.log_tail = lines[lines.len().saturating_sub(10)..].to_vec();
    Err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(dir: &Path, script: &str) -> String {
        let mut command = std::process::Command::new("sh");
        command.arg("-euc").arg(script).current_dir(dir);
        for variable in OTHER_REPOSITORY {
            command.env_remove(variable);
        }
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "me");
            command.env(format!("GIT_{who}_EMAIL"), "me@example.org");
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// A bare repository with two commits, the first of them tagged, and a branch.
    fn origin() -> (tempfile::TempDir, Repo) {
        let temp = tempfile::tempdir().unwrap();
        sh(
            temp.path(),
            "git init -q -b main work && cd work
             echo one > file && git add file && git commit -qm one && git tag v1
             echo two > file && git commit -qam two
             git checkout -q -b side && echo side > file && git commit -qam side
             git checkout -q main && git clone -q --bare . ../origin.git && mkdir ../ws",
        );
        let repo = Repo {
            url: format!("file://{}/origin.git", temp.path().display()),
            reference: None,
            depth: None,
        };
        (temp, repo)
    }

    fn file(workspace: &Path) -> String {
        std::fs::read_to_string(workspace.join("file")).unwrap()
    }

    #[tokio::test]
    async fn cloned_once_and_then_left_alone() {
        let (temp, repo) = origin();
        let ws = temp.path().join("ws");
        clone_into(&repo, &ws).await.unwrap();
        assert_eq!(file(&ws), "two\n");
        std::fs::write(ws.join("file"), "mine").unwrap();
        clone_into(&repo, &ws).await.unwrap();
        assert_eq!(file(&ws), "mine");
        // A killed try leaves its draft; the next one is not disturbed by it.
        std::fs::remove_dir_all(&ws).unwrap();
        std::fs::create_dir(&ws).unwrap();
        std::fs::create_dir(temp.path().join(".gabion-clone-ws")).unwrap();
        clone_into(&repo, &ws).await.unwrap();
        assert!(!temp.path().join(".gabion-clone-ws").exists());
    }

    #[tokio::test]
    async fn branches_tags_commits_and_depth() {
        let (temp, repo) = origin();
        let first = sh(&temp.path().join("work"), "git rev-parse v1");
        for (reference, depth, text, commits) in [
            (None, Some(1), "two\n", "1"),
            (Some("side"), None, "side\n", "3"),
            (Some("v1"), None, "one\n", "1"),
            (Some(first.as_str()), None, "one\n", "1"),
            (Some(&first[..8]), Some(1), "one\n", "1"),
            (Some(first.as_str()), Some(1), "one\n", "1"),
        ] {
            let ws = temp.path().join("ws");
            std::fs::remove_dir_all(&ws).unwrap();
            std::fs::create_dir(&ws).unwrap();
            let repo = Repo {
                reference: reference.map(str::to_owned),
                depth,
                ..repo.clone()
            };
            clone_into(&repo, &ws).await.unwrap();
            assert_eq!(file(&ws), text, "{reference:?}");
            assert_eq!(
                sh(&ws, "git rev-list --count HEAD"),
                commits,
                "{reference:?}"
            );
        }
    }

    #[tokio::test]
    async fn nothing_of_a_failed_clone_is_left() {
        let (temp, mut repo) = origin();
        let ws = temp.path().join("ws");
        repo.reference = Some("nowhere".to_owned());
        let error = clone_into(&repo, &ws).await.unwrap_err();
        assert!(error.to_string().contains("nowhere"), "{error}");
        assert!(is_empty(&ws).unwrap());
        assert!(!temp.path().join(".gabion-clone-ws").exists());
    }

    #[tokio::test]
    async fn what_is_in_a_workspace_is_not_touched() {
        let (temp, repo) = origin();
        let ws = temp.path().join("ws");
        std::fs::write(ws.join("mine"), "mine").unwrap();
        let error = clone_into(&repo, &ws).await.unwrap_err().to_string();
        assert!(
            error.contains("is not empty, and is no clone of file://"),
            "{error}"
        );
        let error = clone_into(&repo, &temp.path().join("work"))
            .await
            .unwrap_err();
        assert!(error.to_string().contains("is no clone of"), "{error}");
        assert_eq!(std::fs::read_to_string(ws.join("mine")).unwrap(), "mine");
    }

    #[tokio::test]
    async fn a_token_is_in_no_message() {
        let temp = tempfile::tempdir().unwrap();
        let ws = temp.path().join("ws");
        std::fs::create_dir(&ws).unwrap();
        // Nobody listens there.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let repo = Repo {
            url: format!("http://me:t0ken@127.0.0.1:{port}/x.git"),
            reference: None,
            depth: None,
        };
        let error = clone_into(&repo, &ws).await.unwrap_err();
        let text = format!("{error:?}");
        assert!(text.contains("http://***@127.0.0.1"), "{text}");
        assert!(!text.contains("t0ken"), "{text}");
    }

    #[tokio::test]
    async fn programs_of_the_urls_choice_are_not_run() {
        let temp = tempfile::tempdir().unwrap();
        let ws = temp.path().join("ws");
        std::fs::create_dir(&ws).unwrap();
        let proof = temp.path().join("proof");
        for url in [
            format!("ext::touch {}", proof.display()),
            format!("--upload-pack=touch {}", proof.display()),
        ] {
            let repo = Repo {
                url,
                reference: None,
                depth: None,
            };
            clone_into(&repo, &ws).await.unwrap_err();
        }
        assert!(!proof.exists());
    }
}
