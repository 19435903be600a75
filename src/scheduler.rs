//! Which algorithm and schedule a problem gets on a target.
//!
//! A [`Plan`] is the few numbers that a schedule is written from. The default pick is made in three
//! steps, each a small decision with its reason beside it: which axis the lanes run over, how large
//! the register tile is, and how the work around the tile is blocked.

mod caution;
mod channels_first;
pub mod decision;
mod depthwise;
mod estimate;
mod gradient;
mod in_place;
mod inside;
mod legal;
#[doc(hidden)]
pub mod order;
#[doc(hidden)]
pub mod plan;
pub mod separable;
pub mod space;
mod sums;

use convgen_ir::elem::Layout;
use convgen_ir::problem::{ConvProblem, Direction};
use convgen_ir::schedule::Schedule;

use self::estimate::estimate;
use self::legal::picks;
pub(crate) use self::legal::{first_legal, legal_sum};
use self::plan::{
    CopyInput, LARGEST_BODY, LaneAxis, LoopClass, LoopOrder, Plan, Shape, columns_are_vectors,
    is_pointwise, weight_bytes,
};
use crate::algorithm::{Algorithm, PhaseLoop, phase_loops};
pub use crate::cost::Estimate;
use crate::target::{
    L1_WAY_BYTES, LATENCY_SUMS, MICRO_KERNEL_OPERANDS, PAGE_BYTES, Target, UNROLLED_STEPS,
};

/// The default pick among the schedules of the defining sum: legal for every problem on every
/// target. Whoever compiles it has [`Compiler::compile_sum`](crate::Compiler::compile_sum), which
/// lowers it once.
pub fn default_schedule(problem: &ConvProblem, target: &Target) -> (Algorithm, Schedule) {
    let schedule = match legal_sum(problem, target, None) {
        Ok(sum) => sum.schedule,
        // No schedule of such a problem is legal; the first one says why.
        Err(_) => picks(problem, target, None).next().unwrap_or_default().1,
    };
    (Algorithm::Direct, schedule)
}

/// A plan that the default pick of the defining sum was chosen among, and what it will take.
#[derive(Clone, Debug)]
pub struct Estimated {
    /// The decisions.
    pub plan: Plan,
    /// The schedule that they become.
    pub schedule: Schedule,
    /// Predicted seconds of a call.
    pub estimate: Estimate,
}

/// The plans that the default pick of the defining sum is chosen among, the shortest first: for
/// each axis that the lanes may run over, and number of lines of a tile. None for gradients of
/// weights and bias.
pub fn estimated(problem: &ConvProblem, target: &Target) -> Vec<Estimated> {
    let Some(planned) = Planned::new(Algorithm::Direct, problem) else { return vec![] };
    let estimated = |(estimate, plan): (Estimate, Plan)| {
        let schedule = plan.schedule(&planned.forward, target);
        Estimated { plan, schedule, estimate }
    };
    planned.picker(target).estimated().into_iter().map(estimated).collect()
}

/// What plans of a problem are made for.
#[derive(Clone, Debug, PartialEq)]
struct Planned {
    /// A forward problem whose schedules fit every part of the problem.
    forward: ConvProblem,
    /// The loops over phases around its own.
    phases: Vec<PhaseLoop>,
    /// Whether its spatial axes may become one.
    whole: bool,
}

impl Planned {
    /// None if the parts of the problem are no convolutions.
    fn new(algorithm: Algorithm, problem: &ConvProblem) -> Option<Planned> {
        let forward = algorithm.as_forward(problem)?;
        // The phases of a transposed problem write stripes, which are no neighbours to fuse.
        let striped = problem.direction() != Direction::Forward
            && problem.spatial().iter().any(|axis| axis.stride != 1);
        let phases = phase_loops(problem);
        Some(Planned { forward, phases, whole: !striped })
    }

    /// The decisions of the default pick.
    fn default_plan(&self, target: &Target) -> Plan {
        self.picker(target).plan()
    }

