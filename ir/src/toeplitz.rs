//! A convolution as the matrix that it is: rows are the outputs of one image, columns its inputs.
//!
//! ```text
//! y = T x,   T[o, i] = w[k]  where the tap k of the output o reads the input i, else 0
//! ```
//! On one axis of stride 1 this is a Toeplitz matrix, constant along its diagonals; with more axes
//! and channels a block matrix of such. The transposed matrix is that of the transposed
//! convolution.
//!
//! Promises: rows and columns are numbered as the problem's output and input lie in memory; each
//! entry is exactly one weight, named by its flat index, and there are no others; what would be
//! larger than the limits below is refused with the numbers, before memory is taken. Does not: hold
//! what is not linear in the input (bias and epilogue are left out), or compute fast. It is to be
//! read, and to check by.

use std::io::{self, Write};

use crate::PaddingMode;
use crate::problem::{ConvProblem, Direction};
use crate::reference::{self, Position};

/// Entries of a matrix, at most: 24 bytes each.
pub const MAX_ENTRIES: u64 = 1 << 23;

/// Elements of a matrix written out with its zeros, at most.
pub const MAX_DENSE: u64 = 1 << 24;

/// Elements of a matrix shown with the names of its weights, at most.
pub const MAX_SHOWN: u64 = 1 << 12;

/// Why there is no matrix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ToeplitzError {
    /// What is computed reads no weights.
    #[error("{direction} is no product of a matrix of weights and its input")]
    Direction {
        /// The direction.
        direction: &'static str,
    },
    /// Padding is made of the input.
    #[error("with {mode} padding an entry is a sum of weights, and no weight has it alone")]
    PaddingMode {
        /// The mode.
        mode: PaddingMode,
    },
    /// Too many entries.
    #[error(
        "the matrix of {rows} outputs by {columns} inputs has up to {given} entries, expected at most {limit}"
    )]
    Entries {
        /// Outputs of one image.
        rows: u64,
        /// Inputs of one image.
        columns: u64,
        /// A bound on the entries.
        given: u64,
        /// The limit.
        limit: u64,
    },
    /// Too large to be written out with its zeros.
    #[error(
        "the matrix of {rows} outputs by {columns} inputs has {given} elements, expected at most {limit}"
    )]
    Dense {
        /// Outputs of one image.
        rows: u64,
        /// Inputs of one image.
        columns: u64,
        /// Their product.
        given: u64,
        /// The limit.
        limit: u64,
    },
    /// A vector or the weights have the wrong length.
    #[error("{what} has {given} elements, expected {expected}")]
    Length {
        /// Which.
        what: &'static str,
        /// Its length.
        given: usize,
        /// The length needed.
        expected: u64,
    },
}

/// An element that is not zero by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry<T> {
    /// The output.
    pub row: u64,
    /// The input.
    pub column: u64,
    /// What stands there.
    pub value: T,
}

/// A sparse matrix: its entries by row, in a row by column.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix<T> {
    rows: u64,
    columns: u64,
    entries: Vec<Entry<T>>,
}

/// The matrix of a problem with these weights, in the problem's own order.
///
/// ```
/// use convgen_ir::toeplitz;
/// let problem = "conv1d ic1 oc1 iw4 kw2 pw1:0".parse()?;
/// let matrix = toeplitz::matrix(&problem, &[1.0, 2.0])?;
/// assert_eq!(matrix.dense()?, [
///     2.0, 0.0, 0.0, 0.0,
///     1.0, 2.0, 0.0, 0.0,
///     0.0, 1.0, 2.0, 0.0,
///     0.0, 0.0, 1.0, 2.0,
/// ]);
/// assert_eq!(matrix.apply(&[1.0, 1.0, 10.0, 0.0])?, [2.0, 3.0, 21.0, 10.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`symbolic`], and [`ToeplitzError::Length`] if the weights are not the problem's.
pub fn matrix(problem: &ConvProblem, weights: &[f32]) -> Result<Matrix<f32>, ToeplitzError> {
    symbolic(problem)?.with_weights(problem, weights)
}

/// The matrix of a problem whose weights are not known: each entry is the flat index of its weight.
///
/// # Errors
/// [`ToeplitzError::Direction`], [`ToeplitzError::PaddingMode`] or [`ToeplitzError::Entries`].
pub fn symbolic(problem: &ConvProblem) -> Result<Matrix<u64>, ToeplitzError> {
    match problem.direction() {
        Direction::Forward => forward(problem),
        Direction::Transposed | Direction::BackwardData => {
            // The sizes of a problem are those of its forward convolution.
            Ok(forward(problem)?.transposed())
        }
        Direction::BackwardWeights | Direction::BackwardBias => {
            Err(ToeplitzError::Direction { direction: problem.direction().name() })
        }
    }
}

