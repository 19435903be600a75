//! Shrinks register tiles to what is used of them.
//!
//! ```text
//! reg acc f32[14,32]; .. acc[ow.i,oc.i] ..  ->  reg acc.2 f32[7,32]; .. acc.2[ow.i,oc.i] ..
//! ```
//! where `ow.i` runs to 7 there, as in the last, incomplete tile of a loop. Each declaration that
//! uses less than the whole tile gets a tile of its own.

use convgen_ir::bounds::Context;
use convgen_ir::nest::{BufferId, Dim, Loop, Nest, Role, Stmt, visit_accesses, visit_accesses_mut};

pub(super) fn run(nest: &mut Nest) {
    let mut body = std::mem::take(&mut nest.body);
    shrink(nest, &mut body);
    nest.body = body;
}

fn shrink(nest: &mut Nest, block: &mut [Stmt]) {
    for i in 0..block.len() {
        let Some((stmt, later)) = block[i..].split_first_mut() else { continue };
        match stmt {
            Stmt::Loop(l) => shrink(nest, &mut l.body),
            Stmt::If(_, body) | Stmt::MicroKernel(body) => shrink(nest, body),
            Stmt::Declare(id) if nest.buffer(*id).role == Role::Reg => {
                let id = *id;
                let shape = used_shape(nest, later, id);
                if shape != nest.buffer(id).shape {
                    let twin = twin(nest, id, shape);
                    rename(&mut block[i..], id, twin);
                }
            }
            Stmt::Declare(_) | Stmt::Let(..) | Stmt::Store(..) => {}
        }
    }
}

fn twin(nest: &mut Nest, id: BufferId, shape: Vec<Dim>) -> BufferId {
    let mut twin = nest.buffer(id).clone();
    twin.shape = shape;
    let base = twin.name.split('.').next().unwrap_or(&twin.name);
    twin.name = nest.new_buffer_name(base);
    nest.add_buffer(twin)
}

/// One past the largest index in each dimension, within the shape.
fn used_shape(nest: &Nest, block: &[Stmt], id: BufferId) -> Vec<Dim> {
    let mut used = vec![1; nest.buffer(id).shape.len()];
    cover_indices(block, id, &Context::default(), &mut used);
    let shape = &nest.buffer(id).shape;
    let within = |(used, dim): (i64, &Dim)| dim.fixed().map_or(used, |extent| used.min(extent));
    used.into_iter().zip(shape).map(within).map(Dim::Fixed).collect()
}

/// Extends a shape by the accesses of a block. Loops side by side may give an axis other lengths.
fn cover_indices(block: &[Stmt], id: BufferId, context: &Context, used: &mut [i64]) {
    for stmt in block {
        match stmt {
            Stmt::Loop(l) => {
                let mut inside = context.clone();
                inside.enter(&Loop { guards: vec![], ..l.with_body(vec![]) });
                cover_indices(&l.body, id, &inside, used);
            }
            Stmt::If(_, body) | Stmt::MicroKernel(body) => cover_indices(body, id, context, used),
            Stmt::Declare(_) => {}
            Stmt::Let(..) | Stmt::Store(..) => {
                visit_accesses(std::slice::from_ref(stmt), &mut |access, _| {
                    if access.buffer == id {
                        for (used, index) in used.iter_mut().zip(&access.index) {
                            let (_, hi) = context.interval(index).unwrap_or((0, 0));
                            let end = i64::try_from(hi.saturating_add(1));
                            *used = (*used).max(end.unwrap_or(i64::MAX));
                        }
                    }
                });
            }
        }
    }
}

fn rename(block: &mut [Stmt], from: BufferId, to: BufferId) {
    visit_accesses_mut(block, &mut |access| {
        if access.buffer == from {
            access.buffer = to;
        }
    });
    redeclare(block, from, to);
}

fn redeclare(block: &mut [Stmt], from: BufferId, to: BufferId) {
    for stmt in block {
        match stmt {
            Stmt::Loop(l) => redeclare(&mut l.body, from, to),
            Stmt::If(_, body) | Stmt::MicroKernel(body) => redeclare(body, from, to),
            Stmt::Declare(id) if *id == from => *id = to,
            Stmt::Declare(_) | Stmt::Let(..) | Stmt::Store(..) => {}
        }
    }
}
