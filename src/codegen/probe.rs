//! Machine code that measures: loops of multiply-adds, loops of loads.
//!
//! Promises, on which the JIT relies: the code of a [`Probe`] is a function
//! ```text
//! fn(passes: u64, data: *const u8, chunks: u64)
//! ```
//! of the System V convention on x86-64 and of the C convention elsewhere. It carries out `passes`
//! passes and returns. It writes no memory, reads no memory but `chunks` times
//! [`chunk_bytes`](Probe::chunk_bytes) bytes at `data`, and keeps what the convention says is kept.
//! It uses only features of the host it was made for. Nobody but this module makes one.

#[cfg(target_arch = "x86_64")]
mod x86;

use convgen_ir::elem::ElemType;
use cranelift_codegen::Context;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{
    AbiParam, Block, Function, InstBuilder, MemFlagsData, Signature, UserFuncName, Value, types,
};
use cranelift_codegen::isa::{CallConv, TargetIsa};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use target_lexicon::Architecture;

use crate::codegen::isa::clif;
use crate::target::{Host, Isa};

/// Independent sums: two units of latency five are kept busy by ten, and with two operands they fit
/// sixteen registers.
const ACCUMULATORS: usize = 12;

/// How often a pass advances every accumulator: the loop's own instructions are then few.
const STEPS: usize = 4;

/// Vectors loaded in one step of a read.
const LOADS: usize = 16;

/// The factor and the addend of each multiply-add: the sums tend to 2, far from denormals and from
/// infinity, and no operation can be simplified away.
const FACTOR: f32 = 0.5;
const ADDEND: f32 = 1.0;

/// A loop in machine code.
pub(crate) struct Probe {
    bytes: Vec<u8>,
    chunk_bytes: usize,
    flops: f64,
}

impl Probe {
    /// Multiply-adds in registers, none if the host lacks the vector width.
    pub(crate) fn fma(host: &Host, vector_bits: u32) -> Option<Probe> {
        let bytes = match native(host, vector_bits, Kind::Fma) {
            Some(bytes) => bytes,
            None => portable(host, vector_bits, Kind::Fma)?,
        };
        let lanes = f64::from(vector_bits / ElemType::F32.bits());
        let flops = 2.0 * lanes * (ACCUMULATORS * STEPS) as f64;
        Some(Probe { bytes, chunk_bytes: 0, flops })
    }

    /// Multiply-adds that wait for one another, as many in a pass as [`fma`](Probe::fma) has.
    pub(crate) fn chain(host: &Host, vector_bits: u32) -> Option<Probe> {
        let bytes = match native(host, vector_bits, Kind::Chain) {
            Some(bytes) => bytes,
            None => portable(host, vector_bits, Kind::Chain)?,
        };
        let lanes = f64::from(vector_bits / ElemType::F32.bits());
        Some(Probe { bytes, chunk_bytes: 0, flops: 2.0 * lanes * (ACCUMULATORS * STEPS) as f64 })
    }

    /// Loads, none if the host lacks the vector width.
    pub(crate) fn read(host: &Host, vector_bits: u32) -> Option<Probe> {
        let bytes = match native(host, vector_bits, Kind::Read) {
            Some(bytes) => bytes,
            None => portable(host, vector_bits, Kind::Read)?,
        };
        Some(Probe { bytes, chunk_bytes: LOADS * vector_bits as usize / 8, flops: 0.0 })
    }

    /// The code. It is position-independent.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes that a pass reads are a multiple of this; 0 if it reads none.
    pub(crate) fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }

    /// Floating-point operations of one pass.
    pub(crate) fn flops(&self) -> f64 {
        self.flops
    }
}

/// What a loop does.
#[derive(Clone, Copy)]
enum Kind {
    /// A pass advances every accumulator [`STEPS`] times.
    Fma,
    /// A pass advances one accumulator as often as [`Kind::Fma`] advances any.
    Chain,
    /// A pass loads every chunk.
    Read,
}

/// Code of a vector width that Cranelift does not have, or has only with further moves.
#[cfg(target_arch = "x86_64")]
fn native(host: &Host, vector_bits: u32, kind: Kind) -> Option<Vec<u8>> {
    x86::emit(host, vector_bits, kind)
}

#[cfg(not(target_arch = "x86_64"))]
fn native(_: &Host, _: u32, _: Kind) -> Option<Vec<u8>> {
    None
}