impl<T: Copy> Matrix<T> {
    /// Outputs of one image.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Inputs of one image.
    pub fn columns(&self) -> u64 {
        self.columns
    }

    /// The entries by row, in a row by column.
    pub fn entries(&self) -> &[Entry<T>] {
        &self.entries
    }

    /// Rows and columns exchanged.
    pub fn transposed(&self) -> Matrix<T> {
        let turn = |e: &Entry<T>| Entry { row: e.column, column: e.row, value: e.value };
        let mut entries: Vec<Entry<T>> = self.entries.iter().map(turn).collect();
        entries.sort_unstable_by_key(|entry| (entry.row, entry.column));
        Matrix { rows: self.columns, columns: self.rows, entries }
    }

    /// The same places with other values.
    fn map<U>(&self, value: impl Fn(T) -> U) -> Matrix<U> {
        let entry = |e: &Entry<T>| Entry { row: e.row, column: e.column, value: value(e.value) };
        let entries = self.entries.iter().map(entry).collect();
        Matrix { rows: self.rows, columns: self.columns, entries }
    }

    /// The entries of a row.
    fn row(&self, row: u64) -> &[Entry<T>] {
        let from = self.entries.partition_point(|entry| entry.row < row);
        let rest = &self.entries[from..];
        &rest[..rest.partition_point(|entry| entry.row == row)]
    }

    fn check_elements(&self, limit: u64) -> Result<(), ToeplitzError> {
        let (rows, columns) = (self.rows, self.columns);
        let given = rows.saturating_mul(columns);
        match given > limit {
            true => Err(ToeplitzError::Dense { rows, columns, given, limit }),
            false => Ok(()),
        }
    }
}

impl Matrix<u64> {
    /// The matrix with weights in the order of [`ConvProblem::weights_shape`].
    ///
    /// # Errors
    /// [`ToeplitzError::Length`].
    pub fn with_weights(
        &self,
        problem: &ConvProblem,
        weights: &[f32],
    ) -> Result<Matrix<f32>, ToeplitzError> {
        expect_length("weights", weights.len(), problem.weights_shape().iter().product())?;
        Ok(self.map(|index| weights[index as usize]))
    }

    /// The matrix with one more than the flat index of each weight, so that no entry is zero.
    pub fn numbered(&self) -> Matrix<u64> {
        self.map(|index| index + 1)
    }

    /// The matrix as text, one row a line: `w[oc,ic,k]` where there is a weight, a dot elsewhere.
    ///
    /// # Errors
    /// [`ToeplitzError::Dense`] if it is too large to be looked at.
    pub fn text(&self, problem: &ConvProblem) -> Result<String, ToeplitzError> {
        self.check_elements(MAX_SHOWN)?;
        let shape = problem.weights_shape();
        let names = self.map(|index| name(&shape, index));
        let width = names.entries.iter().map(|entry| entry.value.len()).max().unwrap_or(1);
        let mut text = String::new();
        for row in 0..self.rows {
            let mut cells = vec!["."; self.columns as usize];
            for entry in &names.entries {
                if entry.row == row {
                    cells[entry.column as usize] = &entry.value;
                }
            }
            let cells: Vec<String> = cells.iter().map(|cell| format!("{cell:width$}")).collect();
            text += cells.join(" ").trim_end();
            text.push('\n');
        }
        Ok(text)
    }
}

impl Matrix<f32> {
    /// The product with a vector, summed in doubles: one image in, one image out.
    ///
    /// # Errors
    /// [`ToeplitzError::Length`].
    pub fn apply(&self, x: &[f32]) -> Result<Vec<f64>, ToeplitzError> {
        expect_length("the vector", x.len(), self.columns)?;
        let term = |e: &Entry<f32>| f64::from(e.value) * f64::from(x[e.column as usize]);
        // From +0.0: the empty sum of floats is -0.0.
        Ok((0..self.rows)
            .map(|row| self.row(row).iter().map(term).fold(0.0, |a, b| a + b))
            .collect())
    }

    /// All elements, row by row.
    ///
    /// # Errors
    /// [`ToeplitzError::Dense`] if they are too many.
    pub fn dense(&self) -> Result<Vec<f32>, ToeplitzError> {
        self.check_elements(MAX_DENSE)?;
        let mut elements = vec![0.0; (self.rows * self.columns) as usize];
        for entry in &self.entries {
            elements[(entry.row * self.columns + entry.column) as usize] = entry.value;
        }
        Ok(elements)
    }
}

