//! The schedules of the gradients of weights and bias.
//!
//! A gradient sums over images and positions, so its register tile is made of channels: lanes of
//! one kind by rows of the other, one tap at a time. Each position then costs one vector of the one
//! tensor and one broadcast a row of the other, as in a matrix product. Positions whose tap is on
//! padding are left out of the loops. Where the channels of the input are planes, a block of
//! positions is copied for all tiles, transposed in registers and with the padding around it; those
//! of the other tensor are broadcast from where they lie. 1x1 over 64 channels of 28x28: 0.71 ms an
//! element at a time, 0.044 so, 0.038 channels last.

mod blocks;

use convgen_ir::elem::Layout;
use convgen_ir::problem::{ConvProblem, Direction, SpatialAxis};
use convgen_ir::schedule::{Directive, Schedule, Tail};

use self::blocks::Tiles;
use super::caution::Caution;
use super::plan::{has_padding, loops_if_peeled};
use super::{SHORTEST_VECTOR, balanced, tile_registers};
use crate::target::{CACHE_LINE, Isa, Target};
use crate::transform::peel::MAX_PARTS;

/// Vectors of a tile at most: with few rows, as many give the multiply-adds that hide their
/// latency.
const MAX_VECTORS: u64 = 8;

/// Sums that Cranelift keeps in registers, of the sixteen of every target.
const CRANELIFT_SUMS: u64 = 8;

/// Rows and columns of a tile without lanes.
const SCALAR_TILE: u64 = 3;

/// The schedule of a problem whose direction is one of these gradients, without some things.
pub(super) fn schedule(problem: &ConvProblem, target: &Target, caution: Caution) -> Schedule {
    let mut writer = GradientWriter { problem, target, caution, directives: vec![] };
    match problem.direction() {
        Direction::BackwardBias => writer.bias(),
        Direction::Forward
        | Direction::Transposed
        | Direction::BackwardData
        | Direction::BackwardWeights => writer.weights(),
    }
    Schedule { directives: writer.directives }
}

/// Whether a loop over positions leaves out those on padding: one position is no loop to skip
/// iterations of, nor is padding that is made of the input, or that must stay in the sum.
fn skips(problem: &ConvProblem, target: &Target, s: &SpatialAxis, caution: Caution) -> bool {
    let stays = problem.extends_input() || target.accuracy().keeps_order() || caution.borders;
    has_padding(s) && s.output() > 1 && !stays
}

/// A loop that is tiled: its axis and how long it is.
type Tiled = (&'static str, u64);

struct GradientWriter<'p> {
    problem: &'p ConvProblem,
    target: &'p Target,
    caution: Caution,
    directives: Vec<Directive>,
}

