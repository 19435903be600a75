//! What a plan will take, in closed form: what its register tile does, counted, at the rates of the
//! target.
//!
//! Ranks the plans of a problem before any of them is lowered; [`cost`](mod@crate::cost) walks what
//! was.

use convgen_ir::elem::Layout;
use convgen_ir::problem::{ConvProblem, SpatialAxis};

use super::inside::inside;
use super::plan::{LaneAxis, LoopOrder, Plan, Shape, column_step, groups_a_vector};
use crate::algorithm::PhaseLoop;
use crate::calibration::cycles::{
    COPIED_ELEMENT, CROSSING_LOADS, DECODED, DEINTERLEAVING, INSERT, ISSUE_WIDTH, KERNEL_ITERATION,
    MAPPED_PAGES, MASKED_LOADS, MISPREDICTION, PAGE_WALK, PREDICTED_TRIPS, SHUFFLES, TILE_ENTRY,
    TRANSPOSED_ELEMENT, UNDECODED, WINDOW,
};
use crate::cost::{Estimate, Rates};
use crate::target::{DEINTERLEAVED, PAGE_BYTES, Target};

/// Elements of a lane that one load brings if they are neighbours.
const QUAD: f64 = 4.0;

/// Predicts a call of a plan's kernel, on one core; `whole` if neighbouring columns of the output
/// are written by one nest.
pub(super) fn estimate(
    plan: &Plan,
    problem: &ConvProblem,
    target: &Target,
    whole: bool,
) -> Estimate {
    let rates = *target.rates();
    let shape = Shape::new(problem, plan.fused);
    let columns = shape.columns();
    let others: u64 = shape.axes.iter().map(|(_, extent)| extent).product::<u64>() / columns;
    let first = shape.axes[0].1;
    Counter { plan, problem, target, rates, whole, columns, others, first }.estimate()
}

struct Counter<'p> {
    plan: &'p Plan,
    problem: &'p ConvProblem,
    target: &'p Target,
    rates: Rates,
    whole: bool,
    /// Output columns.
    columns: u64,
    /// Outputs of the other spatial axes.
    others: u64,
    /// Outputs of the first axis, which tasks share.
    first: u64,
}

/// The register tiles of a call.
struct Tiles {
    count: f64,
    /// Tiles along the lanes, of one row.
    along: f64,
    /// Tiles of output channels, each of which reads the input again.
    channels: f64,
    /// Vectors of one, its rows and its lines, on the average.
    vectors: f64,
    rows: f64,
    lines: f64,
    /// Phases of one.
    phases: f64,
}

impl Tiles {
    /// Vectors of sums of one.
    fn sums(&self) -> f64 {
        self.vectors * self.rows * self.lines * self.phases
    }
}

