//! What a kernel holds in memory, estimated from what it is made of.
//!
//! Promises: within a factor of 0.7 to 1.5 of what the process grows by for each of many kernels
//! (`tests/held.rs` measures it); counted once, when a kernel enters a cache. Does not: count the
//! workspace of calls, which is the threads', or packed weights, which are the caller's.

use convgen_ir::nest::{Access, Affine, Expr, Fetch, Guard, Nest, Stmt};

use crate::target::{CACHE_LINE, PAGE_BYTES};

/// What the JIT's tables hold of a function besides its code: its name twice, its signature, its
/// place.
const FUNCTION_BYTES: usize = 768;

/// What the JIT's tables hold besides, and a kernel's own fields.
const MODULE_BYTES: usize = 2 << 10;

/// Terms of an index that are stored in place.
const TERMS_IN_PLACE: usize = 4;

/// Memory of the functions of a kernel, given the bytes of the code of each in the order in which
/// they were defined: one is put behind the others where it fits, else on pages of its own.
pub(crate) fn code(functions: &[usize]) -> usize {
    let (mut mapped, mut left) = (0, 0);
    // Functions begin at a cache line, at most.
    for size in functions.iter().map(|size| size.next_multiple_of(CACHE_LINE)) {
        if size > left {
            left = size.next_multiple_of(PAGE_BYTES);
            mapped += left;
        }
        left -= size;
    }
    MODULE_BYTES + functions.len() * FUNCTION_BYTES + mapped
}

/// Memory of a nest.
pub(crate) fn nest(nest: &Nest) -> usize {
    let Nest { name, axes, buffers, locals, pack, body } = nest;
    let buffer = buffers.iter().map(|buffer| {
        allocated::<u8>(buffer.name.capacity()) + vec(&buffer.shape) + vec(&buffer.stripes)
    });
    let names = axes.iter().map(|axis| &axis.name).chain(locals).chain([name]);
    let names = names.map(|name| allocated::<u8>(name.capacity()));
    size_of::<Nest>()
        + names.chain(buffer).sum::<usize>()
        + vec(axes)
        + vec(buffers)
        + vec(locals)
        + block(pack)
        + block(body)
}

fn block(stmts: &Vec<Stmt>) -> usize {
    vec(stmts) + stmts.iter().map(statement).sum::<usize>()
}

/// Memory behind a statement.
fn statement(stmt: &Stmt) -> usize {
    match stmt {
        Stmt::Loop(l) => {
            let fetched = |fetch: &Fetch| access(&fetch.from);
            let fetched = vec(&l.fetch) + l.fetch.iter().map(fetched).sum::<usize>();
            guards(&l.guards) + fetched + block(&l.body)
        }
        Stmt::If(conditions, body) => guards(conditions) + block(body),
        Stmt::MicroKernel(body) => block(body),
        Stmt::Declare(_) => 0,
        Stmt::Let(_, value) => expr(value),
        Stmt::Store(place, value) => access(place) + expr(value),
    }
}

fn guards(guards: &Vec<Guard>) -> usize {
    vec(guards) + guards.iter().map(|guard| terms(guard.sum())).sum::<usize>()
}

/// Memory behind a value: its operands, each in a box.
fn expr(value: &Expr) -> usize {
    let own = match value {
        Expr::Load(place) | Expr::Pad(_, place) => access(place),
        Expr::Const(_)
        | Expr::Local(_)
        | Expr::Unary(..)
        | Expr::Binary(..)
        | Expr::Fma(..)
        | Expr::Select { .. } => 0,
    };
    own + value.operands().map(|operand| allocated::<Expr>(1) + expr(operand)).sum::<usize>()
}

fn access(place: &Access) -> usize {
    vec(&place.index) + place.index.iter().map(terms).sum::<usize>()
}

fn terms(index: &Affine) -> usize {
    let given = index.terms();
    match given.len() > TERMS_IN_PLACE {
        true => allocated_bytes(given.len().next_power_of_two() * size_of_val(&given[0])),
        false => 0,
    }
}

fn vec<T>(held: &Vec<T>) -> usize {
    allocated::<T>(held.capacity())
}

fn allocated<T>(count: usize) -> usize {
    allocated_bytes(count * size_of::<T>())
}

/// What an allocator takes for so many bytes: a word of its own, in units of two.
fn allocated_bytes(bytes: usize) -> usize {
    const WORD: usize = size_of::<usize>();
    if bytes == 0 { 0 } else { (bytes + WORD).next_multiple_of(2 * WORD).max(4 * WORD) }
}
