//! The nests of pooling, as text.
//!
//! A task is one image and one block of channels, which are the lanes. The backward nests add what
//! each window sends back into scratch, window by window, since windows may overlap; what belongs
//! to no window stays zero. Where the last block of channels is incomplete, it computes on zeros.

use convgen_ir::parse::parse_nest;
use convgen_ir::verify::{Limits, VerifiedNest};

use super::Windows;
use convgen::Error;
use convgen::lower;

/// Reads a nest, lowers and verifies it.
pub(super) fn verified(text: &str, limits: &Limits) -> Result<VerifiedNest, Error> {
    Ok(lower::lower(parse_nest(text)?.0, limits)?)
}

/// Writes a nest for that many lanes, within the limits.
pub(super) type Writer = fn(&Windows, usize, &Limits) -> String;

/// The numbers and the phrases of a text.
struct Words {
    windows: Windows,
    /// Rows and columns of the output.
    outputs: (usize, usize),
    /// Channels of a block, and blocks.
    block: usize,
    blocks: usize,
}

impl Words {
    /// Blocks of at most that many lanes, and of no more than the scratch holds a picture of.
    fn new(windows: &Windows, lanes: usize, limits: &Limits) -> Words {
        let picture = windows.rows.saturating_mul(windows.columns).saturating_mul(size_of::<f32>());
        let held = limits.scratch_bytes as usize / picture.max(1);
        let block = windows.channels.min(lanes).min(held).max(1);
        Words {
            windows: *windows,
            outputs: (windows.along(windows.rows), windows.along(windows.columns)),
            block,
            blocks: windows.channels.div_ceil(block),
        }
    }

    fn is_ragged(&self) -> bool {
        self.block * self.blocks > self.windows.channels
    }

    fn shape(&self, rows: usize, columns: usize) -> String {
        format!("f32[N,{rows},{columns},{}]", self.windows.channels)
    }

    fn input_shape(&self) -> String {
        self.shape(self.windows.rows, self.windows.columns)
    }

    fn output_shape(&self) -> String {
        self.shape(self.outputs.0, self.outputs.1)
    }

    fn channel(&self) -> String {
        format!("c.o*{}+c", self.block)
    }

    /// A load of a block of channels.
    fn load(&self, buffer: &str, row: &str, column: &str) -> String {
        let access = format!("{buffer}[n,{row},{column},{}]", self.channel());
        if self.is_ragged() { format!("pad({access})") } else { access }
    }

    /// The head of a loop over the lanes that writes channels which exist.
    fn stored_lanes(&self) -> String {
        let guard = match self.is_ragged() {
            true => format!(" where {} < {}", self.channel(), self.windows.channels),
            false => String::new(),
        };
        format!("vector c in 0..{}{guard}", self.block)
    }

    /// The row or column of a tap of a window.
    fn tap(&self, output: &str, tap: &str) -> String {
        format!("{output}*{}+{tap}", self.windows.stride)
    }
}

/// `acc = first; for taps: acc = step(acc, x); output = last(acc)`
///
/// `first`, `step` (statements that may use `x`) and `last` are texts; the sum is `acc[c]`.
fn forward(name: &str, words: &Words, first: &str, step: &str, last: &str) -> String {
    let Words { windows: Windows { kernel, .. }, outputs: (oh, ow), block, blocks } = words;
    let (input, output) = (words.input_shape(), words.output_shape());
    let x = words.load("input", &words.tap("oh", "kh"), &words.tap("ow", "kw"));
    let (lanes, channel) = (words.stored_lanes(), words.channel());
    format!(
        "nest {name} {{
          input {input}
          output {output}
          parallel n in 0..N {{ parallel c.o in 0..{blocks} {{
            for oh in 0..{oh} {{ for ow in 0..{ow} {{
              reg acc f32[{block}]
              vector c in 0..{block} {{ acc[c] = {first} }}
              reduce kh in 0..{kernel} {{ reduce kw in 0..{kernel} {{
                vector c in 0..{block} {{
                  let x = {x}
                  {step}
                }}
              }} }}
              {lanes} {{ output[n,oh,ow,{channel}] = {last} }}
            }} }}
          }} }}
        }}"
    )
}

