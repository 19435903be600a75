//! Brings together loads and stores whose lanes lie apart but which are neighbours of one another.
//!
//! ```text
//! a = gather p; b = gather p+4; c = gather p+12    lane l at bytes S*l
//! ->
//! a, b, -, c = gather p..p+16                      four elements of each lane, transposed
//! ```
//! and the same for stores, where as many as a register has lanes become one step. A copy from
//! channels-first to channels-last memory is made of such loads, a tile whose rows are pixels and
//! whose lanes are channels of such stores. Each element is loaded and stored as before, so no bit
//! changes.
//!
//! Stores wait for their neighbours as long as no step comes that could see the difference: loads
//! do not, since a line reads no memory that it writes; nor do stores through the same pointer to
//! other bytes.

use rustc_hash::FxHashSet as HashSet;
use std::collections::BTreeMap;

use super::{Gather, Mask, Place, QUAD, Step, Stream, Value, VectorType};

/// The place of the last element of a quad.
const LAST: i64 = 3;

/// Gathers of as many lanes, as far apart, of elements of as many bytes.
type Alike = (Stream, i64, i64, i64);

/// Gathers and scatters that are alike but for their displacement.
type Kind = (Stream, Mask, i64);

/// Brings together what a line loads and stores, of values of these types.
pub(super) fn form_transposes(line: Vec<Step>, types: &[VectorType]) -> Vec<Step> {
    let mut quads = quads(&line, types);
    let mut result = Vec::with_capacity(line.len());
    let mut waiting = Waiting::default();
    for step in line {
        match step {
            Step::Gather(place, mask, bytes, values) => {
                let value = values.into_iter().flatten().next();
                // A quad stands where the first of its members did.
                result.extend(value.and_then(|value| quads.remove_of(value)).map(
                    |Quad { displacement, members }| {
                        Step::Gather(Place { displacement, ..place }, mask, bytes, members)
                    },
                ));
            }
            Step::Scatter(place, mask, bytes, values) => {
                if !waiting.admits(place, mask, bytes) {
                    std::mem::take(&mut waiting).finish(types, &mut result);
                }
                waiting.add(place, mask, bytes, values);
            }
            Step::Define(..) | Step::Prefetch(..) => result.push(step),
            Step::Write(..) | Step::Accumulate(..) | Step::Store(..) => {
                std::mem::take(&mut waiting).finish(types, &mut result);
                result.push(step);
            }
        }
    }
    waiting.finish(types, &mut result);
    result
}

/// Four neighbouring elements of every lane, and what those that are wanted are called.
#[derive(Clone, Debug)]
struct Quad {
    displacement: i64,
    members: [Option<Value>; QUAD],
}

impl Quad {
    /// Takes a load at that place, if it is of one of the four elements.
    fn admits(&mut self, displacement: i64, elem: i64, value: Value) -> bool {
        let away = displacement.saturating_sub(self.displacement);
        let mut places = (0_i64..).zip(&mut self.members);
        match places.find(|(place, _)| place.saturating_mul(elem) == away) {
            Some((_, member)) => {
                *member = Some(value);
                true
            }
            None => false,
        }
    }
}

/// The quads of a line that are still to be loaded.
struct Quads(Vec<Quad>);

impl Quads {
    /// Takes the quad that a value is of.
    fn remove_of(&mut self, value: Value) -> Option<Quad> {
        let at = self.0.iter().position(|quad| quad.members.contains(&Some(value)))?;
        Some(self.0.swap_remove(at))
    }
}

/// Groups the gathers of a line. A quad reads nothing before the first and beyond the last gather
/// of its kind: what lies between two elements of a buffer is of the buffer.
fn quads(line: &[Step], types: &[VectorType]) -> Quads {
    let mut kinds: BTreeMap<Alike, Vec<(i64, Value)>> = BTreeMap::new();
    for Gather { place, mask, bytes, value } in line.iter().filter_map(Step::gather) {
        let kind = (place.stream, mask.lanes, bytes, types[value].lane_bytes());
        kinds.entry(kind).or_default().push((place.displacement, value));
    }
    let each = kinds.into_iter();
    Quads(each.flat_map(|((.., elem), gathers)| quads_of_kind(gathers, elem)).collect())
}

/// The quads of loads that are alike but for their displacements, of elements of so many bytes.
fn quads_of_kind(mut gathers: Vec<(i64, Value)>, elem: i64) -> Vec<Quad> {
    let reach = LAST.saturating_mul(elem);
    gathers.sort_unstable();
    let (Some((least, _)), Some((most, _))) = (gathers.first().copied(), gathers.last().copied())
    else {
        return vec![];
    };
    let mut result: Vec<Quad> = Vec::new();
    for (displacement, value) in gathers {
        if result.last_mut().is_some_and(|quad| quad.admits(displacement, elem, value)) {
            continue;
        }
        // The last one reaches back instead of beyond the end.
        let back = displacement.saturating_sub(most.saturating_sub(reach)).max(0);
        let whole = back <= displacement.saturating_sub(least) && back.checked_rem(elem) == Some(0);
        let back = if whole { back } else { 0 };
        let first = displacement.saturating_sub(back);
        let mut quad = Quad { displacement: first, members: [None; QUAD] };
        quad.admits(displacement, elem, value);
        result.push(quad);
    }
    // A quad that would go on beyond the end is single elements.
    let fits = |quad: &Quad| quad.displacement <= most.saturating_sub(reach);
    let single = |quad: Quad| {
        let members = (0_i64..).zip(quad.members);
        let each = members.filter_map(move |(place, value)| {
            let away = place.saturating_mul(elem);
            let displacement = quad.displacement.saturating_add(away);
            value.map(|value| Quad { displacement, members: [Some(value), None, None, None] })
        });
        each.collect::<Vec<_>>()
    };
    let split = |quad: Quad| {
        let several = quad.members.iter().flatten().count() > 1;
        if several && fits(&quad) { vec![quad] } else { single(quad) }
    };
    result.into_iter().flat_map(split).collect()
}

