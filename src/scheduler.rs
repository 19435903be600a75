//! Which algorithm and schedule a problem gets on a target.
//!
//! A [`Plan`] is the few numbers that a schedule is written from. The default pick is made in three
//! steps, each a small decision with its reason beside it: which axis the lanes run over, how large the
//! register tile is, and how the work around the tile is blocked.

mod channels_first;
pub mod fourier;
mod gradient;
pub mod plan;
pub mod space;
pub mod winograd;

use convgen_ir::elem::Layout;
use convgen_ir::problem::{ConvProblem, Direction};
use convgen_ir::schedule::Schedule;

use self::plan::{
    CopyInput, LARGEST_BODY, LaneAxis, Order, Plan, Shape, Walk, groups_a_vector, has_padding,
    is_pointwise,
};
use crate::algorithm::Algorithm;
use crate::target::{Isa, Target};

/// The default pick among the schedules of the defining sum: legal for every problem on every target.
pub fn default_schedule(problem: &ConvProblem, target: &Target) -> (Algorithm, Schedule) {
    let schedule = match Planned::new(Algorithm::Direct, problem) {
        Some(planned) => planned.default_plan(target).schedule(&planned.forward, target),
        None => match problem.direction() {
            Direction::BackwardWeights | Direction::BackwardBias => {
                gradient::schedule(problem, target)
            }
            // The forward problem of its parts would exceed what a problem may be: the plain nest.
            Direction::Forward | Direction::Transposed | Direction::BackwardData => {
                Schedule::default()
            }
        },
    };
    (Algorithm::Direct, schedule)
}

/// What plans of a problem are made for.
#[derive(Clone, Debug)]
struct Planned {
    /// A forward problem whose schedules fit every part of the problem.
    forward: ConvProblem,
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
        Some(Planned { forward, whole: !striped })
    }

    /// The decisions of the default pick.
    fn default_plan(&self, target: &Target) -> Plan {
        Picker::new(&self.forward, target, self.whole).plan()
    }
}

/// Lanes worth a vector, full or not.
const SHORTEST_VECTOR: u64 = 4;

/// Multiply-adds in the body of the innermost loop: enough to hide the loop's own instructions, few
/// enough that compiling them stays well below a millisecond.
const UNROLLED_STEPS: u64 = 32;

/// Registers that Cranelift needs for operands: its multiply-add overwrites a factor, so a tile of
/// twelve accumulators spills (35 GFLOP/s on ResNet-50's 3x3 layers), one of eight does not (45), and
/// eight are enough to hide the latency of two units.
const CRANELIFT_OPERANDS: u64 = 8;

/// Registers that a micro-kernel needs for operands: two vectors of weights, a broadcast, and one for
/// what the epilogue computes.
const MICRO_KERNEL_OPERANDS: u64 = 4;

/// Multiply-adds in the body of the innermost loop of a kernel without input channels to sum over:
/// written out, neighbouring taps share the columns they load.
const UNROLLED_TAPS: u64 = 256;

/// Columns of the tile of a depthwise kernel, at most: each border of the image is a kernel of its own,
/// so tiles are kept short.
const DEPTHWISE_COLUMNS: u64 = 14;

/// One way of a first-level cache: a page, on every CPU that looks it up by virtual address. On 1x1
/// layers of 1024 channels tiles of 14 rows reach 77 % of the peak, tiles of 7 rows 97 %.
const L1_WAY_BYTES: u64 = 4096;

/// Rows of input that a task copies for itself, for each that its neighbour copies too: on ResNet-50's
/// first layer, tasks of one row copy seven for two.
const LEAST_OWN_ROWS: u64 = 4;

/// Vector multiply-adds that each element of the input must serve for a copy by elements to pay:
/// MobileNet's first layer, 3 channels to 32 at stride 2, has four and takes half the time without one;
/// VGG-16's, to 64 at stride 1, has 36.
const PRODUCTS_WORTH_A_COPY: u64 = 16;

/// Input channels that a sum has for each tap, at least, for padding to be met in place: each tap of a
/// row is then a loop of its own, which must be long beside its ends.
const CHANNELS_WORTH_A_LOOP: u64 = 32;

