//! `gabion logs`: what services wrote, by time.

use std::process::ExitCode;
use std::time::Duration;

use anstyle::AnsiColor;
use futures_util::stream::{SelectAll, StreamExt};
use jiff::Timestamp;

use super::address::AddressArg;
use super::context::{Context, paint, print};
use super::error::{Error, Result};
use super::progress::printable;
use crate::model::{Address, HumanDuration, ServiceAddress};
use crate::platforms::{LogLine, LogQuery, LogStream, Platforms};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion logs web/api
  gabion logs -f                         everything, as it comes
  gabion logs web data/redis --tail 20
  gabion logs web/api --since 10m --timestamps
  gabion logs web/api --stream stderr")]
pub struct LogsArgs {
    /// Services, or sandboxes for all their services; all without it
    #[arg(value_name = "ADDRESS", add = super::address::completer())]
    addresses: Vec<AddressArg>,
    /// Go on with new lines as they come
    #[arg(short, long)]
    follow: bool,
    /// Manifest file; repeat it to lay further files over the first
    // The global option, which has no `-f` here: that is `--follow`, as in docker compose.
    #[arg(long = "file", value_name = "FILE", help_heading = "Global options")]
    files: Vec<std::path::PathBuf>,
    /// Only the last N lines of each service
    #[arg(short = 'n', long, value_name = "N")]
    tail: Option<usize>,
    /// Only lines since then: a duration such as `10m`, or a time such as 2026-01-05T10:30:00Z
    #[arg(long, value_name = "WHEN", value_parser = since)]
    since: Option<Timestamp>,
    /// Only lines of this stream
    #[arg(long, value_name = "STREAM")]
    stream: Option<StreamArg>,
    /// Write each line's time before it
    #[arg(short, long)]
    timestamps: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum StreamArg {
    Stdout,
    Stderr,
}

impl From<StreamArg> for LogStream {
    fn from(stream: StreamArg) -> Self {
        match stream {
            StreamArg::Stdout => Self::Stdout,
            StreamArg::Stderr => Self::Stderr,
        }
    }
}

impl LogsArgs {
    fn query(&self, follow: bool) -> LogQuery {
        LogQuery {
            tail: self.tail,
            since: self.since,
            stream: self.stream.map(LogStream::from),
            follow,
        }
    }
}

fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    let ago: HumanDuration = text
        .parse()
        .map_err(|_| format!("`{text}` is neither a duration such as `10m` nor a time"))?;
    Timestamp::now()
        .checked_sub(ago.0)
        .map_err(|error| error.to_string())
}