/// The largest of each window. A NaN wins; of two zeros, the first.
///
/// `max(x, acc)` keeps a NaN in the sum and drops one in `x`, which neither is below zero nor above
/// -1.
pub(super) fn max(windows: &Windows, lanes: usize, limits: &Limits) -> String {
    let words = Words::new(windows, lanes, limits);
    let first = words.load("input", &words.tap("oh", "0"), &words.tap("ow", "0"));
    let step = "let largest = max(x, acc[c])
                acc[c] = select(x < 0.0, largest, select(-1.0 < x, largest, x))";
    forward("max_pool", &words, &first.replace("+0,", ","), step, "acc[c]")
}

/// The mean of each window, taps added in order.
pub(super) fn mean(windows: &Windows, lanes: usize, limits: &Limits) -> String {
    let words = Words::new(windows, lanes, limits);
    let last = format!("div(acc[c], {}.0)", windows.kernel * windows.kernel);
    forward("mean_pool", &words, "0.0", "acc[c] = add(acc[c], x)", &last)
}

/// `left = first; for taps: sum[tap] = sum[tap] + sent; left = ...`, then `output = sum`
///
/// `given` declares buffers besides the input; `step` sends a part of `left[c]` to `sum`.
fn backward(name: &str, words: &Words, given: &str, step: &str) -> String {
    let Words { windows, outputs: (oh, ow), block, blocks } = words;
    let Windows { rows, columns, kernel, .. } = windows;
    let picture = words.input_shape();
    let gradient = words.load("gradient", "oh", "ow");
    let (lanes, channel) = (words.stored_lanes(), words.channel());
    format!(
        "nest {name} {{
          {given}
          output {picture}
          parallel n in 0..N {{ parallel c.o in 0..{blocks} {{
            scratch sum f32[{rows},{columns},{block}]
            for ih in 0..{rows} {{ for iw in 0..{columns} {{
              vector c in 0..{block} {{ sum[ih,iw,c] = 0.0 }}
            }} }}
            reduce oh in 0..{oh} {{ reduce ow in 0..{ow} {{
              reg left f32[{block}]
              vector c in 0..{block} {{ left[c] = {gradient} }}
              reduce kh in 0..{kernel} {{ reduce kw in 0..{kernel} {{
                vector c in 0..{block} {{
                  {step}
                }}
              }} }}
            }} }}
            for ih in 0..{rows} {{ for iw in 0..{columns} {{
              {lanes} {{ output[n,ih,iw,{channel}] = sum[ih,iw,c] }}
            }} }}
          }} }}
        }}"
    )
}

/// The gradient of [`max`]: that of a window goes to the first element that equals its largest, and
/// to no other. A window with a NaN sends it to its first element.
///
/// Nothing in a window is above the largest, so an element equals it unless it is below.
pub(super) fn max_backward(windows: &Windows, lanes: usize, limits: &Limits) -> String {
    let words = Words::new(windows, lanes, limits);
    let (row, column) = (words.tap("oh", "kh"), words.tap("ow", "kw"));
    let (picture, pooled) = (words.input_shape(), words.output_shape());
    let given = format!("input {picture}\n gradient {pooled}\n residual pooled {pooled}");
    let x = words.load("input", &row, &column);
    let largest = words.load("pooled", "oh", "ow");
    let step = format!(
        "let x = {x}
         let largest = {largest}
         sum[{row},{column},c] = add(sum[{row},{column},c], select(x < largest, 0.0, left[c]))
         left[c] = select(x < largest, left[c], 0.0)"
    );
    backward("max_pool_backward", &words, &given, &step)
}

/// The gradient of [`mean`]: each element of a window gets an equal part.
pub(super) fn mean_backward(windows: &Windows, lanes: usize, limits: &Limits) -> String {
    let words = Words::new(windows, lanes, limits);
    let (row, column) = (words.tap("oh", "kh"), words.tap("ow", "kw"));
    // The only tensor that is read takes the place of the input.
    let given = format!("input gradient {}", words.output_shape());
    let taps = windows.kernel * windows.kernel;
    let step =
        format!("sum[{row},{column},c] = add(sum[{row},{column},c], div(left[c], {taps}.0))");
    backward("mean_pool_backward", &words, &given, &step)
}
