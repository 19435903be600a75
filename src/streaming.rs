//! Causal convolutions of signals that arrive piece by piece.
//!
//! ```text
//! whole    y = causal(x)                              in one call, if all of x were there
//! stream   y[a..b] = causal([last extent-1 of x] ++ x[a..b])   a chunk at a time, of any length
//! ```
//! A [`CausalConv1d`] keeps the last `(kernel - 1) * dilation` positions of each channel, zeros at
//! first, which are the padding of the whole.
//!
//! Promises: the outputs do not depend on how the signal is cut, bit for bit, and they have the
//! bits of the plain nest of the whole: a kernel sums the taps of an output in the same order
//! wherever the output stands. So they are the bits of any kernel of the whole that neither
//! reorders its sums nor skips its padding. (Skipped padding differs only under weights that are
//! not finite, and in the sign of a zero.) A chunk that is refused leaves the state as it was.
//!
//! Does not: padding of other modes than zeros, which would be made of what has not arrived;
//! stride, which would make the number of outputs of a chunk depend on what came before; or share
//! state between threads. Kernels are compiled for a few lengths, each when it is first needed.

use convgen_ir::PaddingMode;
use convgen_ir::elem::Layout;
use convgen_ir::epilogue::EpilogueOp;
use convgen_ir::problem::{ConvProblem, Direction, ProblemError, SpatialAxis};

use crate::compiler::Compiler;
use crate::error::Error;
use crate::runtime::{Kernel, PackedWeights};

/// Kernels are for `2^0`, `2^1`, .. `2^(BLOCKS-1)` positions: every chunk is some of the longest
/// and at most one of each other. Of 512 positions a call costs more than what surrounds it,
/// however few the channels.
const BLOCKS: usize = 10;

/// Why a problem is no stream, or a chunk no part of one.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// Not along one axis.
    #[error("{given} spatial axes, expected 1")]
    Rank {
        /// How many the problem has.
        given: usize,
    },
    /// Not a forward convolution.
    #[error("the direction is {given}, expected fwd")]
    Direction {
        /// The problem's direction.
        given: &'static str,
    },
    /// The outputs are not those of every position.
    #[error("the stride is {given}, expected 1")]
    Stride {
        /// The problem's stride.
        given: u64,
    },
    /// An output would depend on what follows, or not on all that goes before.
    #[error(
        "the padding is {before}:{after}, expected {expected}:0, as `ConvSpec::causal` sets it"
    )]
    Padding {
        /// Zeros before.
        before: i64,
        /// Zeros after.
        after: i64,
        /// The zeros before that a causal convolution has.
        expected: u64,
    },
    /// What stands before the signal is made of it, and is not known yet.
    #[error("{given} padding is made of a signal that has not arrived, expected zeros")]
    PaddingMode {
        /// The problem's mode.
        given: PaddingMode,
    },
    /// An operation of the epilogue reads a tensor that does not arrive with the chunks.
    #[error("the epilogue has `{op}`, which reads a further tensor")]
    Epilogue {
        /// The operation.
        op: EpilogueOp,
    },
    /// No whole number of positions in every image.
    #[error(
        "a chunk of {given} elements is no whole number of positions, of {position} elements each"
    )]
    Chunk {
        /// Elements of the chunk.
        given: usize,
        /// Elements of one position of all channels of all images.
        position: usize,
    },
    /// The output slice does not fit the chunk.
    #[error("an output slice of {given} elements for a chunk whose outputs are {expected}")]
    Output {
        /// Its elements.
        given: usize,
        /// The elements needed.
        expected: usize,
    },
    /// The problem of a block exceeds a limit.
    #[error(transparent)]
    Problem(#[from] ProblemError),
    /// A kernel was refused, or does not take the weights.
    #[error(transparent)]
    Kernel(#[from] Error),
}

/// A causal convolution in one dimension with the state between two chunks of its signal.
///
/// ```
/// use convgen::ir::ConvProblem;
/// use convgen::ir::problem::ConvSpec;
/// use convgen::streaming::CausalConv1d;
/// use convgen::Compiler;
///
/// // The sum of a sample and the last two before it; the length does not matter.
/// let problem = ConvProblem::new(ConvSpec::conv1d(1, 1, 8, 3).causal())?;
/// let compiler = Compiler::host()?;
/// let mut stream = CausalConv1d::new(compiler, &problem, &[1.0, 1.0, 1.0], None)?;
/// assert_eq!(stream.feed(&[1.0, 2.0])?, [1.0, 3.0]);
/// assert_eq!(stream.feed(&[3.0, 4.0, 5.0])?, [6.0, 9.0, 12.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct CausalConv1d {
    compiler: Compiler,
    problem: ConvProblem,
    weights: Vec<f32>,
    bias: Option<Vec<f32>>,
    blocks: [Option<Block>; BLOCKS],
    /// The last positions of the input, as an input of that many positions.
    state: Vec<f32>,
    /// A block behind the state, and its outputs.
    window: Vec<f32>,
    output: Vec<f32>,
}

