//! The directives that carry out a plan, in order.

use convgen_ir::PaddingMode;
use convgen_ir::elem::Layout;
use convgen_ir::problem::ConvProblem;
use convgen_ir::schedule::{Directive, Schedule, Tail};

use super::{
    CopyInput, LaneAxis, LoopClass, Loops, Plan, Shape, groups_fill_a_vector, has_padding,
    weight_bytes,
};
use crate::target::{LATENCY_SUMS, Target};

/// A plan being written down.
pub(super) struct PlanWriter<'p> {
    pub(super) plan: &'p Plan,
    pub(super) problem: &'p ConvProblem,
    pub(super) target: &'p Target,
    pub(super) shape: Shape<'p>,
    pub(super) lane_extent: u64,
    pub(super) directives: Vec<Directive>,
}

impl PlanWriter<'_> {
    pub(super) fn write(mut self) -> Schedule {
        if self.plan.fused {
            self.fuse();
        }
        let loops = self.loops();
        self.order(&loops);
        self.unroll(&loops);
        self.prefetch_tile(&loops);
        if self.plan.pack_weights {
            self.directives.push(Directive::PackWeights);
        }
        if let Some(copy) = self.plan.copy {
            self.copy(&loops, copy);
        }
        if self.plan.is_tile_in_place(self.problem) {
            let lines = self.plan.line_axis(self.problem).map(|(axis, _)| axis);
            let lines = lines.filter(|s| has_padding(s)).and(loops.rows.last());
            let columns = self.problem.spatial().last().filter(|s| has_padding(s));
            let columns = columns.and(loops.columns.first());
            let peeled = lines.into_iter().chain(columns).cloned();
            self.directives.extend(peeled.map(|axis| Directive::Peel { axis }));
        }
        Schedule { directives: self.directives }
    }

    fn fuse(&mut self) {
        let names = self.problem.axis_names();
        let mut outer = format!("o{}", names[0]);
        for name in &names[1..] {
            let inner = format!("o{name}");
            let fused = format!("{outer}_{inner}");
            self.directives.push(Directive::Fuse { outer, inner });
            outer = fused;
        }
    }

    /// Splits the spatial loops: tasks, blocks, and the tile.
    pub(super) fn loops(&mut self) -> Loops {
        let plan = self.plan;
        let (first, extent) = self.shape.axes[0].clone();
        // A task that is one tile has no second split to cut the last one short.
        let unit = plan.task_unit(&self.shape, self.lane_extent);
        let one_tile = self.shape.axes.len() == 1 && plan.block == unit;
        let tail = if one_tile { Tail::Cut } else { Tail::Guard };
        let (task, within) = self.split(&first, plan.block, extent, tail);
        let mut axes = self.shape.axes.clone();
        axes[0] = (within, plan.block);
        let columns = axes.pop().unwrap_or_default();
        let (oc, g) = (self.problem.out_channels_per_group(), self.problem.groups());
        let named = |name: &str| name.to_string();
        let lines = match self.plan.line_axis(self.problem).and_then(|_| axes.pop()) {
            Some((name, extent)) => {
                let (outer, lines) = self.split(&name, plan.lines, extent, Tail::Cut);
                axes.extend(outer.map(|name| (name, extent)));
                Some(lines)
            }
            None => None,
        };
        let mut vectors = None;
        let (channels, columns, row, lanes) = match plan.lanes {
            LaneAxis::Channels => {
                let by = plan.lanes.outputs_a_vector(self.problem, self.target);
                let (tiles, lane) = self.split("oc", by, oc, Tail::Pad);
                let tiles = match tiles {
                    Some(all) if plan.vectors > 1 => {
                        let (tiles, tile) =
                            self.split(&all, plan.vectors, oc.div_ceil(by), Tail::Guard);
                        vectors = Some(tile);
                        tiles
                    }
                    Some(_) | None => tiles,
                };
                let row = self.split(&columns.0, plan.rows, columns.1, Tail::Cut);
                (with(named("g"), tiles), row.0, row.1, vec![lane])
            }
            LaneAxis::Columns => {
                let lane = self.split(&columns.0, self.lane_extent, columns.1, Tail::Cut);
                let row = self.split("oc", plan.rows, oc, Tail::Cut);
                (with(named("g"), row.0), lane.0, row.1, vec![lane.1])
            }
            LaneAxis::OutChannels => {
                let lane = self.split("oc", self.lane_extent, oc, Tail::Pad);
                let row = self.split(&columns.0, plan.rows, columns.1, Tail::Cut);
                (with(named("g"), lane.0), row.0, row.1, vec![lane.1])
            }
            LaneAxis::Groups => {
                let lane = self.split("g", self.lane_extent, g, Tail::Pad);
                let row = self.split(&columns.0, plan.rows, columns.1, Tail::Cut);
                let outer: Vec<String> = lane.0.into_iter().chain([named("oc")]).collect();
                (outer, row.0, row.1, vec![lane.1])
            }
            LaneAxis::GroupChannels => {
                let lane = self.split("g", self.lane_extent, g, Tail::Cut);
                let row = self.split(&columns.0, plan.rows, columns.1, Tail::Cut);
                (lane.0.into_iter().collect(), row.0, row.1, vec![lane.1, named("oc")])
            }
            LaneAxis::None => {
                let row = self.split(&columns.0, plan.rows, columns.1, Tail::Cut);
                (vec![named("g"), named("oc")], row.0, row.1, vec![])
            }
        };
        let tasks = with(named("n"), task);
        let rows = axes.into_iter().map(|(name, _)| name).collect();
        let columns = columns.into_iter().collect();
        Loops { tasks, channels, rows, columns, row, lines, vectors, lanes }
    }

    /// Orders the loops, hands out the tasks, and puts the sums into registers.
    fn order(&mut self, loops: &Loops) {
        let around = self.plan.order.0.into_iter().flat_map(|class| loops.of(class));
        let mut axes: Vec<String> = loops.tasks.iter().chain(around).cloned().collect();
        let phases = self.plan.phases.iter().map(|phases| phases.name.clone());
        let innermost = if self.plan.tile_phases {
            let innermost = axes[axes.len() - 1].clone();
            axes.extend(phases);
            innermost
        } else {
            let inside = self.task_loops(loops).count();
            axes.splice(inside..inside, phases);
            axes[axes.len() - 1].clone()
        };
        axes.extend(loops.lines.iter().cloned());
        axes.push(loops.row.clone());
        axes.extend(loops.vectors.iter().chain(&loops.lanes).cloned());
        self.directives.push(Directive::Reorder { axes });
        for axis in self.task_loops(loops) {
            self.directives.push(Directive::Parallel { axis: axis.clone() });
        }
        if self.plan.in_place {
            self.skip_padding();
        }
        let sums = self.plan.lanes.sums(self.problem, self.target);
        if sums > 1 {
            let channels = self.problem.in_channels_per_group();
            let (_, axis) = self.split("ic", sums, channels, Tail::Guard);
            self.directives.push(Directive::Rfactor { axis });
        }
        self.directives.push(Directive::AccumulateOutput { at: innermost });
        self.taps_innermost();
        if self.plan.in_place && self.plan.lanes != LaneAxis::Columns {
            self.skip_columns();
        }
    }

    /// Takes the taps of a row within each input channel where a vector has channels of several
    /// groups: a channel of a pixel is spread over its lanes once for all taps that meet it, and
    /// many products of one sum do not wait for one another. 3x3, 8 channels a group, 28x28: 94
    /// GFLOP/s, and 115 this way; 4 channels wait for little. A question of the problem alone,
    /// since all its plans add in one order.
    fn taps_innermost(&mut self) {
        let last = self.problem.axis_names().last().zip(self.problem.spatial().last());
        if let Some((name, s)) = last
            && s.kernel > 1
            && self.plan.lanes != LaneAxis::Channels
            && groups_fill_a_vector(self.problem, self.target)
            && !self.target.accuracy().keeps_order()
            && self.problem.in_channels_per_group() >= LATENCY_SUMS
        {
            let axes = vec!["ic".to_string(), format!("k{name}")];
            self.directives.push(Directive::Reorder { axes });
        }
    }

    /// Leaves out the taps of a tile's columns on padding.
    fn skip_columns(&mut self) {
        let (names, axes) = (self.problem.axis_names(), self.problem.spatial());
        if let (Some(name), Some(s)) = (names.last(), axes.last())
            && s.kernel > 1
            && has_padding(s)
        {
            self.directives.push(Directive::SkipPadding { at: format!("k{name}") });
        }
    }

    /// Leaves out the taps on padding in every axis but the columns.
    fn skip_padding(&mut self) {
        let axes = self.problem.axis_names().iter().zip(self.problem.spatial());
        // The taps of several lines are straight code, and their borders peeled.
        let lines = usize::from(self.plan.line_axis(self.problem).is_some());
        let others = axes.take(self.problem.rank() - 1 - lines).filter(|(_, s)| has_padding(s));
        let skipped = others.map(|(name, _)| Directive::SkipPadding { at: format!("k{name}") });
        self.directives.extend(skipped);
    }

    fn task_loops<'l>(&self, loops: &'l Loops) -> impl Iterator<Item = &'l String> + use<'l> {
        let shared = if self.plan.channel_tasks { loops.channels.as_slice() } else { &[] };
        loops.tasks.iter().chain(shared)
    }

    /// Writes out the tile and a few steps of the reduction.
    fn unroll(&mut self, loops: &Loops) {
        let unroll = |axis: &str| Directive::Unroll { axis: axis.to_string() };
        if self.plan.tile_phases {
            self.directives.extend(self.plan.phases.iter().map(|phases| unroll(&phases.name)));
        }
        let tile = loops.lines.iter().chain([&loops.row]).chain(&loops.vectors);
        self.directives.extend(tile.map(|l| unroll(l)));
        let (sums, summed) = self.input_channels();
        let innermost_first = sums.into_iter().chain(loops.lanes.iter().rev().cloned());
        self.directives.extend(innermost_first.map(|axis| Directive::Vectorize { axis }));
        let channels = self.plan.lanes.summed_channels(self.problem, self.target);
        if let Some(axis) = summed {
            let (outer, inner) = self.split(&axis, self.plan.steps, channels, Tail::Guard);
            self.directives.push(unroll(&inner));
            self.prefetch(loops, outer);
        }
        let lines = usize::from(self.plan.line_axis(self.problem).is_some());
        let unrolled = lines + usize::from(self.plan.unrolls_taps(self.problem));
        let names = self.problem.axis_names();
        for name in &names[names.len() - unrolled..] {
            self.directives.push(unroll(&format!("k{name}")));
        }
    }

    /// The loop over the sums of an output in a vector, if there are several, and that over the
    /// input channels of each, if these are several.
    fn input_channels(&self) -> (Option<String>, Option<String>) {
        let named = |name: &str| Some(name.to_string());
        let sums = self.plan.lanes.sums(self.problem, self.target);
        match self.problem.in_channels_per_group() {
            _ if sums == 1 => (None, named("ic")),
            all if all == sums => (named("ic"), None),
            _ => (named("ic.i"), named("ic.o")),
        }
    }

    /// Fetches the panels of weights early where they are too many for a cache to keep: what
    /// follows in the panel, and in shares the next panel, which else the first pass over the
    /// pixels would wait for. 3x3 at stride 2 over 512 channels of 14x14 takes 1.40 ms without the
    /// shares, 1.23 with them.
    fn prefetch(&mut self, loops: &Loops, channels: Option<String>) {
        let elem = self.problem.elem().bytes() as u64;
        let panels = self.plan.pack_weights && self.plan.lanes.share_pixels();
        let sums = self.plan.lanes.sums(self.problem, self.target);
        let step = elem * self.plan.steps * sums * self.lane_extent;
        if let (true, Some(axis)) = (panels, channels)
            && let Some(by) = self.target.ahead(weight_bytes(self.problem), step)
        {
            self.directives.push(Directive::Prefetch { axis, by });
            if self.lane_extent < self.problem.out_channels_per_group()
                && let Some(axis) = loops.channels.last().cloned()
            {
                self.directives.push(Directive::Prefetch { axis, by: 1 });
            }
        }
    }

    /// Fetches the pixels of the next tile while one is summed, where these are neighbours that are
    /// read in place: else all of them are missed at once, in as many pages. 1x1 from 32 channels
    /// to 16 at 112x112: 115 GFLOP/s without, 178 with.
    fn prefetch_tile(&mut self, loops: &Loops) {
        let problem = self.problem;
        let dense = problem.spatial().iter().all(|s| s.kernel == 1 && s.stride == 1);
        let pixels: u64 = problem.spatial().iter().map(|s| s.input).product();
        let bytes = pixels * problem.in_channels() * problem.elem().bytes() as u64;
        let far = bytes > self.target.caches().l1d as u64 && self.target.has_prefetch();
        let in_place = self.plan.copy.is_none() && self.plan.lanes.share_pixels();
        if let (true, true, true, Some(axis)) = (dense, far, in_place, loops.columns.last()) {
            self.directives.push(Directive::Prefetch { axis: axis.clone(), by: 1 });
        }
    }

    /// Copies the input; channels by vectors where they are neighbours in the copy: whether a pixel
    /// is padding is then asked once a vector.
    fn copy(&mut self, loops: &Loops, copy: CopyInput) {
        let inside = copy.at.and_then(|class| match class {
            LoopClass::Channels => loops.channels.first(),
            LoopClass::Rows | LoopClass::Columns => loops.of(class).last(),
        });
        let Some(at) = inside.or(self.task_loops(loops).last()).cloned() else { return };
        self.directives.push(Directive::PackInput { at, layout: copy.layout });
        let channels = self.plan.copied_channels(self.problem, self.lane_extent);
        let transposed = copy.layout.is_some() && copy.transposed;
        if transposed
            && self.target.has_micro_kernels()
            && self.transposed_copy(loops, copy, channels)
        {
            return;
        }
        if copy.at.is_none() && self.plan.is_one_strip(self.problem, self.target) {
            self.directives.push(Directive::Vectorize { axis: "copy.w".to_string() });
            return;
        }
        let last = copy.layout.unwrap_or(self.problem.layout()) == Layout::ChannelsLast;
        let lanes = u64::from(self.target.lanes());
        let by = [4 * lanes, 2 * lanes, lanes].into_iter().find(|by| channels.is_multiple_of(*by));
        if let (true, Some(by)) = (last, by) {
            let (_, inner) = self.split("copy.c", by, channels, Tail::Guard);
            self.directives.push(Directive::Vectorize { axis: inner });
        }
    }

    /// Writes the copy as a transpose of tiles, a vector of channels by as many columns, if the
    /// columns that it copies are the same for every task.
    fn transposed_copy(&mut self, loops: &Loops, copy: CopyInput, channels: u64) -> bool {
        let place = |class| self.plan.order.0.iter().position(|w| *w == class);
        let inside = |class| copy.at.is_none_or(|at| place(at) < place(class));
        let Some((s, others)) = self.problem.spatial().split_last() else { return false };
        let cut = (others.is_empty() || self.plan.fused) && self.plan.block < self.shape.axes[0].1;
        let whole = !cut && (loops.columns.is_empty() || inside(LoopClass::Columns));
        let tile = self.plan.columns_of_tile(self.problem, self.target);
        let pixels = self.plan.copied_pixels(self.problem, tile);
        let end = |place: i64| place.clamp(0, pixels[others.len()] as i64) as u64;
        let (low, high) = (end(s.pad_before), end(s.input as i64 + s.pad_before));
        let columns = high.saturating_sub(low);
        let zeros = self.problem.padding_mode() == PaddingMode::Zeros;
        if !whole || !zeros || self.plan.fused || columns < 2 || channels < 2 {
            return false;
        }
        let names = self.problem.axis_names();
        let lanes = u64::from(self.target.lanes());
        let named = |axis: &str| format!("copy.{axis}");
        let (outer, channel) = self.split("copy.c", lanes, channels, Tail::Cut);
        let (tiles, column) = self.split(&named(names[others.len()]), lanes, columns, Tail::Cut);
        let rows =
            others.iter().enumerate().filter(|(i, _)| inside(LoopClass::Rows) && pixels[*i] > 1);
        let rows = rows.map(|(i, _)| named(names[i]));
        let mut axes: Vec<String> = match copy.layout {
            // Each pixel is read whole.
            Some(Layout::ChannelsFirst) => rows.chain(tiles).chain(outer).collect(),
            Some(Layout::ChannelsLast) | None => {
                outer.into_iter().chain(rows).chain(tiles).collect()
            }
        };
        axes.extend([column.clone(), channel.clone()]);
        self.directives.push(Directive::Reorder { axes });
        self.directives.push(Directive::Unroll { axis: column });
        self.directives.push(Directive::Vectorize { axis: channel });
        true
    }

    /// Splits an axis if there is more than one tile of it: the outer axis, if any, and the inner.
    fn split(&mut self, axis: &str, by: u64, extent: u64, tail: Tail) -> (Option<String>, String) {
        if by >= extent {
            return (None, axis.to_string());
        }
        let (name, by) = (axis.to_string(), by as u32);
        self.directives.push(Directive::Split { axis: name, by, tail });
        (Some(format!("{axis}.o")), format!("{axis}.i"))
    }
}

fn with(first: String, second: Option<String>) -> Vec<String> {
    [first].into_iter().chain(second).collect()
}
