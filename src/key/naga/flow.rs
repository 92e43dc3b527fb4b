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
use super::timing::timing;

static BREAK: Statement = Statement::Break;

/// The statements of the functions of a module that are read.
pub(super) struct Flows<'f> {
    module: &'f Module,
    steps: Vec<Step<'f>>,
    bodies: Vec<Run>,
    /// What is evaluated where it stands, by the steps that say so.
    evaluated: Vec<Handle<Expression>>,
    /// The functions that are called, in order.
    calls: Vec<Handle<Function>>,
    /// The steps of the blocks that are being read.
    pending: Vec<Step<'f>>,
}

/// The statements of a function.
#[derive(Clone, Copy)]
pub(super) struct Flow {
    /// The steps of its body.
    pub(super) body: Run,
    /// The functions that it calls.
    pub(super) calls: Run,
}

/// Neighbours in a list. As steps, they are executed one after the other.
#[derive(Clone, Copy, Default)]
pub(super) struct Run {
    start: u32,
    end: u32,
}

impl Run {
    /// What a list holds from a place on. Memory holds fewer statements than `u32` does.
    fn new<T>(list: &[T], start: usize) -> Self {
        Self {
            start: start as u32,
            end: list.len() as u32,
        }
    }

    const fn is_empty(self) -> bool {
        self.start == self.end
    }

    fn of<T>(self, list: &[T]) -> &[T] {
        &list[self.start as usize..self.end as usize]
    }
}

