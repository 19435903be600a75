//! The verifier: numbered rules that turn a [`Nest`] into a [`VerifiedNest`].
//!
//! A verified nest is safe to run on any memory of the stated shapes: every plain access is proved
//! in bounds, nothing undefined is read, tasks and lanes are independent. Rules are sound and
//! syntactic; a legal nest written in a way they cannot follow is refused, never accepted wrongly.
//!
//! | rule | statement |
//! |---|---|
//! | V1 | a name is used inside the scope that binds it, and bound once in it; every buffer of the nest's own is declared |
//! | V2 | an access has one index a dimension |
//! | V3 | a buffer is read and written only where its role allows |
//! | V4 | every plain load and every store is in bounds, by the ranges of the loops and the guards |
//! | V5 | `N` is the leading dimension of a caller's tensor, indexed by the batch loop alone |
//! | V6 | parallel loops are outermost, perfectly nested, and write different elements |
//! | V7 | a vector loop is innermost or holds just one that is, of fixed length, and its lanes are independent |
//! | V8 | unrolled code stays below a limit, and so does the work of checking the rules |
//! | V9 | a register tile has a fixed address after unrolling and fits its budget |
//! | V10 | sizes and ranges are positive, every index and offset, term by term, is small enough to compute with, and so is the nest |
//! | V11 | scratch, register tiles and packed weights are written before they are read |
//! | V12 | every element of the output, or of its stripes, is written, and no other |
//! | V13 | the operands of an operation have one type |

#![deny(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

mod access;
mod buffers;
mod code;
mod cover;
mod fault;
mod local;
mod loops;
mod parts;
mod scratch;
mod structure;
mod tasks;

use std::cell::Cell;
use std::collections::BTreeSet;

use self::access::Use;
use self::code::CodeSize;
pub use self::code::{LANES_A_BRANCH, LANES_OF_A_VECTOR, OPERATIONS_A_LANE};
pub use self::fault::{Fault, Place, Rule, VerifyError};
pub use self::parts::{CODE_OF_PARTS, verify_parts};
use self::scratch::ScratchLayout;
use crate::bounds::{Context, Extent, Range};
use crate::elem::ElemType;
use crate::nest::{
    Access, Affine, AxisId, BufferId, Dim, Expr, Guard, LocalId, Loop, Mode, Nest, Role, Stmt,
};
use crate::print;

/// What a target grants a nest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Bytes of all register tiles alive at once.
    pub reg_bytes: i64,
    /// Bytes of scratch a task.
    pub scratch_bytes: i64,
    /// Lane operations after unrolling, an operation being a statement that stores or names a
    /// value: bounds the size of the code. Of the operations in their values, [`OPERATIONS_A_LANE`]
    /// times as many are granted; of branches, one for so many as [`LANES_A_BRANCH`]. What is
    /// outside of vector loops counts for [`LANES_OF_A_VECTOR`], a branch in them for a lane of a
    /// mask.
    pub unrolled: i64,
}

/// Steps of checking, for all rules that compare parts of a nest with one another: some tenths of a
/// second.
const WORK: u64 = 1 << 24;

impl Limits {
    /// Generous limits, for nests that are interpreted only.
    pub const INTERPRETER: Limits =
        Limits { reg_bytes: 1 << 16, scratch_bytes: 1 << 30, unrolled: 1 << 20 };
}

/// The largest extent, stride or offset, in elements: far from overflow after any one product.
const SIZE_LIMIT: i128 = 1 << 40;

/// The largest absolute value of an index, or of an offset in bytes, at any point of computing it
/// term by term, and of the number that a condition compares with: an i64 has room for two of them.
const REACH_LIMIT: i128 = 1 << 61;

/// A nest that satisfies every rule within the limits. The only way downstream.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifiedNest {
    nest: Nest,
    scratch: ScratchLayout,
    code: CodeSize,
}

