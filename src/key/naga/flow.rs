//! The statements of a function, without what is never executed and what does nothing.
//!
//! | in the source | here | why it is the same |
//! |---|---|---|
//! | a plain block | its statements | handles need no scopes |
//! | what follows a `return`, `break` or `continue`, or an `if` both of whose branches end so | nothing | it is never executed; after a `discard` it may be |
//! | a `return` without a value at the end | nothing | the function ends there |
//! | an `if` on a literal | the branch that is taken | the other one never is |
//! | an `if` or a `switch` that does nothing | nothing | all neighbours in control flow take it and meet again |
//! | an `if` with an `else` alone | an `if` on the negation | the same branch |
//! | a loop without a `continue`, its `continuing` and its `break if` | one body | there is one way through them |

use naga::valid::FunctionInfo;
use naga::{Block, Expression, Function, Handle, Literal, Module, Range, Statement, SwitchCase};

use super::kept::is_evaluation_kept;
use super::rebase::{Leaf, Shape, shape};

static BREAK: Statement = Statement::Break;

/// The statements of a function.
#[derive(Default)]
pub(super) struct Flow<'f> {
    steps: Vec<Step<'f>>,
    bodies: Vec<Steps>,
    body: Steps,
    /// The functions that it calls, in order.
    calls: Vec<Handle<Function>>,
}

/// Statements that are executed one after the other.
#[derive(Clone, Copy, Default)]
pub(super) struct Steps {
    start: usize,
    end: usize,
}

/// One statement.
#[derive(Clone, Copy)]
pub(super) enum Step<'f> {
    Emit(&'f Range<Expression>),
    If {
        condition: Condition,
        accept: Steps,
        reject: Steps,
    },
    Switch {
        selector: Handle<Expression>,
        cases: &'f [SwitchCase],
        /// The first of the bodies of these cases.
        bodies: usize,
    },
    Loop {
        body: Steps,
        continuing: Steps,
        break_if: Option<Handle<Expression>>,
    },
    Leaf(Leaf<'f>),
}

/// What decides between the branches of an `if`.
#[derive(Clone, Copy)]
pub(super) struct Condition {
    pub(super) of: Handle<Expression>,
    pub(super) is_negated: bool,
}

impl<'f> Flow<'f> {
    /// Reads a function of a validated module.
    pub(super) fn new(module: &'f Module, function: &'f Function, info: &'f FunctionInfo) -> Self {
        let flow = Flow {
            // Nearly all steps evaluate an expression or decide by one.
            steps: Vec::with_capacity(function.expressions.len()),
            ..Flow::default()
        };
        let mut reader = Reader {
            flow,
            module,
            function,
            info,
            pending: Vec::with_capacity(function.body.len()),
            continues: false,
        };
        reader.block(&function.body);
        let body = reader.keep(0);
        reader.flow.body = reader.without_last_return(body);
        reader.flow
    }

    /// The body of the function.
    pub(super) const fn body(&self) -> Steps {
        self.body
    }

    pub(super) fn steps(&self, steps: Steps) -> &[Step<'f>] {
        &self.steps[steps.start..steps.end]
    }

    pub(super) fn case_body(&self, bodies: usize, case: usize) -> Steps {
        self.bodies[bodies + case]
    }

    pub(super) fn calls(&self) -> &[Handle<Function>] {
        &self.calls
    }
}

struct Reader<'f> {
    flow: Flow<'f>,
    module: &'f Module,
    function: &'f Function,
    info: &'f FunctionInfo,
    /// The steps of the blocks that are being read.
    pending: Vec<Step<'f>>,
    /// Whether a `continue` of the loop that is being read was met.
    continues: bool,
}

impl<'f> Reader<'f> {
    /// Reads a block into the steps of the one that is being read, and says whether what follows
    /// it can be executed. Recursion is as deep as blocks nest, which is bounded before this.
    fn block(&mut self, block: &'f Block) -> bool {
        block.iter().all(|statement| self.statement(statement))
    }

    fn statement(&mut self, statement: &'f Statement) -> bool {
        match shape(statement) {
            Shape::Emit(range) => self.pending.push(Step::Emit(range)),
            Shape::Block(inner) => return self.block(inner),
            Shape::If {
                condition,
                accept,
                reject,
            } => match self.constant(condition) {
                Some(true) => return self.block(accept),
                Some(false) => return self.block(reject),
                None => return self.branch(condition, accept, reject),
            },
            Shape::Switch { selector, cases } => {
                let read: Vec<_> = cases.iter().map(|case| self.nested(&case.body).0).collect();
                if read.iter().all(|body| body.start == body.end) {
                    return true;
                }
                let bodies = self.flow.bodies.len();
                self.flow.bodies.extend(read);
                self.pending.push(Step::Switch {
                    selector,
                    cases,
                    bodies,
                });
            }
            Shape::Loop {
                body,
                continuing,
                break_if,
            } => self.repeat(body, continuing, break_if),
            Shape::Leaf(leaf) => {
                self.continues |= leaf.continues();
                self.flow.calls.extend(leaf.callee());
                let goes_on = leaf.discards() || !leaf.leaves();
                self.pending.push(Step::Leaf(leaf));
                return goes_on;
            }
        }
        true
    }

