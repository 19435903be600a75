//! What a host program may have done to its threads and processes before it calls a kernel: flushed
//! denormals, changed the rounding, forked.
#![cfg(target_os = "linux")]

use std::ffi::c_int;
use std::time::{Duration, Instant};

use convgen::ir::problem::ConvProblem;
use convgen::{Arguments, Compiler, Host, Isa, Kernel};

fn kernels(text: &str) -> Vec<Kernel> {
    let (host, problem) = (Host::detect(), text.parse::<ConvProblem>().unwrap());
    let compilers = Isa::ALL.iter().filter_map(|isa| Compiler::new(&host, *isa).ok());
    compilers
        .map(|compiler| compiler.with_database(Default::default()).compile(&problem).unwrap())
        .collect()
}

#[cfg(target_arch = "x86_64")]
mod control_word {
    use super::*;

    const FLUSH_TO_ZERO: u32 = 1 << 15;
    const DENORMALS_ARE_ZEROS: u32 = 1 << 6;
    const ROUND_UP: u32 = 2 << 13;
    const STATUS: u32 = 0x3f;

    fn get() -> u32 {
        let mut word = 0_u32;
        // SAFETY: writes `word` only.
        unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut word, options(nostack)) };
        word
    }

    /// Calls `f` while this thread has these bits set, and says what is set afterwards.
    fn with(bits: u32, f: impl FnOnce()) -> u32 {
        let set = |word: u32| {
            // SAFETY: the word is that of this thread, but for bits that the processor defines.
            unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const word, options(nostack)) };
        };
        let before = get();
        set(before | bits);
        f();
        let after = get();
        set(before);
        after & !STATUS
    }

    /// Denormals go in, are multiplied and come out; and a sum that is rounded.
    #[test]
    fn what_the_caller_has_set_changes_no_bit_and_stays_set() {
        for kernel in kernels("conv1d ic2 oc3 iw70 kw3 pw1 | add") {
            let value =
                |i: usize| if i.is_multiple_of(2) { 1e-39 * i as f32 } else { 0.1 * i as f32 };
            let input: Vec<f32> = (0..140).map(value).collect();
            let weights = kernel.pack_weights(&[0.3; 18]).unwrap();
            let residual = [1e-40_f32; 210];
            let extras: [&[f32]; 1] = [&residual];
            let arguments =
                Arguments { input: &input, weights: &weights, bias: None, extras: &extras };
            let mut expected = [f32::NAN; 210];
            kernel.run_with(&arguments, &mut expected).unwrap();
            assert!(expected.iter().any(|v| v.is_subnormal() || *v != 0.0), "{}", kernel.name());
            for bits in [FLUSH_TO_ZERO | DENORMALS_ARE_ZEROS, ROUND_UP] {
                let mut output = [f32::NAN; 210];
                let after = with(bits, || kernel.run_with(&arguments, &mut output).unwrap());
                assert_eq!(after & bits, bits, "{}", kernel.name());
                assert_eq!(
                    output.map(f32::to_bits),
                    expected.map(f32::to_bits),
                    "{}",
                    kernel.name()
                );
            }
        }
    }

    /// The transforms of weights are arithmetic too.
    #[test]
    fn packed_weights_do_not_depend_on_what_the_caller_has_set() {
        let text = "conv2d ic32 oc32 ih28 iw28 kh3 kw3 ph1 pw1";
        for kernel in kernels(text) {
            let weights: Vec<f32> = (0..32 * 32 * 9).map(|i| 1e-38 * (i % 7) as f32).collect();
            let expected = kernel.pack_weights(&weights).unwrap();
            let mut packed = None;
            with(FLUSH_TO_ZERO | DENORMALS_ARE_ZEROS, || {
                packed = kernel.pack_weights(&weights).ok()
            });
            let input = vec![1.0; 28 * 28 * 32];
            let run = |weights| {
                let mut output = vec![f32::NAN; input.len()];
                kernel.run(&input, weights, None, &mut output).unwrap();
                output.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
            };
            assert_eq!(run(&packed.unwrap()), run(&expected), "{}", kernel.name());
        }
    }
}

unsafe extern "C" {
    fn fork() -> c_int;
    fn waitpid(process: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn kill(process: c_int, signal: c_int) -> c_int;
    fn _exit(status: c_int) -> !;
}

const WNOHANG: c_int = 1;
const SIGKILL: c_int = 9;

/// The child has none of the threads of rayon's pool.
#[test]
fn a_shared_call_in_a_forked_child_ends() {
    let kernel = kernels("conv2d n8 ic32 oc32 ih28 iw28 kh3 kw3 ph1 pw1").pop().unwrap();
    let input = vec![1.0; 8 * 28 * 28 * 32];
    let weights = kernel.pack_weights(&vec![1.0; 32 * 32 * 9]).unwrap();
    let arguments = Arguments { input: &input, weights: &weights, bias: None, extras: &[] };
    let mut expected = vec![f32::NAN; input.len()];
    kernel.run_parallel(&arguments, &mut expected, 2).unwrap();
    let mut output = vec![f32::NAN; input.len()];
    // SAFETY: the child computes into memory of its own and leaves without running anything else.
    let child = unsafe { fork() };
    if child == 0 {
        let ran = kernel.run_parallel(&arguments, &mut output, 2);
        let same = ran.is_ok() && output == expected;
        // SAFETY: ends the process.
        unsafe { _exit(if same { 0 } else { 1 }) };
    }
    assert!(child > 0);
    let (mut status, started) = (0, Instant::now());
    // SAFETY: `status` is written; the process is a child of this one.
    while unsafe { waitpid(child, &raw mut status, WNOHANG) } == 0 {
        if started.elapsed() > Duration::from_secs(60) {
            // SAFETY: as above.
            unsafe { kill(child, SIGKILL) };
            panic!("the call hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(status, 0);
}
