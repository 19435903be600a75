//! Pooling: the largest or the mean of each window, and the gradients, as kernels of their own
//! nests.

mod nests;

use super::{Layer, NetworkError, Pass, images_in};
use convgen::{Compiler, NestKernel};

/// The sizes of a pooling layer: windows of `kernel` by `kernel`, `stride` apart, without padding.
/// What is left over at the far borders belongs to no window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Windows {
    rows: usize,
    columns: usize,
    channels: usize,
    kernel: usize,
    stride: usize,
}

impl Windows {
    fn new(
        [rows, columns, channels]: [usize; 3],
        kernel: usize,
        stride: usize,
    ) -> Result<Windows, NetworkError> {
        let fit = kernel >= 1 && stride >= 1 && kernel <= rows.min(columns) && channels >= 1;
        match fit {
            true => Ok(Windows { rows, columns, channels, kernel, stride }),
            false => Err(NetworkError::Window { kernel, stride, rows, columns }),
        }
    }

    fn along(&self, size: usize) -> usize {
        (size - self.kernel) / self.stride + 1
    }

    fn input_len(&self) -> usize {
        self.rows * self.columns * self.channels
    }

    fn output_len(&self) -> usize {
        self.along(self.rows) * self.along(self.columns) * self.channels
    }
}

/// A pooling layer, of the mean or the largest of each window: the code of its two nests.
pub struct Pool2d<const MEAN: bool> {
    windows: Windows,
    forward: NestKernel,
    backward: NestKernel,
}

/// The largest of each window.
///
/// The gradient of a window goes to the first of its elements, row by row, that equals the largest,
/// also where several do. A NaN counts as the largest; a window with one sends its gradient to its
/// first element.
pub type MaxPool2d = Pool2d<false>;

/// The mean of each window.
pub type AvgPool2d = Pool2d<true>;

impl<const MEAN: bool> Pool2d<MEAN> {
    /// Of pictures of rows, columns and channels, windows of `kernel` by `kernel`, `stride` apart.
    ///
    /// # Errors
    /// [`NetworkError::Window`] if no window fits; [`NetworkError::Kernel`] if a single channel of
    /// a picture exceeds the scratch of a task.
    pub fn new(
        compiler: &Compiler,
        picture: [usize; 3],
        kernel: usize,
        stride: usize,
    ) -> Result<Self, NetworkError> {
        let windows = Windows::new(picture, kernel, stride)?;
        let target = compiler.target();
        let compile = |write: nests::Writer| {
            let limits = target.limits();
            let text = write(&windows, target.lanes() as usize, &limits);
            Ok::<_, NetworkError>(compiler.compile_nest(nests::verified(&text, &limits)?)?)
        };
        let (forward, backward): (nests::Writer, nests::Writer) = match MEAN {
            true => (nests::mean, nests::mean_backward),
            false => (nests::max, nests::max_backward),
        };
        Ok(Pool2d { windows, forward: compile(forward)?, backward: compile(backward)? })
    }
}

impl<const MEAN: bool> Layer for Pool2d<MEAN> {
    fn input_len(&self) -> usize {
        self.windows.input_len()
    }

    fn output_len(&self) -> usize {
        self.windows.output_len()
    }

    fn forward(&self, input: &[f32], output: &mut [f32]) -> Result<(), NetworkError> {
        let images = images_in(input.len(), self.windows.input_len())?;
        Ok(self.forward.run(images, input, &[], output)?)
    }

