//! Rules for the table of buffers: how many of each role, their sizes, their stripes.

use super::{Check, Checker, Fault, Place, SIZE_LIMIT, VerifyError};
use crate::nest::{Buffer, Dim, Role, Stripe};

impl Checker<'_> {
    /// V3, V5 and V10 for the table of buffers.
    pub(super) fn buffers(&self) -> Check {
        self.role_counts()?;
        for id in self.nest.buffer_ids() {
            let fail = |fault| Err(VerifyError { place: Place::Buffer(id), fault });
            let buffer = self.nest.buffer(id);
            let mut elements: i128 = 1;
            for (d, dim) in buffer.shape.iter().enumerate() {
                match dim {
                    Dim::Fixed(extent) => {
                        elements = elements.saturating_mul(i128::from(*extent).max(0));
                    }
                    Dim::Batch if d > 0 => {
                        return fail(Fault::Batch { reason: "may only be a leading dimension" });
                    }
                    Dim::Batch => match buffer.role {
                        Role::Input | Role::Gradient | Role::Output | Role::Residual => {}
                        Role::Weights
                        | Role::Bias
                        | Role::Scale
                        | Role::Packed
                        | Role::Scratch
                        | Role::Reg => {
                            return fail(Fault::Batch {
                                reason: "may only be a dimension of activations",
                            });
                        }
                    },
                }
            }
            self.stripes(buffer).or_else(fail)?;
            if !(1..=SIZE_LIMIT).contains(&elements) {
                let what = format!("the number of elements of `{}`", buffer.name);
                return fail(Fault::Size { what, given: elements, low: 1, high: SIZE_LIMIT });
            }
        }
        Ok(())
    }

    /// V12: only of an output may a part be left out, and only by steps along a known extent.
    fn stripes(&self, buffer: &Buffer) -> Result<(), Fault> {
        let name = || buffer.name.clone();
        if buffer.stripes.is_empty() {
            return Ok(());
        }
        if buffer.role != Role::Output || buffer.stripes.len() != buffer.shape.len() {
            let reason = "only an output has stripes, one a dimension";
            return Err(Fault::Stripe { name: name(), reason });
        }
        let legal = |(dim, stripe): (&Dim, &Stripe)| match dim {
            Dim::Batch => *stripe == Stripe::ALL,
            Dim::Fixed(extent) => (0..*extent).contains(&stripe.from) && stripe.by >= 1,
        };
        match buffer.shape.iter().zip(&buffer.stripes).all(legal) {
            true => Ok(()),
            false => {
                let reason = "a stripe begins inside its dimension and steps forward";
                Err(Fault::Stripe { name: name(), reason })
            }
        }
    }

    /// V3: the caller knows which buffer is meant.
    fn role_counts(&self) -> Check {
        for role in Role::ALL {
            let given = self.nest.buffers.iter().filter(|buffer| buffer.role == role).count();
            let (legal, expected) = match role {
                Role::Input | Role::Output => (given == 1, "one"),
                Role::Gradient => (given <= 1, "at most one"),
                Role::Weights
                | Role::Bias
                | Role::Packed
                | Role::Scale
                | Role::Residual
                | Role::Scratch
                | Role::Reg => (true, "any number of"),
            };
            if !legal {
                let fault = Fault::RoleCount { role: role.name(), given, expected };
                return Err(VerifyError { place: Place::Nest, fault });
            }
        }
        Ok(())
    }
}
