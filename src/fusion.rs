//! Two nests made one: what the first writes, the second reads from scratch, block by block.
//!
//! ```text
//! parallel t.. { P[ output[t*B+i..] = x ] }  and  parallel t.. { C[ .. input[t*B+j..] .. ] }
//! ->
//! parallel t.. { scratch middle [B..]; P[ middle[i..] = x ]; C[ .. middle[j..] .. ] }
//! ```
//! The tensor between them exists a block at a time, in scratch. Both keep their order, so no bit
//! changes. The producer's names get a prefix, all but that of its input; its weights, bias and
//! extras come before the consumer's.
//!
//! Tasks that only the consumer has, such as parts of its output channels, each repeat the
//! producer's work.
//!
//! Precondition: the consumer's tasks begin with those of the producer; the producer's output has
//! the shape of the consumer's input, or the consumer's with neighbouring dimensions made one; in
//! each dimension, all stores of the one and all loads of the other agree on the terms of the
//! tasks, which step by whole blocks over the extent. A padded load of the consumer must lie inside
//! its block. Whether a task reads only what it wrote is the verifier's business (V4, V11).

mod block;
mod fetch;
mod names;

use convgen_ir::nest::{
    Affine, AxisId, Buffer, BufferId, Dim, Loop, Mode, Nest, Role, Stmt, visit_accesses_mut,
};

use self::block::Block;
pub use self::fetch::fetch_early;
use self::names::Names;

/// Why two nests cannot be made one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the message names every field")]
pub enum FusionError {
    #[error(
        "the producer's tasks are {producer}, the consumer's {consumer}, which do not begin so"
    )]
    Tasks { producer: String, consumer: String },
    #[error("the producer writes [{written}], the consumer reads [{read}]")]
    Shapes { written: String, read: String },
    #[error("`{access}` is at no whole block of the task in dimension {dim}")]
    Block { access: String, dim: usize },
    #[error("`pad({access})` may lie outside of the task's block in dimension {dim}")]
    Pad { access: String, dim: usize },
}

/// The consumer on what the producer leaves in scratch.
///
/// # Errors
/// The precondition that does not hold.
pub fn fuse(producer: &Nest, consumer: &Nest, prefix: &str) -> Result<Nest, FusionError> {
    let lengths = common_tasks(producer, consumer)?;
    let joined = joined_dims(producer, consumer)?;
    let mut nest = Nest::new("fused");
    let mut first = Names::new(producer, Role::Output, prefix);
    let mut second = Names::new(consumer, Role::Input, "");
    first.add_buffers(&mut nest, false);
    second.add_buffers(&mut nest, false);
    let middle = Buffer { role: Role::Scratch, ..input_of(consumer).clone() };
    let middle = nest.add_buffer(Buffer { name: "middle".to_string(), ..middle });
    for names in [&mut first, &mut second] {
        names.set_shared(middle);
        names.add_buffers(&mut nest, true);
    }
    let tasks = add_tasks(&mut nest, producer);
    first.add_axes(&mut nest, &tasks);
    second.add_axes(&mut nest, &tasks);
    nest.pack = first.renamed(&producer.pack);
    nest.pack.extend(second.renamed(&consumer.pack));

    let mut produced = first.renamed(in_loops(&producer.body, tasks.len()));
    let mut consumed = second.renamed(in_loops(&consumer.body, tasks.len()));
    join_indices(&mut produced, middle, &joined);
    let lengths: Vec<(AxisId, Dim)> = tasks.iter().copied().zip(lengths).collect();
    let block = Block::find(&nest, middle, &lengths, [&produced, &consumed])?;
    block.check_pads(&nest, &consumed)?;
    block.shift(&mut produced);
    block.shift(&mut consumed);
    nest.buffer_mut(middle).shape = block.shape();
    let before = [Stmt::Declare(middle)].into_iter().chain(produced).collect();
    let body = in_own_tasks(consumed, before);
    nest.body = lengths.into_iter().rev().fold(body, |body, (axis, length)| {
        vec![Stmt::Loop(Loop { mode: Mode::Parallel, ..Loop::new(axis, length, body) })]
    });
    Ok(nest)
}

