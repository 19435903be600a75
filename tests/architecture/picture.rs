//! The modules as boxes in rows, one a floor, with an arrow for each import that no others imply.

use std::collections::BTreeMap;
use std::fmt::Write;

const WIDTH: usize = 96;
const HEIGHT: usize = 26;
/// Between boxes, and between floors.
const GAP: usize = 14;
const RISE: usize = 64;
const MARGIN: usize = 10;

/// The picture as SVG.
pub fn draw(floors: &[Vec<String>], imports: &BTreeMap<String, Vec<String>>) -> String {
    let widest = floors.iter().map(Vec::len).max().unwrap_or(0);
    let full = widest * (WIDTH + GAP) - GAP;
    let (width, height) = (full + 2 * MARGIN, (floors.len() - 1) * RISE + HEIGHT + 2 * MARGIN);
    let mut places: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (number, floor) in floors.iter().rev().enumerate() {
        let row = floor.len() * (WIDTH + GAP) - GAP;
        for (column, name) in floor.iter().enumerate() {
            let x = MARGIN + (full - row) / 2 + column * (WIDTH + GAP);
            places.insert(name, (x, MARGIN + number * RISE));
        }
    }
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <title>Modules of the library: each imports from those below it</title>\n\
         <defs><marker id=\"head\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"7\" \
         markerHeight=\"7\" orient=\"auto\"><path d=\"M0 0 8 4 0 8z\" fill=\"#888\"/></marker></defs>\n"
    );
    for (name, others) in imports {
        let implied = |other: &str| {
            others.iter().any(|between| between != other && reaches(imports, between, other))
        };
        for other in others.iter().filter(|other| !implied(other)) {
            let ((x, y), (to_x, to_y)) = (places[name.as_str()], places[other.as_str()]);
            let _ = writeln!(
                svg,
                "<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{to_y}\" stroke=\"#888\" \
                 marker-end=\"url(#head)\"/>",
                x + WIDTH / 2,
                y + HEIGHT,
                to_x + WIDTH / 2,
            );
        }
    }
    for (name, (x, y)) in &places {
        let (middle, base) = (x + WIDTH / 2, y + 17);
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"4\" fill=\"#eef3fa\" \
             stroke=\"#456\"/><text x=\"{middle}\" y=\"{base}\" text-anchor=\"middle\">{name}</text>"
        );
    }
    svg + "</svg>\n"
}

fn reaches(imports: &BTreeMap<String, Vec<String>>, from: &str, to: &str) -> bool {
    imports[from].iter().any(|other| other == to || reaches(imports, other, to))
}
