//! Every immediate of every operator counts in the key of a module.
//!
//! The parser's own list of operators is walked. Each operator is put into a module with all
//! combinations of a few values for its immediates; those that are valid must all have keys of
//! their own, and every immediate must have been seen to matter, or stand on a list with the
//! reason. A new operator, or a new kind of immediate, fails to compile or fails the test.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use pipeline_cache::key::wasm::WasmModule;
use pipeline_cache::{PipelineFingerprint, Unkeyable};
use wasm_encoder::reencode::{Reencode, RoundtripReencoder};
use wasm_encoder::{CodeSection, Encode as _, Module, RawSection};
use wasmparser::{
    AbstractHeapType, BinaryReader, BlockType, BrTable, Catch, HeapType, Ieee32, Ieee64, MemArg,
    MemArgTarget, Operator, OperatorsReader, Ordering, Parser, Payload, RefType, ResumeTable,
    TryTable, UnpackedIndex, V128, ValType,
};

/// Two or more of everything that an immediate can name, all of them different.
const SURROUNDINGS: &str = r#"(module
    (type (func)) (type (func (param i32))) (type (func (result i32)))
    (type (struct (field (mut i32)) (field (mut i8)) (field (mut i16)) (field (mut i8))
        (field (mut i32))))
    (type (struct (field (mut i32)) (field (mut i16)) (field (mut i8))))
    (type (array (mut i8))) (type (array (mut i16)))
    (type (array (mut funcref))) (type (sub (array (mut funcref))))
    (memory 1) (memory 2)
    (table 1 funcref) (table 2 funcref)
    (global (mut i32) (i32.const 1)) (global (mut i32) (i32.const 2))
    (tag) (tag) (tag (param i32))
    (elem funcref (ref.func 0)) (elem funcref (ref.func 1) (ref.func 1))
    (data "a") (data "b")
    (elem declare func 0 1)
    (func nop) (func (param i32) nop) (func (export "d") data.drop 0)
    (func (export "f") (local i32 i64 anyref) unreachable))"#;

const TYPES: std::ops::Range<u32> = 0..9;

/// Around the operator, from the outside: every kind of label.
const LABELS: &[BlockType] = &[
    BlockType::Type(ValType::Ref(RefType::EXNREF)),
    BlockType::Type(ValType::I32),
    BlockType::Type(ValType::FUNCREF),
    BlockType::Type(ValType::Ref(RefType::ANYREF)),
    BlockType::Type(ValType::Ref(RefType::ANYREF)),
    BlockType::Empty,
    BlockType::Empty,
];

/// And around these, the catch parts of two legacy `try`.
const CATCHES: usize = 2;

/// Values to try for one kind of immediate.
trait Choices: Sized {
    fn choices(name: &str) -> Vec<Self>;
}

impl Choices for u32 {
    fn choices(name: &str) -> Vec<Self> {
        let range = match name {
            "relative_depth" => 0..(LABELS.len() + CATCHES) as Self,
            "type_index"
            | "struct_type_index"
            | "array_type_index"
            | "array_type_index_dst"
            | "array_type_index_src" => TYPES,
            "tag_index" | "local_index" => 0..3,
            "field_index" => 0..5,
            "function_index" | "global_index" | "table" | "table_index" | "dst_table"
            | "src_table" | "mem" | "dst_mem" | "src_mem" | "data_index" | "array_data_index"
            | "elem_index" | "array_elem_index" | "array_size" => 0..2,
            // Of stack switching, which the validator does not let through.
            "cont_type_index" | "argument_index" | "result_index" => 0..1,
            unknown => panic!("an immediate that the test does not know: {unknown}"),
        };
        range.collect()
    }
}

impl Choices for u8 {
    fn choices(name: &str) -> Vec<Self> {
        assert_eq!(name, "lane");
        vec![0, 1]
    }
}

impl Choices for i32 {
    fn choices(_: &str) -> Vec<Self> {
        let bits = (0..32).map(|bit| 1 << bit);
        bits.chain([0, -1, 63, -65, Self::MIN + 1]).collect()
    }
}

