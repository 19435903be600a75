//! The stages before code, for any target: a problem and a schedule become verified nests.
//!
//! ```text
//! problem, algorithm
//!     | parts
//! nests
//!     | transform
//! scheduled nests
//!     | lower, verify, outline
//! verified nests with marks of micro-kernels
//! ```
//! Promises: the nests of a problem together write every element of the output once, or the stage
//! that refuses says why. Does not: choose, or generate code.

use convgen_ir::nest::Nest;
use convgen_ir::problem::ConvProblem;
use convgen_ir::schedule::Schedule;
use convgen_ir::separable::Separable;
use convgen_ir::verify::{Limits, VerifiedNest, verify_parts};

use crate::algorithm::{Algorithm, Part, Unsupported, winograd};
use crate::error::Error;
use crate::fourier::Plan;
use crate::lower::Outlined;
use crate::target::Target;
use crate::{fusion, lower, transform};

/// The scheduled nests of a problem, one a part, before lowering.
pub(crate) fn schedule(
    problem: &ConvProblem,
    algorithm: Algorithm,
    schedule: &Schedule,
) -> Result<Vec<Nest>, Error> {
    scheduled(algorithm.parts(problem)?, schedule)
}

/// The schedule with all decisions in it: before the rewrites stand the sizes of an algorithm of
/// tiles, the default ones if none are given.
pub(crate) fn completed(
    target: &Target,
    problem: &ConvProblem,
    algorithm: Algorithm,
    schedule: &Schedule,
) -> Result<Schedule, Unsupported> {
    let sizes = match algorithm {
        Algorithm::Direct => return Ok(schedule.clone()),
        _ if schedule.sizes().next().is_some() => return Ok(schedule.clone()),
        Algorithm::Winograd => winograd::choose(problem, target)?.tiling.schedule(problem),
        Algorithm::Fourier => {
            let unsupported = |reason| Unsupported { algorithm, reason };
            Plan::new(problem, target).map_err(unsupported)?.schedule(problem)
        }
    };
    Ok(sizes.directives.into_iter().chain(schedule.directives.iter().cloned()).collect())
}

/// The tiles of the Fourier form of a problem, and its generated stages: products and last stage.
pub(crate) fn lower_fourier(
    target: &Target,
    problem: &ConvProblem,
    schedule: &Schedule,
) -> Result<(Plan, [Outlined; 2]), Error> {
    let plan = Plan::read(problem, schedule, target)?;
    let limits = target.limits();
    let products = lower::lower(plan.products()?, &limits)?;
    let finish = lower::lower(plan.finish(problem), &limits)?;
    Ok((plan, [products, finish].map(|nest| Outlined::new(nest, target))))
}

/// As [`schedule`], also of an algorithm whose nests are written for a target.
pub(crate) fn schedule_for(
    target: &Target,
    problem: &ConvProblem,
    algorithm: Algorithm,
    schedule: &Schedule,
) -> Result<Vec<Nest>, Error> {
    let (parts, rewrites) = algorithm.parts_for(problem, schedule, target)?;
    scheduled(parts, &rewrites)
}

fn scheduled(parts: Vec<Part>, schedule: &Schedule) -> Result<Vec<Nest>, Error> {
    let several = parts.len() > 1;
    let apply = |part: Part| {
        let schedule = part.schedule.as_ref().unwrap_or(schedule);
        Ok(match several {
            true => transform::apply_to_part(part.nest, schedule)?,
            false => transform::apply(part.nest, schedule)?,
        })
    };
    parts.into_iter().map(apply).collect()
}

/// The verified nests of a problem, with marks: together they write every element of the output
/// once.
pub(crate) fn lower_for(
    target: &Target,
    problem: &ConvProblem,
    algorithm: Algorithm,
    schedule: &Schedule,
) -> Result<Vec<Outlined>, Error> {
    let scheduled = schedule_for(target, problem, algorithm, schedule)?.into_iter();
    let limits = target.limits();
    let lower = |nest| lower::lower(nest, &limits);
    let nests: Vec<VerifiedNest> = scheduled.map(lower).collect::<Result<_, _>>()?;
    verify_parts(&nests, &limits)?;
    Ok(nests.into_iter().map(|nest| Outlined::new(nest, target)).collect())
}

/// What the names of the depthwise half begin with in a fused nest.
const PREFIX: &str = "dw.";

/// How a separable convolution is computed in one nest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SeparablePlan {
    /// Indices of the first spatial axis of the output that are one task: a divisor of its length.
    pub rows: u64,
    /// Tasks that share the output channels of these rows.
    pub parts: u64,
    /// The schedule of the depthwise half.
    pub depthwise: Schedule,
    /// The schedule of the pointwise half.
    pub pointwise: Schedule,
    /// Whether what the next task reads is fetched while the pointwise half of one multiplies.
    pub fetch: bool,
}

/// The fused nest of a separable convolution, scheduled, before lowering.
pub(crate) fn schedule_separable(
    separable: &Separable,
    plan: &SeparablePlan,
) -> Result<Nest, Error> {
    let half = |problem, of_half| {
        let mut nests = schedule(problem, Algorithm::Direct, of_half)?;
        // A forward problem is one nest.
        Ok::<Nest, Error>(nests.swap_remove(0))
    };
    let depthwise = half(separable.depthwise(), &plan.depthwise)?;
    let pointwise = half(separable.pointwise(), &plan.pointwise)?;
    let mut nest = fusion::fuse(&depthwise, &pointwise, PREFIX)?;
    if plan.fetch {
        fusion::fetch_early(&mut nest);
    }
    Ok(nest)
}

/// The fused nest, verified.
pub(crate) fn lower_separable_for(
    target: &Target,
    separable: &Separable,
    plan: &SeparablePlan,
) -> Result<Outlined, Error> {
    let nest = schedule_separable(separable, plan)?;
    // The code of two kernels may be as long as that of both.
    let limits = target.limits();
    let limits = Limits { unrolled: 2 * limits.unrolled, ..limits };
    Ok(Outlined::new(lower::lower(nest, &limits)?, target))
}
