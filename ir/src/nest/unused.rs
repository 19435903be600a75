//! Buffers of the nest's own that no statement uses any more: what a rewrite has replaced or
//! removed.

use super::{Access, BufferId, Expr, Nest, Stmt};

impl Nest {
    /// Removes the scratch buffers and register tiles that no statement declares or accesses from
    /// the table, and renumbers the others. The text of the nest stays the same.
    pub fn drop_unused_buffers(&mut self) {
        let mut used: Vec<bool> =
            self.buffers.iter().map(|buffer| !buffer.role.is_local()).collect();
        self.visit_buffers(&mut |id| {
            if let Some(used) = used.get_mut(id.index()) {
                *used = true;
            }
        });
        if used.iter().all(|used| *used) {
            return;
        }
        let mut next = 0_u32;
        let ids: Vec<BufferId> = used
            .iter()
            .map(|used| {
                let id = BufferId(next);
                next = next.saturating_add(u32::from(*used));
                id
            })
            .collect();
        let mut kept = used.iter();
        self.buffers.retain(|_| kept.next().copied().unwrap_or(true));
        self.visit_buffers(&mut |id| *id = ids.get(id.index()).copied().unwrap_or(*id));
    }

    /// Calls `f` on every place where a statement names a buffer.
    fn visit_buffers(&mut self, f: &mut impl FnMut(&mut BufferId)) {
        of_block(&mut self.pack, f);
        of_block(&mut self.body, f);
    }
}

fn of_block(block: &mut [Stmt], f: &mut impl FnMut(&mut BufferId)) {
    for stmt in block {
        match stmt {
            Stmt::Loop(l) => {
                l.fetch.iter_mut().for_each(|fetch| f(&mut fetch.from.buffer));
                of_block(&mut l.body, f);
            }
            Stmt::If(_, body) => of_block(body, f),
            Stmt::Declare(id) => f(id),
            Stmt::Let(_, value) => of_value(value, f),
            Stmt::Store(Access { buffer, .. }, value) => {
                f(buffer);
                of_value(value, f);
            }
        }
    }
}

fn of_value(value: &mut Expr, f: &mut impl FnMut(&mut BufferId)) {
    value.visit_mut(&mut |expr| match expr {
        Expr::Load(access) | Expr::Pad(_, access) => f(&mut access.buffer),
        Expr::Const(_)
        | Expr::Local(_)
        | Expr::Unary(..)
        | Expr::Binary(..)
        | Expr::Fma(..)
        | Expr::Select { .. } => {}
    });
}
