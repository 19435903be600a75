//! The verifier: numbered rules that turn a [`Nest`] into a [`VerifiedNest`].
//!
//! A verified nest is safe to run on any memory of the stated shapes: every plain access is proved
//! in bounds, nothing undefined is read, tasks and lanes are independent. Rules are sound and
//! syntactic; a legal nest written in a way they cannot follow is refused, never accepted wrongly.
//!
//! | rule | statement |
//! |---|---|
//! | V1 | a name is used inside the scope that binds it, and bound once in it |
//! | V2 | an access has one index a dimension |
//! | V3 | a buffer is read and written only where its role allows |
//! | V4 | every plain load and every store is in bounds, by the ranges of the loops and the guards |
//! | V5 | `N` is the leading dimension of a caller's tensor, indexed by the batch loop alone |
//! | V6 | parallel loops are outermost, perfectly nested, and write different elements |
//! | V7 | a vector loop is innermost or holds just one that is, of fixed length, and its lanes are independent |
//! | V8 | unrolled code stays below a limit |
//! | V9 | a register tile has a fixed address after unrolling and fits its budget |
//! | V10 | sizes and ranges are positive and small enough to compute with |
//! | V11 | scratch, register tiles and packed weights are written before they are read |
//! | V12 | every element of the output, or of its stripes, is written, and no other |
//! | V13 | the operands of an operation have one type |

mod cover;
mod fault;

use std::collections::HashSet;

use crate::bounds::{Context, Range};
use crate::elem::ElemType;
use crate::nest::{
    Access, Affine, AxisId, Buffer, BufferId, Dim, Expr, Guard, LocalId, Loop, Mode, Nest, Role,
    Stmt, Stripe, visit_accesses, visit_stores,
};
use crate::padding::PaddingMode;
use crate::print;
use cover::Region;
pub use fault::{Fault, Place, Rule, VerifyError};

/// What a target grants a nest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Bytes of all register tiles alive at once.
    pub reg_bytes: i64,
    /// Bytes of scratch a task.
    pub scratch_bytes: i64,
    /// Lane operations after unrolling: bounds the size of the code.
    pub unrolled: i64,
}

impl Limits {
    /// Generous limits, for nests that are interpreted only.
    pub const INTERPRETER: Limits =
        Limits { reg_bytes: 1 << 16, scratch_bytes: 1 << 30, unrolled: 1 << 20 };
}

/// The largest extent, stride or offset, in elements: far from overflow after any one product.
const SIZE_LIMIT: i128 = 1 << 40;

/// The farthest a padded load may lie outside its buffer, in elements: in bytes still an i64.
const OFFSET_LIMIT: i128 = 1 << 56;

/// A nest that satisfies every rule within the limits. The only way downstream.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifiedNest {
    nest: Nest,
    scratch_bytes: i64,
}

impl VerifiedNest {
    /// The nest.
    pub fn nest(&self) -> &Nest {
        &self.nest
    }

    /// Bytes of scratch one task needs, each buffer aligned to [`SCRATCH_ALIGN`].
    pub fn scratch_bytes(&self) -> i64 {
        self.scratch_bytes
    }

    /// The nest, to be rewritten and verified again.
    pub fn into_nest(self) -> Nest {
        self.nest
    }
}

/// Scratch buffers start at multiples of this many bytes: a cache line, and a 512-bit vector.
pub const SCRATCH_ALIGN: i64 = 64;

/// Checks every rule.
///
/// # Errors
/// The first broken rule, in the order of the text.
pub fn verify(nest: Nest, limits: &Limits) -> Result<VerifiedNest, VerifyError> {
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
        scratch_bytes: 0,
        reg_bytes: 0,
        counted: HashSet::new(),
        unrolled: 0,
    };
    checker.buffers()?;
    checker.block(&nest.pack, 1)?;
    checker.written(Role::Packed, &nest.pack)?;
    checker.in_pack = false;
    checker.task_chain = true;
    checker.block(&nest.body, 1)?;
    checker.written(Role::Output, &nest.body)?;
    checker.tasks_are_disjoint()?;
    let scratch_bytes = checker.scratch_bytes;
    Ok(VerifiedNest { nest, scratch_bytes })
}

