//! Channels-first problems on vectors: which axis the lanes are, and how much of the input is
//! copied.
//!
//! A channels-first input is read by vectors of columns where it lies, or copied, a task at a time,
//! into channels-last scratch, by transposes in registers, for the kernels of channels-last
//! problems; these store a tile of pixels by channels the same way. Copies cost two to three loads
//! an element of a vector, so they pay wherever an element serves more than a few products.

use convgen_ir::elem::Layout;

use super::plan::{CopyInput, LaneAxis, LoopClass, LoopOrder, Plan, weight_bytes};
use super::{Picker, largest};

/// Parts of the second-level cache, of eight, that a task's copy of the input may fill while panels
/// of weights pass through the rest.
const PARTS_FOR_COPY: u64 = 3;

/// Rows that a task of a depthwise kernel copies for itself, for each that its neighbour copies
/// too.
const LEAST_SHARED: u64 = 2;

/// Tiles of output channels that read a strip of pixels, for a copy of it to pay.
const TILES_WORTH_A_COPY: u64 = 8;

impl Picker<'_> {
    /// Whether data lie channels first and there are registers to transpose in.
    pub(super) fn transposes(&self) -> bool {
        self.problem.layout() == Layout::ChannelsFirst && self.target.has_micro_kernels()
    }

    /// Depthwise kernels copy some channels of the rows of a task, then run over them.
    pub(super) fn channels_outermost(&self, plan: &mut Plan) {
        plan.order = LoopOrder::ALL[0];
        plan.vectors = 1;
    }

    /// Output rows of a task of a depthwise kernel: their copy stays in the first-level cache, if
    /// few of them are copied by the neighbouring tasks too.
    pub(super) fn rows_of_channels(&self, plan: &Plan) -> Option<u64> {
        let s = self.problem.spatial().first().filter(|_| self.problem.rank() > 1)?;
        let of_groups = matches!(plan.lanes, LaneAxis::Groups | LaneAxis::GroupChannels);
        if !of_groups || !self.transposes() {
            return None;
        }
        let shared = s.extent().saturating_sub(s.stride);
        let least = (LEAST_SHARED * shared).div_ceil(s.stride).clamp(1, s.output());
        let fits = |block: u64| {
            let plan = Plan { block, ..plan.clone() };
            let copied = plan.packed_input_bytes(self.problem, self.target);
            copied <= self.target.caches().l1d as u64 / 2
        };
        let most = largest(least, s.output(), fits).unwrap_or(least);
        Some(s.output().div_ceil(s.output().div_ceil(most)))
    }

    /// The copy into channels-last scratch: of the channels of a tile where each has its own input.
    pub(super) fn transposed_copy(&self, plan: &Plan) -> Option<CopyInput> {
        let layout = Some(Layout::ChannelsLast);
        let copy = |at| Some(CopyInput { at, layout, transposed: true });
        match plan.lanes {
            LaneAxis::Groups | LaneAxis::GroupChannels => {
                let several = plan.lane_extent(self.problem, self.target) < self.problem.groups();
                copy(several.then_some(LoopClass::Channels))
            }
            LaneAxis::OutChannels | LaneAxis::Channels if !self.fused => copy(None),
            LaneAxis::Columns if self.strip_is_reused(plan) => {
                Some(CopyInput { at: None, layout: None, transposed: false })
            }
            LaneAxis::OutChannels | LaneAxis::Channels | LaneAxis::Columns | LaneAxis::None => None,
        }
    }

    /// Whether a task is one strip of pixels that many tiles of output channels read: the planes of
    /// the image are far apart, each line in a page and perhaps in a cache set with others. With
    /// AVX-512, 256 to 128 channels of 56x56 take 2.1 ms where the strip lies and 1.4 from a copy.
    fn strip_is_reused(&self, plan: &Plan) -> bool {
        let tiles = self.problem.out_channels_per_group().div_ceil(plan.rows);
        self.problem.groups() == 1
            && tiles >= TILES_WORTH_A_COPY
            && plan.is_one_strip(self.problem, self.target)
    }

    /// Output rows of a task that reads weights from beyond the second-level cache: as many as the
    /// cache holds the copied input of, but a task for each core.
    pub(super) fn rows_for_weights(&self, plan: &Plan) -> u64 {
        let cached = self.target.caches().l2 as u64;
        let beyond = weight_bytes(self.problem) > cached / 2;
        if !self.transposes() || !plan.lanes.share_pixels() || self.fused || !beyond {
            return 1;
        }
        let extent = self.shape.axes[0].1;
        let most = extent.div_ceil(self.target.cores() as u64).max(1);
        let copied = |block: u64| {
            let plan = Plan { block, ..plan.clone() };
            plan.packed_input_bytes(self.problem, self.target) <= cached * PARTS_FOR_COPY / 8
        };
        largest(1, most, copied).unwrap_or(1)
    }
}
