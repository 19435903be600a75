//! A model: refused, or a list of problems that print back.

use convgen_ir::problem::ConvProblem;
use convgen_onnx::{self as onnx, Options};

use crate::drive::stage;

/// Panics where something is wrong.
pub fn target(data: &[u8]) {
    stage("read");
    let _ = onnx::is_model(data);
    let dims = [("height", 31), ("width", 20)].map(|(name, size)| (name.to_string(), size));
    let sized = Options { batch: Some(3), dims: dims.into_iter().collect() };
    for options in [Options::default(), sized] {
        let Ok(layers) = onnx::read(data.to_vec(), &options) else { continue };
        for layer in layers {
            let Ok(problem) = layer.problem else { continue };
            let text = problem.to_string();
            assert_eq!(text.parse::<ConvProblem>().as_ref(), Ok(&problem), "prints as another");
        }
    }
}
