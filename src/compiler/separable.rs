//! Separable convolutions in one kernel: both halves scheduled, then fused, then compiled like any nest.

use convgen_ir::nest::Nest;
use convgen_ir::separable::Separable;
use convgen_ir::verify::{Limits, VerifiedNest};

use super::Compiler;
use crate::algorithm::Algorithm;
use crate::error::Error;
use crate::runtime::separable::SeparableKernel;
use crate::scheduler::separable::{self, SeparablePlan};
use crate::target::Target;
use crate::{fusion, lower};

/// What the names of the depthwise half begin with in the fused nest.
const PREFIX: &str = "dw.";

impl Compiler {
    /// One kernel for both halves: the tensor between them is never in memory as a whole. The bits are
    /// those of the halves' kernels of the sum's default schedules, one after the other.
    ///
    /// # Errors
    /// [`Error::Verify`] if a row of that tensor does not fit the scratch; [`Error::Codegen`] if memory
    /// or code is refused.
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
        let nest = self.lower_separable(separable, plan)?;
        let code = self.code(vec![nest])?;
        Ok(SeparableKernel::new(separable.clone(), plan.clone(), &self.target, code))
    }

    /// The fused nest, scheduled, before lowering.
    ///
    /// # Errors
    /// [`Error::Transform`] or [`Error::Fusion`].
    pub fn schedule_separable(separable: &Separable, plan: &SeparablePlan) -> Result<Nest, Error> {
        let half = |problem, schedule| {
            let mut nests = Compiler::schedule(problem, Algorithm::Direct, schedule)?;
            // A forward problem is one nest.
            Ok::<Nest, Error>(nests.swap_remove(0))
        };
        let depthwise = half(separable.depthwise(), &plan.depthwise)?;
        let pointwise = half(separable.pointwise(), &plan.pointwise)?;
        let mut nest = fusion::fuse(&depthwise, &pointwise, PREFIX)?;
        if plan.fetch {
            fusion::fetch_early(&mut nest);
        }
        Ok(nest)
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
        Compiler::lower_separable_for(&self.target, separable, plan)
    }

    /// As [`Compiler::lower_separable`], of any target.
    pub(crate) fn lower_separable_for(
        target: &Target,
        separable: &Separable,
        plan: &SeparablePlan,
    ) -> Result<VerifiedNest, Error> {
        let nest = Compiler::schedule_separable(separable, plan)?;
        // The code of two kernels may be as long as that of both.
        let limits = target.limits();
        let limits = Limits { unrolled: 2 * limits.unrolled, ..limits };
        Ok(lower::lower(nest, &limits)?)
    }
}
