//! The Cranelift emitter: every verified nest, on every host Cranelift supports, 128 bits at a
//! time.
//!
//! A vector loop becomes groups of four lanes and single lanes for the rest; unrolled loops are
//! expanded; register tiles become SSA variables; every other loop stays a loop. Each float
//! operation becomes the instruction of the same rounding, so the bits are those of the
//! interpreter. The emitter does not reorder, contract or skip an operation.
//!
//! By the rules the nest satisfies, loads and stores cannot trap (V4), lanes are independent (V7)
//! and register tiles have fixed addresses (V9). The code trusts its caller for the lengths of
//! buffers.

#![deny(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
#![deny(clippy::cast_possible_wrap, clippy::cast_sign_loss)]

mod address;
mod control;
mod expr;
mod fold;
mod micro;
mod softfma;
mod tile;

use rustc_hash::FxHashMap as HashMap;
use smallvec::SmallVec;
use std::sync::Arc;

use convgen_ir::PaddingMode;
use convgen_ir::bounds;
use convgen_ir::nest::{
    Affine, AxisId, BufferId, LocalId, Loop, Mode, Nest, Role, Stmt, visit_accesses, visit_pads,
};
use convgen_ir::verify::VerifiedNest;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{
    AbiParam, Function, InstBuilder, MemFlagsData, Signature, StackSlot, Type, UserFuncName, Value,
    types,
};
use cranelift_codegen::isa::{CallConv, TargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_codegen::{CompiledCode, Context};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};

use super::MicroKernel;
use crate::codegen::{Entry, MOST_STACK_BYTES};
use crate::error::Error;
use crate::lower::{Outlined, Programs};
use crate::target::Target;
use crate::vir::MOST_BUILT;
use address::AddressCache;
use tile::Tile;

/// Lanes of a vector value: Cranelift has no value over 128 bits.
pub(crate) const LANES: i64 = 4;

/// The lanes of a vector value, as instructions name them.
const LANE_NUMBERS: [u8; 4] = [0, 1, 2, 3];

/// The signature of both entry points.
pub fn signature(isa: &dyn TargetIsa) -> Signature {
    let mut signature = Signature::new(CallConv::triple_default(isa.triple()));
    let pointer = isa.pointer_type();
    signature.params =
        [pointer, types::I64, types::I64, types::I64, pointer].map(AbiParam::new).to_vec();
    signature
}

/// Writes an entry point of a nest as a Cranelift function.
pub fn emit(
    nest: &Outlined,
    entry: Entry,
    target: &Target,
    isa: &dyn TargetIsa,
    context: &mut FunctionBuilderContext,
) -> Emitted {
    let mut function = Function::with_name_signature(UserFuncName::default(), signature(isa));
    let builder = FunctionBuilder::new(&mut function, context);
    let mut emitter = Emitter::new(builder, nest, target);
    emitter.entry(nest.nest(), entry);
    let Emitter { micro_kernels, calls_alone, .. } = emitter;
    emitter.builder.finalize(isa.frontend_config());
    Emitted { function, micro_kernels, calls_alone }
}

/// Writes the entry points of the nests of a kernel, of which none is compiled before all are known
/// to be small enough.
///
/// # Errors
/// [`Error::CodeSize`] if they are more than [`FunctionSize::MOST`].
pub fn emit_all(
    nests: &[Outlined],
    target: &Target,
    isa: &dyn TargetIsa,
) -> Result<Vec<Vec<(Entry, Emitted)>>, Error> {
    let mut context = FunctionBuilderContext::new();
    let mut size = FunctionSize::default();
    let emit_nest = |nest| {
        let entries = emit_entries(nest, target, isa, &mut context);
        for (_, emitted) in &entries {
            size = size.with(&emitted.function)?;
        }
        Ok(entries)
    };
    nests.iter().map(emit_nest).collect()
}

/// Writes the entry points of a nest, each up to [`FunctionSize::MOST`] and a statement: one that
/// is longer is refused.
pub fn emit_entries(
    nest: &Outlined,
    target: &Target,
    isa: &dyn TargetIsa,
    context: &mut FunctionBuilderContext,
) -> Vec<(Entry, Emitted)> {
    let entries = Entry::of(nest.nest().nest()).into_iter();
    entries.map(|entry| (entry, emit(nest, entry, target, isa, context))).collect()
}

