//! Walks over the statements of a block, so that rewrites say only what they change.

use crate::padding::PaddingMode;

use super::{Access, Affine, AxisId, BufferId, Expr, Guard, Loop, Mode, Stmt};

/// Calls `f` on every loop of a block, outer loops first.
pub fn visit_loops<'a>(block: &'a [Stmt], f: &mut impl FnMut(&'a Loop)) {
    for stmt in block {
        match stmt {
            Stmt::Loop(l) => {
                f(l);
                visit_loops(&l.body, f);
            }
            Stmt::If(_, body) | Stmt::MicroKernel(body) => visit_loops(body, f),
            Stmt::Declare(_) | Stmt::Let(..) | Stmt::Store(..) => {}
        }
    }
}

/// Calls `f` on every loop of a block, outer loops first.
pub fn visit_loops_mut(block: &mut [Stmt], f: &mut impl FnMut(&mut Loop)) {
    for stmt in block {
        match stmt {
            Stmt::Loop(l) => {
                f(l);
                visit_loops_mut(&mut l.body, f);
            }
            Stmt::If(_, body) | Stmt::MicroKernel(body) => visit_loops_mut(body, f),
            Stmt::Declare(_) | Stmt::Let(..) | Stmt::Store(..) => {}
        }
    }
}

/// Calls `f` on every value computed in a block.
pub fn visit_exprs<'a>(block: &'a [Stmt], f: &mut impl FnMut(&'a Expr)) {
    fn operands<'a>(expr: &'a Expr, f: &mut impl FnMut(&'a Expr)) {
        for x in expr.operands() {
            operands(x, f);
        }
        f(expr);
    }
    for stmt in block {
        match stmt {
            Stmt::Loop(l) => visit_exprs(&l.body, f),
            Stmt::If(_, body) | Stmt::MicroKernel(body) => visit_exprs(body, f),
            Stmt::Declare(_) => {}
            Stmt::Let(_, value) | Stmt::Store(_, value) => operands(value, f),
        }
    }
}

/// Calls `f` on every value computed in a block.
pub fn visit_exprs_mut(block: &mut [Stmt], f: &mut impl FnMut(&mut Expr)) {
    for stmt in block {
        match stmt {
            Stmt::Loop(l) => visit_exprs_mut(&mut l.body, f),
            Stmt::If(_, body) | Stmt::MicroKernel(body) => visit_exprs_mut(body, f),
            Stmt::Declare(_) => {}
            Stmt::Let(_, value) | Stmt::Store(_, value) => value.visit_mut(f),
        }
    }
}

/// Calls `f` on the destination of every store of a block.
pub fn visit_stores<'a>(block: &'a [Stmt], f: &mut impl FnMut(&'a Access)) {
    for stmt in block {
        match stmt {
            Stmt::Loop(l) => visit_stores(&l.body, f),
            Stmt::If(_, body) | Stmt::MicroKernel(body) => visit_stores(body, f),
            Stmt::Declare(_) | Stmt::Let(..) => {}
            Stmt::Store(dst, _) => f(dst),
        }
    }
}

/// Calls `f` on every access of a block; the flag says whether it is a store.
pub fn visit_accesses<'a>(block: &'a [Stmt], f: &mut impl FnMut(&'a Access, bool)) {
    visit_exprs(block, &mut |expr| match expr {
        Expr::Load(access) | Expr::Pad(_, access) => f(access, false),
        Expr::Const(_)
        | Expr::Local(_)
        | Expr::Unary(..)
        | Expr::Binary(..)
        | Expr::Fma(..)
        | Expr::Select { .. } => {}
    });
    visit_stores(block, &mut |access| f(access, true));
}