impl Choices for i64 {
    fn choices(_: &str) -> Vec<Self> {
        let bits = (0..64).map(|bit| 1 << bit);
        bits.chain([0, -1, 63, -65, Self::MIN + 1]).collect()
    }
}

impl Choices for Ieee32 {
    fn choices(_: &str) -> Vec<Self> {
        let nans = [0x7f80_0001, 0x7fc0_0000, 0xffc0_0000, 0x7f80_0000, 0];
        let bits = (0..32).map(|bit| 1 << bit);
        bits.chain(nans)
            .map(
                |bits| match read([&[0x43][..], &u32::to_le_bytes(bits)].concat()) {
                    Operator::F32Const { value } => value,
                    other => panic!("{other:?}"),
                },
            )
            .collect()
    }
}

impl Choices for Ieee64 {
    fn choices(_: &str) -> Vec<Self> {
        let nans = [0x7ff0_0000_0000_0001, 0x7ff8_0000_0000_0000, 0];
        let bits = (0..64).map(|bit| 1 << bit);
        bits.chain(nans)
            .map(
                |bits| match read([&[0x44][..], &u64::to_le_bytes(bits)].concat()) {
                    Operator::F64Const { value } => value,
                    other => panic!("{other:?}"),
                },
            )
            .collect()
    }
}

impl Choices for V128 {
    fn choices(_: &str) -> Vec<Self> {
        let bits = (0..128).map(|bit| 1_u128 << bit);
        bits.chain([0])
            .map(
                |bits| match read([&[0xfd, 0x0c][..], &bits.to_le_bytes()].concat()) {
                    Operator::V128Const { value } => value,
                    other => panic!("{other:?}"),
                },
            )
            .collect()
    }
}

impl Choices for [u8; 16] {
    fn choices(_: &str) -> Vec<Self> {
        let changed = (0..16).map(|lane| std::array::from_fn(|at| u8::from(at == lane)));
        changed.chain([[0; 16]]).collect()
    }
}

impl Choices for MemArg {
    fn choices(_: &str) -> Vec<Self> {
        let mut choices = Vec::new();
        for align in 0..5 {
            for offset in [0, 1, 64, 0xffff_ffff] {
                for memory in 0..2 {
                    choices.push(Self {
                        align,
                        // The binary format does not hold it: the operator says it.
                        max_align: 0,
                        offset,
                        target: MemArgTarget::Memory(memory),
                        // Of acquire-release atomics, which the validator does not let through.
                        ordering: None,
                    });
                }
            }
        }
        choices
    }
}

impl Choices for BrTable<'static> {
    fn choices(_: &str) -> Vec<Self> {
        // The labels that carry nothing.
        let tables: [&[u8]; 7] = [&[0], &[1], &[0, 0], &[0, 1], &[1, 0], &[0, 0, 0], &[7, 8]];
        tables
            .iter()
            .map(
                |labels| match read([&[0x0e, labels.len() as u8 - 1][..], labels].concat()) {
                    Operator::BrTable { targets } => targets,
                    other => panic!("{other:?}"),
                },
            )
            .collect()
    }
}

impl Choices for TryTable {
    fn choices(_: &str) -> Vec<Self> {
        let mut catches = vec![vec![]];
        for label in 0..(LABELS.len() + CATCHES) as u32 {
            catches.push(vec![Catch::All { label }]);
            catches.push(vec![Catch::AllRef { label }]);
            for tag in 0..3 {
                catches.push(vec![Catch::One { tag, label }]);
                catches.push(vec![Catch::OneRef { tag, label }]);
            }
        }
        let (one, all) = (Catch::One { tag: 0, label: 0 }, Catch::All { label: 0 });
        catches.extend([vec![one, all], vec![all, one], vec![all, all]]);
        let mut choices = Vec::new();
        for ty in [BlockType::Empty, BlockType::Type(ValType::I32)] {
            choices.extend(catches.iter().map(|catches| Self {
                ty,
                catches: catches.clone(),
            }));
        }
        choices
    }
}

impl Choices for ResumeTable {
    fn choices(_: &str) -> Vec<Self> {
        let handlers = Vec::new();
        vec![Self { handlers }]
    }
}

