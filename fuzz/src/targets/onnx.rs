//! A model: refused, or a list of problems that print back.

use convgen_ir::problem::ConvProblem;
use convgen_onnx::{self as onnx, OnnxError, Options};

use crate::drive::stage;

/// Panics where something is wrong.
pub fn target(data: &[u8]) {
    stage("read");
    let _ = onnx::is_model(data);
    let mut options = Options { batch: Some(3), ..Options::default() };
    let layers = loop {
        match onnx::read(data.to_vec(), &options) {
            Ok(layers) => break layers,
            // What is left open is given, until nothing is.
            Err(OnnxError::Dimension { place, .. }) if options.dims.len() < 8 => {
                let size = 20 + options.dims.len() as u64;
                if let Some(size) = options.dims.insert(place, size) {
                    panic!("asked for again, although {size} was given");
                }
            }
            Err(_) => return,
        }
    };
    for layer in layers {
        let Ok(problem) = layer.problem else { continue };
        let text = problem.to_string();
        assert_eq!(text.parse::<ConvProblem>().as_ref(), Ok(&problem), "prints as another");
    }
}
