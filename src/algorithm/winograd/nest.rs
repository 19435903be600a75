//! The nest of one block of tiles: what is copied, transformed, multiplied and transformed back.

use convgen_ir::PaddingMode;
use convgen_ir::nest::{
    Access, Affine, AxisKind, BufferId, Expr, Guard, Loop, Mode, Nest, Role, Stmt,
};
use convgen_ir::problem::ConvProblem;

use super::linear;
use super::plan::{AxisPlan, Piece, Plan, SLICE, pieces};
use super::toom::Transforms;
use crate::algorithm::build::{Iteration, fixed, nested, ordered};
use crate::algorithm::sum::DenseSum;
use crate::algorithm::tensors::{Tensors, buffer};

/// The nest of a sum, as [`Plan`] decides.
pub(super) fn nest(problem: &ConvProblem, sum: &DenseSum, plan: &Plan) -> Nest {
    let mut nest = Nest::new("winograd");
    let tensors = Tensors::declare(&mut nest, problem, sum);
    let mut builder = Builder::new(problem, sum, plan, tensors, nest);
    builder.nest.pack = builder.pack();
    let block = builder.block();
    let tasks = builder.tasks();
    let loops = nested(tasks.into_iter(), block);
    builder.nest.body = parallel(loops);
    builder.nest
}

/// Marks the chain of loops that a block begins with as tasks.
fn parallel(block: Vec<Stmt>) -> Vec<Stmt> {
    let mut block = block;
    if let [Stmt::Loop(l)] = block.as_mut_slice() {
        l.mode = Mode::Parallel;
        let body = std::mem::take(&mut l.body);
        l.body = parallel(body);
    }
    block
}

/// A set of neighbouring elements of which `count` pieces of the same width are worked on in a
/// loop, or the one that is left over.
pub(super) struct Run {
    pub(super) width: u64,
    /// The first element, in terms of the loop's variable.
    pub(super) start: Affine,
    pub(super) around: Iteration,
}

impl Run {
    /// How many pieces of a width lie before it.
    fn number(&self, width: u64) -> Affine {
        let terms = self.start.terms().iter().map(|(axis, c)| (*axis, c / width as i64));
        Affine::from_terms(self.start.constant / width as i64, terms)
    }
}

pub(super) struct Builder<'p> {
    pub(super) problem: &'p ConvProblem,
    pub(super) sum: &'p DenseSum,
    pub(super) plan: &'p Plan,
    pub(super) tensors: Tensors<'p>,
    pub(super) transforms: Vec<Transforms>,
    pub(super) nest: Nest,
    pub(super) batch: Iteration,
    pub(super) group: Iteration,
    /// Set of phases of a dilation and block of tiles, of each axis.
    pub(super) phases: Vec<Iteration>,
    pub(super) blocks: Vec<Iteration>,
    /// The phase of that set that is worked on, of each axis.
    merged: Vec<Iteration>,
    /// The share of the output channels.
    part: Iteration,
}

