//! The vector IR: a micro-kernel as straight lines of vector operations and the loops around them,
//! for any instruction set that [`VectorUnit`](crate::target::VectorUnit) describes.
//!
//! # The passes
//! ```text
//! a scope of a verified nest
//!     |  build      unrolled, vectorized; equal loads are one value; loops that look ahead prefetch
//!     |  deinterleave  loads of every second element become loads of all and permutations
//!     |  permute    loads and stores whose lanes lie further apart become transposes
//!     |  cluster    the uses of a load stand together
//! Program           print: its text
//!     |  allocate   registers, spills; drives an Encoder
//! machine code
//! ```
//! # Values
//! A [`Value`] is a vector of one type, defined once and used within its straight line. A [`Cell`]
//! is a register that lasts as long as the scope: one vector of a register tile. A [`Stream`] is a
//! pointer that moves with the loops around it; memory is named by a stream and a displacement.
//!
//! # The text
//! ```text
//! micro-kernel of 2 cells of 16 lanes {
//!   p0 = a0 = &input[n*64]
//!   p1 = a1 = &panels[0]
//!   loop 64 {
//!     v0: f32x16 = load p1 + 64
//!     v1: f32x16 = broadcast p0 + 4
//!     c0 += v0 * v1
//!     p0 += 4, p1 += 128
//!   }
//!   v2: f32x16 = c0
//!   store p2 + 0 [0..9], v2
//! }
//! ```
//! `a0` is an argument of the function; what stands in brackets or parentheses behind it are names of
//! the nest. Displacements and steps are bytes; `[0..9]` are the lanes that a load or store touches,
//! all of them where nothing is said; `[0..16 below a3 - 16]` those whose number is less than what
//! an argument holds, less 16. In a loop `a1..a2` the streams count from zero: before the first
//! iteration each moves by the first number times its step, and a stream may be a number.
//!
//! Promises: a program computes what its scope does, each value by the same operations in the same
//! order. Does not: know an encoding. A scope that has no program is refused with the reason: see
//! [`BuildError`]; no number is cut to fit.

#![deny(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
#![deny(clippy::cast_possible_wrap, clippy::cast_sign_loss)]

pub(crate) mod allocate;
mod build;
mod cluster;
mod deinterleave;
pub(crate) mod encoder;
mod permute;
mod print;

use std::fmt;

use convgen_ir::bounds::Context;
use convgen_ir::elem::ElemType;
use convgen_ir::nest::{Affine, AxisId, BinaryOp, BufferId, Loop, UnaryOp};

use crate::exact::size_of;

pub(crate) use build::{MOST_BUILT, build};
pub(crate) use print::print;

/// Elements that are loaded together where lanes lie apart: what 128 bits hold, which every
/// instruction set moves at once.
pub(crate) const QUAD: usize = 4;

/// Registers beside the cells, at least: of an operation with three operands.
const MIN_POOL: usize = 3;

/// A vector value of one straight line.
pub(crate) type Value = usize;

/// A pinned register: one group of lanes of a register tile.
pub(crate) type Cell = usize;

/// A moving pointer.
pub(crate) type Stream = usize;

/// What the lanes of a value are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    /// Elements of a tensor.
    Elem(ElemType),
    /// Numbers of lanes, as wide as the elements that they permute.
    Index(ElemType),
}

/// The type of a value: a register of lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct VectorType {
    pub(crate) lane: Lane,
    pub(crate) lanes: i64,
}

impl VectorType {
    /// Bytes of a lane.
    pub(crate) fn lane_bytes(self) -> i64 {
        let (Lane::Elem(elem) | Lane::Index(elem)) = self.lane;
        size_of(elem)
    }
}

impl fmt::Display for VectorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lane {
            Lane::Elem(elem) => write!(f, "{}x{}", elem.name(), self.lanes),
            Lane::Index(elem) => {
                write!(f, "i{}x{}", elem.bytes().saturating_mul(8), self.lanes)
            }
        }
    }
}

