//! Columns keep their numbers, but for a few.

use std::collections::BTreeSet;
use std::ops::Range;

use super::{Borders, Layout, Said};
use crate::policy::row::{Loose, Part};

/// Ports in no order, each once.
fn ports(count: usize) -> Vec<usize> {
    (0..count)
        .map(|number| 1 + number * 40_503 % 65_521)
        .collect()
}

fn borders(ports: &[usize]) -> Borders {
    let mut borders = Borders::default();
    for port in ports {
        borders.count(&(*port..*port + 1), true);
    }
    borders
}

/// What a rule for one port makes of the columns.
fn row(layout: &Layout, run: Range<usize>) -> Part<u32> {
    let said = Said {
        runs: &[(run, 1)],
        uncovered: 0,
        others: 0,
    };
    layout.row(&mut Loose::default(), said)
}

#[test]
fn every_column_has_a_number_of_its_own() {
    for count in [0, 1, 14, 15, 300, 3_000, 65_000] {
        let ports = ports(count);
        let layout = Layout::new(&borders(&ports));
        assert_eq!(layout.count(), count + 2);
        let numbers: BTreeSet<u32> = layout.by_key.iter().flatten().copied().collect();
        assert_eq!(numbers.len(), count + 2);
        assert!(
            numbers
                .last()
                .is_some_and(|last| (*last as usize) < layout.width())
        );
        for port in ports.iter().take(20) {
            let row = row(&layout, *port..*port + 1);
            let said = |port| row.get(layout.width(), layout.of(port));
            assert_eq!((said(*port), said(0)), (Some(1), Some(0)));
        }
    }
}

#[test]
fn a_new_port_moves_a_few_neighbours() {
    let all = ports(3_001);
    let (more, ports) = all.split_last().expect("some");
    let (old, new) = (Layout::new(&borders(ports)), Layout::new(&borders(&all)));
    let moves = new.moves(&old).expect("few");
    assert!(moves.len() < 200, "{} of 3,000 columns", moves.len());
    // A row that says the same of both of each pair stays as it is; others do
    // change.
    let mut kept = 0;
    for port in ports {
        let before = row(&old, *port..*port + 1);
        let after = row(&new, *port..*port + 1);
        let says = |column| before.get(old.width(), old.of(column));
        if moves.iter().all(|(was, is)| says(*was) == says(*is)) {
            assert_eq!(before, after, "port {port}, {more} is new");
            kept += 1;
        }
    }
    assert!(kept > 2_900, "{kept} rows stay");
}

#[test]
fn ports_that_begin_to_touch_are_no_gap() {
    let mut borders = borders(&[80, 90]);
    assert_eq!(Layout::new(&borders).count(), 4);
    borders.count(&(81..90), true);
    assert_eq!(Layout::new(&borders).count(), 5);
    borders.count(&(81..90), false);
    assert_eq!(Layout::new(&borders).count(), 4);
}
