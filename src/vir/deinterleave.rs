//! Loads of every second element become loads of all of them, and permutations.
//!
//! ```text
//! a = gather p by 8; b = gather p+4 by 8       lane l at 2*l elements
//! ->
//! x = load p; y = load p+64                    32 elements, of registers of 16
//! a = the even elements of x, y; b = the odd ones
//! ```
//! Columns of strided convolutions are such lanes: taps beside one another share their loads.
//!
//! A window of two registers is loaded from the first to the last element that its gathers want,
//! and what lies between two elements of a buffer is of the buffer: no load touches what the
//! verifier did not prove. A gather alone wants one element less than two registers hold, so the
//! second load of a whole one begins one element early. Elements beyond the window are zero, as
//! lanes beyond the mask of a gather are; gathers whose masks differ share a window only where that
//! holds for each.
//!
//! Does not: gathers whose lanes lie further apart, which [`permute`](super::permute) sees.

use rustc_hash::FxHashMap as HashMap;
use std::collections::BTreeMap;

use super::{
    Deinterleave, Gather, Lane, LaneNumbers, Mask, Op, Place, Step, Stream, Value, VectorType,
};
use crate::target::{DEINTERLEAVED, VectorUnit};

/// Elements from lane to lane.
const STEP: i64 = DEINTERLEAVED.cast_signed();

/// Gathers from one stream, of elements of as many bytes, in registers of as many lanes.
type Alike = (Stream, i64, i64);

/// The displacement of a gather, its value and its mask.
type Gathered = (i64, Value, Mask);

/// Rewrites the gathers of a line, whose values have these types; defines others.
pub(super) fn form_deinterleaves(
    line: Vec<Step>,
    types: &mut Vec<VectorType>,
    unit: VectorUnit,
) -> Vec<Step> {
    let windows = windows(&line, types);
    if windows.is_empty() {
        return line;
    }
    let mut writer = Writer { types, indexed: unit.permutes_two, steps: vec![], known: vec![] };
    for step in line {
        let gather = step.gather();
        match gather.and_then(|gather| Some((gather, windows.get(&gather.value)?))) {
            Some((Gather { place, value, .. }, (window, phase))) => {
                writer.gather(value, place.stream, window, *phase);
            }
            None => writer.steps.push(step),
        }
    }
    writer.steps
}

/// Two registers of neighbouring elements.
#[derive(Clone, Debug)]
struct Window {
    displacement: i64,
    /// The gathers of the even elements and of the odd ones.
    gathers: [Option<(Value, Mask)>; 2],
}

impl Window {
    /// Takes a gather of the odd elements, of so many bytes, if the even ones are there and none
    /// reads what another one leaves zero.
    fn admits(&mut self, displacement: i64, elem: i64, lanes: i64, gather: (Value, Mask)) -> bool {
        let beside = displacement.saturating_sub(self.displacement) == elem;
        let [even, None] = self.gathers else { return false };
        let both = Window { gathers: [even, Some(gather)], ..*self };
        let admitted = beside && both.is_exact(lanes);
        if admitted {
            *self = both;
        }
        admitted
    }

    /// The gathers and their phases.
    fn phases(&self) -> impl Iterator<Item = (i64, Value, Mask)> + '_ {
        let phases = (0_i64..).zip(&self.gathers);
        phases.filter_map(|(phase, gather)| gather.map(|(value, mask)| (phase, value, mask)))
    }

    /// The first element that is wanted, and the one after the last.
    fn wanted(&self) -> (i64, i64) {
        let first = self.phases().map(|(phase, _, mask)| element(mask.first, phase)).min();
        let last = self
            .phases()
            .map(|(phase, _, mask)| element(mask.lanes.saturating_sub(1), phase).saturating_add(1));
        (first.unwrap_or(0), last.max().unwrap_or(0))
    }

    /// Whether lanes beyond the mask of each gather are elements beyond those that are wanted.
    fn is_exact(&self, lanes: i64) -> bool {
        let (first, end) = self.wanted();
        self.phases().all(|(phase, _, mask)| {
            let before = mask.first == 0 || element(mask.first.saturating_sub(1), phase) < first;
            let behind = mask.lanes >= lanes || element(mask.lanes, phase) >= end;
            before && behind
        })
    }

    /// The loads of a window: where each begins, in elements, and its first element and the one
    /// after its last, from there on.
    fn loads(&self, lanes: i64) -> [(i64, i64, i64); 2] {
        let (first, end) = self.wanted();
        let within = |begin: i64| {
            let number = |element: i64| element.saturating_sub(begin).clamp(0, lanes);
            (begin, number(first), number(end))
        };
        // Of a gather alone, whose last lane ends one element before the window.
        let alone = matches!(self.gathers, [_, None]);
        let whole = end == lanes.saturating_mul(2).saturating_sub(1) && first < lanes;
        let early = alone && whole;
        [within(0), within(if early { lanes.saturating_sub(1) } else { lanes })]
    }
}

/// The element of a window that a lane of a phase is.
fn element(lane: i64, phase: i64) -> i64 {
    lane.saturating_mul(STEP).saturating_add(phase)
}

