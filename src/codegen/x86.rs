//! The micro-kernel emitter: AVX2 and AVX-512 code for the scope of a register tile, from the same
//! nest that Cranelift compiles.
//!
//! The scope becomes a function `fn(arguments: *const i64)` of the System V convention on every
//! platform; Cranelift emits everything around it and calls it. `arguments` holds what
//! [`MicroKernel::arguments`] lists. Every operation of the nest becomes the instruction of the same
//! rounding, in the nest's order for each value, so the bits are the interpreter's.
//!
//! Three steps, one file each: [`translate`](mod@translate) writes the scope as loops around
//! straight lines of vector operations and numbers equal values; [`allocate`] decides which register
//! holds what; [`encode`] is the instruction set. A scope outside the domain is [`Unfit`], with its
//! reason, and is left to Cranelift: slower, the same bits.

mod allocate;
mod encode;
mod translate;

use convgen_ir::bounds::Context;
use convgen_ir::nest::{Affine, AxisId, BufferId, Nest, Stmt};

/// The vector registers an emitter may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Vectors {
    /// Sixteen registers of eight lanes, VEX encoding.
    Avx2,
    /// Thirty-two registers of sixteen lanes, mask registers, EVEX encoding.
    Avx512,
}

impl Vectors {
    /// Single floats in a register.
    pub fn lanes(self) -> i64 {
        match self {
            Vectors::Avx2 => 8,
            Vectors::Avx512 => 16,
        }
    }

    /// The number of registers.
    pub fn registers(self) -> usize {
        match self {
            Vectors::Avx2 => 16,
            Vectors::Avx512 => 32,
        }
    }
}

/// A compiled scope.
pub struct MicroKernel {
    /// Position-independent machine code.
    pub code: Vec<u8>,
    /// What the caller passes, in order.
    pub arguments: Vec<Argument>,
}

/// A value that the surrounding code computes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Argument {
    /// The address of the element of a buffer at these terms of outer loop variables.
    Pointer(BufferId, Vec<(AxisId, i64)>),
    /// A sum of outer loop variables, clamped to 32 bits.
    Sum(Affine),
}

/// What is known outside of a scope: the variables, outermost first, numbers for unrolled ones.
pub struct Outside<'a> {
    /// The loop variables in scope.
    pub variables: &'a [(AxisId, Option<i64>)],
    /// Their ranges and the guards that hold.
    pub known: &'a Context,
}

/// Why a scope is left to Cranelift.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unfit {
    /// The property of the scope that is outside the emitter's domain.
    pub reason: &'static str,
}

fn unfit<T>(reason: &'static str) -> Result<T, Unfit> {
    Err(Unfit { reason })
}

/// Compiles the scope of a register tile: the rest of a block from its declaration on.
///
/// # Errors
/// [`Unfit`] if the scope is outside the emitter's domain.
pub fn compile(
    nest: &Nest,
    scope: &[Stmt],
    outside: &Outside,
    vectors: Vectors,
) -> Result<MicroKernel, Unfit> {
    let program = translate::translate(nest, scope, outside, vectors)?;
    let code = allocate::assemble(&program, vectors)?;
    Ok(MicroKernel { code, arguments: program.arguments })
}

/// The instructions of a micro-kernel as text, one a line.
pub fn disassemble(code: &[u8]) -> String {
    use iced_x86::{Decoder, DecoderOptions, Formatter, IntelFormatter};
    let mut formatter = IntelFormatter::new();
    let mut text = String::new();
    for instruction in &mut Decoder::new(64, code, DecoderOptions::NONE) {
        let mut line = String::new();
        formatter.format(&instruction, &mut line);
        text += &format!("  {line}\n");
    }
    text
}