/// What a block of some length is computed with.
struct Block {
    kernel: Kernel,
    weights: PackedWeights,
}

impl CausalConv1d {
    /// A stream before its first position. The problem is the whole convolution, of any length; its
    /// batch is the number of signals that arrive together, its layout that of a chunk.
    ///
    /// # Errors
    /// [`StreamError`]: the problem is not causal, or the weights or the bias do not fit it.
    pub fn new(
        compiler: Compiler,
        problem: &ConvProblem,
        weights: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<CausalConv1d, StreamError> {
        check(problem)?;
        let mut stream = CausalConv1d {
            compiler,
            problem: problem.clone(),
            weights: weights.to_vec(),
            bias: bias.map(<[f32]>::to_vec),
            blocks: Default::default(),
            state: Vec::new(),
            window: Vec::new(),
            output: Vec::new(),
        };
        stream.reset();
        // The shortest block says at once whether weights and bias fit, and leaves no trace.
        let position = vec![0.0; stream.position(stream.problem.in_channels())];
        stream.block(0, (&position, 1, 0))?;
        stream.reset();
        Ok(stream)
    }

    /// Forgets what came before: the next chunk is the first.
    pub fn reset(&mut self) {
        self.state.clear();
        self.state.resize(self.position(self.problem.in_channels()) * self.memory(), 0.0);
    }

    /// The positions of each channel that are kept: what an output reads of the past.
    pub fn memory(&self) -> usize {
        self.problem.spatial().iter().map(|axis| axis.extent() as usize - 1).sum()
    }

    /// Takes the next positions of the signals, and returns the outputs at these positions, both in
    /// the problem's layout.
    ///
    /// # Errors
    /// As [`CausalConv1d::feed_into`].
    pub fn feed(&mut self, chunk: &[f32]) -> Result<Vec<f32>, StreamError> {
        let mut output = vec![0.0; self.outputs(chunk.len())?];
        self.feed_into(chunk, &mut output)?;
        Ok(output)
    }

    /// As [`CausalConv1d::feed`], into a slice of the caller's.
    ///
    /// # Errors
    /// [`StreamError::Chunk`] or [`StreamError::Output`] if a length does not fit;
    /// [`StreamError::Kernel`] if a kernel cannot be compiled.
    pub fn feed_into(&mut self, chunk: &[f32], output: &mut [f32]) -> Result<(), StreamError> {
        let expected = self.outputs(chunk.len())?;
        if output.len() != expected {
            return Err(StreamError::Output { given: output.len(), expected });
        }
        let (reads, writes) =
            (self.rows(self.problem.in_channels()), self.rows(self.problem.out_channels()));
        let length = chunk.len().checked_div(reads.count * reads.width).unwrap_or(0);
        self.compile(length)?;
        let mut from = 0;
        while from < length {
            let number = longest_block(length - from);
            let count = 1 << number;
            self.block(number, (chunk, length, from))?;
            writes.copy((&self.output, count, 0), (output, length, from), count);
            from += count;
        }
        Ok(())
    }

    /// Compiles what a chunk needs, so that a refusal comes before the state changes.
    fn compile(&mut self, mut length: usize) -> Result<(), StreamError> {
        while length > 0 {
            let number = longest_block(length);
            self.kernel(number)?;
            length =
                if number == BLOCKS - 1 { length % (1 << number) } else { length - (1 << number) };
        }
        Ok(())
    }

    /// Computes one block of a chunk into `output` and keeps its end as the state.
    fn block(&mut self, number: usize, chunk: (&[f32], usize, usize)) -> Result<(), StreamError> {
        let (memory, count) = (self.memory(), 1_usize << number);
        let whole = memory + count;
        let reads = self.rows(self.problem.in_channels());
        self.window.resize(reads.count * whole * reads.width, 0.0);
        reads.copy((&self.state, memory, 0), (&mut self.window, whole, 0), memory);
        reads.copy(chunk, (&mut self.window, whole, memory), count);
        let outputs = self.position(self.problem.out_channels()) * count;
        self.output.resize(outputs, 0.0);
        self.kernel(number)?;
        if let Some(Block { kernel, weights }) = &self.blocks[number] {
            kernel.run(&self.window, weights, self.bias.as_deref(), &mut self.output)?;
        }
        reads.copy((&self.window, whole, count), (&mut self.state, memory, 0), memory);
        Ok(())
    }

    /// Makes sure that the kernel of `2^number` positions is there.
    fn kernel(&mut self, number: usize) -> Result<(), StreamError> {
        if self.blocks[number].is_some() {
            return Ok(());
        }
        let mut spec = self.problem.to_spec();
        for axis in &mut spec.spatial {
            let input = axis.extent() - 1 + (1 << number);
            *axis = SpatialAxis { input, pad_before: 0, pad_after: 0, ..*axis };
        }
        let problem = ConvProblem::new(spec)?;
        // Not a tuning record: it may reorder sums, those of one length unlike those of another.
        // Nor transforms: their rounding depends on the tile, and so on the length.
        let kernel = self.compiler.compile_sum(&problem)?;
        let weights = kernel.pack_weights(&self.weights)?;
        self.blocks[number] = Some(Block { kernel, weights });
        Ok(())
    }

    /// Elements of the output of a chunk.
    fn outputs(&self, chunk: usize) -> Result<usize, StreamError> {
        let position = self.position(self.problem.in_channels());
        match chunk.checked_div(position) {
            Some(length) if chunk.is_multiple_of(position) => {
                Ok(length * self.position(self.problem.out_channels()))
            }
            // Of no signals there is nothing to feed.
            None if chunk == 0 => Ok(0),
            Some(_) | None => Err(StreamError::Chunk { given: chunk, position }),
        }
    }

    /// Elements at one position, of all signals.
    fn position(&self, channels: u64) -> usize {
        (self.problem.batch() * channels) as usize
    }

    /// How positions lie in memory.
    fn rows(&self, channels: u64) -> Rows {
        let (signals, channels) = (self.problem.batch() as usize, channels as usize);
        match self.problem.layout() {
            Layout::ChannelsFirst => Rows { count: signals * channels, width: 1 },
            Layout::ChannelsLast => Rows { count: signals, width: channels },
        }
    }
}

/// A tensor as rows of positions, each of some neighbouring elements.
#[derive(Clone, Copy)]
struct Rows {
    count: usize,
    width: usize,
}

impl Rows {
    /// Copies positions of every row. A place is a tensor, the length of its rows, and where to
    /// begin.
    fn copy(
        self,
        (from, from_length, from_start): (&[f32], usize, usize),
        (to, to_length, to_start): (&mut [f32], usize, usize),
        positions: usize,
    ) {
        for row in 0..self.count {
            let source = (row * from_length + from_start) * self.width;
            let target = (row * to_length + to_start) * self.width;
            let elements = positions * self.width;
            to[target..target + elements].copy_from_slice(&from[source..source + elements]);
        }
    }
}

/// The number of the longest block that fits that many positions, at least one.
fn longest_block(positions: usize) -> usize {
    (positions.max(1).ilog2() as usize).min(BLOCKS - 1)
}

fn check(problem: &ConvProblem) -> Result<(), StreamError> {
    let [axis] = problem.spatial() else {
        return Err(StreamError::Rank { given: problem.rank() });
    };
    match problem.direction() {
        Direction::Forward => {}
        Direction::Transposed
        | Direction::BackwardData
        | Direction::BackwardWeights
        | Direction::BackwardBias => {
            return Err(StreamError::Direction { given: problem.direction().name() });
        }
    }
    if axis.stride != 1 {
        return Err(StreamError::Stride { given: axis.stride });
    }
    let (before, after, expected) = (axis.pad_before, axis.pad_after, axis.extent() - 1);
    if after != 0 || u64::try_from(before) != Ok(expected) {
        return Err(StreamError::Padding { before, after, expected });
    }
    if problem.extends_input() {
        return Err(StreamError::PaddingMode { given: problem.padding_mode() });
    }
    match problem.epilogue().iter().find(|op| op.takes_extra().is_some()) {
        Some(op) => Err(StreamError::Epilogue { op: *op }),
        None => Ok(()),
    }
}
