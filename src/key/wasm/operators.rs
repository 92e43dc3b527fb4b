//! What the rules know of every operator's immediates.
//!
//! The encoder hands out each index it meets by the name of its field. The table below names all
//! fields of all operators, so that a new kind of immediate does not compile before it has a rule
//! in [`encode`](super::encode).

use wasmparser::Operator;

use super::Unkeyable;

/// Fails on an operator of a kind that is not in the parser's own list.
pub(super) fn check(operator: &Operator<'_>) -> Result<(), Unkeyable> {
    macro_rules! rules {
        ($( @$proposal:ident $op:ident $({ $($arg:ident: $ty:ty),* })? => $visit:ident ($($ann:tt)*))*) => {
            match operator {
                $(
                    Operator::$op $({ $($arg: _),* })? => {
                        $($(rules!(rule $arg);)*)?
                        Ok(())
                    }
                )*
                // The enum is open, its list is not: the macro that makes both names all.
                unknown => Err(Unkeyable::new(format!("an unknown operator: {unknown:?}"))),
            }
        };

        // Numbered anew by first use.
        (rule function_index) => {};
        (rule global_index) => {};
        (rule type_index) => {};
        (rule array_type_index) => {};
        (rule array_type_index_dst) => {};
        (rule array_type_index_src) => {};
        (rule struct_type_index) => {};
        // Hold types, whose references are numbered anew.
        (rule blockty) => {};
        (rule ty) => {};
        (rule tys) => {};
        (rule hty) => {};
        (rule from_ref_type) => {};
        (rule to_ref_type) => {};
        (rule try_table) => {};
        // Make the data count section necessary.
        (rule data_index) => {};
        (rule array_data_index) => {};
        // Keep their numbers: all of their kind stay in their order.
        (rule tag_index) => {};
        (rule table) => {};
        (rule table_index) => {};
        (rule dst_table) => {};
        (rule src_table) => {};
        (rule mem) => {};
        (rule dst_mem) => {};
        (rule src_mem) => {};
        (rule memarg) => {};
        (rule elem_index) => {};
        (rule array_elem_index) => {};
        // Numbers within a body or a type, and values.
        (rule local_index) => {};
        (rule relative_depth) => {};
        (rule targets) => {};
        (rule field_index) => {};
        (rule array_size) => {};
        (rule lane) => {};
        (rule lanes) => {};
        (rule value) => {};
        (rule ordering) => {};
        // Of stack switching, which the validator does not let through.
        (rule cont_type_index) => {};
        (rule argument_index) => {};
        (rule result_index) => {};
        (rule resume_table) => {};
    }
    wasmparser::for_each_operator!(rules)
}

/// Whether an operator of an initializer yields a value and can do nothing else. Arithmetic on
/// integers wraps; operators that are not named here may allocate, and so fail.
/// `ref.func` is not named: it declares its function, and bodies may refer to declared ones alone.
pub(super) const fn is_pure_constant(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        Operator::I32Const { value: _ }
            | Operator::I64Const { value: _ }
            | Operator::F32Const { value: _ }
            | Operator::F64Const { value: _ }
            | Operator::V128Const { value: _ }
            | Operator::RefNull { hty: _ }
            | Operator::RefI31
            | Operator::GlobalGet { global_index: _ }
            | Operator::I32Add
            | Operator::I32Sub
            | Operator::I32Mul
            | Operator::I64Add
            | Operator::I64Sub
            | Operator::I64Mul
            | Operator::End
    )
}
