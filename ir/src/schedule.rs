//! A schedule: the ordered list of rewrites that turns an unscheduled nest into a fast one.
//!
//! Data only. Each [`Directive`] is carried out, and checked, by the transform of the same name in
//! the compiler crate; a directive that does not apply is refused with its reason. An algorithm of
//! transformed tiles writes its nest itself: its schedule begins with the [`Size`]s that the nest
//! is written with.

use crate::elem::Layout;
use crate::every;

/// What becomes of the last, incomplete tile of a split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Tail {
    /// Iterations beyond the end are left out at run time (`where`).
    #[default]
    Guard,
    /// Lowering writes a second, shorter loop for them (`cut`).
    Cut,
    /// They run on zeros and their results are dropped; spatial axes only.
    Pad,
}

impl Tail {
    /// Every treatment.
    pub const ALL: [Tail; 3] = every!(Tail { Guard, Cut, Pad });

    /// The word after `tail=`.
    pub fn name(self) -> &'static str {
        match self {
            Tail::Guard => "guard",
            Tail::Cut => "cut",
            Tail::Pad => "pad",
        }
    }
}

/// What a size is one of, in the schedule of an algorithm of transformed tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Size {
    /// `tile oh by 4`: outputs of a transformed tile along an axis.
    Tile,
    /// `points oh by 32`: points of its Fourier transform.
    Points,
    /// `block oh by 7`: tiles that a task transforms along an axis; `block oc by 64`: output
    /// channels of a task.
    Block,
    /// `merge oh by 2`: phases of a dilated axis that share a block.
    Merge,
    /// `register t by 12`, `register oc by 32`: tiles and output channels of the register tile.
    Register,
    /// `copy ic by 64`: input channels that are copied together.
    Copy,
    /// `ahead ic by 8`: iterations over input channels by which weights are prefetched.
    Ahead,
}

impl Size {
    /// Every size.
    pub const ALL: [Size; 7] = every!(Size { Tile, Points, Block, Merge, Register, Copy, Ahead });

    /// The word that its directive begins with.
    pub fn name(self) -> &'static str {
        match self {
            Size::Tile => "tile",
            Size::Points => "points",
            Size::Block => "block",
            Size::Merge => "merge",
            Size::Register => "register",
            Size::Copy => "copy",
            Size::Ahead => "ahead",
        }
    }
}

/// One rewrite. Axes are named as in the nest at that point.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Directive {
    /// `split ow by 14 tail=cut`: one loop becomes two, `ow.o` around `ow.i`.
    Split {
        /// The axis.
        axis: String,
        /// Iterations of the inner loop.
        by: u32,
        /// What becomes of the rest.
        tail: Tail,
    },
    /// `reorder oc.o ow.o oc.i`: these loops, nested in one another, in this order.
    Reorder {
        /// The axes, outermost first.
        axes: Vec<String>,
    },
    /// `fuse oh ow`: two loops over neighbouring dimensions become one, `oh_ow`.
    Fuse {
        /// The outer axis.
        outer: String,
        /// The inner axis.
        inner: String,
    },
    /// `vectorize oc.i`: the iterations become lanes.
    Vectorize {
        /// The axis.
        axis: String,
    },
    /// `unroll ow.i`: the iterations are copies of the body.
    Unroll {
        /// The axis.
        axis: String,
    },
    /// `parallel oh`: the iterations become tasks.
    Parallel {
        /// The axis.
        axis: String,
    },
    /// `prefetch ic.o by 32`: while an iteration runs, what is read 32 iterations later is brought
    /// nearer.
    Prefetch {
        /// The axis.
        axis: String,
        /// How many iterations later.
        by: u32,
    },
    /// `rfactor ic.i`: each iteration of this innermost reduction adds up a sum of its own, and
    /// these are added at the end.
    Rfactor {
        /// The axis.
        axis: String,
    },
    /// `accumulate output at ow.o`: one register tile holds the sums of all loops inside `ow.o`.
    AccumulateOutput {
        /// The loop whose body holds the tile.
        at: String,
    },
    /// `spill sums at oc.o over oh.o`: the register tiles inside `oc.o` all go over a block of the
    /// reduction, an iteration of `oh.o`, before any goes on to the next; scratch keeps their sums,
    /// and the output is written from there.
    SpillSums {
        /// The loop whose body holds the scratch.
        at: String,
        /// The reduction whose iterations are the blocks; those around it are outside too. All of
        /// the sum is one block if not given.
        over: Option<String>,
    },
    /// `skip padding at kh`: taps of this reduction that fall outside the input are left out.
    SkipPadding {
        /// A reduction axis that walks over taps.
        at: String,
    },
    /// `peel ow.o`: the first and last iterations, in which a tap may fall outside the input,
    /// become loops of their own.
    Peel {
        /// The axis.
        axis: String,
    },
    /// `pack weights`: the weights are copied once into the order in which the nest reads them.
    PackWeights,
    /// `pack input at oh layout=nhwc`: what a loop's body reads of the input is copied into
    /// scratch, zeros included.
    PackInput {
        /// The loop whose body holds the copy.
        at: String,
        /// The order of the copy's dimensions; the input's own if not given.
        layout: Option<Layout>,
    },
    /// `tile oh by 4` and the other [`Size`]s: not a rewrite, but what an algorithm of transformed
    /// tiles writes its nest with.
    Size {
        /// Of what.
        of: Size,
        /// An output axis, or what the size says that it counts.
        axis: String,
        /// How many.
        by: u32,
    },
}

