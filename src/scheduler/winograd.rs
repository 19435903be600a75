//! Whether a problem is computed by minimal filtering: four rules, the first that applies decides.

use std::fmt;

use convgen_ir::problem::{ConvProblem, Direction, SpatialAxis};

use crate::accuracy::ERROR_BUDGET;
use crate::algorithm::winograd::{self, Chosen, Tiling};
use crate::cost::Rates;
use crate::target::Target;

/// How much shorter the prediction must be than the direct sum at [`DIRECT_RATE`]: predictions are
/// within about that of what is measured, and the sum is the more exact of two equals.
const MARGIN: f64 = 1.1;

/// The part of the peak rate of multiply-adds at which direct kernels of many channels run.
const DIRECT_RATE: f64 = 0.95;

/// Why a problem is computed by minimal filtering or not.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// The accuracy asked for allows only sums.
    Strict,
    /// Fewer channels than a vector has lanes, to sum over or to write: transforms outweigh
    /// products.
    Channels {
        /// The fewer.
        channels: u64,
        /// What a vector holds.
        lanes: u64,
    },
    /// Outside the algorithm's domain, or of its error budget.
    Outside {
        /// Why.
        reason: String,
    },
    /// The shorter of the predicted times, if by a margin.
    Predicted {
        /// The sizes, and the predicted seconds.
        chosen: Box<Chosen>,
        /// Seconds of the direct sum near the peak rate, without the taps on padding.
        direct: f64,
    },
}

impl Decision {
    /// Whether it is for minimal filtering.
    pub fn is_winograd(&self) -> bool {
        self.seconds().is_some()
    }

    /// The predicted seconds, if it is for minimal filtering.
    pub fn seconds(&self) -> Option<f64> {
        match self {
            Decision::Strict | Decision::Channels { .. } | Decision::Outside { .. } => None,
            Decision::Predicted { chosen, direct } => {
                (chosen.seconds * MARGIN < *direct).then_some(chosen.seconds)
            }
        }
    }

    /// The sizes that are the shortest by prediction, whether or not they are taken.
    pub fn tiling(&self) -> Option<&Tiling> {
        match self {
            Decision::Strict | Decision::Channels { .. } | Decision::Outside { .. } => None,
            Decision::Predicted { chosen, .. } => Some(&chosen.tiling),
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = |seconds: &f64| seconds * 1e6;
        match self {
            Decision::Strict => {
                write!(f, "strict and reproducible accuracy allow no other arithmetic")
            }
            Decision::Channels { channels, lanes } => {
                write!(f, "{channels} channels do not fill a vector of {lanes}")
            }
            Decision::Outside { reason } => write!(f, "does not apply: {reason}"),
            Decision::Predicted { chosen, direct } => {
                write!(
                    f,
                    "predicted {:.3} us, direct near the peak rate {:.3} us, at least {MARGIN} times that are needed",
                    us(&chosen.seconds),
                    us(direct)
                )?;
                let Some(plan) = chosen.plans.first() else { return Ok(()) };
                let tiles: Vec<String> =
                    plan.axes.iter().map(|axis| axis.tile.to_string()).collect();
                write!(
                    f,
                    "; tiles of {} outputs, {} of them a block, workspace {} KiB; error expected {:.1e} of a budget of {ERROR_BUDGET:.1e}, in the worst case {:.1e}, of the norm of the {}",
                    tiles.join("x"),
                    plan.tiles(),
                    plan.workspace_bytes() / 1024,
                    plan.error(),
                    plan.bound(),
                    if plan.is_local() { "window" } else { "tile" }
                )
            }
        }
    }
}

/// Applies the rules.
pub fn decide(problem: &ConvProblem, target: &Target) -> Decision {
    if target.accuracy().is_sum() {
        return Decision::Strict;
    }
    let lanes = u64::from(target.lanes());
    let channels = problem.in_channels_per_group().min(problem.out_channels_per_group());
    if channels < lanes {
        return Decision::Channels { channels, lanes };
    }
    let chosen = match winograd::choose(problem, target) {
        Ok(chosen) => Box::new(chosen),
        Err(unsupported) => return Decision::Outside { reason: unsupported.reason },
    };
    let fma = Rates::nominal(target).fma / f64::from(target.lanes());
    let direct = problem.macs() as f64 * inside(problem) * fma / DIRECT_RATE;
    Decision::Predicted { chosen, direct }
}

/// The part of the taps that is not on padding: direct kernels skip the others.
pub(super) fn inside(problem: &ConvProblem) -> f64 {
    if problem.direction() != Direction::Forward {
        return 1.0;
    }
    let axis = |s: &SpatialAxis| {
        // Products whose tap lies before the input's end, less those before its beginning.
        let taps = taps_before(s, s.input as i64) - taps_before(s, 0);
        taps as f64 / (s.kernel * s.output()) as f64
    };
    problem.spatial().iter().map(axis).product()
}

/// Pairs of a tap and an output that read before a place of the input: of tap `k` the outputs below
/// `(place + pad - k*d) / s`, rounded up, but all at most.
fn taps_before(s: &SpatialAxis, place: i64) -> i64 {
    let (kernel, stride, dilation) = (s.kernel as i64, s.stride as i64, s.dilation as i64);
    let outputs = s.output() as i64;
    let end = place + s.pad_before + stride - 1;
    let taps = |outputs: i64| ((end - outputs * stride).div_euclid(dilation) + 1).clamp(0, kernel);
    // The first taps have all outputs, the last ones none.
    let (all, some) = (taps(outputs), taps(1));
    let first = end - (some - 1) * dilation;
    all * outputs + quotients(some - all, stride, dilation, first)
}

/// The sum of `(first + i*step) / by`, rounded down, over `i` from zero to `count - 1`; as fast as
/// Euclid's algorithm. All numbers are positive, or none is summed.
fn quotients(count: i64, by: i64, step: i64, first: i64) -> i64 {
    if count <= 0 {
        return 0;
    }
    let whole = count * (first / by) + (step / by) * (count * (count - 1) / 2);
    let (first, step) = (first % by, step % by);
    let most = i128::from(step) * i128::from(count) + i128::from(first);
    let (rows, rest) = (most / i128::from(by), most % i128::from(by));
    // The same points under the line, counted along the other axis.
    whole + if rows > 0 { quotients(rows as i64, step, by, rest as i64) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taps_are_counted_as_one_by_one() {
        for (kernel, stride, dilation, pad) in (0..2000).map(|i| {
            let number = |by: i64, below: i64| i / by % below;
            (1 + number(1, 7), 1 + number(7, 5), 1 + number(35, 6), number(210, 9) - 3)
        }) {
            let axis = SpatialAxis {
                input: 11,
                kernel: kernel as u64,
                stride: stride as u64,
                dilation: dilation as u64,
                pad_before: pad,
                pad_after: 30,
            };
            let reads = |k: i64, o: i64| o * stride + k * dilation - pad;
            for place in [0, 11] {
                let pairs =
                    (0..kernel).flat_map(|k| (0..axis.output() as i64).map(move |o| (k, o)));
                let counted = pairs.filter(|(k, o)| reads(*k, *o) < place).count() as i64;
                assert_eq!(taps_before(&axis, place), counted, "{axis:?} {place}");
            }
        }
    }

    #[test]
    fn long_kernels_are_counted_at_once() {
        let axis = SpatialAxis::new(1 << 31, 1 << 30);
        assert_eq!(taps_before(&axis, 1 << 31), (1 << 30) * ((1 << 30) + 1));
    }
}
