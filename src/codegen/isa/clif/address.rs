//! Addresses: the pointer part of each access, computed once in the loop that decides it.

use rustc_hash::FxHashMap as HashMap;
use std::rc::Rc;

use convgen_ir::nest::{Access, Affine, AxisId, Buffer, BufferId, Nest};
use cranelift_codegen::ir::{InstBuilder, Value};

use super::expr::LoadKey;
use super::{Emitter, Terms};
use crate::exact;

/// A buffer and the runtime terms of an offset in elements, outermost first.
type AddressKey = (BufferId, Terms);

/// Pointers that are available at the current point, innermost loop last.
#[derive(Default)]
pub(super) struct AddressCache {
    values: HashMap<AddressKey, Value>,
    order: Vec<AddressKey>,
}

impl AddressCache {
    pub(super) fn depth(&self) -> usize {
        self.order.len()
    }

    /// Forgets the pointers computed inside a loop that was left.
    pub(super) fn truncate(&mut self, depth: usize) {
        for key in self.order.drain(depth..) {
            self.values.remove(&key);
        }
    }

    fn insert(&mut self, key: AddressKey, value: Value) {
        self.order.push(key.clone());
        self.values.insert(key, value);
    }
}

/// The flat offset of each access in elements, by the access's address in the nest: unrolling emits
/// an access many times over. Addresses are numbers modulo 2^64.
pub(super) struct OffsetCache {
    strides: Vec<Vec<i64>>,
    values: HashMap<usize, Rc<Affine>>,
}

impl OffsetCache {
    pub(super) fn new(nest: &Nest) -> OffsetCache {
        let strides = nest.buffers.iter().map(Buffer::strides).collect();
        OffsetCache { strides, values: HashMap::default() }
    }

    pub(super) fn get(&mut self, access: &Access) -> Rc<Affine> {
        let strides = &self.strides[access.buffer.0 as usize];
        let offset = self.values.entry(std::ptr::from_ref(access).addr());
        Rc::clone(offset.or_insert_with(|| Rc::new(exact::offset_modulo(access, strides))))
    }
}

impl Emitter<'_, '_> {
    /// The pointer to the element at these runtime terms.
    pub(super) fn address(&mut self, buffer: BufferId, terms: &[(AxisId, i64)]) -> Value {
        let Some(((axis, coefficient), outer)) = terms.split_last() else {
            return self.bases[&buffer];
        };
        let key = (buffer, Terms::from_slice(terms));
        if let Some(value) = self.addresses.values.get(&key) {
            return *value;
        }
        let outer = self.address(buffer, outer);
        let bytes = exact::bytes(*coefficient, self.nest.buffer(buffer).elem);
        let value = match self.runtime(*axis) {
            Some(variable) => {
                let term = self.times(variable, bytes);
                self.builder.ins().iadd(outer, term)
            }
            None => outer,
        };
        self.addresses.insert(key, value);
        value
    }

    /// The pointer to the element at these runtime terms, if it was computed already.
    pub(super) fn cached_address(
        &self,
        buffer: BufferId,
        terms: &[(AxisId, i64)],
    ) -> Option<Value> {
        self.addresses.values.get(&(buffer, Terms::from_slice(terms))).copied()
    }

    /// A pointer and a displacement that fits the instruction.
    pub(super) fn place(
        &mut self,
        buffer: BufferId,
        terms: &[(AxisId, i64)],
        constant: i64,
    ) -> (Value, i32) {
        let pointer = self.address(buffer, terms);
        self.displaced(pointer, exact::bytes(constant, self.nest.buffer(buffer).elem))
    }

    /// As [`Emitter::place`], of an element of a load.
    pub(super) fn place_of(&mut self, key: &LoadKey, constant: i64) -> (Value, i32) {
        if key.folds.is_empty() {
            return self.place(key.buffer, &key.terms, constant);
        }
        let pointer = self.folded_address(key.buffer, &key.terms, &key.folds);
        self.displaced(pointer, exact::bytes(constant, self.nest.buffer(key.buffer).elem))
    }

    /// A pointer moved by bytes, as far as the instruction does not say it.
    pub(super) fn displaced(&mut self, pointer: Value, bytes: i64) -> (Value, i32) {
        match i32::try_from(bytes) {
            Ok(displacement) => (pointer, displacement),
            Err(_) => (self.builder.ins().iadd_imm_s(pointer, bytes), 0),
        }
    }
}
