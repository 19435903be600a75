//! Machine code of micro-kernels, decoded.

use convgen_ir::parse::parse_schedule;
use convgen_ir::problem::ConvProblem;
use convgen_ir::schedule::Schedule;
use iced_x86::{Code, Decoder, DecoderOptions, Mnemonic, Register};

use super::*;
use crate::algorithm::Algorithm;
use crate::codegen::isa::{MicroKernel, clif};
use crate::compiler::Compiler;
use crate::lower;
use crate::scheduler;
use crate::target::{Caches, Target};

fn target_of(isa: Isa) -> Target {
    let triple = "x86_64-unknown-linux-gnu".parse().unwrap();
    Target::new(triple, isa, true, Caches::TYPICAL, 1).unwrap()
}

fn micro_kernels(problem: &str, isa: Isa) -> Vec<MicroKernel> {
    let target = target_of(isa);
    let problem = problem.parse().unwrap();
    let (algorithm, schedule) = scheduler::default_schedule(&problem, &target);
    micro_kernels_with(&problem, algorithm, &schedule, &target)
}

fn micro_kernels_with(
    problem: &ConvProblem,
    algorithm: Algorithm,
    schedule: &Schedule,
    target: &Target,
) -> Vec<MicroKernel> {
    let nests = Compiler::schedule(problem, algorithm, schedule).unwrap();
    let nest = lower::lower(nests[0].clone(), &target.limits()).unwrap();
    let nest = lower::Outlined::new(nest, target);
    let entry = crate::codegen::Entry::Body;
    let isa = clif::isa(target, false, clif::Allocator::Backtracking).unwrap();
    let mut context = cranelift_frontend::FunctionBuilderContext::new();
    let emitted = clif::emit(&nest, entry, target, &*isa, &mut context);
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
                let pushed: Vec<Register> =
                    code.iter().filter(saved(Code::Push_r64)).map(|i| i.op0_register()).collect();
                let mut popped: Vec<Register> =
                    code.iter().filter(saved(Code::Pop_r64)).map(|i| i.op0_register()).collect();
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
    let problem = "conv2d nchw g16 ic16 oc16 ih16 iw16 kh3 kw3 ph1 pw1".parse().unwrap();
    let schedule = "split ow by 8 tail=cut
         reorder n oc oh ow.o ow.i g
         parallel n
         accumulate output at ow.o
         unroll ow.i
         vectorize g
         unroll ic
         unroll kw
         pack weights
         pack input at n layout=nhwc
         reorder copy.h copy.w copy.c
         unroll copy.w
         vectorize copy.c";
    let schedule = parse_schedule(schedule).unwrap();
    let target = target_of(Isa::Avx512);
    let kernels = micro_kernels_with(&problem, Algorithm::Direct, &schedule, &target);
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

#[test]
fn a_frame_touches_each_of_its_pages_on_the_way_down() {
    for (frame, touched) in [(0, 0), (64, 0), (4096, 0), (4160, 1), (12296, 3)] {
        let mut text = Text::new();
        make_room(&mut text, frame);
        let code = text.finish().expect("encoded");
        let steps: Vec<Instruction> =
            Decoder::new(64, &code, DecoderOptions::NONE).iter().collect();
        let moves = steps.iter().filter(|step| step.mnemonic() == Mnemonic::Sub);
        let moved: Vec<i32> = moves.map(|step| step.immediate32().cast_signed()).collect();
        assert_eq!(moved.iter().sum::<i32>(), frame);
        assert!(moved.iter().all(|bytes| *bytes <= PAGE));
        let touches = steps.iter().filter(|step| step.mnemonic() == Mnemonic::Mov);
        assert_eq!(touches.count(), touched, "{frame}");
    }
}
