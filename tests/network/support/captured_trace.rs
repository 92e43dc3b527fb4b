//! All that a test's thread traces, as text, at every level.
//!
//! One subscriber serves the whole process and tells the threads apart: subscribers that come and
//! go with their tests make events of other threads disappear now and then.

use std::cell::RefCell;
use std::fmt::{Debug, Write as _};
use std::sync::Once;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

thread_local! {
    /// `None` on the threads of tests that do not ask.
    static TEXT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Starts to capture, on this thread, with nothing captured yet.
pub(crate) fn capture() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        tracing::subscriber::set_global_default(PerThread).unwrap();
        tracing::callsite::rebuild_interest_cache();
    });
    TEXT.set(Some(String::new()));
}

/// The text so far.
pub(crate) fn captured() -> String {
    TEXT.with_borrow(|text| text.clone().unwrap())
}

fn write(line: impl FnOnce(&mut String)) {
    TEXT.with_borrow_mut(|text| text.as_mut().map(line));
}

struct PerThread;

struct Line<'a>(&'a mut String);

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, " {field}={value:?}");
    }
}

impl Subscriber for PerThread {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        write(|text| {
            let _ = write!(text, "span {}", span.metadata().name());
            span.record(&mut Line(text));
            text.push('\n');
        });
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        write(|text| {
            text.push_str("recorded");
            values.record(&mut Line(text));
            text.push('\n');
        });
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        write(|text| {
            let _ = write!(text, "{}", event.metadata().level());
            event.record(&mut Line(text));
            text.push('\n');
        });
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