    fn picker<'p>(&'p self, target: &'p Target) -> Picker<'p> {
        let picker = Picker::new(&self.forward, target, self.whole);
        Picker { phases: self.phases.clone(), ..picker }
    }
}

/// Lanes worth a vector, full or not.
const SHORTEST_VECTOR: u64 = 4;

/// Registers that Cranelift needs for operands: its multiply-add overwrites a factor, so a tile of
/// twelve accumulators spills (35 GFLOP/s on ResNet-50's 3x3 layers), one of eight does not (45),
/// and eight are enough to hide the latency of two units.
const CRANELIFT_OPERANDS: u64 = 8;

/// Multiply-adds in the body of the innermost loop of a kernel without input channels to sum over:
/// unrolled, neighbouring taps share the columns they load.
const UNROLLED_TAPS: u64 = 256;

/// Columns of the tile of a depthwise kernel, at most: each border of the image is a kernel of its
/// own, so tiles are kept short.
const DEPTHWISE_COLUMNS: u64 = 14;

/// Rows of input that a task copies for itself, for each that its neighbour copies too: on
/// ResNet-50's first layer, tasks of one row copy seven for two.
const LEAST_OWN_ROWS: u64 = 4;

/// Rows of a tile that are few: with two vectors each, their sums wait for one another.
const FEW_ROWS: u64 = 4;

/// Vectors of columns in a tile of few output channels, at most.
const WIDEST_ROW: u64 = 8;

/// Input channels that are unrolled whatever the tile: a loop over so few is left as soon as it is
/// begun.
const FEWEST_STEPS: u64 = 4;

/// Tasks for each core that are enough for the slowest to wait for little.
const TASKS_A_CORE: u64 = 4;

/// Multiply-adds that take as long as a byte from the second-level cache or the third. Depthwise
/// over 144 channels of 56x56 at stride 2 is a task for one core by its multiply-adds, and four by
/// what it moves.
const MACS_A_BYTE: u64 = 2;

/// Multiply-adds of one task, at least: a task should last some microseconds.
const TASK_MACS: u64 = 1 << 20;

/// Pixels of a tile of many vectors, at least.
const FEWEST_PIXELS: u64 = 4;

/// Pixels for which the products of all input channels with a row of taps are unrolled, at least.
const FEWEST_UNROLLED: u64 = 8;

/// Vectors of a tile whose input channels are lanes, at most: enough to share what is repeated of a
/// pixel.
const MOST_VECTORS_OF_SUMS: u64 = 6;

struct Picker<'p> {
    problem: &'p ConvProblem,
    target: &'p Target,
    /// Whether the problem is one nest. The phases of a transposed one share a schedule: their
    /// outputs are no neighbours to fuse, and not every phase meets padding.
    whole: bool,
    /// Whether padding may be met where the input lies.
    in_place: bool,
    phases: Vec<PhaseLoop>,
    fused: bool,
    shape: Shape<'p>,
    /// Iterations of the first axis in one task, where these are given.
    block: Option<u64>,
}

