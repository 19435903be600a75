//! The loop nest: what is computed, and in exactly which order.
//!
//! A [`Nest`] is plain data. Its meaning is given in the [language reference](crate); whether it is
//! legal is decided by [`verify`](crate::verify); nothing here checks anything. Buffers, axes and
//! locals are named by typed ids that index the nest's own tables.

#![deny(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

mod affine;
mod expr;
mod mark;
mod size;
mod unused;
mod visit;

use std::fmt;

use crate::elem::ElemType;
pub use affine::{Affine, Guard};
pub use expr::{BinaryOp, Expr, Scalar, UnaryOp};
pub use size::{MAX_STATEMENTS, MAX_TERMS, Oversize, count_statements};
pub use visit::{
    has_conditions, in_two_vectors, map_affines, substitute, visit_accesses, visit_accesses_mut,
    visit_exprs, visit_exprs_mut, visit_loops, visit_loops_mut, visit_pads, visit_stores,
};

/// How deep blocks may stand in blocks, and operations in operations: several times what schedules
/// write, and far below what the stack of a thread holds.
pub const MAX_LEVELS: usize = 64;

/// A buffer of the nest: index into [`Nest::buffers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BufferId(pub u32);

impl BufferId {
    /// The place in [`Nest::buffers`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A loop axis of the nest: index into [`Nest::axes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AxisId(pub u32);

impl AxisId {
    /// The place in [`Nest::axes`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A value bound by `let`: index into [`Nest::locals`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalId(pub u32);

impl LocalId {
    /// The place in [`Nest::locals`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Whether the iterations of an axis may be reordered without changing bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AxisKind {
    /// Iterations write different elements: any order gives the same bits.
    Spatial,
    /// Iterations feed one sum: their order is the order of rounding.
    Reduction,
}

/// A named loop axis. Several loops may run over one axis, side by side, never nested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Axis {
    /// The name as written, e.g. `ow.i`.
    pub name: String,
    /// What reordering would do.
    pub kind: AxisKind,
}

/// The extent of a buffer dimension or of a loop: a number, or the batch size of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dim {
    /// Known when the nest is written.
    Fixed(i64),
    /// `N`: the batch size, known when the kernel is called.
    Batch,
}

impl Dim {
    /// The number of iterations or elements for a call with the given batch size.
    pub fn at(self, batch: i64) -> i64 {
        match self {
            Dim::Fixed(extent) => extent,
            Dim::Batch => batch,
        }
    }

    /// The number, unless it is the batch size.
    pub fn fixed(self) -> Option<i64> {
        match self {
            Dim::Fixed(extent) => Some(extent),
            Dim::Batch => None,
        }
    }
}

/// What a buffer is for; decides who owns it and who may write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The activations, read only.
    Input,
    /// The output's gradient, where the gradient of the weights is computed, read only.
    Gradient,
    /// The weights as the caller has them (oihw), read only.
    Weights,
    /// One value an output channel, read only.
    Bias,
    /// One factor an output channel (epilogue `scale`), read only.
    Scale,
    /// A tensor of the output's shape (epilogue `add`), read only.
    Residual,
    /// The result, written only.
    Output,
    /// The weights as the kernel wants them: written by the `pack` block, read by the body.
    Packed,
    /// Memory of one task; undefined until written.
    Scratch,
    /// A register tile; undefined until written.
    Reg,
}

impl Role {
    /// Every role, in declaration order.
    pub const ALL: [Role; 10] = [
        Role::Input,
        Role::Gradient,
        Role::Weights,
        Role::Bias,
        Role::Scale,
        Role::Residual,
        Role::Output,
        Role::Packed,
        Role::Scratch,
        Role::Reg,
    ];

    /// The keyword that declares such a buffer.
    pub fn name(self) -> &'static str {
        match self {
            Role::Input => "input",
            Role::Gradient => "gradient",
            Role::Weights => "weights",
            Role::Bias => "bias",
            Role::Scale => "scale",
            Role::Residual => "residual",
            Role::Output => "output",
            Role::Packed => "packed",
            Role::Scratch => "scratch",
            Role::Reg => "reg",
        }
    }

    /// Scratch and register buffers live inside the nest, all others are given by the caller.
    pub fn is_local(self) -> bool {
        match self {
            Role::Scratch | Role::Reg => true,
            Role::Input
            | Role::Gradient
            | Role::Weights
            | Role::Bias
            | Role::Scale
            | Role::Residual
            | Role::Output
            | Role::Packed => false,
        }
    }
}

