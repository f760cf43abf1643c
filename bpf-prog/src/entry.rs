//! The entry programs: commit word, L2, VLAN, and the jump into the slot.

use core::arch::asm;

use aya_ebpf::{
    EbpfContext as _,
    bindings::__sk_buff,
    maps::{ProgramArray, lpm_trie::Key},
    programs::TcContext,
};
use palisade_abi::{
    calls, cb,
    commit::CommitWord,
    conntrack::flags,
    direction::{EGRESS, INGRESS},
    reason,
    settings::{FailsafeKey, vlan_key},
};

use crate::{
    conntrack,
    control::{self, Claim},
    counters,
    family::{Family, Packet},
    flows, kernel,
    maps::{CALLS_EG, CALLS_IN, COMMIT, FAILSAFE, SETTINGS, VLANS},
    packet::{NEXT, l4_state, read},
    v4::V4,
    v6::V6,
};

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_QINQ: u16 = 0x88a8;
/// `bpf_tail_call` among the kernel's helpers.
const BPF_FUNC_TAIL_CALL: u32 = 12;
/// Bits of the length of an Ethernet header.
const ETHERNET_BITS: u32 = 0xf;
/// VLAN tags in the packet data that are followed (the metadata holds one more).
const TAGS_MAX: usize = 2;

/// First program on a device. `L2` is the length of the device's own header.
#[inline(always)]
pub fn entry<const DIRECTION: u32, const L2: u32>(context: &TcContext) -> i32 {
    let skb = context.skb.skb;
    let Some(word) = COMMIT.get_ptr(0) else {
        return NEXT;
    };
    // SAFETY: a non-null pointer from a lookup; one 8-byte load, so that the
    // packet sees one generation, whole.
    let word = CommitWord(unsafe { word.read_volatile() });
    // SAFETY: `skb` is the context.
    let (mut protocol, has_tag) = unsafe {
        let protocol = u16::from_be((*skb).protocol as u16);
        (protocol, (*skb).vlan_present != 0)
    };
    let mut l3 = L2;
    // IPv4 is no tag; asked first, the most of all packets take the straight way.
    if has_tag || protocol != ETHERTYPE_IPV4 && is_tag(protocol) {
        let inner = crate::pal_untag(skb, word.slot(), L2);
        if inner == TAG_REFUSED {
            return refuse_vlan(skb, word, DIRECTION);
        }
        protocol = inner as u16;
        // SAFETY: as above; volatile, or the compiler would know its bits, and the
        // verifier would not.
        l3 = unsafe { (&raw const (*skb).cb[cb::L3_OFFSET]).read_volatile() } & cb::L3_BITS;
    }
    // SAFETY: as above.
    unsafe {
        (*skb).cb[cb::COMMIT_LOW] = word.0 as u32;
        (*skb).cb[cb::GENERATION] = word.generation();
        (*skb).cb[cb::L3_OFFSET] = l3;
    }
    match protocol {
        ETHERTYPE_IPV4 => {
            jump::<DIRECTION, { calls::V4_SLOT_A }, { calls::V4_SLOT_B }>(context, word);
            missed::<V4, DIRECTION>(skb, word, l3)
        }
        ETHERTYPE_IPV6 => {
            jump::<DIRECTION, { calls::V6_SLOT_A }, { calls::V6_SLOT_B }>(context, word);
            missed::<V6, DIRECTION>(skb, word, l3)
        }
        ETHERTYPE_ARP => counters::pass(skb, reason::ARP, DIRECTION),
        _ => other_ethertype(skb, word, DIRECTION),
    }
}

#[inline(always)]
fn is_tag(protocol: u16) -> bool {
    protocol == ETHERTYPE_VLAN || protocol == ETHERTYPE_QINQ
}

/// Answer of [`untag`]: a tag is not allowed, or stands behind too many others.
const TAG_REFUSED: u32 = u32::MAX;