impl<'p> Picker<'p> {
    fn new(problem: &'p ConvProblem, target: &'p Target, whole: bool) -> Picker<'p> {
        let fused = whole && is_pointwise(problem);
        let (phases, shape) = (vec![], Shape::new(problem, fused));
        Picker { problem, target, whole, in_place: whole, phases, fused, shape, block: None }
    }

    /// One whose tasks have that many indices of the first spatial axis, a divisor of its length.
    fn in_blocks(problem: &'p ConvProblem, target: &'p Target, indices: u64) -> Picker<'p> {
        let picker = Picker::new(problem, target, true);
        let inner = problem.spatial()[1..].iter().map(|s| s.output());
        let block = if picker.fused { inner.product::<u64>() * indices } else { indices };
        Picker { block: Some(block), ..picker }
    }

    /// The length of the axis of the lanes, and of that of the rows, within a task.
    fn tiled(&self, lanes: LaneAxis) -> (u64, u64) {
        let (lane, row) = self.shape.tiled(lanes);
        let in_task = match self.block {
            Some(block) if self.shape.axes.len() == 1 => block,
            Some(_) | None => u64::MAX,
        };
        match lanes == LaneAxis::Columns {
            true => (lane.min(in_task), row),
            false => (lane, row.min(in_task)),
        }
    }

    /// The plan that takes least time by the estimate.
    fn plan(&self) -> Plan {
        let best = self.estimated().into_iter().next();
        best.map_or_else(|| self.plan_of(LaneAxis::None), |(_, plan)| plan)
    }

    /// The plans of all families with their estimates, the shortest first.
    fn estimated(&self) -> Vec<(Estimate, Plan)> {
        let estimated = |plan: Plan| (estimate(&plan, self.problem, self.target, self.whole), plan);
        let mut plans: Vec<_> = self.families().into_iter().map(estimated).collect();
        plans.sort_by(|(a, _), (b, _)| a.seconds().total_cmp(&b.seconds()));
        plans
    }

    fn is_legal(&self, plan: &Plan) -> bool {
        plan.check(self.problem, self.target).is_ok()
    }

    /// A legal plan for each axis that the lanes may run over and number of lines of a tile, all in
    /// one order of sums.
    fn families(&self) -> Vec<Plan> {
        if self.splits_sums() {
            let plan = self.plan_of(LaneAxis::Channels);
            if self.is_legal(&plan) {
                return vec![plan];
            }
        }
        let whole = LaneAxis::ALL.into_iter().filter(|lanes| *lanes != LaneAxis::Channels);
        let plans = whole.map(|lanes| self.plan_of(lanes)).filter(|plan| self.is_legal(plan));
        plans.flat_map(|plan| self.of_lines(&plan).into_iter().chain([plan])).collect()
    }

    /// The plan with several lines in a tile, where these share most of what they load: for the
    /// kernels of one input channel whose lanes are columns. 3x3 over 192 planes of 28x28: 41
    /// GFLOP/s channels copied together, 91 by four lines.
    fn of_lines(&self, plan: &Plan) -> Vec<Plan> {
        // The rows of a task of a pair are given.
        if !plan.lanes.takes_lines(self.problem) || self.block.is_some() {
            return vec![];
        }
        let several = |lines| {
            let mut plan = Plan { lines, taps: true, ..plan.clone() };
            let budget = tile_registers(self.target) / (plan.rows * lines);
            plan.vectors = balanced(plan.vectors, budget.max(1));
            let extent = self.shape.axes[0].1;
            plan.block = divisor(extent, plan.block);
            if plan.in_place {
                // Tasks begin at the border.
                plan.block = extent;
                plan.channel_tasks = self.problem.groups() > 1;
                plan.order = LoopOrder::ALL[0];
            }
            plan.canonical(self.problem, self.target)
        };
        (2..=space::MOST_LINES).map(several).filter(|plan| self.is_legal(plan)).collect()
    }

    /// The plan whose lanes run over an axis.
    fn plan_of(&self, lanes: LaneAxis) -> Plan {
        self.decide(lanes).canonical(self.problem, self.target)
    }

    fn decide(&self, lanes: LaneAxis) -> Plan {
        let (vectors, rows) = self.tile(lanes);
        let tile_phases = self.tiles_phases(lanes);
        let (steps, taps) = self.unrolled(lanes, vectors * rows * self.phases_of_tile(lanes));
        let mut plan = Plan {
            phases: self.phases.clone(),
            tile_phases,
            fused: self.fused,
            lanes,
            vectors,
            rows,
            lines: 1,
            block: 1,
            channel_tasks: false,
            order: LoopOrder::ALL[0],
            copy: None,
            in_place: false,
            pack_weights: true,
            steps,
            taps,
        };
        if self.weights_fit_l1(lanes) {
            plan.order = LoopOrder::PIXELS;
        }
        if lanes == LaneAxis::Columns && columns_are_vectors(self.problem, self.target) {
            self.read_columns_in_place(&mut plan);
        }
        let of_groups = self.is_depthwise(lanes) || lanes == LaneAxis::GroupChannels;
        if of_groups && self.transposes() {
            self.channels_outermost(&mut plan);
        } else if self.is_depthwise(lanes) || self.single_vector_oc(lanes) {
            self.depthwise_in_place(&mut plan, lanes);
            if self.shares_channels_of_rows(&mut plan) {
                return plan;
            }
        }
        if self.low_reuse(lanes) {
            self.read_in_place(&mut plan);
        }
        if !plan.in_place && self.sums_channels_in_place(&mut plan) {
            return plan;
        }
        self.task_block(&mut plan);
        if plan.in_place && plan.check_in_place(self.problem, self.target).is_err() {
            plan.in_place = false;
            self.task_block(&mut plan);
        }
        if !plan.in_place && self.is_mostly_padding() {
            // No tile meets so much padding in place, but a pixel does.
            let (in_place, taps) = (self.in_place, false);
            let pixel = Plan { in_place, taps, rows: 1, ..plan.clone() };
            self.adopt(&mut plan, pixel);
        }
        if !plan.in_place {
            plan.copy = self.copied_input(&plan);
        }
        plan
    }

    /// Whether all weights stay in the first-level cache while pixels pass: each pixel's output
    /// channels are then written one after the other. 1x1 over 16 channels of 112x112 to 96: 190
    /// GFLOP/s, 160 in tasks that write a panel of channels of all pixels after the other.
    fn weights_fit_l1(&self, lanes: LaneAxis) -> bool {
        lanes.share_pixels()
            && self.target.has_micro_kernels()
            && self.problem.layout() == Layout::ChannelsLast
            && self.problem.groups() == 1
            && weight_bytes(self.problem) <= self.target.caches().l1d as u64 / 2
    }

    /// Whether one vector has all output channels of a group, and the products of a few pixels with
    /// a row of taps are unrolled: kernels much like those of depthwise convolutions.
    fn single_vector_oc(&self, lanes: LaneAxis) -> bool {
        match lanes {
            LaneAxis::GroupChannels => true,
            LaneAxis::Channels => {
                let outputs = lanes.outputs_a_vector(self.problem, self.target);
                let one = self.problem.out_channels_per_group() <= outputs;
                let taps = self.problem.taps();
                let several = taps > 1 || self.problem.groups() > 1;
                one && several && self.unrolled_pixels(lanes) >= FEWEST_UNROLLED
            }
            LaneAxis::OutChannels | LaneAxis::Groups | LaneAxis::Columns | LaneAxis::None => false,
        }
    }

    /// Pixels of a tile of one vector for which the products with a row of taps may be unrolled.
    fn unrolled_pixels(&self, lanes: LaneAxis) -> u64 {
        let taps = self.problem.spatial().last().map_or(1, |s| s.kernel);
        let channels = lanes.summed_channels(self.problem, self.target);
        LARGEST_BODY / (taps * channels).max(1)
    }

    /// The register tile: the lane axis by one or two vectors, another axis by rows.
    fn tile(&self, lanes: LaneAxis) -> (u64, u64) {
        if self.is_depthwise(lanes) {
            return self.depthwise_tile();
        }
        if self.single_vector_oc(lanes) {
            let budget = u64::from(self.target.registers()) / 2;
            let budget = match lanes == LaneAxis::Channels {
                true => budget.min(self.unrolled_pixels(lanes)),
                false => budget,
            };
            let (_, columns) = self.tiled(lanes);
            return (1, balanced(columns, budget.min(DEPTHWISE_COLUMNS)));
        }
        let width = u64::from(self.target.lanes());
        let budget = tile_registers(self.target);
        let (lane, row) = self.tiled(lanes);
        if let Some(tile) = self.tile_of_pages(lanes, budget) {
            return tile;
        }
        if lanes == LaneAxis::Channels {
            let needed = lane.div_ceil(lanes.outputs_a_vector(self.problem, self.target));
            let vectors = divisor(needed, MOST_VECTORS_OF_SUMS);
            let rows = (budget / vectors).min(self.rows_in_cache(lanes));
            return (vectors, balanced(row, rows));
        }
        let vectors = if !self.target.has_masks() {
            self.target.vectors_for(lane).min(2)
        } else if lanes == LaneAxis::Columns && row < FEW_ROWS {
            let sums = row * self.phases_of_tile(lanes);
            balanced(lane.div_ceil(width), (budget / sums).min(WIDEST_ROW))
        } else {
            fewest_lanes_wasted(lane.div_ceil(width), row, budget)
        };
        let rows = balanced(row, (budget / vectors).min(self.rows_in_cache(lanes)));
        (vectors, rows)
    }

    /// Whether the tile has all phases of few output channels, so that many sums do not wait for
    /// one another: 64 channels to 3, 4x4 at stride 2, 64x64: 90 GFLOP/s a phase after the other,
    /// 106 this way.
    fn tiles_phases(&self, lanes: LaneAxis) -> bool {
        let (_, row) = self.tiled(lanes);
        PhaseLoop::in_all(&self.phases) > 1
            && !self.phases.iter().any(|phases| phases.guarded)
            && lanes == LaneAxis::Columns
            && self.target.has_micro_kernels()
            && row < FEW_ROWS
            && row * PhaseLoop::in_all(&self.phases) <= tile_registers(self.target)
    }

    /// Phases of a register tile.
    fn phases_of_tile(&self, lanes: LaneAxis) -> u64 {
        if self.tiles_phases(lanes) { PhaseLoop::in_all(&self.phases) } else { 1 }
    }

    /// The tile where each pixel is written whole, and no cache holds what is written: of some
    /// vectors side by side, on one page, so that memory is written from front to back. From 16
    /// channels to 96 at 112x112: 179 GFLOP/s by 14 pixels of two vectors, 203 by 7 of three; from
    /// one to 512 in one dimension, 95 and 136.
    fn tile_of_pages(&self, lanes: LaneAxis, budget: u64) -> Option<(u64, u64)> {
        let elem = self.problem.elem().bytes() as u64;
        let written = elem * self.problem.output_shape(1).iter().product::<u64>();
        let far = written > self.target.caches().l2 as u64;
        let (lane, row) = self.tiled(lanes);
        let needed = lane / u64::from(self.target.lanes());
        let whole = lane.is_multiple_of(u64::from(self.target.lanes())) && needed > 4;
        if !self.weights_fit_l1(lanes) || !far || !whole {
            return None;
        }
        let vectors = [4, 3].into_iter().find(|vectors| needed.is_multiple_of(*vectors))?;
        let pixels = (PAGE_BYTES as u64 / (elem * self.problem.out_channels())).max(1);
        Some((vectors, balanced(row, pixels.min(budget / vectors))))
    }

    /// Rows whose elements of one input channel the first-level cache can hold at once. Where
    /// pixels are a multiple of a way apart they all fall into one set, and one way is the
    /// weights'.
    fn rows_in_cache(&self, lanes: LaneAxis) -> u64 {
        let pixel = self.problem.in_channels() * self.problem.elem().bytes() as u64;
        let stride = self.problem.spatial().last().map_or(1, |s| s.stride);
        let in_place = lanes.share_pixels() && self.problem.layout() == Layout::ChannelsLast;
        let ways = (self.target.caches().l1d / L1_WAY_BYTES) as u64;
        match in_place && (pixel * stride).is_multiple_of(L1_WAY_BYTES as u64) {
            true => ways.saturating_sub(1).max(1),
            false => u64::MAX,
        }
    }

    /// Input channels unrolled in the innermost loop, and whether the taps of a row are as well.
    fn unrolled(&self, lanes: LaneAxis, tile: u64) -> (u64, bool) {
        let channels = lanes.summed_channels(self.problem, self.target);
        if self.single_vector_oc(lanes) {
            // A permuted pixel serves all taps of a row that are unrolled.
            let taps = self.problem.spatial().last().map_or(1, |s| s.kernel);
            return (channels, tile * channels * taps <= LARGEST_BODY);
        }
        let few = channels <= FEWEST_STEPS && tile * channels <= LARGEST_BODY / 2;
        let steps = if few { channels } else { (UNROLLED_STEPS / tile).max(1) };
        let by = divisor(channels, steps);
        if by < channels {
            return (by, false);
        }
        let unrolls_taps = channels == 1 && self.target.has_micro_kernels();
        let steps = if unrolls_taps { UNROLLED_TAPS / tile } else { steps };
        (by, self.problem.spatial().last().is_some_and(|s| s.kernel * channels <= steps))
    }

    /// Iterations of the first output axis in one task: enough work for a task, few enough rows
    /// that their input fits the scratch.
    fn task_block(&self, plan: &mut Plan) {
        if let Some(block) = self.block.or_else(|| self.rows_of_channels(plan)) {
            plan.block = block;
            return;
        }
        let extent = self.shape.axes[0].1;
        let images = self.problem.batch().max(1);
        let per_step = (self.work() / images / extent).max(1);
        let unit = plan.task_unit(&self.shape, plan.lane_extent(self.problem, self.target));
        let enough = TASK_MACS.div_ceil(per_step).max(self.rows_worth_copying());
        let enough = enough.max(self.rows_for_weights(plan));
        let mut block = enough.next_multiple_of(unit);
        let cached = self.target.caches().l2 as u64;
        let mut packed = |block: u64| {
            plan.block = block.min(extent);
            match plan.in_place {
                true => 0,
                false => plan.packed_input_bytes(self.problem, self.target),
            }
        };
        while block > unit && packed(block) > cached {
            block = (block / 2).next_multiple_of(unit);
        }
        plan.block = block.min(extent);
    }

    /// The multiply-adds of a call, or as many as take as long as what it moves, if cores share it.
    fn work(&self) -> u64 {
        let (problem, images) = (self.problem, self.problem.batch().max(1));
        let elements = |shape: Vec<u64>| shape.iter().product::<u64>();
        let moved = elements(problem.input_shape(images)) + elements(problem.output_shape(images));
        let bytes = moved * problem.elem().bytes() as u64;
        let shared = if self.target.cores() > 1 { bytes * MACS_A_BYTE } else { 0 };
        problem.macs().max(shared)
    }

    /// Rows of output for which a copy of the input has few rows that the neighbouring tasks copy
    /// too, if there are tasks enough without smaller ones.
    fn rows_worth_copying(&self) -> u64 {
        let Some(s) = self.problem.spatial().first().filter(|_| !self.fused && self.is_padded())
        else {
            return 1;
        };
        let shared = s.extent().saturating_sub(s.stride);
        let wanted = (LEAST_OWN_ROWS * shared).div_ceil(s.stride);
        let tasks = TASKS_A_CORE * self.target.cores() as u64;
        wanted.min(s.output() / tasks).max(1)
    }

    /// The input is copied if some of it is padding and the copy fits the scratch.
    fn copied_input(&self, plan: &Plan) -> Option<CopyInput> {
        let fits = plan.packed_input_bytes(self.problem, self.target) <= self.scratch_limit();
        if self.transposes()
            && fits
            && let Some(copy) = self.transposed_copy(plan)
        {
            return Some(copy);
        }
        let several = self.problem.in_channels_per_group() > 1;
        let layout = match (plan.lanes, self.problem.layout()) {
            (LaneAxis::OutChannels | LaneAxis::Channels, Layout::ChannelsFirst) => {
                Some(Layout::ChannelsLast)
            }
            (LaneAxis::Columns, Layout::ChannelsLast) if several => Some(Layout::ChannelsFirst),
            (_, _) => None,
        };
        // Lanes that are no neighbours in memory would be loaded one by one.
        let gathered = plan.lanes == LaneAxis::Columns && layout.is_some();
        // Every channel reads the same input, except where each group has its own.
        let own = plan.lanes == LaneAxis::Groups
            && plan.lane_extent(self.problem, self.target) < self.problem.groups();
        let (at, transposed) = (own.then_some(LoopClass::Channels), gathered);
        let copied = (self.is_padded() || gathered) && fits;
        copied.then_some(CopyInput { at, layout, transposed })
    }

    fn scratch_limit(&self) -> u64 {
        self.target.limits().scratch_bytes as u64
    }
}

