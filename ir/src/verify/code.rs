//! V8: the size of the code that a nest becomes after unrolling, counted before any of it is made.

use super::Fault;

/// Operations after unrolling for each lane operation of
/// [`Limits::unrolled`](super::Limits::unrolled): loads, arithmetic, conditions and the loops
/// themselves. The longest epilogue has some sixty of them a value, a sum three.
pub const OPERATIONS_A_LANE: i64 = 16;

/// Lanes that an operation or a branch outside of vector loops counts for.
pub const LANES_OF_A_VECTOR: i64 = 16;

/// Lane operations of [`Limits::unrolled`](super::Limits::unrolled) for each branch after
/// unrolling: a loop, a condition, or an index into padding that is not provably inside. Code
/// generation takes more than linear time in them.
pub const LANES_A_BRANCH: i64 = 4;

/// What unrolled code consists of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CodeSize {
    /// Statements that store or name a value, once for each lane.
    lanes: i64,
    operations: i64,
    /// In lanes.
    branches: i64,
}

impl CodeSize {
    pub(super) fn add_lanes(&mut self, count: i64) {
        self.lanes = self.lanes.saturating_add(count);
    }

    pub(super) fn add_operations(&mut self, count: i64) {
        self.operations = self.operations.saturating_add(count);
    }

    /// Counted in lanes.
    pub(super) fn add_branches(&mut self, count: i64) {
        self.branches = self.branches.saturating_add(count);
    }

    pub(super) fn add(&mut self, other: CodeSize) {
        self.add_lanes(other.lanes);
        self.add_operations(other.operations);
        self.add_branches(other.branches);
    }

    /// Whether the code stays below a limit of lane operations, and below those for the rest that
    /// follow from it.
    pub(super) fn within(self, limit: i64) -> Result<(), Fault> {
        let CodeSize { lanes, operations, branches } = self;
        if lanes > limit {
            return Err(Fault::Unrolled { given: lanes, limit });
        }
        let most = limit.saturating_mul(OPERATIONS_A_LANE);
        if operations > most {
            return Err(Fault::Operations { given: operations, limit: most });
        }
        let (given, most) =
            (branches.div_euclid(LANES_OF_A_VECTOR), limit.div_euclid(LANES_A_BRANCH));
        match given > most {
            true => Err(Fault::Branches { given, limit: most }),
            false => Ok(()),
        }
    }
}
