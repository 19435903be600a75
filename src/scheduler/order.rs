//! Whether a schedule adds every sum in the order of the problem's plain nest.
//!
//! That order does not depend on a machine, so such schedules have the same bits on every
//! instruction set, whatever the values: [`Accuracy::Reproducible`](crate::Accuracy::Reproducible)
//! admits no others.
//!
//! Promises: a schedule that is accepted has the bits of the plain nest. Does not: accept every
//! such schedule; two rewrites that undo one another may be refused.

use convgen_ir::nest::{AxisKind, Nest, Stmt};
use convgen_ir::problem::ConvProblem;
use convgen_ir::schedule::{Directive, Schedule};

use crate::algorithm::Algorithm;
use crate::error::Error;
use crate::stages;

/// Why a schedule may have other bits than the plain nest.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name every field")]
pub enum OrderError {
    #[error("`{directive}` changes the sum, and reproducible accuracy keeps it")]
    Changed { directive: String },
    #[error(
        "the loop of `{inner}` in that of `{outer}` is another order of the sum than the plain nest's, which reproducible accuracy keeps"
    )]
    Reordered { outer: String, inner: String },
    #[error(transparent)]
    Refused(#[from] Error),
}

/// Asks for the order of the plain nest.
///
/// # Errors
/// What changes it, or why the schedule is none of the problem.
pub fn kept(problem: &ConvProblem, schedule: &Schedule) -> Result<(), OrderError> {
    if let Some(directive) = schedule.directives.iter().find(|directive| changes(directive)) {
        return Err(OrderError::Changed { directive: directive.to_string() });
    }
    let plain = stages::schedule(problem, Algorithm::Direct, &Schedule::default())?;
    let scheduled = stages::schedule(problem, Algorithm::Direct, schedule)?;
    plain.iter().zip(&scheduled).try_for_each(|(plain, scheduled)| {
        let mut order = Vec::new();
        reductions(plain, &plain.body, &mut vec![], &mut |loops| order = loops.to_vec());
        let mut result = Ok(());
        reductions(scheduled, &scheduled.body, &mut vec![], &mut |loops| {
            if result.is_ok() {
                result = ordered(&order, loops);
            }
        });
        result
    })
}

/// Whether a directive may change a sum by itself: by adding parts of it, or by leaving out
/// products, which are no zeros where a weight is infinite.
fn changes(directive: &Directive) -> bool {
    match directive {
        Directive::Rfactor { .. } | Directive::SkipPadding { .. } => true,
        // Whether loops of a sum change places is asked of the nest.
        Directive::Split { .. }
        | Directive::Reorder { .. }
        | Directive::Fuse { .. }
        | Directive::Vectorize { .. }
        | Directive::Unroll { .. }
        | Directive::Parallel { .. }
        | Directive::Prefetch { .. }
        | Directive::AccumulateOutput { .. }
        | Directive::SpillSums { .. }
        | Directive::Peel { .. }
        | Directive::PackWeights
        | Directive::PackInput { .. }
        // Refused by every sum.
        | Directive::Size { .. } => false,
    }
}

/// Visits the names of the reduction loops around each innermost one, outermost first.
fn reductions(
    nest: &Nest,
    block: &[Stmt],
    around: &mut Vec<String>,
    visit: &mut impl FnMut(&[String]),
) {
    for stmt in block {
        match stmt {
            Stmt::Loop(l) => {
                let axis = nest.axis(l.axis);
                let sums = axis.kind == AxisKind::Reduction;
                if sums {
                    around.push(axis.name.clone());
                    visit(around);
                }
                reductions(nest, &l.body, around, visit);
                if sums {
                    around.pop();
                }
            }
            Stmt::If(_, body) | Stmt::MicroKernel(body) => reductions(nest, body, around, visit),
            Stmt::Declare(_) | Stmt::Let(..) | Stmt::Store(..) => {}
        }
    }
}

/// Whether loops stand in one another as those of the plain nest that they were made of: parts of a
/// split in one another as they were split, those of different loops as these.
fn ordered(plain: &[String], loops: &[String]) -> Result<(), OrderError> {
    let mut before: Option<(&String, (usize, &str))> = None;
    for name in loops {
        let place = place(plain, name);
        if let Some((outer, earlier)) = before
            && !precedes(earlier, place)
        {
            let (outer, inner) = (outer.clone(), name.clone());
            return Err(OrderError::Reordered { outer, inner });
        }
        before = Some((name, place));
    }
    Ok(())
}

/// Which loop of the plain nest, or the first of some fused ones, a loop was made of, and which
/// part of it is left.
fn place<'n>(plain: &[String], name: &'n str) -> (usize, &'n str) {
    let (base, part) = name.split_once('.').unwrap_or((name, ""));
    let first = base.split('_').next().unwrap_or(base);
    (plain.iter().position(|loops| loops == first).unwrap_or(plain.len()), part)
}

/// Of two parts of one loop the outer one comes first: `o` before `i`.
fn precedes(outer: (usize, &str), inner: (usize, &str)) -> bool {
    match outer.0 == inner.0 {
        true => outer.1 > inner.1,
        false => outer.0 < inner.0,
    }
}
