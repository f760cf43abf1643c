//! The trial of global functions: the verifier looks at each once, by the types
//! in its BTF, whoever calls it.

use std::io;
use std::os::fd::AsFd;

use super::calls::{self, Functions};
use super::code::{DONE, EXIT, FRAME, add, call_local, clear, copy, load_word, set, skip_if_zero};

const KIND_INT: u32 = 1;
const KIND_PTR: u32 = 2;
const KIND_STRUCT: u32 = 4;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
/// Linkage of a function, where other kinds count their members.
const GLOBAL: u32 = 1;
/// A signed integer of 32 bits.
const INT_32: u32 = 0x0100_0020;
const STRINGS: &[u8] = b"\0int\0value\0main\0read\0";

/// Place of a name in [`STRINGS`].
const INT: u32 = 1;
const VALUE: u32 = 5;
const MAIN: u32 = 11;
const READ: u32 = 16;

/// Numbers of the types below, which count from one.
const TYPE_MAIN: u32 = 5;
const TYPE_READ: u32 = 7;

const fn info(kind: u32, count: u32) -> u32 {
    kind << 24 | count
}

/// `int main(void)` and `int read(struct value { int value; } *value)`.
const TYPES: &[u32] = &[
    INT,
    info(KIND_INT, 0),
    4,
    INT_32,
    VALUE,
    info(KIND_STRUCT, 1),
    4,
    VALUE,
    1,
    0,
    0,
    info(KIND_PTR, 0),
    2,
    0,
    info(KIND_FUNC_PROTO, 0),
    1,
    MAIN,
    info(KIND_FUNC, GLOBAL),
    4,
    0,
    info(KIND_FUNC_PROTO, 1),
    1,
    VALUE,
    3,
    READ,
    info(KIND_FUNC, GLOBAL),
    6,
];

/// Header, types, strings.
fn btf() -> Vec<u8> {
    const HEADER_BYTES: u32 = 24;
    /// Magic number, version, flags.
    const BEGIN: [u8; 4] = if cfg!(target_endian = "little") {
        [0x9f, 0xeb, 1, 0]
    } else {
        [0xeb, 0x9f, 1, 0]
    };
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    let types_bytes = length(size_of_val(TYPES));
    let header = [
        HEADER_BYTES,
        0,
        types_bytes,
        types_bytes,
        length(STRINGS.len()),
    ];
    let words = header.iter().chain(TYPES);
    let mut out = BEGIN.to_vec();
    out.extend(words.flat_map(|word| word.to_ne_bytes()));
    out.extend_from_slice(STRINGS);
    out
}

/// A program that passes a piece of its stack to a function.
pub(super) fn functions() -> io::Result<()> {
    let code = [
        clear(-8),
        copy(1, FRAME),
        add(1, -8),
        call_local(1),
        EXIT,
        set(0, 0),
        skip_if_zero(1, 1),
        load_word(0, 1),
        DONE[1],
    ];
    let btf = calls::btf_load(&btf())?;
    let functions = Functions {
        btf: btf.as_fd(),
        begin: &[[0, TYPE_MAIN], [5, TYPE_READ]],
    };
    calls::load_typed(&code, Some(&functions)).map(drop)
}
