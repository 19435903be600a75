//! Marks the scopes that become micro-kernels: whatever the vector IR can be built of and the
//! registers suffice for.
//!
//! The outermost loops around vectors are taken first, then scopes of register tiles. A scope inside
//! of unrolled loops is taken if each of its copies can be: the code generator, which meets them one
//! by one, then leaves none to Cranelift. The rule is not written again anywhere: what decides here
//! is the builder and the register allocator that make the code.

use std::collections::BTreeSet;
use std::slice;
use std::sync::Arc;

use rustc_hash::FxHashMap as HashMap;

use convgen_ir::bounds::Context;
use convgen_ir::nest::{AxisId, Guard, Loop, Mode, Nest, Role, Stmt, count_statements};
use convgen_ir::verify::VerifiedNest;

use crate::exact::ExactBound;
use crate::target::{Target, VectorUnit};
use crate::vir::allocate::allocate;
use crate::vir::encoder::Trial;
use crate::vir::{self, MOST_BUILT, Outside, Program};

/// The nest with the marks of the micro-kernels that a target has for it.
pub fn outline(nest: VerifiedNest, target: &Target) -> VerifiedNest {
    Outlined::new(nest, target).into_nest()
}

/// A nest with marks of micro-kernels, and the programs that were built to set them, so that who
/// makes code of them need not build them again.
#[derive(Clone, Debug)]
pub struct Outlined {
    nest: VerifiedNest,
    /// Of each mark, in the order of the text: its copies, in the order in which a code generator
    /// meets them. None if the marks are another's.
    programs: Vec<Vec<ScopeCopy>>,
}

/// One copy of a micro-kernel, of those that the unrolled loops around it make.
#[derive(Clone, Debug)]
struct ScopeCopy {
    around: Around,
    program: Arc<Program>,
}

impl Outlined {
    /// The nest with the marks of the micro-kernels that a target has for it.
    pub fn new(nest: VerifiedNest, target: &Target) -> Outlined {
        let nest = nest.without_micro_kernels();
        let Some(unit) = target.unit() else { return Outlined::from(nest) };
        let mut outliner = Outliner {
            nest: nest.nest(),
            unit,
            number: 0,
            begins: BTreeSet::new(),
            programs: vec![],
            budget: MOST_BUILT,
        };
        let outside = [Around::default()];
        outliner.block(&nest.nest().pack, &outside);
        outliner.block(&nest.nest().body, &outside);
        let Outliner { begins, programs, .. } = outliner;
        let nest = nest.with_micro_kernels(&begins);
        // Too large with marks, it has none.
        let programs = if nest.nest().has_micro_kernels() { programs } else { vec![] };
        Outlined { nest, programs }
    }

    /// The nest.
    pub fn nest(&self) -> &VerifiedNest {
        &self.nest
    }

    /// The nest.
    pub fn into_nest(self) -> VerifiedNest {
        self.nest
    }

    /// The programs of its micro-kernels, for a pass over the nest that meets each copy once.
    pub(crate) fn programs(&self) -> Programs<'_> {
        let marks = self.nest.nest().micro_kernels().into_iter().map(<[Stmt]>::as_ptr);
        Programs(marks.zip(self.programs.iter().map(|copies| copies.iter())).collect())
    }
}

/// With whatever marks it has.
impl From<VerifiedNest> for Outlined {
    fn from(nest: VerifiedNest) -> Outlined {
        Outlined { nest, programs: vec![] }
    }
}

/// The copies of each mark that were not met yet, by where its block is.
pub(crate) struct Programs<'n>(HashMap<*const Stmt, slice::Iter<'n, ScopeCopy>>);

impl Programs<'_> {
    /// The program of a marked block, if that of its next copy was built for just what is outside.
    pub(crate) fn next(&mut self, scope: &[Stmt], outside: &Outside<'_>) -> Option<Arc<Program>> {
        let ScopeCopy { around, program } = self.0.get_mut(&scope.as_ptr())?.next()?;
        let same = around.variables == outside.variables && around.known == *outside.known;
        same.then(|| Arc::clone(program))
    }
}

/// What is known around one copy of a block.
#[derive(Clone, Debug, Default)]
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
    /// Their programs.
    programs: Vec<Vec<ScopeCopy>>,
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
            if !scope.is_empty()
                && let Some(programs) = self.programs_of(scope, copies)
            {
                self.begins.insert(self.number);
                self.programs.push(programs);
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
                let each =
                    |copy| values.clone().filter_map(move |value| Around::at(copy, l, value));
                copies.iter().flat_map(each).collect()
            }
            // Lanes are a part of a micro-kernel or no micro-kernel at all.
            Mode::Vector => vec![],
        };
        self.block(&l.body, &inside);
    }

    /// The programs of a scope if each of its copies is a micro-kernel.
    fn programs_of(&mut self, scope: &[Stmt], copies: &[Around]) -> Option<Vec<ScopeCopy>> {
        let mut program = |around: &Around| {
            let outside = Outside { variables: &around.variables, known: &around.known };
            let program =
                vir::build(self.nest, scope, &outside, self.unit, &mut self.budget).ok()?;
            allocate(&program, self.unit, &mut Trial).ok()?;
            Some(ScopeCopy { around: around.clone(), program: Arc::new(program) })
        };
        if copies.is_empty() { None } else { copies.iter().map(&mut program).collect() }
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
