//! Arithmetic in place of branches, in assembly: the compiler would make branches
//! of it, which random packets mispredict, and drop what the verifier needs to see.

use core::arch::asm;

/// 1 if `value` is less than `limit`, else 0. Both are less than 2^63.
#[inline(always)]
pub fn is_less(mut value: u64, limit: u64) -> u64 {
    // SAFETY: arithmetic on registers.
    unsafe {
        asm!(
            "{value} -= {limit}",
            "{value} >>= 63",
            value = inout(reg) value,
            limit = in(reg) limit,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    value
}

/// `then` if `value` is less than `limit`, else 0. Both are less than 2^63. (Not by a
/// mask: of one that is all zeros or all ones newer verifiers follow both.)
#[inline(always)]
pub fn if_less(mut value: u64, limit: u64, then: u64) -> u64 {
    // SAFETY: arithmetic on registers.
    unsafe {
        asm!(
            "{value} -= {limit}",
            "{value} >>= 63",
            "{value} *= {then}",
            value = inout(reg) value,
            limit = in(reg) limit,
            then = in(reg) then,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    value
}

/// The bits of a mask.
#[inline(always)]
pub fn masked(mut value: u64, mask: u64) -> u64 {
    // SAFETY: arithmetic on a register.
    unsafe {
        asm!(
            "{value} &= {mask}",
            value = inout(reg) value,
            mask = in(reg) mask,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    value
}

/// The low half of 32 bits.
#[inline(always)]
pub fn low_half(mut value: u64) -> u64 {
    // SAFETY: arithmetic on a register.
    unsafe {
        asm!(
            "{value} &= 0xffff",
            value = inout(reg) value,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    value
}

/// The low three bits.
#[inline(always)]
pub fn low_three(mut value: u64) -> u64 {
    // SAFETY: arithmetic on a register.
    unsafe {
        asm!(
            "{value} &= 7",
            value = inout(reg) value,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    value
}

/// One more, of which the compiler knows nothing: it leaves a loop a loop.
#[inline(always)]
pub fn next(mut count: u64) -> u64 {
    // SAFETY: arithmetic on a register.
    unsafe {
        asm!(
            "{count} += 1",
            count = inout(reg) count,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    count
}
