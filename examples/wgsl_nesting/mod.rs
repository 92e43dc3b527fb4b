//! How deep a WGSL source nests, before it is parsed.
//!
//! naga's front end recurses over expressions, `else if`s and declarations, most of which it does not
//! bound, and no error can be made of a stack that overflows. So what nests too deep is found here, by
//! one pass over the bytes that keeps no more than the open brackets.

use std::ops::Range;

/// How deep a source may nest: operators of one expression, `else`s of one `if` and brackets, those in
/// one another together. naga takes up to 12 KiB of stack for a level in a debug build, and its
/// writers up to 22 KiB.
pub(crate) const DEEPEST: usize = 1000;

/// The most declarations, each of which may need the one before it. naga takes less than 700 bytes of
/// stack for each.
pub(crate) const MOST_DECLARATIONS: usize = 50_000;

/// Why a source is not parsed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooDeep {
    pub(crate) message: String,
    /// The bytes of the source where it is too much.
    pub(crate) at: Range<usize>,
}

/// Whether the source nests no deeper than a parser can go.
///
/// It counts at least as deep as naga does, and sometimes deeper: what stands between two separators
/// counts as one chain.
pub(crate) fn check(source: &str) -> Result<(), TooDeep> {
    check_within(source, DEEPEST)
}

fn check_within(source: &str, deepest: usize) -> Result<(), TooDeep> {
    let mut scan = Scan {
        tokens: Tokens {
            source: source.as_bytes(),
            at: 0,
        },
        open: vec![Group::default()],
        declarations: 0,
        block_ended: false,
    };
    while let Some(at) = scan.step() {
        let message = if scan.depth() > deepest {
            format!("the source nests deeper than {deepest}")
        } else if scan.declarations > MOST_DECLARATIONS {
            format!("the source has more than {MOST_DECLARATIONS} declarations")
        } else {
            continue;
        };
        return Err(TooDeep { message, at });
    }
    Ok(())
}

struct Scan<'a> {
    tokens: Tokens<'a>,
    /// The file, and the brackets that are open.
    open: Vec<Group>,
    declarations: usize,
    /// Whether the last token was a closing brace. Unless `else` follows, a statement has ended.
    block_ended: bool,
}

/// What stands between two brackets.
#[derive(Default)]
struct Group {
    /// The chain since the last separator: the links of it, and how deep the brackets among them nest.
    links: usize,
    inside: usize,
    /// The deepest chain before it.
    deepest: usize,
    /// Each `<` that no `>` has followed. A comma may be one of a template then, and no separator.
    templates: usize,
    /// How deep the group itself stands.
    around: usize,
}

impl Group {
    fn depth(&self) -> usize {
        self.deepest.max(self.links + self.inside)
    }

    fn separate(&mut self) {
        self.deepest = self.depth();
        (self.links, self.inside, self.templates) = (0, 0, 0);
    }
}

impl Scan<'_> {
    /// Takes one token. Where it stands; `None` at the end.
    fn step(&mut self) -> Option<Range<usize>> {
        let start = self.tokens.at;
        let token = self.tokens.next()?;
        let at = start..self.tokens.at;
        if token == Token::Blank {
            return Some(at);
        }
        if std::mem::take(&mut self.block_ended) && token != Token::Else {
            self.end_statement();
        }
        match token {
            Token::Blank | Token::Other => {}
            Token::Else => self.last().links += 1,
            Token::Operator(count) => self.last().links += count,
            Token::Less => {
                self.last().links += 1;
                self.last().templates += 1;
            }
            Token::Greater(count) => {
                let group = self.last();
                group.links += 1;
                group.templates = group.templates.saturating_sub(count);
            }
            Token::Open => {
                let group = self.last();
                group.links += 1;
                let around = group.around + group.links;
                self.open.push(Group {
                    around,
                    ..Group::default()
                });
            }
            Token::Close { is_brace } => {
                // A bracket that closes nothing is naga's to complain of.
                if self.open.len() > 1 {
                    let depth = self.open.pop().map_or(0, |group| group.depth());
                    let group = self.last();
                    group.inside = group.inside.max(depth);
                }
                self.block_ended = is_brace;
            }
            Token::Comma if self.last().templates == 0 => self.last().separate(),
            Token::Comma => {}
            Token::Semicolon => self.end_statement(),
        }
        Some(at)
    }

    fn end_statement(&mut self) {
        if self.open.len() == 1 {
            self.declarations += 1;
        }
        self.last().separate();
    }

    /// How deep the chain of the last token nests.
    fn depth(&mut self) -> usize {
        let group = self.last();
        group.around + group.links + group.inside
    }

    fn last(&mut self) -> &mut Group {
        // The file is never closed.
        let last = self.open.len() - 1;
        &mut self.open[last]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    /// Blanks and comments.
    Blank,
    Open,
    Close {
        is_brace: bool,
    },
    Comma,
    Semicolon,
    Else,
    Less,
    /// So many in a row.
    Greater(usize),
    /// What takes an operand or two, or a member: so many bytes of them in a row, each of which may be an
    /// operator of its own.
    Operator(usize),
    /// Names, numbers and all that is no operator.
    Other,
}