/// An entry point as Cranelift sees it, and the functions that it calls.
pub struct Emitted {
    /// The entry point. The call of micro-kernel `i` names user function `i` of
    /// [`MICRO_KERNELS`].
    pub function: Function,
    /// Machine code that Cranelift does not see.
    pub micro_kernels: Vec<MicroKernel>,
    /// Whether micro-kernels do all the work: the entry point is loops around calls.
    pub calls_alone: bool,
}

/// The namespace of calls to micro-kernels, until the linker knows their ids.
pub const MICRO_KERNELS: u32 = 1;

/// The signature of a micro-kernel: one pointer to its arguments, the same convention everywhere.
pub fn micro_kernel_signature(isa: &dyn TargetIsa) -> Signature {
    let mut signature = Signature::new(CallConv::SystemV);
    signature.params = vec![AbiParam::new(isa.pointer_type())];
    signature
}

/// What a loop variable is at the current point of emission.
#[derive(Clone, Copy)]
enum Bound {
    /// A value in the code.
    Runtime(Value),
    /// A number: the loop is unrolled.
    Const(i64),
}

/// Which lanes of which vector loop the current statements are emitted for.
#[derive(Clone, Copy, PartialEq)]
struct Lanes {
    /// The vector loop's axis; none outside of vector loops and for single lanes.
    axis: Option<AxisId>,
    /// The first lane.
    start: i64,
    /// The number of lanes: [`LANES`] or 1.
    width: i64,
}

impl Lanes {
    const SCALAR: Lanes = Lanes { axis: None, start: 0, width: 1 };

    fn group(axis: AxisId, start: i64) -> Lanes {
        Lanes { axis: Some(axis), start, width: LANES }
    }

    /// The values of the vector variable in the lanes of a group.
    fn values(self) -> [i64; 4] {
        LANE_NUMBERS.map(|lane| self.start.saturating_add(lane.into()))
    }

    /// The type of a float value.
    fn float(self) -> Type {
        if self.width == 1 { types::F32 } else { types::F32X4 }
    }
}

/// Runtime terms of a sum, outermost first: few enough to need no allocation.
type Terms = SmallVec<[(AxisId, i64); 6]>;

struct Emitter<'n, 'f> {
    builder: FunctionBuilder<'f>,
    nest: &'n Nest,
    /// The pointer to each buffer's first element.
    bases: HashMap<BufferId, Value>,
    batch: Option<Value>,
    /// The loop variables in scope, outermost first.
    variables: Vec<(AxisId, Bound)>,
    known: bounds::Context,
    addresses: AddressCache,
    offsets: address::OffsetCache,
    loads: expr::LoadCache,
    folds: fold::FoldCache,
    tiles: HashMap<BufferId, Tile>,
    /// The value of each name and the first lane it holds.
    locals: HashMap<LocalId, (Value, Lanes)>,
    target: &'n Target,
    /// The micro-kernels that lowering built.
    programs: Programs<'n>,
    micro_kernels: Vec<MicroKernel>,
    /// Where the arguments of their calls lie.
    slot: Option<StackSlot>,
    /// Steps of other micro-kernels that may still be built.
    budget: usize,
    calls_alone: bool,
}

impl<'n, 'f> Emitter<'n, 'f> {
    fn new(
        builder: FunctionBuilder<'f>,
        outlined: &'n Outlined,
        target: &'n Target,
    ) -> Emitter<'n, 'f> {
        let nest = outlined.nest().nest();
        Emitter {
            builder,
            nest,
            bases: HashMap::default(),
            batch: None,
            variables: Vec::new(),
            known: bounds::Context::default(),
            addresses: AddressCache::default(),
            offsets: address::OffsetCache::new(nest),
            loads: expr::LoadCache::default(),
            folds: fold::FoldCache::default(),
            tiles: HashMap::default(),
            locals: HashMap::default(),
            target,
            programs: outlined.programs(),
            micro_kernels: Vec::new(),
            slot: None,
            budget: MOST_BUILT,
            calls_alone: true,
        }
    }

