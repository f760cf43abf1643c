//! Tags, their order, and the spread of keys.

use super::*;

const HASH: u64 = 0xabcd_ef01_2345_6789;

fn branchless(value: u64, limit: u64, then: u64) -> u64 {
    assert!(
        value < 1 << 63 && limit < 1 << 63,
        "no difference of the two"
    );
    (value.wrapping_sub(limit) >> 63) * then
}

/// Times around the places where the clock's bits and the kernel's jiffies turn.
fn clocks() -> impl Iterator<Item = u64> {
    let turns = [1 << 20, (1 << 32) - 300_000, 1 << 32, 1 << 34, 1 << 40];
    turns.into_iter().flat_map(|turn: u64| turn - 40..turn + 40)
}

#[test]
fn a_flow_lives_until_its_time_and_is_dead_from_then_on() {
    for now in clocks() {
        for life in [16, 17, 1_000, 250 * 21_600, LIFETIME_MAX] {
            let tag = Tag::new(HASH, now + life, ANSWERED);
            assert!(tag.is_alive(now), "{now} {life}");
            assert!(!tag.is_alive(now + life), "{now} {life}");
            assert!(!tag.is_alive(now + life + 250 * 86_400));
            assert!(tag.jiffies_left(now).abs_diff(life) <= 16);
            assert_eq!(tag.jiffies_left(now + life), 0);
            let renewed = tag.renewed(now + 2 * 16, ONE_SIDED);
            assert!(renewed.is_of(HASH) && renewed.kind() == ONE_SIDED);
            assert!(!renewed.is_alive(now + 3 * 16));
        }
        assert!(!Tag::FREE.is_alive(now));
    }
}

#[test]
fn the_order_of_making_room_is_dead_then_one_sided_then_answered() {
    for now in clocks() {
        let of = |life: i64, kind| {
            let expires = now.checked_add_signed(life).expect("a time");
            Tag::new(!HASH, expires, kind).rank(HASH, now)
        };
        let order = [
            of(-100, ANSWERED),
            of(100, ONE_SIDED),
            of(10_000, ONE_SIDED),
            of(200, ANSWERED),
            of(20_000, ANSWERED),
            of(100, BUSY),
        ];
        assert!(order.is_sorted(), "{now}: {order:?}");
        assert!(order[3] >= RANK_ANSWERED && order[2] < RANK_ANSWERED);
        assert!(order[5] >= RANK_NEVER && order[4] < RANK_NEVER);
        assert!(Tag::FREE.rank(HASH, now) < order[1]);
        let hides = Tag::new(HASH, now - 50, ONE_SIDED);
        assert_eq!(hides.rank(HASH, now), 0);
    }
}

#[test]
fn the_rank_without_branches_is_the_rank() {
    for now in clocks() {
        for kind in [FREE, ONE_SIDED, ANSWERED, BUSY] {
            for (hash, away) in [(HASH, 0), (!HASH, 1), (HASH, 2), (!HASH, 3)] {
                for life in [-5_000i64, -16, -1, 0, 1, 16, 5_000, 1 << 30] {
                    let expires = now.saturating_add_signed(life + away);
                    let tag = Tag::new(hash, expires, kind);
                    assert_eq!(tag.rank_by(HASH, now, branchless), tag.rank(HASH, now));
                }
            }
        }
    }
}

#[test]
fn keys_spread_over_sets_and_tags() {
    let space = Space {
        sets: 1_000,
        seed: 77,
        ..Space::default()
    };
    let mut load = [0u32; 1_000];
    for number in 0..7_000u32 {
        let key = CtKey4 {
            local: 0x0a00_0001,
            remote: 0x0a63_0000 + (number >> 8),
            local_port: 443,
            remote_port: 1_024 + (number & 255) as u16,
            proto: 6,
            kind: 0,
            pad: 0,
        };
        let hash = hash4(&key, space.seed);
        load[space.first(hash) as usize] += 1;
        assert_ne!(hash, hash4(&key, 78), "the seed matters");
    }
    let most = load.iter().max().copied().unwrap_or(0);
    let empty = load.iter().filter(|count| **count == 0).count();
    // 7,000 balls at random into 1,000 bins: at most about 20, one bin empty.
    assert!(most <= 24 && empty <= 6, "{most} {empty}");
}
