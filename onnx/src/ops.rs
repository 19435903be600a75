//! What the operations between convolutions make: shapes, and the elements of small constants.
//!
//! Promises: an operation that is not listed here has outputs whose shape is unknown, with its name
//! as the reason; nothing is guessed. The rules are those of ONNX's operator specifications; what
//! was an attribute in old versions and is an input in new ones is taken from where it is.
//!
//! Does not: compute what no shape depends on. Elements are computed where exporters compute
//! shapes, by the rules of the element type; a result that the type does not hold is unknown.

mod elementwise;
mod generate;
mod index;
mod join;
mod layout;
mod linear;
mod norm;
mod numbers;
mod pick;
mod recurrent;
mod reduce;
mod resample;
mod signal;

use super::conv;
use super::elem::{Elem, F32, INT64, UINT8};
use super::fault::{Stop, Why};
use super::node::{Node, at_least, short};
use super::scalar::Dim;
use super::value::Value;

/// The domain of ONNX Runtime's own operations.
pub(super) const MICROSOFT: &str = "com.microsoft";

/// Whether an operation is of ONNX itself.
pub(super) fn is_standard(domain: &str) -> bool {
    matches!(domain, "" | "ai.onnx")
}

/// The outputs of a node that is no convolution, in order; further ones, which no shape depends
/// on, are left out.
pub(super) fn outputs(node: &Node) -> Result<Vec<Value>, Stop> {
    let values = match node.proto.domain.as_str() {
        domain if is_standard(domain) => standard(node)?,
        MICROSOFT => microsoft(node)?,
        domain => return Err(node.stop(Why::Domain { domain: short(domain) })),
    };
    let elem = node.optional(0).map_or(Elem::Unstated, |value| value.elem);
    Ok(values.into_iter().map(|value| value.typed(elem)).collect())
}

/// Operations of ONNX.
fn standard(node: &Node) -> Result<Vec<Value>, Stop> {
    let one = |value: Result<Value, Stop>| value.map(|value| vec![value]);
    match node.proto.op_type.as_str() {
        "Dropout" => elementwise::dropout(node),
        "LayerNormalization" => norm::layer(node),
        "BatchNormalization" => norm::batch(node),
        op if elementwise::keeps_shape(op) => one(elementwise::unary(node)),
        op if elementwise::is_broadcast(op) => one(elementwise::broadcast_op(node)),
        op if reduce::is_reduction(op) => one(reduce::reduce(node)),
        "Identity" => one(Ok(node.input(0)?.clone())),
        "Cast" | "CastLike" => one(elementwise::cast(node)),
        "MaxPool" => {
            let pooled = conv::pool(node)?;
            Ok(vec![pooled.clone(), pooled.typed(INT64)])
        }
        "AveragePool" | "LpPool" => one(conv::pool(node)),
        "GlobalAveragePool" | "GlobalMaxPool" | "GlobalLpPool" => one(global_pool(node)),
        "MaxUnpool" => one(resample::unpool(node)),
        "Col2Im" => one(resample::col2im(node)),
        "MaxRoiPool" | "RoiAlign" => one(resample::regions(node)),
        "Concat" => one(join::concat(node)),
        "Split" => join::split(node),
        "Pad" => one(resample::pad(node)),
        "Resize" | "Upsample" => one(resample::resize(node)),
        "GridSample" => one(resample::grid_sample(node)),
        "AffineGrid" => one(resample::affine_grid(node)),
        "CenterCropPad" => one(resample::center_crop_pad(node)),
        "Flatten" => one(layout::flatten(node)),
        "Reshape" => one(layout::reshape(node)),
        "Transpose" => one(layout::transpose(node)),
        "Squeeze" => one(layout::squeeze(node)),
        "Unsqueeze" => one(layout::unsqueeze(node)),
        "DepthToSpace" => one(layout::blocks(node, true)),
        "SpaceToDepth" => one(layout::blocks(node, false)),
        "Tile" => one(join::tile(node)),
        "Expand" => one(join::expand(node)),
        "Slice" => one(index::slice(node)),
        "Gather" => one(pick::gather(node)),
        "GatherElements" => one(pick::gather_elements(node)),
        "GatherND" => one(pick::gather_nd(node)),
        "ScatterND" => one(pick::scatter_nd(node)),
        "NonZero" => one(pick::non_zero(node)),
        "NonMaxSuppression" => one(pick::non_max_suppression(node)),
        "Compress" | "Unique" => one(pick::some_elements(node)),
        "OneHot" => one(pick::one_hot(node)),
        "Shape" => one(generate::shape_of(node)),
        "Size" => one(generate::size_of(node)),
        "Constant" => one(generate::constant(node)),
        "ConstantOfShape" => one(generate::constant_of_shape(node)),
        "Range" => one(generate::range(node)),
        "RandomNormal" | "RandomUniform" => one(generate::random(node)),
        "Multinomial" => one(generate::multinomial(node)),
        "ArgMax" | "ArgMin" => one(reduce::arg(node)),
        "TopK" => reduce::top_k(node),
        "Gemm" => one(linear::gemm(node)),
        "MatMul" => one(linear::matmul(node, 0, 1)),
        "MatMulInteger" => one(linear::matmul(node, 0, 1).map(|value| value.typed(INT32))),
        "QLinearMatMul" => one(linear::matmul(node, 0, 3)),
        "Einsum" => one(linear::einsum(node)),
        "Det" => one(linear::determinants(node)),
        "Attention" => one(linear::attention(node)),
        "LSTM" | "GRU" | "RNN" => recurrent::outputs(node),
        "DynamicQuantizeLinear" => quantised_as_it_runs(node),
        "STFT" => one(signal::stft(node)),
        "DFT" => one(signal::dft(node)),
        "HannWindow" | "HammingWindow" | "BlackmanWindow" => one(signal::window(node)),
        "MelWeightMatrix" => one(signal::mel_weights(node)),
        _ => Err(node.stop(Why::Operation)),
    }
}

