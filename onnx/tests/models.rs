//! ONNX models: which convolutions they have, and which sizes they leave open.
//!
//! The models are made by `make.py` beside this file.

mod common;

use std::path::PathBuf;

use common::{lines, model, options};
use convgen_ir::problem::parse_list;
use convgen_onnx::{self as onnx, OnnxError, Options};

#[test]
fn resnet50_has_the_layers_of_the_list_built_in() {
    let layers = onnx::read(model("resnet50"), &Options::default()).unwrap();
    assert_eq!(layers.iter().map(|layer| layer.count).sum::<usize>(), 53);
    let plain = |text: String| text.replace(" nchw ", " nhwc ").replace(" bias", "");
    let without_epilogue = |text: String| text.split(" | ").next().unwrap_or_default().to_owned();
    let mut found: Vec<String> =
        layers.into_iter().map(|layer| plain(layer.problem.unwrap().to_string())).collect();
    let mut listed: Vec<String> = parse_list(include_str!("../../cli/suites/resnet50.txt"))
        .into_iter()
        .map(|(_, descriptor)| descriptor.unwrap())
        .map(|descriptor| plain(without_epilogue(descriptor.problem.to_string())))
        .collect();
    found.sort();
    listed.sort();
    assert_eq!(found, listed);
    assert!(found.len() >= 20);
}

#[test]
fn a_batch_that_is_left_open_is_one_or_what_is_given() {
    for (batch, expected) in [(None, 1), (Some(8), 8)] {
        let layers = onnx::read(model("resnet50"), &options(batch, &[])).unwrap();
        assert!(layers.iter().all(|layer| layer.problem.as_ref().unwrap().batch() == expected));
    }
    let by_name = onnx::read(model("resnet50"), &options(None, &[("N", 3)])).unwrap();
    assert_eq!(by_name[0].problem.as_ref().unwrap().batch(), 3);
}

#[test]
fn other_sizes_that_are_left_open_are_asked_for_by_name() {
    let error = onnx::read(model("dynamic"), &Options::default()).unwrap_err();
    let open = |node: &str, name: &str, place: &str| OnnxError::Dimension {
        node: node.into(),
        name: name.into(),
        place: place.into(),
    };
    assert_eq!(error, open("first", "height", "image.2"));
    let error = onnx::read(model("dynamic"), &options(None, &[("height", 31)])).unwrap_err();
    assert_eq!(error, open("first", "width", "image.3"));
    let given = options(Some(2), &[("height", 31), ("width", 20)]);
    assert_eq!(
        lines(&onnx::read(model("dynamic"), &given).unwrap()),
        [
            "1 first: conv2d f32 nchw n2 ic3 oc8 ih31 iw20 kh3 kw3 ph1 pw1 bias",
            "1 second: conv2d f32 nchw n2 ic8 oc16 ih16 iw10 kh3 kw3 sh2 sw2 ph0:1 pw0:1",
            "1 third: conv1d f32 nchw n2 ic16 oc4 iw40 kw5 pw2",
        ]
    );
}

/// The sizes are those of the comments in `make.py`, by onnx's own shape inference.
#[test]
fn shapes_go_through_the_operations_between() {
    let layers = onnx::read(model("ops"), &Options::default()).unwrap();
    assert_eq!(
        lines(&layers),
        [
            "1 padded: conv2d f32 nchw n1 g2 ic4 oc8 ih22 iw28 kh3 kw3 dh2",
            "1 depthwise: conv2d f32 nchw n1 g8 ic8 oc8 ih36 iw13 kh3 kw3 ph0:1 pw1 bias",
            "1 pointwise: conv2d f32 nchw n1 ic16 oc4 ih7 iw5 kh1 kw1",
            "1 up: deconv2d f32 nchw n1 ic4 oc6 ih7 iw5 oh15 kh2 kw2 sh2 sw2",
            "1 turned: conv2d f32 nchw n1 ic6 oc6 ih8 iw14 kh3 kw3",
            "1 blocks: conv2d f32 nchw n1 ic24 oc24 ih3 iw6 kh1 kw1",
            "1 half: (its weights are 16-bit floats, only 32-bit floats are computed)",
            "1 unknown: (its shape depends on the NonZero `places`, which has a shape that depends on the \
             values it reads; a model simplified with fixed dimensions may state it)",
            "1 stated: conv1d f32 nchw n1 ic6 oc5 iw3 kw3",
        ]
    );
}

