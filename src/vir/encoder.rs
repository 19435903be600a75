//! What a back end of the vector IR implements: each operation of a micro-kernel on registers.
//!
//! The register allocator decides which registers, spills and order, and calls an encoder for
//! each operation; the encoder turns it into instructions. A register may hold any value of the
//! micro-kernel.

use std::collections::BTreeSet;

use convgen_ir::nest::{BinaryOp, UnaryOp};

use super::{Deinterleave, LaneNumbers, LanePermute, Level, Mask, Place, QUAD, Stream, Trips};

/// A vector register by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Reg(pub(crate) u8);

impl Reg {
    /// The register of that number.
    #[expect(clippy::cast_possible_truncation, reason = "there are at most 32 vector registers")]
    pub(crate) fn numbered(number: usize) -> Reg {
        Reg(number as u8)
    }
}

/// The last operand of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operand {
    Register(Reg),
    /// Memory; one element in every lane if the flag is set.
    Memory(Place, bool),
}

impl Operand {
    pub(crate) fn register(self) -> Option<Reg> {
        match self {
            Operand::Register(register) => Some(register),
            Operand::Memory(..) => None,
        }
    }
}

/// Registers of a transpose: four in, four out, and one that passes between them.
pub(crate) const TRANSPOSE_REGISTERS: usize = QUAD + 1;

/// Vectors of a transpose, where they lie.
#[derive(Clone, Copy)]
pub(crate) enum Rows<'a> {
    /// Neighbouring slots of the frame: the first, and how many.
    Slots(usize, usize),
    /// Memory that is read with all lanes.
    Loads(&'a [Place]),
}

impl Rows<'_> {
    pub(crate) fn count(self) -> usize {
        match self {
            Rows::Slots(_, count) => count,
            Rows::Loads(places) => places.len(),
        }
    }
}

/// A back end: operations in the order of the code.
pub(crate) trait Encoder {
    /// What counts a loop's iterations down.
    type Counter: Copy;
    /// A loop that has begun.
    type Begun;

    /// Brings the pointers of streams into registers; beside them there are so many counters.
    fn bring(&mut self, streams: &BTreeSet<Stream>, counters: usize);
    /// Leaves the streams to memory.
    fn forget(&mut self);
    /// The counter of a loop with so many loops around whose counters are in registers.
    fn counter(&self, depth: usize) -> Self::Counter;
    /// A counter in memory.
    fn counter_in_memory(&mut self) -> Self::Counter;
    /// Starts a loop.
    fn begin_loop(
        &mut self,
        counter: Self::Counter,
        trips: &Trips,
        strides: &[(Stream, i64)],
    ) -> Self::Begun;
    /// Ends it: the streams advance, and after the last iteration are where they were.
    fn end_loop(&mut self, begun: Self::Begun, trips: &Trips, strides: &[(Stream, i64)]);

    /// Makes a mask before all else, for the whole function: in a register of its own, or in a
    /// slot of the frame by way of a vector register.
    fn keep_mask(&mut self, mask: Mask, passing: Reg, slot: usize);
    /// Lanes from memory, zero where masked out.
    fn load(&mut self, to: Reg, place: Place, mask: Mask);
    /// So many neighbouring elements, over and over.
    fn broadcast(&mut self, to: Reg, place: Place, elements: u8);
    /// Lanes to memory; `scratch` may be overwritten, and is given if the mask is not whole.
    fn store(&mut self, place: Place, mask: Mask, from: Reg, scratch: Option<Reg>);
    /// Brings the line at a place into a cache; no fault if there is no memory.
    fn prefetch(&mut self, place: Place, level: Level);
    /// One element of every lane, of lanes so many bytes apart.
    fn gather(&mut self, to: Reg, scratch: Reg, place: Place, mask: Mask, bytes: i64);
    /// Four neighbouring elements of every lane: one vector each, in the registers returned.
    fn gather_quad(
        &mut self,
        registers: [Reg; TRANSPOSE_REGISTERS],
        place: Place,
        mask: Mask,
        bytes: i64,
    ) -> [Reg; QUAD];
    /// Stores lanes one by one, through a slot of the frame.
    fn scatter(&mut self, place: Place, mask: Mask, bytes: i64, from: Reg, slot: usize);
    /// Stores vectors that lie in memory, their lanes so many bytes apart: of each lane the
    /// elements of all vectors, side by side. `mask_register` is for the mask of these.
    fn scatter_all(
        &mut self,
        registers: [Reg; TRANSPOSE_REGISTERS],
        mask_register: Reg,
        rows: Rows,
        to: (Place, Mask, i64),
    );
    /// A register to a slot of the frame.
    fn spill(&mut self, slot: usize, from: Reg);
    /// A slot of the frame to a register.
    fn reload(&mut self, to: Reg, slot: usize);

