//! Which axis the lanes run over.

use convgen_ir::elem::Layout;

use super::plan::{
    LaneAxis, columns_are_neighbours, groups_fill_a_vector, pixel_work, sums_a_channel,
};
use super::{Picker, SHORTEST_VECTOR};

/// Sums an output of groups with half as many output channels as a vector has lanes. 3x3, 8
/// channels a group, 28x28: 0.25 ms with the channels of two groups as lanes, 0.19 this way; but 4
/// channels a group, 56x56: 0.28 with those of four groups, 0.40 with four sums an output.
const PAIR: u64 = 2;

impl Picker<'_> {
    /// Vectors should be contiguous in memory where the data is: channels last, channels; channels
    /// first, columns, unless a stride tears them apart. Masks make short vectors worth while.
    pub(super) fn choose_lanes(&self) -> LaneAxis {
        let lanes = u64::from(self.target.lanes());
        let enough = lanes.min(SHORTEST_VECTOR);
        let channels = self.problem.out_channels_per_group();
        let columns = self.shape.columns();
        let stride = self.problem.spatial().last().map_or(1, |s| s.stride);
        let channels_first = self.problem.layout() == Layout::ChannelsFirst;
        if let Some(lanes) = self.channel_lanes() {
            lanes
        } else if groups_fill_a_vector(self.problem, self.target)
            && !(self.sums_fill_more() && sums_a_channel(self.problem, self.target) == PAIR)
        {
            LaneAxis::GroupChannels
        } else if self.columns_fill_more(columns, channels)
            || (channels_first
                && stride == 1
                && (columns >= lanes || channels < columns)
                && columns >= enough)
        {
            LaneAxis::Columns
        } else if (channels >= enough || self.columns_need_gather()) && self.sums_fill_more() {
            LaneAxis::Channels
        } else if channels >= enough {
            LaneAxis::OutChannels
        } else if self.problem.groups() >= enough && !channels_first {
            LaneAxis::Groups
        } else if columns >= enough {
            LaneAxis::Columns
        } else if self.problem.groups() >= enough {
            LaneAxis::Groups
        } else if self.target.has_masks() && channels.max(columns) > 1 {
            // Two lanes of a mask take as long as one element, and that as long as one of
            // Cranelift's.
            if channels >= columns { LaneAxis::OutChannels } else { LaneAxis::Columns }
        } else {
            LaneAxis::None
        }
    }

    /// Whether output channels leave so many lanes empty that input channels should be lanes beside
    /// them. 1x1 from 144 to 24 at 56x56: 124 GFLOP/s without, 168 with; 3x3 from 32 to 8 at 28x28,
    /// 71 and 130.
    fn sums_fill_more(&self) -> bool {
        let work = |sums| pixel_work(self.problem, self.target, sums);
        self.problem.layout() == Layout::ChannelsLast
            && work(1) * 10 >= work(sums_a_channel(self.problem, self.target)) * 11
    }

    /// Whether vectors of columns, which first are put together, save too few of the products that
    /// input channels as lanes take. 3x3 from 32 channels to 3 at 256x256: 1.65 ms with columns as
    /// lanes, 1.34 without. Phases share what is put together: 64 channels to 3, 4x4 at stride 2,
    /// 64x64 is 106 GFLOP/s with columns, 78 without.
    fn columns_need_gather(&self) -> bool {
        let sums = sums_a_channel(self.problem, self.target);
        let beside = pixel_work(self.problem, self.target, sums);
        let products: u64 = self.problem.weights_shape().iter().product();
        let columns = products / self.problem.groups() / u64::from(self.target.lanes());
        self.whole && beside * 2 <= columns * 3
    }

    /// Whether columns that are neighbours in memory fill vectors much better than output channels
    /// do: 5x5 from one channel to 6 at 28x28 takes 115 us with columns as lanes, 176 with
    /// channels.
    fn columns_fill_more(&self, columns: u64, channels: u64) -> bool {
        let lanes = u64::from(self.target.lanes());
        let share = |extent: u64| extent as f64 / extent.next_multiple_of(lanes) as f64;
        self.target.has_masks()
            && columns_are_neighbours(self.problem)
            && share(columns) >= 1.5 * share(channels)
    }
}
