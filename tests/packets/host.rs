//! A host under test: policy engine, kernel datapath and its counters, in a
//! network namespace and a directory of pins of its own.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use palisade::datapath::events::EventReader;
use palisade::datapath::kernel::{
    ControlList, Inspector, KernelDatapath, KernelOptions, TestPacket,
};
use palisade::datapath::{Datapath as _, DatapathSettings, Generation};
use palisade::events::{EndpointId, RepositoryChange, SourceName};
use palisade::policy::oracle::{self, Outcome};
use palisade::policy::{
    Applied, Direction, FailsafeEntry, Packet, PolicyOptions, Repository, RuleNumber, Subject,
    documents, resolve,
};
use palisade_abi::event::Event;
use palisade_abi::reason;

use crate::sandbox::{BpfMount, Namespace, is_privileged};

pub(crate) const HOST4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
pub(crate) const HOST6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1));
pub(crate) const PEER4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
pub(crate) const PEER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2));
pub(crate) const OUTSIDER4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 9, 9));
pub(crate) const OUTSIDER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 9));

pub(crate) use reason::{
    FORBIDDEN_ICMPV6 as DROP_FORBIDDEN, FRAGMENT_NOT_FOUND as DROP_FRAGMENT,
    INVALID_PACKET as DROP_INVALID, INVALID_SOURCE as DROP_SPOOF, IPV6_EXTENSION as DROP_EXTENSION,
    MISSED_TAIL_CALL as DROP_MISSED, POLICY as DROP_POLICY, POLICY_DENY as DROP_DENY,
    UNSUPPORTED_L2 as DROP_ETHERTYPE, VLAN as DROP_VLAN,
};

/// The policy that the project began with.
pub(crate) const SEED: &str = r#"
apiVersion: "cilium.io/v2"
kind: CiliumClusterwideNetworkPolicy
metadata:
  name: "demo-host-policy"
spec:
  description: ""
  nodeSelector:
    matchLabels:
      node-access: ssh
  ingress:
  - fromEntities:
    - cluster
  - toPorts:
    - ports:
      - port: "22"
        protocol: TCP
"#;

/// One TCP port in, from everywhere.
pub(crate) const FAILSAFE: FailsafeEntry = FailsafeEntry {
    direction: palisade_abi::direction::INGRESS,
    proto: 6,
    port: 2_222,
    peer: None,
};

const PEER: &str = r#"
apiVersion: v1
kind: Node
metadata: {name: peer}
status:
  addresses:
  - {type: InternalIP, address: 10.0.0.2}
  - {type: InternalIP, address: "fd00::2"}
"#;

/// What must become of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Expect {
    /// Goes on, and leaves by this counter.
    Pass(u8),
    /// Dropped for this reason.
    Drop(u8),
    /// Dropped, whatever the reason.
    AnyDrop,
}

/// Goes on because policy or conntrack allows it, or nothing is enforced.
pub(crate) fn pass() -> Expect {
    Expect::Pass(u8::MAX)
}

/// Goes on by another exit.
pub(crate) fn passes_as(reason: u8) -> Expect {
    Expect::Pass(reason)
}

/// What a direction of the policy is put in force as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum As {
    Enforced,
    /// Enforced, with the endpoint in audit mode.
    Audited,
    /// Watched: only policies in audit are about it.
    Watched,
    /// Watched by a table that denies without the audit bit, which no policy makes.
    WatchedWithDenials,
}

/// What became of one frame.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Sent {
    pub(crate) passes: bool,
    /// Exits whose counter moved, by how many packets and bytes.
    pub(crate) moved: Vec<(u8, u64, u64)>,
    pub(crate) events: Vec<Event>,
}

/// Policy engine and datapath of one host.
pub(crate) struct Host {
    repository: Repository,
    /// Keys that the last `apply` made.
    policies: Vec<RepositoryChange>,
    settings: DatapathSettings,
    datapath: KernelDatapath,
    /// The exits as they were counted after the last packet.
    counted: BTreeMap<(u8, Direction), u64>,
    /// The same with bytes, after the last shot.
    volumes: BTreeMap<(u8, Direction), (u64, u64)>,
    reader: Option<EventReader>,
    /// Of the packets that are sent.
    mark: u32,
    pins: PathBuf,
    _mount: BpfMount,
    _namespace: Namespace,
}

impl Host {
    /// None, with the reason on stderr, where the machine cannot run it; a
    /// failure where PALISADE_REQUIRE_PRIVILEGED says that it must.
    pub(crate) fn new() -> Option<Self> {
        Self::build(Vec::new(), 4_096)
    }