/// Which lanes a load or store touches: those from `first` to before `lanes`, and below the runtime
/// limit if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Mask {
    pub(crate) first: i64,
    pub(crate) lanes: i64,
    /// The argument that holds the number of elements left, and the first lane's number.
    pub(crate) limit: Option<(usize, i32)>,
}

impl Mask {
    /// Whether all lanes of a register are touched.
    pub(crate) fn is_whole(self, width: i64) -> bool {
        self.limit.is_none() && self.first == 0 && self.lanes == width
    }

    /// How many lanes come before the one after the last.
    #[expect(clippy::cast_possible_truncation, reason = "a register has some dozen lanes at most")]
    pub(crate) fn count(self) -> i32 {
        self.lanes as i32
    }

    /// Bits before the first lane, where each is so many.
    pub(crate) fn skipped(self, bits: u32) -> u32 {
        u32::try_from(self.first).map_or(0, |first| first.saturating_mul(bits))
    }

    /// The numbers of the lanes, from zero on.
    pub(crate) fn numbers(self) -> impl Iterator<Item = i32> {
        0..self.count()
    }
}

/// Where a load or store goes: bytes from a stream's pointer, which an instruction has 32 bits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) stream: Stream,
    pub(crate) displacement: i64,
}

impl Place {
    /// The place of a lane, of those that lie so many bytes apart. What no instruction can name is
    /// refused when it is encoded.
    pub(crate) fn lane(self, lane: i32, bytes: i64) -> Place {
        let moved = bytes.saturating_mul(lane.into());
        Place { displacement: self.displacement.saturating_add(moved), ..self }
    }
}

/// Which lanes of another vector a vector is made of: lane `l` is lane
/// `l / repeat * stride + phase`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LanePermute {
    /// Lanes that are alike.
    pub(crate) repeat: u8,
    /// From those to the next, in the other vector.
    pub(crate) stride: u8,
    /// The first of them.
    pub(crate) phase: u8,
    /// Lanes that are wanted; the others are any.
    pub(crate) lanes: u8,
}

impl LanePermute {
    /// The lane of the other vector that becomes a lane.
    pub(crate) fn source(self, lane: u8) -> u8 {
        if lane < self.lanes { self.of_any(lane) } else { 0 }
    }

    /// As [`LanePermute::source`], of any lane.
    pub(crate) fn of_any(self, lane: u8) -> u8 {
        let block = lane.checked_div(self.repeat).unwrap_or(0);
        block.saturating_mul(self.stride).saturating_add(self.phase)
    }

    /// Whether every four lanes are made of the same four, in the same order.
    pub(crate) fn within_fours(self) -> bool {
        self.stride == self.repeat && 4_u8.checked_rem(self.repeat) == Some(0)
    }
}

/// Every second element of two vectors, the lower half of the lanes from one, the upper half from
/// the other: lane `l` is number `2 * l + phase` of the elements of both, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Deinterleave {
    /// Whether the lower half are the odd elements of the first vector, and the upper half those of
    /// the second: 0 or 1 each.
    pub(crate) phases: [u8; 2],
}

/// Numbers of lanes in a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum LaneNumbers {
    /// Lanes of one vector.
    Permute(LanePermute),
    /// Lanes of two: those of the second follow those of the first.
    Deinterleave(Deinterleave),
}

impl LaneNumbers {
    /// The number in a lane, of so many.
    pub(crate) fn source(self, lane: u8, lanes: i64) -> u8 {
        match self {
            LaneNumbers::Permute(permute) => permute.source(lane),
            LaneNumbers::Deinterleave(Deinterleave { phases: [lower, upper] }) => {
                let double = lane.saturating_mul(2);
                double.saturating_add(if i64::from(double) < lanes { lower } else { upper })
            }
        }
    }
}

