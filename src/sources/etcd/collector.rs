//! Collects numbers that nobody uses: master keys without slave keys.
//!
//! One node at a time does it, the one whose lease holds the lock. A number goes
//! when two rounds, a lease's time apart, found it unused; so a node that lost its
//! lease and comes back at once finds its numbers again. The master goes only if
//! nobody has begun to use it meanwhile, which etcd decides.

use std::collections::BTreeSet;

use super::allocator::{number_in, used_numbers};
use super::client::{Client, Failure};
use super::keys::{COLLECTOR, MASTERS, SLAVES, slaves};
use super::wire::{Compare, KeyValue, RangeRequest, RequestOp, TxnRequest};

/// A master that nobody used: its number, and the revision of its key.
type Unused = (u32, i64);

/// What was unused in the last round.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Collector {
    unused: BTreeSet<Unused>,
}

impl Collector {
    /// Takes the state of this round; masters that go.
    fn choose(&mut self, masters: &[KeyValue], used: &BTreeSet<u32>) -> Vec<KeyValue> {
        let seen = std::mem::take(&mut self.unused);
        let mut gone = Vec::new();
        for master in masters {
            let Some(number) = number_in(&master.key, MASTERS) else {
                continue;
            };
            let unused = (number, master.mod_revision);
            if used.contains(&number) {
                continue;
            }
            if seen.contains(&unused) {
                gone.push(master.clone());
            } else {
                self.unused.insert(unused);
            }
        }
        gone
    }

    /// One round, if the lock is ours or free; how many numbers went.
    ///
    /// # Errors
    /// When etcd does not answer.
    pub async fn round(
        &mut self,
        client: &Client,
        node: &str,
        lease: i64,
    ) -> Result<usize, Failure> {
        if !holds_lock(client, node, lease).await? {
            self.unused.clear();
            return Ok(0);
        }
        let masters = client.range(RangeRequest::prefix(MASTERS)).await?;
        // Slaves are read after masters: a number that came meanwhile is no master.
        let used = used_numbers(&client.range(RangeRequest::prefix(SLAVES)).await?);
        let mut collected = 0;
        for master in self.choose(&masters.kvs, &used) {
            let (Ok(key), Ok(labels)) = (
                std::str::from_utf8(&master.key),
                std::str::from_utf8(&master.value),
            ) else {
                continue;
            };
            let transaction = TxnRequest {
                compare: vec![
                    Compare::unchanged(key, master.mod_revision),
                    Compare::nothing_under(&slaves(labels)),
                    Compare::lease(COLLECTOR, lease),
                ],
                success: vec![RequestOp::delete(key)],
                failure: Vec::new(),
            };
            collected += usize::from(client.transact(transaction).await?.succeeded);
        }
        Ok(collected)
    }
}

/// Takes the lock where nobody has it.
async fn holds_lock(client: &Client, node: &str, lease: i64) -> Result<bool, Failure> {
    let transaction = TxnRequest {
        compare: vec![Compare::absent(COLLECTOR)],
        success: vec![RequestOp::put(COLLECTOR, node, lease)],
        failure: vec![RequestOp::range(RangeRequest::one(COLLECTOR))],
    };
    let answer = client.transact(transaction).await?;
    if answer.succeeded {
        return Ok(true);
    }
    let mut held = answer.ranges().flat_map(|range| range.kvs);
    Ok(held.any(|pair| pair.lease == lease))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_goes_when_two_rounds_found_it_unused() {
        let master = |number: u32, mod_revision: i64| KeyValue {
            key: format!("{MASTERS}{number}").into(),
            mod_revision,
            ..KeyValue::default()
        };
        let mut collector = Collector::default();
        let all = [master(256, 5), master(257, 6), master(258, 7)];
        let none = BTreeSet::new();
        assert_eq!(collector.choose(&all, &BTreeSet::from([256])), []);
        // 257 was used for a moment, 258 was made anew.
        let all = [master(256, 5), master(257, 6), master(258, 9)];
        assert_eq!(collector.choose(&all, &BTreeSet::from([257])), []);
        assert_eq!(
            collector.choose(&all, &none),
            [master(256, 5), master(258, 9)]
        );
        assert_eq!(collector.choose(&all[1..2], &none), [master(257, 6)]);
    }
}
