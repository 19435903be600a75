//! Tensors in `.npy` files: 32-bit floats, of the shape the problem asks for.
//!
//! Promises: no file, however broken, makes it panic or reserve more memory than the file is long;
//! both orders of the elements are read; refusals say what was expected and what was found.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use ndarray::ArrayViewD;
use ndarray_npy::{ViewNpyError, ViewNpyExt, WriteNpyExt};

use super::failure::Hint;

/// The product of all sizes other than zero that a header may state.
const MAX_SIZES: u64 = 1 << 48;

/// A tensor as a file holds it.
#[derive(Debug)]
pub struct Tensor {
    /// The sizes, outermost first.
    pub shape: Vec<u64>,
    /// The elements in row-major order.
    pub values: Vec<f32>,
}

/// Reads a tensor and checks its shape; a `None` among the sizes expected stands for any.
pub fn read(path: &Path, what: &str, expected: &[Option<u64>]) -> anyhow::Result<Tensor> {
    let place = || format!("{what} `{}`", path.display());
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", place()))?;
    let tensor = parse(&bytes)
        .with_context(place)
        .hint(|| "save it with numpy.save(path, array.astype('<f4'))".to_owned())?;
    let fits = tensor.shape.len() == expected.len()
        && tensor.shape.iter().zip(expected).all(|(given, want)| want.is_none_or(|w| w == *given));
    if !fits {
        let given = &tensor.shape;
        bail!("{} has shape {given:?}, expected {}", place(), shape_text(expected));
    }
    Ok(tensor)
}

/// Writes a tensor in row-major order.
pub fn write(path: &Path, shape: &[u64], values: &[f32]) -> anyhow::Result<()> {
    let sizes: Vec<usize> = shape.iter().map(|&size| size as usize).collect();
    let view = ArrayViewD::from_shape(sizes, values)?;
    let save = || {
        let mut file = BufWriter::new(File::create(path)?);
        view.write_npy(&mut file)?;
        anyhow::Ok(file.flush()?)
    };
    save().with_context(|| format!("cannot write `{}`", path.display()))
}

fn parse(bytes: &[u8]) -> anyhow::Result<Tensor> {
    check_header(bytes)?;
    let view = ArrayViewD::<f32>::view_npy(bytes).map_err(|error| explained(&error))?;
    let shape = view.shape().iter().map(|&size| size as u64).collect();
    // Iteration is in row-major order, whatever the order in memory.
    Ok(Tensor { shape, values: view.iter().copied().collect() })
}

/// Refuses what would bring the reader of headers down: deep nesting, and sizes that overflow.
fn check_header(bytes: &[u8]) -> anyhow::Result<()> {
    let Some(rest) = bytes.strip_prefix(b"\x93NUMPY") else {
        bail!("no .npy file: it does not begin with \\x93NUMPY");
    };
    let header = match rest {
        [1, _, a, b, rest @ ..] => rest.get(..usize::from(u16::from_le_bytes([*a, *b]))),
        [2 | 3, _, a, b, c, d, rest @ ..] => {
            usize::try_from(u32::from_le_bytes([*a, *b, *c, *d])).ok().and_then(|n| rest.get(..n))
        }
        _ => None,
    };
    let header = header.ok_or_else(|| anyhow!("the file ends inside its header"))?;
    let header = String::from_utf8_lossy(header);
    let strange = || anyhow!("the header describes no plain array: {}", header.trim_end());
    if header.matches(['(', '[', '{']).count() != 2 {
        return Err(strange());
    }
    let (_, shape) = header.split_once('(').ok_or_else(strange)?;
    let (shape, _) = shape.split_once(')').ok_or_else(strange)?;
    let sizes = shape.split(',').map(str::trim).filter(|size| !size.is_empty());
    let sizes: Result<Vec<u64>, _> = sizes.map(str::parse).collect();
    let nonzero = sizes.map_err(|_| strange())?.into_iter().filter(|&size| size != 0);
    let product = nonzero.into_iter().try_fold(1u64, u64::checked_mul);
    match product {
        Some(product) if product <= MAX_SIZES => Ok(()),
        Some(_) | None => bail!("shape ({shape}) has too many elements"),
    }
}

