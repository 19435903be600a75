//! The names of one nest in another one: its buffers, axes and values, copied.

use convgen_ir::nest::{
    Affine, AxisId, Buffer, BufferId, Expr, LocalId, Nest, Role, Stmt, map_affines,
    visit_accesses_mut, visit_exprs_mut, visit_loops_mut,
};

/// What the ids of a nest are in the other one.
pub(super) struct Names<'n> {
    nest: &'n Nest,
    /// The role of the buffer that both nests have.
    shared: Role,
    prefix: &'n str,
    axes: Vec<AxisId>,
    buffers: Vec<BufferId>,
    locals: Vec<LocalId>,
}

impl<'n> Names<'n> {
    pub(super) fn new(nest: &'n Nest, shared: Role, prefix: &'n str) -> Names<'n> {
        let buffers = vec![BufferId(0); nest.buffers.len()];
        Names { nest, shared, prefix, axes: vec![], buffers, locals: vec![] }
    }

    /// Copies the buffers that are declared in a block, or those that are not; not the shared one.
    pub(super) fn add_buffers(&mut self, to: &mut Nest, local: bool) {
        for (buffer, place) in self.nest.buffers.iter().zip(&mut self.buffers) {
            if buffer.role == self.shared || buffer.role.is_local() != local {
                continue;
            }
            let prefix = if buffer.role == Role::Input { "" } else { self.prefix };
            let name = to.new_buffer_name(&format!("{prefix}{}", buffer.name));
            *place = to.add_buffer(Buffer { name, ..buffer.clone() });
        }
    }

    /// The buffer that both nests have.
    pub(super) fn set_shared(&mut self, id: BufferId) {
        for (buffer, place) in self.nest.buffers.iter().zip(&mut self.buffers) {
            if buffer.role == self.shared {
                *place = id;
            }
        }
    }

    /// Copies the axes, all but those of the tasks, which both nests have, and the names of values.
    pub(super) fn add_axes(&mut self, to: &mut Nest, tasks: &[AxisId]) {
        for axis in &self.nest.axes {
            let name = to.new_axis_name(&format!("{}{}", self.prefix, axis.name));
            self.axes.push(to.add_axis(name, axis.kind));
        }
        for (l, task) in self.nest.task_loops().zip(tasks) {
            self.axes[l.axis.0 as usize] = *task;
        }
        for local in &self.nest.locals {
            let name = to.new_local_name(&format!("{}{local}", self.prefix));
            self.locals.push(to.add_local(name));
        }
    }

    /// A block with the other nest's ids.
    pub(super) fn renamed(&self, block: &[Stmt]) -> Vec<Stmt> {
        let mut block = block.to_vec();
        map_affines(&mut block, &mut |sum| {
            let terms = sum.terms().iter().map(|(axis, c)| (self.axes[axis.0 as usize], *c));
            *sum = Affine::from_terms(sum.constant, terms);
        });
        visit_loops_mut(&mut block, &mut |l| l.axis = self.axes[l.axis.0 as usize]);
        visit_accesses_mut(&mut block, &mut |access| {
            access.buffer = self.buffers[access.buffer.0 as usize];
        });
        visit_exprs_mut(&mut block, &mut |expr| {
            if let Expr::Local(id) = expr {
                *id = self.locals[id.0 as usize];
            }
        });
        self.rename_bindings(&mut block);
        block
    }

    fn rename_bindings(&self, block: &mut [Stmt]) {
        for stmt in block {
            match stmt {
                Stmt::Loop(l) => self.rename_bindings(&mut l.body),
                Stmt::If(_, body) | Stmt::MicroKernel(body) => self.rename_bindings(body),
                Stmt::Declare(id) => *id = self.buffers[id.0 as usize],
                Stmt::Let(id, _) => *id = self.locals[id.0 as usize],
                Stmt::Store(..) => {}
            }
        }
    }
}