/// Looks behind the tags of a packet: the protocol; where its header stands is left
/// in `skb->cb`. A function of its own (see `main`), out of the way of packets without.
#[inline(always)]
pub fn untag(skb: *mut __sk_buff, slot: u32, l2: u32) -> u32 {
    // SAFETY: `skb` is the context.
    let mut protocol = u16::from_be(unsafe { (*skb).protocol } as u16);
    let mut l3 = l2 & ETHERNET_BITS;
    // SAFETY: as above.
    unsafe {
        if (*skb).vlan_present != 0 && !is_allowed_vlan(skb, slot, (*skb).vlan_tci) {
            return TAG_REFUSED;
        }
    }
    for _ in 0..TAGS_MAX {
        if !is_tag(protocol) {
            break;
        }
        let Some(tag) = read::<[u16; 2]>(skb, l3) else {
            break;
        };
        if !is_allowed_vlan(skb, slot, u32::from(u16::from_be(tag[0]))) {
            return TAG_REFUSED;
        }
        protocol = u16::from_be(tag[1]);
        l3 += 4;
    }
    if is_tag(protocol) {
        // The kernel strips any number of priority tags and delivers what is
        // inside: what we do not follow must not pass unjudged.
        return TAG_REFUSED;
    }
    // SAFETY: as above.
    unsafe { (*skb).cb[cb::L3_OFFSET] = l3 };
    u32::from(protocol)
}

/// Jumps into the slot's program; returns only if that is missing. The JIT makes
/// constant indexes direct jumps; an indirect one is slow where the kernel must
/// hide it from speculation.
#[inline(always)]
fn jump<const DIRECTION: u32, const SLOT_A: u32, const SLOT_B: u32>(
    context: &TcContext,
    word: CommitWord,
) {
    let array: *const ProgramArray = if DIRECTION == INGRESS {
        &raw const CALLS_IN
    } else {
        &raw const CALLS_EG
    };
    // SAFETY: on success control does not return; nothing here needs dropping.
    unsafe {
        if word.slot() == 0 {
            tail_call::<SLOT_A>(context.skb.skb, array);
        } else {
            tail_call::<SLOT_B>(context.skb.skb, array);
        }
    }
}

/// `bpf_tail_call` with an index that the compiler cannot merge with another one's.
///
/// # Safety
/// As for the helper; all that the caller holds is forgotten on success.
#[inline(always)]
unsafe fn tail_call<const INDEX: u32>(skb: *mut __sk_buff, array: *const ProgramArray) {
    // SAFETY: the caller's word. The helper takes three registers, and five are lost.
    unsafe {
        asm!(
            "r3 = {index}",
            "call {helper}",
            index = const INDEX,
            helper = const BPF_FUNC_TAIL_CALL,
            inlateout("r1") skb => _,
            inlateout("r2") array => _,
            lateout("r0") _,
            out("r3") _,
            lateout("r4") _,
            lateout("r5") _,
        );
    }
}

/// Whether a VLAN id is a sub-device of this device or in the allow list.
/// Priority tags (id 0) are no VLAN.
#[inline(always)]
fn is_allowed_vlan(skb: *mut __sk_buff, slot: u32, tci: u32) -> bool {
    let id = tci & 0xfff;
    if id == 0 {
        return true;
    }
    let of_slot = 1 << (slot & 1);
    // SAFETY: `skb` is the context; each value is read once.
    unsafe {
        let allows = |key| VLANS.get(key).is_some_and(|slots| slots & of_slot != 0);
        allows(vlan_key((*skb).ifindex, id)) || allows(vlan_key(0, id)) || allows(vlan_key(0, 0))
    }
}

#[inline(always)]
fn refuse_vlan(skb: *mut __sk_buff, word: CommitWord, direction: u32) -> i32 {
    if word.enforced(direction) {
        counters::drop(skb, reason::VLAN, direction)
    } else {
        counters::pass(skb, reason::NOT_ENFORCED, direction)
    }
}

#[inline(always)]
fn other_ethertype(skb: *mut __sk_buff, word: CommitWord, direction: u32) -> i32 {
    if let Some(settings) = SETTINGS.get_ptr(word.slot()) {
        // SAFETY: a non-null pointer from a lookup.
        let drops = unsafe { (*settings).drop_other_ethertypes } != 0;
        if drops && word.enforced(direction) {
            return counters::drop(skb, reason::UNSUPPORTED_L2, direction);
        }
    }
    counters::pass(skb, reason::OTHER_ETHERTYPE, direction)
}

