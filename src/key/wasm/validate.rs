//! Validation of function bodies: nearly all the work there is.
//!
//! While a body is validated, the operators that may have to be written anew are noted down. All
//! bytes between them are copied as they are.
//!
//! Bodies are valid or not each for itself, so those of a large module are shared out among a few
//! threads, which end before the validation does. What is found does not depend on how many.

use std::iter::Enumerate;
use std::num::NonZero;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::{panic, thread, vec};

use wasmparser::{
    FuncToValidate, FuncValidatorAllocations, FunctionBody, ValidatorResources, WasmFeatures,
};

use super::{Unkeyable, invalid, verbatim};

/// Bytes of bodies that are handed to a thread at a time: two milliseconds of work or so, against
/// the twentieth of one that it takes to start a thread.
const SHARE: usize = 256 * 1024;

/// The most threads that work on a module, the caller's among them.
const MOST_THREADS: usize = 8;

/// The body of a function: its locals and then its operators.
#[derive(Debug)]
pub(super) struct Body<'a> {
    pub(super) body: FunctionBody<'a>,
    /// The operators, from the start of the module.
    pub(super) operators: Range<usize>,
    /// Those of [`Validated::patches`] that lie in it.
    pub(super) patches: Range<usize>,
}

/// Valid bodies.
#[derive(Debug, Default)]
pub(super) struct Validated<'a> {
    pub(super) bodies: Vec<Body<'a>>,
    /// Where the operators start that are written anew, in order.
    pub(super) patches: Vec<u32>,
}

impl Validated<'_> {
    fn append(&mut self, mut other: Self) {
        let patches = self.patches.len();
        for body in &mut other.bodies {
            body.patches.start += patches;
            body.patches.end += patches;
        }
        if self.bodies.is_empty() {
            *self = other;
        } else {
            self.bodies.append(&mut other.bodies);
            self.patches.append(&mut other.patches);
        }
    }
}

type Function<'a> = (FuncToValidate<ValidatorResources>, FunctionBody<'a>);

/// Bodies that wait for their validation, in shares.
#[derive(Debug, Default)]
pub(super) struct Pending<'a> {
    shares: Vec<Vec<Function<'a>>>,
    /// Bytes of the last share.
    last: usize,
}

impl<'a> Pending<'a> {
    pub(super) fn push(
        &mut self,
        function: FuncToValidate<ValidatorResources>,
        body: FunctionBody<'a>,
    ) {
        let length = body.as_bytes().len();
        match self.shares.last_mut() {
            Some(share) if self.last + length <= SHARE => {
                self.last += length;
                share.push((function, body));
            }
            Some(_) | None => {
                self.last = length;
                self.shares.push(vec![(function, body)]);
            }
        }
    }

    /// Validates the bodies of a module of these bytes.
    pub(super) fn validate(
        self,
        bytes: &[u8],
        features: WasmFeatures,
    ) -> Result<Validated<'a>, Unkeyable> {
        let helpers = match self.shares.len() {
            0 | 1 => 0,
            shares => {
                let threads = thread::available_parallelism().map_or(1, NonZero::get);
                threads.min(shares).min(MOST_THREADS) - 1
            }
        };
        let queue = Mutex::new(self.shares.into_iter().enumerate());
        let mut shares = thread::scope(|scope| {
            // A thread that cannot be started leaves its work to the others.
            let helpers: Vec<_> = (0..helpers)
                .map_while(|_| {
                    thread::Builder::new()
                        .spawn_scoped(scope, || work(&queue, bytes, features))
                        .ok()
                })
                .collect();
            let mut shares = work(&queue, bytes, features);
            for helper in helpers {
                match helper.join() {
                    Ok(others) => shares.extend(others),
                    Err(panicked) => panic::resume_unwind(panicked),
                }
            }
            shares
        });
        shares.sort_unstable_by_key(|&(place, _)| place);
        let mut validated = Validated::default();
        for (_, share) in shares {
            validated.append(share.map_err(invalid)?);
        }
        Ok(validated)
    }
}

type Queue<'a> = Mutex<Enumerate<vec::IntoIter<Vec<Function<'a>>>>>;

/// Takes shares until none is left.
fn work<'a>(
    queue: &Queue<'a>,
    bytes: &[u8],
    features: WasmFeatures,
) -> Vec<(usize, wasmparser::Result<Validated<'a>>)> {
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let mut allocations = FuncValidatorAllocations::default();
    let mut done = Vec::new();
    while let Some((place, share)) = next() {
        let mut validated = Validated::default();
        let mut result = Ok(());
        for (function, body) in share {
            match validated.add(function, body, bytes, features, allocations) {
                Ok(unused) => allocations = unused,
                Err(error) => {
                    result = Err(error);
                    allocations = FuncValidatorAllocations::default();
                    break;
                }
            }
        }
        done.push((place, result.map(|()| validated)));
    }
    done
}

impl<'a> Validated<'a> {
    fn add(
        &mut self,
        function: FuncToValidate<ValidatorResources>,
        body: FunctionBody<'a>,
        bytes: &[u8],
        features: WasmFeatures,
        allocations: FuncValidatorAllocations,
    ) -> wasmparser::Result<FuncValidatorAllocations> {
        let mut validator = function.into_validator(allocations);
        let mut reader = body.get_binary_reader();
        validator.read_locals(&mut reader)?;
        reader.set_features(features);
        let first = self.patches.len();
        let start = reader.original_position() as usize;
        let mut position = start;
        while !reader.eof() {
            reader.visit_operator(&mut validator.visitor(position as u64))??;
            let end = reader.original_position() as usize;
            if !verbatim::is_operator(&bytes[position..end]) {
                self.patches.push(position as u32);
            }
            position = end;
        }
        reader.finish_expression(&validator.visitor(position as u64))?;
        self.bodies.push(Body {
            body,
            operators: start..position,
            patches: first..self.patches.len(),
        });
        Ok(validator.into_allocations())
    }
}
