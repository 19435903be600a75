//! The executable meaning of a nest: one statement after the other, nothing clever about values.
//!
//! Loop modes are ignored: by the verifier's rules they never change what is computed. Indices are
//! resolved to flat offsets first, and advanced by strides in innermost loops, so that the oracle
//! of every test runs at tens of millions of statements a second.
//!
//! Index arithmetic is plain: rule V10 bounds every sum at each term, and every offset in bytes.

#![deny(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use std::ops::Range;

use crate::nest::{
    Access, Affine, BinaryOp, BufferId, Dim, Expr, Guard, Loop, Mode, Nest, Role, Scalar, Stmt,
    UnaryOp,
};
use crate::ops;
use crate::padding::PaddingMode;
use crate::verify::VerifiedNest;

/// Why the caller's data does not fit the nest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InterpretError {
    /// A slice of the wrong length.
    #[error("`{buffer}` has {expected} elements, {given} were given")]
    Length {
        /// The buffer.
        buffer: String,
        /// Elements given.
        given: usize,
        /// Elements needed.
        expected: i64,
    },
    /// A buffer that this process cannot hold.
    #[error("`{buffer}` for {batch} images does not fit into memory")]
    Memory {
        /// The buffer.
        buffer: String,
        /// Images of the call.
        batch: i64,
    },
    /// A task that the call does not have.
    #[error("the call has {count} tasks, number {given} was asked for")]
    Task {
        /// The number asked for.
        given: i64,
        /// Tasks of the call.
        count: i64,
    },
    /// Too few or too many slices.
    #[error("the nest takes {expected} buffers, {given} were given")]
    Count {
        /// Slices given.
        given: usize,
        /// Slices needed.
        expected: usize,
    },
}

/// Runs the pack block of a nest of one sum: the packed weights, or a copy of the weights if the
/// nest packs nothing.
///
/// # Errors
/// If `weights` is not as long as the nest's weights, or the nest has several.
pub fn pack(nest: &VerifiedNest, weights: &[f32]) -> Result<Vec<f32>, InterpretError> {
    if nest.nest().find_role(Role::Weights).is_none() {
        return Ok(weights.to_vec());
    }
    let mut packed = pack_all(nest, &[weights])?;
    match (packed.pop(), packed.len()) {
        (Some(only), 0) => Ok(only),
        (_, others) => Err(InterpretError::Count { given: 1, expected: others.saturating_add(1) }),
    }
}

/// Runs the pack block: every buffer of packed weights, or a copy of the weights if the nest packs
/// nothing. `weights` holds one slice for each weights buffer of the nest, in the order declared.
///
/// # Errors
/// If a slice has another length than the nest asks for, or there are too few or too many.
pub fn pack_all(nest: &VerifiedNest, weights: &[&[f32]]) -> Result<Vec<Vec<f32>>, InterpretError> {
    let ir = nest.nest();
    let sources: Vec<BufferId> = ir.find_all(Role::Weights).collect();
    if sources.len() != weights.len() {
        let (given, expected) = (weights.len(), sources.len());
        return Err(InterpretError::Count { given, expected });
    }
    let mut machine = Machine::new(ir, 0);
    for (id, data) in sources.into_iter().zip(weights) {
        machine.bind(id, data)?;
    }
    let packed: Vec<BufferId> = ir.find_all(Role::Packed).collect();
    if packed.is_empty() {
        return Ok(weights.iter().map(|weights| weights.to_vec()).collect());
    }
    packed.iter().try_for_each(|id| machine.allocate(*id))?;
    let program = Program::new(ir, &ir.pack);
    machine.run(&program);
    let take = |id: BufferId| std::mem::take(&mut machine.memory[id.index()]);
    Ok(packed.into_iter().map(take).collect())
}

/// Runs the body for the given tasks, in that order, on the caller's buffers.
///
/// `arguments` holds one slice for each buffer that [`arguments`] names, in that order.
/// `output` holds what the output held before, and after the call what the tasks wrote.
///
/// # Errors
/// If a slice has another length than the nest and the batch ask for, or there is no such task.
pub fn run(
    nest: &VerifiedNest,
    batch: i64,
    tasks: impl IntoIterator<Item = i64>,
    given: &[&[f32]],
    output: &mut [f32],
) -> Result<(), InterpretError> {
    let ir = nest.nest();
    let expected = arguments(ir);
    if expected.len() != given.len() {
        return Err(InterpretError::Count { given: given.len(), expected: expected.len() });
    }
    let mut machine = Machine::new(ir, batch);
    for (id, data) in expected.into_iter().zip(given) {
        machine.bind(id, data)?;
    }
    let Some(out) = ir.find_role(Role::Output) else { return Ok(()) };
    machine.bind(out, output)?;
    for id in ir.buffer_ids().filter(|id| ir.buffer(*id).role.is_local()) {
        machine.allocate(id)?;
    }
    let program = Program::new(ir, &ir.body);
    machine.tasks(&program, tasks)?;
    output.copy_from_slice(&machine.memory[out.index()]);
    Ok(())
}

