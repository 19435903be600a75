//! Whether an output is several sums in a vector: input channels are lanes beside output channels.
//!
//! The order of a sum is a decision of its own, made by channels and taps alone: the chunks of a
//! stream, the halves of a pair and pictures of any size have the bits of one another. Which of the
//! plans in that order is taken is a question of time.

use convgen_ir::elem::Layout;

use super::plan::{groups_fill_a_vector, pixel_work, sums_a_channel};
use super::{Picker, SHORTEST_VECTOR};

/// Sums an output of groups with half as many output channels as a vector has lanes. 3x3, 8
/// channels a group, 28x28: 0.25 ms with the channels of two groups as lanes, 0.19 this way; but 4
/// channels a group, 56x56: 0.28 with those of four groups, 0.40 with four sums an output.
const PAIR: u64 = 2;

impl Picker<'_> {
    /// Whether output channels leave so many lanes empty that input channels should be lanes beside
    /// them. 1x1 from 144 to 24 at 56x56: 124 GFLOP/s without, 168 with; 3x3 from 32 to 8 at 28x28,
    /// 71 and 130.
    pub(super) fn splits_sums(&self) -> bool {
        let (problem, target) = (self.problem, self.target);
        let work = |sums| pixel_work(problem, target, sums);
        let sums = sums_a_channel(problem, target);
        let fills_more = work(1) * 10 >= work(sums) * 11;
        let enough = u64::from(target.lanes()).min(SHORTEST_VECTOR);
        problem.layout() == Layout::ChannelsLast
            && fills_more
            && (sums == PAIR || !groups_fill_a_vector(problem, target))
            && (problem.out_channels_per_group() >= enough || self.columns_need_gather())
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
}
