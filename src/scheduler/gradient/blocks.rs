//! Gradients of weights in blocks of positions: every tile of sums goes over a block before any
//! goes on to the next, so that both tensors are read from beyond L2 once and not once a tile and
//! tap.
//!
//! The sums then lie in scratch, which tasks share out by tiles; the next block is fetched while
//! one is summed, and the weights' gradient is written from the scratch in the order in which it
//! lies in memory.

use convgen_ir::problem::SpatialAxis;
use convgen_ir::schedule::{Directive, Tail};

use super::GradientWriter;
use crate::target::CACHE_LINE;

/// Positions of a block, at least: each tile of sums is loaded and stored once a block, which takes
/// as long as some ten positions. 3x3 over 128 channels of 112x112: 151 GFLOP/s in blocks of 112
/// positions, 158 of 448, which still fit the first cache, 107 of 1792.
const POSITIONS_OF_A_BLOCK: u64 = 112;

/// Vector multiply-adds for each line fetched early, at least: ports that load are wanted for
/// products too. 7x7 from 3 channels to 64, twelve for four lines: 160 GFLOP/s without, 96 to 150
/// with.
const PRODUCTS_OF_A_PREFETCH: u64 = 6;

/// Positions of a row, at least, for which sums are loaded and stored.
const LEAST_ROW: u64 = 28;

/// Bytes of sums that go through scratch whatever the caches.
const SMALL_SCRATCH: u64 = 256 << 10;

/// The part of the second-level cache that the sums of a task may fill.
const PARTS_FOR_SUMS: u64 = 2;

/// Tiles of an axis of which every share is looked at.
const MANY_TILES: u64 = 4096;

/// How many tiles a task may have of so many: every number or, of many tiles, the least one for
/// each number of tasks, which leaves most of the cache to the other axis.
fn shares(count: u64) -> impl Iterator<Item = u64> {
    let next = move |tiles: &u64| match (count > MANY_TILES, count.div_ceil(*tiles)) {
        (false, _) => (*tiles < count).then_some(tiles + 1),
        (true, tasks) => (tasks > 1).then(|| count.div_ceil(tasks - 1)),
    };
    std::iter::successors(Some(1), next)
}

/// The loop over the tiles of an axis, if there are several.
pub(super) struct Tiles {
    pub(super) outer: Option<String>,
    pub(super) count: u64,
}

/// The reduction in blocks: the loop over them, if there are several, and the loop over the
/// positions of each spatial axis that stays inside.
pub(super) struct Blocks {
    pub(super) over: Option<String>,
    pub(super) inner: Vec<String>,
    positions: u64,
}