/// Calls `f` on every access of a block, loads and destinations alike.
pub fn visit_accesses_mut(block: &mut [Stmt], f: &mut impl FnMut(&mut Access)) {
    fn loads(value: &mut Expr, f: &mut impl FnMut(&mut Access)) {
        value.visit_mut(&mut |expr| {
            if let Expr::Load(access) | Expr::Pad(_, access) = expr {
                f(access);
            }
        });
    }
    for stmt in block {
        match stmt {
            Stmt::Loop(l) => visit_accesses_mut(&mut l.body, f),
            Stmt::If(_, body) | Stmt::MicroKernel(body) => visit_accesses_mut(body, f),
            Stmt::Declare(_) => {}
            Stmt::Let(_, value) => loads(value, f),
            Stmt::Store(dst, value) => {
                f(dst);
                loads(value, f);
            }
        }
    }
}

/// Replaces every occurrence of a loop variable in indices and guards of a block.
pub fn substitute(block: &mut [Stmt], axis: AxisId, with: &Affine) {
    map_affines(block, &mut |sum| *sum = sum.substitute(axis, with));
}

/// Calls `f` on every index and guard of a block, those of what is fetched early too.
pub fn map_affines(block: &mut [Stmt], f: &mut impl FnMut(&mut Affine)) {
    fn guards(guards: &mut [Guard], f: &mut impl FnMut(&mut Affine)) {
        for guard in guards {
            match guard {
                Guard::Below(sum, _) | Guard::AtLeast(sum, _) => f(sum),
            }
        }
    }
    fn expr(value: &mut Expr, f: &mut impl FnMut(&mut Affine)) {
        value.visit_mut(&mut |x| match x {
            Expr::Load(access) | Expr::Pad(_, access) => access.index.iter_mut().for_each(&mut *f),
            Expr::Const(_)
            | Expr::Local(_)
            | Expr::Unary(..)
            | Expr::Binary(..)
            | Expr::Fma(..)
            | Expr::Select { .. } => {}
        });
    }
    for stmt in block {
        match stmt {
            Stmt::Loop(l) => {
                guards(&mut l.guards, f);
                let fetched = l.fetch.iter_mut().flat_map(|fetch| &mut fetch.from.index);
                fetched.for_each(&mut *f);
                map_affines(&mut l.body, f);
            }
            Stmt::If(conditions, body) => {
                guards(conditions, f);
                map_affines(body, f);
            }
            Stmt::MicroKernel(body) => map_affines(body, f),
            Stmt::Declare(_) => {}
            Stmt::Let(_, value) => expr(value, f),
            Stmt::Store(dst, value) => {
                dst.index.iter_mut().for_each(&mut *f);
                expr(value, f);
            }
        }
    }
}

/// Whether a vector loop in a vector loop uses a buffer.
pub fn in_two_vectors(id: BufferId, scope: &[Stmt]) -> bool {
    let mut found = false;
    visit_loops(scope, &mut |l| {
        if let (Mode::Vector, [Stmt::Loop(inner)]) = (l.mode, l.body.as_slice()) {
            visit_accesses(&inner.body, &mut |access, _| found |= access.buffer == id);
        }
    });
    found
}

/// Calls `f` on every load of a block that may be padding, and how it is padded.
pub fn visit_pads<'a>(block: &'a [Stmt], f: &mut impl FnMut(PaddingMode, &'a Access)) {
    visit_exprs(block, &mut |expr| {
        if let Expr::Pad(mode, access) = expr {
            f(*mode, access);
        }
    });
}

/// Whether something in a block depends on where a variable is: padding, or a condition.
pub fn has_conditions(block: &[Stmt]) -> bool {
    let mut found = false;
    visit_pads(block, &mut |_, _| found = true);
    fn guarded(block: &[Stmt]) -> bool {
        block.iter().any(|stmt| match stmt {
            Stmt::If(..) => true,
            Stmt::Loop(l) => !l.guards.is_empty() || guarded(&l.body),
            Stmt::MicroKernel(body) => guarded(body),
            Stmt::Declare(_) | Stmt::Let(..) | Stmt::Store(..) => false,
        })
    }
    found || guarded(block)
}
