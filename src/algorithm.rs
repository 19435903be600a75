//! From a problem to unscheduled nests: one module an algorithm, one list of all of them.

mod build;
mod direct;
mod gradient;
pub(crate) mod sizes;
mod sum;
mod tensors;
pub mod winograd;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use convgen_ir::elem::Layout;
use convgen_ir::every;
use convgen_ir::nest::Nest;
use convgen_ir::problem::{ConvProblem, Direction};
use convgen_ir::schedule::{Directive, Schedule, Size};

pub use self::sizes::SizesError;
use self::sum::DenseSum;
use crate::accuracy::Accuracy;
use crate::target::Target;

/// A way to compute a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// The defining sum, one multiply-add a tap. Accepts every problem.
    Direct,
    /// Fewer products by transforms of tiles, see [`winograd`]. Rounds in another way than the
    /// defining sum. Accepts the sums of stride one of at most seven taps an axis.
    Winograd,
    /// Products of Fourier transforms, see [`fourier`](crate::fourier). Rounds in another way than
    /// the defining sum. Accepts forward problems of one or two axes.
    Fourier,
}

/// A nest that writes a part of the output: all of it, or one phase of a transposed convolution.
/// The parts of a problem write every element once.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// The unscheduled nest. Loops of all parts have the same names.
    pub nest: Nest,
    /// The schedule of a part that has no sum, and so is not the kernel's schedule's business.
    pub schedule: Option<Schedule>,
}

/// A loop over the phases of an axis of a transposed problem.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PhaseLoop {
    /// Its name.
    pub name: String,
    /// The spatial axis.
    pub axis: usize,
    /// How many phases it has.
    pub count: u64,
    /// How far the inputs of the first and the last phase lie apart.
    pub shift: u64,
    /// Whether some of the phases leave out taps, so that the loop stands around the taps.
    pub guarded: bool,
}

impl PhaseLoop {
    /// The phases of all loops together.
    pub(crate) fn in_all(loops: &[PhaseLoop]) -> u64 {
        loops.iter().map(|phases| phases.count).product()
    }
}

/// Why an algorithm does not compute a problem.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{algorithm} does not apply: {reason}")]
pub struct Unsupported {
    /// The algorithm that was asked for.
    pub algorithm: Algorithm,
    /// The property of the problem that is outside its domain.
    pub reason: String,
}

/// Why an algorithm has no nests for a problem and a schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartsError {
    /// The problem is outside its domain.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// The sizes that the schedule begins with do not fit.
    #[error(transparent)]
    Sizes(#[from] SizesError),
}

/// Why an algorithm of tiles has no unscheduled nests.
const TILES: &str = "its nests are written with the sizes of a schedule, for a target";

/// Why an algorithm of stages has no parts.
const STAGES: &str = "it is stages around transforms, which no schedule rewrites";

/// Batch, channel and positions in the order of a layout.
pub(crate) use self::build::ordered as in_layout;

/// Bytes of the transformed weights of a kernel, at most.
pub(crate) const TRANSFORMED_BYTES: u64 = 1 << 30;

/// Elements that a part without a sum fills at a time.
const FILL: u64 = 64;

impl Algorithm {
    /// Every algorithm, the most general first.
    pub const ALL: [Algorithm; 3] = every!(Algorithm { Direct, Winograd, Fourier });

    /// The algorithm whose schedule this is, by the sizes that it begins with; that of sums if
    /// there are none.
    pub fn of(schedule: &Schedule) -> Algorithm {
        let has = |wanted: Size| schedule.sizes().any(|(of, _, _)| of == wanted);
        match schedule.sizes().next() {
            None => Algorithm::Direct,
            Some(_) if has(Size::Points) && !has(Size::Register) => Algorithm::Fourier,
            Some(_) => Algorithm::Winograd,
        }
    }