/// A typed, shaped array: row-major, the last dimension contiguous.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// The name as written.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// The type of one element.
    pub elem: ElemType,
    /// Extents, outermost first; no dimensions = one element.
    pub shape: Vec<Dim>,
    /// Of an output, the part that the nest writes: one stripe a dimension. Empty = everything.
    pub stripes: Vec<Stripe>,
}

/// Every `by`-th index of a dimension, from `from` on: what one phase of a transposed convolution
/// writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stripe {
    /// The first index.
    pub from: i64,
    /// The distance to the next.
    pub by: i64,
}

impl Stripe {
    /// Every index.
    pub const ALL: Stripe = Stripe { from: 0, by: 1 };

    /// How many indices it has in a dimension of that extent.
    pub fn count(self, extent: i64) -> i64 {
        let room = i128::from(extent).saturating_sub(self.from.into()).max(0);
        let by = i128::from(self.by.max(1));
        let count = room.saturating_add(by).saturating_sub(1).div_euclid(by);
        i64::try_from(count).unwrap_or(i64::MAX)
    }
}

impl Buffer {
    /// A buffer of which everything is read or written.
    pub fn new(name: &str, role: Role, elem: ElemType, shape: Vec<Dim>) -> Buffer {
        Buffer { name: name.to_string(), role, elem, shape, stripes: vec![] }
    }

    /// What is written of a dimension.
    pub fn stripe(&self, dim: usize) -> Stripe {
        self.stripes.get(dim).copied().unwrap_or(Stripe::ALL)
    }

    /// Elements between neighbours along each dimension, for row-major storage.
    ///
    /// Only the leading dimension may be [`Dim::Batch`], so strides never depend on the batch.
    /// Strides of a buffer with more elements than the verifier admits (V10) end at `i64::MAX`.
    pub fn strides(&self) -> Vec<i64> {
        let mut strides = vec![1_i64; self.shape.len()];
        let mut next = 1_i64;
        for (stride, dim) in strides.iter_mut().zip(&self.shape).rev() {
            *stride = next;
            next = next.saturating_mul(dim.fixed().unwrap_or(1));
        }
        strides
    }

    /// The number of elements for a call with the given batch size, if an `i64` holds it.
    pub fn len(&self, batch: i64) -> Option<i64> {
        self.shape.iter().try_fold(1_i64, |elements, dim| elements.checked_mul(dim.at(batch)))
    }

    /// The bytes of all elements for a call with the given batch size, if an `i64` holds their
    /// number.
    pub fn bytes(&self, batch: i64) -> Option<i64> {
        self.len(batch)?.checked_mul(self.elem.bytes() as i64)
    }
}

/// One element of a buffer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Access {
    /// The buffer.
    pub buffer: BufferId,
    /// One index a dimension.
    pub index: Vec<Affine>,
}

impl Access {
    /// The row-major offset of the element from the first one of its buffer, in elements.
    pub fn offset(&self, buffer: &Buffer) -> Affine {
        let indices = self.index.iter().zip(buffer.strides());
        indices.fold(Affine::default(), |sum, (index, stride)| &sum + &index.scaled(stride))
    }
}

/// How the iterations of a loop are carried out. Never changes what they compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// One after the other.
    Serial,
    /// As tasks, in any order, by any thread.
    Parallel,
    /// Written out.
    Unroll,
    /// As the lanes of vectors.
    Vector,
}

