//! `convgen run`.

use ndarray::{Array, ArrayD, Dimension, ShapeBuilder};
use ndarray_npy::{read_npy, write_npy};

use super::*;

/// Two channels in, one out: the sum of neighbours of the first, minus the second.
const SMALL: &str = "conv1d nchw ic2 oc1 iw3 kw2 bias";

fn save<D: Dimension>(folder: &Folder, name: &str, array: &Array<f32, D>) -> String {
    write_npy(folder.path(name), array).unwrap();
    folder.text(name)
}

fn small(folder: &Folder) -> [String; 4] {
    let input = vec![1.0, 2.0, 3.0, 10.0, 20.0, 30.0, 4.0, 5.0, 6.0, 40.0, 50.0, 60.0];
    let input = Array::from_shape_vec((2, 2, 3), input).unwrap();
    let weights = Array::from_shape_vec((1, 2, 2), vec![1.0, 1.0, -1.0, 0.0]).unwrap();
    let bias = Array::from_vec(vec![0.5]);
    [
        save(folder, "x.npy", &input),
        save(folder, "w.npy", &weights),
        save(folder, "b.npy", &bias),
        folder.text("y.npy"),
    ]
}

fn arguments<'a>(problem: &'a str, files: &'a [String; 4]) -> Vec<&'a str> {
    let [x, w, b, y] = files.each_ref().map(String::as_str);
    vec!["run", "--problem", problem, "--input", x, "--weights", w, "--bias", b, "--output", y]
}

#[test]
fn two_images_come_out_as_computed_by_hand() {
    let folder = Folder::new();
    let files = small(&folder);
    convgen(&arguments(SMALL, &files)).success().stdout(contains("y.npy: f32 [2, 1, 2]"));
    let output: ArrayD<f32> = read_npy(folder.path("y.npy")).unwrap();
    assert_eq!(output.shape(), [2, 1, 2]);
    assert_eq!(output.iter().copied().collect::<Vec<_>>(), [-6.5, -14.5, -30.5, -38.5]);
}

#[test]
fn padding_made_of_the_input_comes_out_as_computed_by_hand() {
    let folder = Folder::new();
    let files = small(&folder);
    for (mode, [first, second]) in
        [("circular", [-25.5, -49.5]), ("reflect", [-24.5, -48.5]), ("replicate", [-23.5, -47.5])]
    {
        let problem = format!("{SMALL} pw0:1 {mode}");
        convgen(&arguments(&problem, &files)).success();
        let output: ArrayD<f32> = read_npy(folder.path("y.npy")).unwrap();
        let expected = [-6.5, -14.5, first, -30.5, -38.5, second];
        assert_eq!(output.iter().copied().collect::<Vec<_>>(), expected, "{mode}");
    }
}

#[test]
fn column_major_input_and_extras_are_taken() {
    let folder = Folder::new();
    let mut files = small(&folder);
    let rows: ArrayD<f32> = read_npy(folder.path("x.npy")).unwrap();
    let mut columns = ArrayD::zeros(rows.raw_dim().f());
    columns.assign(&rows);
    write_npy(folder.path("f.npy"), &columns).unwrap();
    files[0] = folder.text("f.npy");
    let residual = save(&folder, "r.npy", &Array::from_elem((2, 1, 2), 20.0));
    let scale = save(&folder, "s.npy", &Array::from_vec(vec![2.0]));
    let problem = format!("{SMALL} | add | relu | scale");
    let mut given = arguments(&problem, &files);
    given.extend(["--extra", &residual, "--extra", &scale, "--threads", "2"]);
    convgen(&given).success();
    let output: ArrayD<f32> = read_npy(folder.path("y.npy")).unwrap();
    assert_eq!(output.iter().copied().collect::<Vec<_>>(), [27.0, 11.0, 0.0, 0.0]);
}

#[test]
fn arrays_that_do_not_fit_are_refused() {
    let folder = Folder::new();
    let files = small(&folder);
    let wrong = |problem: &str, parts: &[&str]| refused(&arguments(problem, &files), parts);
    wrong("conv1d nhwc ic2 oc1 iw3 kw2 bias", &["input", "[2, 2, 3]", "[N, 3, 2]"]);
    wrong("conv1d nchw ic2 oc1 iw3 kw1 bias", &["weights", "[1, 2, 2]", "[1, 2, 1]"]);
    wrong("conv1d nchw ic2 oc1 iw3 kw2", &["--bias", "hint: "]);
    wrong("conv1d nchw ic2 oc1 iw3 kw2 bias | add", &["reads 1", "given 0 times"]);
    let flat = save(&folder, "flat.npy", &Array::from_elem(12, 0f32));
    let (mut flat_files, mut nowhere) = (files.clone(), files.clone());
    flat_files[0] = flat;
    refused(&arguments(SMALL, &flat_files), &["[12]", "[N, 2, 3]"]);
    nowhere[3] = folder.text("no/such/folder/y.npy");
    refused(&arguments(SMALL, &nowhere), &["cannot write", "y.npy"]);
}

