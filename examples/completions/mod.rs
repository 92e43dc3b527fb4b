//! What a tool writes about itself: completions for shells, and man pages.

use anyhow::{Context as _, Result};
use clap::{Arg, ArgMatches, Command, value_parser};
use clap_complete::{Shell, generate};
use std::io::{self, Write as _};
use std::path::PathBuf;

/// The subcommands `completions` and `man`, for `write_if_asked`.
pub(crate) fn add_to(command: Command) -> Command {
    let shell = Arg::new("shell").required(true);
    let folder = Arg::new("folder").required(true).value_name("DIR");
    command
        .subcommand(
            Command::new("completions")
                .about("Print the completions for a shell")
                .arg(shell.value_parser(value_parser!(Shell))),
        )
        .subcommand(
            Command::new("man")
                .about("Write the man pages to a folder")
                .arg(folder.value_parser(value_parser!(PathBuf))),
        )
}

/// Whether one of the two subcommands was given: then it is done.
pub(crate) fn write_if_asked(command: &Command, matches: &ArgMatches) -> Result<bool> {
    let (asked, matches) = match matches.subcommand() {
        Some((name @ ("completions" | "man"), matches)) => (name, matches),
        _ => return Ok(false),
    };
    match asked {
        "man" => {
            let Some(folder) = matches.get_one::<PathBuf>("folder") else {
                return Ok(false);
            };
            clap_mangen::generate_to(command.clone(), folder)
                .with_context(|| format!("cannot write man pages to {}", folder.display()))?;
        }
        _ => {
            let Some(&shell) = matches.get_one::<Shell>("shell") else {
                return Ok(false);
            };
            let mut script = Vec::new();
            let name = command.get_name().to_owned();
            generate(shell, &mut command.clone(), name, &mut script);
            io::stdout().write_all(&script)?;
        }
    }
    Ok(true)
}
