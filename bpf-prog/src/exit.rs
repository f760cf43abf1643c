//! How a packet leaves: exactly one reason is counted, a decision is reported
//! once, and nothing is dropped in a direction that is not enforced.

use palisade_abi::{
    commit::CommitWord,
    event, reason,
    table::{Cell, action},
};

/// How a packet leaves: the reason that is counted, and what is reported.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Exit {
    /// Counter; a drop from `reason::DROP_MIN` on.
    pub reason: u8,
    /// One of `event::kind`; 0: nothing was decided that was not reported before.
    pub event: u8,
    /// Reason in the event: for audit, why it would have been dropped.
    pub event_reason: u8,
    /// Bits of `event::flags`.
    pub flags: u8,
    /// Deciding rule, 0 if none.
    pub rule: u32,
    /// Identity of the peer, 0 if it was not needed.
    pub identity: u32,
}

impl Exit {
    /// Not decided yet.
    pub const NONE: Self = Self {
        reason: 0,
        event: 0,
        event_reason: 0,
        flags: 0,
        rule: 0,
        identity: 0,
    };

    /// Whatever it says then, it is written over before it is read.
    ///
    /// # Safety
    /// `exit` can be written.
    #[inline(always)]
    pub unsafe fn fill(exit: *mut Self, word: u32) {
        let words: *mut u32 = exit.cast();
        // SAFETY: the caller's word; an exit is three words.
        unsafe {
            words.write_volatile(word);
            words.add(1).write_volatile(word);
            words.add(2).write_volatile(word);
        }
    }

    /// Leaves with a counter and nothing else.
    #[inline(always)]
    pub fn silent(reason: u8) -> Self {
        Self {
            reason,
            ..Self::NONE
        }
    }

    /// Drops for a reason that is no verdict, where the direction is enforced.
    #[inline(always)]
    pub fn refused(word: CommitWord, direction: u32, reason: u8, identity: u32) -> Self {
        if !word.enforced(direction) {
            return Self::silent(reason::NOT_ENFORCED);
        }
        let event = event::kind::DROP;
        Self {
            reason,
            event,
            event_reason: reason,
            flags: 0,
            rule: 0,
            identity,
        }
    }

    /// Leaves by a verdict; `report` asks for an event of what passes (what is
    /// dropped is always reported).
    #[inline(always)]
    pub fn judged(
        word: CommitWord,
        direction: u32,
        cell: Cell,
        identity: u32,
        flags: u8,
        report: bool,
    ) -> Self {
        let denial = match cell.action() {
            action::ALLOW => 0,
            action::DENY => reason::POLICY_DENY,
            action::FRAGMENT => reason::FRAGMENT_NOT_FOUND,
            _ => reason::POLICY,
        };
        let (reason, kind) = if denial == 0 {
            (reason::FORWARDED, event::kind::ALLOW)
        } else if cell.audit() {
            (reason::AUDITED, event::kind::AUDIT)
        } else if word.enforced(direction) {
            (denial, event::kind::DROP)
        } else {
            return Self::silent(reason::NOT_ENFORCED);
        };
        let event = if report || reason >= reason::DROP_MIN {
            kind
        } else {
            0
        };
        Self {
            reason,
            event,
            event_reason: denial,
            flags,
            rule: cell.rule(),
            identity,
        }
    }
}

const _: () = assert!(size_of::<Exit>() == 12);
