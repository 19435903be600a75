//! Digits in MNIST's files: the sizes as big-endian integers, then a byte an element.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use anyhow::{Context, bail, ensure};
use flate2::read::GzDecoder;

/// The pixels of an image: 28 rows of 28.
pub const PIXELS: usize = 28 * 28;

/// Images with what they show.
pub struct Digits {
    /// Grey values from 0 to 1, [`PIXELS`] an image.
    pub images: Vec<f32>,
    /// One an image, from 0 to 9.
    pub labels: Vec<u8>,
}

impl Digits {
    /// Reads a part of the set, `train` or `t10k`, of a directory.
    pub fn read(directory: &Path, part: &str) -> anyhow::Result<Digits> {
        let path = |kind: &str| directory.join(format!("{part}-{kind}-ubyte"));
        let pixels = read_array(&path("images-idx3"), &[28, 28])?;
        let labels = read_array(&path("labels-idx1"), &[])?;
        let (images, expected) = (pixels.len() / PIXELS, labels.len());
        ensure!(images == expected, "{images} images of `{part}` have {expected} labels");
        ensure!(images > 0, "there are no images in `{part}`");
        let images = pixels.into_iter().map(|pixel| f32::from(pixel) / 255.0).collect();
        Ok(Digits { images, labels })
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }
}

/// The elements of an array of bytes of any number of items, each of these sizes.
fn read_array(path: &Path, item: &[u32]) -> anyhow::Result<Vec<u8>> {
    let bytes = read_file(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    parse(&bytes, item).with_context(|| format!("in `{}`", path.display()))
}

/// The bytes of a file, or of one with `.gz` behind its name.
fn read_file(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(mut file) => file.read_to_end(&mut bytes)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let file = File::open(path.with_added_extension("gz"))?;
            GzDecoder::new(file).read_to_end(&mut bytes)?
        }
        Err(error) => return Err(error.into()),
    };
    Ok(bytes)
}

fn parse(bytes: &[u8], item: &[u32]) -> anyhow::Result<Vec<u8>> {
    /// Two zeros, and the code of unsigned bytes.
    const MAGIC: [u8; 3] = [0, 0, 8];
    let head = 4 + 4 * (item.len() + 1);
    ensure!(bytes.len() >= head, "{} bytes are no array", bytes.len());
    let dimensions = item.len() as u8 + 1;
    if bytes[..3] != MAGIC || bytes[3] != dimensions {
        bail!("it begins with {:?}, not as {dimensions} dimensions of bytes do", &bytes[..4]);
    }
    let words = bytes[4..head].chunks_exact(4);
    let sizes: Vec<u32> = words.map(|w| u32::from_be_bytes([w[0], w[1], w[2], w[3]])).collect();
    ensure!(sizes[1..] == *item, "an item has the sizes {:?}, expected {item:?}", &sizes[1..]);
    let expected = sizes.iter().map(|&size| u128::from(size)).product::<u128>();
    let given = bytes.len() - head;
    ensure!(given as u128 == expected, "it has {given} elements, {expected} for {sizes:?}");
    Ok(bytes[head..].to_vec())
}