impl<'p> Builder<'p> {
    fn new(
        problem: &'p ConvProblem,
        sum: &'p DenseSum,
        plan: &'p Plan,
        tensors: Tensors<'p>,
        mut nest: Nest,
    ) -> Builder<'p> {
        let mut axis =
            |name: String, extent| Iteration::new(&mut nest, name, AxisKind::Spatial, extent);
        let batch = axis("n".to_string(), convgen_ir::nest::Dim::Batch);
        let group = axis("g".to_string(), fixed(problem.groups()));
        let names = problem.axis_names();
        let mut along = |suffix: &str, extent: fn(&AxisPlan) -> u64| -> Vec<Iteration> {
            let axes = plan.axes.iter().zip(names);
            axes.map(|(a, name)| axis(format!("{name}.{suffix}"), fixed(extent(a)))).collect()
        };
        let phases = along("phase", |a| a.phase_sets());
        let blocks = along("block", |a| a.blocks());
        let part = axis("oc.part".to_string(), fixed(plan.parts));
        let transforms =
            plan.axes.iter().map(|a| Transforms::new(a.tile, a.taps(), a.stride())).collect();
        Builder {
            problem,
            sum,
            plan,
            tensors,
            transforms,
            nest,
            batch,
            group,
            phases,
            blocks,
            merged: vec![],
            part,
        }
    }

    fn tasks(&self) -> Vec<Iteration> {
        let mut tasks = vec![self.batch, self.group];
        tasks.extend(self.phases.iter().chain(&self.blocks).chain([&self.part]));
        tasks.retain(|task| task.extent != fixed(1));
        tasks
    }

    /// A new loop variable; loops side by side may have the same name with a number after it.
    pub(super) fn iteration(&mut self, name: &str, extent: u64) -> Iteration {
        self.axis(name, AxisKind::Spatial, extent)
    }

    fn axis(&mut self, name: &str, kind: AxisKind, extent: u64) -> Iteration {
        let name = self.nest.new_axis_name(name);
        Iteration::new(&mut self.nest, name, kind, fixed(extent))
    }

    /// One loop a spatial axis.
    pub(super) fn along(
        &mut self,
        name: &str,
        extent: impl Fn(&AxisPlan) -> u64,
    ) -> Vec<Iteration> {
        let (plan, names) = (self.plan, self.problem.axis_names());
        let axes = plan.axes.iter().zip(names);
        axes.map(|(a, axis)| self.iteration(&format!("{axis}.{name}"), extent(a))).collect()
    }

    pub(super) fn run(&mut self, name: &str, piece: Piece) -> Run {
        let around = self.iteration(name, piece.count);
        let start = around.index().scaled(piece.width as i64).plus(piece.start as i64);
        Run { width: piece.width, start, around }
    }

    pub(super) fn scratch(&mut self, name: &str, shape: Vec<u64>) -> BufferId {
        let shape = shape.into_iter().map(fixed).collect();
        buffer(&mut self.nest, Role::Scratch, name, self.plan.elem, shape)
    }

    /// The points of all axes.
    pub(super) fn points(&self) -> Vec<u64> {
        self.plan.axes.iter().map(|a| a.points()).collect()
    }

    /// The number of an output of a phase of an axis: of a tile of this block, and within the tile.
    pub(super) fn number(&self, axis: usize, tile: &Affine, within: &Affine) -> Affine {
        let a = &self.plan.axes[axis];
        let tile = &self.blocks[axis].index().scaled(a.block as i64) + tile;
        &tile.scaled(a.tile as i64) + within
    }

    /// The coordinate in the sum's output of such a number.
    pub(super) fn coordinate(&self, axis: usize, number: &Affine) -> Affine {
        let dilation = self.plan.axes[axis].phases() as i64;
        &number.scaled(dilation) + &self.phase(axis)
    }

    /// The coordinate in the input of a row that the block reads.
    pub(super) fn place(&self, axis: usize, row: &Affine) -> Affine {
        let a = &self.plan.axes[axis];
        let stride = a.stride() as i64;
        let first = self.number(axis, &Affine::default(), &Affine::default()).scaled(stride);
        let place = &(&first + row).scaled(a.phases() as i64) + &self.phase(axis).scaled(stride);
        place.plus(-self.sum.axes[axis].conv.pad_before)
    }

    fn phase(&self, axis: usize) -> Affine {
        let set = self.phases[axis].index().scaled(self.plan.axes[axis].merged as i64);
        &set + &self.merged[axis].index()
    }

    /// Where a row of the block is inside the input.
    pub(super) fn inside(&self, axis: usize, row: &Affine) -> Vec<Guard> {
        let place = self.place(axis, row);
        let input = self.sum.axes[axis].conv.input as i64;
        vec![Guard::AtLeast(place.clone(), 0), Guard::Below(place, input)]
    }

    /// The row of a tile of the phase that is worked on, among those of the block.
    pub(super) fn tile_row(&self, tiles: &[Iteration]) -> Affine {
        let phases = self.plan.axes.iter().zip(&self.merged).map(|(a, it)| (a.merged, it));
        let tiles = self.plan.axes.iter().zip(tiles).map(|(a, it)| (a.block, it));
        phases
            .chain(tiles)
            .fold(Affine::default(), |row, (extent, it)| &row.scaled(extent as i64) + &it.index())
    }

    /// Loops over the phases of a block, around what `body` writes for the one that is worked on.
    fn each_phase(&mut self, body: impl FnOnce(&mut Self) -> Vec<Stmt>) -> Vec<Stmt> {
        self.merged = self.along("phase.at", |a| a.merged);
        let loops: Vec<Iteration> =
            self.merged.iter().copied().filter(|it| it.extent != fixed(1)).collect();
        nested(loops.into_iter(), body(self))
    }

    /// What one task does.
    fn block(&mut self) -> Vec<Stmt> {
        let mut body = Vec::new();
        let transformed = self.gather(&mut body);
        let share = self.sum.channels.1 / self.plan.parts;
        let first = self.part.index().scaled(share as i64);
        let runs = pieces(share, self.plan.channels);
        let mut sums = self.points();
        sums.extend([self.plan.rows(), self.plan.channels]);
        let sums = self.scratch("sums", sums);
        body.push(Stmt::Declare(sums));
        for piece in runs {
            let run = self.run("oc.o", piece);
            let run = Run { start: &run.start + &first, ..run };
            let mut inside = self.products(transformed, sums, &run);
            inside.extend(self.each_phase(|builder| builder.scatter(sums, &run)));
            body.extend(nested(std::iter::once(run.around), inside));
        }
        body
    }

    /// Copies and transforms all input channels, some at a time: `[point.., tile, ic]`.
    fn gather(&mut self, body: &mut Vec<Stmt>) -> BufferId {
        let mut shape = self.points();
        shape.extend([self.plan.rows(), self.plan.padded_channels]);
        let transformed = self.scratch("transformed", shape);
        let at_once = self.plan.copied;
        let mut extents: Vec<u64> = self.plan.axes.iter().map(|a| a.reach()).collect();
        extents.push(at_once);
        let rows = self.scratch("rows", extents);
        body.extend([Stmt::Declare(transformed), Stmt::Declare(rows)]);
        body.extend(self.each_phase(|builder| builder.gather_phase(rows, transformed)));
        transformed
    }

    fn gather_phase(&mut self, rows: BufferId, transformed: BufferId) -> Vec<Stmt> {
        let at_once = self.plan.copied;
        let mut body = Vec::new();
        if self.sum.padding == PaddingMode::Zeros && self.is_padded() {
            body.extend(self.zeros(rows, at_once));
        }
        for piece in pieces(self.sum.channels.0, at_once) {
            let run = self.run("ic.o", piece);
            let mut inside = self.copy(rows, &run);
            for slice in pieces(piece.width, SLICE) {
                let slice = self.run("ic.slice", slice);
                self.transform_input(rows, transformed, &run, &slice, &mut inside);
            }
            body.extend(nested(std::iter::once(run.around), inside));
        }
        body
    }

    /// Whether some block reads beyond the input.
    fn is_padded(&self) -> bool {
        self.plan.axes.iter().any(|a| a.is_padded())
    }

    /// Zeros outside of the input stay as they are: only the rest is copied.
    fn zeros(&mut self, rows: BufferId, channels: u64) -> Vec<Stmt> {
        let mut loops = self.along("zero", |a| a.reach());
        loops.push(self.iteration("ic.zero", channels));
        let index = loops.iter().map(|it| it.index()).collect();
        let store = Stmt::Store(Access { buffer: rows, index }, Expr::f32(0.0));
        vectorized(nested(loops.into_iter(), vec![store]))
    }

    /// Copies what a block reads: what is inside, or all of it where padding is made of the input.
    fn copy(&mut self, rows: BufferId, run: &Run) -> Vec<Stmt> {
        let zeros = self.sum.padding == PaddingMode::Zeros;
        if zeros && self.transposes() {
            return self.transposed_copy(rows, run);
        }
        let loops = self.along("row", |a| a.reach());
        let channel = self.iteration("ic.copy", run.width);
        let to: Vec<Affine> = loops.iter().chain([&channel]).map(|it| it.index()).collect();
        let mut from = Vec::new();
        let mut guards = Vec::new();
        for (axis, it) in loops.iter().enumerate() {
            guards.push(if zeros { self.inside(axis, &it.index()) } else { vec![] });
            from.push(self.place(axis, &it.index()));
        }
        let group = self.group.index().scaled(self.sum.channels.0 as i64);
        let read = &(&group + &run.start) + &channel.index();
        let layout = self.problem.layout();
        let index = ordered(layout, self.batch.index(), read, from);
        let source = Access { buffer: self.tensors.input, index };
        let value = match zeros {
            true => Expr::Load(source),
            false => Expr::Pad(self.sum.padding, source),
        };
        let body = vec![Stmt::Store(Access { buffer: rows, index: to }, value)];
        let body = vectorized(nested(std::iter::once(channel), body));
        loops.into_iter().zip(guards).rev().fold(body, |body, (it, guards)| {
            vec![Stmt::Loop(Loop { guards, ..Loop::new(it.axis, it.extent, body) })]
        })
    }

    /// For every point, tiles by input channels times input by output channels.
    fn products(&mut self, transformed: BufferId, sums: BufferId, run: &Run) -> Vec<Stmt> {
        let points = self.along("point", |a| a.points());
        let mut inside = Vec::new();
        for piece in pieces(self.plan.tiles(), self.plan.pixels) {
            let tiles = self.run("t.o", piece);
            let body = self.product([transformed, sums], &points, run, &tiles);
            inside.extend(nested(std::iter::once(tiles.around), body));
        }
        let mut products = nested(points.iter().copied(), inside);
        if self.plan.ahead.is_some() {
            // The panel of the next point: each pass over the tiles fetches its share of it.
            let last = points.iter().rev().find(|it| it.extent != fixed(1));
            each_loop(&mut products, last, &mut |l| l.ahead = Some(1));
        }
        products
    }

    fn product(
        &mut self,
        [transformed, sums]: [BufferId; 2],
        points: &[Iteration],
        run: &Run,
        tiles: &Run,
    ) -> Vec<Stmt> {
        let shape = vec![fixed(tiles.width), fixed(run.width)];
        let name = format!("acc{}", self.nest.buffers.len());
        let acc = buffer(&mut self.nest, Role::Reg, &name, self.plan.elem, shape);
        let (tile, lane) = (self.iteration("t", tiles.width), self.iteration("oc", run.width));
        let steps = self.plan.steps(tiles.width * run.width);
        let outer = self.axis("ic.o", AxisKind::Reduction, self.sum.channels.0 / steps);
        let inner = self.axis("ic.i", AxisKind::Reduction, steps);
        let channel = &outer.index().scaled(steps as i64) + &inner.index();
        let index = |within: Vec<Affine>| {
            points.iter().map(|it| it.index()).chain(within).collect::<Vec<_>>()
        };
        let row = &tiles.start + &tile.index();
        let sum = Access { buffer: acc, index: vec![tile.index(), lane.index()] };
        let input =
            Access { buffer: transformed, index: index(vec![row.clone(), channel.clone()]) };
        let mut panel = vec![self.group.index(), run.number(self.plan.channels)];
        panel.extend(index(vec![channel, lane.index()]));
        let panels = self.panels();
        let weight = Access { buffer: panels, index: panel };
        let value = Expr::fma(Expr::Load(input), Expr::Load(weight), Expr::Load(sum.clone()));
        let tile_of = |stmt| unrolled(nested([tile, lane].into_iter(), vec![stmt]));
        let start = tile_of(Stmt::Store(sum.clone(), Expr::f32(0.0)));
        let update = tile_of(Stmt::Store(sum.clone(), value));
        let mut reduction = nested([outer, inner].into_iter(), update);
        if let [Stmt::Loop(l)] = reduction.as_mut_slice()
            && l.axis == outer.axis
        {
            l.ahead = self.plan.ahead;
        }
        each_loop(&mut reduction, (steps > 1).then_some(&inner), &mut |l| l.mode = Mode::Unroll);
        let to = Access { buffer: sums, index: index(vec![row, lane.index()]) };
        let finish = tile_of(Stmt::Store(to, Expr::Load(sum)));
        [Stmt::Declare(acc)].into_iter().chain(start).chain(reduction).chain(finish).collect()
    }

    /// The packed weights: `[group, panel, point.., ic, oc]`.
    fn panels(&mut self) -> BufferId {
        if let Some(panels) = self.nest.find_role(Role::Packed) {
            return panels;
        }
        let channels = self.sum.channels;
        let mut shape = vec![self.problem.groups(), channels.1.div_ceil(self.plan.channels)];
        shape.extend(self.points());
        shape.extend([channels.0, self.plan.channels]);
        let shape = shape.into_iter().map(fixed).collect();
        buffer(&mut self.nest, Role::Packed, "panels", self.plan.elem, shape)
    }

    /// Transforms the weights of each pair of channels, axis after axis.
    fn pack(&mut self) -> Vec<Stmt> {
        let Some(weights) = self.tensors.weights else { return vec![] };
        let panels = self.panels();
        let (reads, writes) = self.sum.channels;
        let group = self.iteration("pack.g", self.problem.groups());
        let panel = self.iteration("pack.oc.o", writes.div_ceil(self.plan.channels));
        let ic = self.iteration("pack.ic", reads);
        let oc = self.iteration("pack.oc", self.plan.channels);
        let channel = &panel.index().scaled(self.plan.channels as i64) + &oc.index();
        let taps: Vec<usize> = self.plan.axes.iter().map(|a| a.taps() as usize).collect();
        let mut values: Vec<Expr> = Vec::new();
        let mut body = Vec::new();
        for tap in combinations(&taps) {
            let tap: Vec<Affine> = tap.into_iter().map(|k| Affine::constant(k as i64)).collect();
            let channels = [&group.index(), &ic.index(), &channel];
            let index = self.sum.weight_index(channels, &tap);
            values.push(Expr::Pad(PaddingMode::Zeros, Access { buffer: weights, index }));
        }
        let mut extents = taps;
        for axis in 0..extents.len() {
            values = self.transform_axis(values, &mut extents, axis, &mut body);
        }
        for (point, value) in combinations(&extents).into_iter().zip(values) {
            let mut index = vec![group.index(), panel.index()];
            index.extend(point.into_iter().map(|p| Affine::constant(p as i64)));
            index.extend([ic.index(), oc.index()]);
            body.push(Stmt::Store(Access { buffer: panels, index }, value));
        }
        nested([group, panel, ic, oc].into_iter(), body)
    }

    /// Applies the transform of the weights along one axis of a grid of values.
    fn transform_axis(
        &mut self,
        values: Vec<Expr>,
        extents: &mut [usize],
        axis: usize,
        body: &mut Vec<Stmt>,
    ) -> Vec<Expr> {
        let matrix = &self.transforms[axis].weights;
        let (before, length) = (extents[..axis].iter().product::<usize>(), extents[axis]);
        let after: usize = extents[axis + 1..].iter().product();
        extents[axis] = matrix.len();
        let mut result = vec![Expr::f32(0.0); before * matrix.len() * after];
        for (outer, inner) in (0..before).flat_map(|o| (0..after).map(move |i| (o, i))) {
            let line = (0..length).map(|k| values[(outer * length + k) * after + inner].clone());
            let rows = linear::times(matrix, line.collect(), "w", &mut self.nest, body);
            for (point, value) in rows.into_iter().enumerate() {
                let local = self.nest.add_local(format!("w{}", self.nest.locals.len()));
                body.push(Stmt::Let(local, value));
                result[(outer * extents[axis] + point) * after + inner] = Expr::Local(local);
            }
        }
        result
    }
}