    /// A host with one entry in its failsafe list.
    pub(crate) fn with_failsafe(entry: FailsafeEntry) -> Option<Self> {
        Self::build(vec![entry], 4_096)
    }

    /// A host whose conntrack holds so many flows.
    pub(crate) fn with_conntrack(entries_max: u32) -> Option<Self> {
        Self::build(Vec::new(), entries_max)
    }

    fn build(failsafe: Vec<FailsafeEntry>, ct_entries_max: u32) -> Option<Self> {
        if !is_privileged() {
            return None;
        }
        let namespace = Namespace::enter();
        let mount = BpfMount::new();
        let pins = mount.directory.path().join("palisade");
        let options = KernelOptions {
            bpffs: pins.clone(),
            ct_entries_max,
            ..KernelOptions::default()
        };
        let (datapath, _) = KernelDatapath::open(&options).expect("the datapath opens");
        let policy_options = PolicyOptions {
            node_name: "host".to_owned(),
            node_labels: [("node-access".to_owned(), "ssh".to_owned())].into(),
            failsafe: failsafe.clone(),
            ..PolicyOptions::default()
        };
        let mut repository = Repository::new(policy_options);
        repository.apply(&RepositoryChange::LocalAddresses(vec![HOST4, HOST6]));
        for change in changes(PEER) {
            assert!(matches!(repository.apply(&change), Applied::Changed(_)));
        }
        Some(Self {
            repository,
            policies: Vec::new(),
            settings: DatapathSettings {
                failsafe,
                ..DatapathSettings::default()
            },
            datapath,
            counted: BTreeMap::new(),
            volumes: BTreeMap::new(),
            reader: None,
            mark: 0,
            pins,
            _mount: mount,
            _namespace: namespace,
        })
    }

    /// The mark of every packet from now on.
    pub(crate) fn mark(&mut self, mark: u32) {
        self.mark = mark;
    }

    /// Where the agent's own traffic may lead, and its mark.
    pub(crate) fn control(&self) -> ControlList {
        self.datapath.control()
    }

    /// Allows VLAN ids from the next `apply` on.
    pub(crate) fn vlans(&mut self, ids: &[u16]) {
        self.settings.vlan_allow = ids.to_vec();
    }

    /// Drops ethertypes other than ARP and IP from the next `apply` on.
    pub(crate) fn drop_other_ethertypes(&mut self) {
        self.other_ethertypes(true);
    }

    /// Whether they are dropped, from the next `apply` on.
    pub(crate) fn other_ethertypes(&mut self, dropped: bool) {
        self.settings.drop_other_ethertypes = dropped;
    }

    /// Lifetimes of flows from the next `apply` on, in seconds: established TCP,
    /// unanswered TCP, closed TCP, everything else. 0: over at once.
    pub(crate) fn lifetimes(&mut self, seconds: [u32; 4]) {
        [
            self.settings.tcp_established_s,
            self.settings.tcp_syn_s,
            self.settings.tcp_close_s,
            self.settings.other_s,
        ] = seconds;
    }

    /// Configures the namespace that the host lives in.
    pub(crate) fn run(&self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let status = Command::new(words[0]).args(&words[1..]).status();
        assert!(status.expect("the tool is installed").success(), "{line}");
    }

    /// What the plain reading of the policy says of a flow's first packet, if
    /// nothing but policy decides about it.
    pub(crate) fn oracle(&self, direction: Direction, peer: IpAddr, packet: Packet) -> Expect {
        let snapshot = self.repository.snapshot();
        let subject = Subject::Host(EndpointId(1));
        let judgement = oracle::judge(&snapshot, subject, direction, peer, packet);
        match judgement.outcome {
            Outcome::NotEnforced | Outcome::Allowed | Outcome::AllowedByDefault => {
                Expect::Pass(reason::FORWARDED)
            }
            Outcome::Denied => Expect::Drop(reason::POLICY_DENY),
            Outcome::NotAllowed => Expect::Drop(reason::POLICY),
            Outcome::FragmentUnknown => Expect::Drop(reason::FRAGMENT_NOT_FOUND),
        }
    }

    /// Packets that have left by one exit so far.
    pub(crate) fn count(&self, reason: u8, direction: Direction) -> u64 {
        self.exits().get(&(reason, direction)).copied().unwrap_or(0)
    }