    /// A register to another one.
    fn copy(&mut self, to: Reg, from: Reg);
    /// Zero in every lane.
    fn zero(&mut self, to: Reg);
    /// A constant in every lane.
    fn constant(&mut self, to: Reg, bits: u32);
    /// `to = a * b + to`, rounded once.
    fn multiply_add(&mut self, to: Reg, a: Reg, b: Operand);
    /// A unary operation; `scratch` may be overwritten.
    fn unary(&mut self, op: UnaryOp, to: Reg, x: Reg, scratch: Reg);
    /// A binary operation.
    fn binary(&mut self, op: BinaryOp, to: Reg, a: Reg, b: Operand);
    /// Starts `a < b ? then : otherwise`: the outcome is in `mask`, or where the encoder knows.
    fn compare_less(&mut self, mask: Reg, a: Reg, b: Reg);
    /// Ends a selection.
    fn blend(&mut self, to: Reg, mask: Reg, then: Reg, otherwise: Reg);
    /// The numbers of the lanes that a permutation takes.
    fn index(&mut self, to: Reg, numbers: LaneNumbers);
    /// Lanes by their numbers.
    fn permute(&mut self, to: Reg, index: Reg, from: Operand);
    /// Lanes of every four by the same four numbers.
    fn permute_fours(&mut self, to: Reg, from: Operand, permute: LanePermute);
    /// Every second element of two registers; by an index if one is given. `to` may be the first.
    fn deinterleave(
        &mut self,
        to: Reg,
        index: Option<Reg>,
        from: (Reg, Operand),
        deinterleave: Deinterleave,
    );
}

/// A back end that writes nothing: whether the registers suffice.
pub(crate) struct Trial;

impl Encoder for Trial {
    type Counter = ();
    type Begun = ();

    fn bring(&mut self, _: &BTreeSet<Stream>, _: usize) {}
    fn forget(&mut self) {}
    fn counter(&self, _: usize) {}
    fn counter_in_memory(&mut self) {}
    fn begin_loop(&mut self, (): (), _: &Trips, _: &[(Stream, i64)]) {}
    fn end_loop(&mut self, (): (), _: &Trips, _: &[(Stream, i64)]) {}
    fn keep_mask(&mut self, _: Mask, _: Reg, _: usize) {}
    fn load(&mut self, _: Reg, _: Place, _: Mask) {}
    fn broadcast(&mut self, _: Reg, _: Place, _: u8) {}
    fn store(&mut self, _: Place, _: Mask, _: Reg, _: Option<Reg>) {}
    fn prefetch(&mut self, _: Place, _: Level) {}
    fn gather(&mut self, _: Reg, _: Reg, _: Place, _: Mask, _: i64) {}
    fn gather_quad(
        &mut self,
        [a, b, c, d, _]: [Reg; TRANSPOSE_REGISTERS],
        _: Place,
        _: Mask,
        _: i64,
    ) -> [Reg; QUAD] {
        [a, b, c, d]
    }
    fn scatter(&mut self, _: Place, _: Mask, _: i64, _: Reg, _: usize) {}
    fn scatter_all(
        &mut self,
        _: [Reg; TRANSPOSE_REGISTERS],
        _: Reg,
        _: Rows,
        _: (Place, Mask, i64),
    ) {
    }
    fn spill(&mut self, _: usize, _: Reg) {}
    fn reload(&mut self, _: Reg, _: usize) {}
    fn copy(&mut self, _: Reg, _: Reg) {}
    fn zero(&mut self, _: Reg) {}
    fn constant(&mut self, _: Reg, _: u32) {}
    fn multiply_add(&mut self, _: Reg, _: Reg, _: Operand) {}
    fn unary(&mut self, _: UnaryOp, _: Reg, _: Reg, _: Reg) {}
    fn binary(&mut self, _: BinaryOp, _: Reg, _: Reg, _: Operand) {}
    fn compare_less(&mut self, _: Reg, _: Reg, _: Reg) {}
    fn blend(&mut self, _: Reg, _: Reg, _: Reg, _: Reg) {}
    fn index(&mut self, _: Reg, _: LaneNumbers) {}
    fn permute(&mut self, _: Reg, _: Reg, _: Operand) {}
    fn permute_fours(&mut self, _: Reg, _: Operand, _: LanePermute) {}
    fn deinterleave(&mut self, _: Reg, _: Option<Reg>, _: (Reg, Operand), _: Deinterleave) {}
}
