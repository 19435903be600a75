//! The look of results: JSON lines, tables, problems in short, progress.

use std::io::Write;
use std::ops::Range;

use comfy_table::{CellAlignment, LineStyle, Table, presets};
use convgen::timing::CacheState;
use convgen_ir::PaddingMode;
use convgen_ir::problem::{ConvProblem, Descriptor, Direction, SpatialAxis};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// Writes one object on one line, at once: whoever reads along sees it when it is known.
pub fn json_line(out: &mut impl Write, value: &impl Serialize) -> anyhow::Result<()> {
    writeln!(out, "{}", serde_json::to_string(value)?)?;
    out.flush()?;
    Ok(())
}

/// A table with these columns, to be filled; numbers are aligned at their last digit.
pub fn table(columns: &[&str], numbers: Range<usize>) -> Table {
    let mut table = Table::new();
    let style = presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none());
    table.load_style(style).set_header(columns.to_vec());
    for column in numbers {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// As [`table`], of many columns: what comes first stands two spaces apart, numbers and what
/// follows one.
pub fn close_table(columns: &[&str], numbers: Range<usize>) -> Table {
    let mut table = table(columns, numbers.clone());
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, u16::from(at < numbers.start)));
    }
    table
}

/// What a table of timings begins with: what the caches held, and which call its times are of.
pub fn caches_line(caches: CacheState) -> String {
    let figure = caches.figure();
    match caches {
        CacheState::Warm => format!("warm caches: ms is the {figure} call"),
        CacheState::Cold => {
            format!("cold caches, emptied before each call: ms is the {figure} call")
        }
    }
}

/// A bar on standard error, if that is a terminal.
pub fn progress(steps: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:32} {pos}/{len} {elapsed} {wide_msg}");
    let bar = ProgressBar::new(steps as u64);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// The name, or the problem in short if it has none.
pub fn title(descriptor: &Descriptor) -> String {
    descriptor.name.clone().unwrap_or_else(|| short(&descriptor.problem))
}

/// The problem in few words: what is 1, 0 or dense is left out, what all axes have alike is said
/// once, and the channels are left out where each is a group of its own.
pub fn short(problem: &ConvProblem) -> String {
    let axes = |field: fn(&SpatialAxis) -> String| alike(problem, field);
    let mut words = Vec::new();
    if problem.batch() != 1 {
        words.push(format!("n{}", problem.batch()));
    }
    if problem.groups() != 1 {
        words.push(format!("g{}", problem.groups()));
    }
    let channels = [problem.in_channels(), problem.out_channels()];
    let each = problem.groups() != 1 && channels == [problem.groups(); 2];
    words.extend((!each).then(|| match problem.direction() {
        Direction::Transposed => format!("{}->{}", problem.out_channels(), problem.in_channels()),
        Direction::Forward
        | Direction::BackwardData
        | Direction::BackwardWeights
        | Direction::BackwardBias => {
            format!("{}->{}", problem.in_channels(), problem.out_channels())
        }
    }));
    words.push(sizes(problem, |axis| axis.input.to_string()).join("x"));
    words.push(format!("k{}", axes(|axis| axis.kernel.to_string())));
    if problem.spatial().iter().any(|axis| axis.stride != 1) {
        words.push(format!("s{}", axes(|axis| axis.stride.to_string())));
    }
    if problem.spatial().iter().any(|axis| axis.dilation != 1) {
        words.push(format!("d{}", axes(|axis| axis.dilation.to_string())));
    }
    if problem.spatial().iter().any(|axis| (axis.pad_before, axis.pad_after) != (0, 0)) {
        words.push(format!("p{}", axes(padding)));
    }
    if problem.padding_mode() != PaddingMode::Zeros {
        words.push(problem.padding_mode().to_string());
    }
    words.join(" ")
}

/// Bytes with a unit that keeps the number short.
pub fn bytes(count: u64) -> String {
    match count {
        0..1024 => format!("{count} B"),
        1024..1_048_576 => format!("{:.1} KiB", count as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", count as f64 / 1_048_576.0),
        1_073_741_824.. => format!("{:.1} GiB", count as f64 / 1_073_741_824.0),
    }
}

fn padding(axis: &SpatialAxis) -> String {
    match (axis.pad_before, axis.pad_after) {
        (before, after) if before == after => before.to_string(),
        (before, after) => format!("{before}:{after}"),
    }
}

/// One value an axis.
fn sizes(problem: &ConvProblem, field: fn(&SpatialAxis) -> String) -> Vec<String> {
    problem.spatial().iter().map(field).collect()
}

/// One value if all axes have the same, else one an axis.
pub fn alike(problem: &ConvProblem, field: fn(&SpatialAxis) -> String) -> String {
    let mut values = sizes(problem, field);
    if values.iter().all(|value| *value == values[0]) {
        values.truncate(1);
    }
    values.join("x")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_problems_leave_out_what_is_usual() {
        let text = |text: &str| short(&text.parse().unwrap());
        assert_eq!(text("conv1d ic1 oc2 iw9 kw3"), "1->2 9 k3");
        assert_eq!(
            text("conv2d n2 g4 ic8 oc4 ih9 iw8 kh3 kw1 sh2 dw2 ph1:0"),
            "n2 g4 8->4 9x8 k3x1 s2x1 d1x2 p1:0x0"
        );
        assert_eq!(text("conv1d ic1 oc2 iw9 kw3 pw1 reflect"), "1->2 9 k3 p1 reflect");
        assert_eq!(text("conv2d ic1 oc2 ih9 iw9 kh3 kw3 sh2 sw2 ph1 pw1"), "1->2 9x9 k3 s2 p1");
        assert_eq!(text("conv2d g4 ic4 oc4 ih9 iw9 kh3 kw3 pw1"), "g4 9x9 k3 p0x1");
    }

    #[test]
    fn bytes_have_units() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(3 << 30), "3.0 GiB");
    }
}