/// Parts of the second-level cache, of eight, that the rows of input which a task reads in place may
/// fill; panels of weights pass through the rest. 3x3 over 512 channels of 14x14 reaches 88 % of the
/// 256-bit peak in tasks of 7 rows (3/8), 73 % in one of 14.
const PARTS_FOR_ROWS: u64 = 3;

/// Sums that hide the latency of two multiply-adds a cycle: smaller tiles take as long as one of these.
/// 3x3 over 512 channels of 7x7 at 256 bits: 65 % of the peak by tiles of 4x2 and 3x2, 101 % of 4x3 and
/// 3x3 vectors.
const LATENCY_SUMS: u64 = 8;

/// Rows of a tile that are few: with two vectors each, their sums wait for one another.
const FEW_ROWS: u64 = 4;

/// Tasks for each core that are enough for the slowest to wait for little.
const TASKS_A_CORE: u64 = 4;

/// Multiply-adds of one task, at least: a task should last some microseconds.
const TASK_MACS: u64 = 1 << 20;

/// Pixels of a tile of many vectors, at least.
const FEWEST_PIXELS: u64 = 4;

struct Picker<'p> {
    problem: &'p ConvProblem,
    target: &'p Target,
    /// Whether the problem is one nest. The phases of a transposed one share a schedule: their outputs
    /// are no neighbours to fuse, and not every phase meets padding.
    whole: bool,
    fused: bool,
    shape: Shape<'p>,
}