/// What a number is called in the header of a Matrix Market file.
pub trait Field: Copy + std::fmt::Display {
    /// `real` or `integer`.
    const NAME: &'static str;
}

impl Field for f32 {
    const NAME: &'static str = "real";
}

impl Field for u64 {
    const NAME: &'static str = "integer";
}

impl<T: Field> Matrix<T> {
    /// Writes the entries in the Matrix Market format, which counts rows and columns from one.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_mtx(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "%%MatrixMarket matrix coordinate {} general", T::NAME)?;
        writeln!(out, "{} {} {}", self.rows, self.columns, self.entries.len())?;
        for Entry { row, column, value } in &self.entries {
            writeln!(out, "{} {} {value}", row + 1, column + 1)?;
        }
        Ok(())
    }

    /// Writes the entries as comma-separated values, `row,column,value`, counted from zero.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_csv(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "row,column,value")?;
        for Entry { row, column, value } in &self.entries {
            writeln!(out, "{row},{column},{value}")?;
        }
        Ok(())
    }
}

/// The matrix of the forward convolution of a problem in any direction.
fn forward(problem: &ConvProblem) -> Result<Matrix<u64>, ToeplitzError> {
    let spatial = problem.spatial();
    let inputs: u64 = spatial.iter().map(|axis| axis.input).product();
    let outputs: u64 = spatial.iter().map(|axis| axis.output()).product();
    let kernel: Vec<u64> = spatial.iter().map(|axis| axis.kernel).collect();
    let taps: u64 = kernel.iter().product();
    let (rows, columns) = (outputs * problem.out_channels(), inputs * problem.in_channels());
    let channels = problem.in_channels_per_group();
    if problem.extends_input() {
        return Err(ToeplitzError::PaddingMode { mode: problem.padding_mode() });
    }
    let given = rows.saturating_mul(channels).saturating_mul(taps);
    if given > MAX_ENTRIES {
        return Err(ToeplitzError::Entries { rows, columns, given, limit: MAX_ENTRIES });
    }
    let mut entries = Vec::new();
    for row in 0..rows {
        let Position { channel, spatial: at, .. } = reference::output_position(problem, row);
        let first_channel = channel / problem.out_channels_per_group() * channels;
        for tap in 0..taps {
            let Some((spatial, stored)) = read(problem, &at, &kernel, tap) else { continue };
            for ic in 0..channels {
                let at = Position { n: 0, channel: first_channel + ic, spatial: spatial.clone() };
                let column = reference::input_index(problem, &at);
                entries.push(Entry {
                    row,
                    column,
                    value: (channel * channels + ic) * taps + stored,
                });
            }
        }
    }
    entries.sort_unstable();
    Ok(Matrix { rows, columns, entries })
}

/// What the tap of an output reads, unless it is padding, and where in the kernel its weight is.
fn read(problem: &ConvProblem, at: &[u64], kernel: &[u64], tap: u64) -> Option<(Vec<u64>, u64)> {
    let axes = at.iter().zip(coordinates(kernel, tap)).zip(problem.spatial());
    let (mut position, mut stored) = (Vec::with_capacity(kernel.len()), 0);
    for ((o, k), axis) in axes {
        let i = (o * axis.stride + k * axis.dilation) as i64 - axis.pad_before;
        position.push(u64::try_from(i).ok().filter(|i| *i < axis.input)?);
        let k = if problem.flip() { axis.kernel - 1 - k } else { k };
        stored = stored * axis.kernel + k;
    }
    Some((position, stored))
}

/// The row-major coordinates of a flat index.
fn coordinates(sizes: &[u64], mut flat: u64) -> Vec<u64> {
    let mut at = vec![0; sizes.len()];
    for (x, size) in at.iter_mut().zip(sizes).rev() {
        *x = flat % size;
        flat /= size;
    }
    at
}

/// `w[1,0,2]`.
fn name(shape: &[u64], index: u64) -> String {
    let at: Vec<String> = coordinates(shape, index).iter().map(ToString::to_string).collect();
    format!("w[{}]", at.join(","))
}

fn expect_length(what: &'static str, given: usize, expected: u64) -> Result<(), ToeplitzError> {
    match given as u64 == expected {
        true => Ok(()),
        false => Err(ToeplitzError::Length { what, given, expected }),
    }
}
