//! A micro-kernel as data: straight lines of vector operations, and loops around them. What the
//! passes of this folder hand on to one another.

use convgen_ir::nest::{BinaryOp, UnaryOp};

use super::Argument;

/// Neighbours that are loaded together: what a quarter of the widest register holds.
pub(super) const QUAD: usize = 4;

/// A vector value of one straight line.
pub(super) type Value = usize;

/// A pinned register: one group of lanes of a register tile.
pub(super) type Cell = usize;

/// A moving pointer.
pub(super) type Stream = usize;

/// Which lanes a load or store touches: those from `first` to before `lanes`, and below the runtime
/// limit if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Mask {
    pub(super) first: i64,
    pub(super) lanes: i64,
    /// The argument that holds the number of elements left, and the first lane's number.
    pub(super) limit: Option<(usize, i32)>,
}

impl Mask {
    /// How many lanes come before the one after the last.
    #[expect(clippy::cast_possible_truncation, reason = "a register has at most 16 lanes")]
    pub(super) fn count(self) -> i32 {
        self.lanes as i32
    }

    /// Bits before the first lane, where each is so many.
    pub(super) fn skipped(self, bits: u32) -> u32 {
        u32::try_from(self.first).map_or(0, |first| first.saturating_mul(bits))
    }

    /// The numbers of the lanes, from zero on.
    pub(super) fn numbers(self) -> impl Iterator<Item = i32> {
        0..self.count()
    }
}

/// Where a load or store goes: bytes from a stream's pointer, which an instruction has 32 bits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) stream: Stream,
    pub(super) displacement: i64,
}

impl Place {
    /// The place of a lane, of those that lie so many bytes apart. What no instruction can name is
    /// refused when it is encoded.
    pub(super) fn lane(self, lane: i32, bytes: i64) -> Place {
        let moved = bytes.saturating_mul(lane.into());
        Place { displacement: self.displacement.saturating_add(moved), ..self }
    }
}

/// Which lanes of another vector a vector is made of: lane `l` is lane
/// `l / repeat * stride + phase`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct LanePermute {
    /// Lanes that are alike.
    pub(super) repeat: u8,
    /// From those to the next, in the other vector.
    pub(super) stride: u8,
    /// The first of them.
    pub(super) phase: u8,
    /// Lanes that are wanted; the others are any.
    pub(super) lanes: u8,
}

impl LanePermute {
    /// The lane of the other vector that becomes a lane.
    pub(super) fn source(self, lane: u8) -> u8 {
        if lane < self.lanes { self.of_any(lane) } else { 0 }
    }

    /// As [`LanePermute::source`], of any lane.
    pub(super) fn of_any(self, lane: u8) -> u8 {
        let block = lane.checked_div(self.repeat).unwrap_or(0);
        block.saturating_mul(self.stride).saturating_add(self.phase)
    }

    /// Whether every four lanes are made of the same four, in the same order.
    pub(super) fn within_fours(self) -> bool {
        self.stride == self.repeat && 4_u8.checked_rem(self.repeat) == Some(0)
    }
}

/// What defines a value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Op {
    /// Lanes from memory, zero where masked out.
    Load(Place, Mask),
    /// One element in every lane, or so many neighbours over and over.
    Broadcast(Place, u8),
    /// A constant, by its bits, in every lane.
    Const(u32),
    /// The numbers of lanes by which a value is spread.
    Index(LanePermute),
    /// The lanes of a value, some of them several times; by an index unless within fours.
    LanePermute(Value, Option<Value>, LanePermute),
    /// What a cell holds.
    Read(Cell),
    Unary(UnaryOp, Value),
    Binary(BinaryOp, Value, Value),
    Fma(Value, Value, Value),
    Select([Value; 4]),
}

/// A cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    L1,
    L2,
}

/// One step of a straight line.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
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

/// A piece of the program.
pub(super) enum Item {
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
pub(super) enum Trips {
    /// That many times.
    Fixed(i64),
    /// From one value to before another, which two arguments hold; the streams' pointers count from
    /// zero.
    Between { first: usize, end: usize },
    /// As between the largest of `lo` and some streams' numbers, and the least of `hi` and others'.
    Within { lo: i64, hi: i64, at_least: Vec<Stream>, below: Vec<Stream> },
}

/// A translated scope.
pub(super) struct Program {
    pub(super) items: Vec<Item>,
    pub(super) cells: usize,
    /// The argument that each stream begins as, its own.
    pub(super) streams: Vec<usize>,
    pub(super) arguments: Vec<Argument>,
}