    /// The name in kernels' names, reports and the command line.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Direct => "direct",
            Algorithm::Winograd => "winograd",
            Algorithm::Fourier => "fourier",
        }
    }

    /// The unscheduled nests of a problem: every loop serial, one sum in one register. Most
    /// problems are one nest; a transposed one of stride `s` is `s` an axis, or has a loop over `s`
    /// phases if they differ evenly or are many.
    ///
    /// # Errors
    /// [`Unsupported`] if the problem is outside the algorithm's domain.
    pub fn parts(self, problem: &ConvProblem) -> Result<Vec<Part>, Unsupported> {
        let unsupported = |reason| Unsupported { algorithm: self, reason };
        match self {
            Algorithm::Direct => direct_parts(problem).map_err(unsupported),
            Algorithm::Winograd => Err(unsupported(TILES.to_string())),
            // Its nests are stages around transforms: no part of the output is one's alone.
            Algorithm::Fourier => Err(unsupported(STAGES.to_string())),
        }
    }

    /// The nests of a problem, those of an algorithm of tiles with the sizes that a schedule begins
    /// with; and the rewrites that the schedule says besides.
    ///
    /// # Errors
    /// [`PartsError`] if the problem is outside the algorithm's domain, or the sizes do not fit.
    pub fn parts_for<'s>(
        self,
        problem: &ConvProblem,
        schedule: &'s Schedule,
        target: &Target,
    ) -> Result<(Vec<Part>, Cow<'s, Schedule>), PartsError> {
        match self {
            Algorithm::Direct | Algorithm::Fourier => {
                Ok((self.parts(problem)?, Cow::Borrowed(schedule)))
            }
            Algorithm::Winograd => {
                let (parts, rewrites) = winograd::parts(problem, schedule, target)?;
                Ok((parts, Cow::Owned(rewrites)))
            }
        }
    }

    /// Whether it rounds like the defining sum in some order: then sums of integers are exact.
    pub fn is_sum(self) -> bool {
        match self {
            Algorithm::Direct => true,
            Algorithm::Winograd | Algorithm::Fourier => false,
        }
    }

    /// Whether an accuracy allows its arithmetic; whether its tiles are exact enough is another
    /// question.
    pub fn is_allowed_by(self, accuracy: Accuracy) -> bool {
        match self {
            Algorithm::Direct => true,
            Algorithm::Winograd => !accuracy.is_sum(),
            Algorithm::Fourier => !accuracy.is_local(),
        }
    }

    /// A forward problem whose schedules are legal for every part of a problem; none if the parts
    /// are no convolutions.
    pub fn as_forward(self, problem: &ConvProblem) -> Option<ConvProblem> {
        match (self, problem.direction()) {
            (Algorithm::Direct, Direction::Forward) => Some(problem.clone()),
            (Algorithm::Direct, Direction::Transposed | Direction::BackwardData) => {
                smallest_forward(problem)
            }
            (Algorithm::Direct, Direction::BackwardWeights | Direction::BackwardBias) => None,
            (Algorithm::Winograd | Algorithm::Fourier, _) => None,
        }
    }
}

/// The loops over phases that the nests of a direct problem have around those of
/// [`Algorithm::as_forward`], outermost first.
pub(crate) fn phase_loops(problem: &ConvProblem) -> Vec<PhaseLoop> {
    if problem.direction() == Direction::Forward {
        return vec![];
    }
    // Each part of a problem has the same ones.
    let sums = merged_sums(problem).unwrap_or_default();
    sums.first().map(|sum| loops_over_phases(problem, sum)).unwrap_or_default()
}

fn loops_over_phases(problem: &ConvProblem, sum: &DenseSum) -> Vec<PhaseLoop> {
    let axes = problem.axis_names().iter().zip(&sum.axes).enumerate();
    let loops = axes.flat_map(|(axis, (name, s))| {
        let guarded = s.has_guards();
        let (name, shift, count) = (direct::phase_loop(name), s.shift(), s.phases());
        let phases = PhaseLoop { name, axis, count, shift, guarded };
        let (name, count) = (direct::class_loop(problem.axis_names()[axis]), s.classes());
        let classes = PhaseLoop { name, axis, count, shift: 0, guarded };
        [phases, classes]
    });
    loops.filter(|phases| phases.count > 1).collect()
}

