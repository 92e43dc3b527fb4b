//! Values on a command line.

use std::time::Duration;
use tokio::sync::Semaphore;

/// A year: longer than anybody waits, and short enough to be added to any time.
const MAX_SECONDS: f64 = 365.0 * 24.0 * 3600.0;

/// A number of bytes, with K, M, G or T for powers of 1024.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        // Not even a number: that is told below.
        _ if digits.is_empty() => 0,
        _ => return Err("the unit is none of K, M, G and T".to_owned()),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "expected a number of bytes, such as 500M or 10G".to_owned())?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "too large a number".to_owned())
}

/// A number of things at once, at least one and no more than a semaphore can count.
pub(crate) fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=Semaphore::MAX_PERMITS) => Ok(count),
        _ => Err(format!(
            "expected a whole number from 1 to {}",
            Semaphore::MAX_PERMITS
        )),
    }
}

/// A time in seconds, without a unit.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ 0.0..=MAX_SECONDS) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!(
            "expected a number of seconds from 0 to {MAX_SECONDS}, such as 30 or 1.5"
        )),
    }
}

/// A limit on waiting: one of nothing would serve nobody.
pub(crate) fn positive_seconds(text: &str) -> Result<Duration, String> {
    match seconds(text) {
        Ok(limit) if !limit.is_zero() => Ok(limit),
        _ => Err(format!(
            "expected a number of seconds above 0 and up to {MAX_SECONDS}, such as 30 or 1.5"
        )),
    }
}