/// All numbers with digits below the extents, the last digit fastest.
fn combinations(extents: &[usize]) -> Vec<Vec<usize>> {
    extents.iter().fold(vec![vec![]], |all, extent| {
        let longer = |digits: &Vec<usize>| -> Vec<Vec<usize>> {
            (0..*extent).map(|d| digits.iter().copied().chain([d]).collect()).collect()
        };
        all.iter().flat_map(longer).collect()
    })
}

/// Marks the innermost loop of a chain as lanes, if it has several.
pub(super) fn vectorized(mut block: Vec<Stmt>) -> Vec<Stmt> {
    if let [Stmt::Loop(l)] = block.as_mut_slice() {
        let body = std::mem::take(&mut l.body);
        let inner = matches!(body.as_slice(), [Stmt::Loop(_)]);
        l.mode = if inner || l.hi == fixed(1) { l.mode } else { Mode::Vector };
        l.body = if inner { vectorized(body) } else { body };
    }
    block
}

/// Marks the innermost loop of a chain as lanes and those around it as unrolled.
pub(super) fn unrolled(block: Vec<Stmt>) -> Vec<Stmt> {
    let mut block = vectorized(block);
    let mut chain = block.as_mut_slice();
    while let [Stmt::Loop(l)] = chain {
        if l.mode == Mode::Serial {
            l.mode = Mode::Unroll;
        }
        chain = l.body.as_mut_slice();
    }
    block
}

/// Changes the loops over a variable.
fn each_loop(block: &mut [Stmt], over: Option<&Iteration>, change: &mut impl FnMut(&mut Loop)) {
    convgen_ir::nest::visit_loops_mut(block, &mut |l| {
        if over.is_some_and(|it| it.axis == l.axis) {
            change(l);
        }
    });
}