    /// The kernel side, to be read.
    pub(crate) fn inspector(&self) -> Inspector {
        self.datapath.inspector()
    }

    /// Makes `yaml` the whole policy: one generation.
    pub(crate) fn apply(&mut self, yaml: &str) {
        self.apply_as(yaml, [As::Enforced; 2]);
    }

    /// The same with the endpoint in audit mode.
    pub(crate) fn apply_audited(&mut self, yaml: &str) {
        self.apply_as(yaml, [As::Audited; 2]);
    }

    /// The same, with what each direction is put in force as.
    pub(crate) fn apply_as(&mut self, yaml: &str, as_what: [As; 2]) {
        for change in std::mem::take(&mut self.policies) {
            let key = change.key().expect("a resource").clone();
            self.repository.apply(&RepositoryChange::Delete {
                key,
                source: change.source(),
            });
        }
        self.policies = changes(yaml);
        for change in &self.policies {
            let applied = self.repository.apply(change);
            assert!(matches!(applied, Applied::Changed(_)), "{applied:?}");
        }
        let snapshot = self.repository.snapshot();
        let resolved =
            |audit| resolve(&snapshot, Subject::Host(EndpointId(1)), audit).expect("it resolves");
        let (mut policy, audited) = (resolved(false), resolved(true));
        for (place, as_what) in as_what.into_iter().enumerate() {
            if matches!(as_what, As::Audited | As::Watched) {
                policy.directions[place] = Arc::clone(&audited.directions[place]);
            }
            if matches!(as_what, As::Watched | As::WatchedWithDenials) {
                let direction = Arc::make_mut(&mut policy.directions[place]);
                direction.watched = std::mem::take(&mut direction.enforced);
            }
        }
        let generation = Generation {
            revision: snapshot.revision,
            endpoints: vec![Arc::new(policy)],
            ipcache4: snapshot.ipcache4.clone(),
            ipcache6: snapshot.ipcache6.clone(),
            settings: Arc::new(self.settings.clone()),
        };
        self.datapath.stage(&generation).expect("it is staged");
        self.datapath.commit().expect("it is committed");
    }

    /// A packet from the wire.
    pub(crate) fn ingress(&mut self, what: &str, frame: &[u8], expected: Expect) {
        self.check(what, Direction::Ingress, frame, 0, expected);
    }

    /// A packet that the host made.
    pub(crate) fn egress(&mut self, what: &str, frame: &[u8], expected: Expect) {
        self.check(what, Direction::Egress, frame, 0, expected);
    }

    /// A packet that the host forwards, on its way out.
    pub(crate) fn forwarded(&mut self, what: &str, frame: &[u8], expected: Expect) {
        self.check(what, Direction::Egress, frame, 1, expected);
    }

    /// A packet from the wire, or one that the host made.
    pub(crate) fn send(
        &mut self,
        what: &str,
        direction: Direction,
        frame: &[u8],
        expected: Expect,
    ) {
        self.check(what, direction, frame, 0, expected);
    }

    /// A packet of which only its fate is of interest: whether it passes.
    pub(crate) fn flood(&mut self, direction: Direction, frame: &[u8]) -> bool {
        let packet = TestPacket {
            direction,
            frame,
            ingress_ifindex: 0,
            mark: self.mark,
            repeat: 1,
        };
        let verdict = self.datapath.test_run(&packet).expect("the test run");
        verdict.passes
    }

    /// Sends a frame and tells all that it did; None where a test run takes no
    /// frame so short.
    pub(crate) fn shoot(
        &mut self,
        direction: Direction,
        frame: &[u8],
        forwarded: bool,
    ) -> Option<Sent> {
        let packet = TestPacket {
            direction,
            frame,
            ingress_ifindex: u32::from(forwarded),
            mark: self.mark,
            repeat: 1,
        };
        let verdict = match self.datapath.test_run(&packet) {
            Ok(verdict) => verdict,
            Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => return None,
            Err(error) => panic!("the test run: {error}"),
        };
        let mut events = Vec::new();
        let reader = self.reader.get_or_insert_with(|| {
            let inspector = self.datapath.inspector();
            inspector.events().expect("the ring buffer")
        });
        reader.read(&mut events, usize::MAX);
        let counters = self.datapath.inspector().counters().expect("the counters");
        let mut moved = Vec::new();
        for counter in counters {
            let now = (counter.packets, counter.bytes);
            let exit = (counter.reason, counter.direction);
            let before = self.volumes.insert(exit, now).unwrap_or_default();
            if now != before {
                moved.push((counter.reason, now.0 - before.0, now.1 - before.1));
            }
        }
        Some(Sent {
            passes: verdict.passes,
            moved,
            events,
        })
    }

