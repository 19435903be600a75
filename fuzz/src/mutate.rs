//! From seeds to inputs, the same for the same numbers.

use crate::mutants::{Random, mutant};
use crate::targets::Target;

/// Numbers at which a type, a product, a limit or a vector ends.
const BOUNDARIES: [&str; 32] = [
    "0",
    "1",
    "2",
    "3",
    "5",
    "8",
    "15",
    "16",
    "17",
    "31",
    "33",
    "64",
    "127",
    "256",
    "1024",
    "4095",
    "4097",
    "10000",
    "65536",
    "16777216",
    "1073741824",
    "2147483640",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "1099511627775",
    "1099511627776",
    "4611686018427387904",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
];

/// Bytes of an input, at most: what a line or a model of layers may have.
const LONGEST: usize = 1 << 17;

/// The input of that number: first the seeds themselves, once for each instruction set, whose
/// number is given, then what becomes of them.
pub fn input(
    seeds: &[Vec<u8>],
    target: Target,
    seed: u64,
    number: u64,
) -> (Vec<u8>, Option<usize>) {
    let isas = target.isas();
    let round = (number / isas as u64) as usize;
    match seeds.get(round) {
        Some(seed) => (seed.clone(), Some(number as usize % isas)),
        None => (damaged(seeds, target, seed, number), None),
    }
}

fn damaged(seeds: &[Vec<u8>], target: Target, seed: u64, number: u64) -> Vec<u8> {
    let mut random = Random::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number);
    let [one, other]: [&Vec<u8>; 2] = [random.pick(seeds), random.pick(seeds)];
    let mut data = match target {
        Target::Descriptor | Target::Schedule | Target::Nest | Target::Record => {
            match (std::str::from_utf8(one), std::str::from_utf8(other)) {
                (Ok(one), Ok(other)) => text(one, other, target, &mut random).into_bytes(),
                (Ok(_) | Err(_), _) => binary(one, other, &mut random),
            }
        }
        Target::Npy => match random.below(3) {
            0 => binary(one, other, &mut random),
            _ => header(one, &mut random),
        },
        Target::Onnx => binary(one, other, &mut random),
    };
    data.truncate(LONGEST);
    data
}

fn text(one: &str, other: &str, target: Target, random: &mut Random) -> String {
    let mut text = one.to_string();
    if target == Target::Schedule && random.below(4) == 0 {
        // The schedule of another problem.
        let (problem, schedule) = (one.split_once('\n'), other.split_once('\n'));
        if let (Some((problem, _)), Some((_, schedule))) = (problem, schedule) {
            text = format!("{problem}\n{schedule}");
        }
    }
    match random.below(8) {
        0..=2 => text = mutant(&text, other, random),
        3..=5 => replace_numbers(&mut text, random),
        6 => {
            replace_numbers(&mut text, random);
            text = mutant(&text, other, random);
        }
        _ => lines(&mut text, other, random),
    }
    text
}

/// One to three numbers become others.
fn replace_numbers(text: &mut String, random: &mut Random) {
    for _ in 0..=random.below(3) {
        let places = numbers(text);
        if places.is_empty() {
            return;
        }
        let place = random.pick(&places).clone();
        let value: u64 = text[place.clone()].parse().unwrap_or(1);
        let new = match random.below(8) {
            0 => value.saturating_add(1).to_string(),
            1 => value.saturating_sub(1).to_string(),
            2 => value.saturating_mul(2).to_string(),
            3 => (value / 2).to_string(),
            4 => text[random.pick(&places).clone()].to_string(),
            _ => random.pick(&BOUNDARIES).to_string(),
        };
        text.replace_range(place, &new);
    }
}

/// Where the digits are.
fn numbers(text: &str) -> Vec<std::ops::Range<usize>> {
    let mut places: Vec<std::ops::Range<usize>> = vec![];
    for (at, byte) in text.bytes().enumerate().filter(|(_, byte)| byte.is_ascii_digit()) {
        debug_assert!(byte.is_ascii());
        match places.last_mut() {
            Some(place) if place.end == at => place.end = at + 1,
            Some(_) | None => places.push(at..at + 1),
        }
    }
    places
}

/// Lines are repeated, moved, dropped, or taken from elsewhere.
fn lines(text: &mut String, other: &str, random: &mut Random) {
    let mut lines: Vec<&str> = text.split('\n').collect();
    let others: Vec<&str> = other.split('\n').collect();
    for _ in 0..=random.below(2) {
        let at = random.below(lines.len());
        match random.below(5) {
            0 => {
                let times = 1 << random.below(8);
                let line = lines[at];
                lines.splice(at..at, std::iter::repeat_n(line, times));
            }
            1 => lines.swap(at, at / 2),
            2 if lines.len() > 1 => drop(lines.remove(at)),
            _ => lines.insert(at, *random.pick(&others)),
        }
    }
    let joined = lines.join("\n");
    *text = joined;
}

/// Bytes change, go, come twice, or come from elsewhere.
fn binary(one: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut data = one.to_vec();
    for _ in 0..=random.below(6) {
        let at = random.below(data.len() + 1);
        let part = |data: &[u8], random: &mut Random| {
            let from = random.below(data.len());
            let to = (from + 1 + random.below(64)).min(data.len());
            data[from.min(to)..to].to_vec()
        };
        match random.below(8) {
            0 => data.truncate(at),
            1 => drop(data.splice(at..at, part(other, random))),
            2 => {
                let own = part(&data, random);
                drop(data.splice(at..at, own));
            }
            3 => {
                let end = (at + 1 + random.below(8)).min(data.len());
                drop(data.drain(at.min(end)..end));
            }
            // A size of a message, or a number: seven bits a byte.
            4 => {
                let varint = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
                let length = 1 + random.below(varint.len());
                drop(data.splice(at..at, varint[varint.len() - length..].iter().copied()));
            }
            _ => {
                if let Some(byte) = data.get_mut(at) {
                    *byte = match random.below(4) {
                        0 => *byte ^ (1 << random.below(8)),
                        1 => byte.wrapping_add(1),
                        2 => *random.pick(&[0, 1, 0x7f, 0x80, 0xff]),
                        _ => random.next() as u8,
                    };
                }
            }
        }
    }
    data
}

/// The header of a tensor changes, its length with it.
fn header(one: &[u8], random: &mut Random) -> Vec<u8> {
    let Some(end) = one.iter().position(|byte| *byte == b'\n') else { return one.to_vec() };
    let start = if one.get(6) == Some(&1) { 10 } else { 12 };
    let Some(header) = one.get(start..end) else { return one.to_vec() };
    let mut text = String::from_utf8_lossy(header).into_owned();
    match random.below(2) {
        0 => replace_numbers(&mut text, random),
        _ => text = mutant(&text.clone(), &text, random),
    }
    let length = (text.len() + 1).to_le_bytes();
    let mut data = one[..start].to_vec();
    data[8..start].copy_from_slice(&length[..start - 8]);
    data.extend(text.as_bytes());
    data.extend(&one[end..]);
    data
}
