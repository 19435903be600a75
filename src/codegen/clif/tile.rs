//! Register tiles as SSA variables: one a group of four lanes of the last dimension, or one an element
//! if the tile is never used by vectors.

use convgen_ir::nest::{AxisId, BufferId, Mode, Nest, Stmt, visit_accesses, visit_loops};
use cranelift_codegen::ir::{InstBuilder, Value, types};
use cranelift_frontend::{FunctionBuilder, Variable};

use super::LANES;

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
        let row_cells = (row + width - 1) / width;
        let ty = if width == 1 { types::F32 } else { types::F32X4 };
        let zero = builder.ins().f32const(0.0);
        let zero = if width == 1 { zero } else { builder.ins().splat(ty, zero) };
        let cells = (0..elements / row * row_cells)
            .map(|_| {
                let cell = builder.declare_var(ty);
                builder.def_var(cell, zero);
                cell
            })
            .collect();
        Tile { cells, row, row_cells, width }
    }

    /// The variable that holds an element, and the lane.
    fn cell(&self, element: i64) -> (Variable, i64) {
        let (row, column) = (element / self.row, element % self.row);
        let cell = row * self.row_cells + column / self.width;
        (self.cells[cell as usize], column % self.width)
    }

    /// Whether four lanes from an element on are one variable: not those of several rows.
    fn is_group(&self, element: i64, stride: i64) -> bool {
        let in_row = element % self.row + LANES <= self.row;
        self.width == LANES && stride == 1 && in_row && self.cell(element).1 == 0
    }

    /// One element.
    pub(super) fn get(&self, builder: &mut FunctionBuilder, element: i64) -> Value {
        let (cell, lane) = self.cell(element);
        let value = builder.use_var(cell);
        if self.width == 1 { value } else { builder.ins().extractlane(value, lane as u8) }
    }

    /// Writes one element.
    pub(super) fn set(&self, builder: &mut FunctionBuilder, element: i64, value: Value) {
        let (cell, lane) = self.cell(element);
        let value = if self.width == 1 {
            value
        } else {
            let old = builder.use_var(cell);
            builder.ins().insertlane(old, value, lane as u8)
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
        if self.is_group(element, stride) {
            return builder.use_var(self.cell(element).0);
        }
        let first = self.get(builder, element);
        let start = builder.ins().splat(types::F32X4, first);
        (1..LANES).fold(start, |vector, lane| {
            let value = self.get(builder, element + lane * stride);
            builder.ins().insertlane(vector, value, lane as u8)
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
        if self.is_group(element, stride) {
            builder.def_var(self.cell(element).0, value);
            return;
        }
        for lane in 0..LANES {
            let scalar = builder.ins().extractlane(value, lane as u8);
            self.set(builder, element + lane * stride, scalar);
        }
    }
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