/// Stores that wait for their neighbours.
#[derive(Default)]
struct Waiting {
    stores: Vec<(Place, Mask, i64, Value)>,
    /// The displacements that they write.
    written: HashSet<i64>,
    stream: Option<Stream>,
}

impl Waiting {
    fn touched(place: Place, mask: Mask, bytes: i64) -> impl Iterator<Item = i64> {
        mask.numbers().map(move |lane| place.lane(lane, bytes).displacement)
    }

    /// Whether a store may change places with all that wait.
    fn admits(&self, place: Place, mask: Mask, bytes: i64) -> bool {
        self.stream.is_none_or(|stream| stream == place.stream)
            && !Waiting::touched(place, mask, bytes).any(|byte| self.written.contains(&byte))
    }

    fn add(&mut self, place: Place, mask: Mask, bytes: i64, values: Vec<Value>) {
        self.stream = Some(place.stream);
        self.written.extend(Waiting::touched(place, mask, bytes));
        self.stores.extend(values.into_iter().map(|value| (place, mask, bytes, value)));
    }

    fn finish(self, types: &[VectorType], result: &mut Vec<Step>) {
        let mut kinds: Vec<(Kind, Vec<(i64, Value)>)> = Vec::new();
        for (place, mask, bytes, value) in self.stores {
            let kind = (place.stream, mask, bytes);
            let member = (place.displacement, value);
            match kinds.iter_mut().find(|(other, _)| *other == kind) {
                Some((_, members)) => members.push(member),
                None => kinds.push((kind, vec![member])),
            }
        }
        for ((stream, mask, bytes), mut members) in kinds {
            members.sort_unstable();
            let Some(ty) = members.first().map(|(_, value)| types[*value]) else { continue };
            let width = usize::try_from(ty.lanes).unwrap_or(1);
            let neighbours = members.chunk_by(|a, b| b.0.saturating_sub(a.0) == ty.lane_bytes());
            for group in neighbours.flat_map(|neighbours| neighbours.chunks(width)) {
                let place = Place { stream, displacement: group[0].0 };
                let values = group.iter().map(|(_, value)| *value).collect();
                result.push(Step::Scatter(place, mask, bytes, values));
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_wrap, reason = "small numbers")]
mod tests {
    use convgen_ir::elem::ElemType;

    use super::*;
    use crate::vir::Lane;

    fn types(lanes: i64) -> Vec<VectorType> {
        vec![VectorType { lane: Lane::Elem(ElemType::F32), lanes }; 16]
    }

    const MASK: Mask = Mask { first: 0, lanes: 16, limit: None };

    fn gather(displacement: i64, value: Value) -> Step {
        let place = Place { stream: 0, displacement };
        Step::Gather(place, MASK, 400, [Some(value), None, None, None])
    }

    fn scatter(displacement: i64, values: &[Value]) -> Step {
        Step::Scatter(Place { stream: 1, displacement }, MASK, 400, values.to_vec())
    }

    #[test]
    fn neighbours_are_loaded_together_and_none_beyond_the_last() {
        let line = (0..7).map(|i| gather(4 * i as i64, i)).collect();
        let place = |displacement| Place { stream: 0, displacement };
        let expected = [
            Step::Gather(place(0), MASK, 400, [0, 1, 2, 3].map(Some)),
            Step::Gather(place(12), MASK, 400, [None, Some(4), Some(5), Some(6)]),
        ];
        assert_eq!(form_transposes(line, &types(16)), expected);
        // Three elements of a lane may be all there are.
        let line: Vec<Step> = (0..3).map(|i| gather(4 * i as i64, i)).collect();
        assert_eq!(form_transposes(line.clone(), &types(16)), line);
    }

    #[test]
    fn every_second_neighbour_is_loaded_in_windows() {
        let line = (0..4).map(|i| gather(8 * i as i64, i)).collect();
        let place = |displacement| Place { stream: 0, displacement };
        let expected = [
            Step::Gather(place(0), MASK, 400, [Some(0), None, Some(1), None]),
            Step::Gather(place(12), MASK, 400, [None, Some(2), None, Some(3)]),
        ];
        assert_eq!(form_transposes(line, &types(16)), expected);
    }

    #[test]
    fn stores_wait_for_neighbours_but_for_no_other_store_to_their_bytes() {
        let line = (0..5).map(|i| scatter(4 * i as i64, &[i])).collect();
        assert_eq!(
            form_transposes(line, &types(4)),
            [scatter(0, &[0, 1, 2, 3]), scatter(16, &[4])]
        );
        let again = vec![scatter(0, &[0]), scatter(0, &[1]), scatter(4, &[2])];
        assert_eq!(form_transposes(again, &types(4)), [scatter(0, &[0]), scatter(0, &[1, 2])]);
        let write = Step::Write(0, 7);
        let around = vec![scatter(0, &[0]), write.clone(), scatter(4, &[1])];
        assert_eq!(form_transposes(around, &types(4)), [scatter(0, &[0]), write, scatter(4, &[1])]);
    }
}
