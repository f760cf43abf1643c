//! Steps towards a number, from what etcd holds.

use super::allocator::{Found, Masters, Step};

fn masters(of: &[(u32, &str)]) -> Masters {
    let mut masters = Masters::default();
    for (number, labels) in of {
        masters.put(*number, labels);
    }
    masters
}

fn found(used: Option<u32>, cursor: u32) -> Found {
    let cursor = (cursor, 7);
    Found {
        used,
        cursor,
        ..Found::default()
    }
}

#[test]
fn each_state_has_its_step() {
    let known = masters(&[(256, "a"), (300, "b"), (257, "b")]);
    for (labels, used, cursor, mends, step) in [
        // Who uses the labels decides, whatever masters say.
        ("a", Some(256), 0, false, Step::Join(256)),
        ("b", Some(300), 0, false, Step::Join(300)),
        ("c", Some(400), 0, false, Step::Join(400)),
        ("c", Some(400), 0, true, Step::Mend(400)),
        ("a", None, 0, false, Step::Take(256)),
        // All nodes choose the least.
        ("b", None, 0, false, Step::Take(257)),
        // The next free one after the cursor, around the end.
        ("c", None, 0, false, Step::Give(258)),
        ("c", None, 256, false, Step::Give(258)),
        ("c", None, 299, false, Step::Give(301)),
        ("c", None, 65_535, false, Step::Give(258)),
        ("c", None, 99_999, false, Step::Give(258)),
    ] {
        let next = known.next(labels, &found(used, cursor), mends);
        assert_eq!(next, Some(step), "{labels} {used:?} {cursor}");
    }
    let mut known = known;
    known.forget(256);
    assert_eq!(
        known.next("a", &found(None, 300), false),
        Some(Step::Give(301))
    );
    known.put(257, "a");
    assert_eq!(
        known.next("b", &found(None, 0), false),
        Some(Step::Take(300))
    );
}

#[test]
fn a_full_range_is_told() {
    let mut all = Masters::default();
    for number in 256..=65_535 {
        all.put(number, &number.to_string());
    }
    assert_eq!(all.next("c", &found(None, 1_000), false), None);
    all.forget(999);
    assert_eq!(
        all.next("c", &found(None, 1_000), false),
        Some(Step::Give(999))
    );
}
