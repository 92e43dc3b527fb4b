//! What is evaluated whether or not anything uses it.

use naga::valid::FunctionInfo;
use naga::{Expression, Function, Handle, Module};

use super::module::is_interface;
use super::timing::{Timing, timing};

/// Whether an evaluation is kept even if nothing uses it.
///
/// A load from memory that only the shader sees is not, nor is a derivative. All else either names
/// a resource, which is part of the interface of the pipeline, or is not worth a rule.
pub(super) fn is_evaluation_kept(
    module: &Module,
    function: &Function,
    info: &FunctionInfo,
    handle: Handle<Expression>,
) -> bool {
    let expression = &function.expressions[handle];
    match timing(expression) {
        Timing::Static | Timing::Pure => false,
        Timing::Anchored => {
            if let Expression::Load { pointer } = *expression {
                let pointer = info[pointer].ty.inner_with(&module.types);
                return pointer.pointer_space().is_none_or(is_interface);
            }
            !matches!(
                expression,
                Expression::Derivative {
                    axis: _,
                    ctrl: _,
                    expr: _,
                }
            )
        }
        Timing::Defined => true,
    }
}
