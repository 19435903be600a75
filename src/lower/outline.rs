//! Marks the scopes that become micro-kernels: whatever the vector IR can be built of and the
//! registers suffice for.
//!
//! The outermost loops around vectors are taken first, then scopes of register tiles. A scope inside
//! of unrolled loops is taken if each of its copies can be: the code generator, which meets them one
//! by one, then leaves none to Cranelift. The rule is not written again anywhere: what decides here
//! is the builder and the register allocator that make the code.

use std::collections::BTreeSet;

use convgen_ir::bounds::Context;
use convgen_ir::nest::{AxisId, Guard, Loop, Mode, Nest, Role, Stmt, count_statements};
use convgen_ir::verify::VerifiedNest;

use crate::exact::ExactBound;
use crate::target::{Target, VectorUnit};
use crate::vir::allocate::allocate;
use crate::vir::encoder::Trial;
use crate::vir::{self, MOST_BUILT, Outside};

/// The nest with the marks of the micro-kernels that a target has for it.
pub fn outline(nest: VerifiedNest, target: &Target) -> VerifiedNest {
    let nest = nest.without_micro_kernels();
    let Some(unit) = target.unit() else { return nest };
    let mut outliner = Outliner {
        nest: nest.nest(),
        unit,
        number: 0,
        begins: BTreeSet::new(),
        budget: MOST_BUILT,
    };
    let outside = [Around::default()];
    outliner.block(&nest.nest().pack, &outside);
    outliner.block(&nest.nest().body, &outside);
    let begins = outliner.begins;
    nest.with_micro_kernels(&begins)
}

/// What is known around one copy of a block.
#[derive(Clone, Default)]
struct Around {
    /// The loop variables in scope, outermost first; numbers if unrolled.
    variables: Vec<(AxisId, Option<i64>)>,
    known: Context,
}

impl Around {
    /// Inside of a loop that stays one: guards that narrow its range hold, others are tested.
    fn within(&self, l: &Loop) -> Option<Around> {
        let narrows = |guard: &&Guard| ExactBound::of(guard, l.axis, &self.known).is_some();
        let (narrowing, tested): (Vec<&Guard>, Vec<&Guard>) = l.guards.iter().partition(narrows);
        let mut inner = self.clone();
        inner.variables.push((l.axis, None));
        inner.known.enter(&l.with_body(vec![]).unguarded());
        inner.known.assume(&narrowing.into_iter().cloned().collect::<Vec<_>>());
        inner.assuming(tested)
    }

    /// In one iteration of an unrolled loop.
    fn at(&self, l: &Loop, value: i64) -> Option<Around> {
        let mut inner = self.clone();
        inner.variables.push((l.axis, Some(value)));
        inner.known.enter(&Loop::iterations(l.axis, value, 1));
        inner.assuming(&l.guards)
    }

    /// Where conditions are tested; none if they never hold. What always holds tells nothing new.
    fn assuming<'g>(mut self, guards: impl IntoIterator<Item = &'g Guard>) -> Option<Around> {
        let guards: Vec<&Guard> = guards.into_iter().collect();
        if guards.iter().any(|guard| self.known.never(guard)) {
            return None;
        }
        let open = guards.into_iter().filter(|guard| !self.known.always(guard)).cloned();
        let open: Vec<Guard> = open.collect();
        self.known.assume(&open);
        Some(self)
    }
}

struct Outliner<'n> {
    nest: &'n Nest,
    unit: VectorUnit,
    /// The number of the next statement.
    number: usize,
    /// The numbers of the statements with which micro-kernels begin.
    begins: BTreeSet<usize>,
    /// Steps that may still be built.
    budget: usize,
}

impl<'n> Outliner<'n> {
    fn block(&mut self, block: &'n [Stmt], copies: &[Around]) {
        let mut rest = block;
        while let [stmt, later @ ..] = rest {
            let scope = match stmt {
                Stmt::Loop(l) if has_vectors_alone(self.nest, l) => std::slice::from_ref(stmt),
                Stmt::Declare(id) if self.nest.buffer(*id).role == Role::Reg => rest,
                Stmt::Loop(_)
                | Stmt::If(..)
                | Stmt::MicroKernel(_)
                | Stmt::Declare(_)
                | Stmt::Let(..)
                | Stmt::Store(..) => &[],
            };
            if !scope.is_empty() && self.takes(scope, copies) {
                self.begins.insert(self.number);
                self.number = self.number.saturating_add(count_statements(scope));
                rest = &rest[scope.len()..];
                continue;
            }
            self.number = self.number.saturating_add(1);
            match stmt {
                Stmt::Loop(l) => self.loop_(l, copies),
                Stmt::If(guards, body) => {
                    let inside = copies.iter().filter_map(|copy| copy.clone().assuming(guards));
                    self.block(body, &inside.collect::<Vec<_>>());
                }
                Stmt::MicroKernel(body) => self.block(body, copies),
                Stmt::Declare(_) | Stmt::Let(..) | Stmt::Store(..) => {}
            }
            rest = later;
        }
    }

    fn loop_(&mut self, l: &'n Loop, copies: &[Around]) {
        let inside: Vec<Around> = match l.mode {
            Mode::Serial if l.trip_count() == Some(1) && l.guards.is_empty() => {
                copies.iter().filter_map(|copy| copy.at(l, l.lo)).collect()
            }
            Mode::Serial | Mode::Parallel => {
                copies.iter().filter_map(|copy| copy.within(l)).collect()
            }
            Mode::Unroll => {
                let values = l.lo..l.hi.fixed().unwrap_or(l.lo);
                values.flat_map(|value| copies.iter().filter_map(move |c| c.at(l, value))).collect()
            }
            // Lanes are a part of a micro-kernel or no micro-kernel at all.
            Mode::Vector => vec![],
        };
        self.block(&l.body, &inside);
    }

    /// Whether each copy of a scope is a micro-kernel.
    fn takes(&mut self, scope: &[Stmt], copies: &[Around]) -> bool {
        let mut fits = |copy: &Around| {
            let outside = Outside { variables: &copy.variables, known: &copy.known };
            let program = vir::build(self.nest, scope, &outside, self.unit, &mut self.budget);
            program.and_then(|program| allocate(&program, self.unit, &mut Trial)).is_ok()
        };
        !copies.is_empty() && copies.iter().all(&mut fits)
    }
}

/// Whether all work of a loop is in vectors, on memory or on register tiles.
fn has_vectors_alone(nest: &Nest, l: &Loop) -> bool {
    matches!(l.mode, Mode::Serial | Mode::Unroll) && are_vectors_alone(nest, &l.body)
}

fn are_vectors_alone(nest: &Nest, block: &[Stmt]) -> bool {
    block.iter().all(|stmt| match stmt {
        Stmt::Loop(l) => match l.mode {
            Mode::Vector => true,
            Mode::Serial | Mode::Unroll => are_vectors_alone(nest, &l.body),
            Mode::Parallel => false,
        },
        Stmt::If(_, body) | Stmt::MicroKernel(body) => are_vectors_alone(nest, body),
        Stmt::Declare(id) => nest.buffer(*id).role == Role::Reg,
        Stmt::Let(..) | Stmt::Store(..) => false,
    })
}
