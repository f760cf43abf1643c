//! The third verdict: the real programs, with tables that the real datapath
//! has committed.

use std::sync::Arc;

use palisade::datapath::kernel::{KernelDatapath, KernelOptions, TestPacket};
use palisade::datapath::{
    Datapath as _, DatapathError, DatapathSettings, Generation, events::EventReader,
};
use palisade::policy::{Direction, EndpointPolicy, FailsafeEntry, PolicySnapshot};

use crate::probes::{Probe, answer, frames};
use crate::sandbox::{BpfMount, Namespace};
use crate::verdict::Seen;

/// Programs, maps and events in a namespace of their own.
pub(crate) struct Kernel {
    datapath: KernelDatapath,
    events: EventReader,
    lost: u64,
    _mount: BpfMount,
    _namespace: Namespace,
}

impl Kernel {
    /// Enters a namespace with the calling thread.
    pub(crate) fn new() -> Self {
        let namespace = Namespace::enter();
        let mount = BpfMount::new();
        let options = KernelOptions {
            bpffs: mount.directory.path().join("palisade"),
            ct_entries_max: 4_096,
            ..KernelOptions::default()
        };
        let (datapath, _) = KernelDatapath::open(&options).expect("the datapath opens");
        let events = datapath.inspector().events().expect("the ring buffer");
        Self {
            datapath,
            events,
            lost: 0,
            _mount: mount,
            _namespace: namespace,
        }
    }

    /// Makes a state of the policy engine current, as the committer does.
    pub(crate) fn commit(
        &mut self,
        snapshot: &PolicySnapshot,
        policy: &EndpointPolicy,
        flows: bool,
    ) -> Result<(), DatapathError> {
        let generation = Generation {
            revision: snapshot.revision,
            endpoints: vec![Arc::new(policy.clone())],
            ipcache4: snapshot.ipcache4.clone(),
            ipcache6: snapshot.ipcache6.clone(),
            settings: Arc::new(settings(&snapshot.options.failsafe, flows)),
        };
        self.datapath.stage(&generation)?;
        self.datapath.commit()?;
        Ok(())
    }

    /// Sends the frames of a probe; what was done with each.
    pub(crate) fn judge(&mut self, probe: &Probe) -> Vec<Seen> {
        frames(probe)
            .iter()
            .map(|frame| self.send(probe.direction, frame))
            .collect()
    }

    /// Sends the answer to a probe that has passed.
    pub(crate) fn answer(&mut self, probe: &Probe) -> Seen {
        let direction = match probe.direction {
            Direction::Ingress => Direction::Egress,
            Direction::Egress => Direction::Ingress,
        };
        self.send(direction, &answer(probe))
    }

    fn send(&mut self, direction: Direction, frame: &[u8]) -> Seen {
        let packet = TestPacket {
            direction,
            frame,
            ingress_ifindex: 0,
            mark: 0,
            repeat: 1,
        };
        let verdict = self.datapath.test_run(&packet).expect("the test run");
        let mut events = Vec::new();
        self.events.read(&mut events, 2);
        assert!(events.len() < 2, "one packet, two events: {events:?}");
        Seen {
            passes: verdict.passes,
            event: events.pop(),
        }
    }

    /// Events that were lost since the last call.
    pub(crate) fn lost(&mut self) -> u64 {
        let lost = self.datapath.inspector().lost_events().expect("counters");
        let total = lost.budget + lost.ring_full;
        total - std::mem::replace(&mut self.lost, total)
    }
}

/// Unless `flows` live they are over at once: each packet is judged, none is
/// answered by conntrack.
fn settings(failsafe: &[FailsafeEntry], flows: bool) -> DatapathSettings {
    let failsafe = failsafe.to_vec();
    if flows {
        return DatapathSettings {
            failsafe,
            ..DatapathSettings::default()
        };
    }
    DatapathSettings {
        tcp_established_s: 0,
        tcp_syn_s: 0,
        tcp_close_s: 0,
        other_s: 0,
        failsafe,
        ..DatapathSettings::default()
    }
}
