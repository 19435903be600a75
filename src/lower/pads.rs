//! Turns `pad` loads, and those of the other modes, that are provably inside into plain loads.
//!
//! ```text
//! pad(input[i])      ->  input[i]      where the ranges and guards prove i in bounds
//! reflect(input[i])  ->  input[i]
//! ```

use convgen_ir::bounds::Context;
use convgen_ir::nest::{Expr, Nest, Stmt};

pub(super) fn run(nest: &mut Nest) {
    for is_pack in [true, false] {
        let part = if is_pack { &mut nest.pack } else { &mut nest.body };
        let mut block = std::mem::take(part);
        simplify(nest, &mut block, &Context::default());
        *(if is_pack { &mut nest.pack } else { &mut nest.body }) = block;
    }
}

fn simplify(nest: &Nest, block: &mut [Stmt], context: &Context) {
    for stmt in block {
        match stmt {
            Stmt::Loop(l) => {
                let mut inside = context.clone();
                inside.enter(l);
                simplify(nest, &mut l.body, &inside);
            }
            Stmt::If(guards, body) => {
                let mut inside = context.clone();
                inside.assume(guards);
                simplify(nest, body, &inside);
            }
            Stmt::MicroKernel(body) => simplify(nest, body, context),
            Stmt::Declare(_) => {}
            Stmt::Let(_, value) | Stmt::Store(_, value) => {
                value.visit_mut(&mut |expr| plain_if_inside(nest, expr, context));
            }
        }
    }
}

fn plain_if_inside(nest: &Nest, expr: &mut Expr, context: &Context) {
    if let Expr::Pad(_, access) = expr {
        let shape = &nest.buffer(access.buffer).shape;
        if access.index.iter().zip(shape).all(|(index, dim)| context.inside(index, *dim)) {
            *expr = Expr::Load(access.clone());
        }
    }
}
