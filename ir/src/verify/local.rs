//! Rules for buffers of the nest's own: their budgets, and that they are written before they are
//! read.

use super::cover::{self, Region};
use super::{Check, Checker, Fault, Place, VerifyError};
use crate::nest::{BufferId, Role, Stmt, count_statements, visit_accesses, visit_stores};

impl Checker<'_> {
    /// V1, V9, V10 and V11 for the declaration of a local buffer; `rest` is its scope.
    pub(super) fn declare(&mut self, id: BufferId, rest: &[Stmt]) -> Check {
        let buffer = self.nest.buffer(id);
        let name = buffer.name.clone();
        if self.scope.buffers.iter().any(|(b, _)| *b == id) {
            return self.fail(Fault::Rebound { name });
        }
        if !buffer.role.is_local() {
            let reason = "only scratch and reg buffers are declared in a block";
            return self.fail(Fault::Role { access: name, use_: "declared here", reason });
        }
        self.scope.buffers.push((id, self.scope.loops.len()));
        if buffer.role == Role::Reg {
            let bytes = buffer.bytes(0).unwrap_or(i64::MAX);
            self.reg_bytes = self.reg_bytes.saturating_add(bytes);
            if self.reg_bytes > self.limits.reg_bytes {
                let (given, limit) = (self.reg_bytes, self.limits.reg_bytes);
                return self.fail(Fault::RegisterBudget { name, given, limit });
            }
        } else {
            let (given, high) = (self.scratch.end(id).into(), self.limits.scratch_bytes.into());
            if given > high {
                let what = format!("the scratch of a task, with `{name}`, in bytes");
                return self.fail(Fault::Size { what, given, low: 0, high });
            }
        }
        let what = || format!("showing that `{name}` is written before it is read");
        self.spend(count_statements(rest), what)?;
        self.spend_boxes(id, rest, what)?;
        let ends = cover::read_ends(self.nest, id, rest, &self.context);
        match defined_before_read(&ends, id, rest, &Region::default()) {
            true => Ok(()),
            false => self.fail(Fault::Undefined { name }),
        }
    }

    /// V11 for packed weights, V12 for the output.
    pub(super) fn written(&self, role: Role, block: &[Stmt]) -> Check {
        self.nest.find_all(role).try_for_each(|id| self.written_whole(role, id, block))
    }

    /// V8: the box of each store to a buffer is compared with those before it, in every block that
    /// reads it.
    fn spend_boxes(&self, id: BufferId, block: &[Stmt], what: impl FnOnce() -> String) -> Check {
        let mut stores = 0_usize;
        visit_stores(block, &mut |dst| {
            stores = stores.saturating_add(usize::from(dst.buffer == id));
        });
        self.spend(stores.saturating_mul(stores), what)
    }

    fn written_whole(&self, role: Role, id: BufferId, block: &[Stmt]) -> Check {
        let mut region = Region::of(self.nest, id);
        block.iter().for_each(|stmt| region.add_writes(stmt, id));
        if region.covers(self.nest, id) {
            return Ok(());
        }
        let name = self.nest.buffer(id).name.clone();
        if region.is_exhausted() {
            let what = format!("showing that all of `{name}` is written");
            let fault = Fault::Work { what, limit: cover::WORK };
            return Err(VerifyError { place: Place::Buffer(id), fault });
        }
        let fault = match role {
            Role::Packed => Fault::Undefined { name },
            Role::Input
            | Role::Gradient
            | Role::Weights
            | Role::Bias
            | Role::Scale
            | Role::Residual
            | Role::Output
            | Role::Scratch
            | Role::Reg => Fault::Incomplete { name },
        };
        Err(VerifyError { place: Place::Buffer(id), fault })
    }
}

/// V11: no statement of the scope reads the buffer before the statements before it wrote all of it
/// that is ever read, which is below `ends`.
fn defined_before_read(ends: &[i64], id: BufferId, scope: &[Stmt], before: &Region) -> bool {
    let mut region = before.clone();
    for stmt in scope {
        if reads(stmt, id) && !region.covers_below(ends) {
            let body: &[Stmt] = match stmt {
                Stmt::Loop(l) => &l.body,
                Stmt::If(_, body) | Stmt::MicroKernel(body) => body,
                Stmt::Declare(_) | Stmt::Let(..) | Stmt::Store(..) => return false,
            };
            if !defined_before_read(ends, id, body, &region) {
                return false;
            }
        }
        region.add_writes(stmt, id);
    }
    true
}

fn reads(stmt: &Stmt, id: BufferId) -> bool {
    let mut found = false;
    visit_accesses(std::slice::from_ref(stmt), &mut |access, stores| {
        found |= access.buffer == id && !stores;
    });
    found
}
