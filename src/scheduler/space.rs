//! The schedule space of a problem on a target: every plan that could be worth measuring.
//!
//! A point is a [`Candidate`]: an algorithm, a plan, and the schedule that the plan becomes. The
//! space is the product of the knobs' choices, walked lazily; [`Space::all`] gives each point or
//! the reason why it is none. Search moves by [`Space::neighbours`] and [`Space::sample`]. An
//! algorithm finds its place here by an arm in [`Space::new`]: its candidates are plans over its
//! own nest.
//!
//! Does not: rank (that is the cost model), measure (that is `tune`), or ask whether a nest fits
//! the target's limits (that is the verifier, when a candidate is lowered).

mod tiles;

use std::collections::HashSet;
use std::fmt;

use convgen_ir::elem::Layout;
use convgen_ir::every;
use convgen_ir::problem::ConvProblem;
use convgen_ir::schedule::Schedule;

use super::decision::{Decision, Weighing};
use super::plan::{CopyInput, Excluded, LaneAxis, LoopClass, LoopOrder, Plan, Shape, is_pointwise};
use super::{Planned, default_schedule, divisor, legal_sum};
use crate::algorithm::{Algorithm, Unsupported};
use crate::stages;
use crate::target::Target;

/// Vectors of a register tile along the lanes, at most: more make the rows too few to pay for them.
const MOST_VECTORS: u64 = 4;

/// The same where columns are the lanes, or input channels too: few output channels leave registers
/// for many.
const MOST_COLUMNS: u64 = 8;

/// Output lines of a register tile, at most.
pub(super) const MOST_LINES: u64 = 4;

/// Input channels unrolled in the innermost loop, at most.
const MOST_STEPS: u64 = 64;

/// Parts into which a space cuts the first axis for the tasks to be alike.
const MOST_PARTS: u64 = 8;

/// A point of the space.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// The decisions, of a problem that has some to make.
    pub plan: Option<Plan>,
    /// What they become.
    pub schedule: Schedule,
}

impl fmt::Display for Candidate {
    /// The algorithm, then the schedule on one line, as `--schedule` reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.algorithm, self.schedule.one_line())
    }
}

/// All candidates of one algorithm for a problem on a target.
#[derive(Clone, Debug)]
pub struct Space<'p> {
    algorithm: Algorithm,
    problem: &'p ConvProblem,
    target: &'p Target,
    /// What plans are made for; none where candidates are sizes, or the default pick is all there
    /// is.
    planned: Option<Planned>,
    /// The default sizes of an algorithm of tiles.
    sizes: Schedule,
}