/// The buffers a caller gives to [`run`] besides the output, in order: input, weights as the body
/// reads them (packed if the nest packs, none if it has none), biases, then gradients, scales and
/// residuals as declared.
pub fn arguments(nest: &Nest) -> Vec<BufferId> {
    let extras = nest.buffer_ids().filter(|id| {
        matches!(nest.buffer(*id).role, Role::Gradient | Role::Scale | Role::Residual)
    });
    let first = [Role::Input, nest.weights_role(), Role::Bias];
    first.into_iter().flat_map(|role| nest.find_all(role)).chain(extras).collect()
}

/// A sum over the values of variables, by slot.
#[derive(Clone, Debug)]
struct Linear {
    constant: i64,
    terms: Vec<(usize, i64)>,
}

impl Linear {
    fn new(sum: &Affine) -> Linear {
        let terms = sum.terms().iter().map(|(axis, c)| (axis.index(), *c)).collect();
        Linear { constant: sum.constant, terms }
    }

    #[expect(clippy::arithmetic_side_effects, reason = "V10 bounds the sum at each term")]
    fn value(&self, variables: &[i64]) -> i64 {
        self.terms.iter().fold(self.constant, |sum, (slot, c)| sum + variables[*slot] * c)
    }

    fn coefficient(&self, slot: usize) -> i64 {
        self.terms.iter().find(|(s, _)| *s == slot).map_or(0, |(_, c)| *c)
    }
}

/// An index that may lie outside of `0..extent`, and the elements between neighbours.
struct Window {
    index: Linear,
    extent: Dim,
    stride: i64,
}

enum Code {
    Const(f32),
    Local(usize),
    /// A load at the offset of the access with this number.
    Load {
        buffer: usize,
        access: usize,
    },
    /// A load of the element that the mode finds for each index.
    Pad {
        mode: PaddingMode,
        buffer: usize,
        windows: Vec<Window>,
    },
    Unary(UnaryOp, Box<Code>),
    Binary(BinaryOp, Box<[Code; 2]>),
    Fma(Box<[Code; 3]>),
    Select(Box<[Code; 4]>),
}

enum Op {
    Loop(Iterations),
    If(Vec<(Linear, Guard)>, Vec<Op>),
    Let { local: usize, value: Code, accesses: Range<usize> },
    Store { buffer: usize, access: usize, value: Code, accesses: Range<usize> },
}

struct Iterations {
    slot: usize,
    lo: i64,
    hi: Dim,
    guards: Vec<(Linear, Guard)>,
    parallel: bool,
    /// If the body is straight-line code without conditions: its accesses, to be advanced by
    /// stride.
    straight: Option<Range<usize>>,
    body: Vec<Op>,
}

/// A block with every access numbered and its offset in flat form.
struct Program {
    ops: Vec<Op>,
    offsets: Vec<Linear>,
}

impl Program {
    fn new(nest: &Nest, block: &[Stmt]) -> Program {
        let mut resolver = Resolver { nest, offsets: Vec::new() };
        let ops = resolver.block(block);
        Program { ops, offsets: resolver.offsets }
    }
}

struct Resolver<'n> {
    nest: &'n Nest,
    offsets: Vec<Linear>,
}

