//! The tables of a page of the guide.

/// A row of a table, and the heading it stands under.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) heading: String,
    pub(crate) cells: Vec<String>,
}

/// The rows of all tables of a page, without their heads.
pub(crate) fn rows(page: &str) -> Vec<Row> {
    let mut heading = String::new();
    let mut rows = Vec::new();
    let mut is_head = true;
    for line in page.lines() {
        if let Some(text) = line.trim_start_matches('#').strip_prefix(' ') {
            if line.starts_with('#') {
                heading = code(text).unwrap_or_else(|| text.to_owned());
            }
        }
        let Some(line) = line
            .strip_prefix('|')
            .and_then(|line| line.strip_suffix('|'))
        else {
            is_head = true;
            continue;
        };
        if line.starts_with("---") {
            is_head = false;
        } else if !is_head {
            let cells = line.split('|').map(|cell| cell.trim().to_owned());
            rows.push(Row {
                heading: heading.clone(),
                cells: cells.collect(),
            });
        }
    }
    rows
}

/// The first text between backticks.
pub(crate) fn code(text: &str) -> Option<String> {
    text.split('`').nth(1).map(str::to_owned)
}

/// All texts between backticks.
pub(crate) fn codes(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}
