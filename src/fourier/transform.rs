//! The transforms around the generated products: tiles to spectra, spectra to sums.
//!
//! Promises: what a task gets is a function of the call's data and the task's number alone; what is
//! kept between tasks, the spectra of the last tile, only saves work. After the first call of a
//! thread nothing is allocated.

use std::any::Any;
use std::sync::Arc;

use convgen_ir::elem::Layout;
use convgen_ir::interpret::{self, InterpretError};
use convgen_ir::problem::ConvProblem;
use convgen_ir::verify::VerifiedNest;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};
use rustfft::num_complex::Complex;
use rustfft::{Fft, FftPlanner};

use super::plan::Plan;
use crate::error::RunError;
use crate::jit::stage::{Stage, Workspace};
use crate::jit::{Code, Inputs, MAX_SUMS, Scratch};

/// What the transforms of one thread write: grows to what kernels ask for and is kept.
#[derive(Default)]
pub(crate) struct Memory {
    /// A row of a tile.
    row: Vec<f32>,
    /// The spectra of a tile's input channels, of a block of output channels, and their sums.
    spectra: Vec<f32>,
    products: Vec<f32>,
    sums: Vec<f32>,
    /// A spectrum by rows, by columns, and what the transforms need.
    grid: Vec<Complex<f32>>,
    turned: Vec<Complex<f32>>,
    scratch: Vec<Complex<f32>>,
    /// The tile whose spectra these are, of the call that runs.
    tile: Option<usize>,
}

impl Workspace for Memory {
    fn bytes(&self) -> usize {
        let floats = [&self.row, &self.spectra, &self.products, &self.sums];
        let complex = [&self.grid, &self.turned, &self.scratch];
        let floats: usize = floats.iter().map(|held| size_of_val(held.as_slice())).sum();
        floats + complex.iter().map(|held| size_of_val(held.as_slice())).sum::<usize>()
    }
}

/// The stages of a kernel before the last one.
pub(crate) struct Transforms {
    problem: ConvProblem,
    plan: Plan,
    /// The products of a task.
    products: Code,
    forward: Arc<dyn RealToComplex<f32>>,
    inverse: Arc<dyn ComplexToReal<f32>>,
    /// Along columns, forward and back; none for one axis.
    columns: Option<[Arc<dyn Fft<f32>>; 2]>,
    scratch: usize,
    /// Elements of one image of the input.
    image: usize,
    /// Rows and columns of a transform, and complex numbers of a row.
    rows: usize,
    points: usize,
    half: usize,
}

/// How a spectrum is laid out: where its first vector goes, the distance between vectors, and what
/// the real and the imaginary parts are multiplied by.
struct Placement {
    first: usize,
    step: usize,
    factors: [f32; 2],
}

impl Transforms {
    /// Plans the transforms; the code is that of the plan's products.
    pub(crate) fn new(problem: &ConvProblem, plan: Plan, products: Code) -> Transforms {
        let (rows, points) = plan.points();
        let (rows, points) = (rows as usize, points as usize);
        let mut real = RealFftPlanner::<f32>::new();
        let (forward, inverse) = (real.plan_fft_forward(points), real.plan_fft_inverse(points));
        let columns = (rows > 1).then(|| {
            let mut planner = FftPlanner::<f32>::new();
            [planner.plan_fft_forward(rows), planner.plan_fft_inverse(rows)]
        });
        let along = columns.iter().flatten().map(|fft| fft.get_inplace_scratch_len());
        let across = [forward.get_scratch_len(), inverse.get_scratch_len()];
        let scratch = across.into_iter().chain(along).max().unwrap_or(0);
        let image = problem.input_shape(1).iter().product::<u64>() as usize;
        let (problem, half) = (problem.clone(), points / 2 + 1);
        Transforms {
            problem,
            plan,
            products,
            forward,
            inverse,
            columns,
            scratch,
            image,
            rows,
            points,
            half,
        }
    }

    /// The tiles.
    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The nest of the products.
    pub(crate) fn nest(&self) -> Option<&VerifiedNest> {
        self.products.nests().next()
    }

    fn reserve(&self, memory: &mut Memory) {
        let spectrum = self.plan.spectrum() as usize;
        let floats = [
            (&mut memory.row, self.points),
            (&mut memory.spectra, self.plan.in_channels as usize * spectrum),
            (&mut memory.products, self.plan.block as usize * spectrum),
            (&mut memory.sums, self.output_len()),
        ];
        for (held, len) in floats {
            held.resize(held.len().max(len), 0.0);
        }
        let grid = self.rows * self.half;
        let complex = [
            (&mut memory.grid, grid),
            (&mut memory.turned, grid),
            (&mut memory.scratch, self.scratch),
        ];
        for (held, len) in complex {
            held.resize(held.len().max(len), Complex::ZERO);
        }
    }

