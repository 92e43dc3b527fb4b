//! The configuration file: TOML whose keys are the names of the flags, with `_` for `-`.
//!
//! Each value is turned into the words that a command line would have, so that flags and file share
//! their units and their checks.

use anyhow::{Context as _, Result, anyhow, bail};
use clap::builder::ValueParser;
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, Command};
use std::any::TypeId;
use std::error::Error as _;
use std::ffi::{OsStr, OsString};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;
use toml::de::{DeTable, DeValue};

use crate::input;

/// The flag that names the file. It has no key.
pub(crate) const FLAG: &str = "config";

/// A flag as the file sets it.
#[derive(Debug)]
pub(crate) struct Setting<'a> {
    pub(crate) flag: &'a Arg,
    pub(crate) words: Vec<OsString>,
}

/// The key of a flag.
fn key(flag: &Arg) -> Option<String> {
    let name = flag.get_long().filter(|name| *name != FLAG)?;
    Some(name.replace('-', "_"))
}

/// Reads the file. An error names file, line and key.
pub(crate) fn read<'a>(file: &Path, command: &'a Command) -> Result<Vec<Setting<'a>>> {
    parse(&input::read(file)?, command).with_context(|| file.display().to_string())
}

fn parse<'a>(text: &str, command: &'a Command) -> Result<Vec<Setting<'a>>> {
    let table = DeTable::parse(text).map_err(|error| {
        // The error as it is shows the line, which may hold what belongs in no log.
        let line = line(text, error.span().unwrap_or_default());
        anyhow!("line {line}: {}", error.message())
    })?;
    let settings = table.get_ref().iter().map(|(name, value)| {
        let at = || format!("line {}: {}", line(text, name.span()), name.get_ref());
        setting(command, name.get_ref(), value.get_ref()).with_context(at)
    });
    settings.collect()
}

fn line(text: &str, span: Range<usize>) -> usize {
    let before = text.get(..span.start).unwrap_or(text);
    before.matches('\n').count() + 1
}

fn setting<'a>(command: &'a Command, name: &str, value: &DeValue<'_>) -> Result<Setting<'a>> {
    let Some(flag) = flag_of(command, name) else {
        // Written as on the command line.
        let meant = name.trim_start_matches('-').replace('-', "_");
        match flag_of(command, &meant) {
            Some(_) => bail!("unknown key: write {meant}"),
            None => bail!("unknown key: the keys are the names of the flags, with _ for -"),
        }
    };
    let several = matches!(flag.get_action(), ArgAction::Append);
    let values = match value {
        DeValue::Array(values) if several => values.iter().map(|value| value.get_ref()).collect(),
        value => vec![value],
    };
    let mut words = Vec::new();
    for value in values {
        let text = text(flag, value)?;
        check(flag.get_value_parser(), OsStr::new(&text)).map_err(anyhow::Error::msg)?;
        words.extend(word(flag, &text));
    }
    Ok(Setting { flag, words })
}

fn flag_of<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    let mut flags = command.get_arguments();
    flags.find(|flag| key(flag).is_some_and(|key| key == name))
}

/// The value as the command line would have it.
fn text(flag: &Arg, value: &DeValue<'_>) -> Result<String> {
    let takes = |expected: TypeId| flag.get_value_parser().type_id() == expected;
    let is_size = takes(TypeId::of::<u64>());
    let is_number = is_size || takes(TypeId::of::<usize>());
    let is_time = takes(TypeId::of::<Duration>());
    let is_switch = takes(TypeId::of::<bool>());
    match value {
        DeValue::Boolean(on) if is_switch => Ok(on.to_string()),
        // The parser of the flag knows the bounds of a time.
        DeValue::Integer(number) if is_time && number.radix() == 10 => Ok(number.as_str().into()),
        DeValue::Integer(number) if is_number || is_time => {
            let number = u64::from_str_radix(number.as_str(), number.radix());
            let number = number.map_err(|_| anyhow!("not a whole number from 0 to {}", u64::MAX));
            Ok(number?.to_string())
        }
        DeValue::Float(number) if is_time => Ok(number.as_str().to_owned()),
        DeValue::String(text) if is_size || !(is_number || is_time || is_switch) => {
            Ok(text.clone().into_owned())
        }
        other => bail!(
            "must be {}, and is of the type {}",
            match () {
                () if is_switch => "true or false",
                () if is_size => "a number of bytes, or a text such as \"50G\"",
                () if is_number => "a whole number",
                () if is_time => "a number of seconds",
                () => "a text in quotes",
            },
            other.type_str()
        ),
    }
}

fn word(flag: &Arg, text: &str) -> Option<OsString> {
    let name = flag.get_long().unwrap_or_default();
    match (flag.get_action(), text) {
        (ArgAction::SetTrue, "true") => Some(format!("--{name}").into()),
        // As if it were not given.
        (ArgAction::SetTrue, _) => None,
        _ => Some(format!("--{name}={text}").into()),
    }
}

/// Says what is wrong with the value of a flag, as its parser does.
pub(crate) fn check(parser: &ValueParser, value: &OsStr) -> Result<(), String> {
    let alone = Arg::new("value").value_parser(parser.clone());
    let command = Command::new("check").no_binary_name(true).arg(alone);
    let words = [OsStr::new("--"), value];
    let Err(error) = command.try_get_matches_from(words) else {
        return Ok(());
    };
    Err(match (error.source(), error.get(ContextKind::ValidValue)) {
        _ if value.is_empty() => "is empty".to_owned(),
        (Some(why), _) => why.to_string(),
        (None, Some(ContextValue::Strings(values))) => {
            format!("must be one of {}", values.join(", "))
        }
        (None, _) => "not a valid value".to_owned(),
    })
}
