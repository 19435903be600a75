//! Layers against the laws that define them: adjoint identities, finite differences, and formulas.
//!
//! A layer that is linear in `x` and in `w` has `<f(x), dy> = <x, dx>` and `= <w, dw>`; on small
//! integers every sum is exact, and so is the comparison. The arithmetic is that of the sum:
//! strict.

use convgen::ir::{ConvSpec, SpatialAxis};
use convgen::{Accuracy, Compiler, Host, Isa};
use convgen_nn::{
    AvgPool2d, Conv2d, ConvTranspose2d, CrossEntropy, Flatten, Generator, Gradients, Layer, Linear,
    Loss, MaxPool2d, Network, NetworkError, Pass, Relu, SquaredError, accuracy,
};

fn compilers() -> impl Iterator<Item = Compiler> {
    let strict =
        |isa| Some(Compiler::new(&Host::detect(), isa).ok()?.with_accuracy(Accuracy::Strict));
    Isa::ALL.into_iter().filter_map(strict)
}

fn widest() -> Compiler {
    let host = Host::detect();
    let compiler = Compiler::new(&host, host.widest_isa()).expect("the host has it");
    compiler.with_accuracy(Accuracy::Strict)
}

/// Integers from -3 to 3.
fn integers(len: usize, draw: &mut Generator) -> Vec<f32> {
    (0..len).map(|_| draw.below(7) as f32 - 3.0).collect()
}

