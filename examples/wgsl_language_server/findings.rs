//! What naga says of a source: the artifact that the cache keeps, with places in bytes, which are the
//! same for every client.

use std::fmt::Write as _;
use std::iter;

use lsp_types::{
    Diagnostic, DiagnosticRelatedInformation, DiagnosticSeverity, Location, Range, Uri,
};
use naga::Span;
use naga::front::wgsl::parse_str;
use naga::valid::Capabilities;
use pipeline_cache::key::naga::{InvalidModule, ValidatedModule};
use serde::{Deserialize, Serialize};

use crate::shader::chain;
use crate::text::{Encoding, position};
use crate::wgsl_nesting::{self, TooDeep};

/// The form of an artifact. Another one is another scope.
pub(crate) const FORMAT: u32 = 1;

/// The longest message, in bytes, and the most places that belong to one.
pub(crate) const MAX_MESSAGE: usize = 4096;
pub(crate) const MAX_RELATED: usize = 16;

/// An error in a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Finding {
    message: String,
    place: Place,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    related: Vec<(Place, String)>,
}

/// From which byte of the source to which.
type Place = (u32, u32);

impl Finding {
    /// About the source as a whole.
    pub(crate) fn of_source(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            place: (0, 0),
            related: Vec::new(),
        }
    }

    /// About the first of these places.
    fn new(message: String, places: impl Iterator<Item = (Span, String)>) -> Self {
        let place = |span: Span| {
            let range = span.to_range().unwrap_or_default();
            // A source is much shorter than 4 GiB.
            (range.start as u32, range.end as u32)
        };
        let mut places = places.map(|(span, label)| (place(span), label));
        let (first, label) = places.next().unwrap_or_default();
        let mut message = message;
        if !label.is_empty() && !message.contains(&label) {
            // A string takes all that is written to it.
            let _ = write!(message, ": {label}");
        }
        Self {
            message: shortened(message),
            place: first,
            related: places
                .map(|(place, label)| (place, shortened(label)))
                .take(MAX_RELATED)
                .collect(),
        }
    }

    /// As the protocol tells it, for a document with this text.
    pub(crate) fn diagnostic(&self, uri: &Uri, text: &str, encoding: Encoding) -> Diagnostic {
        let range = |(start, end): Place| Range {
            start: position(text, start as usize, encoding),
            end: position(text, end as usize, encoding),
        };
        let related = self.related.iter().map(|(place, label)| {
            let location = Location::new(uri.clone(), range(*place));
            DiagnosticRelatedInformation::new(location, label.clone())
        });
        Diagnostic {
            range: range(self.place),
            severity: Some(DiagnosticSeverity::Error),
            source: Some("naga".to_owned()),
            message: self.message.as_str().into(),
            related_information: Some(related.collect::<Vec<_>>())
                .filter(|related| !related.is_empty()),
            ..Diagnostic::default()
        }
    }
}

/// All that naga finds, or `None` if it is not wanted any more. Takes as long as a parse and a
/// validation.
pub(crate) fn find(source: &str, is_wanted: impl Fn() -> bool) -> Option<Vec<Finding>> {
    if let Err(TooDeep { message, at }) = wgsl_nesting::check(source) {
        let at = Span::new(at.start as u32, at.end as u32);
        return Some(vec![Finding::new(message, iter::once((at, String::new())))]);
    }
    let module = match parse_str(source) {
        Ok(module) => module,
        Err(error) => {
            let labels = error.labels();
            let places = labels.map(|(span, label)| (span, label.to_owned()));
            let mut message = error.message().to_owned();
            for note in error.notes() {
                let _ = write!(message, "\nnote: {note}");
            }
            return Some(vec![Finding::new(message, places)]);
        }
    };
    if !is_wanted() {
        return None;
    }
    // What a target cannot do is told when it is compiled for that target.
    match ValidatedModule::new(module, Capabilities::all()) {
        Ok(_valid) => Some(Vec::new()),
        Err(InvalidModule::Invalid { error }) => {
            let places = error.spans().cloned();
            Some(vec![Finding::new(chain(error.as_inner()), places)])
        }
        Err(other) => Some(vec![Finding::of_source(other.to_string())]),
    }
}

fn shortened(mut text: String) -> String {
    if text.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE).rfind(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or_default());
        text.push('…');
    }
    text
}
