//! What one task has of the tensor between two nests.

use convgen_ir::bounds::Context;
use convgen_ir::nest::{
    Access, Affine, AxisId, BufferId, Dim, Expr, Nest, Stmt, visit_accesses, visit_accesses_mut,
    visit_exprs,
};
use convgen_ir::print::access_text;

use super::FusionError;

/// The part of a tensor that belongs to a task.
pub(super) struct Block {
    tensor: BufferId,
    dims: Vec<BlockPart>,
}

/// What a task has of a dimension.
struct BlockPart {
    /// The first index, in terms of the tasks' variables.
    start: Affine,
    /// How many; none of the batch, of which it is one.
    count: Option<i64>,
}

impl Block {
    /// The part that all accesses of two blocks agree on; `tasks` are their variables, with
    /// lengths.
    pub(super) fn find(
        nest: &Nest,
        tensor: BufferId,
        tasks: &[(AxisId, Dim)],
        blocks: [&[Stmt]; 2],
    ) -> Result<Block, FusionError> {
        let mut accesses: Vec<&Access> = Vec::new();
        for block in blocks {
            visit_accesses(block, &mut |access, _| accesses.push(access));
        }
        accesses.retain(|access| access.buffer == tensor);
        let mut dims = Vec::new();
        for (dim, extent) in nest.buffer(tensor).shape.iter().enumerate() {
            let starts = accesses.iter().map(|access| (access, start(&access.index[dim], tasks)));
            let mut part: Option<BlockPart> = None;
            for (access, start) in starts {
                let refused = || FusionError::Block { access: access_text(nest, access), dim };
                let whole_batch = *extent != Dim::Batch || access.index[dim] == start;
                let alike = part.as_ref().is_none_or(|part| part.start == start);
                if !alike || !whole_batch {
                    return Err(refused());
                }
                let count = count(&start, *extent, tasks).ok_or_else(refused)?;
                part = Some(BlockPart { start, count });
            }
            dims.extend(part);
        }
        Ok(Block { tensor, dims })
    }

    /// Its extents.
    pub(super) fn shape(&self) -> Vec<Dim> {
        self.dims.iter().filter_map(|part| part.count.map(Dim::Fixed)).collect()
    }

    /// The indices of an access within the block, each with the length of its dimension.
    fn within(&self, access: &Access) -> Vec<(Affine, i64)> {
        let dims = access.index.iter().zip(&self.dims);
        dims.filter_map(|(index, part)| part.count.map(|count| (index - &part.start, count)))
            .collect()
    }

    /// Indices count from the first of the block.
    pub(super) fn shift(&self, stmts: &mut [Stmt]) {
        visit_accesses_mut(stmts, &mut |access| {
            if access.buffer == self.tensor {
                access.index = self.within(access).into_iter().map(|(index, _)| index).collect();
            }
        });
    }

    /// Beyond the block a padded load would see zeros where the tensor goes on.
    pub(super) fn check_pads(&self, nest: &Nest, stmts: &[Stmt]) -> Result<(), FusionError> {
        self.pads_inside(nest, stmts, &Context::default())
    }

    fn pads_inside(
        &self,
        nest: &Nest,
        stmts: &[Stmt],
        around: &Context,
    ) -> Result<(), FusionError> {
        for stmt in stmts {
            let mut inside = around.clone();
            match stmt {
                Stmt::Loop(l) => {
                    inside.enter(l);
                    self.pads_inside(nest, &l.body, &inside)?;
                }
                Stmt::If(guards, body) => {
                    inside.assume(guards);
                    self.pads_inside(nest, body, &inside)?;
                }
                Stmt::MicroKernel(body) => self.pads_inside(nest, body, &inside)?,
                Stmt::Declare(_) => {}
                Stmt::Let(..) | Stmt::Store(..) => match self.pad_outside(stmt, &inside) {
                    None => {}
                    Some((access, dim)) => {
                        let access = access_text(nest, access);
                        return Err(FusionError::Pad { access, dim });
                    }
                },
            }
        }
        Ok(())
    }

    /// A padded load of the tensor, and the dimension in which it may leave the block.
    fn pad_outside<'s>(&self, stmt: &'s Stmt, context: &Context) -> Option<(&'s Access, usize)> {
        let mut found = None;
        visit_exprs(std::slice::from_ref(stmt), &mut |expr| {
            if let Expr::Pad(_, access) = expr
                && access.buffer == self.tensor
            {
                let indices = self.within(access).into_iter();
                let mut inside =
                    indices.map(|(index, count)| context.inside(&index, Dim::Fixed(count)));
                found = found.or(inside.position(|inside| !inside).map(|dim| (access, dim)));
            }
        });
        found
    }
}

/// The terms of the tasks.
fn start(index: &Affine, tasks: &[(AxisId, Dim)]) -> Affine {
    index.part(|axis| tasks.iter().any(|(task, _)| *task == axis))
}

/// How many indices a task has from its start on, if its neighbour's start follows and the last
/// task's end is that of the dimension.
fn count(start: &Affine, extent: Dim, tasks: &[(AxisId, Dim)]) -> Option<Option<i64>> {
    let length = |axis: AxisId| tasks.iter().find(|(task, _)| *task == axis)?.1.fixed();
    match (extent, start.terms()) {
        (Dim::Batch, _) => Some(None),
        (Dim::Fixed(extent), []) => Some(Some(extent)),
        (Dim::Fixed(extent), [(axis, by)]) => {
            (length(*axis)?.checked_mul(*by) == Some(extent)).then_some(Some(*by))
        }
        (Dim::Fixed(_), [..]) => None,
    }
}
