//! One kernel on threads of one's own: the tasks of a call are split, and each thread takes a part.
//!
//! `Kernel::run_parallel` does this on rayon; an engine with a thread pool does it as here. A part
//! of the tasks is consumed by running it and parts never overlap, so no task runs twice, and the
//! result does not depend on who ran what.
//!
//! ```sh
//! cargo run --release --example threads
//! ```

use std::error::Error;
use std::thread;

use convgen::check::same_bits;
use convgen::ir::ConvProblem;
use convgen::{Arguments, Compiler, Host};
use convgen::{Scratch, Tasks};

fn main() -> Result<(), Box<dyn Error>> {
    let problem: ConvProblem = "conv2d n2 ic64 oc64 ih56 iw56 kh3 kw3 ph1 pw1 | relu".parse()?;
    let kernel = Compiler::host()?.compile(&problem)?;

    let input = values(problem.input_shape(2));
    let weights = kernel.pack_weights(&values(problem.weights_shape()))?;
    let arguments = Arguments { input: &input, weights: &weights, bias: None, extras: &[] };
    let len = problem.output_shape(2).iter().product::<u64>() as usize;

    let mut alone = vec![0.0; len];
    kernel.run_with(&arguments, &mut alone)?;

    let mut shared = vec![0.0; len];
    let mut call = kernel.prepare(&arguments, &mut shared)?;
    let parts = split(call.tasks(), Host::detect().cores());
    let sizes: Vec<usize> = parts.iter().map(Tasks::len).collect();
    thread::scope(|scope| {
        for part in parts {
            scope.spawn(move || part.run(&mut Scratch::new()));
        }
    });

    let equal = alone.iter().zip(&shared).all(|(a, b)| same_bits(*a, *b));
    println!("tasks by thread: {sizes:?}; {len} outputs, same bits as on one thread: {equal}");
    if equal { Ok(()) } else { Err("the threads computed something else".into()) }
}

/// `count` parts of nearly equal size.
fn split(mut tasks: Tasks, count: usize) -> Vec<Tasks> {
    let mut parts = Vec::new();
    for left in (1..=count).rev() {
        let size = tasks.len().div_ceil(left);
        let (part, rest) = tasks.split_at(size);
        parts.push(part);
        tasks = rest;
    }
    parts
}

/// Numbers between -1 and 1, the same in every run.
fn values(shape: Vec<u64>) -> Vec<f32> {
    (0..shape.iter().product()).map(|i: u64| (i * 7919 % 1009) as f32 / 504.0 - 1.0).collect()
}
