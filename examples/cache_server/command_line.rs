//! Where settings come from: the command line, then the environment, then the configuration file,
//! then the defaults.

use anyhow::{Result, bail};
use clap::builder::BoolishValueParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory as _, FromArgMatches as _};
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::PathBuf;

use crate::args::Args;
use crate::{completions, config, help, variables};

const PREFIX: &str = "CACHE_SERVER_";

/// The variable of the tokens themselves, which no flag takes.
pub(crate) const TOKENS: &str = "CACHE_SERVER_TOKENS";

/// The command line. Each flag has a variable, whoever adds one.
pub(crate) fn command() -> Command {
    let command = Args::command()
        .mut_args(with_variable)
        .after_long_help(help::AFTER)
        // What takes none of the other flags.
        .subcommand_negates_reqs(true)
        .disable_help_subcommand(true);
    completions::add_to(command)
}

fn with_variable(flag: Arg) -> Arg {
    let Some(name) = flag.get_long() else {
        return flag;
    };
    let variable = match name {
        "tokens" => format!("{TOKENS}_FILE"),
        name => format!("{PREFIX}{}", name.replace('-', "_").to_uppercase()),
    };
    let is_switch = matches!(flag.get_action(), ArgAction::SetTrue);
    // What it is set to may be a secret, such as a URL with a password.
    let flag = flag.env(variable).hide_env_values(true);
    if is_switch {
        flag.value_parser(BoolishValueParser::new())
    } else {
        // The parser of the value says what it expects. Without this, -1 is an unknown flag.
        flag.allow_negative_numbers(true)
    }
}

/// Reads all settings. None if the command line asked for something else, which is done then. What
/// is wrong on the command line, and --help, ends the process here.
pub(crate) fn read(mut words: Vec<OsString>) -> Result<Option<Args>> {
    let mut command = command();
    // To know the file. What is wrong is told below, where the settings of the file are known.
    let tolerant = command.clone().ignore_errors(true);
    let given = tolerant
        .try_get_matches_from(&words)
        .unwrap_or_else(|error| error.exit());
    if completions::write_if_asked(&command, &given)? {
        return Ok(None);
    }
    // First: a misspelt one may be why a setting is missing.
    for warning in variables::warnings(&command, PREFIX, &[TOKENS]) {
        let _ = writeln!(io::stderr(), "cache_server: {warning}");
    }
    check_variables(&command, &given)?;
    if let Some(file) = given.get_one::<PathBuf>(config::FLAG) {
        let settings = config::read(file, &command)?.into_iter();
        let missing = settings.filter(|setting| !is_given(&given, setting.flag));
        let missing: Vec<_> = missing.flat_map(|setting| setting.words).collect();
        let first = words.len().min(1);
        words.splice(first..first, missing);
    }
    let args = command
        .try_get_matches_from_mut(words)
        .and_then(|matches| Args::from_arg_matches(&matches))
        .unwrap_or_else(|error| error.format(&mut command).exit());
    Ok(Some(args))
}

fn is_given(given: &ArgMatches, flag: &Arg) -> bool {
    let source = given.value_source(flag.get_id().as_str());
    source.is_some_and(|source| source != ValueSource::DefaultValue)
}

/// Fails where a variable has a bad value. The error of clap names the flag, and not the variable.
fn check_variables(command: &Command, given: &ArgMatches) -> Result<()> {
    for flag in command.get_arguments() {
        let Some(variable) = flag.get_env() else {
            continue;
        };
        let Some(value) = std::env::var_os(variable) else {
            continue;
        };
        let source = given.value_source(flag.get_id().as_str());
        if source == Some(ValueSource::CommandLine) {
            continue;
        }
        if let Err(why) = config::check(flag.get_value_parser(), &value) {
            bail!("the variable {}: {why}", variable.display());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::fs;

    /// Values of every type that a flag has. Each flag must take one of them from the file.
    const VALUES: [&str; 5] = ["true", "1", "\"1\"", "\"none\"", "\"127.0.0.1:1\""];

    /// Whoever adds a flag need not think of it.
    #[test]
    fn every_flag_has_a_variable_and_a_key_of_the_file() {
        let mut command = command();
        let help = command.render_long_help().to_string();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("server.toml");
        let mut variables = HashSet::new();
        for flag in super::command().get_arguments() {
            let name = flag.get_long().expect("an argument without a name");
            let variable = flag.get_env().expect(name).to_str().unwrap();
            assert!(variable.starts_with("CACHE_SERVER_"), "{variable}");
            assert!(help.contains(&format!("[env: {variable}]")), "{variable}");
            assert!(
                variables.insert(variable.to_owned()),
                "{variable} is of two flags"
            );
            // What reads the file is named by none.
            if name == config::FLAG {
                continue;
            }
            let key = name.replace('-', "_");
            let is_taken = |value: &str| {
                fs::write(&file, format!("{key} = {value}")).unwrap();
                config::read(&file, &command).is_ok()
            };
            let taken = VALUES.into_iter().any(is_taken);
            assert!(taken, "no value of {key} is taken from the file");
        }
        assert!(variables.len() > 15);
        assert!(!variables.contains(TOKENS));
    }
}
