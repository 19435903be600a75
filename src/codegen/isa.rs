//! The back ends: Cranelift, which writes the functions of a nest, and those that write the
//! micro-kernels they call.
//!
//! A micro-kernel is a function `fn(arguments: *mut i64)` of the System V convention on every
//! platform. `arguments` holds what its program lists, and is the function's to change. Every
//! operation of the nest becomes the instruction of the same rounding, in the nest's order for each
//! value, so the bits are the interpreter's.
//!
//! A back end of micro-kernels implements the trait `vir::encoder::Encoder`.

pub mod clif;
pub(in crate::codegen) mod x64;

use std::sync::Arc;

use crate::target::{Isa, VectorUnit};
use crate::vir::{Argument, BuildError, Program};

/// A compiled scope.
pub struct MicroKernel {
    /// Position-independent machine code.
    pub code: Vec<u8>,
    /// The vector IR that it was made from.
    pub(crate) program: Arc<Program>,
    /// Words behind the arguments, with what the function needs for itself.
    pub words: usize,
    /// Bytes of stack that it needs, with the address that it returns to.
    pub stack: u32,
}

impl MicroKernel {
    /// The code of a program for the registers of an instruction set.
    ///
    /// # Errors
    /// If the registers do not suffice, or the set has no micro-kernels.
    pub(crate) fn new(
        program: Arc<Program>,
        isa: Isa,
        unit: VectorUnit,
    ) -> Result<MicroKernel, BuildError> {
        let x64::Function { code, words, stack } = x64::function(&program, isa, unit)?;
        Ok(MicroKernel { code, program, words, stack })
    }

    /// What the caller passes, in order.
    pub(crate) fn arguments(&self) -> &[Argument] {
        &self.program.arguments
    }

    /// The instructions as text, one a line.
    pub fn assembly(&self) -> String {
        x64::disassemble(&self.code)
    }
}
