//! On a real terminal of 80 columns: the question, live lines, colours, Ctrl-C, exec.

mod common;

use common::Project;
use common::terminal::Terminal;

const COLUMNS: usize = 80;

const SLOW: &str = "version: 1
stack: live
sandboxes:
  box:
    services:
      slow: { command: 'until test -e go; do sleep 0.02; done; echo up; exec sleep 1000', health: { log: up } }
      after: { cmd: sleep, args: ['1000'], needs: [slow] }
    workspace: .
";

/// What is left on the screen: colours taken out, cursor movements obeyed.
fn screen(written: &str) -> Vec<String> {
    let mut lines: Vec<Vec<char>> = vec![Vec::new()];
    let (mut row, mut column) = (0_usize, 0_usize);
    let mut rest = written.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\r' => column = 0,
            '\n' => row += 1,
            // The echo of Ctrl-C, which terminals do not show.
            '\u{3}' => {}
            '\u{1b}' => {
                assert_eq!(rest.next(), Some('['), "an unknown control sequence");
                let mut number = String::new();
                let end = loop {
                    match rest.next() {
                        Some(c) if c.is_ascii_digit() || c == ';' || c == '?' => number.push(c),
                        other => break other.expect("the end of a control sequence"),
                    }
                };
                let times: usize = number.parse().unwrap_or(1);
                match end {
                    'A' => row = row.saturating_sub(times),
                    'B' => row += times,
                    'C' => column += times,
                    'G' => column = times - 1,
                    'K' if number == "2" => lines[row].clear(),
                    'K' => lines[row].truncate(column),
                    'J' => {
                        lines.truncate(row + 1);
                        lines[row].truncate(column);
                    }
                    'm' | 'h' | 'l' => {}
                    other => panic!("an unknown control sequence: {number}{other}"),
                }
            }
            c => {
                if column == COLUMNS {
                    // Live lines are filled up with spaces and go on below; text must not.
                    let line: String = lines[row].iter().collect();
                    assert!(line.ends_with(' '), "text wrapped behind `{line}`");
                    (row, column) = (row + 1, 0);
                    lines.resize(lines.len().max(row + 1), Vec::new());
                }
                let line = &mut lines[row];
                line.resize(line.len().max(column + 1), ' ');
                line[column] = c;
                column += 1;
            }
        }
        lines.resize(lines.len().max(row + 1), Vec::new());
    }
    let text = |line: Vec<char>| line.into_iter().collect::<String>().trim_end().to_owned();
    lines.into_iter().map(text).collect()
}

#[test]
fn apply_asks_shows_what_goes_on_and_leaves_a_clean_screen() {
    let project = Project::new(SLOW);
    let mut terminal = Terminal::gabion(&project, &["apply"], &[]);
    terminal.expect("[y/N] ");
    terminal.send("y\n");
    terminal.expect("no line with `up` in its output yet");
    terminal.expect("waits for box/slow");
    project.write("go", "");
    let (seen, code) = terminal.end();
    assert_eq!(code, Some(0), "{seen}");
    assert!(seen.contains("\u{1b}[32m✓"), "no colour: {seen:?}");
    let screen = screen(&seen);
    let asked = screen
        .iter()
        .position(|line| line.contains("[y/N] y"))
        .unwrap();
    let words: Vec<String> = screen[asked + 1..]
        .iter()
        .filter(|line| !line.is_empty())
        .map(|line| {
            line.split_whitespace()
                .take(3)
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    let expected = [
        "✓ box created",
        "✓ box/slow started,",
        "✓ box/after started",
        "Done: 5 actions",
    ];
    assert_eq!(words, expected, "{}", screen.join("\n"));
}

#[test]
fn no_color_is_respected_on_a_terminal() {
    let project = Project::new(SLOW);
    let (seen, _) = Terminal::gabion(&project, &["plan"], &[("NO_COLOR", "1")]).end();
    assert!(!seen.contains('\u{1b}'), "{seen:?}");
    let (seen, _) = Terminal::gabion(&project, &["plan"], &[]).end();
    assert!(seen.contains("\u{1b}["), "{seen:?}");
    screen(&seen);
}

#[test]
fn ctrl_c_at_the_question_changes_nothing() {
    let project = Project::new(SLOW);
    let mut terminal = Terminal::gabion(&project, &["apply"], &[]);
    terminal.expect("[y/N] ");
    terminal.send("\u{3}");
    let (seen, code) = terminal.end();
    assert_eq!(code, Some(130), "{seen}");
    assert!(seen.contains("nothing was changed"), "{seen}");
    assert!(!project.home.join("sandboxes").exists());
}

#[test]
fn ctrl_c_leaves_no_live_line_behind() {
    let project = Project::new(SLOW);
    let mut terminal = Terminal::gabion(&project, &["apply", "--yes"], &[]);
    terminal.expect("waits for box/slow");
    terminal.send("\u{3}");
    terminal.expect("Stopping when");
    terminal.send("\u{3}");
    let (seen, code) = terminal.end();
    assert_eq!(code, Some(130), "{seen}");
    let screen = screen(&seen);
    let live = |line: &&String| line.contains("not open yet") || line.contains("waits for");
    assert_eq!(
        screen.iter().filter(live).count(),
        0,
        "{}",
        screen.join("\n")
    );
    assert!(
        screen.iter().any(|line| line.starts_with("Interrupted: ")),
        "{}",
        screen.join("\n")
    );
}

#[test]
fn exec_gets_the_terminal() {
    let project = Project::new(SLOW);
    project.write("go", "");
    project.ok(&["apply", "--yes"]);
    let script = "test -t 0 && test -t 1 && stty size && read line && echo got $line && exit 9";
    let mut terminal = Terminal::gabion(&project, &["exec", "box", "--", "sh", "-c", script], &[]);
    terminal.expect("24 80");
    terminal.send("keys\n");
    let (seen, code) = terminal.end();
    assert!(seen.contains("got keys"), "{seen}");
    assert_eq!(code, Some(9), "{seen}");
}
