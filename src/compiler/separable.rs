//! Separable convolutions in one kernel: both halves scheduled, then fused, then compiled like any
//! nest.

use convgen_ir::nest::Nest;
use convgen_ir::separable::Separable;
use convgen_ir::verify::VerifiedNest;

use super::Compiler;
use crate::error::Error;
use crate::runtime::separable::SeparableKernel;
use crate::scheduler::separable::{self, SeparablePlan};
use crate::stages;

impl Compiler {
    /// One kernel for both halves: the tensor between them is never in memory as a whole. The bits
    /// are those of the halves' kernels of the sum's default schedules, one after the other.
    ///
    /// # Errors
    /// [`Error::Verify`] if a row of that tensor does not fit the scratch; [`Error::Codegen`] if
    /// memory or code is refused.
    pub fn compile_separable(&self, separable: &Separable) -> Result<SeparableKernel, Error> {
        separable::first_legal(separable, &self.target, |plan, nest| {
            let code = self.code(vec![nest])?;
            Ok(SeparableKernel::new(separable.clone(), plan, &self.target, code))
        })
    }

    /// As [`Compiler::compile_separable`], by a given plan.
    ///
    /// # Errors
    /// The stage that refuses, with its reason.
    pub fn compile_separable_with(
        &self,
        separable: &Separable,
        plan: &SeparablePlan,
    ) -> Result<SeparableKernel, Error> {
        let nest = stages::lower_separable_for(&self.target, separable, plan)?;
        let code = self.code(vec![nest])?;
        Ok(SeparableKernel::new(separable.clone(), plan.clone(), &self.target, code))
    }

    /// The fused nest, scheduled, before lowering.
    ///
    /// # Errors
    /// [`Error::Transform`] or [`Error::Fusion`].
    pub fn schedule_separable(separable: &Separable, plan: &SeparablePlan) -> Result<Nest, Error> {
        stages::schedule_separable(separable, plan)
    }

    /// The fused nest, verified.
    ///
    /// # Errors
    /// As [`Compiler::schedule_separable`], or [`Error::Verify`].
    pub fn lower_separable(
        &self,
        separable: &Separable,
        plan: &SeparablePlan,
    ) -> Result<VerifiedNest, Error> {
        Ok(stages::lower_separable_for(&self.target, separable, plan)?.into_nest())
    }
}
