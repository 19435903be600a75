//! The opcodes of the vector operations: one row an operation and type of element, one column a
//! form of encoding.

use convgen_ir::elem::ElemType;
use convgen_ir::nest::BinaryOp;
use iced_x86::{Code, Register};

use crate::target::Isa;

/// How vectors are encoded: the width of a register, and what a mask is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// 256 bits, VEX: a mask is a vector.
    Vex256,
    /// 512 bits, EVEX: a mask is a register of its own.
    Evex512,
}

impl Form {
    /// The form of an instruction set, if it has micro-kernels.
    pub(super) fn of(isa: Isa) -> Option<Form> {
        match isa {
            Isa::Clif => None,
            Isa::Avx2 => Some(Form::Vex256),
            Isa::Avx512 => Some(Form::Evex512),
        }
    }

    /// The first vector register.
    pub(super) fn first_register(self) -> Register {
        match self {
            Form::Vex256 => Register::YMM0,
            Form::Evex512 => Register::ZMM0,
        }
    }

    /// Whether a mask is in a register of its own.
    pub(super) fn has_mask_registers(self) -> bool {
        match self {
            Form::Vex256 => false,
            Form::Evex512 => true,
        }
    }
}

/// The elements, or pairs of them, of one half of each quad of two registers, in turn.
#[derive(Clone, Copy)]
pub(super) enum Unpack {
    Low,
    High,
    LowPairs,
    HighPairs,
}

/// What an instruction does.
#[derive(Clone, Copy)]
pub(super) enum Operation {
    Copy,
    Load,
    Store,
    /// A load or store of the lanes of a mask.
    LoadMasked,
    StoreMasked,
    /// So many neighbouring elements, over and over.
    Broadcast(u8),
    Xor,
    And,
    MultiplyAdd,
    Binary(BinaryOp),
    /// To the nearest integer, as a float.
    Round,
    /// To an integer, towards zero.
    ToInteger,
    AddIntegers,
    ShiftIntegersLeft,
    Compare,
    /// Lanes of one vector or of another.
    Blend,
    /// The low element of a vector in every lane, or a general register.
    BroadcastConstant,
    /// From a general register to the low part of a vector.
    MoveGeneral,
    /// Bytes to numbers of lanes.
    WidenBytes,
    /// Lanes by their numbers.
    Permute,
    /// Lanes of every four by the same four numbers.
    PermuteFours,
    /// Lanes of two vectors by their numbers.
    PermuteTwo,
    /// Two lanes of every four of one vector, then two of another.
    ShuffleTwo,
    /// Pairs of lanes of every eight.
    PermutePairs,
    Unpack(Unpack),
    /// A quad from memory to the low part of a register.
    LoadQuad,
    /// A quad to another part of a register.
    InsertQuad,
    /// An element from memory to the low lane, or to a lane of the low quad.
    LoadLane,
    InsertLane,
}

/// The opcode of an operation on elements.
pub(super) fn opcode(operation: Operation, elem: ElemType, form: Form) -> Code {
    let [vex256, evex512] = match elem {
        ElemType::F32 => single(operation),
    };
    match form {
        Form::Vex256 => vex256,
        Form::Evex512 => evex512,
    }
}

