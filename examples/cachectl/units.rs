//! Numbers of bytes, as people write and read them.

const UNITS: [(&str, u64); 4] = [
    ("T", 1 << 40),
    ("G", 1 << 30),
    ("M", 1 << 20),
    ("K", 1 << 10),
];

pub(crate) fn human(bytes: u64) -> String {
    let unit = UNITS.iter().find(|(_, unit)| bytes >= *unit);
    unit.map_or(format!("{bytes} B"), |(name, unit)| {
        format!("{:.1} {name}iB", bytes as f64 / *unit as f64)
    })
}

/// Reads a number of bytes, as in 500M.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let text = text.trim().to_uppercase();
    let text = text.trim_end_matches('B').trim_end_matches('I').trim_end();
    let unit = UNITS.iter().find(|(name, _)| text.ends_with(name));
    let (number, unit) = match unit {
        Some((name, unit)) => (text.trim_end_matches(name).trim_end(), *unit),
        None => (text, 1),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "not a number of bytes, as 500M is".to_owned())?;
    number
        .checked_mul(unit)
        .ok_or_else(|| "too many bytes".to_owned())
}