impl VerifiedNest {
    /// The nest.
    pub fn nest(&self) -> &Nest {
        &self.nest
    }

    /// Bytes of scratch one task needs, each buffer aligned to [`SCRATCH_ALIGN`].
    pub fn scratch_bytes(&self) -> i64 {
        self.scratch.bytes()
    }

    /// Bytes from the start of a task's scratch to a scratch buffer.
    pub fn scratch_offset(&self, id: BufferId) -> i64 {
        self.scratch.offset(id)
    }

    /// The same nest without marks of micro-kernels.
    #[must_use]
    pub fn without_micro_kernels(mut self) -> VerifiedNest {
        self.nest.unmark_micro_kernels();
        self
    }

    /// The same nest with marks of micro-kernels: see [`Nest::mark_micro_kernels`]. If it would be
    /// too large with them, it has none.
    #[must_use]
    pub fn with_micro_kernels(self, begins: &BTreeSet<usize>) -> VerifiedNest {
        let mut marked = self.without_micro_kernels();
        marked.nest.mark_micro_kernels(begins);
        if marked.nest.check_size().is_ok() { marked } else { marked.without_micro_kernels() }
    }

    /// The nest, to be rewritten and verified again.
    pub fn into_nest(self) -> Nest {
        self.nest
    }
}

/// Scratch buffers start at multiples of this many bytes: a cache line, and a 512-bit vector.
pub const SCRATCH_ALIGN: i64 = 64;

/// Checks every rule. A nest with marks of micro-kernels must be legal without them too: a mark
/// says nothing, and whoever takes it away, or sets another one, has a legal nest.
///
/// # Errors
/// The first broken rule, in the order of the text.
pub fn verify(nest: Nest, limits: &Limits) -> Result<VerifiedNest, VerifyError> {
    let verified = check(nest, limits)?;
    let nest = verified.nest();
    if nest.has_micro_kernels() {
        let mut plain = nest.clone();
        let numbers = plain.unmark_micro_kernels();
        check(plain, limits).map_err(|error| match error.place {
            Place::Stmt(at) => VerifyError {
                place: Place::Stmt(numbers.get(at as usize).copied().unwrap_or(at)),
                ..error
            },
            Place::Buffer(_) | Place::Nest => error,
        })?;
    }
    Ok(verified)
}

/// Checks every rule of the nest as it is.
fn check(nest: Nest, limits: &Limits) -> Result<VerifiedNest, VerifyError> {
    let packed = nest.find_role(Role::Packed);
    let mut checker = Checker {
        nest: &nest,
        limits,
        packed,
        context: Context::default(),
        scope: Scope::default(),
        stmt: 0,
        in_pack: true,
        task_chain: false,
        scratch: ScratchLayout::of(&nest),
        reg_bytes: 0,
        code: CodeSize::default(),
        work: Cell::new(0),
    };
    checker.structure()?;
    checker.buffers()?;
    checker.block(&nest.pack, 1)?;
    checker.written(Role::Packed, &nest.pack)?;
    checker.in_pack = false;
    checker.task_chain = true;
    checker.block(&nest.body, 1)?;
    checker.written(Role::Output, &nest.body)?;
    checker.tasks_are_disjoint()?;
    let Checker { scratch, code, .. } = checker;
    Ok(VerifiedNest { nest, scratch, code })
}

/// Names that are bound at the current point.
#[derive(Clone, Debug, Default)]
struct Scope {
    /// Loops from the outside in: axis, mode, and whether the loop is inside the declaration of
    /// each live register tile is told by position.
    loops: Vec<(AxisId, Mode)>,
    /// Live local buffers and the number of loops around their declaration.
    buffers: Vec<(BufferId, usize)>,
    locals: Vec<LocalId>,
}

