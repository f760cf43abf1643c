//! What is planned for a slot is what differs from what it holds.

use std::collections::HashSet;

use palisade_abi::table::{Cell, IDENTITIES_MAX, ROW_WORDS};

use super::*;
use crate::datapath::kernel::pool::tests::Vector;
use crate::events::{EndpointId, Revision};
use crate::policy::row::Shelf;

/// A row of three blocks, two of which no other rule has.
fn row(shelf: &mut Shelf, rule: u32) -> Row {
    let cell = |rule| Cell::new(1, false, rule);
    let ports = (0..5).flat_map(|port| [(20 * port, cell(0)), (20 * port + 7, cell(rule))]);
    let runs: Vec<(u32, Cell)> = ports.chain([(500, cell(0))]).collect();
    shelf.row(&runs)
}

fn policy(table: &VerdictTable) -> EndpointPolicy {
    let of = |table: VerdictTable| {
        Arc::new(DirectionPolicy {
            table,
            ..DirectionPolicy::default()
        })
    };
    EndpointPolicy {
        endpoint: EndpointId(1),
        revision: Revision(1),
        directions: [of(table.clone()), of(VerdictTable::default())],
        rules: Default::default(),
    }
}

fn planned(slot: &mut Slot, memory: &mut Vector, table: &VerdictTable) -> [usize; 2] {
    let policy = policy(table);
    let [ingress, _] = slot.plan(memory, &policy).expect("fits");
    let rows = ingress.len();
    let blocks = memory.write(&mut slot.pool);
    slot.learn(&policy);
    [rows, blocks]
}

#[test]
fn one_row_that_changes_is_one_word_however_many_there_are() {
    for identities in [100u32, 10_000] {
        let mut shelf = Shelf::default();
        let mut table = VerdictTable {
            ..VerdictTable::default()
        };
        for index in 0..identities {
            let row = row(&mut shelf, 1 + index % 500);
            table.rows.insert(IdentityIndex(index), row);
        }
        let nothing = [0, 1].map(|_| vec![Word::default(); ROW_WORDS]);
        let mut memory = Vector::default();
        let mut slot = Slot::found(&memory, nothing, 0);
        let everyone = planned(&mut slot, &mut memory, &table);
        assert_eq!(everyone[0], IDENTITIES_MAX + 2);
        let in_use = slot.pool.in_use();
        // To a row that others have, to a new one, away, and back again.
        let place = IdentityIndex(identities / 2);
        let own = table.rows.insert(place, row(&mut shelf, 3)).expect("live");
        assert_eq!(planned(&mut slot, &mut memory, &table), [1, 0]);
        table.rows.insert(place, row(&mut shelf, 1_000));
        assert_eq!(planned(&mut slot, &mut memory, &table), [1, 2]);
        table.rows.remove(&place);
        assert_eq!(planned(&mut slot, &mut memory, &table), [1, 0]);
        let words = &slot.words[0];
        assert_eq!(words[place.0 as usize], words[0], "nobody's is the first");
        table.rows.insert(place, own);
        assert_eq!(planned(&mut slot, &mut memory, &table)[0], 1);
        table.everyone = row(&mut shelf, 2_000);
        assert_eq!(planned(&mut slot, &mut memory, &table), [1, 2]);
        table.everyone = Row::default();
        assert_eq!(planned(&mut slot, &mut memory, &table), [1, 0]);
        assert_eq!(planned(&mut slot, &mut memory, &table), [0, 0]);
        assert_eq!(slot.pool.in_use(), in_use);
        // Nothing of what the words say has been lost on the way.
        let used = slot.words[0][..IDENTITIES_MAX].iter();
        let used: HashSet<u32> = used.map(|word| word.0).collect();
        assert_eq!(used.len(), 500.min(identities as usize));
        let learned = Pool::learn(&memory, slot.words.iter().flatten().copied());
        assert_eq!(learned.in_use(), in_use);
        assert_eq!(learned.sum(), slot.pool.sum());
    }
}