impl<'p> Space<'p> {
    /// The space of an algorithm.
    ///
    /// # Errors
    /// [`Unsupported`] if the algorithm does not compute the problem.
    pub fn new(
        problem: &'p ConvProblem,
        algorithm: Algorithm,
        target: &'p Target,
    ) -> Result<Space<'p>, Unsupported> {
        match algorithm {
            Algorithm::Direct => {
                let (planned, sizes) = (Planned::new(algorithm, problem), Schedule::default());
                Ok(Space { algorithm, problem, target, planned, sizes })
            }
            Algorithm::Winograd | Algorithm::Fourier => {
                let sizes = stages::completed(target, problem, algorithm, &Schedule::default())?;
                Ok(Space { algorithm, problem, target, planned: None, sizes })
            }
        }
    }

    /// The spaces that are searched for a problem, that of sums first: after it those of the
    /// algorithms of tiles that the accuracy allows and that are predicted to come near the sum.
    pub fn of(problem: &'p ConvProblem, target: &'p Target) -> Vec<Space<'p>> {
        let weighing = Weighing::new(problem, target);
        let space = |algorithm: Algorithm| match weighing.decide(algorithm) {
            _ if algorithm.is_sum() => Space::new(problem, algorithm, target).ok(),
            Decision::Predicted { tiles, direct, .. } if tiles.is_near(&direct) => {
                let sizes = tiles.schedule(problem);
                Some(Space { algorithm, problem, target, planned: None, sizes })
            }
            Decision::Predicted { .. } | Decision::Inexact { .. } | Decision::Outside { .. } => {
                None
            }
        };
        Algorithm::ALL.into_iter().filter_map(space).collect()
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The default pick's point.
    pub fn default_candidate(&self) -> Candidate {
        let (plan, schedule) = match self.algorithm {
            Algorithm::Direct => match legal_sum(self.problem, self.target, None) {
                Ok(sum) => (sum.plan, sum.schedule),
                Err(_) => (None, default_schedule(self.problem, self.target).1),
            },
            Algorithm::Winograd | Algorithm::Fourier => (None, self.sizes.clone()),
        };
        Candidate { algorithm: self.algorithm, plan, schedule }
    }

    fn candidate(&self, planned: &Planned, plan: Plan) -> Result<Candidate, Excluded> {
        plan.check(&planned.forward, self.target)?;
        Ok(self.written(planned, plan))
    }

    fn written(&self, planned: &Planned, plan: Plan) -> Candidate {
        let schedule = plan.schedule(&planned.forward, self.target);
        Candidate { algorithm: self.algorithm, plan: Some(plan), schedule }
    }

    /// Every combination of choices of a sum's plan: a candidate, or the reason why it is none.
    pub fn all(&self) -> impl Iterator<Item = Result<Candidate, Excluded>> + '_ {
        self.planned.iter().flat_map(move |planned| {
            let start = std::iter::once(planned.default_plan(self.target));
            let mut plans: Box<dyn Iterator<Item = Plan> + '_> = Box::new(start);
            for knob in Knob::ALL {
                plans = Box::new(plans.flat_map(move |plan| self.mutated(planned, &plan, knob)));
            }
            plans.map(move |plan| self.candidate(planned, plan))
        })
    }

    /// The candidates that differ in one decision, and in what must follow from it.
    pub fn neighbours(&self, candidate: &Candidate) -> Vec<Candidate> {
        let (Some(planned), Some(plan)) = (&self.planned, &candidate.plan) else {
            return self.other_sizes(candidate);
        };
        let mutated = Knob::ALL.into_iter().flat_map(|knob| self.mutated(planned, plan, knob));
        let mut plans: Vec<Plan> = mutated.map(|plan| self.legalised(planned, plan)).collect();
        let mut seen = HashSet::from([plan.clone()]);
        plans.retain(|plan| seen.insert(plan.clone()));
        plans.into_iter().filter_map(|plan| self.candidate(planned, plan).ok()).collect()
    }

    fn other_sizes(&self, candidate: &Candidate) -> Vec<Candidate> {
        let Candidate { algorithm, schedule, .. } = candidate;
        let schedules = tiles::neighbours(*algorithm, self.problem, self.target, schedule);
        let candidate = |schedule| Candidate { algorithm: *algorithm, plan: None, schedule };
        schedules.into_iter().map(candidate).collect()
    }

    /// A candidate with every decision drawn anew; `draw(n)` gives a number below `n`. It begins at
    /// the default pick and turns each knob to one of the choices that fit the others.
    pub fn sample(&self, mut draw: impl FnMut(usize) -> usize) -> Candidate {
        // Choices that fit only others not yet drawn are met in the second round.
        const ROUNDS: usize = 2;
        let Some(planned) = &self.planned else { return self.sampled_sizes(draw) };
        let mut plan = planned.default_plan(self.target);
        for knob in Knob::ALL.into_iter().cycle().take(ROUNDS * Knob::ALL.len()) {
            let mutated = self.mutated(planned, &plan, knob).into_iter();
            let legalised = mutated.map(|plan| self.legalised(planned, plan));
            let legal = |plan: &Plan| plan.check(&planned.forward, self.target).is_ok();
            let mut choices: Vec<Plan> = legalised.filter(legal).collect();
            if !choices.is_empty() {
                plan = choices.swap_remove(draw(choices.len()));
            }
        }
        self.written(planned, plan)
    }

    /// Sizes some moves from the default ones.
    fn sampled_sizes(&self, mut draw: impl FnMut(usize) -> usize) -> Candidate {
        const MOVES: usize = 6;
        let mut candidate = self.default_candidate();
        for _ in 0..MOVES {
            let mut others = self.other_sizes(&candidate);
            if !others.is_empty() {
                candidate = others.swap_remove(draw(others.len()));
            }
        }
        candidate
    }

    /// A plan with one knob at each of its choices.
    fn mutated(&self, planned: &Planned, plan: &Plan, knob: Knob) -> Vec<Plan> {
        let problem = &planned.forward;
        let with = |set: &dyn Fn(&mut Plan)| {
            let mut plan = plan.clone();
            set(&mut plan);
            plan
        };
        let numbers = |choices: Vec<u64>, field: fn(&mut Plan) -> &mut u64| {
            choices.into_iter().map(|choice| with(&|plan| *field(plan) = choice)).collect()
        };
        let flags = |choices: &[bool], field: fn(&mut Plan) -> &mut bool| {
            choices.iter().map(|choice| with(&|plan| *field(plan) = *choice)).collect()
        };
        let registers = u64::from(self.target.registers());
        match knob {
            Knob::Fused => match planned.whole && is_pointwise(problem) {
                true => flags(&[true, false], |plan| &mut plan.fused),
                false => flags(&[false], |plan| &mut plan.fused),
            },
            Knob::Lanes => {
                LaneAxis::ALL.into_iter().map(|lanes| with(&|plan| plan.lanes = lanes)).collect()
            }
            Knob::Vectors => {
                let many = matches!(plan.lanes, LaneAxis::Columns | LaneAxis::Channels);
                let most = if many { MOST_COLUMNS } else { MOST_VECTORS };
                numbers((1..=most).collect(), |plan| &mut plan.vectors)
            }
            Knob::Rows => {
                let shape = Shape::new(problem, plan.fused);
                let (_, extent) = shape.tiled(plan.lanes);
                numbers((1..=registers.min(extent)).collect(), |plan| &mut plan.rows)
            }
            Knob::Lines => {
                let several = plan.lanes.takes_lines(problem) && !plan.fused;
                let most = if several { MOST_LINES } else { 1 };
                numbers((1..=most).collect(), |plan| &mut plan.lines)
            }
            Knob::Block => numbers(self.blocks(problem, plan), |plan| &mut plan.block),
            Knob::ChannelTasks => flags(&[false, true], |plan| &mut plan.channel_tasks),
            Knob::LoopOrder => {
                LoopOrder::ALL.into_iter().map(|order| with(&|plan| plan.order = order)).collect()
            }
            Knob::Copy => {
                let set =
                    |copy, in_place| with(&|plan| (plan.copy, plan.in_place) = (copy, in_place));
                let copies =
                    copies(problem, planned.whole).into_iter().map(|copy| set(copy, false));
                copies.chain(planned.whole.then(|| set(None, true))).collect()
            }
            Knob::PackWeights => flags(&[true, false], |plan| &mut plan.pack_weights),
            Knob::Steps => {
                let channels = plan.lanes.summed_channels(problem, self.target);
                let divisors =
                    (1..=MOST_STEPS.min(channels)).filter(|by| channels.is_multiple_of(*by));
                numbers(divisors.collect(), |plan| &mut plan.steps)
            }
            Knob::Taps => flags(&[false, true], |plan| &mut plan.taps),
            Knob::Phases => match plan.phases.is_empty() {
                true => flags(&[false], |plan| &mut plan.tile_phases),
                false => flags(&[false, true], |plan| &mut plan.tile_phases),
            },
        }
    }

    /// Sizes of a task: doublings of the smallest, and parts of the whole that are alike.
    fn blocks(&self, problem: &ConvProblem, plan: &Plan) -> Vec<u64> {
        let shape = Shape::new(problem, plan.fused);
        let extent = shape.axes[0].1;
        let unit = plan.task_unit(&shape, plan.lane_extent(problem, self.target)).max(1);
        let doublings = (0..).map(|k| unit << k).take_while(|block| *block < extent);
        let parts = (1..=MOST_PARTS).map(|n| extent.div_ceil(n).next_multiple_of(unit).min(extent));
        let mut blocks: Vec<u64> = doublings.chain(parts).collect();
        blocks.sort_unstable();
        blocks.dedup();
        blocks
    }

    /// The plan with the decisions that no longer fit the others moved to the nearest that do.
    fn legalised(&self, planned: &Planned, mut plan: Plan) -> Plan {
        let problem = &planned.forward;
        let shape = Shape::new(problem, plan.fused);
        let (lane, row) = shape.tiled(plan.lanes);
        let needed = lane.div_ceil(plan.lanes.outputs_a_vector(problem, self.target)).max(1);
        plan.vectors = plan.vectors.clamp(1, needed);
        if plan.lanes == LaneAxis::Channels {
            plan.vectors = divisor(needed, plan.vectors);
        }
        let channels = plan.lanes.summed_channels(problem, self.target);
        plan.steps = divisor(channels, plan.steps);
        if plan.lanes == LaneAxis::GroupChannels {
            plan.vectors = 1;
            plan.steps = problem.in_channels_per_group();
        }
        plan.rows = plan.rows.min(row);
        if !plan.lanes.takes_lines(problem) {
            plan.lines = 1;
        }
        let unit = plan.task_unit(&shape, plan.lane_extent(problem, self.target));
        plan.block = plan.block.next_multiple_of(unit).min(shape.axes[0].1);
        plan.taps &= plan.steps == channels;
        plan
    }
}