pub async fn run(context: &Context, args: &LogsArgs) -> Result<ExitCode> {
    let (loaded, desired) = context.load_stack()?;
    let mut platforms = context.platforms(&loaded, &desired.stack)?;
    let observed = context.observe(&mut platforms, &desired).await?;
    let chosen = super::address::resolve(&args.addresses, &desired, &observed)?;
    let mut services = Vec::new();
    for name in observed.sandboxes.keys() {
        let there = observed
            .known(name)
            .into_iter()
            .flat_map(|sandbox| sandbox.services.keys());
        for service in there {
            let address = ServiceAddress::new(name.clone(), service.clone());
            if chosen.is_empty() || chosen.iter().any(|wanted| wanted.covers(&address)) {
                services.push(address);
            }
        }
    }
    if let Some(Address::Service(missing)) = chosen
        .iter()
        .find(|address| matches!(address, Address::Service(address) if !services.contains(address)))
    {
        return Err(Error::Failed {
            message: format!("`{missing}` is not there yet, so it has no log"),
            hint: Some(format!("gabion apply {missing} makes it")),
        });
    }
    if services.is_empty() {
        return Err(Error::Failed {
            message: "nothing is there yet, so there are no logs".to_owned(),
            hint: Some("gabion apply makes it".to_owned()),
        });
    }
    let printer = Printer::new(context, args, &services);
    let last = backlog(&platforms, &services, args, &printer).await?;
    if args.follow {
        follow(&platforms, &services, last, args, &printer).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// How far a service's log was shown: the time of the last line, and how many lines have that time.
type Mark = Option<(Timestamp, usize)>;

async fn backlog(
    platforms: &Platforms,
    services: &[ServiceAddress],
    args: &LogsArgs,
    printer: &Printer,
) -> Result<Vec<Mark>> {
    let mut lines: Vec<(usize, LogLine)> = Vec::new();
    let mut marks = Vec::new();
    for (index, service) in services.iter().enumerate() {
        let platform = platforms.of(&service.sandbox)?;
        // Where it was left off could not be told.
        if args.follow && !platform.dates_lines() {
            marks.push(None);
            continue;
        }
        let mut received = platform.logs(service, args.query(false)).await?;
        let mut mark: Mark = None;
        while let Some(line) = received.recv().await {
            mark = match mark {
                Some((at, count)) if at == line.at => Some((at, count + 1)),
                _ => Some((line.at, 1)),
            };
            lines.push((index, line));
        }
        marks.push(mark);
    }
    // Stable: lines of one service keep their order.
    lines.sort_by_key(|(_, line)| line.at);
    for (index, line) in &lines {
        printer.print(*index, line)?;
    }
    Ok(marks)
}

async fn follow(
    platforms: &Platforms,
    services: &[ServiceAddress],
    marks: Vec<Mark>,
    args: &LogsArgs,
    printer: &Printer,
) -> Result<()> {
    let now = Timestamp::now();
    let mut all = SelectAll::new();
    for (index, (service, mark)) in services.iter().zip(marks).enumerate() {
        let platform = platforms.of(&service.sandbox)?;
        // Lines at the very time of the last one shown come again: so many are left out.
        let (from, mut seen) = mark.unwrap_or((now - Duration::from_secs(1), 0));
        let query = match platform.dates_lines() {
            true => LogQuery {
                tail: None,
                since: Some(from),
                ..args.query(true)
            },
            false => args.query(true),
        };
        let received = platform.logs(service, query).await?;
        let stream = futures_util::stream::unfold(received, |mut received| async move {
            received.recv().await.map(|line| (line, received))
        });
        let fresh = stream.filter(move |line| {
            let again = line.at == from && seen > 0;
            seen -= usize::from(again);
            std::future::ready(!again)
        });
        all.push(fresh.map(move |line| (index, line)).boxed());
    }
    while let Some((index, line)) = all.next().await {
        printer.print(index, &line)?;
    }
    Ok(())
}

const COLORS: [AnsiColor; 6] = [
    AnsiColor::Cyan,
    AnsiColor::Yellow,
    AnsiColor::Green,
    AnsiColor::Magenta,
    AnsiColor::Blue,
    AnsiColor::BrightRed,
];

/// Sets one line: its service, if there are several, its time if wanted, its text.
struct Printer {
    prefixes: Vec<String>,
    timestamps: bool,
    /// Whether control characters reach the reader: on a terminal they would be obeyed.
    raw: bool,
}

impl Printer {
    fn new(context: &Context, args: &LogsArgs, services: &[ServiceAddress]) -> Self {
        use std::io::IsTerminal;
        let wide = services
            .iter()
            .map(|service| service.to_string().len())
            .max()
            .unwrap_or(0);
        let prefix = |(index, service): (usize, &ServiceAddress)| {
            let style = COLORS[index % COLORS.len()].on_default();
            paint(context.color_stdout, style, &format!("{service:<wide$} | "))
        };
        let prefixes = if services.len() > 1 {
            services.iter().enumerate().map(prefix).collect()
        } else {
            vec![String::new(); services.len()]
        };
        let raw = !std::io::stdout().is_terminal();
        Self {
            prefixes,
            timestamps: args.timestamps,
            raw,
        }
    }

    fn print(&self, index: usize, line: &LogLine) -> Result<()> {
        let text = if self.raw {
            line.text.clone()
        } else {
            safe(&line.text)
        };
        let time = if self.timestamps {
            format!("{:.3} ", line.at)
        } else {
            String::new()
        };
        print(&format!("{}{time}{text}\n", self.prefixes[index]))
    }
}

/// Colours stay; everything else that a terminal would obey does not.
fn safe(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("\u{1b}[") {
        out.push_str(&printable(&rest[..start]));
        let body = &rest[start + 2..];
        let end = body.find(|c: char| !(c.is_ascii_digit() || c == ';'));
        match end {
            Some(end) if body.as_bytes()[end] == b'm' => {
                out.push_str(&rest[start..start + 2 + end + 1]);
                rest = &body[end + 1..];
            }
            _ => {
                out.push('\u{fffd}');
                rest = &rest[start + 1..];
            }
        }
    }
    out.push_str(&printable(rest));
    out
}
