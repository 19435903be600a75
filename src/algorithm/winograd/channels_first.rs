//! What differs where the channels of a pixel are no neighbours: transforms work on vectors of
//! channels, so tiles of columns by channels change places on the way in and on the way out.
//!
//! ```text
//! for each slice of channels, each row:   rows[row,column,lane] = input[channel+lane,row,column]
//! for each row of tiles: line[row,column,lane] = A S A'
//!                        output[channel+lane,row,column] = epilogue(line[row,column,lane])
//! ```
//! Columns are unrolled, as many as a vector has lanes, so the emitter makes transposes in
//! registers of both copies. Only where the columns of a block are the same for all blocks, and
//! neighbours.

use convgen_ir::elem::Layout;
use convgen_ir::nest::{Access, Affine, BufferId, Expr, Guard, Loop, Stmt};

use super::nest::{Builder, Run, unrolled};
use super::plan::{SLICE, pieces};
use super::stages::Grid;
use crate::algorithm::build::{Iteration, nested, ordered};

impl Builder<'_> {
    /// Whether tiles of columns by channels change places; the last axis is transformed then.
    pub(super) fn transposes(&self) -> bool {
        let last = self.plan.axes.len() - 1;
        let axis = &self.plan.axes[last];
        self.plan.wide
            && self.problem.layout() == Layout::ChannelsFirst
            && axis.is_active()
            && axis.blocks() == 1
            && axis.phases() == 1
            && self.sum.axes[last].stripe.by == 1
    }

    /// Copies the rows of a block for some channels.
    pub(super) fn transposed_copy(&mut self, rows: BufferId, run: &Run) -> Vec<Stmt> {
        let last = self.plan.axes.len() - 1;
        let conv = self.sum.axes[last].conv;
        let within = |place: i64| place.clamp(0, self.plan.axes[last].reach() as i64);
        let (low, high) = (within(conv.pad_before), within(conv.input as i64 + conv.pad_before));
        let mut out = Vec::new();
        for slice in pieces(run.width, SLICE) {
            let slice = self.run("ic.copy", slice);
            let loops = self.along("row", |a| a.reach());
            let mut body = Vec::new();
            for piece in pieces((high - low) as u64, SLICE) {
                let columns = self.run("column", piece);
                body.extend(self.copied_tile(rows, run, &slice, &loops[..last], (&columns, low)));
            }
            let guarded = loops.into_iter().take(last).enumerate().rev();
            let copy = guarded.fold(body, |body, (axis, it)| {
                let guards = self.inside(axis, &it.index());
                vec![Stmt::Loop(Loop { guards, ..Loop::new(it.axis, it.extent, body) })]
            });
            out.extend(nested(std::iter::once(slice.around), copy));
        }
        out
    }

    /// Some columns of one row, for some channels.
    fn copied_tile(
        &mut self,
        rows: BufferId,
        run: &Run,
        slice: &Run,
        others: &[Iteration],
        (columns, low): (&Run, i64),
    ) -> Vec<Stmt> {
        let column = self.iteration("column.at", columns.width);
        let lane = self.iteration("ic.lane", slice.width);
        let across = (&columns.start + &column.index()).plus(low);
        let channel = &slice.start + &lane.index();
        let along = others.iter().map(|it| it.index()).chain([across]);
        let to: Vec<Affine> = along.collect();
        let from = to.iter().enumerate().map(|(axis, row)| self.place(axis, row)).collect();
        let group = self.group.index().scaled(self.sum.channels.0 as i64);
        let read = &(&group + &run.start) + &channel;
        let index = ordered(self.problem.layout(), self.batch.index(), read, from);
        let value = Expr::Load(Access { buffer: self.tensors.input, index });
        let index = to.into_iter().chain([channel]).collect();
        let store = Stmt::Store(Access { buffer: rows, index }, value);
        let tile = unrolled(nested([column, lane].into_iter(), vec![store]));
        nested(std::iter::once(columns.around), tile)
    }

    /// `sums` to the output for the channels of one panel, a row of tiles at a time.
    pub(super) fn transposed_scatter(&mut self, sums: BufferId, run: &Run) -> Vec<Stmt> {
        let mut out = Vec::new();
        for slice in pieces(run.width, SLICE) {
            let slice = self.run("oc.slice", slice);
            let lane = self.iteration("oc.lane", slice.width);
            let tiles = self.along("tile", |a| a.block);
            let last = tiles.len() - 1;
            let channel = &slice.start + &lane.index();
            let (from, extents, mut body) =
                self.first_stages(sums, &tiles, &channel, &lane, &mut out);
            let line = self.tile_line(&extents, lane, &mut out);
            let matrix = self.transforms[last].output.clone();
            let mut origin = vec![Affine::default(); tiles.len()];
            origin[last] = tiles[last].index().scaled(self.plan.axes[last].tile as i64);
            let to = Grid { buffer: line, origin, rest: vec![lane.index()] };
            body.extend(self.stage(&from, &to, last, &extents, &matrix, lane));
            let mut body = nested(std::iter::once(tiles[last]), body);
            body.extend(self.written_line(
                line,
                &tiles,
                &extents,
                &(&run.start + &slice.start),
                lane,
            ));
            let around = tiles.into_iter().take(last).chain([slice.around]);
            out.extend(nested(around.collect::<Vec<_>>().into_iter(), body));
        }
        out
    }

    /// Memory for the outputs of a row of tiles.
    fn tile_line(&mut self, extents: &[u64], lane: Iteration, out: &mut Vec<Stmt>) -> BufferId {
        let last = extents.len() - 1;
        let mut shape = extents.to_vec();
        shape[last] = self.plan.axes[last].block * self.plan.axes[last].tile;
        shape.push(SLICE.min(lane.extent.fixed().unwrap_or(1) as u64));
        let name = format!("line{}", self.nest.buffers.len());
        let line = self.scratch(&name, shape);
        out.push(Stmt::Declare(line));
        line
    }

    /// The epilogue of a row of tiles: of each output row that there is, columns by channels.
    fn written_line(
        &mut self,
        line: BufferId,
        tiles: &[Iteration],
        extents: &[u64],
        first: &Affine,
        lane: Iteration,
    ) -> Vec<Stmt> {
        let last = extents.len() - 1;
        let places = self.places(last, extents);
        let others: Vec<Affine> = (0..last)
            .map(|axis| {
                let number = self.number(axis, &tiles[axis].index(), &places[axis].index());
                self.coordinate(axis, &number)
            })
            .collect();
        let mut body = Vec::new();
        for piece in pieces(self.sum.axes[last].outputs, SLICE) {
            let columns = self.run("column", piece);
            let column = self.iteration("column.at", columns.width);
            let across = &columns.start + &column.index();
            let along = places[..last].iter().map(|it| it.index());
            let index = along.chain([across.clone(), lane.index()]).collect();
            let value = Expr::Load(Access { buffer: line, index });
            let at = others.iter().cloned().chain([self.coordinate(last, &across)]).collect();
            let mut tile = Vec::new();
            self.write(value, &(first + &lane.index()), at, &mut tile);
            let tile = unrolled(nested([column, lane].into_iter(), tile));
            body.extend(nested(std::iter::once(columns.around), tile));
        }
        others.into_iter().enumerate().rev().fold(body, |body, (axis, place)| {
            let guards = vec![Guard::Below(place, self.sum.axes[axis].outputs as i64)];
            let it = places[axis];
            vec![Stmt::Loop(Loop { guards, ..Loop::new(it.axis, it.extent, body) })]
        })
    }
}
