//! Buffers of the nest's own that no statement uses any more: what a rewrite has replaced or
//! removed.

use super::{BufferId, Nest, Stmt, visit_accesses_mut, visit_loops_mut};

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
        for block in [&mut self.pack, &mut self.body] {
            visit_accesses_mut(block, &mut |access| f(&mut access.buffer));
            visit_loops_mut(block, &mut |l| {
                l.fetch.iter_mut().for_each(|fetch| f(&mut fetch.from.buffer));
            });
            visit_declared(block, f);
        }
    }
}

fn visit_declared(block: &mut [Stmt], f: &mut impl FnMut(&mut BufferId)) {
    for stmt in block {
        match stmt {
            Stmt::Loop(l) => visit_declared(&mut l.body, f),
            Stmt::If(_, body) | Stmt::MicroKernel(body) => visit_declared(body, f),
            Stmt::Declare(id) => f(id),
            Stmt::Let(..) | Stmt::Store(..) => {}
        }
    }
}
