//! The text of a document: positions as the protocol counts them, and edits.

use lsp_types::{Position, PositionEncodingKind, Range};
use memchr::{memchr2, memchr2_iter};
use serde::Deserialize;

/// In which units the columns of positions are counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Encoding {
    Utf8,
    /// What a client understands that says nothing.
    #[default]
    Utf16,
    Utf32,
}

impl Encoding {
    /// The cheapest of those that the client offers.
    pub(crate) fn negotiated(offered: &[PositionEncodingKind]) -> Self {
        match offered {
            offered if offered.contains(&PositionEncodingKind::UTF8) => Self::Utf8,
            offered if offered.contains(&PositionEncodingKind::UTF16) => Self::Utf16,
            offered if offered.contains(&PositionEncodingKind::UTF32) => Self::Utf32,
            _ => Self::default(),
        }
    }

    pub(crate) const fn kind(self) -> PositionEncodingKind {
        match self {
            Self::Utf8 => PositionEncodingKind::UTF8,
            Self::Utf16 => PositionEncodingKind::UTF16,
            Self::Utf32 => PositionEncodingKind::UTF32,
        }
    }

    const fn units(self, char: char) -> usize {
        match self {
            Self::Utf8 => char.len_utf8(),
            Self::Utf16 => char.len_utf16(),
            Self::Utf32 => 1,
        }
    }
}

/// An edit. Without a range it is the whole new text.
///
/// Not the enum of the protocol's types: there a range that cannot be read, such as one with a
/// negative line, would make a part of a text the whole of it.
#[derive(Debug, Deserialize)]
pub(crate) struct Change {
    range: Option<Range>,
    text: String,
}

impl Change {
    pub(crate) const fn is_whole(&self) -> bool {
        self.range.is_none()
    }
}

pub(crate) fn apply(text: &mut String, change: Change, encoding: Encoding) {
    let Some(Range { start, end }) = change.range else {
        *text = change.text;
        return;
    };
    let (start, end) = (offset(text, start, encoding), offset(text, end, encoding));
    text.replace_range(start.min(end)..start.max(end), &change.text);
}

/// The byte at a position. A column past the end of its line is that end, a line past the end of the
/// text is that end, and what lies within a character is its beginning.
pub(crate) fn offset(text: &str, position: Position, encoding: Encoding) -> usize {
    let Some(start) = line_start(text, position.line) else {
        return text.len();
    };
    let line = &text[start..line_end(text, start)];
    let wanted = position.character as usize;
    let mut units = 0;
    for (at, char) in line.char_indices() {
        units += encoding.units(char);
        if units > wanted {
            return start + at;
        }
    }
    start + line.len()
}

/// The position of a byte; past the end of the text, of that end.
pub(crate) fn position(text: &str, offset: usize, encoding: Encoding) -> Position {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let (mut line, mut start) = (0, 0);
    for next in line_starts(text).take_while(|start| *start <= offset) {
        line += 1;
        start = next;
    }
    let before = &text[start..offset.min(line_end(text, start))];
    let character = match encoding {
        Encoding::Utf8 => before.len(),
        _ => before.chars().map(|char| encoding.units(char)).sum(),
    };
    // A text is much shorter than 4 GiB.
    Position::new(line, u32::try_from(character).unwrap_or(u32::MAX))
}

fn line_start(text: &str, line: u32) -> Option<usize> {
    match line {
        0 => Some(0),
        line => line_starts(text).nth(line as usize - 1),
    }
}

/// The beginnings of all lines but the first. A line ends with `\n`, `\r\n` or `\r`.
fn line_starts(text: &str) -> impl Iterator<Item = usize> {
    let bytes = text.as_bytes();
    memchr2_iter(b'\n', b'\r', bytes)
        .filter(|&at| bytes[at] == b'\n' || bytes.get(at + 1) != Some(&b'\n'))
        .map(|at| at + 1)
}

fn line_end(text: &str, start: usize) -> usize {
    let rest = &text.as_bytes()[start..];
    memchr2(b'\n', b'\r', rest).map_or(text.len(), |end| start + end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "a\u{e9}\u{1f600}b\r\nsecond\rthird\n";

    #[test]
    fn columns_are_counted_in_the_units_of_the_encoding() {
        // After the emoji, which has four bytes, two units of UTF-16, and is one character.
        for (encoding, character) in [
            (Encoding::Utf8, 7),
            (Encoding::Utf16, 4),
            (Encoding::Utf32, 3),
        ] {
            let there = Position::new(0, character);
            assert_eq!(offset(TEXT, there, encoding), 7, "{encoding:?}");
            assert_eq!(position(TEXT, 7, encoding), there, "{encoding:?}");
        }
        // In the middle of a character is before it.
        assert_eq!(offset(TEXT, Position::new(0, 3), Encoding::Utf16), 3);
        assert_eq!(offset(TEXT, Position::new(0, 5), Encoding::Utf8), 3);
        assert_eq!(position(TEXT, 5, Encoding::Utf8), Position::new(0, 3));
    }

    #[test]
    fn lines_end_in_three_ways() {
        for (line, word) in [(1, "second"), (2, "third"), (3, "")] {
            let at = offset(TEXT, Position::new(line, 0), Encoding::Utf16);
            assert!(TEXT[at..].starts_with(word), "{line}");
            assert_eq!(position(TEXT, at, Encoding::Utf16), Position::new(line, 0));
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_the_nearest_place() {
        let max = Position::new(u32::MAX, u32::MAX);
        for encoding in [Encoding::Utf8, Encoding::Utf16, Encoding::Utf32] {
            assert_eq!(offset(TEXT, max, encoding), TEXT.len());
            // The end of the first line, before its line break.
            assert_eq!(offset(TEXT, Position::new(0, u32::MAX), encoding), 8);
            assert_eq!(position(TEXT, usize::MAX, encoding), Position::new(3, 0));
            assert_eq!(offset("", max, encoding), 0);
        }
    }

    #[test]
    fn edits_are_applied_where_they_say_and_a_reversed_range_is_turned_round() {
        let at = |line, character| Position::new(line, character);
        let mut text = TEXT.to_owned();
        for range in [
            Range::new(at(1, 0), at(1, 6)),
            Range::new(at(1, 1), at(1, 0)),
        ] {
            let change = Change {
                range: Some(range),
                text: "x".to_owned(),
            };
            apply(&mut text, change, Encoding::Utf16);
        }
        assert_eq!(text, "a\u{e9}\u{1f600}b\r\nx\rthird\n");
        let whole = Change {
            range: None,
            text: "whole".to_owned(),
        };
        apply(&mut text, whole, Encoding::Utf16);
        assert_eq!(text, "whole");
    }
}