/// V12 for the nests of one kernel: together they write every element of the output once.
///
/// # Errors
/// If the stripes of their outputs are no partition of it.
pub fn verify_parts(nests: &[VerifiedNest]) -> Result<(), VerifyError> {
    let outputs: Vec<&Buffer> = nests
        .iter()
        .filter_map(|nest| nest.nest().find_role(Role::Output).map(|id| nest.nest().buffer(id)))
        .collect();
    match is_partition(&outputs) {
        true => Ok(()),
        false => {
            Err(VerifyError { place: Place::Nest, fault: Fault::Parts { given: nests.len() } })
        }
    }
}

/// Whether the stripes are all residues of one step a dimension, each combination once.
fn is_partition(outputs: &[&Buffer]) -> bool {
    let Some(first) = outputs.first() else { return false };
    let dims = 0..first.shape.len();
    let steps: Vec<i64> = dims.clone().map(|dim| first.stripe(dim).by).collect();
    let alike = outputs.iter().all(|output| {
        output.shape == first.shape
            && dims.clone().all(|dim| {
                let stripe = output.stripe(dim);
                stripe.by == steps[dim] && stripe.from < stripe.by
            })
    });
    let residues = |dim: usize| first.shape[dim].fixed().map_or(1, |extent| extent.min(steps[dim]));
    let starts = |output: &Buffer| dims.clone().map(|d| output.stripe(d).from).collect::<Vec<_>>();
    let distinct: HashSet<Vec<i64>> = outputs.iter().map(|output| starts(output)).collect();
    let count = dims.clone().fold(1_i64, |count, dim| count.saturating_mul(residues(dim)));
    alike && distinct.len() == outputs.len() && count == outputs.len() as i64
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
    scratch_bytes: i64,
    reg_bytes: i64,
    counted: HashSet<BufferId>,
    unrolled: i64,
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

    /// V3, V5 and V10 for the table of buffers.
    fn buffers(&self) -> Check {
        self.role_counts()?;
        for id in self.nest.buffer_ids() {
            let fail = |fault| Err(VerifyError { place: Place::Buffer(id), fault });
            let buffer = self.nest.buffer(id);
            let mut elements: i128 = 1;
            for (d, dim) in buffer.shape.iter().enumerate() {
                match dim {
                    Dim::Fixed(extent) => {
                        elements = elements.saturating_mul(i128::from(*extent).max(0));
                    }
                    Dim::Batch if d > 0 => {
                        return fail(Fault::Batch { reason: "may only be a leading dimension" });
                    }
                    Dim::Batch => match buffer.role {
                        Role::Input | Role::Gradient | Role::Output | Role::Residual => {}
                        Role::Weights
                        | Role::Bias
                        | Role::Scale
                        | Role::Packed
                        | Role::Scratch
                        | Role::Reg => {
                            return fail(Fault::Batch {
                                reason: "may only be a dimension of activations",
                            });
                        }
                    },
                }
            }
            self.stripes(buffer).or_else(fail)?;
            if !(1..=SIZE_LIMIT).contains(&elements) {
                let what = format!("the number of elements of `{}`", buffer.name);
                return fail(Fault::Size { what, given: elements, low: 1, high: SIZE_LIMIT });
            }
        }
        Ok(())
    }

    /// V12: only of an output may a part be left out, and only by steps along a known extent.
    fn stripes(&self, buffer: &Buffer) -> Result<(), Fault> {
        let name = || buffer.name.clone();
        if buffer.stripes.is_empty() {
            return Ok(());
        }
        if buffer.role != Role::Output || buffer.stripes.len() != buffer.shape.len() {
            let reason = "only an output has stripes, one a dimension";
            return Err(Fault::Stripe { name: name(), reason });
        }
        let legal = |(dim, stripe): (&Dim, &Stripe)| match dim {
            Dim::Batch => *stripe == Stripe::ALL,
            Dim::Fixed(extent) => (0..*extent).contains(&stripe.from) && stripe.by >= 1,
        };
        match buffer.shape.iter().zip(&buffer.stripes).all(legal) {
            true => Ok(()),
            false => {
                let reason = "a stripe begins inside its dimension and steps forward";
                Err(Fault::Stripe { name: name(), reason })
            }
        }
    }

    /// V3: the caller knows which buffer is meant.
    fn role_counts(&self) -> Check {
        for role in Role::ALL {
            let given = self.nest.buffers.iter().filter(|buffer| buffer.role == role).count();
            let (legal, expected) = match role {
                Role::Input | Role::Output => (given == 1, "one"),
                Role::Gradient => (given <= 1, "at most one"),
                Role::Weights
                | Role::Bias
                | Role::Packed
                | Role::Scale
                | Role::Residual
                | Role::Scratch
                | Role::Reg => (true, "any number of"),
            };
            if !legal {
                let fault = Fault::RoleCount { role: role.name(), given, expected };
                return Err(VerifyError { place: Place::Nest, fault });
            }
        }
        Ok(())
    }

    /// Checks the statements of a block; `copies` is how often unrolling repeats them.
    fn block(&mut self, block: &[Stmt], copies: i64) -> Check {
        let scope = self.scope.clone();
        let reg_bytes = self.reg_bytes;
        let alone = block.len() == 1;
        for (i, stmt) in block.iter().enumerate() {
            self.stmt += 1;
            match stmt {
                Stmt::Loop(l) => self.loop_(l, alone, copies)?,
                Stmt::If(guards, body) => {
                    self.guards(guards)?;
                    self.inside(None, guards, |checker| checker.block(body, copies))?;
                }
                Stmt::Declare(id) => self.declare(*id, &block[i + 1..])?,
                Stmt::Let(id, value) => {
                    self.expr(value)?;
                    if self.scope.locals.contains(id) {
                        let name = self.nest.locals[id.0 as usize].clone();
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
        self.scope = scope;
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
        let (context, chain) = (self.context.clone(), self.task_chain);
        match l {
            Some(l) => {
                self.context.enter(l);
                self.scope.loops.push((l.axis, l.mode));
            }
            None => self.context.assume(guards),
        }
        self.task_chain &= l.is_some_and(|l| l.mode == Mode::Parallel);
        f(self)?;
        (self.context, self.task_chain) = (context, chain);
        if l.is_some() {
            self.scope.loops.pop();
        }
        Ok(())
    }

    /// V1, V5, V6, V7, V8 and V10 for a loop, then its body.
    fn loop_(&mut self, l: &Loop, alone: bool, copies: i64) -> Check {
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
        let bare = Loop { guards: vec![], ..l.with_body(vec![]) };
        self.inside(Some(&bare), &[], |checker| checker.guards(&l.guards))?;
        self.inside(Some(l), &[], |checker| {
            if l.mode == Mode::Vector {
                checker.lanes(l)?;
            }
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
        let axis = || self.axis_name(l.axis);
        let ends = [
            (format!("the first value of the loop over `{}`", axis()), l.lo, 0),
            (format!("the length of the loop over `{}`", axis()), trips, 1),
        ];
        for (what, given, low) in ends {
            let (given, high) = (i128::from(given), SIZE_LIMIT);
            if !(low..=high).contains(&given) {
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

    /// V7: the body of a vector loop is straight-line, or one vector loop whose body is, and the lanes,
    /// those of both loops, do not meet.
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

    /// V8.
    fn count(&mut self, copies: i64) -> Check {
        self.unrolled = self.unrolled.saturating_add(copies);
        match self.unrolled > self.limits.unrolled {
            true => {
                self.fail(Fault::Unrolled { given: self.unrolled, limit: self.limits.unrolled })
            }
            false => Ok(()),
        }
    }

    /// V1, V9, V10 and V11 for the declaration of a local buffer; `rest` is its scope.
    fn declare(&mut self, id: BufferId, rest: &[Stmt]) -> Check {
        let buffer = self.nest.buffer(id);
        let name = buffer.name.clone();
        if self.scope.buffers.iter().any(|(b, _)| *b == id) {
            return self.fail(Fault::Rebound { name });
        }
        if !buffer.role.is_local() {
            let reason = "only scratch and reg buffers are declared in a block";
            return self.fail(Fault::Role { access: name, use_: "declared here", reason });
        }
        self.scope.buffers.push((id, self.scope.loops.len()));
        // At most SIZE_LIMIT elements by V10, so the product cannot overflow.
        let bytes = buffer.len(0) * buffer.elem.bytes() as i64;
        if buffer.role == Role::Reg {
            self.reg_bytes = self.reg_bytes.saturating_add(bytes);
            if self.reg_bytes > self.limits.reg_bytes {
                let (given, limit) = (self.reg_bytes, self.limits.reg_bytes);
                return self.fail(Fault::RegisterBudget { name, given, limit });
            }
        } else if self.counted.insert(id) {
            let aligned = (bytes + SCRATCH_ALIGN - 1) / SCRATCH_ALIGN * SCRATCH_ALIGN;
            self.scratch_bytes = self.scratch_bytes.saturating_add(aligned);
            let (given, high) = (self.scratch_bytes.into(), self.limits.scratch_bytes.into());
            if given > high {
                let what = format!("the scratch of a task, with `{name}`, in bytes");
                return self.fail(Fault::Size { what, given, low: 0, high });
            }
        }
        let ends = cover::read_ends(self.nest, id, rest, &self.context);
        match defined_before_read(&ends, id, rest, &Region::default()) {
            true => Ok(()),
            false => self.fail(Fault::Undefined { name }),
        }
    }

    /// V11 for packed weights, V12 for the output.
    fn written(&self, role: Role, block: &[Stmt]) -> Check {
        self.nest.find_all(role).try_for_each(|id| self.written_whole(role, id, block))
    }

    fn written_whole(&self, role: Role, id: BufferId, block: &[Stmt]) -> Check {
        let mut region = Region::of(self.nest, id);
        block.iter().for_each(|stmt| region.add_writes(stmt, id));
        if region.covers(self.nest, id) {
            return Ok(());
        }
        let name = self.nest.buffer(id).name.clone();
        let fault = match role {
            Role::Packed => Fault::Undefined { name },
            Role::Input
            | Role::Gradient
            | Role::Weights
            | Role::Bias
            | Role::Scale
            | Role::Residual
            | Role::Output
            | Role::Scratch
            | Role::Reg => Fault::Incomplete { name },
        };
        Err(VerifyError { place: Place::Buffer(id), fault })
    }

    fn guards(&self, guards: &[Guard]) -> Check {
        guards.iter().try_for_each(|guard| self.sum(guard.sum()))
    }

    /// V1, V5 and V10 for an index or a guard.
    fn sum(&self, sum: &Affine) -> Check {
        for (axis, _) in sum.terms() {
            if !self.scope.loops.iter().any(|(a, _)| a == axis) {
                return self.fail(Fault::Unbound { name: self.axis_name(*axis) });
            }
        }
        // A sum with the batch variable is that variable alone; V4 checks what it may index.
        let Some((lo, hi)) = self.context.interval(sum) else {
            return match sum.as_axis() {
                Some(_) => Ok(()),
                None => self.fail(Fault::Batch { reason: "is combined with other terms" }),
            };
        };
        if lo < -SIZE_LIMIT || hi > SIZE_LIMIT {
            let what = format!("`{}`", print::affine_text(self.nest, sum));
            let given = if lo < -SIZE_LIMIT { lo } else { hi };
            return self.fail(Fault::Size { what, given, low: -SIZE_LIMIT, high: SIZE_LIMIT });
        }
        Ok(())
    }

    /// V1, V2, V3, V4, V5 and V9 for one access.
    fn access(&self, access: &Access, use_: Use) -> Check {
        let buffer = self.nest.buffer(access.buffer);
        if access.index.len() != buffer.shape.len() {
            return self.fail(Fault::Rank {
                access: self.text(access),
                buffer: buffer.name.clone(),
                given: access.index.len(),
                expected: buffer.shape.len(),
            });
        }
        access.index.iter().try_for_each(|index| self.sum(index))?;
        if let Some(reason) = self.refusal(access.buffer, use_) {
            let use_ = use_.name();
            return self.fail(Fault::Role { access: self.text(access), use_, reason });
        }
        if buffer.role.is_local() {
            self.local(access)?;
        }
        if use_ == Use::Pad(PaddingMode::Zeros) {
            self.offset(access)?;
        }
        for (dim, (index, extent)) in access.index.iter().zip(&buffer.shape).enumerate() {
            let known = use_.is_padded() && *extent != Dim::Batch;
            if !known && !self.context.inside(index, *extent) {
                return self.out_of_bounds(access, dim, index, *extent);
            }
        }
        Ok(())
    }

    /// V12: parts of an output are written side by side, by nests that know nothing of each other.
    fn on_stripes(&self, access: &Access) -> Check {
        let buffer = self.nest.buffer(access.buffer);
        let on = |(dim, index): (usize, &Affine)| {
            buffer.stripes.is_empty() || cover::along(index, buffer.stripe(dim)).is_some()
        };
        match access.index.iter().enumerate().all(on) {
            true => Ok(()),
            false => self.fail(Fault::OffStripe { access: self.text(access) }),
        }
    }

    /// V10: the offset of a load that may be a zero is computed also where its index lies outside. The other modes
    /// compute offsets of indices that they have brought inside.
    fn offset(&self, access: &Access) -> Check {
        let indices = access.index.iter().zip(self.nest.buffer(access.buffer).strides());
        let reach = |(index, stride): (&Affine, i64)| {
            let (lo, hi) = self.context.interval(index).unwrap_or((0, 0));
            lo.abs().max(hi.abs()) * i128::from(stride)
        };
        let given: i128 = indices.map(reach).sum();
        match given > OFFSET_LIMIT {
            true => {
                let what =
                    format!("the distance of `{}` from the first element", self.text(access));
                self.fail(Fault::Size { what, given, low: 0, high: OFFSET_LIMIT })
            }
            false => Ok(()),
        }
    }

    fn out_of_bounds(&self, access: &Access, dim: usize, index: &Affine, extent: Dim) -> Check {
        let span = match self.context.interval(index) {
            Some((lo, hi)) => format!("{lo}..={hi}"),
            None => "0..N".to_string(),
        };
        let (access, index) = (self.text(access), print::affine_text(self.nest, index));
        self.fail(Fault::OutOfBounds { access, dim, index, extent, span })
    }

    /// V3: why a buffer may not be used so, if it may not.
    fn refusal(&self, id: BufferId, use_: Use) -> Option<&'static str> {
        let stores = use_ == Use::Store;
        match (self.nest.buffer(id).role, self.in_pack) {
            (Role::Scratch | Role::Reg, _) => {
                (use_.is_padded() && self.is_reg(id)).then_some("a register tile has no outside")
            }
            (Role::Weights, true) => stores.then_some("weights are read only"),
            (Role::Packed, true) => (!stores).then_some("packed weights are written only"),
            (_, true) => Some("the pack block sees weights and packed weights only"),
            (Role::Weights, false) if self.packed.is_some() => Some("the body sees packed weights"),
            (Role::Weights | Role::Packed, false) => {
                stores.then_some("the body only reads weights")
            }
            (Role::Output, false) => (!stores).then_some("the output is written only"),
            (Role::Input | Role::Gradient | Role::Bias | Role::Scale | Role::Residual, false) => {
                stores.then_some("the caller's data is read only")
            }
        }
    }

    fn is_reg(&self, id: BufferId) -> bool {
        self.nest.buffer(id).role == Role::Reg
    }

    /// V1 and V9 for a local buffer.
    fn local(&self, access: &Access) -> Check {
        let Some((_, depth)) = self.scope.buffers.iter().find(|(b, _)| *b == access.buffer) else {
            return self
                .fail(Fault::Unbound { name: self.nest.buffer(access.buffer).name.clone() });
        };
        if !self.is_reg(access.buffer) {
            return Ok(());
        }
        for (i, (axis, mode)) in self.scope.loops.iter().enumerate() {
            let unrolled = i >= *depth && matches!(mode, Mode::Unroll | Mode::Vector);
            if !unrolled && access.index.iter().any(|index| index.mentions(*axis)) {
                let (access, axis) = (self.text(access), self.axis_name(*axis));
                return self.fail(Fault::DynamicRegister { access, axis });
            }
        }
        Ok(())
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
                false => {
                    self.fail(Fault::Unbound { name: self.nest.locals[id.0 as usize].clone() })
                }
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

    /// V6: two tasks never write one element of the output.
    fn tasks_are_disjoint(&self) -> Check {
        let chain: Vec<&Loop> = self.nest.task_loops().collect();
        let outer: Vec<AxisId> = chain.iter().map(|l| l.axis).collect();
        let mut stores = Vec::new();
        let mut context = Context::default();
        collect_stores(self.nest, &self.nest.body, &mut context, &mut stores);
        for (depth, l) in chain.iter().enumerate() {
            if l.trip_count() == Some(1) {
                continue;
            }
            let separates = |dim: usize| separated(&stores, dim, &outer[..=depth]);
            let dims = stores.first().map_or(0, |(dst, _)| dst.index.len());
            if !stores.is_empty() && !(0..dims).any(separates) {
                let (axis, access) = (self.axis_name(l.axis), self.text(&stores[0].0));
                let fault = Fault::TaskOverlap { axis, access };
                return Err(VerifyError { place: Place::Stmt(self.first_body_stmt()), fault });
            }
        }
        Ok(())
    }

    fn first_body_stmt(&self) -> u32 {
        count_stmts(&self.nest.pack)
    }
}

/// How an access uses its element.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Load,
    /// A load that V4 does not ask to be inside: its mode says what is outside.
    Pad(PaddingMode),
    Store,
}

impl Use {
    fn name(self) -> &'static str {
        match self {
            Use::Load | Use::Pad(_) => "read",
            Use::Store => "written",
        }
    }

    fn is_padded(self) -> bool {
        match self {
            Use::Pad(_) => true,
            Use::Load | Use::Store => false,
        }
    }
}

/// Statements of a block, in it and below it.
fn count_stmts(block: &[Stmt]) -> u32 {
    block
        .iter()
        .map(|stmt| match stmt {
            Stmt::Loop(l) => 1 + count_stmts(&l.body),
            Stmt::If(_, body) => 1 + count_stmts(body),
            Stmt::Declare(_) | Stmt::Let(..) | Stmt::Store(..) => 1,
        })
        .sum()
}

fn has_loop_or_declaration(block: &[Stmt]) -> bool {
    block.iter().any(|stmt| match stmt {
        Stmt::Loop(_) | Stmt::Declare(_) => true,
        Stmt::If(_, body) => has_loop_or_declaration(body),
        Stmt::Let(..) | Stmt::Store(..) => false,
    })
}

/// Whether an access is a different element in every lane of these loops, outermost first: some index
/// moves with the innermost loop, and some index with each outer one by more than the others reach.
fn lanes_apart(index: &[Affine], loops: &[&Loop]) -> bool {
    let [l, inner @ ..] = loops else { return true };
    let reach = |index: &Affine| -> i128 {
        let steps = inner.iter().map(|l| {
            let trips = l.trip_count().unwrap_or(i64::MAX);
            i128::from(index.coefficient(l.axis)).abs() * i128::from(trips - 1)
        });
        steps.sum()
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

/// V11: no statement of the scope reads the buffer before the statements before it wrote all of it that
/// is ever read, which is below `ends`.
fn defined_before_read(ends: &[i64], id: BufferId, scope: &[Stmt], before: &Region) -> bool {
    let mut region = before.clone();
    for stmt in scope {
        if reads(stmt, id) && !region.covers_below(ends) {
            let body: &[Stmt] = match stmt {
                Stmt::Loop(l) => &l.body,
                Stmt::If(_, body) => body,
                Stmt::Declare(_) | Stmt::Let(..) | Stmt::Store(..) => return false,
            };
            if !defined_before_read(ends, id, body, &region) {
                return false;
            }
        }
        region.add_writes(stmt, id);
    }
    true
}

fn reads(stmt: &Stmt, id: BufferId) -> bool {
    let mut found = false;
    visit_accesses(std::slice::from_ref(stmt), &mut |access, stores| {
        found |= access.buffer == id && !stores;
    });
    found
}

/// Every store to the output with what is known at that point.
fn collect_stores(
    nest: &Nest,
    block: &[Stmt],
    context: &mut Context,
    found: &mut Vec<(Access, Context)>,
) {
    for stmt in block {
        let outside = context.clone();
        match stmt {
            Stmt::Loop(l) => {
                context.enter(l);
                collect_stores(nest, &l.body, context, found);
            }
            Stmt::If(guards, body) => {
                context.assume(guards);
                collect_stores(nest, body, context, found);
            }
            Stmt::Declare(_) | Stmt::Let(..) => {}
            Stmt::Store(dst, _) if nest.buffer(dst.buffer).role == Role::Output => {
                found.push((dst.clone(), context.clone()));
            }
            Stmt::Store(..) => {}
        }
        *context = outside;
    }
}

/// Whether, in dimension `dim`, all stores agree on the terms of the task variables and the last of
/// these steps further than everything inside it reaches.
fn separated(stores: &[(Access, Context)], dim: usize, tasks: &[AxisId]) -> bool {
    let Some(axis) = tasks.last() else { return true };
    let index = |store: &(Access, Context)| store.0.index[dim].clone();
    let outer = |sum: &Affine| sum.part(|a| tasks.contains(&a));
    let first = outer(&index(&stores[0]));
    let step = i128::from(first.coefficient(*axis)).abs();
    let mut reach: Option<(i128, i128)> = None;
    for store in stores {
        let sum = index(store);
        if outer(&sum) != first {
            return false;
        }
        let inner = &sum - &first;
        let (Some(lo), Some(hi)) = (store.1.lower(&inner), store.1.upper(&inner)) else {
            return false;
        };
        reach = Some(reach.map_or((lo, hi), |(l, h)| (l.min(lo), h.max(hi))));
    }
    reach.is_some_and(|(lo, hi)| hi - lo < step) || residues_differ(stores, dim, *axis, tasks)
}

/// Whether, in dimension `dim`, everything but the task variables steps by multiples of a number that no
/// two values of the last task variable are apart: the phases of a dilation.
fn residues_differ(
    stores: &[(Access, Context)],
    dim: usize,
    axis: AxisId,
    tasks: &[AxisId],
) -> bool {
    let first = &stores[0].0.index[dim];
    let step = first.coefficient(axis).abs();
    let Some(Range::Known(lo, hi)) = stores[0].1.range(axis) else { return false };
    let mut common = 0;
    for (store, _) in stores {
        let sum = &store.index[dim];
        let inner = sum.terms().iter().filter(|(a, _)| !tasks.contains(a));
        let offset = sum.constant - first.constant;
        common = inner.map(|(_, c)| *c).chain([offset]).fold(common, gcd);
    }
    step > 0 && i128::from(step) * (i128::from(hi) - i128::from(lo) + 1) <= i128::from(common)
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a.abs() } else { gcd(b, a % b) }
}
