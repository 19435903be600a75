//! The transforms of tiles: one axis after the other, a slice of channels at a time.

use convgen_ir::nest::{Access, Affine, BinaryOp, BufferId, Expr, Guard, Loop, Stmt};

use super::linear;
use super::nest::{Builder, Run, vectorized};
use super::plan::{AxisPlan, SLICE, pieces};
use super::toom::Matrix;
use crate::algorithm::build::{Iteration, nested, ordered};

/// Where a tile's values lie along the way: one index an axis, and what comes after.
pub(super) struct Grid {
    pub(super) buffer: BufferId,
    /// Added to the indices of the axes.
    pub(super) origin: Vec<Affine>,
    /// The indices after them.
    pub(super) rest: Vec<Affine>,
}

impl Grid {
    fn at(&self, axes: &[Affine]) -> Access {
        let along = axes.iter().zip(&self.origin).map(|(index, origin)| origin + index);
        Access { buffer: self.buffer, index: along.chain(self.rest.iter().cloned()).collect() }
    }
}

impl Builder<'_> {
    /// The axes that are transformed; the others have one tap, and each tile one output.
    fn active(&self) -> Vec<usize> {
        (0..self.plan.axes.len()).filter(|a| self.plan.axes[*a].is_active()).collect()
    }

    /// `rows` to `transformed` for one slice of the channels that were copied.
    pub(super) fn transform_input(
        &mut self,
        rows: BufferId,
        transformed: BufferId,
        run: &Run,
        slice: &Run,
        out: &mut Vec<Stmt>,
    ) {
        let lane = self.iteration("ic.lane", slice.width);
        let tiles = self.along("tile", |a| a.block);
        let tile = self.tile_row(&tiles);
        let within = &slice.start + &lane.index();
        let origin = self.plan.axes.iter().zip(&tiles);
        let step = |a: &AxisPlan| (a.tile * a.stride()) as i64;
        let origin = origin.map(|(a, t)| t.index().scaled(step(a))).collect();
        let zero = vec![Affine::default(); tiles.len()];
        let to = Grid {
            buffer: transformed,
            origin: zero.clone(),
            rest: vec![tile, &run.start + &within],
        };
        let mut from = Grid { buffer: rows, origin, rest: vec![within] };
        let active = self.active();
        let mut body = Vec::new();
        let mut extents: Vec<u64> = self.plan.axes.iter().map(AxisPlan::window).collect();
        for (number, axis) in active.iter().enumerate() {
            let matrix = self.transforms[*axis].input.clone();
            let before = extents.clone();
            extents[*axis] = matrix.len() as u64;
            let last = number + 1 == active.len();
            let stage = if last { None } else { Some(self.between(out, extents.clone(), &lane)) };
            let grid = stage.as_ref().unwrap_or(&to);
            body.extend(self.stage(&from, grid, *axis, &before, &matrix, lane));
            if let Some(stage) = stage {
                from = stage;
            }
        }
        let loops = tiles.into_iter().chain([slice.around]);
        out.extend(nested(loops, body));
    }

    /// Memory between two stages; declared before the loops over tiles, all of which use it.
    fn between(&mut self, out: &mut Vec<Stmt>, mut extents: Vec<u64>, lane: &Iteration) -> Grid {
        let origin = vec![Affine::default(); extents.len()];
        extents.push(SLICE);
        let name = format!("half{}", self.nest.buffers.len());
        let buffer = self.scratch(&name, extents);
        out.push(Stmt::Declare(buffer));
        Grid { buffer, origin, rest: vec![lane.index()] }
    }

    /// Applies a matrix along one axis, for every place along the others.
    pub(super) fn stage(
        &mut self,
        from: &Grid,
        to: &Grid,
        axis: usize,
        extents: &[u64],
        matrix: &Matrix,
        lane: Iteration,
    ) -> Vec<Stmt> {
        let places = self.places(axis, extents);
        let mut body = Vec::new();
        let values = self.line(from, &places, axis, matrix, &mut body);
        for (point, value) in values.into_iter().enumerate() {
            body.push(Stmt::Store(to.at(&at(&places, axis, point as i64)), value));
        }
        let others = places.iter().enumerate().filter(|(a, _)| *a != axis).map(|(_, it)| *it);
        nested(others.collect::<Vec<_>>().into_iter(), vectorized(nested([lane].into_iter(), body)))
    }

    /// A loop an axis; that of the axis which is transformed is not used.
    pub(super) fn places(&mut self, axis: usize, extents: &[u64]) -> Vec<Iteration> {
        let names = self.problem.axis_names();
        let each = extents.iter().enumerate();
        each.map(|(a, extent)| {
            self.iteration(&format!("{}.at", names[a]), if a == axis { 1 } else { *extent })
        })
        .collect()
    }

    /// The matrix times the values along an axis.
    fn line(
        &mut self,
        from: &Grid,
        places: &[Iteration],
        axis: usize,
        matrix: &Matrix,
        body: &mut Vec<Stmt>,
    ) -> Vec<Expr> {
        let width = matrix.first().map_or(0, Vec::len) as i64;
        let loads = (0..width).map(|i| Expr::Load(from.at(&at(places, axis, i))));
        let inputs = loads
            .map(|load| {
                let local = self.nest.add_local(format!("x{}", self.nest.locals.len()));
                body.push(Stmt::Let(local, load));
                Expr::Local(local)
            })
            .collect();
        linear::times(matrix, inputs, "y", &mut self.nest, body)
    }

    /// `sums` to the output for the channels of one panel: tiles that are whole along the last axis
    /// are written as they are computed, the others by way of memory, as far as there are outputs.
    pub(super) fn scatter(&mut self, sums: BufferId, run: &Run) -> Vec<Stmt> {
        if self.transposes() {
            return self.transposed_scatter(sums, run);
        }
        let mut out = Vec::new();
        for slice in pieces(run.width, SLICE) {
            let slice = self.run("oc.slice", slice);
            self.scatter_tiles(sums, run, &slice, true, &mut out);
            self.scatter_tiles(sums, run, &slice, false, &mut out);
        }
        out
    }

    fn scatter_tiles(
        &mut self,
        sums: BufferId,
        run: &Run,
        slice: &Run,
        whole: bool,
        out: &mut Vec<Stmt>,
    ) {
        let active = self.active();
        let Some(last) = active.last().copied() else { return };
        let wholes = self.plan.axes[last].whole_tiles();
        if (whole && wholes == 0) || (!whole && wholes == self.plan.axes[last].tiles) {
            return;
        }
        let lane = self.iteration("oc.lane", slice.width);
        let tiles = self.along("tile", |a| a.block);
        let channel = &slice.start + &lane.index();
        let (from, extents, mut body) = self.first_stages(sums, &tiles, &channel, &lane, out);
        let edge = (!whole).then(|| self.edge(out, last, &lane));
        let channel = &run.start + &channel;
        let finish =
            Finish { tiles: &tiles, lane, axis: last, extents: &extents, channel: &channel };
        body.extend(self.finish(&from, &finish, edge));
        let number = &self.blocks[last].index().scaled(self.plan.axes[last].block as i64)
            + &tiles[last].index();
        let guard = match whole {
            true => Guard::Below(number, wholes as i64),
            false => Guard::AtLeast(number, wholes as i64),
        };
        let body = nested(std::iter::once(slice.around), body);
        out.extend(tiles.into_iter().enumerate().rev().fold(body, |body, (axis, it)| {
            let guards = if axis == last { vec![guard.clone()] } else { vec![] };
            vec![Stmt::Loop(Loop { guards, ..Loop::new(it.axis, it.extent, body) })]
        }));
    }

    /// The transforms back along all axes but the last: where the values then lie, and their
    /// extents.
    pub(super) fn first_stages(
        &mut self,
        sums: BufferId,
        tiles: &[Iteration],
        channel: &Affine,
        lane: &Iteration,
        out: &mut Vec<Stmt>,
    ) -> (Grid, Vec<u64>, Vec<Stmt>) {
        let active = self.active();
        let rest = vec![self.tile_row(tiles), channel.clone()];
        let origin = vec![Affine::default(); tiles.len()];
        let mut from = Grid { buffer: sums, origin, rest };
        let mut extents = self.points();
        let mut body = Vec::new();
        for axis in &active[..active.len() - 1] {
            let matrix = self.transforms[*axis].output.clone();
            let mut after = extents.clone();
            after[*axis] = matrix.len() as u64;
            let stage = self.between(out, after.clone(), lane);
            body.extend(self.stage(&from, &stage, *axis, &extents, &matrix, *lane));
            (from, extents) = (stage, after);
        }
        (from, extents, body)
    }

    /// Memory for the outputs of a tile along its last axis.
    fn edge(&mut self, out: &mut Vec<Stmt>, last: usize, lane: &Iteration) -> Grid {
        let shape = vec![self.plan.axes[last].tile, SLICE];
        let name = format!("edge{}", self.nest.buffers.len());
        let buffer = self.scratch(&name, shape);
        out.push(Stmt::Declare(buffer));
        Grid { buffer, origin: vec![Affine::default()], rest: vec![lane.index()] }
    }

    /// The last stage, and the epilogue: for every place along the other axes that is an output.
    fn finish(&mut self, from: &Grid, finish: &Finish, edge: Option<Grid>) -> Vec<Stmt> {
        let Finish { tiles, lane, axis, extents, channel } = *finish;
        let places = self.places(axis, extents);
        let matrix = self.transforms[axis].output.clone();
        let mut body = Vec::new();
        let values = self.line(from, &places, axis, &matrix, &mut body);
        let lanes = |body| vectorized(nested(std::iter::once(lane), body));
        let position = |builder: &Self, within: &Affine| -> Vec<Affine> {
            (0..places.len())
                .map(|a| {
                    let own = places[a].index();
                    let within = if a == axis { within } else { &own };
                    let number = builder.number(a, &tiles[a].index(), within);
                    builder.coordinate(a, &number)
                })
                .collect()
        };
        let mut inside = match edge {
            None => {
                for (output, value) in values.into_iter().enumerate() {
                    let index = position(self, &Affine::constant(output as i64));
                    self.write(value, channel, index, &mut body);
                }
                lanes(body)
            }
            Some(edge) => {
                for (output, value) in values.into_iter().enumerate() {
                    body.push(Stmt::Store(edge.at(&[Affine::constant(output as i64)]), value));
                }
                let mut both = lanes(body);
                let output = self.iteration("edge", self.plan.axes[axis].tile);
                let index = position(self, &output.index());
                let guard = Guard::Below(index[axis].clone(), self.sum.axes[axis].outputs as i64);
                let mut copy = Vec::new();
                self.write(Expr::Load(edge.at(&[output.index()])), channel, index, &mut copy);
                let copy = Loop {
                    guards: vec![guard],
                    ..Loop::new(output.axis, output.extent, lanes(copy))
                };
                both.push(Stmt::Loop(copy));
                both
            }
        };
        let none = Affine::default();
        let index = position(self, &none);
        for (a, it) in places.iter().enumerate().rev().filter(|(a, _)| *a != axis) {
            let guards = vec![Guard::Below(index[a].clone(), self.sum.axes[a].outputs as i64)];
            inside = vec![Stmt::Loop(Loop { guards, ..Loop::new(it.axis, it.extent, inside) })];
        }
        inside
    }

    /// One output of the sum, at these coordinates of it.
    pub(super) fn write(
        &mut self,
        value: Expr,
        channel: &Affine,
        at: Vec<Affine>,
        out: &mut Vec<Stmt>,
    ) {
        let group = self.group.index().scaled(self.sum.channels.1 as i64);
        let channel = &group + channel;
        let stripes = at.iter().zip(&self.sum.axes);
        let places = stripes.map(|(place, s)| place.scaled(s.stripe.by).plus(s.stripe.from));
        let layout = self.problem.layout();
        let index = ordered(layout, self.batch.index(), channel.clone(), places.collect());
        let sum = match self.tensors.bias(&channel) {
            Some(bias) => Expr::binary(BinaryOp::Add, value, bias),
            None => value,
        };
        let value = self.tensors.epilogue(&mut self.nest, sum, &channel, &index, out);
        out.push(Stmt::Store(Access { buffer: self.tensors.output, index }, value));
    }
}

/// What the last stage is done for.
struct Finish<'a> {
    tiles: &'a [Iteration],
    lane: Iteration,
    /// The axis that is transformed last.
    axis: usize,
    extents: &'a [u64],
    channel: &'a Affine,
}

/// The places along the axes, with a number along one of them.
fn at(places: &[Iteration], axis: usize, number: i64) -> Vec<Affine> {
    let each = places.iter().enumerate();
    each.map(|(a, it)| if a == axis { Affine::constant(number) } else { it.index() }).collect()
}