    /// The function: load the pointers, loop over the tasks, return.
    fn entry(&mut self, nest: &VerifiedNest, entry: Entry) {
        let block = self.builder.create_block();
        self.builder.append_block_params_for_function_params(block);
        self.builder.seal_block(block);
        self.builder.switch_to_block(block);
        let params: Vec<Value> = self.builder.block_params(block).to_vec();
        let [arguments, batch, first, end, scratch] = params[..] else { return };
        self.batch = Some(batch);
        let pointer = self.builder.func.dfg.value_type(arguments);
        let mut offset: i64 = 0;
        for id in entry.arguments(self.nest) {
            let (place, displacement) = self.displaced(arguments, offset);
            let base = self.builder.ins().load(pointer, flags(true), place, displacement);
            self.bases.insert(id, base);
            offset = offset.saturating_add(pointer.bytes().into());
        }
        for id in self.nest.find_all(Role::Scratch) {
            let base = self.builder.ins().iadd_imm_s(scratch, nest.scratch_offset(id));
            self.bases.insert(id, base);
        }
        match entry {
            Entry::Pack => self.block(&self.nest.pack, Lanes::SCALAR),
            Entry::Body => self.tasks(first, end),
        }
        self.builder.ins().return_(&[]);
    }

    fn block(&mut self, block: &'n [Stmt], lanes: Lanes) {
        for stmt in block {
            // What is more is refused, and so not worth its time.
            if self.builder.func.dfg.num_values() > FunctionSize::MOST.values {
                return;
            }
            match stmt {
                Stmt::Loop(l) => self.loop_(l, lanes),
                Stmt::If(guards, body) => self.guarded(guards, body, lanes),
                Stmt::MicroKernel(body) => {
                    if !self.micro_kernel(body) {
                        self.block(body, lanes);
                    }
                }
                Stmt::Declare(id) => {
                    if self.nest.buffer(*id).role == Role::Reg {
                        let tile = Tile::declare(&mut self.builder, self.nest, *id, block);
                        self.tiles.insert(*id, tile);
                    }
                }
                Stmt::Let(id, value) => {
                    self.calls_alone = false;
                    let value = self.expr(value, lanes);
                    self.locals.insert(*id, (value, lanes));
                }
                Stmt::Store(dst, value) => {
                    self.calls_alone = false;
                    let value = self.expr(value, lanes);
                    self.store(dst, value, lanes);
                }
            }
        }
    }

    fn loop_(&mut self, l: &'n Loop, lanes: Lanes) {
        let outside = self.known.clone();
        match l.mode {
            Mode::Serial | Mode::Parallel => self.serial(l, lanes),
            Mode::Unroll => self.unrolled(l, lanes),
            Mode::Vector => self.vector(l),
        }
        self.known = outside;
    }

    /// Binds a variable, emits with it, and forgets it.
    fn with_variable(&mut self, axis: AxisId, bound: Bound, f: impl FnOnce(&mut Self)) {
        self.variables.push((axis, bound));
        let (addresses, folds) = (self.addresses.depth(), self.folds.depth());
        f(self);
        self.addresses.truncate(addresses);
        self.folds.truncate(folds);
        self.variables.pop();
    }

    /// Computes, at the top of a loop's body, the part of every address below that this loop and
    /// the loops around it decide.
    fn hoist(&mut self, l: &'n Loop) {
        let (mut accesses, mut folded) = (Vec::new(), Vec::new());
        visit_accesses(&l.body, &mut |access, _| accesses.push(access));
        visit_pads(&l.body, &mut |mode, access| {
            if mode != PaddingMode::Zeros {
                folded.push((mode, access));
            }
        });
        for (mode, access) in folded {
            self.hoist_folds(mode, access, l);
        }
        for access in accesses {
            if self.nest.buffer(access.buffer).role == Role::Reg {
                continue;
            }
            let offset = self.offsets.get(access);
            let (terms, _) = self.resolve(&offset, Lanes::SCALAR);
            if terms.last().is_some_and(|(axis, _)| *axis == l.axis) {
                self.address(access.buffer, &terms);
            }
        }
    }

