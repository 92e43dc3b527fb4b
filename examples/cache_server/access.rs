//! Who may do what: tokens with a role each. Only their digests are kept, so that no message,
//! trace or dump of the server can hold one.

use std::collections::HashMap;
use std::fmt;
use std::sync::{PoisonError, RwLock};

use anyhow::{Result, bail, ensure};
use axum::http::{HeaderValue, Method};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// Shorter tokens are refused: they can be guessed.
const MIN_TOKEN_LEN: usize = 16;

/// What a client may do. One that may write may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    ReadOnly,
    ReadWrite,
}

impl Role {
    /// The role that a request of this method takes.
    pub(crate) fn needed_for(method: &Method) -> Self {
        match method.as_str() {
            "GET" | "HEAD" | "OPTIONS" | "PROPFIND" => Self::ReadOnly,
            _ => Self::ReadWrite,
        }
    }
}

#[derive(Debug)]
struct Token {
    /// As the access log has it.
    name: String,
    role: Role,
    digest: blake3::Hash,
}

/// The name of a client that shows no token.
pub(crate) const NO_TOKEN: &str = "-";

/// The name of a client whose token is none of ours.
pub(crate) const UNKNOWN_TOKEN: &str = "?";

/// Who a client is.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) name: String,
    /// `None` for whoever may do nothing.
    pub(crate) role: Option<Role>,
}

pub(crate) struct Access {
    anonymous: Option<Role>,
    tokens: RwLock<Tokens>,
}

/// A text of tokens, one a line: role, name, token. Empty lines and those that start with `#` say
/// nothing.
pub(crate) struct TokenSource {
    /// The file or the variable, for errors.
    origin: String,
    text: String,
}

impl TokenSource {
    pub(crate) fn new(origin: String, text: &str) -> Self {
        // Some editors begin a file with a byte order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).to_owned();
        Self { origin, text }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lines().next().is_none()
    }

    /// The lines that hold tokens, and their numbers.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = (1..).zip(self.text.lines().map(str::trim));
        numbered.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
    }

    /// The tokens, each with its place.
    fn tokens(&self) -> impl Iterator<Item = Result<(String, Token)>> {
        self.lines().map(|(number, line)| {
            let place = format!("line {number} of {}", self.origin);
            match token(line) {
                Ok(token) => Ok((place, token)),
                Err(error) => Err(error.context(place)),
            }
        })
    }
}

/// What `Access::parse` has read.
pub(crate) struct Tokens(Vec<Token>);

impl Tokens {
    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    fn parse(anonymous: Option<Role>, sources: &[TokenSource]) -> Result<Self> {
        let placed = sources.iter().flat_map(TokenSource::tokens);
        let placed = placed.collect::<Result<Vec<_>>>()?;
        check_roles(&placed)?;
        ensure!(
            anonymous.is_some() || !placed.is_empty(),
            "nobody could do anything: give --tokens, or allow something with --anonymous"
        );
        Ok(Self(placed.into_iter().map(|(_, token)| token).collect()))
    }
}

impl Access {
    /// Reads all tokens. An error names the line and its file, and not what stands in it.
    pub(crate) fn new(anonymous: Option<Role>, sources: &[TokenSource]) -> Result<Self> {
        let tokens = Tokens::parse(anonymous, sources)?;
        Ok(Self {
            anonymous,
            tokens: RwLock::new(tokens),
        })
    }

    /// Reads tokens as `new` does, for `replace`.
    pub(crate) fn parse(&self, sources: &[TokenSource]) -> Result<Tokens> {
        Tokens::parse(self.anonymous, sources)
    }

    /// From now on these tokens hold, and no others.
    pub(crate) fn replace(&self, tokens: Tokens) {
        *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = tokens;
    }

    /// Who shows this `Authorization`: a bearer token, or a token as the password of any user.
    pub(crate) fn identify(&self, authorization: Option<&HeaderValue>) -> Client {
        let Some(authorization) = authorization else {
            return Client {
                name: NO_TOKEN.to_owned(),
                role: self.anonymous,
            };
        };
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner);
        // Equal in a time that does not depend on where two digests differ.
        let known = presented(authorization).and_then(|presented| {
            let digest = blake3::hash(&presented);
            tokens.0.iter().find(|token| token.digest == digest)
        });
        match known {
            Some(token) => Client {
                name: token.name.clone(),
                role: Some(token.role),
            },
            None => Client {
                name: UNKNOWN_TOKEN.to_owned(),
                role: None,
            },
        }
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner);
        write!(f, "Access({} tokens)", tokens.len())
    }
}

/// Fails where one token has two roles: nobody could tell which of them a client has.
fn check_roles(placed: &[(String, Token)]) -> Result<()> {
    let mut seen = HashMap::new();
    for (place, token) in placed {
        let (first, role) = *seen.entry(token.digest).or_insert((place, token.role));
        ensure!(
            role == token.role,
            "{first} and {place} give two roles to one token: remove one line"
        );
    }
    Ok(())
}

fn token(line: &str) -> Result<Token> {
    let mut words = line.split_whitespace();
    let (Some(role), Some(name), Some(token), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        bail!("is not a role, a name and a token");
    };
    let role = match role {
        "read-only" => Role::ReadOnly,
        "read-write" => Role::ReadWrite,
        _ => bail!("starts with neither read-only nor read-write"),
    };
    ensure!(
        token.len() >= MIN_TOKEN_LEN,
        "its token has fewer than {MIN_TOKEN_LEN} characters"
    );
    Ok(Token {
        name: name.to_owned(),
        role,
        digest: blake3::hash(token.as_bytes()),
    })
}

/// The token in a header, whatever it is wrapped in.
fn presented(authorization: &HeaderValue) -> Option<Vec<u8>> {
    let (scheme, rest) = authorization.to_str().ok()?.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.as_bytes().to_vec());
    }
    if scheme.eq_ignore_ascii_case("basic") {
        let mut pair = BASE64_STANDARD.decode(rest).ok()?;
        let colon = pair.iter().position(|&byte| byte == b':')?;
        return Some(pair.split_off(colon + 1));
    }
    None
}
