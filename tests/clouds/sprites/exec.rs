//! Commands whose input and output are any bytes at all.

use std::io::{Read, Write};
use std::process::Stdio;

use super::front::{Front, Way};
use crate::common::terminal::Terminal;
use crate::common::{Project, Run};
use crate::projects::on;
use crate::served::Served;

const ONE: &str = r#"  web: { services: { api: { cmd: sleep, args: ["1000"] } } }
"#;

/// Every byte, and those most often that frames begin with.
fn any_bytes() -> Vec<u8> {
    let all = (0..=u8::MAX).flat_map(|byte| [byte, 1, 2, 3]);
    all.cycle().take(1 << 20).collect()
}

fn stdout(bytes: &[u8]) -> Vec<u8> {
    [b"\x01", bytes].concat()
}

fn exec(project: &Project) -> Run {
    project.run(&["exec", "web", "--", "whatever"])
}

#[test]
fn any_bytes_go_in_and_come_out_as_they_are() {
    let served = Served::start();
    let project = on(&served, "sprites", ONE);
    project.ok(&["apply", "--yes"]);
    let from = served.requests(0).len();
    let mut cat = project
        .command(&["exec", "web", "--", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = cat.stdin.take().unwrap();
    // Read what comes while there is more to be written: neither side may wait for the other.
    let write = std::thread::spawn(move || stdin.write_all(&any_bytes()).unwrap());
    let mut read = Vec::new();
    cat.stdout.take().unwrap().read_to_end(&mut read).unwrap();
    write.join().unwrap();
    assert_eq!(cat.wait().unwrap().code(), Some(0));
    assert!(read == any_bytes(), "{} bytes came back", read.len());
    let run = "GET /v1/sprites/shop-web/exec".to_owned();
    assert!(served.requests(from).contains(&run));

    // One that reads nothing ends, though its input does not.
    let mut ended = project
        .command(&["exec", "web", "--", "sh", "-c", "exit 3"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let input = ended.stdin.take();
    assert_eq!(ended.wait().unwrap().code(), Some(3));
    drop(input);
}

#[test]
fn a_long_message_is_one_frame() {
    let served = Served::start();
    let project = on(&served, "sprites", ONE);
    project.ok(&["apply", "--yes"]);
    let bytes = any_bytes();
    let frames = [stdout(&bytes), b"\x02oops\n".to_vec(), b"\x03\x07".to_vec()];
    let front = Front::of(&served, Way::Socket, &frames);
    project.edit(&served.url, &front.url);
    let run = exec(&project);
    assert_eq!(run.code(), Some(7));
    assert!(run.0.stdout == bytes, "{} bytes", run.0.stdout.len());
    assert_eq!(run.stderr(), "oops\n");
}

#[test]
fn a_connection_that_ends_before_the_command_is_no_end_of_the_command() {
    let served = Served::start();
    let project = on(&served, "sprites", ONE);
    project.ok(&["apply", "--yes"]);
    let front = Front::of(&served, Way::Socket, &[stdout(b"so far\n")]);
    project.edit(&served.url, &front.url);
    let run = exec(&project);
    assert_eq!((run.stdout().as_str(), run.code()), ("so far\n", Some(127)));
    assert!(run.stderr().contains("how it ended is not known"), "{run}");
}

#[test]
fn with_a_terminal_the_proper_end_of_the_connection_is_that_of_the_command() {
    let served = Served::start();
    let project = on(&served, "sprites", ONE);
    project.ok(&["apply", "--yes"]);
    let front = Front::of(&served, Way::Socket, &[b"\x1b[1mbold\x03".to_vec()]);
    project.edit(&served.url, &front.url);
    let (seen, code) = Terminal::gabion(&project, &["exec", "web", "--", "vi"], &[]).end();
    assert!(seen.contains("\x1b[1mbold\x03"), "{seen}");
    assert_eq!(code, Some(0), "{seen}");
}

#[test]
fn without_a_socket_there_is_no_terminal() {
    let served = Served::start();
    let project = on(&served, "sprites", ONE);
    project.ok(&["apply", "--yes"]);
    let front = Front::of(&served, Way::List, &[b"\x03\x00".to_vec()]);
    project.edit(&served.url, &front.url);
    let (seen, code) = Terminal::gabion(&project, &["exec", "web", "--", "vi"], &[]).end();
    assert!(seen.contains("cannot hand over a terminal"), "{seen}");
    assert_eq!(code, Some(127), "{seen}");
}

#[test]
fn where_there_are_no_sockets_commands_are_run_over_http() {
    let served = Served::start();
    let project = on(&served, "sprites", ONE);
    project.ok(&["apply", "--yes"]);
    let text = "a line of text\n".repeat(20_000);
    let frames = [stdout(text.as_bytes()), b"\x03\x07".to_vec()];
    for way in [Way::List, Way::Refuse(404), Way::Refuse(426)] {
        let front = Front::of(&served, way, &frames);
        project.edit(&served.url, &front.url);
        let run = exec(&project);
        assert_eq!(run.code(), Some(7), "{run}");
        assert!(run.stdout() == text, "{} bytes", run.stdout().len());
        project.edit(&front.url, &served.url);
    }
}
