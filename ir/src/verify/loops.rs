//! Rules for loops: their ranges, where parallel ones stand, and lanes that do not meet.

use super::access::Use;
use super::{Check, Checker, Fault, SIZE_LIMIT, VerifyError};
use crate::nest::{Access, Affine, Loop, Mode, Stmt, visit_accesses, visit_stores};

impl Checker<'_> {
    /// V1, V5, V6, V7, V8 and V10 for a loop, then its body.
    pub(super) fn loop_(&mut self, l: &Loop, alone: bool, copies: i64) -> Check {
        if self.scope.loops.iter().any(|(axis, _)| *axis == l.axis) {
            return self.fail(Fault::Rebound { name: self.axis_name(l.axis) });
        }
        let trips = self.trips(l)?;
        let copies = match l.mode {
            Mode::Serial => copies,
            Mode::Parallel => {
                self.parallel(l, alone)?;
                copies
            }
            Mode::Unroll | Mode::Vector => {
                let Some(trips) = trips else {
                    return self.fail(Fault::Batch { reason: "is no length to unroll" });
                };
                copies.saturating_mul(trips)
            }
        };
        // The guards are evaluated in every iteration, also where they do not hold.
        if !l.guards.is_empty() {
            let bare = Loop { guards: vec![], ..l.with_body(vec![]) };
            self.inside(Some(&bare), &[], |checker| checker.guards(&l.guards))?;
        }
        self.inside(Some(l), &[], |checker| {
            if l.mode == Mode::Vector {
                checker.lanes(l)?;
            }
            l.fetch.iter().try_for_each(|fetch| checker.access(&fetch.from, Use::Fetch))?;
            checker.block(&l.body, copies)
        })
    }

    /// V10: the range of a loop. Returns its length unless that is the batch size.
    fn trips(&self, l: &Loop) -> Result<Option<i64>, VerifyError> {
        let Some(trips) = l.trip_count() else {
            let starts_at_zero = l.lo == 0 && l.mode != Mode::Vector;
            return match starts_at_zero && !self.in_pack {
                true => Ok(None),
                false => self.fail(Fault::Batch { reason: "is the end of loops from 0 only" }),
            };
        };
        let ends = [("the first value", l.lo, 0), ("the length", trips, 1)];
        for (which, given, low) in ends {
            let (given, high) = (i128::from(given), SIZE_LIMIT);
            if !(low..=high).contains(&given) {
                let what = format!("{which} of the loop over `{}`", self.axis_name(l.axis));
                return self.fail(Fault::Size { what, given, low, high });
            }
        }
        Ok(Some(trips))
    }

    /// V6: where a parallel loop may stand.
    fn parallel(&self, l: &Loop, alone: bool) -> Check {
        let axis = self.axis_name(l.axis);
        if self.in_pack {
            return self.fail(Fault::Parallel { axis, reason: "stands in the pack block" });
        }
        if !self.task_chain || !alone {
            let reason = "is not outermost and alone in its block";
            return self.fail(Fault::Parallel { axis, reason });
        }
        if !l.guards.is_empty() {
            return self.fail(Fault::Parallel { axis, reason: "has a guard" });
        }
        Ok(())
    }

    /// V7: the body of a vector loop is straight-line, or one vector loop whose body is, and the
    /// lanes, those of both loops, do not meet.
    fn lanes(&self, l: &Loop) -> Check {
        let (loops, body) = match l.body.as_slice() {
            [Stmt::Loop(inner)] if inner.mode == Mode::Vector => (vec![l, inner], &inner.body),
            _ => (vec![l], &l.body),
        };
        let axis = self.axis_name(l.axis);
        if has_loop_or_declaration(body) {
            return self.fail(Fault::Vector { axis, reason: "is not innermost" });
        }
        let mut stores: Vec<&Access> = Vec::new();
        visit_stores(body, &mut |dst| stores.push(dst));
        let mut accesses = 0_usize;
        visit_accesses(body, &mut |_, _| accesses = accesses.saturating_add(1));
        let pairs = stores.len().saturating_mul(accesses);
        self.spend(pairs, || format!("showing that the lanes of `{axis}` are independent"))?;
        let mut clash = None;
        for dst in &stores {
            if !lanes_apart(&dst.index, &loops) {
                clash = Some((*dst).clone());
            }
        }
        visit_accesses(body, &mut |access, _| {
            let meets = stores.iter().any(|dst| {
                dst.buffer == access.buffer && !same_or_apart(&dst.index, &access.index, &loops)
            });
            if meets {
                clash = Some(access.clone());
            }
        });
        match clash {
            Some(access) => self.fail(Fault::LaneOverlap { axis, access: self.text(&access) }),
            None => Ok(()),
        }
    }
}

fn has_loop_or_declaration(block: &[Stmt]) -> bool {
    block.iter().any(|stmt| match stmt {
        Stmt::Loop(_) | Stmt::Declare(_) => true,
        Stmt::If(_, body) | Stmt::MicroKernel(body) => has_loop_or_declaration(body),
        Stmt::Let(..) | Stmt::Store(..) => false,
    })
}

/// Whether an access is a different element in every lane of these loops, outermost first: some
/// index moves with the innermost loop, and some index with each outer one by more than the others
/// reach.
fn lanes_apart(index: &[Affine], loops: &[&Loop]) -> bool {
    let [l, inner @ ..] = loops else { return true };
    let reach = |index: &Affine| -> i128 {
        let steps = inner.iter().map(|l| {
            let trips = l.trip_count().unwrap_or(i64::MAX);
            let steps = i128::from(trips).saturating_sub(1);
            i128::from(index.coefficient(l.axis)).abs().saturating_mul(steps)
        });
        steps.fold(0, i128::saturating_add)
    };
    index.iter().any(|index| i128::from(index.coefficient(l.axis)).abs() > reach(index))
        && lanes_apart(index, inner)
}

/// Whether two accesses of one buffer are the same element in every lane, or different elements
/// for every pair of lanes.
fn same_or_apart(a: &[Affine], b: &[Affine], loops: &[&Loop]) -> bool {
    let fixed = |index: &Affine| !loops.iter().any(|l| index.mentions(l.axis));
    a == b
        || a.iter().zip(b).any(|(a, b)| {
            fixed(a) && fixed(b) && (a - b).as_constant().is_some_and(|distance| distance != 0)
        })
}