/// Iterations of an axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Loop {
    /// The variable.
    pub axis: AxisId,
    /// Its first value.
    pub lo: i64,
    /// One past its last value.
    pub hi: Dim,
    /// All must hold, or the iteration is left out.
    pub guards: Vec<Guard>,
    /// Whether lowering removes the guards by splitting an outer loop (`cut` instead of `where`).
    pub cut: bool,
    /// How the iterations are carried out.
    pub mode: Mode,
    /// While an iteration runs, what the one so many later reads may be prefetched; no more
    /// than a hint.
    pub ahead: Option<u32>,
    /// While an iteration runs, what may be prefetched besides; no more than a hint.
    pub fetch: Vec<Fetch>,
    /// What each iteration does.
    pub body: Vec<Stmt>,
}

/// Neighbouring elements of a buffer that are used later. They may lie outside: nothing is read.
#[derive(Clone, Debug, PartialEq)]
pub struct Fetch {
    /// How many.
    pub count: u32,
    /// The first.
    pub from: Access,
}

impl Loop {
    /// A serial loop over `0..extent` without guards.
    pub fn new(axis: AxisId, extent: Dim, body: Vec<Stmt>) -> Loop {
        let (lo, hi) = (0, extent);
        let (guards, cut, mode, ahead, fetch) = (vec![], false, Mode::Serial, None, vec![]);
        Loop { axis, lo, hi, guards, cut, mode, ahead, fetch, body }
    }

    /// Some iterations of an axis, serial, without a body: what is known inside of them.
    pub fn iterations(axis: AxisId, first: i64, count: i64) -> Loop {
        let end = Dim::Fixed(first.saturating_add(count));
        Loop { lo: first, ..Loop::new(axis, end, vec![]) }
    }

    /// The number of values the variable takes, guards aside, unless it is the batch size. Ends at
    /// `i64::MAX`, which the verifier does not admit (V10).
    pub fn trip_count(&self) -> Option<i64> {
        self.hi.fixed().map(|hi| hi.saturating_sub(self.lo))
    }

    /// The same iterations whatever the guards say.
    pub fn unguarded(self) -> Loop {
        Loop { guards: vec![], cut: false, ..self }
    }

    /// The same loop around another body.
    pub fn with_body(&self, body: Vec<Stmt>) -> Loop {
        Loop {
            axis: self.axis,
            lo: self.lo,
            hi: self.hi,
            guards: self.guards.clone(),
            cut: self.cut,
            mode: self.mode,
            ahead: self.ahead,
            fetch: self.fetch.clone(),
            body,
        }
    }
}

/// One step of a nest.
#[derive(Clone, Debug, PartialEq)]
pub enum Stmt {
    /// Iterations.
    Loop(Loop),
    /// Runs the body if all conditions hold.
    If(Vec<Guard>, Vec<Stmt>),
    /// A block that a code generator makes a function of its own of. It says nothing about what is
    /// computed.
    MicroKernel(Vec<Stmt>),
    /// Declares a scratch or register buffer for the rest of the block.
    Declare(BufferId),
    /// Names a value for the rest of the block.
    Let(LocalId, Expr),
    /// Writes an element.
    Store(Access, Expr),
}

/// A program of the language: buffers, the block that packs weights, the block that computes.
#[derive(Clone, Debug, PartialEq)]
pub struct Nest {
    /// Which algorithm wrote it, e.g. `direct`.
    pub name: String,
    /// Every loop axis.
    pub axes: Vec<Axis>,
    /// Every buffer; those of the caller first, in the order of the kernel's arguments.
    pub buffers: Vec<Buffer>,
    /// The names of the values bound by `let`.
    pub locals: Vec<String>,
    /// Run once a set of weights: writes the packed buffer. Empty if there is none.
    pub pack: Vec<Stmt>,
    /// Run on every call.
    pub body: Vec<Stmt>,
}

impl Nest {
    /// A nest that declares and does nothing yet.
    pub fn new(name: &str) -> Nest {
        Nest {
            name: name.to_string(),
            axes: vec![],
            buffers: vec![],
            locals: vec![],
            pack: vec![],
            body: vec![],
        }
    }

    /// A buffer, to be changed.
    pub fn buffer_mut(&mut self, id: BufferId) -> &mut Buffer {
        &mut self.buffers[id.index()]
    }

    /// The buffer behind an id.
    pub fn buffer(&self, id: BufferId) -> &Buffer {
        &self.buffers[id.index()]
    }