/// What defines a value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Op {
    /// Lanes from memory, zero where masked out.
    Load(Place, Mask),
    /// One element in every lane, or so many neighbours over and over.
    Broadcast(Place, u8),
    /// A constant, by its bits, in every lane.
    Const(u32),
    /// The numbers of lanes that a permutation takes.
    Index(LaneNumbers),
    /// The lanes of a value, some of them several times; by an index unless within fours.
    Permute(Value, Option<Value>, LanePermute),
    /// Every second element of two vectors; by an index where one instruction takes it.
    Deinterleave([Value; 2], Option<Value>, Deinterleave),
    /// What a cell holds.
    Read(Cell),
    Unary(UnaryOp, Value),
    Binary(BinaryOp, Value, Value),
    Fma(Value, Value, Value),
    /// `a < b ? then : otherwise`, lane by lane.
    Select([Value; 4]),
}

/// A cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    L1,
    L2,
}

/// One step of a straight line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    Define(Value, Op),
    /// Cell becomes value.
    Write(Cell, Value),
    /// Cell becomes the product of two values plus the cell.
    Accumulate(Cell, Value, Value),
    Store(Place, Mask, Value),
    /// Loads of up to four elements that are neighbours, with that many bytes from lane to lane.
    Gather(Place, Mask, i64, [Option<Value>; QUAD]),
    /// Brings a line of memory into a cache; no access.
    Prefetch(Place, Level),
    /// Stores of values that are neighbours, with that many bytes from lane to lane.
    Scatter(Place, Mask, i64, Vec<Value>),
}

/// A gather of one value.
#[derive(Clone, Copy)]
struct Gather {
    place: Place,
    mask: Mask,
    /// From lane to lane.
    bytes: i64,
    value: Value,
}

impl Step {
    /// The step as a gather of one value, as all are before some become one.
    fn gather(&self) -> Option<Gather> {
        let Step::Gather(place, mask, bytes, [Some(value), None, None, None]) = *self else {
            return None;
        };
        Some(Gather { place, mask, bytes, value })
    }
}

/// A piece of the program.
#[derive(Debug)]
pub(crate) enum Item {
    Line(Vec<Step>),
    Loop {
        trips: Trips,
        /// Bytes by which each stream advances an iteration.
        strides: Vec<(Stream, i64)>,
        body: Vec<Item>,
    },
}

/// How often a loop runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trips {
    /// That many times.
    Fixed(i64),
    /// From one value to before another, which two arguments hold; the streams' pointers count from
    /// zero.
    Between { first: usize, end: usize },
    /// As between the largest of `lo` and some streams' numbers, and the least of `hi` and others'.
    Within { lo: i64, hi: i64, at_least: Vec<Stream>, below: Vec<Stream> },
}

/// A micro-kernel.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) items: Vec<Item>,
    /// Lanes of a register.
    pub(crate) lanes: i64,
    /// The type of each value.
    pub(crate) types: Vec<VectorType>,
    pub(crate) cells: usize,
    /// The argument that each stream begins as, its own.
    pub(crate) streams: Vec<usize>,
    /// What the caller passes, in order.
    pub(crate) arguments: Vec<Argument>,
}

/// A value that the surrounding code computes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Argument {
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
pub(crate) struct Outside<'a> {
    /// The loop variables in scope.
    pub(crate) variables: &'a [(AxisId, Option<i64>)],
    /// Their ranges and the guards that hold.
    pub(crate) known: &'a Context,
}

/// Why a scope is no micro-kernel. Its code is Cranelift's then: slower, the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct BuildError {
    /// What the scope has that no micro-kernel can have.
    pub(crate) reason: &'static str,
}

fn refuse<T>(reason: &'static str) -> Result<T, BuildError> {
    Err(BuildError { reason })
}

/// A number that fits where it goes.
fn fit<T>(number: Option<T>) -> Result<T, BuildError> {
    number.ok_or(BuildError { reason: "a number is too large for its place" })
}
