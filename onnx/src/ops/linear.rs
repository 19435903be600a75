//! Products of matrices and of tensors.

use super::elementwise::broadcast;
use crate::fault::{Fault, Stop};
use crate::node::{Node, at_least, short};
use crate::scalar::Dim;
use crate::value::{Value, shown};

/// One product of matrices, each transposed or not.
pub(super) fn gemm(node: &Node) -> Result<Value, Stop> {
    let (left, right) = (node.dims(0)?, node.dims(1)?);
    if left.len() != 2 || right.len() != 2 {
        let given = if left.len() == 2 { right.len() } else { left.len() };
        return Err(Fault::Rank { what: "a matrix", given, expected: "2" }.into());
    }
    let rows = left[usize::from(node.is_set("transA"))].clone();
    let columns = right[usize::from(!node.is_set("transB"))].clone();
    Ok(Value::of(vec![rows, columns])?)
}

/// Products of matrices; the axes before the last two are repeated as needed. A list is a row on
/// the left and a column on the right, and that axis goes.
pub(super) fn matmul(node: &Node, left: usize, right: usize) -> Result<Value, Stop> {
    let (left, right) = (node.dims(left)?, node.dims(right)?);
    at_least(left, 1)?;
    at_least(right, 1)?;
    let split = |dims: &[Dim]| dims.len().saturating_sub(2);
    let (outer_left, outer_right) = (&left[..split(left)], &right[..split(right)]);
    let summed = (&left[left.len() - 1], &right[split(right)]);
    if let (Ok(a), Ok(b)) = summed
        && a != b
    {
        return Err(Fault::Mismatch { left: shown(left), right: shown(right) }.into());
    }
    let mut shape = broadcast(outer_left, outer_right)?;
    shape.extend(left[split(left)..left.len() - 1].iter().cloned());
    shape.extend(right[split(right)..].iter().skip(1).cloned());
    Ok(Value::of(shape)?)
}

/// One number for each matrix.
pub(super) fn determinants(node: &Node) -> Result<Value, Stop> {
    let dims = node.dims(0)?;
    at_least(dims, 2)?;
    Ok(Value::of(dims[..dims.len() - 2].to_vec())?)
}

/// Weighted means of the values, one for each query: `[batch, heads, queries, size]`, or the heads
/// beside each other.
pub(super) fn attention(node: &Node) -> Result<Value, Stop> {
    let (queries, values) = (node.dims(0)?, node.dims(2)?);
    match (queries, values) {
        ([batch, heads, length, _], [_, _, _, size]) => {
            Ok(Value::of(vec![batch.clone(), heads.clone(), length.clone(), size.clone()])?)
        }
        ([batch, length, _], [_, _, width]) => {
            let heads = |name| node.int(name, 1).max(1).unsigned_abs();
            let (all, own) = (heads("q_num_heads"), heads("kv_num_heads"));
            let width = width.clone().map(|width| (width / own).saturating_mul(all));
            Ok(Value::of(vec![batch.clone(), length.clone(), width])?)
        }
        (_, _) => {
            let given = queries.len();
            Err(Fault::Rank { what: "the queries", given, expected: "3 or 4" }.into())
        }
    }
}

/// A sum of products by letters, `bij,bjk->bik`; an ellipsis stands for any axes.
pub(super) fn einsum(node: &Node) -> Result<Value, Stop> {
    let equation = node.word("equation").ok_or(Fault::MissingAttribute { name: "equation" })?;
    let plain: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let wrong = || Fault::Equation { given: short(&equation) };
    let (inputs, output) = match plain.split_once("->") {
        Some((inputs, output)) => (inputs, Some(output)),
        None => (plain.as_str(), None),
    };
    let terms: Vec<&str> = inputs.split(',').collect();
    if terms.len() != node.inputs.len() {
        return Err(wrong().into());
    }
    let mut letters = Letters { sizes: Vec::new(), ellipsis: Vec::new() };
    for (index, term) in terms.iter().enumerate() {
        letters.read(term, node.dims(index)?).ok_or_else(wrong)?;
    }
    let implied;
    let output = match output {
        Some(output) => output,
        None => {
            implied = letters.implied(inputs);
            &implied
        }
    };
    Ok(Value::of(letters.shape(output).ok_or_else(wrong)?)?)
}

/// What the inputs say of the letters of an equation.
struct Letters {
    sizes: Vec<(char, Dim)>,
    ellipsis: Vec<Dim>,
}

impl Letters {
    /// Takes the sizes of an input; nothing if it does not fit.
    fn read(&mut self, term: &str, dims: &[Dim]) -> Option<()> {
        let (before, after) = match term.split_once("...") {
            Some((before, after)) => (before, Some(after)),
            None => (term, None),
        };
        let head: Vec<char> = before.chars().collect();
        let tail: Vec<char> = after.unwrap_or("").chars().collect();
        let middle = dims.len().checked_sub(head.len() + tail.len())?;
        if after.is_none() && middle > 0 {
            return None;
        }
        let (first, rest) = dims.split_at(head.len());
        let (any, last) = rest.split_at(middle);
        self.ellipsis = broadcast(&self.ellipsis, any).ok()?;
        for (letter, dim) in head.iter().zip(first).chain(tail.iter().zip(last)) {
            self.letter(*letter, dim)?;
        }
        Some(())
    }

    fn letter(&mut self, letter: char, dim: &Dim) -> Option<()> {
        if !letter.is_ascii_alphabetic() {
            return None;
        }
        let known = self.sizes.iter_mut().find(|(other, _)| *other == letter);
        let Some((_, known)) = known else {
            self.sizes.push((letter, dim.clone()));
            return Some(());
        };
        match (&*known, dim) {
            (Ok(a), Ok(b)) if a != b && *a != 1 && *b != 1 => return None,
            (Ok(1) | Err(_), Ok(_)) => *known = dim.clone(),
            (Ok(_), _) | (Err(_), Err(_)) => {}
        }
        Some(())
    }

    /// The letters that occur once, in the order of the alphabet.
    fn implied(&self, inputs: &str) -> String {
        let mut once: Vec<char> = self
            .sizes
            .iter()
            .map(|(letter, _)| *letter)
            .filter(|letter| inputs.chars().filter(|c| c == letter).count() == 1)
            .collect();
        once.sort_unstable();
        let ellipsis = if inputs.contains("...") { "..." } else { "" };
        ellipsis.chars().chain(once).collect()
    }

    fn shape(&self, output: &str) -> Option<Vec<Dim>> {
        let size = |letter: char| {
            self.sizes.iter().find(|(other, _)| *other == letter).map(|(_, dim)| dim.clone())
        };
        let sizes = |letters: &str| letters.chars().map(size).collect::<Option<Vec<Dim>>>();
        match output.split_once("...") {
            Some((before, after)) => {
                Some([sizes(before)?, self.ellipsis.clone(), sizes(after)?].concat())
            }
            None => sizes(output),
        }
    }
}
