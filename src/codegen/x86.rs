//! The micro-kernel emitter: AVX2 and AVX-512 code for the scope of a register tile, from the same
//! nest that Cranelift compiles.
//!
//! The scope becomes a function `fn(arguments: *mut i64)` of the System V convention on every
//! platform; Cranelift emits everything around it and calls it. `arguments` holds what
//! [`MicroKernel::arguments`] lists, and is the function's to change. Every operation of the nest
//! becomes the instruction of the same rounding, in the nest's order for each value, so the bits
//! are the interpreter's.
//!
//! Five steps, one file each: `translate` writes the scope as loops around straight lines of vector
//! operations and numbers equal values; `transpose` brings together loads and stores whose lanes
//! lie apart; `share` brings the uses of a load together; `allocate` decides which register holds
//! what; `encode` is the instruction set. A scope outside the domain is [`Unfit`], with its reason,
//! and is left to Cranelift: slower, the same bits. So is a scope with a number that does not fit
//! where an instruction or a step has it: no number is cut.

#![deny(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
#![deny(clippy::cast_possible_wrap, clippy::cast_sign_loss)]

mod allocate;
mod cluster;
mod encode;
mod program;
mod translate;
mod transpose;

use convgen_ir::bounds::Context;
use convgen_ir::nest::{Affine, AxisId, BufferId, Loop, Nest, Stmt};

use encode::Assembled;

use crate::target::Vectors;

/// A compiled scope.
pub struct MicroKernel {
    /// Position-independent machine code.
    pub code: Vec<u8>,
    /// What the caller passes, in order.
    pub arguments: Vec<Argument>,
    /// Words behind the arguments, with what the function needs for itself.
    pub words: usize,
    /// Bytes of stack that it needs, with the address that it returns to.
    pub stack: u32,
}

/// A value that the surrounding code computes.
#[derive(Clone, Debug, PartialEq)]
pub enum Argument {
    /// The address of the element of a buffer at these terms of outer loop variables.
    Pointer(BufferId, Vec<(AxisId, i64)>),
    /// A sum of outer loop variables, clamped to 31 bits.
    Sum(Affine),
    /// A sum of outer loop variables.
    Number(Affine),
    /// The first value of a loop's variable that the guards leave.
    First(Loop),
    /// One past the last, at least the first.
    End(Loop),
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

/// A number that fits where it goes.
fn fit<T>(number: Option<T>) -> Result<T, Unfit> {
    number.ok_or(Unfit { reason: "a number is too large for its place" })
}

/// Compiles a scope: the rest of a block from the declaration of a register tile on, or a loop
/// around such scopes.
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
    let Assembled { code, words, stack } = allocate::assemble(&program, vectors)?;
    Ok(MicroKernel { code, arguments: program.arguments, words, stack })
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

#[cfg(test)]
mod tests {
    use iced_x86::{Code, Decoder, DecoderOptions, Register};

    use super::*;
    use crate::compiler::Compiler;
    use crate::lower;
    use crate::scheduler;
    use crate::target::{Caches, Isa, Target};

    fn micro_kernels(problem: &str, isa: Isa) -> Vec<MicroKernel> {
        let triple = "x86_64-unknown-linux-gnu".parse().unwrap();
        let target = Target::new(triple, isa, true, Caches::TYPICAL, 1).unwrap();
        let problem = problem.parse().unwrap();
        let (algorithm, schedule) = scheduler::default_schedule(&problem, &target);
        let nests = Compiler::schedule(&problem, algorithm, &schedule).unwrap();
        let nest = lower::lower(nests[0].clone(), &target.limits()).unwrap();
        let entry = crate::codegen::Entry::Body;
        let isa = crate::codegen::clif::isa(
            &target,
            false,
            crate::codegen::clif::Allocator::Backtracking,
        )
        .unwrap();
        let mut context = cranelift_frontend::FunctionBuilderContext::new();
        let emitted = crate::codegen::clif::emit(&nest, entry, &target, &*isa, &mut context);
        assert_eq!(emitted.unfit, vec![], "{problem}");
        emitted.micro_kernels
    }

    /// What a function does to the stack and which instructions it has, by decoding it to the end.
    fn decoded(code: &[u8]) -> Vec<iced_x86::Instruction> {
        let instructions: Vec<_> = Decoder::new(64, code, DecoderOptions::NONE).iter().collect();
        assert!(instructions.iter().all(|i| i.code() != Code::INVALID));
        assert_eq!(instructions.iter().map(|i| i.len()).sum::<usize>(), code.len());
        instructions
    }