    /// A row of the spread kernel; false if it is zero.
    fn kernel_row(&self, kernel: &[f32], y: usize, row: &mut [f32]) -> bool {
        let flip = self.problem.flip();
        let Some(last) = self.plan.axes.last() else { return false };
        let (taps, step) = (last.conv.kernel as usize, last.conv.dilation as usize);
        let ky = match &self.plan.axes[..] {
            [first, _] => {
                let (count, step) = (first.conv.kernel as usize, first.conv.dilation as usize);
                if !y.is_multiple_of(step) || y / step >= count {
                    return false;
                }
                if flip { count - 1 - y / step } else { y / step }
            }
            _ => 0,
        };
        row.fill(0.0);
        for k in 0..taps {
            let kx = if flip { taps - 1 - k } else { k };
            row[k * step] = kernel[ky * taps + kx];
        }
        true
    }

    /// The sums of a task's outputs, before bias and epilogue, with the products by the interpreter
    /// of their nest: the same bits.
    ///
    /// # Errors
    /// If the nest refuses its data.
    pub(crate) fn interpret<'m>(
        &self,
        inputs: &Inputs,
        task: usize,
        memory: &'m mut Memory,
    ) -> Result<&'m [f32], InterpretError> {
        self.sums(inputs, task, memory, |input, weights, output| match self.nest() {
            Some(nest) => interpret::run(nest, 1, 0..1, &[input, weights], output),
            None => Ok(()),
        })
    }

    /// The sums of a task's outputs; `multiply` computes the products from the spectra of the input
    /// and the weights.
    fn sums<'m, E>(
        &self,
        inputs: &Inputs,
        task: usize,
        memory: &'m mut Memory,
        multiply: impl FnOnce(&[f32], &[f32], &mut [f32]) -> Result<(), E>,
    ) -> Result<&'m [f32], E> {
        self.reserve(memory);
        let spectrum = self.plan.spectrum() as usize;
        let blocks = (self.plan.out_channels / self.plan.block) as usize;
        let (tile, number) = (task / blocks, task % blocks);
        if memory.tile != Some(tile) {
            self.analyse(inputs.input, tile, memory);
        }
        memory.tile = Some(tile);
        let tiles: u64 = self.plan.axes.iter().map(|axis| axis.tiles).product();
        let group = tile / tiles as usize % self.plan.groups as usize;
        let len = (self.plan.block * self.plan.in_channels) as usize * spectrum;
        let start = (group * blocks + number) * len;
        let weights = inputs.weights.get(start..start + len).unwrap_or_default();
        let input = &memory.spectra[..self.plan.in_channels as usize * spectrum];
        let output = &mut memory.products[..self.plan.block as usize * spectrum];
        multiply(input, weights, output)?;
        self.synthesise(memory);
        Ok(&memory.sums[..self.output_len()])
    }

    /// The spectra of a tile.
    fn analyse(&self, input: &[f32], tile: usize, memory: &mut Memory) {
        let lane = 2 * self.plan.lanes as usize;
        let reads = self.plan.in_channels as usize;
        let mut rest = tile;
        let mut origins = [0_i64; 2];
        for (axis, origin) in self.plan.axes.iter().zip(&mut origins).rev() {
            *origin = axis.origin((rest % axis.tiles as usize) as u64);
            rest /= axis.tiles as usize;
        }
        let group = rest % self.plan.groups as usize;
        let len = self.image;
        let image = rest / self.plan.groups as usize;
        let image = &input[image * len..(image + 1) * len];
        let mut spectra = std::mem::take(&mut memory.spectra);
        for read in 0..reads {
            let channel = group * reads + read;
            self.transform(|y, row| self.input_row(image, channel, origins, y, row), memory);
            let spread = Placement { first: read * lane, step: reads * lane, factors: [1.0, 1.0] };
            self.spread(memory, &mut spectra, &spread);
        }
        memory.spectra = spectra;
    }

    /// A row of the tile of a channel; false if it is zero.
    fn input_row(
        &self,
        image: &[f32],
        channel: usize,
        origins: [i64; 2],
        y: usize,
        row: &mut [f32],
    ) -> bool {
        let mode = self.problem.padding_mode();
        let (line, height, x) = match &self.plan.axes[..] {
            [first, _] => {
                let height = first.conv.input as i64;
                let line = mode.source(origins[0] + y as i64, height);
                let Some(line) = line.filter(|_| (y as u64) < first.reach()) else { return false };
                (line as usize, height as usize, origins[1])
            }
            _ => (0, 1, origins[0]),
        };
        let Some(last) = self.plan.axes.last() else { return false };
        let width = last.conv.input as i64;
        let from = (-x).clamp(0, last.reach() as i64);
        let to = (width - x).clamp(from, last.reach() as i64);
        row.fill(0.0);
        let (channels, width) = (self.problem.in_channels() as usize, width as usize);
        // Outside are zeros, or what the mode finds inside.
        for i in (0..from).chain(to..last.reach() as i64) {
            if let Some(source) = mode.source(x + i, width as i64) {
                let source = source as usize;
                row[i as usize] = image[match self.problem.layout() {
                    Layout::ChannelsFirst => (channel * height + line) * width + source,
                    Layout::ChannelsLast => (line * width + source) * channels + channel,
                }];
            }
        }
        let row = &mut row[from as usize..to as usize];
        // Of a tile behind the input all is padding, and its place is no place of the input.
        if row.is_empty() {
            return true;
        }
        let start = (x + from).max(0) as usize;
        match self.problem.layout() {
            Layout::ChannelsFirst => {
                let start = (channel * height + line) * width + start;
                row.copy_from_slice(&image[start..start + row.len()]);
            }
            Layout::ChannelsLast => {
                let start = (line * width + start) * channels + channel;
                let pixels = image[start..].iter().step_by(channels);
                row.iter_mut().zip(pixels).for_each(|(place, pixel)| *place = *pixel);
            }
        }
        true
    }

    /// The transform of a tile given row by row, by columns.
    fn transform(&self, fill: impl Fn(usize, &mut [f32]) -> bool, memory: &mut Memory) {
        let row = &mut memory.row[..self.points];
        let scratch = &mut memory.scratch[..self.scratch];
        let grid = &mut memory.grid[..self.rows * self.half];
        for (y, out) in grid.chunks_exact_mut(self.half).enumerate() {
            match fill(y, row) {
                // The lengths are those of the plan, the only thing that is checked.
                true => drop(self.forward.process_with_scratch(row, out, scratch)),
                false => out.fill(Complex::ZERO),
            }
        }
        if let Some([forward, _]) = &self.columns {
            let turned = &mut memory.turned[..self.rows * self.half];
            transpose(grid, turned, self.half, self.rows);
            forward.process_with_scratch(turned, scratch);
        } else {
            std::mem::swap(&mut memory.grid, &mut memory.turned);
        }
    }

    /// Parts a spectrum into vectors of real and of imaginary parts.
    fn spread(&self, memory: &Memory, planes: &mut [f32], spread: &Placement) {
        let lanes = self.plan.lanes as usize;
        let spectrum = &memory.turned[..self.rows * self.half];
        let [re_factor, im_factor] = spread.factors;
        for (number, values) in spectrum.chunks(lanes).enumerate() {
            let start = spread.first + number * spread.step;
            let (re, im) = planes[start..start + 2 * lanes].split_at_mut(lanes);
            for ((re, im), value) in re.iter_mut().zip(im.iter_mut()).zip(values) {
                (*re, *im) = (value.re * re_factor, value.im * im_factor);
            }
            re[values.len()..].fill(0.0);
            im[values.len()..].fill(0.0);
        }
    }

    /// The inverse transforms of the products.
    fn synthesise(&self, memory: &mut Memory) {
        let lanes = self.plan.lanes as usize;
        let block = self.plan.block as usize;
        let (rows, _) = self.plan.sums();
        let grid_len = self.rows * self.half;
        let scratch = &mut memory.scratch[..self.scratch];
        for channel in 0..block {
            let turned = &mut memory.turned[..grid_len];
            for (number, values) in turned.chunks_mut(lanes).enumerate() {
                let start = (number * block + channel) * 2 * lanes;
                let (re, im) = memory.products[start..start + 2 * lanes].split_at(lanes);
                for ((value, re), im) in values.iter_mut().zip(re).zip(im) {
                    *value = Complex::new(*re, *im);
                }
            }
            let grid = &mut memory.grid[..grid_len];
            let grid = match &self.columns {
                Some([_, inverse]) => {
                    inverse.process_with_scratch(turned, scratch);
                    transpose(turned, grid, self.rows, self.half);
                    grid
                }
                None => turned,
            };
            let len = rows as usize * self.points;
            let sums = &mut memory.sums[channel * len..(channel + 1) * len];
            for (row, out) in
                grid.chunks_exact_mut(self.half).zip(sums.chunks_exact_mut(self.points))
            {
                // Of a real row these two are real; what is there is rounding.
                row[0].im = 0.0;
                row[self.half - 1].im = 0.0;
                drop(self.inverse.process_with_scratch(row, out, scratch));
            }
        }
    }
}

