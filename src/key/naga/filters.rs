//! Diagnostic filters: what a shader says may be non-uniform.
//!
//! A filter counts where a derivative is taken, because a compiler that checks uniformity accepts
//! the function by it alone. Of all filters around such a function, the innermost decides.

use naga::diagnostic_filter::{
    DiagnosticFilter, DiagnosticFilterNode, FilterableTriggeringRule, Severity,
    StandardFilterableTriggeringRule,
};
use naga::{Arena, Expression, Handle, Module, SampleLevel, Span};

const RULE: FilterableTriggeringRule =
    FilterableTriggeringRule::Standard(StandardFilterableTriggeringRule::DerivativeUniformity);

/// What the filter of a function says, if it counts.
pub(super) fn kept(
    source: &Module,
    leaf: Option<Handle<DiagnosticFilterNode>>,
    takes_derivative: bool,
) -> Option<Severity> {
    let severity = severity(&source.diagnostic_filters, leaf);
    severity.filter(|severity| takes_derivative && *severity != Severity::Error)
}

/// The filter of a canonical module that says so.
pub(super) fn filter(
    filters: &mut Arena<DiagnosticFilterNode>,
    severity: Severity,
) -> Handle<DiagnosticFilterNode> {
    let known = filters.fetch_if(|filter| filter.inner.new_severity == severity);
    known.unwrap_or_else(|| {
        let inner = DiagnosticFilter {
            new_severity: severity,
            triggering_rule: RULE,
        };
        let parent = None;
        filters.append(DiagnosticFilterNode { inner, parent }, Span::UNDEFINED)
    })
}

/// What the innermost filter that speaks of derivatives says. `Error` is the same as none.
pub(super) fn severity(
    filters: &Arena<DiagnosticFilterNode>,
    leaf: Option<Handle<DiagnosticFilterNode>>,
) -> Option<Severity> {
    let mut next = leaf;
    while let Some(handle) = next {
        let DiagnosticFilterNode { inner, parent } = &filters[handle];
        if inner.triggering_rule == RULE {
            return Some(inner.new_severity);
        }
        next = *parent;
    }
    None
}

/// Whether an expression compares neighbours in control flow.
pub(super) const fn takes_derivative(expression: &Expression) -> bool {
    match expression {
        Expression::Derivative {
            axis: _,
            ctrl: _,
            expr: _,
        } => true,
        Expression::ImageSample {
            image: _,
            sampler: _,
            gather: _,
            coordinate: _,
            array_index: _,
            offset: _,
            level,
            depth_ref: _,
            clamp_to_edge: _,
        } => match level {
            SampleLevel::Auto | SampleLevel::Bias(_) => true,
            SampleLevel::Zero | SampleLevel::Exact(_) | SampleLevel::Gradient { x: _, y: _ } => {
                false
            }
        },
        // Nothing that is pure or static does, and of the rest only these two do. `timing` names
        // them all.
        _ => false,
    }
}