impl GradientWriter<'_> {
    /// How many tiles of the rows and of the columns are of one task: those that read least from
    /// beyond the cache in which their sums lie, of as many tasks as there are cores.
    pub(super) fn tasks(&self, rows: &str, [r, c]: [&Tiles; 2], tile_sums: u64) -> [u64; 2] {
        let problem = self.problem;
        let bytes = problem.elem().bytes() as u64;
        let taps = problem.taps();
        let budget = self.sums_bytes();
        let [input, output] = self.read();
        let (of_rows, of_columns) = if rows == "ic" { (input, output) } else { (output, input) };
        let cores = self.target.cores() as u64;
        // What the cache holds beside the sums may be read again.
        let held = bytes * (input + output) * problem.batch() <= budget / 2;
        let copies = self.copies();
        let mut best = (u64::MAX, [1, 1]);
        for row_tiles in shares(r.count) {
            let column_tiles = (budget / (row_tiles * tile_sums * taps * bytes)).clamp(1, c.count);
            for column_tiles in [column_tiles, c.count.div_ceil(cores).min(column_tiles)] {
                let row_tasks = r.count.div_ceil(row_tiles);
                let column_tasks = c.count.div_ceil(column_tiles);
                let sums = row_tiles * column_tiles * tile_sums * taps * bytes;
                let tasks = row_tasks * column_tasks * problem.groups();
                let fits = sums <= budget || (row_tiles, column_tiles) == (1, 1);
                if !fits || tasks < cores.min(r.count * c.count) {
                    continue;
                }
                let read = match held {
                    // Each task copies its channels of the input.
                    true if copies => input * row_tasks,
                    true => 0,
                    false => of_rows * column_tasks + of_columns * row_tasks,
                };
                if read < best.0 {
                    let even = |count: u64, tasks: u64| count.div_ceil(tasks);
                    best = (read, [even(r.count, row_tasks), even(c.count, column_tasks)]);
                }
            }
        }
        best.1
    }

    /// The loops over the tiles of an axis, so many of them in a task: that over tasks, and that
    /// inside.
    pub(super) fn share_out(
        &mut self,
        tiles: Tiles,
        in_task: u64,
    ) -> (Option<String>, Option<String>) {
        match tiles.outer {
            Some(outer) if in_task == 1 => (Some(outer), None),
            Some(outer) if in_task < tiles.count => {
                let (task, within) = self.split((&outer, tiles.count), in_task, Tail::Guard);
                (task, Some(within))
            }
            within => (None, within),
        }
    }

    /// Whether the sums go through scratch, so many of them a tap: for the blocks, or because the
    /// weights of several taps do not lie as the tile does.
    pub(super) fn spills(&self, blocks: &Blocks, sums: u64) -> bool {
        let taps = self.problem.taps();
        let bytes = sums * taps * self.problem.elem().bytes() as u64;
        let fits = bytes <= self.sums_bytes().max(SMALL_SCRATCH);
        !self.caution.copies && fits && (blocks.over.is_some() || taps > 1)
    }

    /// Bytes that the sums of a task may fill.
    pub(super) fn sums_bytes(&self) -> u64 {
        self.target.caches().l2 as u64 / PARTS_FOR_SUMS
    }

    /// Fetches the next block, which lies behind it, while one is summed.
    pub(super) fn prefetch(&mut self, blocks: &Blocks) {
        let bytes = self.read().iter().sum::<u64>() * self.problem.elem().bytes() as u64;
        let far = self.target.ahead(bytes, CACHE_LINE as u64 * blocks.positions).is_some();
        if let (true, Some(_), Some(axis)) = (far, &blocks.over, blocks.inner.last()) {
            let (axis, by) = (axis.clone(), blocks.positions as u32);
            self.directives.push(Directive::Prefetch { axis, by });
        }
    }

    /// Whether a tile has enough multiply-adds for each line it reads of a position.
    pub(super) fn lines_worth_a_prefetch(&self, rows: u64, column: u64) -> bool {
        let lines = rows.div_ceil(self.line()) + column.div_ceil(self.line());
        rows * column.div_ceil(self.lanes()) >= PRODUCTS_OF_A_PREFETCH * lines
    }

    /// Elements of an image of the input, and of the output's gradient.
    fn read(&self) -> [u64; 2] {
        let elements = |shape: &[u64]| shape.iter().product::<u64>();
        let gradient = self.problem.extra_shapes(1).first().map_or(0, |(_, shape)| elements(shape));
        [elements(&self.problem.input_shape(1)), gradient]
    }

    /// Splits the loops over positions so that a block of them is worth loading and storing the
    /// sums.
    pub(super) fn blocks(&mut self) -> Blocks {
        let problem = self.problem;
        let axes: Vec<(String, u64)> = problem
            .axis_names()
            .iter()
            .zip(problem.spatial())
            .map(|(name, s)| (format!("o{name}"), s.output()))
            .collect();
        let mut inside = 1;
        let mut inner: Vec<String> = axes.iter().map(|(name, ..)| name.clone()).collect();
        for at in (0..axes.len()).rev() {
            let (name, extent) = &axes[at];
            let by = POSITIONS_OF_A_BLOCK.div_ceil(inside).min(*extent);
            if inside * extent >= 2 * POSITIONS_OF_A_BLOCK {
                let by = extent.div_ceil(extent.div_ceil(by));
                let positions = inside * by;
                if by == 1 {
                    return Blocks { over: Some(name.clone()), inner, positions };
                }
                let (over, within) = self.split((name, *extent), by, Tail::Guard);
                inner[at] = within;
                return Blocks { over, inner, positions };
            }
            inside *= extent;
        }
        // A copy is of one image at a time.
        let over = (problem.batch() > 1 || self.copies()).then(|| "n".to_string());
        Blocks { over, inner, positions: inside }
    }

    /// Orders the loops that write the output as its elements lie in memory, lanes innermost, and
    /// writes out as many neighbours as a register has lanes, which are then transposed.
    pub(super) fn written(&mut self, loops: &[String], inner: &[String], lanes: bool) {
        let all: Vec<&String> = loops.iter().chain(inner).collect();
        let kind = |name: &str| match name.split('.').next().unwrap_or(name) {
            "oc" => 0,
            "ic" => 1,
            _ => 2,
        };
        let last = if lanes { inner.last() } else { None };
        let mut order: Vec<&String> = all.into_iter().filter(|name| Some(*name) != last).collect();
        order.sort_by_key(|name| kind(name));
        let written = |name: &String| format!("{name}.w");
        let axes: Vec<String> = order.iter().copied().chain(last).map(written).collect();
        if axes.len() > 1 {
            self.directives.push(Directive::Reorder { axes });
        }
        if let Some(last) = last {
            let mut neighbours = 1;
            let taps = self.problem.axis_names().iter().zip(self.problem.spatial()).rev();
            for (name, s) in taps {
                neighbours *= s.kernel;
                if neighbours > self.lanes() {
                    break;
                }
                self.directives.push(Directive::Unroll { axis: format!("k{name}.w") });
            }
            self.directives.push(Directive::Vectorize { axis: written(last) });
        }
    }

    /// The loop over rows, if all channels are to go over one before the next: tensors that no
    /// cache holds are then read as they lie. 3x3 over 144 channels of 56x56: 0.126 ms, 0.143
    /// channels by channels.
    pub(super) fn rows_at_a_time(
        &self,
        axes: &[(&&str, &SpatialAxis)],
        in_tile: bool,
        tiles: u64,
    ) -> Option<String> {
        let problem = self.problem;
        let [(name, _), rows @ ..] = axes else { return None };
        let row: u64 = rows.iter().map(|(_, s)| s.output()).product();
        let bytes = self.read().iter().sum::<u64>() * problem.elem().bytes() as u64;
        let taps: u64 = axes.iter().map(|(_, s)| s.kernel).product();
        let sums = problem.groups() * taps * problem.elem().bytes() as u64;
        let pays = !self.caution.copies
            && in_tile
            && tiles > 1
            && sums <= self.sums_bytes()
            && row >= LEAST_ROW
            && bytes > self.target.caches().l2 as u64
            && !problem.extends_input();
        pays.then(|| format!("o{name}"))
    }
}