    /// Splits a sum into the terms of runtime variables in scope, outermost first, and a number,
    /// modulo 2^64. Variables that are not bound yet count as zero; so does the vector variable.
    fn resolve(&self, sum: &Affine, lanes: Lanes) -> (Terms, i64) {
        let mut terms = Terms::new();
        let mut constant = sum.constant;
        for (axis, bound) in &self.variables {
            let coefficient = sum.coefficient(*axis);
            match bound {
                Bound::Const(value) => {
                    constant = constant.wrapping_add(coefficient.wrapping_mul(*value));
                }
                Bound::Runtime(_) if coefficient != 0 => terms.push((*axis, coefficient)),
                Bound::Runtime(_) => {}
            }
        }
        if let Some(axis) = lanes.axis {
            let moved = sum.coefficient(axis).wrapping_mul(lanes.start);
            constant = constant.wrapping_add(moved);
        }
        (terms, constant)
    }

    fn runtime(&self, axis: AxisId) -> Option<Value> {
        self.variables.iter().rev().find_map(|(a, bound)| match bound {
            Bound::Runtime(value) if *a == axis => Some(*value),
            Bound::Runtime(_) | Bound::Const(_) => None,
        })
    }

    /// The value of a sum of loop variables.
    fn sum(&mut self, sum: &Affine, lanes: Lanes) -> Value {
        let (terms, constant) = self.resolve(sum, lanes);
        let mut value = None;
        for (axis, coefficient) in terms {
            let Some(variable) = self.runtime(axis) else { continue };
            let term = self.times(variable, coefficient);
            value = Some(match value {
                Some(value) => self.builder.ins().iadd(value, term),
                None => term,
            });
        }
        match value {
            Some(value) if constant == 0 => value,
            Some(value) => self.builder.ins().iadd_imm_s(value, constant),
            None => self.builder.ins().iconst(types::I64, constant),
        }
    }

    /// A value times a number, by shift where possible.
    fn times(&mut self, value: Value, factor: i64) -> Value {
        match factor {
            1 => value,
            f if f > 1 && f.count_ones() == 1 => {
                self.builder.ins().ishl_imm_u(value, i64::from(f.trailing_zeros()))
            }
            f => self.builder.ins().imul_imm_s(value, f),
        }
    }

    /// Forgets what was loaded: the code that follows is not only reached from here.
    fn new_block(&mut self) {
        self.loads.clear();
        self.folds.clear();
    }
}

/// Memory flags: no access traps (V4).
fn flags(aligned: bool) -> MemFlagsData {
    let mut flags = MemFlagsData::new();
    flags.set_notrap();
    if aligned {
        flags.set_aligned();
    }
    flags
}

/// How Cranelift finds registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocator {
    /// With care, for code that computes.
    Backtracking,
    /// In half the time, with more spills, for loops around calls: see [`Emitted::calls_alone`].
    SinglePass,
}

impl Allocator {
    /// The word for it in Cranelift's settings.
    fn name(self) -> &'static str {
        match self {
            Allocator::Backtracking => "backtracking",
            Allocator::SinglePass => "single_pass",
        }
    }
}