struct Tokens<'a> {
    source: &'a [u8],
    at: usize,
}

impl Tokens<'_> {
    fn next(&mut self) -> Option<Token> {
        let byte = *self.source.get(self.at)?;
        self.at += 1;
        Some(match byte {
            b'/' if self.peek() == Some(b'/') => self.line_comment(),
            b'/' if self.peek() == Some(b'*') => self.block_comment(),
            b'(' | b'[' | b'{' => Token::Open,
            b')' | b']' => Token::Close { is_brace: false },
            b'}' => Token::Close { is_brace: true },
            b',' => Token::Comma,
            b';' => Token::Semicolon,
            b'<' if matches!(self.peek(), Some(b'<' | b'=')) => {
                self.at += 1;
                Token::Operator(1)
            }
            b'<' => Token::Less,
            b'>' => Token::Greater(1 + self.skip(|byte| byte == b'>')),
            b'.' | b'@' => Token::Operator(1),
            byte if is_operator(byte) => Token::Operator(1 + self.operators()),
            b'0'..=b'9' => {
                self.number();
                Token::Other
            }
            byte if is_word(byte) => self.word(),
            // What naga reads as a name or a blank does not matter here, as long as no name hides an
            // `else`.
            _ => Token::Blank,
        })
    }

    fn peek(&self) -> Option<u8> {
        self.source.get(self.at).copied()
    }

    /// How many bytes it skips.
    fn skip(&mut self, while_: impl Fn(u8) -> bool) -> usize {
        let start = self.at;
        while self.peek().is_some_and(&while_) {
            self.at += 1;
        }
        self.at - start
    }

    /// How long the rest of a row of operators is, which ends before a comment.
    fn operators(&mut self) -> usize {
        self.skip(|byte| is_operator(byte) && byte != b'/')
    }

    fn word(&mut self) -> Token {
        let start = self.at - 1;
        self.skip(is_word);
        match &self.source[start..self.at] {
            b"else" => Token::Else,
            _ => Token::Other,
        }
    }

    /// Digits and letters, with one point among them.
    fn number(&mut self) {
        self.skip(is_word);
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.skip(is_word);
        }
    }

    /// It ends where naga ends it, or code would be taken for a comment.
    fn line_comment(&mut self) -> Token {
        const ENDS: [&[u8]; 3] = [
            "\u{85}".as_bytes(),
            "\u{2028}".as_bytes(),
            "\u{2029}".as_bytes(),
        ];
        while let Some(byte) = self.peek() {
            let rest = &self.source[self.at..];
            if matches!(byte, b'\n'..=b'\r') || ENDS.iter().any(|end| rest.starts_with(end)) {
                break;
            }
            self.at += 1;
        }
        Token::Blank
    }

    /// Comments nest. As naga has it, a byte is part of one `/*` or `*/` only.
    fn block_comment(&mut self) -> Token {
        self.at += 1;
        let mut depth = 1;
        let mut before = None;
        while let Some(byte) = self.peek() {
            self.at += 1;
            before = match (before, byte) {
                (Some(b'*'), b'/') => {
                    depth -= 1;
                    None
                }
                (Some(b'/'), b'*') => {
                    depth += 1;
                    None
                }
                _ => Some(byte),
            };
            if depth == 0 {
                break;
            }
        }
        Token::Blank
    }
}

