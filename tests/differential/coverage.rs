//! What the generator reaches: every word of the policy language, every kind
//! of object, every option, and verdicts of every sort.

use std::collections::BTreeSet;

use palisade::policy::EnforcementMode;
use serde_json::Value;

use crate::case::Change;
use crate::generate;
use crate::generate::names;

/// Cases that are looked at.
const SEEDS: u64 = 400;

const WORDS: &str = "
    CiliumClusterwideNetworkPolicy CiliumNetworkPolicy CiliumCIDRGroup Node CiliumNode Namespace
    Pod Service EndpointSlice CiliumIdentity CiliumEndpoint
    spec specs nodeSelector endpointSelector enableDefaultDeny labels description log value
    palisade.io/enforcement audit
    matchLabels matchExpressions In NotIn Exists DoesNotExist
    fromEndpoints toEndpoints fromEntities toEntities fromCIDR toCIDR fromCIDRSet toCIDRSet
    fromNodes toNodes toServices fromGroups toGroups toFQDNs
    cidr except cidrGroupRef cidrGroupSelector k8sService k8sServiceSelector selector namespace
    toPorts ports port endPort protocol icmps fields family type
    TCP UDP SCTP ANY tcp Udp IPv4 0 65535 http HTTP
    reserved:host $host reserved:world $world $remote-node $kube-apiserver
    k8s:io.kubernetes.pod.namespace io.kubernetes.pod.namespace any:io.kubernetes.pod.namespace
    k8s:io.cilium.k8s.namespace.labels.team io.cilium.k8s.policy.serviceaccount
    k8s:io.cilium.k8s.policy.cluster k8s:app any:app node:role
    InternalIP ExternalIP CiliumInternalIP Hostname hostNetwork podIP podIPs serviceAccountName
    Running Succeeded Failed containerPort kubernetes.io/service-name conditions
    security-labels named-ports reserved:health= externalCIDRs
    cilium.io/v2 cilium.io/v2alpha1 0.0.0.0/0 ::/0
";

#[test]
fn every_construct_is_written() {
    let mut found = BTreeSet::new();
    for seed in 0..SEEDS {
        let case = generate::case(seed);
        for change in case.steps.iter().flatten() {
            found.insert(
                match change {
                    Change::Put(_) => "a change",
                    Change::Delete(_) => "a deletion",
                }
                .to_owned(),
            );
            note(change.object(), &mut found);
        }
    }
    let mut wanted: Vec<&str> = WORDS.split_whitespace().collect();
    wanted.extend(names::SECTIONS);
    wanted.extend(names::ENTITIES);
    wanted.extend(names::PORTLESS.map(|(name, _)| name));
    wanted.extend(names::icmp_names(true));
    wanted.extend(names::icmp_names(false));
    wanted.extend(["a change", "a deletion"]);
    wanted.retain(|word| !found.contains(*word));
    assert!(wanted.is_empty(), "never written: {wanted:?}");
}

/// All keys and all texts.
fn note(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                found.insert(key.clone());
                note(value, found);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| note(value, found)),
        Value::String(text) => {
            found.insert(text.clone());
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[test]
fn every_option_is_set() {
    let cases: Vec<_> = (0..SEEDS).map(generate::case).collect();
    for mode in [
        EnforcementMode::Default,
        EnforcementMode::Always,
        EnforcementMode::Never,
    ] {
        assert!(cases.iter().any(|case| case.options.enforcement == mode));
    }
    let mut count = [0; 8];
    for case in &cases {
        let options = &case.options;
        let set = [
            case.audit,
            options.audit,
            case.flows,
            options.cidr_match_nodes,
            !options.named_ports.is_empty(),
            options.failsafe.iter().any(|entry| entry.peer.is_some()),
            options.failsafe.iter().any(|entry| entry.direction == 1),
            case.local.is_empty(),
        ];
        for (count, set) in count.iter_mut().zip(set) {
            *count += usize::from(set);
        }
    }
    assert!(count.iter().all(|count| *count > 10), "{count:?}");
}