impl Choices for Ordering {
    fn choices(_: &str) -> Vec<Self> {
        vec![Self::AcqRel, Self::SeqCst]
    }
}

impl Choices for BlockType {
    fn choices(name: &str) -> Vec<Self> {
        let types = ValType::choices(name).into_iter().map(Self::Type);
        types
            .chain([Self::Empty])
            .chain(TYPES.map(Self::FuncType))
            .collect()
    }
}

impl Choices for ValType {
    fn choices(name: &str) -> Vec<Self> {
        let references = RefType::choices(name).into_iter().map(Self::Ref);
        [Self::I32, Self::I64, Self::F32, Self::F64, Self::V128]
            .into_iter()
            .chain(references)
            .collect()
    }
}

impl Choices for Vec<ValType> {
    fn choices(_: &str) -> Vec<Self> {
        vec![vec![], vec![ValType::I32; 2]]
    }
}

impl Choices for RefType {
    fn choices(name: &str) -> Vec<Self> {
        let heap_types = HeapType::choices(name).into_iter();
        let few = match name {
            // Two of these stand in one operator.
            "from_ref_type" | "to_ref_type" => 5,
            _ => usize::MAX,
        };
        heap_types
            .take(few)
            .flat_map(|ty| [Self::new(true, ty), Self::new(false, ty)])
            .flatten()
            .collect()
    }
}

impl Choices for HeapType {
    fn choices(_: &str) -> Vec<Self> {
        use AbstractHeapType::{
            Any, Array, Cont, Eq, Exn, Extern, Func, I31, NoCont, NoExn, NoExtern, NoFunc, None,
            Struct,
        };
        let types = [
            Any, Eq, Struct, I31, Func, Extern, None, NoExtern, NoFunc, Array, Exn, NoExn, Cont,
            NoCont,
        ];
        let abstracts = types.map(|ty| Self::Abstract { shared: false, ty });
        let concrete = TYPES.map(|ty| Self::Concrete(UnpackedIndex::Module(ty)));
        abstracts.into_iter().chain(concrete).collect()
    }
}

/// The one operator of these bytes, which are left behind for the rest of the test.
fn read(bytes: Vec<u8>) -> Operator<'static> {
    let reader = BinaryReader::new(bytes.leak(), 0);
    OperatorsReader::new(reader).read().unwrap()
}

/// The module of which one body is still to be written.
struct Surroundings {
    before: Vec<(u8, Vec<u8>)>,
    bodies: Vec<Vec<u8>>,
    after: Vec<(u8, Vec<u8>)>,
}

impl Surroundings {
    fn new() -> Self {
        let bytes = wat::parse_str(SURROUNDINGS).unwrap();
        let (mut before, mut bodies, mut after) = (Vec::new(), Vec::new(), Vec::new());
        for payload in Parser::new(0).parse_all(&bytes) {
            let payload = payload.unwrap();
            if let Payload::CodeSectionEntry(body) = &payload {
                bodies.push(body.as_bytes().to_vec());
            } else if let Some((id, range)) = payload.as_section() {
                let section = bytes[range.start as usize..range.end as usize].to_vec();
                match id {
                    10 => {}
                    11 => after.push((id, section)),
                    _ => before.push((id, section)),
                }
            }
        }
        Self {
            before,
            bodies,
            after,
        }
    }

    /// A module whose last function does this.
    fn module(&self, operators: &[u8]) -> Vec<u8> {
        let mut code = CodeSection::new();
        let (last, others) = self.bodies.split_last().unwrap();
        for body in others {
            code.raw(body);
        }
        // Its locals stay, its `unreachable` and `end` go.
        code.raw(&[&last[..last.len() - 2], operators].concat());
        let mut module = Module::new();
        for &(id, ref data) in &self.before {
            module.section(&RawSection { id, data });
        }
        module.section(&code);
        for &(id, ref data) in &self.after {
            module.section(&RawSection { id, data });
        }
        module.finish()
    }
}