/// Code by Cranelift, for every host it knows.
fn portable(host: &Host, vector_bits: u32, kind: Kind) -> Option<Vec<u8>> {
    if vector_bits != Isa::Clif.vector_bits() {
        return None;
    }
    let target = host.target(Isa::Clif).ok()?;
    let isa = clif::isa(&target, true, clif::Allocator::Backtracking).ok()?;
    let mut function = Function::with_name_signature(UserFuncName::default(), signature(&*isa));
    let mut context = FunctionBuilderContext::new();
    let mut builder = FunctionBuilder::new(&mut function, &mut context);
    emit(&mut builder, kind, target.fma());
    builder.finalize(isa.frontend_config());
    let mut context = Context::for_function(function);
    let code = context.compile(&*isa, &mut ControlPlane::default()).ok()?;
    Some(code.code_buffer().to_vec())
}

fn signature(isa: &dyn TargetIsa) -> Signature {
    let convention = match isa.triple().architecture {
        Architecture::X86_64 => CallConv::SystemV,
        _ => CallConv::triple_default(isa.triple()),
    };
    let mut signature = Signature::new(convention);
    signature.params = [types::I64, isa.pointer_type(), types::I64].map(AbiParam::new).to_vec();
    signature
}

/// `while passes > 0 { a pass; passes -= 1 }`
fn emit(builder: &mut FunctionBuilder, kind: Kind, fma: bool) {
    let entry = builder.create_block();
    builder.append_block_params_for_function_params(entry);
    builder.switch_to_block(entry);
    let params: Vec<Value> = builder.block_params(entry).to_vec();
    let [passes, data, chunks] = params[..] else { return };
    let sums = match kind {
        Kind::Fma => (0..ACCUMULATORS).map(|i| splat(builder, i as f32)).collect(),
        Kind::Chain => vec![splat(builder, 0.0)],
        Kind::Read => vec![],
    };
    let operands = [FACTOR, ADDEND].map(|x| splat(builder, x));
    let end = counted(builder, passes, &sums, |builder, sums| match kind {
        Kind::Fma => (0..STEPS).for_each(|_| multiply_add(builder, sums, operands, fma)),
        Kind::Chain => {
            (0..STEPS * ACCUMULATORS).for_each(|_| multiply_add(builder, sums, operands, fma));
        }
        Kind::Read => read(builder, data, chunks),
    });
    builder.switch_to_block(end);
    builder.ins().return_(&[]);
    builder.seal_all_blocks();
}

/// A loop of `count` iterations that carries values; the block after it.
fn counted(
    builder: &mut FunctionBuilder,
    count: Value,
    carried: &[Value],
    body: impl FnOnce(&mut FunctionBuilder, &mut Vec<Value>),
) -> Block {
    let [head, inside, end] = [(); 3].map(|()| builder.create_block());
    let left = builder.append_block_param(head, types::I64);
    let mut values = Vec::new();
    for value in carried {
        let kind = builder.func.dfg.value_type(*value);
        values.push(builder.append_block_param(head, kind));
    }
    jump(builder, head, count, carried);
    builder.switch_to_block(head);
    builder.ins().brif(left, inside, &[], end, &[]);
    builder.switch_to_block(inside);
    body(builder, &mut values);
    let left = builder.ins().iadd_imm_s(left, -1);
    jump(builder, head, left, &values);
    end
}

fn jump(builder: &mut FunctionBuilder, head: Block, left: Value, carried: &[Value]) {
    let arguments: Vec<_> = [left].iter().chain(carried).map(|value| (*value).into()).collect();
    builder.ins().jump(head, &arguments);
}

fn splat(builder: &mut FunctionBuilder, x: f32) -> Value {
    let scalar = builder.ins().f32const(x);
    builder.ins().splat(types::F32X4, scalar)
}

fn multiply_add(
    builder: &mut FunctionBuilder,
    sums: &mut [Value],
    [factor, addend]: [Value; 2],
    fma: bool,
) {
    for sum in sums {
        *sum = match fma {
            // The accumulator is the addend, which aarch64 needs to do without a move.
            true => builder.ins().fma(factor, addend, *sum),
            false => {
                let product = builder.ins().fmul(*sum, factor);
                builder.ins().fadd(product, addend)
            }
        };
    }
}

fn read(builder: &mut FunctionBuilder, data: Value, chunks: Value) {
    let vector = types::F32X4.bytes() as usize;
    let end = counted(builder, chunks, &[data], |builder, carried| {
        for i in 0..LOADS {
            // Without `notrap`, so that Cranelift keeps loads whose value nobody uses.
            let offset = (i * vector) as i32;
            builder.ins().load(types::F32X4, MemFlagsData::new(), carried[0], offset);
        }
        carried[0] = builder.ins().iadd_imm_s(carried[0], (LOADS * vector) as i64);
    });
    builder.switch_to_block(end);
}