/// A name that is no algorithm of this build.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no algorithm `{given}` in this build; there is: {known}")]
pub struct UnknownAlgorithm {
    /// The name.
    pub given: String,
    /// The names that exist.
    pub known: String,
}

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(name: &str) -> Result<Algorithm, UnknownAlgorithm> {
        let found = Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name);
        found.ok_or_else(|| UnknownAlgorithm {
            given: name.to_string(),
            known: Algorithm::ALL.map(Algorithm::name).join(", "),
        })
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn direct_parts(problem: &ConvProblem) -> Result<Vec<Part>, String> {
    let one = |nest| Ok(vec![Part { nest, schedule: None }]);
    match problem.direction() {
        Direction::BackwardWeights => one(gradient::weights(problem)),
        Direction::BackwardBias => one(gradient::bias(problem)),
        Direction::Forward | Direction::Transposed | Direction::BackwardData => {
            let part = |sum: DenseSum| Part {
                nest: sum.nest(problem),
                schedule: sum.is_empty().then(|| fill(problem, &sum)),
            };
            Ok(merged_sums(problem)?.into_iter().map(part).collect())
        }
    }
}

/// The dense sums that make up a problem, one a phase.
fn sums(problem: &ConvProblem) -> Result<Vec<DenseSum>, String> {
    sums_by(problem, DenseSum::phases)
}

/// The same, phases that differ evenly as one, and those of which there are many.
fn merged_sums(problem: &ConvProblem) -> Result<Vec<DenseSum>, String> {
    sums_by(problem, DenseSum::transposed)
}

fn sums_by(
    problem: &ConvProblem,
    transposed: fn(&ConvProblem) -> Result<Vec<DenseSum>, String>,
) -> Result<Vec<DenseSum>, String> {
    match problem.direction() {
        Direction::Forward => Ok(vec![DenseSum::forward(problem)]),
        Direction::Transposed | Direction::BackwardData => transposed(problem),
        Direction::BackwardWeights | Direction::BackwardBias => {
            Err("the gradient of parameters is no sum over taps".to_string())
        }
    }
}

/// The phases differ by one tap and one output an axis: what suits the fewest outputs and the most
/// taps suits all.
fn smallest_forward(problem: &ConvProblem) -> Option<ConvProblem> {
    let sums = DenseSum::transposed(problem).ok()?;
    let mut sums = sums.into_iter().filter(|sum| !sum.is_empty());
    let mut spec = sums.next()?.as_forward(problem);
    for sum in sums {
        let other = sum.as_forward(problem);
        for (axis, other) in spec.spatial.iter_mut().zip(other.spatial) {
            let outputs = axis.output().min(other.output());
            axis.kernel = axis.kernel.max(other.kernel);
            axis.pad_before = axis.pad_before.max(other.pad_before);
            let reach = (outputs - 1) * axis.stride + axis.extent();
            axis.pad_after = reach as i64 - axis.input as i64 - axis.pad_before;
        }
    }
    ConvProblem::new(spec).ok()
}

/// The schedule of a part that only writes: rows are tasks, what is contiguous is written at once.
fn fill(problem: &ConvProblem, sum: &DenseSum) -> Schedule {
    let name = |text: &str| text.to_string();
    let positions = problem.axis_names().iter().map(|name| format!("o{name}"));
    let channels = [name("g"), name("oc")];
    let mut axes = vec![name("n")];
    match problem.layout() {
        Layout::ChannelsFirst => axes.extend(channels.into_iter().chain(positions)),
        Layout::ChannelsLast => axes.extend(positions.chain(channels)),
    }
    let tasks = axes[..2].to_vec();
    axes.splice(2..2, loops_over_phases(problem, sum).into_iter().map(|phases| phases.name));
    let mut directives = vec![Directive::Reorder { axes }];
    directives.extend(tasks.into_iter().map(|axis| Directive::Parallel { axis }));
    let channels = problem.result_channels() / problem.groups();
    let by = (1..=FILL.min(channels)).rev().find(|by| channels.is_multiple_of(*by)).unwrap_or(1);
    if problem.layout() == Layout::ChannelsLast && by > 1 {
        let (axis, by, tail) = (name("oc"), by as u32, convgen_ir::schedule::Tail::Guard);
        directives.push(Directive::Split { axis, by, tail });
        directives.push(Directive::Vectorize { axis: name("oc.i") });
    }
    Schedule { directives }
}
