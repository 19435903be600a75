//! Register tiles as SSA variables: one a group of four lanes of the last dimension, or one an
//! element if the tile is never used by vectors.

use convgen_ir::nest::{AxisId, BufferId, Mode, Nest, Stmt, visit_accesses, visit_loops};
use cranelift_codegen::ir::{InstBuilder, Value, types};
use cranelift_frontend::{FunctionBuilder, Variable};

use super::{LANE_NUMBERS, LANES};

/// The variables of one register tile.
pub(super) struct Tile {
    cells: Vec<Variable>,
    /// Elements of one row: the extent of the last dimension.
    row: i64,
    /// Variables of one row.
    row_cells: i64,
    /// Lanes of one variable.
    width: i64,
}

impl Tile {
    /// Declares the variables of a tile, all zero; `scope` holds every use.
    pub(super) fn declare(
        builder: &mut FunctionBuilder,
        nest: &Nest,
        id: BufferId,
        scope: &[Stmt],
    ) -> Tile {
        let elements = nest.buffer(id).len(0).unwrap_or(0);
        let row = nest.buffer(id).shape.last().and_then(|d| d.fixed()).unwrap_or(1);
        let width = if used_by_vectors(id, scope) { LANES } else { 1 };
        let row_cells = row.saturating_add(width.saturating_sub(1)).div_euclid(width);
        let ty = if width == 1 { types::F32 } else { types::F32X4 };
        let zero = builder.ins().f32const(0.0);
        let zero = if width == 1 { zero } else { builder.ins().splat(ty, zero) };
        let cells = (0..elements.div_euclid(row.max(1)).saturating_mul(row_cells))
            .map(|_| {
                let cell = builder.declare_var(ty);
                builder.def_var(cell, zero);
                cell
            })
            .collect();
        Tile { cells, row, row_cells, width }
    }

    /// The variable that holds an element, and the lane; none if there is no such element. By V4
    /// nothing reaches one, but code is also written for groups of lanes whose guards fail.
    fn cell(&self, element: i64) -> Option<(Variable, u8)> {
        let row = element.checked_div_euclid(self.row)?.checked_mul(self.row_cells)?;
        let column = element.checked_rem_euclid(self.row)?;
        let cell = row.checked_add(column.checked_div_euclid(self.width)?)?;
        let lane = u8::try_from(column.checked_rem_euclid(self.width)?).ok()?;
        Some((*self.cells.get(usize::try_from(cell).ok()?)?, lane))
    }

    /// The variable that four lanes from an element on are, if they are one: not those of several
    /// rows.
    fn group(&self, element: i64, stride: i64) -> Option<Variable> {
        let end = element.checked_rem_euclid(self.row)?.checked_add(LANES)?;
        if self.width != LANES || stride != 1 || end > self.row {
            return None;
        }
        self.cell(element).filter(|(_, lane)| *lane == 0).map(|(cell, _)| cell)
    }

    /// One element.
    pub(super) fn get(&self, builder: &mut FunctionBuilder, element: i64) -> Value {
        let Some((cell, lane)) = self.cell(element) else { return builder.ins().f32const(0.0) };
        let value = builder.use_var(cell);
        if self.width == 1 { value } else { builder.ins().extractlane(value, lane) }
    }

    /// Writes one element.
    pub(super) fn set(&self, builder: &mut FunctionBuilder, element: i64, value: Value) {
        let Some((cell, lane)) = self.cell(element) else { return };
        let value = if self.width == 1 {
            value
        } else {
            let old = builder.use_var(cell);
            builder.ins().insertlane(old, value, lane)
        };
        builder.def_var(cell, value);
    }

    /// Four elements, `stride` apart.
    pub(super) fn get_lanes(
        &self,
        builder: &mut FunctionBuilder,
        element: i64,
        stride: i64,
    ) -> Value {
        if stride == 0 {
            let value = self.get(builder, element);
            return builder.ins().splat(types::F32X4, value);
        }
        if let Some(cell) = self.group(element, stride) {
            return builder.use_var(cell);
        }
        let first = self.get(builder, element);
        let start = builder.ins().splat(types::F32X4, first);
        LANE_NUMBERS.into_iter().skip(1).fold(start, |vector, lane| {
            let value = self.get(builder, lane_of(element, lane, stride));
            builder.ins().insertlane(vector, value, lane)
        })
    }

    /// Writes four elements, `stride` apart.
    pub(super) fn set_lanes(
        &self,
        builder: &mut FunctionBuilder,
        element: i64,
        stride: i64,
        value: Value,
    ) {
        if let Some(cell) = self.group(element, stride) {
            builder.def_var(cell, value);
            return;
        }
        for lane in LANE_NUMBERS {
            let scalar = builder.ins().extractlane(value, lane);
            self.set(builder, lane_of(element, lane, stride), scalar);
        }
    }
}

/// The element of a lane, of those that begin at an element.
fn lane_of(element: i64, lane: u8, stride: i64) -> i64 {
    element.wrapping_add(stride.wrapping_mul(lane.into()))
}

/// Whether a vector variable occurs in an index of the tile.
fn used_by_vectors(id: BufferId, scope: &[Stmt]) -> bool {
    let mut lanes: Vec<AxisId> = Vec::new();
    visit_loops(scope, &mut |l| {
        if l.mode == Mode::Vector && l.trip_count().is_some_and(|trips| trips >= LANES) {
            lanes.push(l.axis);
        }
    });
    let mut found = false;
    visit_accesses(scope, &mut |access, _| {
        let indexed = access.index.iter().any(|i| lanes.iter().any(|axis| i.mentions(*axis)));
        found |= access.buffer == id && indexed;
    });
    found
}