impl Counter<'_> {
    fn estimate(&self) -> Estimate {
        let [fma, latency, load] = self.rates.vectors(self.target.has_micro_kernels());
        let cycle = self.rates.cycle;
        let tiles = self.tiles();
        let spatial = self.problem.spatial();
        let last = spatial.last().map_or(1, |s| s.kernel) as f64;
        let rows_of_taps = self.problem.taps() as f64 / last;
        let channels = self.plan.lanes.summed_channels(self.problem, self.target) as f64;
        // One input channel and one row of taps.
        let (loads, shuffles) = self.loads(&tiles, last);
        let operations = tiles.sums() * last + shuffles;
        let straight = self.plan.unrolled_taps(self.problem) as f64;
        let taps = last / straight;
        let steps = self.plan.steps as f64;
        let issued = operations + loads + KERNEL_ITERATION * taps / steps;
        // Tiles that a core holds at once wait together.
        let runs = channels * rows_of_taps;
        let together = (WINDOW / (runs * issued)).max(1.0);
        let time = (operations * fma)
            .max(shuffles * self.shuffle())
            .max(loads * load)
            .max(last * latency / together);
        let code = issued * straight / last * steps;
        let kernels = self.plan.kernels_in_use(self.problem, self.target);
        let decoding = if code * kernels > DECODED { UNDECODED } else { 1.0 };
        let time = time.max(issued / ISSUE_WIDTH * decoding * cycle);
        let taken = if self.plan.in_place { inside(self.problem) } else { 1.0 };
        let far = self.pages() * PAGE_WALK * cycle;
        let products = tiles.count * channels * (rows_of_taps * taken * time + far);
        let trips = channels / steps;
        let inner = rows_of_taps * taps;
        let mispredicted = if trips > PREDICTED_TRIPS { inner * MISPREDICTION } else { 0.0 };
        let entries = (1.0 + rows_of_taps.min(2.0) + inner * trips.min(2.0)) * TILE_ENTRY;
        let ends = (entries + mispredicted) * cycle + self.stores(&tiles, fma, load);
        Estimate {
            products,
            tiles: tiles.count * ends,
            copies: self.copies(&tiles) * cycle,
            traffic: self.traffic(&tiles),
        }
    }

    fn tiles(&self) -> Tiles {
        let (problem, plan) = (self.problem, self.plan);
        let (groups, oc) = (problem.groups(), problem.out_channels_per_group());
        let extent = plan.lane_extent(problem, self.target).max(1);
        // Vectors of a row of all tiles, those tiles, and how often there are as many.
        let (vectors, along, times) = match plan.lanes {
            LaneAxis::OutChannels => {
                let along = oc.div_ceil(extent);
                (along * self.target.operations_for(extent), along, groups)
            }
            LaneAxis::Channels => {
                let needed = oc.div_ceil(plan.lanes.outputs_a_vector(problem, self.target));
                (needed, needed.div_ceil(plan.vectors), groups)
            }
            LaneAxis::Groups => {
                let along = groups.div_ceil(extent);
                (along * self.target.operations_for(extent), along, oc)
            }
            LaneAxis::GroupChannels => {
                let along = groups.div_ceil(groups_a_vector(problem, self.target).max(1));
                (along, along, 1)
            }
            LaneAxis::Columns => {
                let (whole, rest) = (self.columns / extent, self.columns % extent);
                let vectors =
                    whole * self.target.operations_for(extent) + self.target.operations_for(rest);
                (vectors, whole + u64::from(rest > 0), groups)
            }
            LaneAxis::None => (oc, oc, groups),
        };
        let row = if plan.lanes == LaneAxis::Columns { oc } else { self.columns };
        let row_tiles = row.div_ceil(plan.rows);
        let images = problem.batch().max(1);
        let phases = plan.phases_of_tile();
        let times_phases = PhaseLoop::in_all(&plan.phases) as f64 / phases as f64;
        let lines = plan.line_axis(problem).map_or(1, |(axis, _)| axis.output());
        let line_tiles = lines.div_ceil(plan.lines);
        let count = images * self.others / lines * line_tiles * times * along * row_tiles;
        let channels = if plan.lanes == LaneAxis::Columns { row_tiles } else { along };
        Tiles {
            count: count as f64 * times_phases,
            along: along as f64,
            channels: channels as f64,
            vectors: vectors as f64 / along as f64,
            rows: row as f64 / row_tiles as f64,
            lines: lines as f64 / line_tiles as f64,
            phases: phases as f64,
        }
    }

    /// Pages that a tile meets for each input channel, where these are planes and too many to stay
    /// mapped.
    fn pages(&self) -> f64 {
        let (plan, problem) = (self.plan, self.problem);
        let planes = problem.layout() == Layout::ChannelsFirst && plan.copy.is_none();
        let Some((columns, others)) = problem.spatial().split_last() else { return 0.0 };
        let in_page = PAGE_BYTES as f64 / problem.elem().bytes() as f64;
        let pages = |elements: u64| (elements as f64 / in_page).min(1.0);
        let plane = problem.spatial().iter().map(|s| s.input).product();
        let rows: u64 = others.iter().map(SpatialAxis::extent).product();
        let met = (1.0 + rows.saturating_sub(1) as f64 * pages(columns.input)) * pages(plane);
        let all = met * problem.in_channels_per_group() as f64;
        if planes && all > MAPPED_PAGES { met } else { 0.0 }
    }

    /// Loads of a tile for one input channel and one row of taps, and what puts lanes together.
    fn loads(&self, tiles: &Tiles, taps: f64) -> (f64, f64) {
        let (plan, problem) = (self.plan, self.problem);
        let stride = problem.spatial().last().map_or(1, |s| s.stride) as f64;
        let unrolled = plan.unrolls_taps(problem);
        // Pixels that the columns of a tile read.
        let apart = tiles.rows * taps;
        let pixels = if unrolled { apart.min((tiles.rows - 1.0) * stride + taps) } else { apart };
        let last = self.read_layout() == Layout::ChannelsLast;
        match plan.lanes {
            LaneAxis::OutChannels | LaneAxis::Channels => {
                (tiles.phases * tiles.vectors * taps + pixels, 0.0)
            }
            LaneAxis::Groups if last && problem.in_channels_per_group() == 1 => {
                (tiles.vectors * (taps + pixels), 0.0)
            }
            LaneAxis::Groups => {
                let (each, shuffles) = self.gather(1.0);
                let gathered = tiles.vectors * pixels;
                (tiles.vectors * taps + gathered * each, gathered * shuffles)
            }
            LaneAxis::GroupChannels => {
                (taps + pixels / problem.in_channels_per_group() as f64, pixels)
            }
            LaneAxis::Columns => {
                // Lines share what they read of the input, and each loads its weights.
                let weights = tiles.phases * tiles.rows * tiles.lines * taps;
                let vectors = tiles.vectors * taps * self.lines_read(tiles);
                let step = column_step(problem, self.read_layout());
                if step == 1 {
                    let crossing = if taps > 1.0 { self.crossing() } else { 1.0 };
                    return (weights + vectors * (crossing + self.masked()), 0.0);
                }
                // Neighbouring taps, or channels, are brought by the same loads.
                let beside = match last {
                    true => plan.steps as f64,
                    false if unrolled => taps,
                    false => 1.0,
                };
                let (each, shuffles) =
                    match step == DEINTERLEAVED && self.target.has_micro_kernels() {
                        true => self.deinterleave(beside),
                        false => self.gather(beside),
                    };
                (weights + vectors * each, vectors * shuffles)
            }
            LaneAxis::None => (apart + taps, 0.0),
        }
    }

    /// Lines of the input that the lines of a tile read, for each row of taps.
    fn lines_read(&self, tiles: &Tiles) -> f64 {
        let Some((axis, _)) = self.plan.line_axis(self.problem) else { return 1.0 };
        let (kernel, apart) = (axis.kernel as f64, tiles.lines * axis.kernel as f64);
        let together = (tiles.lines - 1.0) * axis.stride as f64 + kernel;
        let read = if axis.dilation == 1 { together.min(apart) } else { apart };
        read / kernel
    }

    /// Loads and shuffles of a vector whose lanes lie apart, and of as many beside it.
    fn gather(&self, beside: f64) -> (f64, f64) {
        let lanes = f64::from(self.target.lanes());
        match self.target.has_micro_kernels() {
            true => {
                let loads = lanes / beside.min(QUAD);
                (loads, SHUFFLES + loads)
            }
            false => (lanes, INSERT * lanes),
        }
    }

    /// Loads and permutations of a vector of every second element, and of as many beside it: two
    /// neighbours are permutations of the same two loads, or of one where few lanes are used.
    fn deinterleave(&self, beside: f64) -> (f64, f64) {
        let halves = (2 * self.columns).div_ceil(u64::from(self.target.lanes())).min(2) as f64;
        let loads = halves * (beside / 2.0).ceil() / beside;
        (loads * (self.crossing() + self.masked()), DEINTERLEAVING)
    }

    /// Seconds of a shuffle, which not every unit that multiplies can do.
    fn shuffle(&self) -> f64 {
        match self.target.has_micro_kernels() {
            true => self.rates.shuffle,
            false => self.rates.narrow[0],
        }
    }

    /// Lines that a vector load at any place reads, on the average.
    fn crossing(&self) -> f64 {
        let part = f64::from(self.target.isa().vector_bits()) / 512.0;
        1.0 + (CROSSING_LOADS - 1.0) * part
    }

    /// Loads besides of a vector that may be cut short by padding, where masks are vectors too.
    fn masked(&self) -> f64 {
        let bordering = 2.0 * f64::from(self.target.lanes()) / self.columns as f64;
        let predicates = self.target.unit().is_none_or(|unit| unit.mask_registers);
        match self.plan.is_tile_in_place(self.problem) && !predicates {
            true => MASKED_LOADS * bordering.min(1.0),
            false => 0.0,
        }
    }

    /// The layout that products read.
    fn read_layout(&self) -> Layout {
        self.plan.copy.and_then(|copy| copy.layout).unwrap_or(self.problem.layout())
    }

    /// Seconds of adding, finishing and storing the sums of a tile.
    fn stores(&self, tiles: &Tiles, fma: f64, load: f64) -> f64 {
        let (plan, problem) = (self.plan, self.problem);
        let lanes = f64::from(self.target.lanes());
        let last = problem.layout() == Layout::ChannelsLast;
        let columns = plan.lanes == LaneAxis::Columns;
        // Outputs of a phase lie apart.
        let strided = !self.whole && !last;
        let neighbours = !strided && (last != columns || problem.out_channels() == 1);
        let sums = plan.lanes.sums(problem, self.target) as f64;
        let each = match neighbours {
            true => 2.0 * load,
            false if strided && !columns => TRANSPOSED_ELEMENT * lanes * self.rates.cycle,
            false if tiles.rows >= QUAD && self.target.has_micro_kernels() => {
                (SHUFFLES + lanes / QUAD) * self.shuffle()
            }
            false => 2.0 * lanes * load,
        };
        tiles.sums() * (each + (2.0 * sums - 1.0) * fma)
    }

    /// Cycles of copying the input.
    fn copies(&self, tiles: &Tiles) -> f64 {
        let (plan, problem) = (self.plan, self.problem);
        let Some(copy) = plan.copy else { return 0.0 };
        let bytes = plan.packed_input_bytes(problem, self.target) as f64;
        let times = match copy.at {
            None => 1.0,
            Some(_) => tiles.along,
        };
        // Each pixel of fused axes is of one task.
        let tasks = if plan.fused { 1 } else { self.first.div_ceil(plan.block) };
        let tasks = (problem.batch().max(1) * tasks) as f64;
        let elements = tasks * times * bytes / problem.elem().bytes() as f64;
        let lanes = f64::from(self.target.lanes());
        let channels = problem.in_channels() as f64;
        let each = match copy.layout {
            Some(_) if copy.transposed && self.target.has_micro_kernels() => {
                (SHUFFLES + lanes / QUAD) / lanes
            }
            Some(_) => TRANSPOSED_ELEMENT,
            None if plan.is_one_strip(problem, self.target) => 2.0 / lanes,
            None if problem.layout() == Layout::ChannelsLast && channels >= lanes => 2.0 / lanes,
            None => COPIED_ELEMENT,
        };
        elements * each
    }

    /// Seconds of fetching what does not stay in the first-level cache.
    fn traffic(&self, tiles: &Tiles) -> f64 {
        let (plan, problem) = (self.plan, self.problem);
        let elem = problem.elem().bytes() as f64;
        let images = problem.batch().max(1);
        let bytes = |shape: Vec<u64>| shape.iter().product::<u64>() as f64 * elem;
        let (input, output) =
            (bytes(problem.input_shape(images)), bytes(problem.output_shape(images)));
        let weights = bytes(problem.weights_shape());
        let once = (input + 2.0 * output + weights) * self.rate(input + output + weights);
        let tasks = images as f64 * self.first.div_ceil(plan.block) as f64;
        if plan.order == LoopOrder::PIXELS || problem.in_channels_per_group() == 1 {
            return once;
        }
        let again = input * (tiles.channels - 1.0) * self.rate(input / tasks);
        once + again + weights * (tasks - 1.0) * self.rate(weights)
    }

    /// Seconds a byte of what fills so many bytes.
    fn rate(&self, bytes: f64) -> f64 {
        let caches = self.target.caches();
        let [l1d, l2, l3] = [caches.l1d, caches.l2, caches.l3].map(|bytes| bytes as f64);
        let Rates { l2: near, l3: far, memory, .. } = self.rates;
        // What does not fit a level is not all lost from it: lines are not dropped in the order in
        // which they come again.
        let beyond = |level: f64| (bytes / level - 1.0).clamp(0.0, 1.0);
        let levels = [(l1d, near), (l2, far), (l3, memory)];
        levels.into_iter().fold(0.0, |rate, (level, next)| rate + (next - rate) * beyond(level))
    }
}