#[test]
fn sizes_of_one_name_are_given_apart_by_their_places() {
    let all = |dims: &[(&str, u64)]| onnx::read_nodes(model("names"), &options(None, dims));
    let widths = |dims: &[(&str, u64)]| {
        let of = |node: onnx::Layer| node.problem.unwrap().input_shape(1)[2];
        all(dims).unwrap().into_iter().map(of).collect::<Vec<u64>>()
    };
    let named = [("?", 5), ("length", 6), ("plain.2", 7)];
    assert_eq!(widths(&named), [5, 5, 6, 6, 7]);
    let apart = [("left.2", 1), ("right.2", 2), ("wide.2", 3), ("length", 4), ("plain.2", 5)];
    assert_eq!(widths(&apart), [1, 2, 3, 4, 5]);
    // What is asked for is named so that it can be given: `?` tells nothing apart.
    let error = all(&[]).unwrap_err();
    assert!(matches!(&error, OnnxError::Dimension { name, .. } if name == "left.2"), "{error}");
    let error = all(&[("?", 5)]).unwrap_err();
    let is_length = |name: &str, place: &str| name == "length" && place == "wide.2";
    assert!(
        matches!(&error, OnnxError::Dimension { name, place, .. } if is_length(name, place)),
        "{error}"
    );
}

#[test]
fn a_size_that_is_not_open_is_refused_with_those_that_are() {
    let given = options(None, &[("height", 31), ("width", 20), ("depth", 3)]);
    let error = onnx::read(model("dynamic"), &given).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the model leaves no size `depth` open, but `batch`, `height`, `image.0`, `image.2`, \
         `image.3`, `width`"
    );
    // The model states the number of channels.
    let given = options(None, &[("image.1", 3)]);
    let error = onnx::read(model("dynamic"), &given).unwrap_err();
    assert!(matches!(error, OnnxError::NoDimension { .. }), "{error}");
    let error = onnx::read(model("ops"), &given).unwrap_err();
    assert_eq!(error.to_string(), "the model leaves no size `image.1` open, but none at all");
}

/// Where pip put the models that the package `onnx` comes with, by `CONVGEN_TEST_ONNX`.
#[test]
#[ignore = "needs python's onnx: CONVGEN_TEST_ONNX=.../site-packages/onnx/backend/test/data/light"]
fn the_models_of_the_onnx_package_are_read() {
    let folder =
        PathBuf::from(std::env::var_os("CONVGEN_TEST_ONNX").expect("the folder of models"));
    // The nodes that onnx itself counts.
    let known = [
        ("light_bvlc_alexnet", 5),
        ("light_densenet121", 121),
        ("light_inception_v1", 57),
        ("light_inception_v2", 69),
        ("light_resnet50", 53),
        ("light_shufflenet", 49),
        ("light_squeezenet", 26),
        ("light_vgg19", 16),
        ("light_zfnet512", 5),
    ];
    for (name, expected) in known {
        let file = std::fs::read(folder.join(format!("{name}.onnx"))).unwrap();
        let layers = onnx::read(file, &Options::default()).unwrap();
        assert!(layers.iter().all(|layer| layer.problem.is_ok()), "{name}: {:#?}", lines(&layers));
        let all: usize = layers.iter().map(|layer| layer.count).sum();
        assert_eq!(all, expected, "{name}: {:#?}", lines(&layers));
    }
}

/// What is written has the sizes of onnx's own shape inference; but for `wide`, whose windows do
/// not meet: there it infers 27x19, while its specification says input times stride.
#[test]
fn transposed_convolutions_write_the_sizes_that_onnx_says() {
    let layers = onnx::read(model("transposed"), &Options::default()).unwrap();
    let written: Vec<(&str, Vec<u64>)> = layers
        .iter()
        .map(|layer| (layer.name.as_str(), layer.problem.as_ref().unwrap().output_shape(1)))
        .collect();
    let expected = [
        ("plain", [1, 6, 9, 7]),
        ("pads", [1, 6, 14, 9]),
        ("groups", [1, 6, 11, 7]),
        ("upper", [1, 6, 14, 10]),
        ("lower", [1, 6, 14, 10]),
        ("wide", [1, 6, 28, 20]),
        ("stated", [1, 6, 14, 16]),
    ];
    assert_eq!(written, expected.map(|(name, shape)| (name, shape.to_vec())));
    assert_eq!(lines(&layers)[0], "1 plain: deconv2d f32 nchw n1 ic4 oc6 ih7 iw5 kh3 kw3 bias");
}