const fn is_operator(byte: u8) -> bool {
    matches!(
        byte,
        b'+' | b'-' | b'*' | b'/' | b'%' | b'&' | b'|' | b'^' | b'~' | b'!' | b'='
    )
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a source nests too deep only if it repeats this too often.
    fn is_bounded(before: &str, repeated: &str, after: &str) {
        let source = |count: usize| format!("{before}{}{after}", repeated.repeat(count));
        assert_eq!(check(&source(DEEPEST / 8)), Ok(()), "{repeated}");
        let error = check(&source(DEEPEST + 1)).expect_err(repeated);
        assert!(error.message.contains("deeper"), "{repeated}: {error:?}");
    }

    #[test]
    fn long_chains_and_nests_are_refused() {
        for (before, repeated, after) in [
            ("const x = 1", "+ 1", ";"),
            ("const x = 1", "-1", ";"),
            ("const x = a", "&&b", ";"),
            ("const x = ", "!", "a;"),
            ("const x = ", "~", "a;"),
            ("const x = ", "-~", "a;"),
            ("const x = ", "*&", "a;"),
            ("const_assert ", "!!", "a;"),
            ("const x = a", "/b", ";"),
            ("const x = a", "/**/+b", ";"),
            ("const x = a", "/*/ , /**/ , */+b", ";"),
            ("const x = a", "+//\u{2028}b", ";"),
            ("const x = a", ".x", ";"),
            ("const x = 1.", ".x", ";"),
            ("const x = a", "[0]", ";"),
            ("const x = a", "(0)", ";"),
            // A comma of a template separates nothing.
            ("const x = 1", "+ v<f, >(1)", ";"),
            ("const x = 1", "+ v<v<f>, v<f>>(1)", ";"),
            ("fn f() { if a {} ", "else if a {}", "}"),
            ("fn f() { if a {} ", "else/**/if a { b; }", "}"),
            ("fn f() { if a {} ", "/* */\u{200e}else\u{85}if a {}", "}"),
            ("fn f() { ", "{", ""),
            ("const x = ", "(", ""),
            ("const x = ", "f(1, ", ""),
        ] {
            is_bounded(before, repeated, after);
        }
    }

    #[test]
    fn what_stands_side_by_side_does_not_nest() {
        for (before, repeated, after) in [
            ("", "const x = a + b;", ""),
            ("", "fn f() { if a { b(); } else { c(); } }", ""),
            ("fn f() { ", "if a { b(); }", "}"),
            ("fn f() { ", "x += a.y;", "}"),
            (
                "const x = array<vec2<f32>, 9>(",
                "vec2<f32>(1.0, -2.5e-3),",
                ");",
            ),
            ("const x = array(", "1u << 3u,", ");"),
            ("", "// a + b + c\n", ""),
            ("/*", "- + -", "*/"),
            ("/*", "/* + */", "*/"),
        ] {
            let source = format!("{before}{}{after}", repeated.repeat(20 * DEEPEST));
            assert_eq!(check(&source), Ok(()), "{repeated}");
        }
    }

    #[test]
    fn real_shaders_are_far_from_the_bound() {
        let shaders = vello_shaders::SHADERS;
        for shader in [
            shaders.coarse,
            shaders.fine_area,
            shaders.flatten,
            shaders.path_tiling,
        ] {
            let within = check_within(&shader.wgsl.code, DEEPEST / 20);
            assert_eq!(within, Ok(()), "{}", shader.name);
        }
    }

    #[test]
    fn declarations_are_bounded() {
        let many = |count| check(&"alias a=u32;".repeat(count));
        assert_eq!(many(MOST_DECLARATIONS), Ok(()));
        let error = many(MOST_DECLARATIONS + 1).unwrap_err();
        assert!(error.message.contains("declarations"), "{error:?}");
        assert!(check(&"fn f(){}".repeat(MOST_DECLARATIONS + 2)).is_err());
    }
}