/// Registers for the sums of a tile: those that no operand needs.
fn tile_registers(target: &Target) -> u64 {
    let operands = match target.has_micro_kernels() {
        true => MICRO_KERNEL_OPERANDS,
        false => CRANELIFT_OPERANDS,
    };
    u64::from(target.registers()) - operands
}

/// How many vectors wide a tile is, given how many there are, the rows, and the registers for sums:
/// two to four keep the broadcasts rare; those that take least time, counted in multiply-adds with
/// the lanes past the end and the waits of small tiles; fewest a tile if more do not save a
/// twentieth (narrow tiles have fewer rows, hence more kernels at borders), or most where rows are
/// few.
fn fewest_lanes_wasted(vectors: u64, rows: u64, budget: u64) -> u64 {
    let time = |width: &u64| {
        let tile = balanced(rows, budget / width);
        let (whole, rest) = (rows / tile, rows % tile);
        let one = |rows: u64| (rows * width).max(LATENCY_SUMS);
        let rest = if rest > 0 { one(rest) } else { 0 };
        vectors.div_ceil(*width) * (whole * one(tile) + rest)
    };
    let most = vectors.min(4);
    match (vectors, rows < FEW_ROWS) {
        (1, _) => 1,
        (_, false) => (3..=most)
            .fold(2, |best, width| if time(&width) * 20 < time(&best) * 19 { width } else { best }),
        (_, true) => (2..=most).rev().min_by_key(time).unwrap_or(2),
    }
}