impl Resolver<'_> {
    fn block(&mut self, block: &[Stmt]) -> Vec<Op> {
        block.iter().filter_map(|stmt| self.stmt(stmt)).collect()
    }

    fn stmt(&mut self, stmt: &Stmt) -> Option<Op> {
        let first = self.offsets.len();
        match stmt {
            Stmt::Loop(l) => Some(Op::Loop(self.iterations(l))),
            Stmt::If(guards, body) => Some(Op::If(conditions(guards), self.block(body))),
            Stmt::MicroKernel(body) => Some(Op::If(conditions(&[]), self.block(body))),
            Stmt::Declare(_) => None,
            Stmt::Let(id, value) => {
                let value = self.expr(value);
                let accesses = first..self.offsets.len();
                Some(Op::Let { local: id.index(), value, accesses })
            }
            Stmt::Store(dst, value) => {
                let value = self.expr(value);
                let (buffer, access) = self.access(dst);
                Some(Op::Store { buffer, access, value, accesses: first..self.offsets.len() })
            }
        }
    }

    fn iterations(&mut self, l: &Loop) -> Iterations {
        let first = self.offsets.len();
        let body = self.block(&l.body);
        let straight = l.guards.is_empty()
            && body.iter().all(|op| match op {
                Op::Loop(_) | Op::If(..) => false,
                Op::Let { .. } | Op::Store { .. } => true,
            });
        Iterations {
            slot: l.axis.index(),
            lo: l.lo,
            hi: l.hi,
            guards: conditions(&l.guards),
            parallel: l.mode == Mode::Parallel,
            straight: straight.then_some(first..self.offsets.len()),
            body,
        }
    }

    /// Numbers an access and resolves its row-major offset.
    fn access(&mut self, access: &Access) -> (usize, usize) {
        let number = self.offsets.len();
        let offset = access.offset(self.nest.buffer(access.buffer));
        self.offsets.push(Linear::new(&offset));
        (access.buffer.index(), number)
    }

    fn expr(&mut self, value: &Expr) -> Code {
        match value {
            Expr::Const(Scalar::F32(x)) => Code::Const(*x),
            Expr::Local(id) => Code::Local(id.index()),
            Expr::Load(access) => {
                let (buffer, access) = self.access(access);
                Code::Load { buffer, access }
            }
            Expr::Pad(mode, access) => {
                let buffer = self.nest.buffer(access.buffer);
                let dims = access.index.iter().zip(&buffer.shape).zip(buffer.strides());
                let window = |((index, extent), stride): ((&Affine, &Dim), i64)| Window {
                    index: Linear::new(index),
                    extent: *extent,
                    stride,
                };
                let windows = dims.map(window).collect();
                Code::Pad { mode: *mode, buffer: access.buffer.index(), windows }
            }
            Expr::Unary(op, x) => Code::Unary(*op, Box::new(self.expr(x))),
            Expr::Binary(op, a, b) => Code::Binary(*op, Box::new([self.expr(a), self.expr(b)])),
            Expr::Fma(a, b, c) => Code::Fma(Box::new([a, b, c].map(|x| self.expr(x)))),
            Expr::Select { a, b, then, otherwise } => {
                Code::Select(Box::new([a, b, then, otherwise].map(|x| self.expr(x))))
            }
        }
    }
}

fn conditions(guards: &[Guard]) -> Vec<(Linear, Guard)> {
    guards.iter().map(|guard| (Linear::new(guard.sum()), guard.clone())).collect()
}

struct Machine<'n> {
    nest: &'n Nest,
    batch: i64,
    memory: Vec<Vec<f32>>,
    locals: Vec<f32>,
    variables: Vec<i64>,
    /// The current flat offset of every access of the program.
    offsets: Vec<i64>,
}