fn explained(error: &ViewNpyError) -> anyhow::Error {
    match error {
        ViewNpyError::WrongDescriptor(found) => {
            anyhow!("elements are of type {found}, expected '<f4' (32-bit floats)")
        }
        ViewNpyError::NonNativeEndian => {
            anyhow!("elements have the byte order of another machine, expected '<f4'")
        }
        ViewNpyError::MissingBytes(missing) => {
            anyhow!("the file is truncated: {missing} bytes are missing")
        }
        ViewNpyError::ExtraBytes(extra) => anyhow!("{extra} bytes follow the array"),
        _ => anyhow!("{error}"),
    }
}

/// `[N, 32, 32, 3]`.
fn shape_text(expected: &[Option<u64>]) -> String {
    let size = |size: &Option<u64>| size.map_or("N".to_owned(), |size| size.to_string());
    let sizes: Vec<String> = expected.iter().map(size).collect();
    format!("[{}]", sizes.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[f32]) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        // The data begins at a multiple of 64, as numpy writes it.
        let header = format!("{header:<117}\n");
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data.iter().flat_map(|x| x.to_le_bytes()));
        bytes
    }

    fn header(descr: &str, fortran: &str, shape: &str) -> String {
        format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}")
    }

    fn refusal(bytes: &[u8]) -> String {
        format!("{:#}", parse(bytes).unwrap_err())
    }

    #[test]
    fn both_orders_are_read() {
        let data = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let c = parse(&file(&header("<f4", "False", "(2, 3)"), &data)).unwrap();
        assert_eq!((c.shape, c.values), (vec![2, 3], data.to_vec()));
        let fortran = parse(&file(&header("<f4", "True", "(2, 3)"), &data)).unwrap();
        assert_eq!(fortran.values, [1.0, 3.0, 5.0, 2.0, 4.0, 6.0]);
    }

    #[test]
    fn broken_files_are_refused_with_the_reason() {
        let good = file(&header("<f4", "False", "(3,)"), &[1.0, 2.0, 3.0]);
        assert_eq!(refusal(&good[..good.len() - 5]), "the file is truncated: 5 bytes are missing");
        assert_eq!(refusal(&good[..40]), "the file ends inside its header");
        assert_eq!(refusal(&[&good[..], &[0; 3]].concat()), "3 bytes follow the array");
        assert!(refusal(b"PK").starts_with("no .npy file"));
        let doubles = file(&header("<f8", "False", "(3,)"), &[0.0; 6]);
        assert_eq!(refusal(&doubles), "elements are of type '<f8', expected '<f4' (32-bit floats)");
    }

    #[test]
    fn hostile_headers_do_not_bring_the_reader_down() {
        for shape in
            ["(18446744073709551616,)", "(0, 99999999999, 99999999999)", "(0x10,)", "(-1,)"]
        {
            let _ = refusal(&file(&header("<f4", "False", shape), &[]));
        }
        let _ = refusal(&file(&format!("{{'shape': {}", "(".repeat(60_000)), &[]));
        let _ = refusal(&file(&header("<f4", "False", "(1099511627776,)"), &[1.0]));
    }

    #[test]
    fn every_prefix_and_every_changed_byte_is_survived() {
        let good = file(&header("<f4", "False", "(2, 1)"), &[1.0, 2.0]);
        for end in 0..good.len() {
            let _ = refusal(&good[..end]);
        }
        for at in 0..good.len() {
            for byte in [0, b'(', b'9', b'\'', 0xff] {
                let mut bad = good.clone();
                bad[at] = byte;
                let _ = parse(&bad);
            }
        }
    }
}
