//! The sizes of the model's inputs: what the model states, and what a caller gives.
//!
//! ```text
//! of dimension I of the input X that the model names N, the first that there is of:
//!   the size that the model states
//!   the size given for `X.I`, which tells inputs apart that share a name
//!   the size given for N, or of another input's batch that is named N
//!   the batch, if I is 0
//! ```

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::elem::Elem;
use super::fault::{Open, Unknown};
use super::proto::{Dimension, ValueInfo};
use super::scalar::Dim;

/// The sizes that are open, and those that are given for them.
pub(super) struct Sizes {
    batch: u64,
    given: HashMap<String, u64>,
    /// The batches of inputs, by the names that the model gives them.
    batches: HashMap<String, u64>,
    /// The names of what inputs leave open.
    open: BTreeSet<String>,
}

impl Sizes {
    pub(super) fn new(batch: Option<u64>, given: HashMap<String, u64>) -> Sizes {
        let (batches, open) = (HashMap::new(), BTreeSet::new());
        Sizes { batch: batch.unwrap_or(1), given, batches, open }
    }

    /// The sizes of an input.
    pub(super) fn of_input(&mut self, input: &str, dims: &[Dimension]) -> Vec<Dim> {
        dims.iter().enumerate().map(|(i, dim)| self.of_dimension(input, i, dim)).collect()
    }

    fn of_dimension(&mut self, input: &str, index: usize, dim: &Dimension) -> Dim {
        if let Some(size) = stated_size(dim) {
            return Ok(size);
        }
        let (name, place) = (name_of(dim), format!("{input}.{index}"));
        self.open.extend(name.map(str::to_owned));
        self.open.insert(place.clone());
        if let Some(size) = self.given.get(&place) {
            return Ok(*size);
        }
        if let Some(size) = name.and_then(|name| self.size(name)) {
            return Ok(size);
        }
        if index == 0 {
            if let Some(name) = name.filter(|name| tells_apart(name)) {
                self.batches.insert(name.to_owned(), self.batch);
            }
            return Ok(self.batch);
        }
        let name = name.filter(|name| tells_apart(name)).unwrap_or(&place).to_owned();
        Err(Unknown::Open(Arc::new(Open { name, place })))
    }

    fn size(&self, name: &str) -> Option<u64> {
        self.given.get(name).or_else(|| self.batches.get(name)).copied()
    }

    /// The size that the file states of a value which a node makes.
    pub(super) fn stated(&self, value: &str, index: usize, dim: &Dimension) -> Option<u64> {
        let by_place = || self.given.get(&format!("{value}.{index}")).copied();
        stated_size(dim).or_else(by_place).or_else(|| self.size(name_of(dim)?))
    }

    /// A name that is given for what the model does not leave open.
    pub(super) fn unused(&self, stated: &HashMap<String, ValueInfo>) -> Option<String> {
        let mut unused = self.given.keys().filter(|name| !self.open.contains(*name)).peekable();
        unused.peek()?;
        let mut others = BTreeSet::new();
        for info in stated.values() {
            for (i, dim) in dims_of(info).unwrap_or_default().iter().enumerate() {
                others.extend(name_of(dim).map(str::to_owned));
                others.insert(format!("{}.{i}", info.name));
            }
        }
        unused.filter(|name| !others.contains(*name)).min().cloned()
    }

    /// What the inputs leave open, by name: some at least.
    pub(super) fn open(&self) -> Vec<String> {
        self.open.iter().take(SHOWN).cloned().collect()
    }
}

/// The names that an error lists.
const SHOWN: usize = 20;

pub(super) fn dims_of(info: &ValueInfo) -> Option<&[Dimension]> {
    let tensor = info.kind.as_ref()?.tensor.as_ref()?;
    tensor.shape.as_ref().map(|shape| shape.dim.as_slice())
}

pub(super) fn elem_of(info: &ValueInfo) -> Elem {
    let tensor = info.kind.as_ref().and_then(|kind| kind.tensor.as_ref());
    tensor.map_or(Elem::Unstated, |tensor| Elem::from_number(tensor.elem_type))
}

/// A size that is written down; exporters write 0 or -1 for one that is not known.
fn stated_size(dim: &Dimension) -> Option<u64> {
    u64::try_from(dim.dim_value?).ok().filter(|size| *size > 0)
}

fn name_of(dim: &Dimension) -> Option<&str> {
    dim.dim_param.as_deref().filter(|name| !name.is_empty())
}

/// Whether a name is one: some exporters write `?` for every size that they do not know.
fn tells_apart(name: &str) -> bool {
    name.chars().any(char::is_alphanumeric)
}