/// The degraded mode: a slot without its program. What runs, what the operator
/// named and the agent's own traffic go on; the rest is dropped unless configured
/// otherwise.
#[inline(always)]
fn missed<F: Family, const DIRECTION: u32>(skb: *mut __sk_buff, word: CommitWord, l3: u32) -> i32 {
    if !word.enforced(DIRECTION) || word.miss_passes() {
        return counters::pass(skb, reason::MISSED_TAIL_CALL_PASSED, DIRECTION);
    }
    if let Some(packet) = F::parse_plain(skb, l3) {
        let passes = match packet.l4.state {
            l4_state::PASS_RELATED | l4_state::PASS_CONTROL => true,
            l4_state::TRACKED => {
                is_allowed_flow::<F, DIRECTION>(&packet)
                    || is_failsafe::<F, DIRECTION>(word, &packet)
                    || is_own::<F, DIRECTION>(skb, &packet)
            }
            _ => false,
        };
        if passes {
            return counters::pass(skb, reason::MISSED_TAIL_CALL_PASSED, DIRECTION);
        }
    }
    counters::drop(skb, reason::MISSED_TAIL_CALL, DIRECTION)
}

/// Whether a running flow was allowed when it was last judged (read only).
#[inline(always)]
fn is_allowed_flow<F: Family, const DIRECTION: u32>(packet: &Packet<F>) -> bool {
    let key = packet.key::<DIRECTION>();
    let Some(found) = flows::find::<F>(&key, kernel::now()) else {
        return false;
    };
    // SAFETY: a non-null pointer from a lookup.
    let entry = unsafe { &*found.entry };
    entry.flags & flags::UNJUDGED != 0 || conntrack::judged(entry).cell().passes()
}

/// Whether the packet is of the agent's own traffic, without state: on its way out
/// by mark and destination, an answer by its source.
#[inline(always)]
fn is_own<F: Family, const DIRECTION: u32>(skb: *mut __sk_buff, packet: &Packet<F>) -> bool {
    let l4 = &packet.l4;
    let (_, remote, _, port) = packet.sides::<DIRECTION>();
    let (claim, mark) = if DIRECTION == EGRESS {
        // SAFETY: `skb` is the context.
        (Claim::MARK_DEGRADED, unsafe { (*skb).mark })
    } else {
        (Claim::of_answer(l4), 0)
    };
    control::is_own::<F>(remote, port, l4.proto, claim, mark) != 0
}

/// Whether the failsafe list names the packet's flow, without state: by its
/// destination port, or as an answer by its source port.
#[inline(always)]
fn is_failsafe<F: Family, const DIRECTION: u32>(word: CommitWord, packet: &Packet<F>) -> bool {
    let (_, remote, _, _) = packet.sides::<DIRECTION>();
    let mut key = FailsafeKey {
        slot: word.slot() as u8,
        direction: DIRECTION as u8,
        proto: packet.l4.proto,
        family: F::NUMBER,
        port: u16::from_be(packet.l4.destination_port),
        pad: 0,
        peer: F::words(remote),
    };
    if is_listed(&mut key) {
        return true;
    }
    key.direction = 1 - DIRECTION as u8;
    key.port = u16::from_be(packet.l4.source_port);
    is_listed(&mut key)
}

#[inline(always)]
fn is_listed(key: &mut FailsafeKey) -> bool {
    const BITS: u32 = FailsafeKey::EXACT_BITS + 128;
    if FAILSAFE.get(Key::new(BITS, *key)).is_some() {
        return true;
    }
    key.port = 0;
    FAILSAFE.get(Key::new(BITS, *key)).is_some()
}

/// The context's raw pointer, for the family programs.
#[inline(always)]
pub fn raw(context: &TcContext) -> *mut __sk_buff {
    context.as_ptr().cast()
}
