//! The edges of a picture: both Sobel derivatives as the two output channels of one convolution.
//!
//! ```sh
//! cargo run --example edges                       # a drawn disc, as text
//! cargo run --example edges photo.pgm edges.pgm   # a binary greymap (P5) of 8 bits
//! ```

use std::error::Error;
use std::fs;

use convgen::Compiler;
use convgen::ir::{ConvProblem, ConvSpec};

/// Weights are `[output channel, input channel, kernel row, kernel column]`.
#[rustfmt::skip]
const SOBEL: [f32; 18] = [
    -1.0,  0.0,  1.0,
    -2.0,  0.0,  2.0,
    -1.0,  0.0,  1.0,

    -1.0, -2.0, -1.0,
     0.0,  0.0,  0.0,
     1.0,  2.0,  1.0,
];

/// The root of 20: the longest gradient, of components 4 and 2, that grey values from 0 to 1 have.
const STRONGEST: f32 = 4.472_136;

/// Grey values from 0 to 1, row by row.
struct Picture {
    width: usize,
    height: usize,
    pixels: Vec<f32>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    match &paths[..] {
        [] => edges(&disc(72, 36))?.show(),
        [from, to] => fs::write(to, edges(&read_pgm(&fs::read(from)?)?)?.pgm())?,
        _ => return Err("expected no files, or two: edges IN.pgm OUT.pgm".into()),
    }
    Ok(())
}

/// The length of the gradient at every pixel whose neighbours are all in the picture.
fn edges(picture: &Picture) -> Result<Picture, Box<dyn Error>> {
    let (height, width) = (picture.height as u64, picture.width as u64);
    let problem = ConvProblem::new(ConvSpec::conv2d(1, 2, height, width, 3, 3))?;
    let kernel = Compiler::host()?.compile(&problem)?;
    let weights = kernel.pack_weights(&SOBEL)?;

    let shape = problem.output_shape(1);
    let mut gradients = vec![0.0; shape.iter().product::<u64>() as usize];
    kernel.run(&picture.pixels, &weights, None, &mut gradients)?;
    let length = |gradient: &[f32]| gradient[0].hypot(gradient[1]) / STRONGEST;
    Ok(Picture {
        height: shape[1] as usize,
        width: shape[2] as usize,
        pixels: gradients.chunks_exact(2).map(length).collect(),
    })
}

/// A bright disc on a dark ground; a character is twice as high as it is wide.
fn disc(width: usize, height: usize) -> Picture {
    let inside = |i: usize| {
        let x = (i % width) as f32 / width as f32 - 0.5;
        let y = (i / width) as f32 / height as f32 - 0.5;
        x.hypot(y) < 0.4
    };
    let pixels = (0..width * height).map(|i| f32::from(u8::from(inside(i)))).collect();
    Picture { width, height, pixels }
}

/// Reads `P5 width height 255`, one byte of white space, then a byte a pixel.
fn read_pgm(bytes: &[u8]) -> Result<Picture, Box<dyn Error>> {
    let mut fields = Vec::new();
    let mut rest = bytes;
    while fields.len() < 4 {
        let start = rest.iter().position(|b| !b.is_ascii_whitespace()).ok_or("no header")?;
        let end = rest[start..].iter().position(u8::is_ascii_whitespace).ok_or("no pixels")?;
        fields.push(std::str::from_utf8(&rest[start..start + end])?);
        rest = &rest[start + end..];
    }
    let (width, height) = (fields[1].parse()?, fields[2].parse()?);
    let pixels: Vec<f32> = rest[1..].iter().map(|&byte| f32::from(byte) / 255.0).collect();
    if fields[0] != "P5" || fields[3] != "255" || pixels.len() != width * height {
        return Err("expected a binary greymap of 8 bits without comments".into());
    }
    Ok(Picture { width, height, pixels })
}

impl Picture {
    fn pgm(&self) -> Vec<u8> {
        let mut bytes = format!("P5 {} {} 255\n", self.width, self.height).into_bytes();
        bytes.extend(self.pixels.iter().map(|grey| (grey * 255.0).min(255.0) as u8));
        bytes
    }

    fn show(&self) {
        const SHADES: [char; 5] = [' ', '.', 'o', 'O', '@'];
        for row in self.pixels.chunks(self.width) {
            let shade = |grey: &f32| SHADES[((grey * 5.0) as usize).min(4)];
            println!("{}", row.iter().map(shade).collect::<String>().trim_end());
        }
    }
}