impl<'p> Picker<'p> {
    fn new(problem: &'p ConvProblem, target: &'p Target, whole: bool) -> Picker<'p> {
        let fused = whole && is_pointwise(problem);
        Picker { problem, target, whole, fused, shape: Shape::new(problem, fused) }
    }

    fn plan(&self) -> Plan {
        let lanes = self.choose_lanes();
        let (vectors, rows) = self.tile(lanes);
        let (steps, taps) = self.unrolled(lanes, vectors * rows);
        let mut plan = Plan {
            fused: self.fused,
            lanes,
            vectors,
            rows,
            block: 1,
            channel_tasks: false,
            order: Order::ALL[0],
            copy: None,
            in_place: false,
            pack_weights: true,
            steps,
            taps,
        };
        if self.is_depthwise(lanes) && self.transposes() {
            self.channels_outermost(&mut plan);
        } else if self.is_depthwise(lanes) || lanes == LaneAxis::GroupChannels {
            plan.order = self.depthwise_order(rows);
            // Whether padding can be met in place depends on whether tasks share a row.
            plan.block = self.shape.axes[0].1;
            plan.in_place = self.whole;
            plan.in_place &= plan.check_in_place(self.problem).is_ok()
                && plan.check_borders(self.problem, self.target).is_ok()
                && plan.check_body(self.problem).is_ok();
        }
        if self.copies_for_little(lanes) {
            self.read_in_place(&mut plan);
        }
        if !plan.in_place && self.sums_channels_in_place(&mut plan) {
            return plan;
        }
        self.task_block(&mut plan);
        if plan.in_place && plan.check_in_place(self.problem).is_err() {
            plan.in_place = false;
            self.task_block(&mut plan);
        }
        if !plan.in_place {
            plan.copy = self.copied_input(&plan);
        }
        plan
    }

    /// Whether a copy of the input would take about as long as the products it is made for: few output
    /// channels, and input channels that are not copied by vectors.
    fn copies_for_little(&self, lanes: LaneAxis) -> bool {
        let axes = self.problem.spatial().iter();
        let (taps, strides) =
            axes.fold((1, 1), |(taps, strides), s| (taps * s.kernel, strides * s.stride));
        let products = self.problem.out_channels_per_group() * taps / strides;
        let width = u64::from(self.target.lanes());
        lanes == LaneAxis::OutChannels
            && self.target.isa().vectors().is_some()
            && self.problem.layout() == Layout::ChannelsLast
            && !self.problem.in_channels().is_multiple_of(width)
            && products < PRODUCTS_WORTH_A_COPY * width
    }

    /// Meets padding where the input lies, and writes out all input channels of a tap, if the tile's
    /// code then stays small.
    fn read_in_place(&self, plan: &mut Plan) {
        let steps = self.problem.in_channels_per_group();
        let block = self.shape.axes[0].1;
        let candidate = Plan { in_place: self.whole, steps, block, ..plan.clone() };
        if candidate.in_place && candidate.check(self.problem, self.target).is_ok() {
            *plan = candidate;
        }
    }

    /// Meets padding where the input lies if many channels are summed at each tap: taps beyond the
    /// first and last rows cost nothing, and what the taps of a dilated kernel lie apart is not copied.
    /// Tasks then share channels, since no copy is made for each of them.
    fn sums_channels_in_place(&self, plan: &mut Plan) -> bool {
        let fits = self.whole
            && plan.lanes == LaneAxis::OutChannels
            && self.target.isa().vectors().is_some()
            && self.problem.layout() == Layout::ChannelsLast
            && self.problem.in_channels_per_group() >= CHANNELS_WORTH_A_LOOP
            && self.shape.axes.len() > 1;
        if !fits {
            return false;
        }
        let block = self.rows_in_place(plan);
        let candidate = Plan { in_place: true, channel_tasks: true, block, ..plan.clone() };
        let accepted = candidate.check(self.problem, self.target).is_ok();
        if accepted {
            *plan = candidate;
        }
        accepted
    }

    /// Output rows of a task that reads its input in place and whose channels are tasks too: as many as
    /// use a panel of weights while their input stays in the second-level cache, in tasks of one size.
    fn rows_in_place(&self, plan: &Plan) -> u64 {
        let Some((s, inner)) = self.problem.spatial().split_first() else { return 1 };
        let pixels: u64 = inner.iter().map(|axis| axis.input).product();
        let row = pixels * self.problem.in_channels() * self.problem.elem().bytes() as u64;
        let cached = self.target.caches().l2 as u64 * PARTS_FOR_ROWS / 8;
        // Padding is not read, nor are the rows between the taps of a dilated kernel.
        let shared = s.kernel.saturating_sub(s.stride);
        let fitting = (cached / row).saturating_sub(shared) / s.stride;
        let lanes = plan.lane_extent(self.problem, self.target);
        let tiles = self.problem.groups() * self.problem.out_channels_per_group().div_ceil(lanes);
        let tasks = TASKS_A_CORE * self.target.cores() as u64;
        let most = if cached / row >= s.input { s.output() } else { fitting };
        let most = most.min(s.output() * tiles / tasks).clamp(1, s.output());
        s.output().div_ceil(s.output().div_ceil(most))
    }

    /// Whether all loads of the tile are vectors: each element of the input is then used for so few
    /// products that a copy of it costs as much as they do.
    fn is_depthwise(&self, lanes: LaneAxis) -> bool {
        lanes == LaneAxis::Groups && self.problem.in_channels_per_group() == 1
    }

    /// Channels inside pixels: the input is then read from front to back. Not if the weights, which
    /// every pixel then needs, would fill the first-level cache.
    fn depthwise_order(&self, rows: u64) -> Order {
        let weights: u64 = self.problem.weights_shape().iter().product();
        let bytes = weights * self.problem.elem().bytes() as u64;
        if bytes > self.target.caches().l1d as u64 / 2 {
            return Order::ALL[0];
        }
        // A walk without a loop comes last.
        match (self.shape.axes.len() > 1, rows < self.shape.columns()) {
            (true, true) => Order([Walk::Rows, Walk::Columns, Walk::Channels]),
            (true, false) => Order([Walk::Rows, Walk::Channels, Walk::Columns]),
            (false, _) => Order([Walk::Columns, Walk::Channels, Walk::Rows]),
        }
    }

    /// The tile of a depthwise kernel: beside the sums, the weights of a row of taps stay in registers,
    /// and an element of the input, a zero and what the epilogue computes pass. Where pixels are a
    /// multiple of half a way apart they fall into two sets of the first-level cache, and the rows of
    /// taps put each other out (58 GFLOP/s at 512 channels): few pixels by many vectors, which are
    /// neighbouring lines, do not (98).
    fn depthwise_tile(&self) -> (u64, u64) {
        let (lane, columns) = self.shape.tiled(LaneAxis::Groups);
        let taps = self.problem.spatial().last().map_or(1, |s| s.kernel);
        let registers = u64::from(self.target.registers());
        let budget = match self.target.isa() {
            Isa::Clif => tile_registers(self.target),
            Isa::Avx2 | Isa::Avx512 => registers.saturating_sub(taps + 3).max(registers / 2),
        };
        let rows = balanced(columns, budget.min(DEPTHWISE_COLUMNS));
        let all = match self.target.isa() {
            Isa::Clif => (lane / u64::from(self.target.lanes())).max(1),
            Isa::Avx2 | Isa::Avx512 => lane.div_ceil(u64::from(self.target.lanes())),
        };
        let pixel = self.problem.in_channels() * self.problem.elem().bytes() as u64;
        let crowded =
            self.problem.layout() == Layout::ChannelsLast && pixel.is_multiple_of(L1_WAY_BYTES / 2);
        let wide = if budget >= 4 * FEWEST_PIXELS { 4 } else { 2 };
        if crowded && all.is_multiple_of(wide) {
            return (wide, balanced(columns, budget / wide));
        }
        let fits = |vectors: &u64| all.is_multiple_of(*vectors) && vectors * rows <= budget;
        ((1..=4).rev().find(fits).unwrap_or(1), rows)
    }

    /// Vectors should be contiguous in memory where the data is: channels last, channels; channels
    /// first, columns, unless a stride tears them apart. Masks make short vectors worth while.
    fn choose_lanes(&self) -> LaneAxis {
        let lanes = u64::from(self.target.lanes());
        let enough = lanes.min(SHORTEST_VECTOR);
        let channels = self.problem.out_channels_per_group();
        let columns = self.shape.columns();
        let stride = self.problem.spatial().last().map_or(1, |s| s.stride);
        let channels_first = self.problem.layout() == Layout::ChannelsFirst;
        if let Some(lanes) = self.channel_lanes() {
            lanes
        } else if self.groups_fill_a_vector() {
            LaneAxis::GroupChannels
        } else if channels_first
            && stride == 1
            && (columns >= lanes || channels < columns)
            && columns >= enough
        {
            LaneAxis::Columns
        } else if channels >= enough {
            LaneAxis::OutChannels
        } else if self.problem.groups() >= enough && !channels_first {
            LaneAxis::Groups
        } else if columns >= enough {
            LaneAxis::Columns
        } else if self.problem.groups() >= enough {
            LaneAxis::Groups
        } else {
            LaneAxis::None
        }
    }

    /// Whether the output channels of several groups are a vector, and those of one are less than half
    /// of one. With 4 channels a group, 32 groups and 56x56 that is 108 GFLOP/s with AVX-512, where
    /// lanes of one group reach 21; with 8 and 28x28 it is 77 to 90, where they reach 44.
    fn groups_fill_a_vector(&self) -> bool {
        let groups = groups_a_vector(self.problem, self.target).min(self.problem.groups());
        self.target.isa().vectors().is_some()
            && self.problem.layout() == Layout::ChannelsLast
            && self.problem.out_channels_per_group() > 1
            && groups > 1
    }

    /// The register tile: the lane axis by one or two vectors, another axis by rows.
    fn tile(&self, lanes: LaneAxis) -> (u64, u64) {
        if self.is_depthwise(lanes) {
            return self.depthwise_tile();
        }
        if lanes == LaneAxis::GroupChannels {
            let budget = u64::from(self.target.registers()) / 2;
            return (1, balanced(self.shape.columns(), budget.min(DEPTHWISE_COLUMNS)));
        }
        let width = u64::from(self.target.lanes());
        let budget = tile_registers(self.target);
        let (lane, row) = self.shape.tiled(lanes);
        let vectors = match self.target.isa() {
            // Cranelift has no masks: what is no whole vector is done lane by lane.
            Isa::Clif => (lane / width).clamp(1, 2),
            Isa::Avx2 | Isa::Avx512 => fewest_lanes_wasted(lane.div_ceil(width), row, budget),
        };
        let rows = balanced(row, (budget / vectors).min(self.rows_in_cache(lanes)));
        (vectors, rows)
    }

    /// Rows whose elements of one input channel the first-level cache can hold at once. Where pixels
    /// are a multiple of a way apart they all fall into one set, and one way is the weights'.
    fn rows_in_cache(&self, lanes: LaneAxis) -> u64 {
        let pixel = self.problem.in_channels() * self.problem.elem().bytes() as u64;
        let stride = self.problem.spatial().last().map_or(1, |s| s.stride);
        let in_place =
            lanes == LaneAxis::OutChannels && self.problem.layout() == Layout::ChannelsLast;
        let ways = self.target.caches().l1d as u64 / L1_WAY_BYTES;
        match in_place && (pixel * stride).is_multiple_of(L1_WAY_BYTES) {
            true => ways.saturating_sub(1).max(1),
            false => u64::MAX,
        }
    }

    /// Input channels written out in the innermost loop, and whether the taps of a row are as well.
    fn unrolled(&self, lanes: LaneAxis, tile: u64) -> (u64, bool) {
        let channels = self.problem.in_channels_per_group();
        if lanes == LaneAxis::GroupChannels {
            // A permuted pixel serves all taps of a row that are written out.
            let taps = self.problem.spatial().last().map_or(1, |s| s.kernel);
            return (channels, tile * channels * taps <= LARGEST_BODY);
        }
        let steps = (UNROLLED_STEPS / tile).max(1);
        let by = (1..=steps.min(channels)).rev().find(|by| channels.is_multiple_of(*by));
        let by = by.unwrap_or(1);
        if by < channels {
            return (by, false);
        }
        let steps = match (channels, self.target.isa()) {
            (1, Isa::Avx2 | Isa::Avx512) => UNROLLED_TAPS / tile,
            (_, Isa::Clif | Isa::Avx2 | Isa::Avx512) => steps,
        };
        (by, self.problem.spatial().last().is_some_and(|s| s.kernel * channels <= steps))
    }

    /// Iterations of the first output axis in one task: enough work for a task, few enough rows
    /// that their input fits the scratch.
    fn task_block(&self, plan: &mut Plan) {
        if let Some(block) = self.rows_of_channels(plan) {
            plan.block = block;
            return;
        }
        let extent = self.shape.axes[0].1;
        let images = self.problem.batch().max(1);
        let per_step = (self.problem.macs() / images / extent).max(1);
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

    /// Rows of output for which a copy of the input has few rows that the neighbouring tasks copy too,
    /// if there are tasks enough without smaller ones.
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
        let layout = (plan.lanes == LaneAxis::OutChannels
            && self.problem.layout() == Layout::ChannelsFirst)
            .then_some(Layout::ChannelsLast);
        // Every channel reads the same input, except where each group has its own.
        let own = plan.lanes == LaneAxis::Groups
            && plan.lane_extent(self.problem, self.target) < self.problem.groups();
        let (at, transposed) = (own.then_some(Walk::Channels), false);
        (self.is_padded() && fits).then_some(CopyInput { at, layout, transposed })
    }

    /// Whether some tap of some output falls outside the input.
    fn is_padded(&self) -> bool {
        self.problem.spatial().iter().any(has_padding)
    }

    fn scratch_limit(&self) -> u64 {
        self.target.limits().scratch_bytes as u64
    }
}

