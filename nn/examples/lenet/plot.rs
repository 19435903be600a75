//! A curve and some pictures as SVG, which is text.

use std::fmt::Write;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 240.0;
const MARGIN: f64 = 40.0;

/// Points of the curve at most: each is the mean of neighbours.
const POINTS: usize = 200;

/// The loss over the steps, and below it each filter, `size` by `size`, black where it is smallest.
pub fn picture(losses: &[f64], filters: &[&[f32]], size: usize) -> String {
    let height = HEIGHT + 3.0 * MARGIN + cell(size) * size as f64;
    let width = WIDTH + 2.0 * MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    curve(&mut svg, losses);
    for (number, filter) in filters.iter().enumerate() {
        let left = MARGIN + number as f64 * (cell(size) * size as f64 + MARGIN / 2.0);
        square(&mut svg, filter, size, left, HEIGHT + 2.0 * MARGIN);
    }
    svg + "</svg>\n"
}

/// The side of an element of a filter.
fn cell(size: usize) -> f64 {
    80.0 / size as f64
}

fn curve(svg: &mut String, losses: &[f64]) {
    let each = losses.len().div_ceil(POINTS).max(1);
    let means: Vec<f64> =
        losses.chunks(each).map(|c| c.iter().sum::<f64>() / c.len() as f64).collect();
    let highest = means.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let (bottom, right) = (MARGIN + HEIGHT, MARGIN + WIDTH);
    let last = (means.len().max(2) - 1) as f64;
    let mut points = String::new();
    for (i, mean) in means.iter().enumerate() {
        let (x, y) = (MARGIN + WIDTH * i as f64 / last, bottom - HEIGHT * mean / highest);
        // Writing to a string does not fail.
        let _ = write!(points, "{x:.1},{y:.1} ");
    }
    let _ = write!(
        svg,
        "<path d=\"M{MARGIN},{MARGIN} V{bottom} H{right}\" fill=\"none\" stroke=\"black\"/>\n\
         <polyline points=\"{points}\" fill=\"none\" stroke=\"steelblue\" stroke-width=\"2\"/>\n\
         <text x=\"{}\" y=\"{}\">loss {highest:.2}</text>\n\
         <text x=\"{right}\" y=\"{}\" text-anchor=\"end\">step {}</text>\n",
        MARGIN + 6.0,
        MARGIN - 6.0,
        bottom + 18.0,
        losses.len(),
    );
}

fn square(svg: &mut String, values: &[f32], size: usize, left: f64, top: f64) {
    let low = values.iter().copied().fold(f32::INFINITY, f32::min);
    let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let side = cell(size);
    for (i, value) in values.iter().enumerate() {
        let grey = (255.0 * (value - low) / (high - low).max(f32::MIN_POSITIVE)) as u8;
        let (x, y) = (left + side * (i % size) as f64, top + side * (i / size) as f64);
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{side}\" height=\"{side}\" \
             fill=\"rgb({grey},{grey},{grey})\"/>"
        );
    }
}
