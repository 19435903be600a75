//! What is read and written later, fetched while the consumer of a task multiplies.
//!
//! ```text
//! parallel t in 0..T { .. input[t*S+i..] .. for c in 0..C { reduce k in 0..K { B }; output[t*D+c*O..] = x } }
//! ->
//! .. for c in 0..C { reduce k in 0..K fetch F input[t*S+I..c*K*F+k*F] fetch G output[t*D..c*K*G+k*G+K*G] { B }; .. }
//! ```
//! The producer reads memory and waits for it, the consumer multiplies what is near. `I` is the
//! first index that this task does not read, and what the next one reads from there on is shared
//! among the iterations of the consumer's innermost loop, `F` elements each. A line that is written
//! is read first; so the output's are fetched too, an iteration of `c` ahead of the stores. A hint:
//! no bit changes, and nothing is read.
//!
//! Applies where either is one piece of memory: the innermost task moves the first index that is
//! not the tasks' alone, and the outermost loop of the consumer moves the same index of the output,
//! so that it is written from front to back. Elsewhere nothing is done.

use std::collections::BTreeMap;

use convgen_ir::nest::{
    Access, Affine, AxisId, BufferId, Dim, Fetch, Loop, Mode, Nest, Role, Stmt, visit_accesses,
    visit_loops, visit_loops_mut, visit_stores,
};

/// Adds the hints to the innermost loop of a fused nest's consumer.
pub fn fetch_early(nest: &mut Nest) {
    let mut around = Vec::new();
    if loops_of_consumer(&nest.body, &mut around).is_none() {
        return;
    }
    let Some((innermost, _)) = around.last().copied() else { return };
    let next = next_input(nest).and_then(|piece| piece.shared(&around));
    let own = next_output(nest, &around).and_then(|piece| piece.shared(&around));
    let fetch: Vec<Fetch> = next.into_iter().chain(own).collect();
    visit_loops_mut(&mut nest.body, &mut |l| {
        if l.axis == innermost {
            l.fetch.clone_from(&fetch);
        }
    });
}

/// Neighbouring elements.
struct Piece {
    from: Access,
    elements: i64,
}

impl Piece {
    /// The part of an iteration of these loops, outermost first.
    fn shared(mut self, around: &[(AxisId, i64)]) -> Option<Fetch> {
        let mut share = self.elements;
        let last = self.from.index.last_mut()?;
        for (axis, trips) in around {
            share = (share + trips - 1) / trips;
            *last = &*last + &Affine::from_terms(0, [(*axis, share)]);
        }
        Some(Fetch { count: u32::try_from(share).ok()?, from: self.from })
    }
}

/// What a task writes, an iteration of the outermost loop ahead, if that loop writes it from front
/// to back.
fn next_output(nest: &Nest, around: &[(AxisId, i64)]) -> Option<Piece> {
    let output = nest.find_role(Role::Output)?;
    let task = nest.task_loops().last()?.axis;
    let (outermost, trips) = *around.first()?;
    let mut stores = Vec::new();
    visit_stores(&nest.body, &mut |access| stores.push(access));
    let store = stores.into_iter().find(|access| access.buffer == output)?;
    let dim = store.index.iter().position(|index| index.mentions(task))?;
    let by = store.index[dim].coefficient(task);
    if by <= 0 || !store.index[dim].mentions(outermost) {
        return None;
    }
    let tasks: Vec<AxisId> = nest.task_loops().map(|l| l.axis).collect();
    let mut index: Vec<Affine> = store.index[..=dim].to_vec();
    index.iter_mut().for_each(|index| *index = index.part(|axis| tasks.contains(&axis)));
    let elements = by * row(nest, output, dim);
    index.resize(store.index.len(), Affine::default());
    let last = index.last_mut()?;
    *last = &*last + &Affine::constant((elements + trips - 1) / trips);
    Some(Piece { from: Access { buffer: output, index }, elements })
}

/// Elements of a buffer for each index of a dimension.
fn row(nest: &Nest, buffer: BufferId, dim: usize) -> i64 {
    let shape = &nest.buffer(buffer).shape;
    shape[dim + 1..].iter().filter_map(|extent| extent.fixed()).product()
}

/// What the next task reads and this one does not.
fn next_input(nest: &Nest) -> Option<Piece> {
    let input = nest.find_role(Role::Input)?;
    let tasks: Vec<AxisId> = nest.task_loops().map(|l| l.axis).collect();
    let of_task = |index: &Affine| index.part(|axis| tasks.contains(&axis));
    let mut accesses: Vec<&Access> = Vec::new();
    visit_accesses(&nest.body, &mut |access, _| accesses.push(access));
    accesses.retain(|access| access.buffer == input);
    let first = *accesses.first()?;
    let dim = first.index.iter().position(|index| of_task(index) != *index)?;
    let alike = |access: &&Access| {
        let pairs = access.index.iter().zip(&first.index);
        pairs.take(dim).all(|(index, other)| index == other)
    };
    let step = first.index[dim].coefficient(*tasks.last()?);
    if step <= 0 || !accesses.iter().all(alike) {
        return None;
    }
    let ranges = ranges(nest);
    let reach = |access: &&Access| {
        let inside = &access.index[dim] - &of_task(&access.index[dim]);
        largest(&inside, &ranges)
    };
    let reach = accesses.iter().filter_map(reach).max()?;
    let mut index = first.index[..dim].to_vec();
    index.push(&of_task(&first.index[dim]) + &Affine::constant(reach + 1));
    index.resize(first.index.len(), Affine::default());
    let elements = step * row(nest, input, dim);
    Some(Piece { from: Access { buffer: input, index }, elements })
}

/// The first and the last value of each variable.
fn ranges(nest: &Nest) -> BTreeMap<AxisId, (i64, i64)> {
    let mut ranges = BTreeMap::new();
    visit_loops(&nest.body, &mut |l| {
        if let Dim::Fixed(hi) = l.hi {
            let range = ranges.entry(l.axis).or_insert((l.lo, hi - 1));
            *range = (range.0.min(l.lo), range.1.max(hi - 1));
        }
    });
    ranges
}

/// The largest value of a sum, guards aside.
fn largest(sum: &Affine, ranges: &BTreeMap<AxisId, (i64, i64)>) -> Option<i64> {
    sum.terms().iter().try_fold(sum.constant, |most, (axis, by)| {
        let (low, high) = ranges.get(axis)?;
        Some(most + (by * low).max(by * high))
    })
}

/// The loops of a task that lead to the innermost one of the last statement that has one, with
/// their lengths; those that run once left out. None if a length is the batch.
fn loops_of_consumer(block: &[Stmt], around: &mut Vec<(AxisId, i64)>) -> Option<()> {
    let Some(last) = block.iter().rev().find_map(stays) else { return Some(()) };
    if last.mode == Mode::Serial {
        around.extend(Some((last.axis, last.trip_count()?)).filter(|(_, trips)| *trips > 1));
    }
    loops_of_consumer(&last.body, around)
}

/// The loop that a statement is, if it stays one in the code.
fn stays(stmt: &Stmt) -> Option<&Loop> {
    match stmt {
        Stmt::Loop(l) => match l.mode {
            Mode::Serial | Mode::Parallel => Some(l),
            Mode::Unroll | Mode::Vector => None,
        },
        Stmt::If(..)
        | Stmt::MicroKernel(_)
        | Stmt::Declare(_)
        | Stmt::Let(..)
        | Stmt::Store(..) => None,
    }
}