    /// Events that nobody saw.
    pub(crate) fn lost(&self) -> u64 {
        let lost = self.datapath.inspector().lost_events().expect("counters");
        lost.budget + lost.ring_full
    }

    /// Whether a rule of this number exists; 0 is no rule.
    pub(crate) fn knows_rule(&self, number: u32) -> bool {
        let snapshot = self.repository.snapshot();
        number == 0 || snapshot.rules.contains_key(&RuleNumber(number))
    }

    /// Looks at the counters anew: packets have passed uncounted.
    pub(crate) fn recount(&mut self) {
        self.counted = self.exits();
    }

    fn check(
        &mut self,
        what: &str,
        direction: Direction,
        frame: &[u8],
        ingress_ifindex: u32,
        expected: Expect,
    ) {
        let packet = TestPacket {
            direction,
            frame,
            ingress_ifindex,
            mark: self.mark,
            repeat: 1,
        };
        let verdict = self.datapath.test_run(&packet).expect("the test run");
        let after = self.exits();
        let before = std::mem::replace(&mut self.counted, after);
        let moved = self.counted.iter();
        let moved: Vec<u8> = moved
            .filter(|(exit, packets)| before.get(exit).copied().unwrap_or(0) != **packets)
            .map(|((reason, _), _)| *reason)
            .collect();
        let [exit] = moved[..] else {
            panic!(
                "{what}: {} exits were counted, not one: {moved:?}",
                moved.len()
            );
        };
        let seen = if verdict.passes {
            Expect::Pass(exit)
        } else {
            Expect::Drop(exit)
        };
        let quiet = [
            reason::FORWARDED,
            reason::NOT_ENFORCED,
            reason::ICMPV6_BYPASS,
        ];
        let as_expected = match expected {
            Expect::Pass(u8::MAX) => {
                verdict.passes && (quiet.contains(&exit) || exit == reason::NOT_OURS)
            }
            Expect::AnyDrop => !verdict.passes,
            Expect::Pass(_) | Expect::Drop(_) => seen == expected,
        };
        assert!(
            as_expected,
            "{what} ({}): expected {expected:?}, saw {seen:?} ({})\n{frame:02x?}",
            direction.as_str(),
            reason::label(exit)
        );
    }

    /// What was reported since the last call.
    pub(crate) fn events(&self) -> Vec<Event> {
        let mut reader = self.datapath.inspector().events().expect("the ring buffer");
        let mut events = Vec::new();
        reader.read(&mut events, usize::MAX);
        events
    }

    /// Packets that one rule decided about.
    pub(crate) fn hits(&self, rule: u32) -> u64 {
        let inspector = self.datapath.inspector();
        let counters = inspector.rules([RuleNumber(rule)]).expect("the counters");
        counters.iter().map(|counter| counter.packets).sum()
    }

    /// Packets by (reason, direction).
    fn exits(&self) -> BTreeMap<(u8, Direction), u64> {
        let counters = self.datapath.inspector().counters().expect("the counters");
        counters
            .into_iter()
            .map(|c| ((c.reason, c.direction), c.packets))
            .collect()
    }

    /// Empties the tail-call arrays, as a kernel does that lost their last reference.
    pub(crate) fn remove_programs(&self) {
        for array in ["pal_calls_in", "pal_calls_eg"] {
            let pin = std::fs::read_dir(&self.pins)
                .expect("the directory of pins")
                .map(|entry| entry.expect("a pin").path())
                .find(|path| path.to_string_lossy().contains(array))
                .expect("the program array is pinned");
            for slot in ["0", "1", "2", "3"] {
                // An entry that is empty already is no matter.
                let _status = Command::new("bpftool")
                    .args(["map", "delete", "pinned"])
                    .arg(&pin)
                    .args(["key", slot, "0", "0", "0"])
                    .stderr(Stdio::null())
                    .status()
                    .expect("bpftool is installed");
            }
        }
    }
}

fn changes(yaml: &str) -> Vec<RepositoryChange> {
    let reading = documents::read("test.yaml", yaml.as_bytes(), SourceName::Manifests);
    assert!(reading.errors.is_empty(), "{:?}", reading.errors);
    reading
        .documents
        .into_iter()
        .map(|document| RepositoryChange::Upsert(document.resource))
        .collect()
}
