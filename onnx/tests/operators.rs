//! What the reader knows behind each operation: shapes, and the elements of small constants.

mod common;

use common::{model, node_lines};
use convgen_onnx::{Options, read_nodes};

/// The cases are ONNX's own, chosen by `op_shapes.py`. The name of each convolution ends with the
/// sizes or elements that it stands behind, and it is as wide plus one.
#[test]
fn operations_have_the_sizes_and_elements_of_onnx_s_own_cases() {
    let nodes = read_nodes(model("cases"), &Options::default()).unwrap();
    let mut checked = 0;
    for node in nodes {
        let Some((_, numbers)) = node.name.rsplit_once(": ") else { continue };
        let expected: Vec<u64> =
            numbers.split(' ').map(|number| number.parse::<u64>().unwrap() + 1).collect();
        let problem = node.problem.unwrap_or_else(|reason| panic!("{}: {reason}", node.name));
        assert_eq!(problem.input_shape(1)[2..], expected, "{}", node.name);
        checked += 1;
    }
    assert!(checked > 300, "{checked}");
}

#[test]
fn the_padding_that_pytorch_computes_is_a_constant() {
    let padded = "padded: conv1d n1 ic1 oc1 iw35 kw3";
    assert_eq!(node_lines("padding", &Options::default()), [padded]);
}

#[test]
fn what_is_known_of_a_shape_stays_known_where_a_size_is_not() {
    let open = "(its shape depends on the NonZero `places`, which has a shape that depends on the \
                values it reads; a model simplified with fixed dimensions may state it)";
    let expected = [
        "computed: conv1d n1 ic8 oc8 iw256 kw1",
        &format!("open: {open}"),
        "pooled: conv1d n1 ic4 oc4 iw1 kw1",
        "broadcast: conv1d n1 ic4 oc4 iw7 kw1",
        "sliced: conv1d n1 ic4 oc4 iw64 kw1",
        "chosen: conv1d n1 ic4 oc4 iw9 kw1",
        "resized: conv2d n1 ic8 oc8 ih16 iw7 kh1 kw1",
    ];
    assert_eq!(node_lines("partial", &Options::default()), expected);
}

#[test]
fn relatives_of_the_convolution_have_shapes_and_reasons() {
    let no = |op: &str| format!("(`{op}` is not computed, only convolutions of 32-bit floats are)");
    let odd = "(its shape depends on the Odd `odd`, which is of `somebody.else`, not of ONNX's own \
               operations; a model simplified with fixed dimensions may state it)";
    let expected = [
        "dequantised: conv2d n1 ic4 oc4 ih8 iw8 kh1 kw1",
        "dequantised_weights: conv2d n1 ic4 oc6 ih8 iw8 kh3 kw3",
        "bytes: (its weights are unsigned 8-bit integers, only 32-bit floats are computed)",
        &format!("integers: {}", no("ConvInteger")),
        "after_integers: conv2d n1 ic6 oc4 ih6 iw6 kh1 kw1",
        &format!("quantised: {}", no("QLinearConv")),
        "after_quantised: conv2d n1 ic5 oc4 ih4 iw4 kh1 kw1",
        "fused: conv2d n1 ic4 oc6 ih8 iw8 kh3 kw3 ph1 pw1 bias",
        &format!("others: {}", no("somebody.else.Conv")),
        &format!("after_odd: {odd}"),
        "call: (it stands inside of the Twice `call`, which is not looked into)",
        "last: conv2d n1 ic4 oc4 ih8 iw8 kh1 kw1",
    ];
    assert_eq!(node_lines("relatives", &Options::default()), expected);
}

#[test]
fn a_branch_is_part_of_the_graph_if_it_may_be_taken() {
    let cannot = "(its shape depends on the If `either`, which has a branch that contradicts \
                  itself: node `wrong_Reshape0`, `Reshape`: a shape of [7, 7] for the elements of \
                  [1, 4, 8, 8]; a model simplified with fixed dimensions may state it)";
    let differ = "(its shape depends on the If `v14_0`, which has branches with outputs of \
                  different shapes; a model simplified with fixed dimensions may state it)";
    let loops = "(its shape depends on the Loop `loop`, which holds a graph that is not looked \
                 into; a model simplified with fixed dimensions may state it)";
    let expected = [
        "taken_Conv0: conv2d n1 ic4 oc4 ih8 iw8 kh1 kw1",
        "after_taken: conv2d n1 ic4 oc4 ih4 iw4 kh1 kw1",
        "yes_Conv0: conv2d n1 ic4 oc4 ih8 iw8 kh1 kw1",
        "no_Conv0: conv2d n1 ic4 oc4 ih8 iw8 kh1 kw1 sh2 sw2",
        "agreed: conv2d n1 ic4 oc4 ih4 iw4 kh1 kw1",
        &format!("differing: {differ}"),
        "pooled: conv2d n1 ic4 oc4 ih1 iw1 kh1 kw1",
        &format!("wrong_Conv1: {cannot}"),
        "right_Conv0: conv2d n1 ic4 oc4 ih8 iw8 kh1 kw1",
        "unsure: conv2d n1 ic4 oc4 ih8 iw8 kh1 kw1",
        "looped: (it stands inside of the Loop `loop`, which is not looked into)",
        &format!("after_loop: {loops}"),
    ];
    assert_eq!(node_lines("branches", &Options::default()), expected);
}