/// Reals from -1 to 1.
fn reals(len: usize, draw: &mut Generator) -> Vec<f32> {
    (0..len).map(|_| 2.0 * draw.unit() - 1.0).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

fn forward(layer: &dyn Layer, x: &[f32]) -> Vec<f32> {
    let mut y = vec![f32::NAN; x.len() / layer.input_len() * layer.output_len()];
    layer.forward(x, &mut y).expect("fits");
    y
}

/// The gradients of input and parameters.
fn backward(layer: &dyn Layer, x: &[f32], dy: &[f32]) -> (Vec<f32>, Vec<Vec<f32>>) {
    let y = forward(layer, x);
    let mut dx = vec![f32::NAN; x.len()];
    let parameters = layer.parameters().iter();
    let mut gradients: Vec<Vec<f32>> =
        parameters.map(|parameter| vec![f32::NAN; parameter.values.len()]).collect();
    let pass = Pass { input: x, output: &y, gradient: dy };
    layer.backward(&pass, Some(&mut dx), &mut gradients).expect("fits");
    (dx, gradients)
}

/// Sets the parameters to integers and compares both sides of each identity. The bias is constant
/// in `x`, so it is left out by setting it to zero.
fn adjoint_identities(layer: &mut dyn Layer, images: usize, name: &str) {
    let mut draw = Generator::new(7);
    let x = integers(images * layer.input_len(), &mut draw);
    let dy = integers(images * layer.output_len(), &mut draw);
    let mut set = |number: usize, values: &mut [f32]| match number {
        0 => values.copy_from_slice(&integers(values.len(), &mut draw)),
        _ => values.fill(0.0),
    };
    layer.update(&mut set).expect("fits");
    let paired = dot(&forward(layer, &x), &dy);
    let (dx, gradients) = backward(layer, &x, &dy);
    assert_eq!(dot(&x, &dx), paired, "{name}: the gradient of the input");
    let Some(weight) = layer.parameters().first() else { return };
    assert_eq!(dot(&weight.values, &gradients[0]), paired, "{name}: the gradient of the weights");
    // The bias adds 1 to one channel of each output, so its gradient is what that adds to the
    // pairing.
    for channel in 0..gradients.get(1).map_or(0, Vec::len) {
        let mut one = |number: usize, values: &mut [f32]| {
            if number == 1 {
                values.fill(0.0);
                values[channel] = 1.0;
            }
        };
        layer.update(&mut one).expect("fits");
        let more = dot(&forward(layer, &x), &dy) - paired;
        assert_eq!(f64::from(gradients[1][channel]), more, "{name}: the bias of {channel}");
    }
}

#[test]
fn linear_layers_have_their_adjoints() {
    for compiler in compilers() {
        let isa = compiler.target().isa();
        let draw = &mut Generator::new(3);
        let specs = [
            ConvSpec::conv2d(3, 5, 9, 8, 3, 2).bias(true),
            ConvSpec::conv2d(4, 6, 11, 10, 3, 3).groups(2).stride(&[2]).padding(&[1]).bias(true),
            ConvSpec::conv2d(2, 3, 9, 9, 3, 3).dilation(&[2]),
            ConvSpec::conv1d(5, 4, 12, 3).bias(true),
        ];
        for spec in specs {
            let mut layer = Conv2d::new(&compiler, spec.clone(), draw).expect("compiles");
            adjoint_identities(&mut layer, 3, &format!("{isa}: {spec:?}"));
        }
        let axis = SpatialAxis { stride: 2, pad_before: 1, pad_after: 1, ..SpatialAxis::new(5, 4) };
        let spec = ConvSpec::transposed(6, 3, vec![axis; 2], &[1]).bias(true);
        let mut layer = ConvTranspose2d::new(&compiler, spec, draw).expect("compiles");
        adjoint_identities(&mut layer, 3, &format!("{isa}: transposed"));
        let mut layer = Linear::new(&compiler, 13, 7, draw).expect("compiles");
        adjoint_identities(&mut layer, 37, &format!("{isa}: linear"));
        let mut layer = AvgPool2d::new(&compiler, [7, 9, 3], 2, 1).expect("compiles");
        adjoint_identities(&mut layer, 2, &format!("{isa}: mean"));
        adjoint_identities(&mut Flatten::new([3, 4, 5]), 2, &format!("{isa}: flatten"));
    }
}

/// A fully connected layer by its definition; rows of images and single ones have the same bits.
#[test]
fn a_fully_connected_layer_is_a_matrix() {
    let draw = &mut Generator::new(5);
    let mut layer = Linear::new(&widest(), 20, 9, draw).expect("compiles");
    layer.update(&mut |_, values| values.copy_from_slice(&integers(values.len(), draw))).unwrap();
    let x = integers(35 * 20, draw);
    let y = forward(&layer, &x);
    let [weight, bias] = layer.parameters() else { panic!("weights and a bias") };
    for (x, y) in x.chunks(20).zip(y.chunks(9)) {
        let row = |o: usize| bias.values[o] + dot(&weight.values[o * 20..][..20], x) as f32;
        assert_eq!(y, (0..9).map(row).collect::<Vec<_>>());
    }
    let x = reals(35 * 20, draw);
    let together = forward(&layer, &x);
    let alone: Vec<f32> = x.chunks(20).flat_map(|x| forward(&layer, x)).collect();
    assert_eq!(together, alone);
}

/// Three by three, and the windows of two by two in it: all four share the middle.
#[test]
fn the_first_of_equal_maxima_gets_the_gradient() {
    let layer = MaxPool2d::new(&widest(), [3, 3, 1], 2, 1).expect("compiles");
    let x = [
        1.0, 2.0, 2.0, //
        2.0, 2.0, 0.0, //
        2.0, 2.0, 2.0,
    ];
    assert_eq!(forward(&layer, &x), [2.0; 4]);
    let (dx, _) = backward(&layer, &x, &[1.0, 10.0, 100.0, 1000.0]);
    let expected = [
        0.0, 11.0, 0.0, //
        100.0, 1000.0, 0.0, //
        0.0, 0.0, 0.0,
    ];
    assert_eq!(dx, expected);
}

#[test]
fn a_nan_is_the_largest() {
    let layer = MaxPool2d::new(&widest(), [2, 4, 1], 2, 2).expect("compiles");
    let x = [1.0, f32::NAN, 5.0, 6.0, 3.0, 4.0, f32::INFINITY, 8.0];
    let y = forward(&layer, &x);
    assert!(y[0].is_nan());
    assert_eq!(y[1], f32::INFINITY);
    let (dx, _) = backward(&layer, &x, &[1.0, 2.0]);
    assert_eq!(dx, [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0, 0.0]);
}

/// Pictures of 8 by 7 with two channels, through every kind of layer, to three numbers.
fn small_network(draw: &mut Generator) -> Network {
    let compiler = widest();
    let mut network = Network::new();
    let conv = ConvSpec::conv2d(2, 4, 8, 7, 3, 3).padding(&[1]).bias(true);
    let axis = SpatialAxis { stride: 2, ..SpatialAxis::new(3, 2) };
    let up = ConvSpec::transposed(4, 3, vec![SpatialAxis { input: 4, ..axis }, axis], &[0]);
    let build = |network: &mut Network| -> Result<(), NetworkError> {
        network
            .add("conv", Conv2d::new(&compiler, conv, draw)?)?
            .add("max", MaxPool2d::new(&compiler, [8, 7, 4], 2, 2)?)?
            .add("relu", Relu::new(4 * 3 * 4))?
            .add("up", ConvTranspose2d::new(&compiler, up.bias(true), draw)?)?
            .add("mean", AvgPool2d::new(&compiler, [8, 6, 3], 3, 2)?)?
            .add("flatten", Flatten::new([3, 2, 3]))?
            .add("hidden", Linear::new(&compiler, 18, 6, draw)?)?
            .add("relu2", Relu::new(6))?
            .add("out", Linear::new(&compiler, 6, 3, draw)?)?;
        Ok(())
    };
    build(&mut network).expect("compiles");
    network
}

/// Which elements the layers without parameters let through: where the kinks of the loss are.
fn pattern(network: &Network, images: &[f32]) -> Vec<Vec<f32>> {
    let mut patterns = vec![];
    let mut x = images.to_vec();
    for (_, layer) in network.layers() {
        let y = forward(layer, &x);
        if layer.parameters().is_empty() {
            patterns.push(backward(layer, &x, &vec![1.0; y.len()]).0);
        }
        x = y;
    }
    patterns
}

/// Where layers let the same elements through at both ends, no kink lies between: what they compare
/// is linear in a single weight. The outputs are then linear in it and the loss quadratic, so that
/// a central difference is exact but for rounding: of some `2^-20` of the loss, divided by the
/// distance.
#[test]
fn gradients_are_finite_differences() {
    const STEP: f32 = 1.0 / 256.0;
    let draw = &mut Generator::new(11);
    let mut network = small_network(draw);
    let images = reals(2 * 2 * 8 * 7, draw);
    let targets = reals(2 * 3, draw);
    let loss = SquaredError::new(&targets, 3).expect("fits");
    let exact = network.gradients(&images, &loss).expect("fits");
    let allowed = exact.loss * f64::from(f32::EPSILON) * 8.0 / f64::from(STEP);
    let parameters: Vec<(String, Vec<f32>)> =
        network.parameters().map(|(name, p)| (name, p.values.clone())).collect();
    assert_eq!(parameters.len(), 8);
    for ((name, values), gradient) in parameters.iter().zip(exact.layers.iter().flatten()) {
        assert_eq!(values.len(), gradient.len());
        let mut smooth = 0;
        for (i, given) in gradient.iter().enumerate() {
            let mut at = |offset: f32| {
                let mut moved = values.clone();
                moved[i] += offset;
                network.set_parameter(name, &moved).expect("fits");
                let loss = network.gradients(&images, &loss).expect("fits").loss;
                (loss, pattern(&network, &images))
            };
            let (low, high) = (at(-STEP), at(STEP));
            if low.1 == high.1 {
                smooth += 1;
                let difference = (high.0 - low.0) / (2.0 * f64::from(STEP));
                let error = (f64::from(*given) - difference).abs();
                assert!(error <= allowed, "{name}[{i}]: {given}, by difference {difference}");
            }
        }
        assert!(2 * smooth > values.len(), "{name}: {smooth} of {}", values.len());
        network.set_parameter(name, values).expect("fits");
    }
}

/// The formula in double precision, and its derivative.
#[test]
fn cross_entropy_is_its_formula() {
    let draw = &mut Generator::new(2);
    let outputs: Vec<f32> = reals(4 * 5, draw).iter().map(|y| 30.0 * y).collect();
    let labels = [0, 3, 4, 1];
    let loss = CrossEntropy::new(&labels, 5).expect("legal");
    let mut gradient = vec![f32::NAN; outputs.len()];
    let value = loss.add(0..4, &outputs, &mut gradient).expect("fits");
    let mut expected = 0.0;
    for (i, (y, label)) in outputs.chunks(5).zip(labels).enumerate() {
        let sum: f64 = y.iter().map(|y| f64::from(*y).exp()).sum();
        let chance = |class: usize| f64::from(y[class]).exp() / sum;
        expected -= chance(usize::from(label)).ln() / 4.0;
        for class in 0..5 {
            let slope = (chance(class) - f64::from(u8::from(class == usize::from(label)))) / 4.0;
            let error = (f64::from(gradient[i * 5 + class]) - slope).abs();
            assert!(error < 1e-6, "image {i}, class {class}: off by {error}");
        }
    }
    assert!((value - expected).abs() < 1e-5, "{value}, by the formula {expected}");
}

fn in_pool(threads: usize, f: impl FnOnce() -> Gradients + Send) -> Gradients {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool").install(f)
}

#[test]
fn threads_change_no_bit() {
    let draw = &mut Generator::new(4);
    let network = small_network(draw);
    let images = reals(70 * 2 * 8 * 7, draw);
    let labels: Vec<u8> = (0..70).map(|i| i % 3).collect();
    let loss = CrossEntropy::new(&labels, 3).expect("legal");
    let one = in_pool(1, || network.gradients(&images, &loss).expect("fits"));
    let three = in_pool(3, || network.gradients(&images, &loss).expect("fits"));
    assert_eq!(one, three);
    let outputs = network.forward(&images).expect("fits");
    assert_eq!(outputs.len(), 70 * 3);
    assert!((0.0..=1.0).contains(&accuracy(&outputs, &labels)));
    let none = network.gradients(&[], &CrossEntropy::new(&[], 3).expect("legal")).expect("fits");
    assert!(none.layers.iter().flatten().flatten().all(|value| *value == 0.0));
}

#[test]
fn what_does_not_fit_is_refused() {
    let compiler = widest();
    let draw = &mut Generator::new(1);
    let refused = |result: Result<(), NetworkError>| result.expect_err("refused").to_string();
    let spec = ConvSpec::conv2d(1, 1, 4, 4, 3, 3);
    let relu = spec.clone().epilogue([convgen::ir::EpilogueOp::Relu]);
    assert_eq!(
        refused(Conv2d::new(&compiler, relu, draw).map(drop)),
        "a layer is a forward convolution without an epilogue, this one has `relu`"
    );
    let mirrored = spec.clone().padding(&[1]).padding_mode(convgen::ir::PaddingMode::Reflect);
    let reason = refused(Conv2d::new(&compiler, mirrored, draw).map(drop));
    assert!(
        reason.starts_with("bwd_d has zero padding only: several positions of reflect"),
        "{reason}"
    );
    assert_eq!(
        refused(ConvTranspose2d::new(&compiler, spec, draw).map(drop)),
        "a layer is a forward convolution without an epilogue, this one has the direction `fwd`"
    );
    assert_eq!(
        refused(MaxPool2d::new(&compiler, [3, 9, 1], 4, 2).map(drop)),
        "windows of 4 at a stride of 2 do not fit 3 rows of 9 columns"
    );
    let mut network = Network::new();
    assert_eq!(refused(network.forward(&[]).map(drop)), "the network has no layers");
    network.add("a", Linear::new(&compiler, 2, 3, draw).expect("compiles")).expect("fits");
    let second = Linear::new(&compiler, 4, 1, draw).expect("compiles");
    assert_eq!(
        refused(network.add("b", second).map(drop)),
        "layer `b` reads 4 elements, the one before it writes 3"
    );
    assert_eq!(
        refused(network.set_parameter("a.scale", &[])),
        "the network has no parameter `a.scale`"
    );
    assert_eq!(
        refused(network.set_parameter("a.bias", &[0.0])),
        "parameter has 1 elements, 3 are needed"
    );
    assert_eq!(
        refused(CrossEntropy::new(&[0, 3], 3).map(drop)),
        "label 3 of image 1 is none of 3 classes"
    );
    let loss = CrossEntropy::new(&[0], 3).expect("legal");
    assert_eq!(
        refused(network.gradients(&[0.0; 4], &loss).map(drop)),
        "the list of targets has 1 elements, 2 are needed"
    );
    assert_eq!(
        refused(network.forward(&[0.0; 3]).map(drop)),
        "the input has 3 elements, which is no multiple of the 2 of one image"
    );
}