impl Stage for Transforms {
    fn stack_bytes(&self) -> u32 {
        self.products.stack_bytes()
    }

    fn code_bytes(&self) -> usize {
        self.products.bytes()
    }

    fn held_bytes(&self) -> usize {
        // A real transform has about as many factors as points, with those of the complex one of
        // half the length; a complex one half as many more.
        let factors = 2 * self.points + if self.rows > 1 { 3 * self.rows } else { 0 };
        size_of::<Transforms>() + self.products.held_bytes() + factors * size_of::<Complex<f32>>()
    }

    fn workspace_bytes(&self) -> usize {
        let (rows, columns) = self.plan.sums();
        let channels = (self.plan.in_channels + self.plan.block) as usize;
        let floats = channels * self.plan.spectrum() as usize
            + self.plan.block as usize * (rows * columns) as usize
            + self.points;
        let complex = 2 * self.rows * self.half + self.scratch;
        floats * size_of::<f32>() + complex * size_of::<Complex<f32>>()
    }

    fn input_len(&self, batch: usize) -> Option<usize> {
        batch.checked_mul(self.image)
    }

    fn packed_len(&self) -> usize {
        self.plan.packed_len() as usize
    }

    fn output_len(&self) -> usize {
        let (rows, columns) = self.plan.sums();
        (self.plan.block * rows * columns) as usize
    }