/// Cranelift set up for a target: for this very host with all it has, or for another machine with
/// the base features and those the target names.
///
/// # Errors
/// [`Error::Codegen`] if Cranelift does not know the machine.
pub fn isa(target: &Target, host: bool, allocator: Allocator) -> Result<Arc<dyn TargetIsa>, Error> {
    let fail = |message: String| Error::Codegen { message };
    let mut shared = settings::builder();
    let verifier = if cfg!(debug_assertions) { "true" } else { "false" };
    let flags = [
        ("opt_level", "none"),
        ("regalloc_algorithm", allocator.name()),
        ("enable_verifier", verifier),
        ("is_pic", if host { "false" } else { "true" }),
        ("use_colocated_libcalls", "false"),
        // Nobody unwinds through a kernel: all it calls are micro-kernels, and none panics.
        ("unwind_info", "false"),
        // A frame of more than a page touches one page after the other, so that a stack that is too
        // small ends at its guard page and nowhere else.
        ("enable_probestack", "true"),
        ("probestack_strategy", "inline"),
        ("probestack_size_log2", "12"),
    ];
    for (name, value) in flags {
        shared.set(name, value).map_err(|e| fail(e.to_string()))?;
    }
    let mut builder = match host {
        true => cranelift_native::builder().map_err(|e| fail(e.to_string()))?,
        false => cranelift_codegen::isa::lookup(target.triple().clone())
            .map_err(|e| fail(e.to_string()))?,
    };
    if matches!(target.triple().architecture, target_lexicon::Architecture::X86_64) {
        let fma = if target.fma() { "true" } else { "false" };
        builder.set("has_sse41", "true").map_err(|e| fail(e.to_string()))?;
        builder.set("has_fma", fma).map_err(|e| fail(e.to_string()))?;
        if target.fma() {
            builder.set("has_avx", "true").map_err(|e| fail(e.to_string()))?;
        }
    }
    builder.finish(settings::Flags::new(shared)).map_err(|e| fail(e.to_string()))
}

/// What register allocation takes more than linear time in.
#[derive(Clone, Copy, Debug, Default)]
pub struct FunctionSize {
    /// Values: one that is alive over a branch is one more in every block behind it, which no count
    /// of operations foresees.
    values: usize,
    /// Blocks: lanes that lie apart and are padded, or guarded, are some each.
    blocks: usize,
}

impl FunctionSize {
    /// What Cranelift's functions of a kernel have together, at most: half a second each. What the
    /// scheduler picks has up to some 20,000 values and 4,000 blocks.
    pub const MOST: FunctionSize = FunctionSize { values: 1 << 19, blocks: 1 << 13 };

    /// With one more function.
    ///
    /// # Errors
    /// [`Error::CodeSize`] if that is more than [`FunctionSize::MOST`].
    pub fn with(self, function: &Function) -> Result<FunctionSize, Error> {
        let values = self.values.saturating_add(function.dfg.num_values());
        let blocks = self.blocks.saturating_add(function.dfg.num_blocks());
        let most = FunctionSize::MOST;
        for (what, given, limit) in
            [("values", values, most.values), ("blocks", blocks, most.blocks)]
        {
            if given > limit {
                return Err(Error::CodeSize { what, given, limit });
            }
        }
        Ok(FunctionSize { values, blocks })
    }
}

/// Bytes of stack that an entry point needs, with what it calls and the address that it returns to.
///
/// # Errors
/// [`Error::CodeSize`] if they are more than [`MOST_STACK_BYTES`].
pub fn stack_bytes(code: &CompiledCode, micro_kernels: &[MicroKernel]) -> Result<u32, Error> {
    let frame = code.buffer.frame_layout().map_or(0, |layout| layout.frame_to_fp_offset);
    let called = micro_kernels.iter().map(|kernel| kernel.stack).max().unwrap_or(0);
    let given = frame.saturating_add(FRAME_POINTER_AND_RETURN).saturating_add(called);
    match given > MOST_STACK_BYTES {
        true => Err(Error::CodeSize {
            what: "bytes of stack",
            given: given as usize,
            limit: MOST_STACK_BYTES as usize,
        }),
        false => Ok(given),
    }
}

/// Bytes above a frame: where the caller's begins, and the address to return to.
const FRAME_POINTER_AND_RETURN: u32 = 16;

/// The machine code of an entry point as text.
///
/// # Errors
/// [`Error::Codegen`] or [`Error::CodeSize`].
pub fn assembly(emitted: Emitted, isa: &dyn TargetIsa) -> Result<String, Error> {
    let mut context = Context::for_function(emitted.function);
    context.set_disasm(true);
    let code = context
        .compile(isa, &mut ControlPlane::default())
        .map_err(|e| Error::Codegen { message: format!("{:?}", e.inner) })?;
    stack_bytes(code, &emitted.micro_kernels)?;
    let mut text = code.vcode.clone().unwrap_or_default();
    for (i, kernel) in emitted.micro_kernels.iter().enumerate() {
        text += &format!("; micro-kernel {i}\n{}", kernel.assembly());
    }
    Ok(text)
}
