//! The caller's buffers of a dense sum, and the last step of each output.

use convgen_ir::elem::ElemType;
use convgen_ir::epilogue::{ExtraArg, expand};
use convgen_ir::nest::{Access, Affine, Buffer, BufferId, Dim, Expr, Nest, Role, Stmt, Stripe};
use convgen_ir::problem::ConvProblem;

use super::build::{fixed, ordered};
use super::sum::DenseSum;

/// The buffers that the caller gives, declared in the order of a kernel's arguments.
pub(super) struct Tensors<'p> {
    problem: &'p ConvProblem,
    pub(super) input: BufferId,
    /// None if nothing is summed.
    pub(super) weights: Option<BufferId>,
    bias: Option<BufferId>,
    /// One for each epilogue operation that takes one, in order.
    extras: Vec<BufferId>,
    pub(super) output: BufferId,
}

impl<'p> Tensors<'p> {
    /// Declares the buffers of a part of a problem.
    pub(super) fn declare(
        nest: &mut Nest,
        problem: &'p ConvProblem,
        sum: &DenseSum,
    ) -> Tensors<'p> {
        let elem = problem.elem();
        let activations = |channels: u64, sizes: Vec<u64>| {
            let sizes = sizes.into_iter().map(fixed).collect();
            ordered(problem.layout(), Dim::Batch, fixed(channels), sizes)
        };
        let reads = sum.channels.0 * problem.groups();
        let read = activations(reads, sum.axes.iter().map(|s| s.conv.input).collect());
        let input = buffer(nest, Role::Input, "input", elem, read);
        let weights_shape = problem.weights_shape().into_iter().map(fixed).collect();
        let weights =
            (!sum.is_empty()).then(|| buffer(nest, Role::Weights, "weights", elem, weights_shape));
        let channels = vec![fixed(problem.result_channels())];
        let bias = problem.bias().then(|| buffer(nest, Role::Bias, "bias", elem, channels.clone()));
        let written =
            activations(problem.result_channels(), sum.axes.iter().map(|s| s.written).collect());
        let mut extras = Vec::new();
        for kind in problem.epilogue().iter().filter_map(|op| op.takes_extra()) {
            let number = extras.len();
            extras.push(match kind {
                ExtraArg::Residual => {
                    let name = format!("residual{number}");
                    buffer(nest, Role::Residual, &name, elem, written.clone())
                }
                ExtraArg::ChannelScale => {
                    buffer(nest, Role::Scale, &format!("scale{number}"), elem, channels.clone())
                }
            });
        }
        let output = buffer(nest, Role::Output, "output", elem, written);
        nest.buffer_mut(output).stripes = stripes(problem, sum);
        Tensors { problem, input, weights, bias, extras, output }
    }

    /// What a sum starts from, or is added to: the bias of a channel, if there is one.
    pub(super) fn bias(&self, channel: &Affine) -> Option<Expr> {
        self.bias.map(|buffer| Expr::Load(Access { buffer, index: vec![channel.clone()] }))
    }

    /// The epilogue of a sum; `index` is the element of the output.
    pub(super) fn epilogue(
        &self,
        nest: &mut Nest,
        sum: Expr,
        channel: &Affine,
        index: &[Affine],
        out: &mut Vec<Stmt>,
    ) -> Expr {
        let mut extras = self.extras.iter();
        let mut value = sum;
        for op in self.problem.epilogue() {
            let extra = op.takes_extra().and_then(|kind| {
                let index = match kind {
                    ExtraArg::Residual => index.to_vec(),
                    ExtraArg::ChannelScale => vec![channel.clone()],
                };
                extras.next().map(|buffer| Expr::Load(Access { buffer: *buffer, index }))
            });
            value = expand::expand(op, nest, value, extra, out);
        }
        value
    }
}

pub(super) fn buffer(
    nest: &mut Nest,
    role: Role,
    name: &str,
    elem: ElemType,
    shape: Vec<Dim>,
) -> BufferId {
    nest.add_buffer(Buffer::new(name, role, elem, shape))
}

/// What is written of each dimension; nothing said if it is everything.
fn stripes(problem: &ConvProblem, sum: &DenseSum) -> Vec<Stripe> {
    let along: Vec<Stripe> = sum.axes.iter().map(|axis| axis.written_stripe()).collect();
    match along.iter().all(|stripe| *stripe == Stripe::ALL) {
        true => vec![],
        false => ordered(problem.layout(), Stripe::ALL, Stripe::ALL, along),
    }
}