    /// The axis behind an id.
    pub fn axis(&self, id: AxisId) -> &Axis {
        &self.axes[id.index()]
    }

    /// The ids of all buffers.
    pub fn buffer_ids(&self) -> impl Iterator<Item = BufferId> + use<> {
        (0..number(self.buffers.len())).map(BufferId)
    }

    /// The axis of that name.
    pub fn find_axis(&self, name: &str) -> Option<AxisId> {
        self.axes.iter().position(|axis| axis.name == name).map(|i| AxisId(number(i)))
    }

    /// The buffer of that name.
    pub fn find_buffer(&self, name: &str) -> Option<BufferId> {
        self.buffers.iter().position(|buffer| buffer.name == name).map(|i| BufferId(number(i)))
    }

    /// The name for a new axis: this one, or it with the least number behind that makes it new.
    pub fn new_axis_name(&self, name: &str) -> String {
        new_name(name, |name| self.find_axis(name).is_some())
    }

    /// As [`Nest::new_axis_name`], for a buffer.
    pub fn new_buffer_name(&self, name: &str) -> String {
        new_name(name, |name| self.find_buffer(name).is_some())
    }

    /// As [`Nest::new_axis_name`], for a value.
    pub fn new_local_name(&self, name: &str) -> String {
        new_name(name, |name| self.locals.iter().any(|local| local == name))
    }

    /// The first buffer of that role.
    pub fn find_role(&self, role: Role) -> Option<BufferId> {
        self.buffers.iter().position(|buffer| buffer.role == role).map(|i| BufferId(number(i)))
    }

    /// All buffers of that role, in the order declared.
    pub fn find_all(&self, role: Role) -> impl Iterator<Item = BufferId> + '_ {
        self.buffer_ids().filter(move |id| self.buffer(*id).role == role)
    }

    /// What the body reads weights from.
    pub fn weights_role(&self) -> Role {
        match self.find_role(Role::Packed) {
            Some(_) => Role::Packed,
            None => Role::Weights,
        }
    }

    /// Adds an axis.
    pub fn add_axis(&mut self, name: impl Into<String>, kind: AxisKind) -> AxisId {
        let id = AxisId(number(self.axes.len()));
        self.axes.push(Axis { name: name.into(), kind });
        id
    }

    /// Adds a buffer.
    pub fn add_buffer(&mut self, buffer: Buffer) -> BufferId {
        let id = BufferId(number(self.buffers.len()));
        self.buffers.push(buffer);
        id
    }

    /// Adds the name of a value.
    pub fn add_local(&mut self, name: impl Into<String>) -> LocalId {
        let id = LocalId(number(self.locals.len()));
        self.locals.push(name.into());
        id
    }

    /// The chain of outermost parallel loops: the axes that span the tasks.
    pub fn task_loops(&self) -> impl Iterator<Item = &Loop> {
        std::iter::successors(lone_parallel(&self.body), |l| lone_parallel(&l.body))
    }

    /// The number of tasks of a call with the given batch size, if an `i64` holds it.
    pub fn tasks(&self, batch: i64) -> Option<i64> {
        self.task_loops()
            .try_fold(1_i64, |tasks, l| tasks.checked_mul(l.hi.at(batch).checked_sub(l.lo)?))
    }
}

/// The number of an entry of a table. A table of 2^32 entries does not fit into memory.
fn number(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

/// The name, with `.2`, `.3` and so on behind it if it is taken.
fn new_name(name: &str, is_taken: impl Fn(&str) -> bool) -> String {
    let numbered = (2..).map(|number| format!("{name}.{number}"));
    let mut names = std::iter::once(name.to_string()).chain(numbered);
    names.find(|name| !is_taken(name)).unwrap_or_default()
}

/// The parallel loop that is all of a block.
fn lone_parallel(block: &[Stmt]) -> Option<&Loop> {
    match block {
        [Stmt::Loop(l)] if l.mode == Mode::Parallel => Some(l),
        [..] => None,
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Fixed(extent) => write!(f, "{extent}"),
            Dim::Batch => f.write_str("N"),
        }
    }
}
