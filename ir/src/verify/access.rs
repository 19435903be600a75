//! Rules for one access: its dimensions, its role, its bounds.

use super::{Check, Checker, Fault, REACH_LIMIT, VerifyError, cover};
use crate::nest::{Access, Affine, Buffer, BufferId, Dim, Mode, Role, Stripe};
use crate::padding::PaddingMode;
use crate::print;

impl Checker<'_> {
    /// V1, V2, V3, V4, V5 and V9 for one access.
    pub(super) fn access(&self, access: &Access, use_: Use) -> Check {
        let buffer = self.nest.buffer(access.buffer);
        if access.index.len() != buffer.shape.len() {
            return self.fail(Fault::Rank {
                access: self.text(access),
                buffer: buffer.name.clone(),
                given: access.index.len(),
                expected: buffer.shape.len(),
            });
        }
        let reach = self.indices(access, buffer)?;
        if let Some(reason) = self.refusal(access.buffer, use_) {
            let use_ = use_.name();
            return self.fail(Fault::Role { access: self.text(access), use_, reason });
        }
        if buffer.role.is_local() {
            self.local(access)?;
        }
        if use_.needs_offset() {
            self.offset(access, buffer, reach)?;
        }
        let conditions = self.context.conditions().saturating_mul(access.index.len().max(1));
        self.spend(conditions, || format!("showing that `{}` is in bounds", self.text(access)))?;
        for (dim, (index, extent)) in access.index.iter().zip(&buffer.shape).enumerate() {
            let known = use_.may_be_outside() && *extent != Dim::Batch;
            if !known && !self.context.inside(index, *extent) {
                return self.out_of_bounds(access, dim, index, *extent);
            }
        }
        Ok(())
    }

    /// V12: parts of an output are written side by side, by nests that know nothing of each other.
    pub(super) fn on_stripes(&self, access: &Access) -> Check {
        let buffer = self.nest.buffer(access.buffer);
        // Where everything is written, V4 says it all.
        let on = |(dim, index): (usize, &Affine)| match buffer.stripe(dim) {
            Stripe::ALL => true,
            stripe => cover::along(index, stripe)
                .is_some_and(|number| self.context.lower(&number).is_some_and(|first| first >= 0)),
        };
        match access.index.iter().enumerate().all(on) {
            true => Ok(()),
            false => self.fail(Fault::OffStripe { access: self.text(access) }),
        }
    }

    /// V1, V5 and V10 for each index. Returns the reach of the offset that they make, in elements;
    /// none if 128 bits do not hold it.
    fn indices(&self, access: &Access, buffer: &Buffer) -> Result<Option<i128>, VerifyError> {
        let (mut reach, mut stride) = (Some(0_i128), 1_i64);
        for (index, dim) in access.index.iter().zip(&buffer.shape).rev() {
            let index = self.sum(index)?.checked_mul(stride.into());
            reach = reach.zip(index).and_then(|(reach, index)| reach.checked_add(index));
            stride = stride.saturating_mul(dim.fixed().unwrap_or(1));
        }
        Ok(reach)
    }

    /// V10: the offset of an element is computed term by term, in bytes; that of a load that may be
    /// a zero, or of what is fetched, also where its index lies outside. A term of it is at most
    /// the sum of those that the indices have, each times its stride.
    fn offset(&self, access: &Access, buffer: &Buffer, reach: Option<i128>) -> Check {
        let bytes = buffer.elem.bytes() as i128;
        match reach.and_then(|reach| reach.checked_mul(bytes)) {
            Some(given) => self.within(given, REACH_LIMIT, || {
                format!("the largest number in the offset of `{}`, in bytes,", self.text(access))
            }),
            None => self.fail(Fault::Overflow { sum: self.text(access) }),
        }
    }

    fn out_of_bounds(&self, access: &Access, dim: usize, index: &Affine, extent: Dim) -> Check {
        let span = match self.context.interval(index) {
            Some((lo, hi)) => format!("{lo}..={hi}"),
            None => "0..N".to_string(),
        };
        let (access, index) = (self.text(access), print::affine_text(self.nest, index));
        self.fail(Fault::OutOfBounds { access, dim, index, extent, span })
    }

    /// V3: why a buffer may not be used so, if it may not.
    fn refusal(&self, id: BufferId, use_: Use) -> Option<&'static str> {
        let stores = use_ == Use::Store;
        match (self.nest.buffer(id).role, self.in_pack) {
            (Role::Scratch | Role::Reg, _) => (use_.may_be_outside() && self.is_reg(id))
                .then_some("a register tile has no outside"),
            (Role::Weights, true) => stores.then_some("weights are read only"),
            (Role::Packed, true) => (!stores).then_some("packed weights are written only"),
            (_, true) => Some("the pack block sees weights and packed weights only"),
            (Role::Weights, false) if self.packed.is_some() => Some("the body sees packed weights"),
            (Role::Weights | Role::Packed, false) => {
                stores.then_some("the body only reads weights")
            }
            (Role::Output, false) => {
                let reads = !stores && use_ != Use::Fetch;
                reads.then_some("the output is written only")
            }
            (Role::Input | Role::Gradient | Role::Bias | Role::Scale | Role::Residual, false) => {
                stores.then_some("the caller's data is read only")
            }
        }
    }

    fn is_reg(&self, id: BufferId) -> bool {
        self.nest.buffer(id).role == Role::Reg
    }

    /// V1 and V9 for a local buffer.
    fn local(&self, access: &Access) -> Check {
        let Some((_, depth)) = self.scope.buffers.iter().find(|(b, _)| *b == access.buffer) else {
            return self
                .fail(Fault::Unbound { name: self.nest.buffer(access.buffer).name.clone() });
        };
        if !self.is_reg(access.buffer) {
            return Ok(());
        }
        for (i, (axis, mode)) in self.scope.loops.iter().enumerate() {
            let unrolled = i >= *depth && matches!(mode, Mode::Unroll | Mode::Vector);
            if !unrolled && access.index.iter().any(|index| index.mentions(*axis)) {
                let (access, axis) = (self.text(access), self.axis_name(*axis));
                return self.fail(Fault::DynamicRegister { access, axis });
            }
        }
        Ok(())
    }
}

/// How an access uses its element.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Load,
    /// A load that V4 does not ask to be inside: its mode says what is outside.
    Pad(PaddingMode),
    Store,
    /// Not at all: it may be prefetched.
    Fetch,
}

impl Use {
    fn name(self) -> &'static str {
        match self {
            Use::Load | Use::Pad(_) => "read",
            Use::Store => "written",
            Use::Fetch => "fetched",
        }
    }

    /// Whether the offset is made of the index as it stands. The other modes fold it first.
    fn needs_offset(self) -> bool {
        match self {
            Use::Load | Use::Store | Use::Fetch | Use::Pad(PaddingMode::Zeros) => true,
            Use::Pad(PaddingMode::Reflect | PaddingMode::Replicate | PaddingMode::Circular) => {
                false
            }
        }
    }

    /// Whether V4 does not ask for an index inside.
    fn may_be_outside(self) -> bool {
        match self {
            Use::Pad(_) | Use::Fetch => true,
            Use::Load | Use::Store => false,
        }
    }
}