/// The window of each gather, and its phase there.
fn windows(line: &[Step], types: &[VectorType]) -> HashMap<Value, (Window, u8)> {
    let mut kinds: BTreeMap<Alike, Vec<Gathered>> = BTreeMap::new();
    for Gather { place, mask, bytes, value } in line.iter().filter_map(Step::gather) {
        let (elem, lanes) = (types[value].lane_bytes(), types[value].lanes);
        if bytes == elem.saturating_mul(STEP) && mask.first < mask.lanes {
            let kind = kinds.entry((place.stream, elem, lanes)).or_default();
            kind.push((place.displacement, value, mask));
        }
    }
    let mut result = HashMap::default();
    for ((_, elem, lanes), gathers) in kinds {
        for window in windows_of_kind(gathers, elem, lanes) {
            for (phase, (value, _)) in (0..).zip(window.gathers).filter_map(|(p, g)| Some((p, g?)))
            {
                result.insert(value, (window.clone(), phase));
            }
        }
    }
    result
}

/// The windows of gathers that are alike but for their places and masks: each begins with the first
/// that is in no other.
fn windows_of_kind(mut gathers: Vec<Gathered>, elem: i64, lanes: i64) -> Vec<Window> {
    gathers.sort_unstable_by_key(|(displacement, value, _)| (*displacement, *value));
    let mut windows: Vec<Window> = Vec::new();
    for (displacement, value, mask) in gathers {
        let last = windows.last_mut();
        if !last.is_some_and(|window| window.admits(displacement, elem, lanes, (value, mask))) {
            windows.push(Window { displacement, gathers: [Some((value, mask)), None] });
        }
    }
    windows
}

/// The steps of a line.
struct Writer<'t> {
    types: &'t mut Vec<VectorType>,
    /// Whether lanes of two registers are taken by an index.
    indexed: bool,
    steps: Vec<Step>,
    /// What was defined: loads, indices and zeros.
    known: Vec<(Op, Value)>,
}

impl Writer<'_> {
    /// Every second element of a window.
    fn gather(&mut self, value: Value, stream: Stream, window: &Window, phase: u8) {
        let VectorType { lane, lanes } = self.types[value];
        let elem = self.types[value].lane_bytes();
        let loads = window.loads(lanes);
        let values = loads.map(|(begin, first, end)| {
            let away = begin.saturating_mul(elem);
            let displacement = window.displacement.saturating_add(away);
            let mask = Mask { first, lanes: end, limit: None };
            let load = match first < end {
                true => Op::Load(Place { stream, displacement }, mask),
                false => Op::Const(0),
            };
            self.once(lane, load)
        });
        // What begins one element early has the others' even elements as odd ones.
        let early = u8::from(loads[1].0 < lanes);
        let deinterleave = Deinterleave { phases: [phase, phase | early] };
        let (Lane::Elem(of) | Lane::Index(of)) = lane;
        let numbers = Op::Index(LaneNumbers::Deinterleave(deinterleave));
        let index = self.indexed.then(|| self.once(Lane::Index(of), numbers));
        self.steps.push(Step::Define(value, Op::Deinterleave(values, index, deinterleave)));
    }

    /// The value of an operation, defined if it is new.
    fn once(&mut self, lane: Lane, op: Op) -> Value {
        if let Some((_, value)) = self.known.iter().find(|(known, _)| *known == op) {
            return *value;
        }
        let value = self.types.len();
        let lanes = self.types.last().map_or(0, |ty| ty.lanes);
        self.types.push(VectorType { lane, lanes });
        self.steps.push(Step::Define(value, op.clone()));
        self.known.push((op, value));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: Mask = Mask { first: 0, lanes: 8, limit: None };

    fn windows_of(gathers: &[(i64, Mask)]) -> Vec<Window> {
        let gathers = (0..).zip(gathers).map(|(value, (at, mask))| (*at, value, *mask)).collect();
        windows_of_kind(gathers, 4, 8)
    }

    #[test]
    fn neighbours_share_a_window_and_the_rest_is_alone() {
        let windows = windows_of(&[(4, WHOLE), (-4, WHOLE), (0, WHOLE)]);
        let places: Vec<_> = windows.iter().map(|window| window.displacement).collect();
        assert_eq!(places, [-4, 4]);
        assert_eq!(windows[0].loads(8), [(0, 0, 8), (8, 0, 8)]);
        // The last of 15 elements ends the second load.
        assert_eq!(windows[1].loads(8), [(0, 0, 8), (7, 0, 8)]);
    }

    #[test]
    fn no_load_reaches_beyond_the_lanes_of_a_mask() {
        let mask = |first, lanes| Mask { first, lanes, limit: None };
        let padded = windows_of(&[(-4, mask(1, 8)), (0, WHOLE)]);
        assert_eq!(padded.len(), 1);
        assert_eq!(padded[0].loads(8), [(0, 1, 8), (8, 0, 8)]);
        let few = windows_of(&[(0, mask(0, 6))]);
        assert_eq!(few[0].loads(8), [(0, 0, 8), (8, 0, 3)]);
        // The odd gather has one lane less, so the even one's last element ends no second load.
        let border = windows_of(&[(0, WHOLE), (4, mask(0, 7))]);
        assert_eq!(border.len(), 1);
        assert_eq!(border[0].loads(8), [(0, 0, 8), (8, 0, 7)]);
    }

    #[test]
    fn a_lane_that_is_masked_out_is_not_read_for_another_gather() {
        let end = Mask { first: 4, lanes: 8, limit: None };
        assert_eq!(windows_of(&[(0, WHOLE), (4, end)]).len(), 2);
    }
}