/// Where the input may be copied, and how.
fn copies(problem: &ConvProblem, whole: bool) -> Vec<Option<CopyInput>> {
    let layouts = match problem.layout() {
        Layout::ChannelsLast => vec![None],
        Layout::ChannelsFirst => vec![None, Some(Layout::ChannelsLast)],
    };
    let places = [None, Some(LoopClass::Channels), Some(LoopClass::Rows), Some(LoopClass::Columns)];
    let copy = |at, layout: Option<Layout>| {
        Some(CopyInput { at, layout, transposed: whole && layout.is_some() })
    };
    let copies =
        places.into_iter().flat_map(|at| layouts.iter().map(move |layout| copy(at, *layout)));
    std::iter::once(None).chain(copies).collect()
}

/// A decision of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Knob {
    Fused,
    Lanes,
    Vectors,
    Rows,
    Lines,
    Block,
    ChannelTasks,
    LoopOrder,
    Copy,
    PackWeights,
    Steps,
    Taps,
    Phases,
}

impl Knob {
    /// Every knob, those on which the choices of others depend first.
    const ALL: [Knob; 13] = every!(Knob {
        Fused,
        Lanes,
        Vectors,
        Rows,
        Lines,
        Block,
        ChannelTasks,
        LoopOrder,
        Copy,
        PackWeights,
        Steps,
        Taps,
        Phases,
    });
}