/// The largest divisor that is at most `most`.
fn divisor(extent: u64, most: u64) -> u64 {
    let most = most.clamp(1, extent);
    let root = extent.isqrt();
    let small = (1..=most.min(root)).rev().find(|part| extent.is_multiple_of(*part));
    // Above the root a divisor is what a small one leaves.
    let large = (extent.div_ceil(most)..=root).find(|part| extent.is_multiple_of(*part));
    let large = if most > root { large.map(|part| extent / part) } else { None };
    large.or(small).unwrap_or(1)
}

/// The largest number from `least` to `most` with a property that smaller ones have too.
fn largest(least: u64, most: u64, has: impl Fn(u64) -> bool) -> Option<u64> {
    if least > most || !has(least) {
        return None;
    }
    let (mut found, mut beyond) = (least, most + 1);
    while found + 1 < beyond {
        let middle = found + (beyond - found) / 2;
        if has(middle) { found = middle } else { beyond = middle }
    }
    Some(found)
}

/// The rows of a tile, at most `limit`: a divisor of the extent if one is nearly as large, so that
/// no second kernel is needed for the rest; else the size that makes the fewest tiles most alike.
fn balanced(extent: u64, limit: u64) -> u64 {
    let limit = limit.clamp(1, extent);
    let nearly = (limit * 3).div_ceil(4);
    let divisor = (nearly..=limit).rev().find(|rows| extent.is_multiple_of(*rows));
    divisor.unwrap_or_else(|| extent.div_ceil(extent.div_ceil(limit)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::{Caches, Isa};

    fn target(isa: Isa) -> Target {
        let triple = "x86_64-unknown-linux-gnu".parse().expect("a triple");
        let caches = Caches { l1d: 48 << 10, l2: 2 << 20, l3: 32 << 20 };
        Target::new(triple, isa, true, caches, 1).expect("known")
    }

    fn default_plan(problem: &str, isa: Isa) -> Plan {
        let problem = problem.parse().expect("a problem");
        let planned = Planned::new(Algorithm::Direct, &problem).expect("a convolution");
        planned.default_plan(&target(isa))
    }

    /// What rules of thumb got wrong by factors of two to twenty.
    #[test]
    fn lanes_are_those_that_take_least_time() {
        let picks = [
            ("conv2d g3 ic3 oc3 ih256 iw256 kh5 kw5 ph2 pw2", LaneAxis::Groups),
            ("conv2d g2 ic2 oc2 ih256 iw256 kh5 kw5 ph2 pw2", LaneAxis::Columns),
            ("conv2d g64 ic128 oc128 ih28 iw28 kh3 kw3 ph1 pw1", LaneAxis::GroupChannels),
            ("conv2d ic64 oc64 ih56 iw56 kh3 kw3 ph1 pw1", LaneAxis::OutChannels),
            ("conv2d ic144 oc24 ih56 iw56 kh1 kw1", LaneAxis::Channels),
            ("conv2d nchw g64 ic64 oc64 ih30 iw30 kh3 kw3", LaneAxis::Columns),
            ("conv2d nchw ic256 oc256 ih28 iw28 kh3 kw3 dh12 dw12 ph12 pw12", LaneAxis::Columns),
            ("conv2d nchw g96 ic96 oc96 ih112 iw112 kh3 kw3 sh2 sw2 ph1 pw1", LaneAxis::Columns),
        ];
        for (problem, lanes) in picks {
            assert_eq!(default_plan(problem, Isa::Avx512).lanes, lanes, "{problem}");
        }
    }

    #[test]
    fn planes_of_one_channel_have_tiles_of_several_lines() {
        for isa in [Isa::Avx2, Isa::Avx512] {
            let plan = default_plan("conv2d nchw g192 ic192 oc192 ih28 iw28 kh3 kw3 ph1 pw1", isa);
            assert!(plan.lines > 1 && plan.in_place && plan.channel_tasks, "{plan:?}");
            let plan = default_plan("conv2d nchw ic192 oc192 ih28 iw28 kh3 kw3 ph1 pw1", isa);
            assert_eq!(plan.lines, 1, "{plan:?}");
        }
    }

    /// The bits of a stream's chunks and of a picture's parts depend on it.
    #[test]
    fn the_order_of_a_sum_does_not_depend_on_sizes() {
        for (ic, oc, groups) in [(144, 24, 1), (32, 8, 1), (16, 3, 1), (64, 64, 1), (24, 24, 6)] {
            let split = |columns: u64, rows: u64| {
                let problem =
                    format!("conv2d g{groups} ic{ic} oc{oc} ih{rows} iw{columns} kh3 kw3");
                default_plan(&problem, Isa::Avx512).lanes == LaneAxis::Channels
            };
            let first = split(3, 3);
            let sizes = [(3, 9), (4, 4), (9, 3), (17, 17), (30, 5), (230, 230), (1000, 4)];
            assert!(sizes.iter().all(|(c, r)| split(*c, *r) == first), "{ic} {oc} {groups}");
        }
    }

    #[test]
    fn divisors_are_the_largest() {
        for extent in 1..200_u64 {
            for most in 0..=extent + 1 {
                let tried = (1..=most.clamp(1, extent)).rev();
                let expected = tried.filter(|part| extent.is_multiple_of(*part)).max();
                assert_eq!(Some(divisor(extent, most)), expected, "{extent} {most}");
            }
        }
        assert_eq!(divisor(2_147_483_647, 2_147_483_646), 1);
    }

    #[test]
    fn the_largest_of_a_range_is_found() {
        for (least, most) in [(1, 1), (1, 9), (3, 50), (7, 6)] {
            for end in 0..60 {
                let expected = (least..=most).rev().find(|number| *number <= end);
                assert_eq!(largest(least, most, |number| number <= end), expected);
            }
        }
    }
}
