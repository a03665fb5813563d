//! `gabion send` and `gabion signal`: reach into a running service.

use std::process::ExitCode;

use super::address::AddressArg;
use super::context::Context;
use super::error::{Error, Result};
use crate::model::{Address, ServiceAddress};
use crate::platforms::Platforms;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion send game/server 'say hello'    one line
  gabion send game/server --eof          end its standard input
  gabion send game/server < commands.txt

For services with `stdin_open: true`.")]
pub struct SendArgs {
    /// The service
    #[arg(value_name = "ADDRESS", add = super::address::completer())]
    address: AddressArg,
    /// The line; what stdin has, as it is, without it
    #[arg(value_name = "TEXT", allow_hyphen_values = true)]
    text: Option<String>,
    /// End its standard input after that
    #[arg(long)]
    eof: bool,
}

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gabion signal web/nginx HUP            have it read its configuration again
  gabion signal web/worker USR1")]
pub struct SignalArgs {
    /// The service
    #[arg(value_name = "ADDRESS", add = super::address::completer())]
    address: AddressArg,
    /// The signal's name, with or without `SIG`
    #[arg(value_name = "SIGNAL")]
    signal: String,
}

/// The most that is sent in one piece.
const PIECE: usize = 256 << 10;

pub async fn send(context: &Context, args: &SendArgs) -> Result<ExitCode> {
    let (platforms, service) = find(context, &args.address).await?;
    let platform = platforms.of(&service.sandbox)?;
    let text = match (&args.text, args.eof) {
        (Some(text), _) => format!("{text}\n"),
        (None, true) => String::new(),
        (None, false) => {
            std::io::read_to_string(std::io::stdin()).map_err(|error| Error::Failed {
                message: format!("stdin cannot be read as text: {error}"),
                hint: None,
            })?
        }
    };
    let mut pieces = pieces(&text).peekable();
    while let Some(piece) = pieces.next() {
        let eof = args.eof && pieces.peek().is_none();
        platform.send_stdin(&service, piece, eof).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The text in pieces that a request may hold; at least one.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        let mut end = text.len().min(PIECE);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let (piece, later) = text.split_at(end);
        rest = (!later.is_empty()).then_some(later);
        Some(piece)
    })
}

pub async fn signal(context: &Context, args: &SignalArgs) -> Result<ExitCode> {
    let (platforms, service) = find(context, &args.address).await?;
    let platform = platforms.of(&service.sandbox)?;
    platform.signal(&service, &args.signal).await?;
    Ok(ExitCode::SUCCESS)
}

/// The service, and the platforms to reach it through.
async fn find(context: &Context, address: &AddressArg) -> Result<(Platforms, ServiceAddress)> {
    let Address::Service(service) = address else {
        return Err(Error::Usage {
            message: format!("`{address}` is a sandbox; name a service of it"),
            hint: Some(format!("write `{address}/SERVICE`")),
        });
    };
    let (loaded, desired) = context.load_stack()?;
    let mut platforms = context.platforms(&loaded, &desired.stack)?;
    let observed = context.observe(&mut platforms, &desired).await?;
    super::address::resolve(std::slice::from_ref(address), &desired, &observed)?;
    Ok((platforms, service.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_whole_characters_and_all_of_the_text() {
        assert_eq!(pieces("").collect::<Vec<_>>(), [""]);
        let text = "ä".repeat(PIECE);
        let cut: Vec<_> = pieces(&format!("x{text}")).map(str::len).collect();
        assert_eq!(cut, [PIECE - 1, PIECE, 2]);
    }
}