/// The lengths of the producer's tasks, if the consumer's begin with them.
fn common_tasks(producer: &Nest, consumer: &Nest) -> Result<Vec<Dim>, FusionError> {
    let lengths = |nest: &Nest| nest.task_loops().map(|l| (l.lo, l.hi)).collect::<Vec<_>>();
    let text = |nest: &Nest| {
        let lengths: Vec<String> = nest.task_loops().map(|l| l.hi.to_string()).collect();
        format!("[{}]", lengths.join(","))
    };
    let tasks = lengths(producer);
    match lengths(consumer).starts_with(&tasks) && tasks.iter().all(|(lo, _)| *lo == 0) {
        true => Ok(tasks.into_iter().map(|(_, hi)| hi).collect()),
        false => Err(FusionError::Tasks { producer: text(producer), consumer: text(consumer) }),
    }
}

/// The variables of the tasks, by the producer's names.
fn add_tasks(nest: &mut Nest, producer: &Nest) -> Vec<AxisId> {
    let axes = producer.task_loops().map(|l| producer.axis(l.axis));
    axes.map(|axis| nest.add_axis(axis.name.clone(), axis.kind)).collect()
}

/// How many of the producer's dimensions make up each of the consumer's, with the extents.
fn joined_dims(producer: &Nest, consumer: &Nest) -> Result<Vec<Vec<Dim>>, FusionError> {
    let written = producer.find_role(Role::Output).map(|id| producer.buffer(id));
    let read = input_of(consumer);
    let text = |shape: &[Dim]| {
        let dims: Vec<String> = shape.iter().map(ToString::to_string).collect();
        dims.join(",")
    };
    let shape = written.map(|output| output.shape.clone()).unwrap_or_default();
    let refused = || FusionError::Shapes { written: text(&shape), read: text(&read.shape) };
    if written.is_none_or(|output| !output.stripes.is_empty() || output.elem != read.elem) {
        return Err(refused());
    }
    let mut rest = shape.as_slice();
    let mut joined = Vec::new();
    for dim in &read.shape {
        let length = |count: usize| match &rest[..count] {
            [Dim::Batch] => Some(Dim::Batch),
            dims => {
                let mut extents = dims.iter().map(|dim| dim.fixed());
                let product =
                    extents.try_fold(1_i64, |product, extent| product.checked_mul(extent?));
                product.map(Dim::Fixed)
            }
        };
        let count = (1..=rest.len()).find(|count| length(*count) == Some(*dim));
        let (dims, after) = rest.split_at(count.ok_or_else(refused)?);
        joined.push(dims.to_vec());
        rest = after;
    }
    // What is left has one element, whose index is zero.
    if rest.iter().any(|dim| *dim != Dim::Fixed(1)) {
        return Err(refused());
    }
    if let Some(last) = joined.last_mut() {
        last.extend(rest);
    }
    Ok(joined)
}

fn input_of(nest: &Nest) -> &Buffer {
    let input = nest.find_role(Role::Input).unwrap_or(BufferId(0));
    nest.buffer(input)
}

/// The block inside so many loops.
fn in_loops(body: &[Stmt], count: usize) -> &[Stmt] {
    match body {
        [Stmt::Loop(l)] if count > 0 => in_loops(&l.body, count - 1),
        [..] => body,
    }
}

/// A block with others before it: in each of its tasks, if it is loops over these.
fn in_own_tasks(mut block: Vec<Stmt>, before: Vec<Stmt>) -> Vec<Stmt> {
    match block.as_mut_slice() {
        [Stmt::Loop(l)] if l.mode == Mode::Parallel => {
            l.body = in_own_tasks(std::mem::take(&mut l.body), before);
            block
        }
        [..] => before.into_iter().chain(block).collect(),
    }
}

/// Makes one index of those of neighbouring dimensions: `x[a,b]` of `[A,B]` is `x[a*B+b]` of
/// `[A*B]`.
fn join_indices(block: &mut [Stmt], buffer: BufferId, dims: &[Vec<Dim>]) {
    visit_accesses_mut(block, &mut |access| {
        if access.buffer != buffer {
            return;
        }
        let mut indices = std::mem::take(&mut access.index).into_iter();
        access.index = dims
            .iter()
            .map(|joined| {
                joined.iter().zip(&mut indices).fold(Affine::default(), |sum, (dim, index)| {
                    &sum.scaled(dim.fixed().unwrap_or(1)) + &index
                })
            })
            .collect();
    });
}