/// A body that holds the operator where every type of operand is to be had: in dead code.
fn body(operator: &Operator<'_>) -> Option<Vec<u8>> {
    let (unreachable, nop) = (Operator::Unreachable, Operator::Nop);
    let otherwise = Operator::Else;
    let (empty, end) = (BlockType::Empty, Operator::End);
    let (block, condition) = (
        Operator::Block { blockty: empty },
        Operator::If { blockty: empty },
    );
    let legacy_try = Operator::Try { blockty: empty };
    let middle: Vec<&Operator<'_>> = match operator {
        Operator::Block { blockty: _ }
        | Operator::Loop { blockty: _ }
        | Operator::Try { blockty: _ }
        | Operator::TryTable { try_table: _ } => vec![operator, &unreachable, &end],
        Operator::If { blockty: _ } => {
            vec![operator, &unreachable, &otherwise, &unreachable, &end]
        }
        Operator::End => vec![&block, &block, &unreachable, operator, &unreachable, &end],
        Operator::Else => vec![&condition, &nop, operator, &unreachable, &end],
        Operator::Catch { tag_index: _ } | Operator::CatchAll => {
            vec![&legacy_try, operator, &unreachable, &end]
        }
        Operator::Delegate { relative_depth: _ } => vec![&legacy_try, operator],
        _ => vec![operator],
    };
    let mut operators = Vec::new();
    for _ in 0..CATCHES {
        operators.extend([Operator::Try { blockty: empty }, Operator::CatchAll]);
    }
    operators.extend(LABELS.iter().map(|&blockty| Operator::Block { blockty }));
    operators.push(Operator::Unreachable);
    operators.extend(middle.into_iter().cloned());
    for _ in 0..LABELS.len() + CATCHES {
        operators.extend([Operator::Unreachable, Operator::End]);
    }
    operators.push(Operator::End);
    let mut bytes = Vec::new();
    for operator in operators {
        let instruction = RoundtripReencoder.instruction(operator).ok()?;
        instruction.encode(&mut bytes);
    }
    Some(bytes)
}

/// All that is known of one operator: the choices that are valid, and their keys.
struct Tried {
    operator: &'static str,
    proposal: &'static str,
    immediates: &'static [&'static str],
    valid: Vec<(Vec<usize>, PipelineFingerprint)>,
}

impl Tried {
    /// Whether two valid modules that differ in this immediate alone have two keys.
    fn matters(&self, immediate: usize) -> bool {
        let mut others = BTreeMap::<Vec<usize>, BTreeSet<PipelineFingerprint>>::new();
        for (choice, key) in &self.valid {
            let mut others_chosen = choice.clone();
            others_chosen.remove(immediate);
            others.entry(others_chosen).or_default().insert(*key);
        }
        others.values().any(|keys| keys.len() > 1)
    }
}

/// What an operator is, but for the two spellings that the rules unify.
fn meaning(operator: &Operator<'_>) -> String {
    let shorthand = |ty: &BlockType| match ty {
        BlockType::FuncType(0) => BlockType::Empty,
        BlockType::FuncType(2) => BlockType::Type(ValType::I32),
        BlockType::Empty | BlockType::Type(_) | BlockType::FuncType(_) => *ty,
    };
    let unified = match operator {
        Operator::Block { blockty } => Operator::Block {
            blockty: shorthand(blockty),
        },
        Operator::Loop { blockty } => Operator::Loop {
            blockty: shorthand(blockty),
        },
        Operator::If { blockty } => Operator::If {
            blockty: shorthand(blockty),
        },
        Operator::Try { blockty } => Operator::Try {
            blockty: shorthand(blockty),
        },
        other => other.clone(),
    };
    format!("{unified:?}")
}

fn key(module: Vec<u8>) -> Result<PipelineFingerprint, Unkeyable> {
    PipelineFingerprint::of(&WasmModule::new(module))
}

/// What has been tried, and what each key stands for.
struct Search {
    surroundings: Surroundings,
    tried: Vec<Tried>,
    meanings: HashMap<PipelineFingerprint, BTreeSet<String>>,
}