impl<'n> Machine<'n> {
    fn new(nest: &'n Nest, batch: i64) -> Machine<'n> {
        Machine {
            nest,
            batch,
            memory: vec![Vec::new(); nest.buffers.len()],
            locals: vec![0.0; nest.locals.len()],
            variables: vec![0; nest.axes.len()],
            offsets: Vec::new(),
        }
    }

    fn bind(&mut self, id: BufferId, data: &[f32]) -> Result<(), InterpretError> {
        let buffer = self.nest.buffer(id);
        let expected = buffer.len(self.batch).ok_or_else(|| self.too_large(id))?;
        if i64::try_from(data.len()) != Ok(expected) {
            let (buffer, given) = (buffer.name.clone(), data.len());
            return Err(InterpretError::Length { buffer, given, expected });
        }
        self.memory[id.index()] = data.to_vec();
        Ok(())
    }

    fn allocate(&mut self, id: BufferId) -> Result<(), InterpretError> {
        let elements = self.nest.buffer(id).len(self.batch);
        let elements = elements.and_then(|elements| usize::try_from(elements).ok());
        let elements = elements.ok_or_else(|| self.too_large(id))?;
        let mut memory = Vec::new();
        memory.try_reserve_exact(elements).map_err(|_| self.too_large(id))?;
        memory.resize(elements, f32::NAN);
        self.memory[id.index()] = memory;
        Ok(())
    }

    fn too_large(&self, id: BufferId) -> InterpretError {
        let buffer = self.nest.buffer(id).name.clone();
        InterpretError::Memory { buffer, batch: self.batch }
    }

    fn run(&mut self, program: &Program) {
        self.offsets = vec![0; program.offsets.len()];
        self.block(program, &program.ops, true);
    }

    /// Runs tasks by number: the task loops are the digits of the number, outermost first.
    #[expect(
        clippy::arithmetic_side_effects,
        reason = "where there is a task, every task loop has iterations"
    )]
    fn tasks(
        &mut self,
        program: &Program,
        tasks: impl IntoIterator<Item = i64>,
    ) -> Result<(), InterpretError> {
        self.offsets = vec![0; program.offsets.len()];
        let mut loops: Vec<&Iterations> = Vec::new();
        let mut block = &program.ops;
        while let [Op::Loop(l)] = block.as_slice()
            && l.parallel
        {
            loops.push(l);
            block = &l.body;
        }
        let count = self.nest.tasks(self.batch).unwrap_or(0);
        for task in tasks {
            if !(0..count).contains(&task) {
                return Err(InterpretError::Task { given: task, count });
            }
            let mut rest = task;
            for l in loops.iter().rev() {
                let trips = l.hi.at(self.batch) - l.lo;
                self.variables[l.slot] = l.lo + rest % trips;
                rest /= trips;
            }
            self.block(program, block, true);
        }
        Ok(())
    }

    fn block(&mut self, program: &Program, ops: &[Op], refresh: bool) {
        for op in ops {
            match op {
                Op::Loop(l) => self.iterate(program, l),
                Op::If(guards, body) => {
                    if self.hold(guards) {
                        self.block(program, body, refresh);
                    }
                }
                Op::Let { local, value, accesses } => {
                    if refresh {
                        self.refresh(program, accesses);
                    }
                    self.locals[*local] = self.value(value);
                }
                Op::Store { buffer, access, value, accesses } => {
                    if refresh {
                        self.refresh(program, accesses);
                    }
                    let value = self.value(value);
                    self.memory[*buffer][place(self.offsets[*access])] = value;
                }
            }
        }
    }

    fn refresh(&mut self, program: &Program, accesses: &Range<usize>) {
        for access in accesses.clone() {
            self.offsets[access] = program.offsets[access].value(&self.variables);
        }
    }

    fn iterate(&mut self, program: &Program, l: &Iterations) {
        let hi = l.hi.at(self.batch);
        if let Some(accesses) = &l.straight {
            self.variables[l.slot] = l.lo;
            self.refresh(program, accesses);
            for v in l.lo..hi {
                self.variables[l.slot] = v;
                self.block(program, &l.body, false);
                for access in accesses.clone() {
                    // Behind the last iteration the offset is nobody's.
                    let step = program.offsets[access].coefficient(l.slot);
                    self.offsets[access] = self.offsets[access].wrapping_add(step);
                }
            }
            return;
        }
        for v in l.lo..hi {
            self.variables[l.slot] = v;
            if self.hold(&l.guards) {
                self.block(program, &l.body, true);
            }
        }
    }

    fn hold(&self, guards: &[(Linear, Guard)]) -> bool {
        guards.iter().all(|(sum, guard)| guard.holds(sum.value(&self.variables)))
    }

    fn value(&self, code: &Code) -> f32 {
        match code {
            Code::Const(x) => *x,
            Code::Local(local) => self.locals[*local],
            Code::Load { buffer, access } => self.memory[*buffer][place(self.offsets[*access])],
            Code::Pad { mode, buffer, windows } => {
                let offset = windows.iter().try_fold(0, |offset, window| {
                    let index = window.index.value(&self.variables);
                    let element = mode.source(index, window.extent.at(self.batch))?;
                    i64::checked_add(offset, element.checked_mul(window.stride)?)
                });
                offset.map_or(0.0, |offset| self.memory[*buffer][place(offset)])
            }
            Code::Unary(op, x) => ops::unary(*op, self.value(x)),
            Code::Binary(op, x) => ops::binary(*op, self.value(&x[0]), self.value(&x[1])),
            Code::Fma(x) => ops::fma(self.value(&x[0]), self.value(&x[1]), self.value(&x[2])),
            Code::Select(x) => ops::select(
                self.value(&x[0]),
                self.value(&x[1]),
                self.value(&x[2]),
                self.value(&x[3]),
            ),
        }
    }
}

/// The place of an element that the verifier proved to exist.
fn place(offset: i64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}