    fn check_weights(&self, weights: &[f32]) -> Result<(), RunError> {
        let expected = self.problem.weights_shape().iter().product::<u64>() as usize;
        check("weights", weights.len(), expected)
    }

    fn pack(&self, weights: &[f32], packed: &mut [f32]) -> Result<(), RunError> {
        // Placement by the dilation, conjugated and scaled.
        self.check_weights(weights)?;
        check("packed weights", packed.len(), self.packed_len())?;
        let mut memory = Memory::default();
        self.reserve(&mut memory);
        let taps: usize = self.plan.axes.iter().map(|axis| axis.conv.kernel as usize).product();
        let (reads, block) = (self.plan.in_channels as usize, self.plan.block as usize);
        let scale = 1.0 / (self.rows * self.points) as f32;
        let lane = 2 * self.plan.lanes as usize;
        let vectors = self.plan.vectors() as usize;
        for (number, kernel) in weights.chunks_exact(taps).enumerate() {
            let (channel, read) = (number / reads, number % reads);
            let start = channel / block * (block * reads * vectors * lane);
            let spread = Placement {
                first: start + (channel % block * reads + read) * lane,
                step: block * reads * lane,
                factors: [scale, -scale],
            };
            self.transform(|y, row| self.kernel_row(kernel, y, row), &mut memory);
            self.spread(&memory, packed, &spread);
        }
        Ok(())
    }

    fn workspace(&self, held: Option<Box<dyn Workspace>>) -> Box<dyn Workspace> {
        let held = held.map(|held| held as Box<dyn Any>);
        let mut memory = held.and_then(|held| held.downcast::<Memory>().ok()).unwrap_or_default();
        // Another call may have other data.
        memory.tile = None;
        memory
    }

    fn run<'w>(
        &self,
        inputs: &Inputs,
        task: usize,
        workspace: &'w mut dyn Workspace,
    ) -> Option<&'w [f32]> {
        let memory = (workspace as &mut dyn Any).downcast_mut::<Memory>()?;
        let multiply = |input: &[f32], weights: &[f32], output: &mut [f32]| {
            let inputs = Inputs { input, weights, biases: [None; MAX_SUMS], extras: &[] };
            self.products
                .call(1, inputs, output)
                .map(|mut call| call.tasks().run(&mut Scratch::new()))
        };
        self.sums(inputs, task, memory, multiply).ok()
    }
}

/// Columns to rows, of a grid with rows of that length.
fn transpose<T: Copy>(grid: &[T], turned: &mut [T], width: usize, height: usize) {
    for (x, column) in turned.chunks_exact_mut(height).enumerate() {
        let values = grid.iter().skip(x).step_by(width);
        column.iter_mut().zip(values).for_each(|(place, value)| *place = *value);
    }
}

fn check(what: &'static str, given: usize, expected: usize) -> Result<(), RunError> {
    if given == expected { Ok(()) } else { Err(RunError::Length { what, given, expected }) }
}