    fn branch(
        &mut self,
        condition: Handle<Expression>,
        accept: &'f Block,
        reject: &'f Block,
    ) -> bool {
        let (accept, accept_ends) = self.nested(accept);
        let (reject, reject_ends) = self.nested(reject);
        let is_negated = accept.start == accept.end;
        if is_negated && reject.start == reject.end {
            return true;
        }
        let (accept, reject) = if is_negated {
            (reject, accept)
        } else {
            (accept, reject)
        };
        self.pending.push(Step::If {
            condition: Condition {
                of: condition,
                is_negated,
            },
            accept,
            reject,
        });
        accept_ends || reject_ends
    }

    fn repeat(
        &mut self,
        body: &'f Block,
        continuing: &'f Block,
        break_if: Option<Handle<Expression>>,
    ) {
        let outer = std::mem::take(&mut self.continues);
        let start = self.pending.len();
        let goes_on = self.block(body);
        let continues = std::mem::replace(&mut self.continues, outer);
        if continues {
            let body = self.keep(start);
            let (continuing, _) = self.nested(continuing);
            self.pending.push(Step::Loop {
                body,
                continuing,
                break_if,
            });
            return;
        }
        if goes_on {
            self.block(continuing);
            let decided = break_if.map(|of| (of, self.constant(of)));
            match decided {
                None | Some((_, Some(false))) => {}
                Some((_, Some(true))) => self.pending.push(Step::Leaf(Leaf::of(&BREAK))),
                Some((of, None)) => {
                    let accept = self.pending.len();
                    self.pending.push(Step::Leaf(Leaf::of(&BREAK)));
                    let accept = self.keep(accept);
                    self.pending.push(Step::If {
                        condition: Condition {
                            of,
                            is_negated: false,
                        },
                        accept,
                        reject: Steps::default(),
                    });
                }
            }
        }
        let body = self.keep(start);
        self.pending.push(Step::Loop {
            body,
            continuing: Steps::default(),
            break_if: None,
        });
    }

    /// Reads a block of its own. One that does nothing is empty.
    fn nested(&mut self, block: &'f Block) -> (Steps, bool) {
        let start = self.pending.len();
        let goes_on = self.block(block);
        if self.is_idle(&self.pending[start..]) {
            self.pending.truncate(start);
        }
        (self.keep(start), goes_on)
    }

    /// Takes a `return` without a value from the end of the body, and from those of the branches
    /// that it ends with. Recursion is as deep as these nest.
    fn without_last_return(&mut self, mut steps: Steps) -> Steps {
        while steps.end > steps.start {
            match self.flow.steps[steps.end - 1] {
                Step::Leaf(leaf) if leaf.is_plain_return() => steps.end -= 1,
                Step::If {
                    condition: Condition { of, is_negated },
                    accept,
                    reject,
                } => {
                    let accept = self.without_last_return(accept);
                    let reject = self.without_last_return(reject);
                    let is_turned = accept.start == accept.end;
                    if is_turned && reject.start == reject.end {
                        steps.end -= 1;
                        continue;
                    }
                    let (accept, reject) = if is_turned {
                        (reject, accept)
                    } else {
                        (accept, reject)
                    };
                    let condition = Condition {
                        of,
                        is_negated: is_negated ^ is_turned,
                    };
                    self.flow.steps[steps.end - 1] = Step::If {
                        condition,
                        accept,
                        reject,
                    };
                    return steps;
                }
                _ => break,
            }
        }
        if self.is_idle(&self.flow.steps[steps.start..steps.end]) {
            steps.end = steps.start;
        }
        steps
    }

    /// Whether steps do nothing.
    fn is_idle(&self, steps: &[Step<'_>]) -> bool {
        steps.iter().all(|step| match step {
            Step::Emit(range) => (*range)
                .clone()
                .all(|handle| !is_evaluation_kept(self.module, self.function, self.info, handle)),
            _ => false,
        })
    }

    /// Ends a block whose steps stand from a place on.
    fn keep(&mut self, start: usize) -> Steps {
        let first = self.flow.steps.len();
        self.flow.steps.extend(self.pending.drain(start..));
        Steps {
            start: first,
            end: self.flow.steps.len(),
        }
    }

    /// The literal that a condition is.
    fn constant(&self, condition: Handle<Expression>) -> Option<bool> {
        let literal = match self.function.expressions[condition] {
            Expression::Constant(constant) => {
                let init = self.module.constants[constant].init;
                &self.module.global_expressions[init]
            }
            ref other => other,
        };
        match *literal {
            Expression::Literal(Literal::Bool(value)) => Some(value),
            _ => None,
        }
    }
}