impl GradientWriter<'_> {
    fn weights(&mut self) {
        let (problem, caution) = (self.problem, self.caution);
        let (ic, oc) = (problem.in_channels_per_group(), problem.out_channels_per_group());
        let (rows, lanes) = self.axes(("ic", ic), ("oc", oc));
        if let Some(lanes @ ("g", _)) = lanes {
            return self.depthwise(lanes);
        }
        let columns = lanes.unwrap_or(if rows.0 == "ic" { ("oc", oc) } else { ("ic", ic) });
        let (row_tile, column_tile) = match lanes {
            Some((_, extent)) => self.tile(rows.1, extent),
            None => (SCALAR_TILE, SCALAR_TILE),
        };
        let (row_outer, row_inner) = self.split(rows, row_tile, Tail::Cut);
        let tail = if lanes.is_some() { Tail::Pad } else { Tail::Cut };
        let (column_outer, column_inner) = self.split(columns, column_tile, tail);
        let tiles = [
            Tiles { outer: row_outer, count: rows.1.div_ceil(row_tile) },
            Tiles { outer: column_outer, count: columns.1.div_ceil(column_tile) },
        ];
        let tile_sums = row_tile.min(rows.1) * column_tile;
        let inner = [row_inner, column_inner];
        let [row_tasks, column_tasks] = self.tasks(rows.0, [&tiles[0], &tiles[1]], tile_sums);
        let others = ["g", "oc", "ic"].into_iter();
        let others = others.filter(|name| *name != columns.0 && *name != rows.0);
        let mut tasks: Vec<String> = others.map(str::to_string).collect();
        let mut loops = Vec::new();
        for (tiles, in_task) in tiles.into_iter().zip([row_tasks, column_tasks]) {
            let (task, within) = self.share_out(tiles, in_task);
            tasks.extend(task);
            loops.extend(within);
        }
        let taps = problem.axis_names().iter().map(|name| format!("k{name}"));
        loops.extend(taps);
        let blocks = self.blocks();
        let order = [&tasks[..], &loops, &inner].concat();
        self.directives.push(Directive::Reorder { axes: order });
        let taps_from = loops.len() - problem.spatial().len();
        let around: Vec<&String> = match blocks.over {
            Some(_) => tasks.iter().collect(),
            // Sums that go on to no other block are soon written, from the first cache.
            None => tasks.iter().chain(&loops[..taps_from]).collect(),
        };
        let at = around[around.len() - 1].clone();
        let task = tasks[tasks.len() - 1].clone();
        let spilled = loops[around.len() - tasks.len()..].to_vec();
        self.directives.extend(tasks.into_iter().map(|axis| Directive::Parallel { axis }));
        self.directives.push(Directive::AccumulateOutput { at: loops[loops.len() - 1].clone() });
        self.write_out(&inner, lanes.is_some());
        let copies = self.copies();
        if lanes.is_some()
            && !copies
            && self.lines_worth_a_prefetch(row_tile.min(rows.1), column_tile)
        {
            self.prefetch(&blocks);
        }
        let padded = problem.spatial().iter().zip(&blocks.inner);
        let skipped = |s: &SpatialAxis| !copies && skips(problem, self.target, s, caution);
        for (_, name) in padded.filter(|(s, _)| skipped(s)) {
            self.directives.push(Directive::SkipPadding { at: name.clone() });
        }
        let in_task = if blocks.over.is_some() { row_tasks * column_tasks } else { 1 };
        let mut block = task;
        if self.spills(&blocks, in_task * tile_sums) {
            block = blocks.over.clone().unwrap_or(block);
            self.directives.push(Directive::SpillSums { at, over: blocks.over });
            self.written(&spilled, &inner, lanes.is_some());
        }
        if copies {
            self.copy(block, (column_tasks * column_tile).min(columns.1));
        }
    }

    /// One channel a group: the rows are taps, so that positions are read once for all of them.
    /// Taps on padding are known where the positions at the border are loops of their own.
    fn depthwise(&mut self, lanes: Tiled) {
        let (problem, caution) = (self.problem, self.caution);
        let axes: Vec<_> = problem.axis_names().iter().zip(problem.spatial()).collect();
        // As many of the innermost axes as the registers hold.
        let mut taps = 1;
        let fits = |(_, s): &&(&&str, &SpatialAxis)| {
            taps *= s.kernel;
            taps <= self.registers() && loops_if_peeled(s, 1) <= MAX_PARTS
        };
        let tiled = axes.iter().rev().take_while(fits).count();
        let (outer, inner) = axes.split_at(axes.len() - tiled);
        let taps: u64 = inner.iter().map(|(_, s)| s.kernel).product();
        let copies = self.copies();
        let vectors = match copies {
            true => 1,
            false => balanced(lanes.1.div_ceil(self.lanes()), self.registers() / taps),
        };
        let (lane_outer, lane_inner) = self.split(lanes, vectors * self.lanes(), Tail::Pad);
        let tap = |(name, _): &(&&str, &SpatialAxis)| format!("k{name}");
        let tile: Vec<String> = inner.iter().map(tap).chain([lane_inner]).collect();
        let mut tasks = vec!["ic".to_string()];
        let count = lanes.1.div_ceil(vectors * self.lanes());
        let at = "oc".to_string();
        let blocks = match copies {
            true => self.blocks().over,
            false => self.rows_at_a_time(&axes, outer.is_empty(), count),
        };
        let mut loops = vec![];
        match (&blocks, lane_outer) {
            (Some(_), Some(lane_outer)) if !copies => {
                let in_task = count.div_ceil(self.target.cores() as u64);
                let (task, within) = self.split((&lane_outer, count), in_task, Tail::Guard);
                tasks.extend(task);
                loops.push(within);
            }
            (_, lane_outer) => tasks.extend(lane_outer),
        }
        tasks.extend(outer.iter().map(tap));
        let order = [&tasks[..], &loops, std::slice::from_ref(&at), &tile].concat();
        self.directives.push(Directive::Reorder { axes: order });
        let spilled_at = tasks[tasks.len() - 1].clone();
        self.directives.extend(tasks.into_iter().map(|axis| Directive::Parallel { axis }));
        self.directives.push(Directive::AccumulateOutput { at });
        if blocks.is_some() {
            self.directives.push(Directive::SpillSums { at: spilled_at, over: blocks.clone() });
        }
        self.write_out(&tile, true);
        if let (true, Some(block)) = (copies, blocks) {
            return self.copy(block, self.lanes().min(lanes.1));
        }
        for (name, _) in axes.iter().filter(|(_, s)| skips(problem, self.target, s, caution)) {
            let axis = format!("o{name}");
            let is_outer = outer.iter().any(|(other, _)| other == name);
            self.directives.push(match is_outer {
                true => Directive::SkipPadding { at: axis },
                false => Directive::Peel { axis },
            });
        }
    }

    fn bias(&mut self) {
        let (groups, oc) = (self.problem.groups(), self.problem.out_channels_per_group());
        let (lane, other) = if oc == 1 { (("g", groups), "oc") } else { (("oc", oc), "g") };
        // One channel is no lanes: its variable is in no index.
        let last = self.problem.layout() == Layout::ChannelsLast && lane.1 > 1;
        let vectors = self.lanes() * MAX_VECTORS.min(self.registers());
        let tile = if last { vectors } else { SCALAR_TILE };
        let (outer, inner) = self.split(lane, tile.min(lane.1), Tail::Pad);
        let tasks: Vec<String> = [other.to_string()].into_iter().chain(outer).collect();
        let axes = tasks.iter().cloned().chain([inner.clone()]).collect();
        self.directives.push(Directive::Reorder { axes });
        let (at, tasks) = (tasks[tasks.len() - 1].clone(), &tasks[..tasks.len() - 1]);
        let tasks = tasks.iter().map(|axis| Directive::Parallel { axis: axis.clone() });
        self.directives.extend(tasks);
        self.directives.push(Directive::AccumulateOutput { at });
        self.write_out(&[inner], last);
    }

    /// Unrolls a tile; the last of its loops are the lanes, if there are any.
    fn write_out(&mut self, inner: &[String], lanes: bool) {
        for (i, axis) in inner.iter().enumerate() {
            let axis = axis.clone();
            self.directives.push(match lanes && i + 1 == inner.len() {
                true => Directive::Vectorize { axis },
                false => Directive::Unroll { axis },
            });
        }
    }

    /// Which axis is the rows and which the lanes: the one that wastes fewer lanes; of two alike
    /// the input channels, which are neighbours in the weights that are written.
    fn axes(&self, ic: Tiled, oc: Tiled) -> (Tiled, Option<Tiled>) {
        let (last, groups) = (self.problem.layout() == Layout::ChannelsLast, self.problem.groups());
        let enough = self.lanes().min(SHORTEST_VECTOR);
        if (ic.1, oc.1) == (1, 1) && groups >= enough && (last || self.copies()) {
            return (oc, Some(("g", groups)));
        }
        if !last {
            return (oc, self.copies().then_some(ic));
        }
        let (rows, lanes) = match self.share(ic.1) >= self.share(oc.1) {
            true => (oc, ic),
            false => (ic, oc),
        };
        (rows, (lanes.1 >= enough).then_some(lanes))
    }

    /// Whether channels are planes, and the input is copied, for its channels to be lanes.
    fn copies(&self) -> bool {
        let (problem, caution) = (self.problem, self.caution);
        let channels = match (problem.in_channels_per_group(), problem.out_channels_per_group()) {
            (1, 1) => problem.groups(),
            (channels, _) => channels,
        };
        problem.direction() == Direction::BackwardWeights
            && problem.layout() == Layout::ChannelsFirst
            && self.target.has_micro_kernels()
            && !problem.extends_input()
            && !(caution.copies || caution.transposes)
            && channels >= self.lanes().min(SHORTEST_VECTOR)
    }

    /// Copies what a block reads of the input, channels last: columns are unrolled, as many as a
    /// vector has lanes, and so become vectors of channels in registers.
    fn copy(&mut self, at: String, channels: u64) {
        let (layout, lanes) = (Some(Layout::ChannelsLast), self.lanes());
        self.directives.push(Directive::PackInput { at, layout });
        let axes = self.problem.axis_names().iter().zip(self.problem.spatial());
        let axes: Vec<_> = axes.map(|(name, s)| (format!("copy.{name}"), s)).collect();
        let Some(((column, s), rows)) = axes.split_last() else { return };
        let read = s.input.min((s.output() - 1) * s.stride + s.extent());
        let (outer, channel) = self.split(("copy.c", channels), lanes, Tail::Cut);
        let (tiles, column) = self.split((column, read), lanes, Tail::Cut);
        let rows = rows.iter().map(|(name, _)| name.clone());
        let order = outer.into_iter().chain(rows).chain(tiles);
        let axes = order.chain([column.clone(), channel.clone()]).collect();
        self.directives.push(Directive::Reorder { axes });
        self.write_out(&[column, channel], true);
    }

    /// The share of lanes that do work.
    fn share(&self, extent: u64) -> f64 {
        let lanes = self.lanes();
        extent as f64 / (extent.div_ceil(lanes) * lanes) as f64
    }

    /// Rows and elements along the lanes of the tile that does the most multiply-adds a cache line
    /// it reads, counting the work that incomplete tiles waste: every position is read again for
    /// each tile and tap, mostly from beyond the first cache. Of two alike, the one with fewer
    /// loads.
    fn tile(&self, rows: u64, lane: u64) -> (u64, u64) {
        let lanes = self.lanes();
        let needed = lane.div_ceil(lanes);
        let line = self.line();
        let mut best = ((0.0, 0.0), 1, 1);
        for vectors in 1..=needed.min(MAX_VECTORS).min(self.registers()) {
            let rows_tile = balanced(rows, self.registers() / vectors);
            let (r, v) = (rows_tile as f64, vectors as f64);
            let used = (needed as f64 / v) / needed.div_ceil(vectors) as f64
                * ((rows as f64 / r) / rows.div_ceil(rows_tile) as f64);
            let lines = (vectors * lanes).div_ceil(line) + rows_tile.div_ceil(line);
            // Two broadcasts take the time of one vector.
            let score = (used * r * v / lines as f64, used * r * v / (r / 2.0 + v));
            if score > best.0 {
                best = (score, rows_tile, vectors);
            }
        }
        (best.1, (best.2 * lanes).min(lane))
    }

    /// Splits an axis by a tile, unless it is one: the outer loop, if there is one, and the inner.
    fn split(
        &mut self,
        (axis, extent): (&str, u64),
        by: u64,
        tail: Tail,
    ) -> (Option<String>, String) {
        if by >= extent {
            return (None, axis.to_string());
        }
        let tail = if extent.is_multiple_of(by) { Tail::Guard } else { tail };
        self.directives.push(Directive::Split { axis: axis.to_string(), by: by as u32, tail });
        (Some(format!("{axis}.o")), format!("{axis}.i"))
    }

    /// Lanes of the vectors that the kernel will have. No micro-kernel reads padding made of the
    /// input, of which each position is another one: the tile is made for Cranelift then, whose
    /// larger ones would live on the stack (64 to 64 channels of 56x56: 6 GFLOP/s in place of 19).
    fn lanes(&self) -> u64 {
        match self.problem.extends_input() {
            true => u64::from(Isa::Clif.lanes(self.problem.elem())),
            false => u64::from(self.target.lanes()),
        }
    }

    /// Elements of a cache line.
    fn line(&self) -> u64 {
        (CACHE_LINE / self.problem.elem().bytes()) as u64
    }

    /// Registers for the sums of a tile.
    fn registers(&self) -> u64 {
        if self.caution.tiles {
            return 1;
        }
        match self.problem.extends_input() {
            true => CRANELIFT_SUMS.min(tile_registers(self.target)),
            false => tile_registers(self.target),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Caches;

    /// Whether a schedule is for vectors of a copy.
    fn copies(problem: &str, isa: Isa, caution: Caution) -> bool {
        let triple = "x86_64-unknown-linux-gnu".parse().expect("a triple");
        let target = Target::new(triple, isa, true, Caches::TYPICAL, 1).expect("known");
        let directives =
            schedule(&problem.parse().expect("a problem"), &target, caution).directives;
        let has = |wanted: fn(&Directive) -> bool| directives.iter().any(wanted);
        has(|d| matches!(d, Directive::Vectorize { .. }))
            && has(|d| matches!(d, Directive::PackInput { layout: Some(Layout::ChannelsLast), .. }))
    }

    #[test]
    fn planes_are_copied_for_vectors_of_channels() {
        let copied = [
            "conv2d bwd_w nchw ic64 oc64 ih28 iw28 kh3 kw3 sh2 sw2 ph1 pw1",
            "conv2d bwd_w nchw ic256 oc1024 ih14 iw14 kh1 kw1",
            "conv1d bwd_w nchw ic64 oc64 iw1024 kw3 pw1",
            "conv2d bwd_w nchw g144 ic144 oc144 ih56 iw56 kh3 kw3 ph1 pw1",
        ];
        for problem in copied {
            assert!(copies(problem, Isa::Avx2, Caution::NONE), "{problem}");
            assert!(!copies(problem, Isa::Clif, Caution::NONE), "{problem}");
            assert!(!copies(problem, Isa::Avx2, Caution::MOST), "{problem}");
        }
        let others = [
            "conv2d bwd_w nhwc ic64 oc64 ih28 iw28 kh1 kw1",
            "conv2d bwd_w nchw ic3 oc64 ih28 iw28 kh1 kw1",
        ];
        assert!(others.iter().all(|problem| !copies(problem, Isa::Avx2, Caution::NONE)));
    }
}