#[test]
fn gradients_take_what_they_read_and_no_more() {
    let folder = Folder::new();
    let row = |values: &[f32]| Array::from_shape_vec((1, values.len(), 1), values.to_vec());
    let input = save(&folder, "x.npy", &row(&[1.0, 2.0, 3.0]).unwrap());
    let gradient = save(&folder, "dy.npy", &row(&[1.0, 10.0]).unwrap());
    let weights = Array::from_shape_vec((1, 1, 2), vec![1.0, 100.0]).unwrap();
    let weights = save(&folder, "w.npy", &weights);
    let output = folder.text("out.npy");
    let run = |direction: &str, read: &[&str], expected: &[f32]| {
        let problem = format!("conv1d ic1 oc1 iw3 kw2 {direction}");
        let arguments = ["run", "--problem", &problem, "--output", &output];
        convgen(&[&arguments, read].concat()).success();
        let values: ArrayD<f32> = read_npy(folder.path("out.npy")).unwrap();
        assert_eq!(values.iter().copied().collect::<Vec<_>>(), expected, "{direction}");
    };
    run("bwd_w", &["--input", &input, "--extra", &gradient], &[21.0, 32.0]);
    run("bwd_b", &["--input", &gradient], &[11.0]);
    run("bwd_d", &["--input", &gradient, "--weights", &weights], &[1.0, 110.0, 1000.0]);

    let refuse = |direction: &str, read: &[&str], parts: &[&str]| {
        let problem = format!("conv1d ic1 oc1 iw3 kw2 {direction}");
        let arguments = ["run", "--problem", &problem, "--output", &output];
        refused(&[&arguments, read].concat(), parts);
    };
    refuse("bwd_w", &["--input", &input], &["(gradient)", "given 0 times", "hint: "]);
    refuse("bwd_w", &["--input", &input, "--extra", &input], &["gradient", "[1, 2, 1]"]);
    refuse("bwd_b", &["--input", &gradient, "--weights", &weights], &["bwd_b reads none"]);
    refuse("bwd_d", &["--input", &gradient], &["--weights is missing"]);
}

#[test]
fn transposed_weights_have_the_channels_read_first() {
    let folder = Folder::new();
    let input = Array::from_shape_vec((1, 2, 1), vec![1.0, 10.0]).unwrap();
    let weights = (1..=6u8).map(f32::from).collect();
    let weights = Array::from_shape_vec((2, 3, 1), weights).unwrap();
    let (x, w) = (save(&folder, "x.npy", &input), save(&folder, "w.npy", &weights));
    let y = folder.text("y.npy");
    let problem = "deconv1d nchw ic2 oc3 iw1 kw1";
    convgen(&["run", "--problem", problem, "--input", &x, "--weights", &w, "--output", &y])
        .success();
    let output: ArrayD<f32> = read_npy(folder.path("y.npy")).unwrap();
    assert_eq!(output.shape(), [1, 3, 1]);
    assert_eq!(output.iter().copied().collect::<Vec<_>>(), [41.0, 52.0, 63.0]);
}

#[test]
fn a_model_with_one_convolution_is_a_problem() {
    let model = |name: &str| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../onnx/tests");
        folder.join(name).to_str().unwrap().to_owned()
    };
    let folder = Folder::new();
    let x = save(&folder, "x.npy", &Array::from_elem((2, 2, 3, 3), 1f32));
    let w = save(&folder, "w.npy", &Array::from_elem((1, 2, 2, 2), 1f32));
    let y = folder.text("y.npy");
    let files = ["--input", &x, "--weights", &w, "--output", &y];
    let (one, many) = (model("one.onnx"), model("resnet50.onnx"));
    convgen(&[&["run", "--model", &one], &files[..]].concat())
        .success()
        .stdout(contains("y.npy: f32 [2, 1, 2, 2]"));
    let output: ArrayD<f32> = read_npy(folder.path("y.npy")).unwrap();
    assert!(output.iter().all(|sum| *sum == 8.0), "{output}");

    let many = [&["run", "--model", &many], &files[..]].concat();
    refused(&many, &["23 convolutions", "expected one", "--problem"]);
    let both = ["run", "--model", &one, "--problem", SMALL];
    convgen(&[&both, &files[..]].concat()).code(2).stderr(contains("cannot be used with"));
    refused(&[&["run"], &files[..]].concat(), &["--problem"]);
}

#[test]
fn files_that_are_no_arrays_of_floats_are_refused() {
    let folder = Folder::new();
    let files = small(&folder);
    let good = fs::read(folder.path("x.npy")).unwrap();
    let double = Array::from_elem((2, 2, 3), 1f64);
    write_npy(folder.path("double.npy"), &double).unwrap();
    let cases = [
        (folder.text("double.npy"), "'<f8'"),
        (folder.write("short.npy", &good[..good.len() - 4]), "4 bytes are missing"),
        (folder.write("cut.npy", &good[..20]), "ends inside its header"),
        (folder.write("text.npy", "1 2 3"), "no .npy file"),
        (folder.write("empty.npy", ""), "no .npy file"),
        (folder.text("absent.npy"), "cannot read"),
    ];
    for (file, part) in cases {
        let mut bad = files.clone();
        bad[0] = file;
        refused(&arguments(SMALL, &bad), &["input `", part]);
    }
}