/// One statement.
#[derive(Clone, Copy)]
pub(super) enum Step<'f> {
    Emit {
        range: &'f Range<Expression>,
        /// What of it is evaluated where it stands.
        evaluated: Run,
    },
    If {
        condition: Condition,
        accept: Run,
        reject: Run,
    },
    Switch {
        selector: Handle<Expression>,
        cases: &'f [SwitchCase],
        /// The first of the bodies of these cases.
        bodies: u32,
    },
    Loop {
        body: Run,
        continuing: Run,
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

/// Room for the statements of the blocks around most statements.
const PENDING: usize = 64;

impl<'f> Flows<'f> {
    pub(super) fn new(module: &'f Module) -> Self {
        let functions = module.functions.iter().map(|(_, function)| function);
        let mains = module.entry_points.iter().map(|entry| &entry.function);
        let lengths = functions.chain(mains).map(|it| it.expressions.len());
        // Most statements come with an expression or more.
        let expressions: usize = lengths.sum();
        Self {
            module,
            steps: Vec::with_capacity(expressions),
            bodies: Vec::new(),
            evaluated: Vec::with_capacity(expressions / 4),
            calls: Vec::with_capacity(module.functions.len()),
            pending: Vec::with_capacity(PENDING),
        }
    }

    /// Reads a function of a validated module.
    pub(super) fn read(&mut self, function: &'f Function, info: &'f FunctionInfo) -> Flow {
        let calls = self.calls.len();
        let mut reader = Reader {
            flows: self,
            function,
            info,
            continues: false,
        };
        reader.block(&function.body);
        let body = reader.keep(0);
        Flow {
            body: reader.without_last_return(body),
            calls: Run::new(&self.calls, calls),
        }
    }

    pub(super) fn steps(&self, steps: Run) -> &[Step<'f>] {
        steps.of(&self.steps)
    }

    pub(super) fn case_body(&self, bodies: u32, case: usize) -> Run {
        self.bodies[bodies as usize + case]
    }

    /// What is evaluated where it stands.
    pub(super) fn evaluated(&self, evaluated: Run) -> &[Handle<Expression>] {
        evaluated.of(&self.evaluated)
    }

    /// Takes the first of the functions that are called.
    pub(super) fn next_call(&self, calls: &mut Run) -> Option<Handle<Function>> {
        let next = *calls.of(&self.calls).first()?;
        calls.start += 1;
        Some(next)
    }
}

struct Reader<'r, 'f> {
    flows: &'r mut Flows<'f>,
    function: &'f Function,
    info: &'f FunctionInfo,
    /// Whether a `continue` of the loop that is being read was met.
    continues: bool,
}

impl<'f> Reader<'_, 'f> {
    /// Reads a block into the steps of the one that is being read, and says whether what follows
    /// it can be executed. Recursion is as deep as blocks nest, which is bounded before this.
    fn block(&mut self, block: &'f Block) -> bool {
        block.iter().all(|statement| self.statement(statement))
    }

    fn statement(&mut self, statement: &'f Statement) -> bool {
        match shape(statement) {
            Shape::Emit(range) => self.emit(range),
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
                let Some(bodies) = self.cases(cases) else {
                    return true;
                };
                self.flows.pending.push(Step::Switch {
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
                self.flows.calls.extend(leaf.callee());
                let goes_on = leaf.discards() || !leaf.leaves();
                self.flows.pending.push(Step::Leaf(leaf));
                return goes_on;
            }
        }
        true
    }

    /// Pure expressions are evaluated where they are needed.
    fn emit(&mut self, range: &'f Range<Expression>) {
        let evaluated = &mut self.flows.evaluated;
        let start = evaluated.len();
        for handle in range.clone() {
            if timing(&self.function.expressions[handle]).is_anchored() {
                evaluated.push(handle);
            }
        }
        let evaluated = Run::new(evaluated, start);
        self.flows.pending.push(Step::Emit { range, evaluated });
    }

    /// The bodies of the cases of a `switch`, if any of them does anything.
    fn cases(&mut self, cases: &'f [SwitchCase]) -> Option<u32> {
        let start = self.flows.bodies.len();
        // Those of switches that are nested in it come between.
        let none = std::iter::repeat_n(Run::default(), cases.len());
        self.flows.bodies.extend(none);
        let mut is_idle = true;
        for (number, case) in cases.iter().enumerate() {
            let (body, _) = self.nested(&case.body);
            is_idle &= body.is_empty();
            self.flows.bodies[start + number] = body;
        }
        (!is_idle).then_some(start as u32)
    }

    fn branch(
        &mut self,
        condition: Handle<Expression>,
        accept: &'f Block,
        reject: &'f Block,
    ) -> bool {
        let (accept, accept_ends) = self.nested(accept);
        let (reject, reject_ends) = self.nested(reject);
        let is_negated = accept.is_empty();
        if is_negated && reject.is_empty() {
            return true;
        }
        let (accept, reject) = if is_negated {
            (reject, accept)
        } else {
            (accept, reject)
        };
        self.flows.pending.push(Step::If {
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
        let start = self.flows.pending.len();
        let goes_on = self.block(body);
        let continues = std::mem::replace(&mut self.continues, outer);
        if continues {
            let body = self.keep(start);
            let continuing = match break_if {
                None => self.nested(continuing).0,
                // What it evaluates is used by the condition, and nowhere else is it read in time.
                Some(_) => {
                    let start = self.flows.pending.len();
                    self.block(continuing);
                    self.keep(start)
                }
            };
            self.flows.pending.push(Step::Loop {
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
                Some((_, Some(true))) => self.flows.pending.push(Step::Leaf(Leaf::of(&BREAK))),
                Some((of, None)) => {
                    let accept = self.flows.pending.len();
                    self.flows.pending.push(Step::Leaf(Leaf::of(&BREAK)));
                    let accept = self.keep(accept);
                    self.flows.pending.push(Step::If {
                        condition: Condition {
                            of,
                            is_negated: false,
                        },
                        accept,
                        reject: Run::default(),
                    });
                }
            }
        }
        let body = self.keep(start);
        self.flows.pending.push(Step::Loop {
            body,
            continuing: Run::default(),
            break_if: None,
        });
    }

    /// Reads a block of its own. One that does nothing is empty.
    fn nested(&mut self, block: &'f Block) -> (Run, bool) {
        let start = self.flows.pending.len();
        let goes_on = self.block(block);
        if self.is_idle(&self.flows.pending[start..]) {
            self.flows.pending.truncate(start);
        }
        (self.keep(start), goes_on)
    }

    /// Takes a `return` without a value from the end of the body, and from those of the branches
    /// that it ends with. Recursion is as deep as these nest.
    fn without_last_return(&mut self, mut steps: Run) -> Run {
        while steps.end > steps.start {
            match self.flows.steps[steps.end as usize - 1] {
                Step::Leaf(leaf) if leaf.is_plain_return() => steps.end -= 1,
                Step::If {
                    condition: Condition { of, is_negated },
                    accept,
                    reject,
                } => {
                    let accept = self.without_last_return(accept);
                    let reject = self.without_last_return(reject);
                    let is_turned = accept.is_empty();
                    if is_turned && reject.is_empty() {
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
                    self.flows.steps[steps.end as usize - 1] = Step::If {
                        condition,
                        accept,
                        reject,
                    };
                    return steps;
                }
                _ => break,
            }
        }
        if self.is_idle(self.flows.steps(steps)) {
            steps.end = steps.start;
        }
        steps
    }

    /// Whether steps do nothing.
    fn is_idle(&self, steps: &[Step<'_>]) -> bool {
        steps.iter().all(|step| match step {
            Step::Emit {
                range: _,
                evaluated,
            } => {
                let mut evaluated = self.flows.evaluated(*evaluated).iter();
                let module = self.flows.module;
                evaluated
                    .all(|handle| !is_evaluation_kept(module, self.function, self.info, *handle))
            }
            _ => false,
        })
    }

    /// Ends a block whose steps stand from a place on.
    fn keep(&mut self, start: usize) -> Run {
        let flows = &mut *self.flows;
        let first = flows.steps.len();
        flows.steps.extend_from_slice(&flows.pending[start..]);
        flows.pending.truncate(start);
        Run::new(&flows.steps, first)
    }

    /// The literal that a condition is.
    fn constant(&self, condition: Handle<Expression>) -> Option<bool> {
        let literal = match self.function.expressions[condition] {
            Expression::Constant(constant) => {
                let init = self.flows.module.constants[constant].init;
                &self.flows.module.global_expressions[init]
            }
            ref other => other,
        };
        match *literal {
            Expression::Literal(Literal::Bool(value)) => Some(value),
            _ => None,
        }
    }
}
