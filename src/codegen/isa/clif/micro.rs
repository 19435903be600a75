//! Calls of micro-kernels, which are functions of their own.

use std::sync::Arc;

use convgen_ir::nest::Stmt;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    AbiParam, ExtFuncData, ExternalName, InstBuilder, Signature, StackSlot, StackSlotData,
    StackSlotKind, UserExternalName, Value, types,
};
use cranelift_codegen::isa::CallConv;

use super::{Bound, Emitter, Lanes, MICRO_KERNELS};
use crate::codegen::isa::MicroKernel;
use crate::vir::{self, Argument, Outside};

/// Sums passed to a micro-kernel are compared with numbers of lanes only, so they may be clamped.
const CLAMP: i64 = 1 << 30;

impl Emitter<'_, '_> {
    /// Emits a scope as a call of a function of its own; whether it is one.
    pub(super) fn micro_kernel(&mut self, scope: &[Stmt]) -> bool {
        let Some(unit) = self.target.unit() else { return false };
        let variables: Vec<_> = self
            .variables
            .iter()
            .map(|(axis, bound)| match bound {
                Bound::Runtime(_) => (*axis, None),
                Bound::Const(value) => (*axis, Some(*value)),
            })
            .collect();
        let outside = Outside { variables: &variables, known: &self.known };
        let program = match self.programs.next(scope, &outside) {
            Some(program) => Ok(program),
            None => vir::build(self.nest, scope, &outside, unit, &mut self.budget).map(Arc::new),
        };
        // What lowering marked is built; what a text marks may not be, and is plain code then.
        let isa = self.target.isa();
        let kernel = program.and_then(|program| MicroKernel::new(program, isa, unit));
        let Ok(kernel) = kernel else { return false };
        let bytes = kernel.words.max(1).checked_mul(8).and_then(|bytes| u32::try_from(bytes).ok());
        let (Ok(number), Some(bytes)) = (u32::try_from(self.micro_kernels.len()), bytes) else {
            return false;
        };
        let arguments: Vec<Value> =
            kernel.arguments().iter().map(|argument| self.argument(argument)).collect();
        self.call(number, &arguments, bytes);
        self.micro_kernels.push(kernel);
        // It wrote memory.
        self.new_block();
        true
    }

    fn argument(&mut self, argument: &Argument) -> Value {
        match argument {
            Argument::Pointer(buffer, terms) => self.address(*buffer, terms),
            Argument::First(l) => self.range(l).0,
            Argument::End(l) => {
                let (first, end, _) = self.range(l);
                let empty = self.builder.ins().icmp(IntCC::SignedLessThan, end, first);
                self.builder.ins().select(empty, first, end)
            }
            Argument::Number(sum) => self.sum(sum, Lanes::SCALAR),
            Argument::Sum(sum) => {
                let value = self.sum(sum, Lanes::SCALAR);
                let high = self.builder.ins().iconst(types::I64, CLAMP);
                let less = self.builder.ins().icmp(IntCC::SignedLessThan, value, high);
                let value = self.builder.ins().select(less, value, high);
                let low = self.builder.ins().iconst(types::I64, -CLAMP);
                let more = self.builder.ins().icmp(IntCC::SignedGreaterThan, value, low);
                self.builder.ins().select(more, value, low)
            }
        }
    }

    /// The slot for the arguments of all calls, of which only one runs at a time: as large as the
    /// largest needs.
    fn arguments_slot(&mut self, bytes: u32) -> StackSlot {
        if let Some(slot) = self.slot {
            let data = &mut self.builder.func.sized_stack_slots[slot];
            data.size = data.size.max(bytes);
            return slot;
        }
        let slot = StackSlotData::new(StackSlotKind::ExplicitSlot, bytes, 3);
        let slot = self.builder.create_sized_stack_slot(slot);
        self.slot = Some(slot);
        slot
    }

    /// Calls a micro-kernel with arguments that begin as many bytes as it wants in all.
    fn call(&mut self, number: u32, arguments: &[Value], bytes: u32) {
        let slot = self.arguments_slot(bytes);
        for (offset, argument) in (0_i32..).step_by(8).zip(arguments) {
            self.builder.ins().stack_store(types::I64, *argument, slot, offset);
        }
        let mut signature = Signature::new(CallConv::SystemV);
        signature.params = vec![AbiParam::new(types::I64)];
        let signature = self.builder.import_signature(signature);
        let name = UserExternalName::new(MICRO_KERNELS, number);
        let name = self.builder.func.declare_imported_user_function(name);
        let callee = self.builder.import_function(ExtFuncData {
            name: ExternalName::user(name),
            signature,
            colocated: false,
            patchable: false,
        });
        let pointer = self.builder.ins().stack_addr(types::I64, slot, 0);
        self.builder.ins().call(callee, &[pointer]);
    }
}