    fn backward(
        &self,
        pass: &Pass,
        input_gradient: Option<&mut [f32]>,
        _gradients: &mut [Vec<f32>],
    ) -> Result<(), NetworkError> {
        let Some(input_gradient) = input_gradient else { return Ok(()) };
        let images = images_in(pass.input.len(), self.windows.input_len())?;
        // Where the largest was decides who gets a gradient; of a mean everybody gets the same.
        match MEAN {
            true => Ok(self.backward.run(images, pass.gradient, &[], input_gradient)?),
            false => {
                let extras = [pass.gradient, pass.output];
                Ok(self.backward.run(images, pass.input, &extras, input_gradient)?)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use convgen_ir::interpret;
    use convgen_ir::nest::Role;

    use super::*;
    use crate::Generator;
    use convgen::check::same_bits;
    use convgen::{Host, Isa};

    /// One vector, several, an incomplete one; windows that touch, overlap and leave gaps; a
    /// border.
    const SIZES: [([usize; 3], usize, usize); 6] = [
        ([4, 6, 6], 2, 2),
        ([7, 5, 16], 3, 2),
        ([9, 7, 37], 2, 3),
        ([5, 5, 1], 5, 1),
        ([6, 3, 3], 1, 1),
        ([8, 8, 48], 3, 3),
    ];

    const WRITERS: [nests::Writer; 4] =
        [nests::max, nests::mean, nests::max_backward, nests::mean_backward];

    fn values(len: usize, draw: &mut Generator) -> Vec<f32> {
        (0..len).map(|_| draw.below(9) as f32 / 4.0 - 1.0).collect()
    }

    /// Every nest on every instruction set of the host has the interpreter's bits, also at
    /// infinities, NaNs and zeros of both signs.
    #[test]
    fn kernels_have_the_bits_of_the_interpreter() {
        const ODD: [f32; 5] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 0.0];
        for isa in Isa::ALL {
            let Ok(compiler) = Compiler::new(&Host::detect(), isa) else { continue };
            for (size, writer) in SIZES.iter().flat_map(|size| WRITERS.map(|w| (*size, w))) {
                let windows = Windows::new(size.0, size.1, size.2).unwrap();
                let target = compiler.target();
                let text = writer(&windows, target.lanes() as usize, &target.limits());
                let kernel =
                    compiler.compile_nest(nests::verified(&text, &target.limits()).unwrap());
                let kernel = kernel.unwrap();
                let nest = kernel.nest().unwrap();
                let draw = &mut Generator::new(9);
                let ids = interpret::arguments(nest.nest());
                let len = |id| nest.nest().buffer(id).len(3).unwrap() as usize;
                let mut given: Vec<Vec<f32>> =
                    ids.iter().map(|id| values(len(*id), draw)).collect();
                given.iter_mut().flatten().skip(3).step_by(11).zip(ODD).for_each(|(v, o)| *v = o);
                let slices: Vec<&[f32]> = given.iter().map(Vec::as_slice).collect();
                let output = len(nest.nest().find_role(Role::Output).unwrap());
                let (mut expected, mut result) = (vec![5.0; output], vec![6.0; output]);
                let tasks = 0..nest.nest().tasks(3).unwrap();
                interpret::run(nest, 3, tasks, &slices, &mut expected).unwrap();
                kernel.run(3, slices[0], &slices[1..], &mut result).unwrap();
                let same = expected.iter().zip(&result).all(|(a, b)| same_bits(*a, *b));
                assert!(same, "{isa}:\n{text}");
            }
        }
    }

    /// Where the windows of an output lie, row by row.
    fn window(w: &Windows, oh: usize, ow: usize, c: usize) -> Vec<usize> {
        let taps = (0..w.kernel).flat_map(|kh| (0..w.kernel).map(move |kw| (kh, kw)));
        let place =
            |(kh, kw)| ((oh * w.stride + kh) * w.columns + ow * w.stride + kw) * w.channels + c;
        taps.map(place).collect()
    }

    /// Both layers by their definition, in the order of the windows.
    #[test]
    fn kernels_are_their_formulas() {
        let host = Host::detect();
        let compiler = Compiler::new(&host, host.widest_isa()).unwrap();
        for (picture, kernel, stride) in SIZES {
            let w = Windows::new(picture, kernel, stride).unwrap();
            let draw = &mut Generator::new(8);
            let (x, dy) = (values(w.input_len(), draw), values(w.output_len(), draw));
            let [mut largest, mut mean] = [vec![0.0; dy.len()], vec![0.0; dy.len()]];
            let [mut largest_dx, mut mean_dx] = [vec![0.0; x.len()], vec![0.0; x.len()]];
            let (rows, columns) = (w.along(w.rows), w.along(w.columns));
            for (oh, ow) in (0..rows).flat_map(|oh| (0..columns).map(move |ow| (oh, ow))) {
                for c in 0..w.channels {
                    let at = (oh * columns + ow) * w.channels + c;
                    let places = window(&w, oh, ow, c);
                    let taps = places.len() as f32;
                    let better = |best: usize, i: usize| if x[i] > x[best] { i } else { best };
                    let best = places.iter().copied().reduce(better).unwrap();
                    largest[at] = x[best];
                    largest_dx[best] += dy[at];
                    mean[at] = places.iter().map(|i| x[*i]).sum::<f32>() / taps;
                    places.iter().for_each(|i| mean_dx[*i] += dy[at] / taps);
                }
            }
            let max_pool = MaxPool2d::new(&compiler, picture, kernel, stride).unwrap();
            let mean_pool = AvgPool2d::new(&compiler, picture, kernel, stride).unwrap();
            let layers: [(&dyn Layer, Vec<f32>, Vec<f32>); 2] =
                [(&max_pool, largest, largest_dx), (&mean_pool, mean, mean_dx)];
            for (layer, y, dx) in layers {
                let (mut output, mut gradient) = (vec![9.0; y.len()], vec![9.0; dx.len()]);
                layer.forward(&x, &mut output).unwrap();
                assert_eq!(output, y, "{w:?}");
                let pass = Pass { input: &x, output: &output, gradient: &dy };
                layer.backward(&pass, Some(&mut gradient), &mut []).unwrap();
                assert_eq!(gradient, dx, "{w:?}");
            }
        }
    }
}
