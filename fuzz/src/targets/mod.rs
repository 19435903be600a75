//! The targets, and what they have in common.

pub mod descriptor;
pub mod nest;
pub mod npy;
pub mod onnx;
pub mod record;
pub mod schedule;

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use convgen::{Accuracy, Compiler, Host, Isa, Kernel, check};
use convgen_ir::every;
use convgen_ir::nest::{Nest, Stmt};
use convgen_ir::problem::ConvProblem;
use convgen_ir::verify::VerifiedNest;

use crate::drive::stage;
use crate::raw::{self, Machine};

/// What is fed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    Descriptor,
    Schedule,
    Nest,
    Record,
    Onnx,
    Npy,
}

impl Target {
    pub const ALL: [Target; 6] = every!(Target { Descriptor, Schedule, Nest, Record, Onnx, Npy });

    pub fn name(self) -> &'static str {
        match self {
            Target::Descriptor => "descriptor",
            Target::Schedule => "schedule",
            Target::Nest => "nest",
            Target::Record => "record",
            Target::Onnx => "onnx",
            Target::Npy => "npy",
        }
    }

    /// How many instruction sets an input can be tried on.
    pub fn isas(self) -> usize {
        match self {
            Target::Descriptor | Target::Schedule | Target::Nest => BACKENDS.len(),
            // A record names its own; files know of none.
            Target::Record | Target::Onnx | Target::Npy => 1,
        }
    }

    /// Inputs of each hundred that are its own: fewer where one takes long.
    pub fn share(self) -> u64 {
        match self {
            Target::Descriptor => 4,
            Target::Schedule => 8,
            Target::Nest => 16,
            Target::Record => 8,
            Target::Onnx | Target::Npy => 32,
        }
    }

    /// Feeds it, for the instruction set of that number if one is chosen; panics where something is
    /// wrong.
    pub fn run(self, data: &[u8], isa: Option<usize>) {
        match self {
            Target::Descriptor => descriptor::target_on(backend(data, isa), data),
            Target::Schedule => schedule::target_on(backend(data, isa), data),
            Target::Nest => nest::target_on(backend(data, isa), data),
            Target::Record => record::target(data),
            Target::Onnx => onnx::target(data),
            Target::Npy => npy::target(data),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Target, String> {
        let found = Target::ALL.into_iter().find(|target| target.name() == text);
        found.ok_or_else(|| format!("unknown target `{text}`"))
    }
}

/// A compiler for an instruction set of this host, without records, and the machine beside it.
pub struct Backend {
    pub isa: Isa,
    pub compiler: Compiler,
    pub machine: Machine,
}

/// Those of this host.
pub static BACKENDS: LazyLock<Vec<Backend>> = LazyLock::new(|| {
    let host = Host::detect();
    let backend = |isa| {
        let compiler = Compiler::new(&host, isa).ok()?.with_database(Arc::default());
        Some(Backend { isa, compiler, machine: Machine::new(&host, isa).ok()? })
    };
    let backends: Vec<Backend> = Isa::ALL.into_iter().filter_map(backend).collect();
    assert!(!backends.is_empty(), "no instruction set");
    backends
});

/// The backend of a number, or one of them, the same for the same input: a new input is tried on
/// one, so that more inputs are.
pub fn backend(data: &[u8], isa: Option<usize>) -> &'static Backend {
    // The hash of Fowler, Noll and Vo.
    let hash = || {
        data.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        })
    };
    &BACKENDS[isa.unwrap_or_else(|| (hash() >> 8) as usize) % BACKENDS.len()]
}

/// Multiply-adds of a problem that is computed, at most: some milliseconds of the interpreter.
const MACS: u64 = 60_000;

/// Elements of all buffers of what is computed, at most.
const ELEMENTS: u64 = 300_000;

/// Tasks of what is computed, at most: each is a call.
const TASKS: i64 = 2_000;

/// Whether a problem is computed in little time and memory, besides being compiled.
pub fn is_small(problem: &ConvProblem) -> bool {
    let batch = problem.batch();
    let size =
        |shape: Vec<u64>| shape.iter().fold(1, |size: u64, extent| size.saturating_mul(*extent));
    let extras = problem.extra_shapes(batch).into_iter().map(|(_, shape)| size(shape));
    let shapes = [problem.input_shape(batch), problem.weights_shape(), problem.output_shape(batch)];
    let elements = shapes.into_iter().map(size).chain(extras).fold(0, u64::saturating_add);
    problem.macs() <= MACS && elements <= ELEMENTS
}

/// Holds a kernel against the formula and the interpreter, and its nests between fences.
pub fn hold(kernel: &Kernel, backend: &Backend) {
    // A sum over taps on padding is long where few multiply-adds count.
    let batch = kernel.problem().batch() as i64;
    let work = kernel.nests().map(|nest| work(nest.nest(), batch));
    if work.fold(0, u128::saturating_add) > u128::from(16 * MACS) {
        return;
    }
    stage("check");
    if let Err(error) = check::check(kernel) {
        panic!("wrong: {error}");
    }
    if kernel.fourier_plan().is_none() {
        kernel.nests().for_each(|nest| hold_nest(nest, batch, backend));
    }
}

/// Holds a nest between fences, unless it is too much work.
pub fn hold_nest(nest: &VerifiedNest, batch: i64, backend: &Backend) {
    let small = work(nest.nest(), batch) <= u128::from(4 * MACS)
        && elements(nest.nest(), batch) <= u128::from(ELEMENTS)
        && nest.nest().tasks(batch).is_some_and(|tasks| tasks <= TASKS);
    if small {
        stage("fences");
        if let Err(error) = raw::hold(nest, &backend.machine, batch, "") {
            panic!("wrong between fences: {error}");
        }
    }
}

/// Statements that a run of the nest executes, roughly.
pub fn work(nest: &Nest, batch: i64) -> u128 {
    fn block(stmts: &[Stmt], batch: i64) -> u128 {
        let stmt = |stmt: &Stmt| match stmt {
            Stmt::Loop(l) => {
                let trips = (i128::from(l.hi.at(batch)) - i128::from(l.lo)).max(0) as u128;
                trips.saturating_mul(block(&l.body, batch).saturating_add(1))
            }
            Stmt::If(_, body) | Stmt::MicroKernel(body) => block(body, batch),
            Stmt::Declare(_) | Stmt::Let(..) | Stmt::Store(..) => 1,
        };
        stmts.iter().map(stmt).fold(0, u128::saturating_add)
    }
    block(&nest.pack, batch).saturating_add(block(&nest.body, batch))
}

/// Elements of all buffers.
pub fn elements(nest: &Nest, batch: i64) -> u128 {
    let size = |shape: &[convgen_ir::nest::Dim]| {
        shape.iter().fold(1_u128, |size, dim| size.saturating_mul(dim.at(batch).max(0) as u128))
    };
    nest.buffers.iter().map(|buffer| size(&buffer.shape)).fold(0, u128::saturating_add)
}

/// The compiler of a backend with another accuracy.
pub fn with_accuracy(backend: &Backend, accuracy: Accuracy) -> Compiler {
    backend.compiler.clone().with_accuracy(accuracy)
}