    #[test]
    fn every_function_decodes_and_keeps_the_convention() {
        let problems = [
            "conv2d ic64 oc64 ih14 iw14 kh3 kw3 ph1 pw1 bias | relu",
            "conv2d ic20 oc24 ih9 iw9 kh1 kw1 | gelu | silu | tanh",
            "conv2d g40 ic40 oc40 ih9 iw9 kh3 kw3 ph1 pw1",
            "conv2d nchw ic3 oc5 ih20 iw20 kh3 kw3 | leaky_relu(0.5)",
            "conv2d nchw ic20 oc24 ih19 iw19 kh3 kw3 ph1 pw1 sh2 sw2 bias | relu",
            "conv2d nchw g40 ic40 oc40 ih9 iw9 kh3 kw3 ph1 pw1",
        ];
        for isa in [Isa::Avx2, Isa::Avx512] {
            for problem in problems {
                for kernel in micro_kernels(problem, isa) {
                    let code = decoded(&kernel.code);
                    let saved = |code: Code| move |i: &&iced_x86::Instruction| i.code() == code;
                    let pushed: Vec<Register> = code
                        .iter()
                        .filter(saved(Code::Push_r64))
                        .map(|i| i.op0_register())
                        .collect();
                    let mut popped: Vec<Register> = code
                        .iter()
                        .filter(saved(Code::Pop_r64))
                        .map(|i| i.op0_register())
                        .collect();
                    popped.reverse();
                    assert_eq!(pushed, popped, "{problem}");
                    let last: Vec<Code> = code.iter().rev().take(1).map(|i| i.code()).collect();
                    assert_eq!(last, [Code::Retnq], "{problem}");
                    assert_eq!(code.iter().filter(saved(Code::VEX_Vzeroupper)).count(), 1);
                }
            }
        }
    }

    /// Sixteen vectors by as many lanes: 32 shuffles within quads, the others are part of loads.
    #[test]
    fn a_transpose_is_loads_of_quads_and_shuffles() {
        let problem = "conv2d nchw g16 ic16 oc16 ih16 iw16 kh3 kw3 ph1 pw1";
        let kernels = micro_kernels(problem, Isa::Avx512);
        let counted = |kernel: &MicroKernel, code: Code| {
            decoded(&kernel.code).iter().filter(|i| i.code() == code).count()
        };
        let shuffles = [
            Code::EVEX_Vunpcklps_zmm_k1z_zmm_zmmm512b32,
            Code::EVEX_Vunpckhps_zmm_k1z_zmm_zmmm512b32,
            Code::EVEX_Vunpcklpd_zmm_k1z_zmm_zmmm512b64,
            Code::EVEX_Vunpckhpd_zmm_k1z_zmm_zmmm512b64,
        ];
        let copy = kernels.iter().find(|kernel| counted(kernel, shuffles[0]) > 0).unwrap();
        assert_eq!(shuffles.map(|code| counted(copy, code)), [8; 4]);
        assert_eq!(counted(copy, Code::EVEX_Vmovups_xmm_k1z_xmmm128), 16);
        assert_eq!(counted(copy, Code::EVEX_Vinsertf32x4_zmm_k1z_zmm_xmmm128_imm8), 48);
        assert_eq!(counted(copy, Code::EVEX_Vmovups_zmmm512_k1z_zmm), 16);
    }

    #[test]
    fn the_loop_of_a_dense_kernel_is_multiply_adds() {
        let kernels = micro_kernels("conv2d ic64 oc64 ih14 iw14 kh3 kw3 ph1 pw1", Isa::Avx512);
        let code = decoded(&kernels[0].code);
        let products = code
            .iter()
            .filter(|i| i.code() == Code::EVEX_Vfmadd231ps_zmm_k1z_zmm_zmmm512b32_er)
            .count();
        let operands =
            code.iter().filter(|i| i.code() == Code::EVEX_Vbroadcastss_zmm_k1z_xmmm32).count();
        // Three taps of a row of 14 pixels by two vectors, but for the pixels beyond both ends.
        assert_eq!(products, 3 * 28 - 2 * 2);
        assert_eq!(operands, 3 * 14 - 2);
    }

    /// Of the panel behind, as many lines as all rows need; of its own, those that an iteration
    /// reads.
    #[test]
    fn a_far_panel_is_fetched_in_shares_while_the_one_before_is_read() {
        let fetches = |problem: &str, code: Code| {
            let kernels = micro_kernels(problem, Isa::Avx512);
            let code = |kernel: &MicroKernel| {
                decoded(&kernel.code).iter().filter(|i| i.code() == code).count()
            };
            kernels.iter().map(code).sum::<usize>()
        };
        let far = "conv2d ic512 oc512 ih14 iw14 kh3 kw3 sh2 sw2 ph1 pw1";
        let near = "conv2d ic64 oc64 ih14 iw14 kh3 kw3 sh2 sw2 ph1 pw1";
        // Three taps of a row are a loop each, of two channels by two vectors: four lines, in two
        // rows.
        assert_eq!(fetches(far, Code::Prefetcht1_m8), 3 * 4 / 2);
        assert_eq!(fetches(far, Code::Prefetcht0_m8), 3 * 4);
        assert_eq!(fetches(near, Code::Prefetcht1_m8), 0);
    }
}
