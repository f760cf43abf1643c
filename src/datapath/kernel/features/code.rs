//! Instructions of the trial programs: no more of the machine than they use.

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Instruction {
    code: u8,
    /// Destination below, source above.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// Source register of an instruction that names a map by its descriptor.
const MAP_FD: u8 = 1;
/// Source register of a call into this same program.
const LOCAL_CALL: u8 = 1;
/// The frame pointer.
pub(super) const FRAME: u8 = 10;

const fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction {
        code,
        registers: to | from << 4,
        offset,
        immediate,
    }
}

pub(super) const fn set(register: u8, value: i32) -> Instruction {
    instruction(0xb7, register, 0, 0, value)
}

pub(super) const fn copy(to: u8, from: u8) -> Instruction {
    instruction(0xbf, to, from, 0, 0)
}

pub(super) const fn add(register: u8, value: i32) -> Instruction {
    instruction(0x07, register, 0, 0, value)
}

/// Zeroes eight bytes of the stack.
pub(super) const fn clear(offset: i16) -> Instruction {
    instruction(0x7a, FRAME, 0, offset, 0)
}

/// Both halves of the instruction that loads a map.
pub(super) const fn map(register: u8, fd: i32) -> [Instruction; 2] {
    [
        instruction(0x18, register, MAP_FD, 0, fd),
        instruction(0, 0, 0, 0, 0),
    ]
}

/// Loads four bytes from where a register points.
pub(super) const fn load_word(to: u8, from: u8) -> Instruction {
    instruction(0x61, to, from, 0, 0)
}

/// Puts `new` where the word stands that register 0 holds.
pub(super) const fn exchange_if(to: u8, offset: i16, new: u8) -> Instruction {
    instruction(0xdb, to, new, offset, 0xf1)
}

pub(super) const fn call(helper: i32) -> Instruction {
    instruction(0x85, 0, 0, 0, helper)
}

/// Calls the function `ahead` instructions behind the next one.
pub(super) const fn call_local(ahead: i32) -> Instruction {
    instruction(0x85, 0, LOCAL_CALL, 0, ahead)
}

/// Skips `ahead` instructions if the register is zero.
pub(super) const fn skip_if_zero(register: u8, ahead: i16) -> Instruction {
    instruction(0x15, register, 0, ahead, 0)
}

/// The same of its lower half.
pub(super) const fn skip_if_zero32(register: u8, ahead: i16) -> Instruction {
    instruction(0x16, register, 0, ahead, 0)
}

/// Jumps while the register is less than `value`.
pub(super) const fn jump_if_less(register: u8, value: i32, offset: i16) -> Instruction {
    instruction(0xa5, register, 0, offset, value)
}

/// Return zero.
pub(super) const DONE: [Instruction; 2] = [set(0, 0), instruction(0x95, 0, 0, 0, 0)];

pub(super) const EXIT: Instruction = DONE[1];
