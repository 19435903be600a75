//! How many of the taps of a problem are not on padding.

use convgen_ir::problem::{ConvProblem, Direction, SpatialAxis};

/// The part of the taps that is not on padding: direct kernels skip the others.
pub(super) fn inside(problem: &ConvProblem) -> f64 {
    if problem.direction() != Direction::Forward {
        return 1.0;
    }
    let axis = |s: &SpatialAxis| {
        // Products whose tap lies before the input's end, less those before its beginning.
        let taps = taps_before(s, s.input as i64) - taps_before(s, 0);
        taps as f64 / (s.kernel * s.output()) as f64
    };
    problem.spatial().iter().map(axis).product()
}

/// Pairs of a tap and an output that read before a place of the input: of tap `k` the outputs below
/// `(place + pad - k*d) / s`, rounded up, but all at most.
fn taps_before(s: &SpatialAxis, place: i64) -> i64 {
    let (kernel, stride, dilation) = (s.kernel as i64, s.stride as i64, s.dilation as i64);
    let outputs = s.output() as i64;
    let end = place + s.pad_before + stride - 1;
    let taps = |outputs: i64| ((end - outputs * stride).div_euclid(dilation) + 1).clamp(0, kernel);
    // The first taps have all outputs, the last ones none.
    let (all, some) = (taps(outputs), taps(1));
    let first = end - (some - 1) * dilation;
    all * outputs + quotients(some - all, stride, dilation, first)
}

/// The sum of `(first + i*step) / by`, rounded down, over `i` from zero to `count - 1`; as fast as
/// Euclid's algorithm. All numbers are positive, or none is summed.
fn quotients(count: i64, by: i64, step: i64, first: i64) -> i64 {
    if count <= 0 {
        return 0;
    }
    let whole = count * (first / by) + (step / by) * (count * (count - 1) / 2);
    let (first, step) = (first % by, step % by);
    let most = i128::from(step) * i128::from(count) + i128::from(first);
    let (rows, rest) = (most / i128::from(by), most % i128::from(by));
    // The same points under the line, counted along the other axis.
    whole + if rows > 0 { quotients(rows as i64, step, by, rest as i64) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taps_are_counted_as_one_by_one() {
        for (kernel, stride, dilation, pad) in (0..2000).map(|i| {
            let number = |by: i64, below: i64| i / by % below;
            (1 + number(1, 7), 1 + number(7, 5), 1 + number(35, 6), number(210, 9) - 3)
        }) {
            let axis = SpatialAxis {
                input: 11,
                kernel: kernel as u64,
                stride: stride as u64,
                dilation: dilation as u64,
                pad_before: pad,
                pad_after: 30,
            };
            let reads = |k: i64, o: i64| o * stride + k * dilation - pad;
            for place in [0, 11] {
                let pairs =
                    (0..kernel).flat_map(|k| (0..axis.output() as i64).map(move |o| (k, o)));
                let counted = pairs.filter(|(k, o)| reads(*k, *o) < place).count() as i64;
                assert_eq!(taps_before(&axis, place), counted, "{axis:?} {place}");
            }
        }
    }

    #[test]
    fn long_kernels_are_counted_at_once() {
        let axis = SpatialAxis::new(1 << 31, 1 << 30);
        assert_eq!(taps_before(&axis, 1 << 31), (1 << 30) * ((1 << 30) + 1));
    }
}