const INT32: Elem = Elem::Int { bits: 32, signed: true };

/// Operations of ONNX Runtime that its optimizer writes into models.
fn microsoft(node: &Node) -> Result<Vec<Value>, Stop> {
    let one = |value: Result<Value, Stop>| value.map(|value| vec![value]);
    match node.proto.op_type.as_str() {
        "Gelu"
        | "FastGelu"
        | "QuickGelu"
        | "BiasGelu"
        | "QLinearSigmoid"
        | "QLinearLeakyRelu"
        | "QLinearSoftmax"
        | "LayerNormalization"
        | "SkipLayerNormalization"
        | "QuantizeLinear"
        | "DequantizeLinear"
        | "GroupNorm" => one(elementwise::unary(node)),
        "QLinearAdd" | "QLinearMul" => one(elementwise::broadcast_inputs(node, &[0, 3])),
        "FusedGemm" => one(linear::gemm(node)),
        "FusedMatMul" if !node.is_set("transA") && !node.is_set("transB") => {
            one(linear::matmul(node, 0, 1))
        }
        _ => Err(node.stop(Why::Operation)),
    }
}

fn global_pool(node: &Node) -> Result<Value, Stop> {
    let input = node.dims(0)?;
    at_least(input, 2)?;
    let mut shape: Vec<Dim> = input[..2].to_vec();
    shape.resize(input.len(), Ok(1));
    Ok(Value::of(shape)?)
}

/// The values as bytes, their scale and their zero point.
fn quantised_as_it_runs(node: &Node) -> Result<Vec<Value>, Stop> {
    let values = Value::of(node.dims(0)?.to_vec())?.typed(UINT8);
    let (scale, zero) = (Value::of(Vec::new())?.typed(F32), Value::of(Vec::new())?.typed(UINT8));
    Ok(vec![values, scale, zero])
}