impl Search {
    /// Tries an operator with all choices of its immediates, each by its number.
    fn operator(
        &mut self,
        [operator, proposal]: [&'static str; 2],
        immediates: &'static [&'static str],
        choices: &[usize],
        make: &dyn Fn(&mut dyn Iterator<Item = usize>) -> Operator<'static>,
    ) {
        let mut valid = Vec::new();
        for number in 0..choices.iter().product() {
            let mut rest: usize = number;
            let choice: Vec<usize> = choices
                .iter()
                .map(|choices| {
                    let chosen = rest % choices;
                    rest /= choices;
                    chosen
                })
                .collect();
            let operator = make(&mut choice.iter().copied());
            let Some(body) = body(&operator) else {
                continue;
            };
            let Ok(key) = key(self.surroundings.module(&body)) else {
                continue;
            };
            self.meanings
                .entry(key)
                .or_default()
                .insert(meaning(&operator));
            valid.push((choice, key));
        }
        self.tried.push(Tried {
            operator,
            proposal,
            immediates,
            valid,
        });
    }
}

fn pick<T: Clone>(choices: &[T], chosen: &mut dyn Iterator<Item = usize>) -> T {
    choices[chosen.next().unwrap()].clone()
}

/// Tries all operators of the parser's list.
fn search() -> Search {
    let mut search = Search {
        surroundings: Surroundings::new(),
        tried: Vec::new(),
        meanings: HashMap::new(),
    };
    macro_rules! operators {
        ($( @$proposal:ident $op:ident $({ $($arg:ident: $ty:ty),* })? => $visit:ident ($($ann:tt)*))*) => {$(
            // A function each, which keeps the compiler quick.
            fn $visit(search: &mut Search) {
                $($(let $arg: Vec<_> = Choices::choices(stringify!($arg));)*)?
                search.operator(
                    [stringify!($op), stringify!($proposal)],
                    &[$($(stringify!($arg)),*)?],
                    &[$($($arg.len()),*)?],
                    &|_chosen| Operator::$op $({ $($arg: pick(&$arg, _chosen)),* })?,
                );
            }
            $visit(&mut search);
        )*};
    }
    wasmparser::for_each_operator!(operators);
    search
}

/// Proposals whose operators have no key, as `Unkeyable` says.
const UNKEYED: &[&str] = &[
    "shared_everything_threads",
    "stack_switching",
    "memory_control",
    "custom_descriptors",
    "acquire_release_atomics",
    "multibyte_array_access",
];

/// Operators of other proposals without a valid form.
const NEVER_VALID: &[(&str, &str)] = &[(
    "TypedSelectMulti",
    "a `select` of several types is in no proposal that can be validated",
)];

/// Immediates that could not be varied on their own.
const ALONE: &[(&str, &str, &str)] = &[(
    "AtomicFence",
    "ordering",
    "there is one, but for acquire-release atomics",
)];

#[test]
fn every_immediate_of_every_operator_counts() {
    assert!(key(Surroundings::new().module(&body(&Operator::Nop).unwrap())).is_ok());
    let Search {
        tried, meanings, ..
    } = search();
    for (key, meanings) in &meanings {
        assert_eq!(meanings.len(), 1, "{key}: {meanings:?}");
    }
    let (mut operators, mut immediates, mut wrong) = (0, 0, Vec::new());
    for tried in &tried {
        let operator = tried.operator;
        let unkeyed = UNKEYED.contains(&tried.proposal)
            || NEVER_VALID.iter().any(|(name, _)| *name == operator);
        if tried.valid.is_empty() != unkeyed {
            wrong.push(format!("{operator} of {}: {unkeyed}", tried.proposal));
        }
        if unkeyed {
            continue;
        }
        operators += 1;
        for (place, immediate) in tried.immediates.iter().enumerate() {
            let excused = ALONE
                .iter()
                .any(|(name, field, _)| (*name, *field) == (operator, *immediate));
            if tried.matters(place) == excused {
                wrong.push(format!("{operator}: {immediate}"));
            }
            immediates += 1;
        }
    }
    let modules: usize = tried.iter().map(|tried| tried.valid.len()).sum();
    println!(
        "{} operators, {operators} with a key; {immediates} immediates; {modules} modules, {} keys",
        tried.len(),
        meanings.len()
    );
    assert!(wrong.is_empty(), "{wrong:#?}");
}