struct Checker<'n> {
    nest: &'n Nest,
    limits: &'n Limits,
    packed: Option<BufferId>,
    context: Context,
    scope: Scope,
    stmt: u32,
    in_pack: bool,
    /// Whether only parallel loops enclose the current block, which holds nothing else.
    task_chain: bool,
    scratch: ScratchLayout,
    reg_bytes: i64,
    code: CodeSize,
    work: Cell<u64>,
}

type Check = Result<(), VerifyError>;

impl Checker<'_> {
    fn fail<T>(&self, fault: Fault) -> Result<T, VerifyError> {
        Err(VerifyError { place: Place::Stmt(self.stmt.saturating_sub(1)), fault })
    }

    fn text(&self, access: &Access) -> String {
        print::access_text(self.nest, access)
    }

    fn axis_name(&self, axis: AxisId) -> String {
        self.nest.axis(axis).name.clone()
    }

    /// Checks the statements of a block; `copies` is how often unrolling repeats them.
    #[expect(clippy::arithmetic_side_effects, reason = "the place of a statement in its block")]
    fn block(&mut self, block: &[Stmt], copies: i64) -> Check {
        let (buffers, locals) = (self.scope.buffers.len(), self.scope.locals.len());
        let reg_bytes = self.reg_bytes;
        let alone = block.len() == 1;
        for (i, stmt) in block.iter().enumerate() {
            self.stmt = self.stmt.saturating_add(1);
            self.operations(stmt, copies)?;
            match stmt {
                Stmt::Loop(l) => self.loop_(l, alone, copies)?,
                Stmt::If(guards, body) => {
                    self.guards(guards)?;
                    self.inside(None, guards, |checker| checker.block(body, copies))?;
                }
                Stmt::MicroKernel(body) => {
                    self.inside(None, &[], |checker| checker.block(body, copies))?;
                }
                Stmt::Declare(id) => self.declare(*id, &block[i + 1..])?,
                Stmt::Let(id, value) => {
                    self.expr(value)?;
                    if self.scope.locals.contains(id) {
                        let name = self.nest.locals[id.index()].clone();
                        return self.fail(Fault::Rebound { name });
                    }
                    self.scope.locals.push(*id);
                    self.count(copies)?;
                }
                Stmt::Store(dst, value) => {
                    self.expr(value)?;
                    self.access(dst, Use::Store)?;
                    self.on_stripes(dst)?;
                    self.same_type(self.nest.buffer(dst.buffer).elem, self.type_of(value))?;
                    self.count(copies)?;
                }
            }
        }
        self.scope.buffers.truncate(buffers);
        self.scope.locals.truncate(locals);
        self.reg_bytes = reg_bytes;
        Ok(())
    }

    /// Runs a check with a loop or a condition entered.
    fn inside(
        &mut self,
        l: Option<&Loop>,
        guards: &[Guard],
        f: impl FnOnce(&mut Self) -> Check,
    ) -> Check {
        let chain = self.task_chain;
        self.spend(self.context.conditions(), || "checking conditions".to_string())?;
        // Guards change what is known of the loops around.
        let known = match l {
            Some(l) if l.guards.is_empty() => None,
            Some(_) | None => Some(self.context.clone()),
        };
        match l {
            Some(l) => {
                self.context.enter(l);
                self.scope.loops.push((l.axis, l.mode));
            }
            None => self.context.assume(guards),
        }
        self.task_chain &= l.is_some_and(|l| l.mode == Mode::Parallel);
        f(self)?;
        self.task_chain = chain;
        match known {
            Some(known) => self.context = known,
            None => self.context.leave(),
        }
        if l.is_some() {
            self.scope.loops.pop();
        }
        Ok(())
    }

    /// V8: a statement that stores or names a value.
    fn count(&mut self, copies: i64) -> Check {
        self.code.add_lanes(copies);
        self.code.within(self.limits.unrolled).or_else(|fault| self.fail(fault))
    }

    /// V8: what a statement itself is after unrolling, its blocks aside.
    fn operations(&mut self, stmt: &Stmt, copies: i64) -> Check {
        let copies = match stmt {
            Stmt::Loop(l) if matches!(l.mode, Mode::Unroll | Mode::Vector) => {
                copies.saturating_mul(l.trip_count().unwrap_or(1).max(1))
            }
            Stmt::Loop(_)
            | Stmt::If(..)
            | Stmt::MicroKernel(_)
            | Stmt::Declare(_)
            | Stmt::Let(..)
            | Stmt::Store(..) => copies,
        };
        self.code.add_operations(copies.saturating_mul(self.operations_of(stmt)));
        let lanes = copies.saturating_mul(self.counted_lanes());
        self.code.add_branches(lanes.saturating_mul(self.branches_of(stmt)));
        self.code.within(self.limits.unrolled).or_else(|fault| self.fail(fault))
    }

    /// The lanes that an operation here counts for: what is no lane takes an instruction all the
    /// same.
    fn counted_lanes(&self) -> i64 {
        let in_vectors = self.scope.loops.iter().any(|(_, mode)| *mode == Mode::Vector);
        if in_vectors { 1 } else { LANES_OF_A_VECTOR }
    }

    /// The operations that a statement itself is, for each of its copies.
    fn operations_of(&self, stmt: &Stmt) -> i64 {
        match stmt {
            Stmt::Loop(l) => conditions(&l.guards).saturating_add(1),
            Stmt::If(guards, _) => conditions(guards).saturating_add(1),
            Stmt::MicroKernel(_) => 1,
            Stmt::Declare(_) => 1,
            Stmt::Let(_, value) | Stmt::Store(_, value) => {
                operations(value).saturating_add(1).saturating_mul(self.counted_lanes())
            }
        }
    }

    /// The branches that a statement itself is, for each of its copies.
    fn branches_of(&self, stmt: &Stmt) -> i64 {
        let count = match stmt {
            Stmt::Loop(l) => match l.mode {
                Mode::Unroll | Mode::Vector => l.guards.len(),
                Mode::Serial | Mode::Parallel => l.guards.len().saturating_add(1),
            },
            Stmt::If(guards, _) => guards.len(),
            Stmt::MicroKernel(_) | Stmt::Declare(_) => 0,
            Stmt::Let(_, value) | Stmt::Store(_, value) => {
                let mut count = 0_usize;
                value.visit(&mut |expr| {
                    if let Expr::Pad(_, access) = expr {
                        count = count.saturating_add(self.open_indices(access));
                    }
                });
                count
            }
        };
        i64::try_from(count).unwrap_or(i64::MAX)
    }

    /// The indices of an access that are not provably inside.
    fn open_indices(&self, access: &Access) -> usize {
        let shape = &self.nest.buffer(access.buffer).shape;
        let open = |(index, dim): &(&Affine, &Dim)| !self.context.inside(index, **dim);
        access.index.iter().zip(shape).filter(open).count()
    }

    /// V8: accounts for steps of checking.
    fn spend(&self, steps: usize, what: impl FnOnce() -> String) -> Check {
        self.work.set(self.work.get().saturating_add(steps as u64));
        match self.work.get() > WORK {
            true => self.fail(Fault::Work { what: what(), limit: WORK }),
            false => Ok(()),
        }
    }

    /// V1, V5 and V10 for conditions.
    fn guards(&self, guards: &[Guard]) -> Check {
        guards.iter().try_for_each(|guard| {
            self.sum(guard.sum())?;
            let (Guard::Below(_, limit) | Guard::AtLeast(_, limit)) = guard;
            self.within(i128::from(*limit), REACH_LIMIT, || {
                format!("the number in `{}`", print::guard_text(self.nest, guard))
            })
        })
    }

    /// V10: a number is not too large in absolute value.
    fn within(&self, given: i128, limit: i128, what: impl FnOnce() -> String) -> Check {
        let (low, high) = (limit.saturating_neg(), limit);
        match (low..=high).contains(&given) {
            true => Ok(()),
            false => self.fail(Fault::Size { what: what(), given, low, high }),
        }
    }

    /// V1, V5 and V10 for an index or a guard. Returns its reach; that of the batch variable is
    /// known, and checked, at the call.
    fn sum(&self, sum: &Affine) -> Result<i128, VerifyError> {
        for (axis, _) in sum.terms() {
            if !self.scope.loops.iter().any(|(a, _)| a == axis) {
                return self.fail(Fault::Unbound { name: self.axis_name(*axis) });
            }
        }
        let text = || print::affine_text(self.nest, sum);
        let Some(Extent { lo, hi, reach }) = self.context.extent(sum) else {
            let is_batch = |axis: AxisId| self.context.range(axis) == Some(Range::Batch);
            if !sum.terms().iter().any(|(axis, _)| is_batch(*axis)) {
                return self.fail(Fault::Overflow { sum: text() });
            }
            // A sum with the batch variable is that variable alone; V4 checks what it may index.
            return match sum.as_axis() {
                Some(_) => Ok(0),
                None => self.fail(Fault::Batch { reason: "is combined with other terms" }),
            };
        };
        self.within(lo, SIZE_LIMIT, || format!("`{}`", text()))?;
        self.within(hi, SIZE_LIMIT, || format!("`{}`", text()))?;
        self.within(reach, REACH_LIMIT, || format!("the largest number in `{}`", text()))?;
        Ok(reach)
    }

    /// V1 and V13 for a value, and the access rules for its loads.
    fn expr(&self, value: &Expr) -> Check {
        for operand in value.operands() {
            self.expr(operand)?;
        }
        match value {
            Expr::Const(_) | Expr::Unary(..) => Ok(()),
            Expr::Local(id) => match self.scope.locals.contains(id) {
                true => Ok(()),
                false => self.fail(Fault::Unbound { name: self.nest.locals[id.index()].clone() }),
            },
            Expr::Load(access) => self.access(access, Use::Load),
            Expr::Pad(mode, access) => self.access(access, Use::Pad(*mode)),
            Expr::Binary(_, a, b) => self.same_type(self.type_of(a), self.type_of(b)),
            Expr::Fma(a, b, c) => {
                self.same_type(self.type_of(a), self.type_of(b))?;
                self.same_type(self.type_of(a), self.type_of(c))
            }
            Expr::Select { a, b, then, otherwise } => {
                self.same_type(self.type_of(a), self.type_of(b))?;
                self.same_type(self.type_of(then), self.type_of(otherwise))
            }
        }
    }

    fn same_type(&self, left: ElemType, right: ElemType) -> Check {
        match left == right {
            true => Ok(()),
            false => self.fail(Fault::Type { left, right }),
        }
    }

    /// The type of a value: that of its first leaf; V13 makes the others agree.
    fn type_of(&self, value: &Expr) -> ElemType {
        match value {
            Expr::Const(constant) => constant.elem(),
            // The language has one element type, so a name needs no table of types yet.
            Expr::Local(_) => ElemType::F32,
            Expr::Load(access) | Expr::Pad(_, access) => self.nest.buffer(access.buffer).elem,
            Expr::Unary(_, x) | Expr::Binary(_, x, _) | Expr::Fma(x, _, _) => self.type_of(x),
            Expr::Select { then, .. } => self.type_of(then),
        }
    }
}

/// The operations of a value: itself and all its operands.
fn operations(value: &Expr) -> i64 {
    let mut count = 0_i64;
    value.visit(&mut |_| count = count.saturating_add(1));
    count
}

/// The terms that conditions compare, each at least one.
fn conditions(guards: &[Guard]) -> i64 {
    let terms = guards.iter().map(|guard| guard.sum().terms().len().max(1));
    terms.fold(0_i64, |count, terms| count.saturating_add_unsigned(terms as u64))
}
