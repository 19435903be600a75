//! Calls of a kernel, ready to be timed.

use convgen::Kernel;
use convgen::check::Data;

/// A call of the kernel with all its data.
pub fn call(kernel: &Kernel) -> Box<dyn FnMut() + '_> {
    let data = Data::reals(kernel.problem());
    let weights = kernel.pack_weights(data.weights()).expect("weights of the kernel's own problem");
    let mut output = vec![0.0; data.output_len()];
    Box::new(move || {
        let extras = data.extras();
        let arguments = data.arguments(&weights, &extras);
        kernel.run_with(&arguments, &mut output).expect("data of the kernel's own problem");
    })
}