/// The rows of single floats.
fn single(operation: Operation) -> [Code; 2] {
    use Operation as Op;
    match operation {
        Op::Copy => [Code::VEX_Vmovaps_ymm_ymmm256, Code::EVEX_Vmovaps_zmm_k1z_zmmm512],
        Op::Load => [Code::VEX_Vmovups_ymm_ymmm256, Code::EVEX_Vmovups_zmm_k1z_zmmm512],
        Op::Store => [Code::VEX_Vmovups_ymmm256_ymm, Code::EVEX_Vmovups_zmmm512_k1z_zmm],
        Op::LoadMasked => [Code::VEX_Vmaskmovps_ymm_ymm_m256, Code::EVEX_Vmovups_zmm_k1z_zmmm512],
        Op::StoreMasked => [Code::VEX_Vmaskmovps_m256_ymm_ymm, Code::EVEX_Vmovups_zmmm512_k1z_zmm],
        Op::Broadcast(1) => {
            [Code::VEX_Vbroadcastss_ymm_m32, Code::EVEX_Vbroadcastss_zmm_k1z_xmmm32]
        }
        Op::Broadcast(2) => {
            [Code::VEX_Vbroadcastsd_ymm_m64, Code::EVEX_Vbroadcastsd_zmm_k1z_xmmm64]
        }
        Op::Broadcast(4) => {
            [Code::VEX_Vbroadcastf128_ymm_m128, Code::EVEX_Vbroadcastf32x4_zmm_k1z_m128]
        }
        Op::Broadcast(_) => {
            [Code::VEX_Vmovups_ymm_ymmm256, Code::EVEX_Vbroadcastf64x4_zmm_k1z_m256]
        }
        Op::Xor => [Code::VEX_Vpxor_ymm_ymm_ymmm256, Code::EVEX_Vpxord_zmm_k1z_zmm_zmmm512b32],
        Op::And => [Code::VEX_Vpand_ymm_ymm_ymmm256, Code::EVEX_Vpandd_zmm_k1z_zmm_zmmm512b32],
        Op::MultiplyAdd => [
            Code::VEX_Vfmadd231ps_ymm_ymm_ymmm256,
            Code::EVEX_Vfmadd231ps_zmm_k1z_zmm_zmmm512b32_er,
        ],
        Op::Binary(BinaryOp::Add) => {
            [Code::VEX_Vaddps_ymm_ymm_ymmm256, Code::EVEX_Vaddps_zmm_k1z_zmm_zmmm512b32_er]
        }
        Op::Binary(BinaryOp::Sub) => {
            [Code::VEX_Vsubps_ymm_ymm_ymmm256, Code::EVEX_Vsubps_zmm_k1z_zmm_zmmm512b32_er]
        }
        Op::Binary(BinaryOp::Mul) => {
            [Code::VEX_Vmulps_ymm_ymm_ymmm256, Code::EVEX_Vmulps_zmm_k1z_zmm_zmmm512b32_er]
        }
        Op::Binary(BinaryOp::Div) => {
            [Code::VEX_Vdivps_ymm_ymm_ymmm256, Code::EVEX_Vdivps_zmm_k1z_zmm_zmmm512b32_er]
        }
        // These two return the second operand unless the comparison holds: the language's own
        // definition, NaNs and zeros included.
        Op::Binary(BinaryOp::Max) => {
            [Code::VEX_Vmaxps_ymm_ymm_ymmm256, Code::EVEX_Vmaxps_zmm_k1z_zmm_zmmm512b32_sae]
        }
        Op::Binary(BinaryOp::Min) => {
            [Code::VEX_Vminps_ymm_ymm_ymmm256, Code::EVEX_Vminps_zmm_k1z_zmm_zmmm512b32_sae]
        }
        Op::Round => [
            Code::VEX_Vroundps_ymm_ymmm256_imm8,
            Code::EVEX_Vrndscaleps_zmm_k1z_zmmm512b32_imm8_sae,
        ],
        Op::ToInteger => {
            [Code::VEX_Vcvttps2dq_ymm_ymmm256, Code::EVEX_Vcvttps2dq_zmm_k1z_zmmm512b32_sae]
        }
        Op::AddIntegers => {
            [Code::VEX_Vpaddd_ymm_ymm_ymmm256, Code::EVEX_Vpaddd_zmm_k1z_zmm_zmmm512b32]
        }
        Op::ShiftIntegersLeft => {
            [Code::VEX_Vpslld_ymm_ymm_imm8, Code::EVEX_Vpslld_zmm_k1z_zmmm512b32_imm8]
        }
        Op::Compare => {
            [Code::VEX_Vcmpps_ymm_ymm_ymmm256_imm8, Code::EVEX_Vcmpps_kr_k1_zmm_zmmm512b32_imm8_sae]
        }
        Op::Blend => {
            [Code::VEX_Vblendvps_ymm_ymm_ymmm256_ymm, Code::EVEX_Vblendmps_zmm_k1z_zmm_zmmm512b32]
        }
        Op::BroadcastConstant => {
            [Code::VEX_Vbroadcastss_ymm_xmm, Code::EVEX_Vpbroadcastd_zmm_k1z_r32]
        }
        Op::MoveGeneral => [Code::VEX_Vmovq_xmm_rm64, Code::EVEX_Vmovq_xmm_rm64],
        Op::WidenBytes => [Code::VEX_Vpmovzxbd_ymm_xmmm64, Code::EVEX_Vpmovzxbd_zmm_k1z_xmmm128],
        Op::Permute => {
            [Code::VEX_Vpermps_ymm_ymm_ymmm256, Code::EVEX_Vpermps_zmm_k1z_zmm_zmmm512b32]
        }
        Op::PermuteFours => {
            [Code::VEX_Vpermilps_ymm_ymmm256_imm8, Code::EVEX_Vpermilps_zmm_k1z_zmmm512b32_imm8]
        }
        // AVX2 has none: its `VectorUnit` says so, and an index is never asked for.
        Op::PermuteTwo => [Code::INVALID, Code::EVEX_Vpermt2ps_zmm_k1z_zmm_zmmm512b32],
        Op::ShuffleTwo => {
            [Code::VEX_Vshufps_ymm_ymm_ymmm256_imm8, Code::EVEX_Vshufps_zmm_k1z_zmm_zmmm512b32_imm8]
        }
        Op::PermutePairs => {
            [Code::VEX_Vpermpd_ymm_ymmm256_imm8, Code::EVEX_Vpermpd_zmm_k1z_zmmm512b64_imm8]
        }
        Op::Unpack(Unpack::Low) => {
            [Code::VEX_Vunpcklps_ymm_ymm_ymmm256, Code::EVEX_Vunpcklps_zmm_k1z_zmm_zmmm512b32]
        }
        Op::Unpack(Unpack::High) => {
            [Code::VEX_Vunpckhps_ymm_ymm_ymmm256, Code::EVEX_Vunpckhps_zmm_k1z_zmm_zmmm512b32]
        }
        Op::Unpack(Unpack::LowPairs) => {
            [Code::VEX_Vunpcklpd_ymm_ymm_ymmm256, Code::EVEX_Vunpcklpd_zmm_k1z_zmm_zmmm512b64]
        }
        Op::Unpack(Unpack::HighPairs) => {
            [Code::VEX_Vunpckhpd_ymm_ymm_ymmm256, Code::EVEX_Vunpckhpd_zmm_k1z_zmm_zmmm512b64]
        }
        Op::LoadQuad => [Code::VEX_Vmovups_xmm_xmmm128, Code::EVEX_Vmovups_xmm_k1z_xmmm128],
        Op::InsertQuad => [
            Code::VEX_Vinsertf128_ymm_ymm_xmmm128_imm8,
            Code::EVEX_Vinsertf32x4_zmm_k1z_zmm_xmmm128_imm8,
        ],
        Op::LoadLane => [Code::VEX_Vmovss_xmm_m32, Code::EVEX_Vmovss_xmm_k1z_m32],
        Op::InsertLane => {
            [Code::VEX_Vinsertps_xmm_xmm_xmmm32_imm8, Code::EVEX_Vinsertps_xmm_xmm_xmmm32_imm8]
        }
    }
}