/// Registers for the sums of a tile: those that no operand needs.
fn tile_registers(target: &Target) -> u64 {
    let operands = match target.isa() {
        Isa::Clif => CRANELIFT_OPERANDS,
        Isa::Avx2 | Isa::Avx512 => MICRO_KERNEL_OPERANDS,
    };
    u64::from(target.registers()) - operands
}

/// How many vectors wide a tile is, given how many there are, the rows, and the registers for sums: two
/// to four keep the broadcasts rare; those that take least time, counted in multiply-adds with the lanes
/// past the end and the waits of small tiles; fewest a tile if more do not save a tenth (narrow tiles have
/// fewer rows, hence more kernels at borders), or most where rows are few.
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
            .fold(2, |best, width| if time(&width) * 10 < time(&best) * 9 { width } else { best }),
        (_, true) => (2..=most).rev().min_by_key(time).unwrap_or(2),
    }
}

/// The rows of a tile, at most `limit`: a divisor of the extent if one is nearly as large, so that no
/// second kernel is needed for the rest; else the size that makes the fewest tiles most alike.
fn balanced(extent: u64, limit: u64) -> u64 {
    let limit = limit.clamp(1, extent);
    let nearly = (limit * 3).div_ceil(4);
    let divisor = (nearly..=limit).rev().find(|rows| extent.is_multiple_of(*rows));
    divisor.unwrap_or_else(|| extent.div_ceil(extent.div_ceil(limit)))
}