/// Rewrites in the order in which they are carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Schedule {
    /// The rewrites.
    pub directives: Vec<Directive>,
}

impl Schedule {
    /// The directives on one line, `; ` between them; parses to the same schedule.
    pub fn one_line(&self) -> String {
        let directives: Vec<String> = self.directives.iter().map(ToString::to_string).collect();
        directives.join("; ")
    }

    /// The sizes that stand before all rewrites: of what, which axis, how many.
    pub fn sizes(&self) -> impl Iterator<Item = (Size, &str, u32)> {
        self.directives.iter().map_while(|directive| {
            let Directive::Size { of, axis, by } = directive else { return None };
            Some((*of, axis.as_str(), *by))
        })
    }
}

impl FromIterator<Directive> for Schedule {
    fn from_iter<T: IntoIterator<Item = Directive>>(directives: T) -> Schedule {
        Schedule { directives: directives.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse_schedule;

    /// One of each kind.
    fn directives() -> Vec<Directive> {
        let name = |text: &str| text.to_owned();
        let all = every!(Directive {
            Split { axis: name("ow"), by: 14, tail: Tail::Cut },
            Reorder { axes: vec![name("oc.o"), name("ow.o")] },
            Fuse { outer: name("oh"), inner: name("ow") },
            Vectorize { axis: name("oc.i") },
            Unroll { axis: name("ow.i") },
            Parallel { axis: name("oh") },
            Prefetch { axis: name("ic.o"), by: 32 },
            Rfactor { axis: name("ic.i") },
            AccumulateOutput { at: name("ow.o") },
            SpillSums { at: name("oc.o"), over: Some(name("oh.o")) },
            SkipPadding { at: name("kh") },
            Peel { axis: name("ow.o") },
            PackWeights,
            PackInput { at: name("oh"), layout: Some(Layout::ChannelsLast) },
            Size { of: super::Size::Tile, axis: name("oh"), by: 4 },
        });
        let sizes = super::Size::ALL.map(|of| Directive::Size { of, axis: name("oh"), by: 4 });
        all.into_iter().chain(sizes).collect()
    }

    #[test]
    fn every_directive_is_read_as_it_is_written() {
        let schedule = Schedule { directives: directives() };
        assert_eq!(parse_schedule(&schedule.one_line()), Ok(schedule.clone()));
        assert_eq!(parse_schedule(&schedule.to_string()), Ok(schedule));
    }

    #[test]
    fn the_grammar_names_every_directive() {
        let grammar = include_str!("lib.rs");
        for directive in directives() {
            let text = directive.to_string();
            let word = text.split(' ').next().unwrap_or_default();
            assert!(grammar.contains(&format!("\"{word}")), "{text}");
        }
    }
}
