//! The words of the policy language, and few names, so that rules meet.

/// Sections of a rule.
pub(crate) const SECTIONS: [&str; 4] = ["ingress", "ingressDeny", "egress", "egressDeny"];

/// Entities that a policy may name.
pub(crate) const ENTITIES: [&str; 14] = [
    "all",
    "world",
    "world-ipv4",
    "world-ipv6",
    "cluster",
    "cluster-mesh",
    "host",
    "remote-node",
    "kube-apiserver",
    "health",
    "init",
    "ingress",
    "unmanaged",
    "none",
];

/// Protocols with ports; ANY is all of them.
pub(crate) const PORTED: [&str; 6] = ["TCP", "UDP", "SCTP", "ANY", "tcp", "Udp"];

/// Protocols without ports.
pub(crate) const PORTLESS: [(&str, u8); 7] = [
    ("VRRP", 112),
    ("IGMP", 2),
    ("GRE", 47),
    ("IPIP", 4),
    ("IPv6", 41),
    ("ESP", 50),
    ("AH", 51),
];

/// Names of ICMP types: name, number in IPv4, number in IPv6.
const ICMP: [(&str, Option<u8>, Option<u8>); 38] = [
    ("EchoReply", Some(0), Some(129)),
    ("DestinationUnreachable", Some(3), Some(1)),
    ("Redirect", Some(5), None),
    ("Echo", Some(8), None),
    ("EchoRequest", Some(8), Some(128)),
    ("RouterAdvertisement", Some(9), Some(134)),
    ("RouterSelection", Some(10), None),
    ("TimeExceeded", Some(11), Some(3)),
    ("ParameterProblem", Some(12), Some(4)),
    ("Timestamp", Some(13), None),
    ("TimestampReply", Some(14), None),
    ("Photuris", Some(40), None),
    ("ExtendedEchoRequest", Some(42), Some(160)),
    ("ExtendedEchoReply", Some(43), Some(161)),
    ("PacketTooBig", None, Some(2)),
    ("MulticastListenerQuery", None, Some(130)),
    ("MulticastListenerReport", None, Some(131)),
    ("MulticastListenerDone", None, Some(132)),
    ("RouterSolicitation", None, Some(133)),
    ("NeighborSolicitation", None, Some(135)),
    ("NeighborAdvertisement", None, Some(136)),
    ("RedirectMessage", None, Some(137)),
    ("RouterRenumbering", None, Some(138)),
    ("ICMPNodeInformationQuery", None, Some(139)),
    ("ICMPNodeInformationResponse", None, Some(140)),
    ("InverseNeighborDiscoverySolicitation", None, Some(141)),
    ("InverseNeighborDiscoveryAdvertisement", None, Some(142)),
    ("HomeAgentAddressDiscoveryRequest", None, Some(144)),
    ("HomeAgentAddressDiscoveryReply", None, Some(145)),
    ("MobilePrefixSolicitation", None, Some(146)),
    ("MobilePrefixAdvertisement", None, Some(147)),
    ("DuplicateAddressRequestCodeSuffix", None, Some(157)),
    ("DuplicateAddressConfirmationCodeSuffix", None, Some(158)),
    // More of what hosts see most.
    ("EchoRequest", Some(8), Some(128)),
    ("EchoRequest", Some(8), Some(128)),
    ("EchoReply", Some(0), Some(129)),
    ("EchoReply", Some(0), Some(129)),
    ("TimeExceeded", Some(11), Some(3)),
];

/// Names of the types of a family.
pub(crate) fn icmp_names(v4: bool) -> Vec<&'static str> {
    let named = |of: &(&'static str, Option<u8>, Option<u8>)| {
        let number = if v4 { of.1 } else { of.2 };
        number.map(|_| of.0)
    };
    ICMP.iter().filter_map(named).collect()
}

/// Numbers that a name of a type stands for, in both families.
pub(crate) fn icmp_types(name: &str) -> impl Iterator<Item = u8> {
    let found = ICMP.iter().find(|(known, ..)| *known == name);
    found
        .into_iter()
        .flat_map(|(_, v4, v6)| [*v4, *v6])
        .flatten()
}

/// IP protocol numbers that a name stands for.
pub(crate) fn protocol(name: &str) -> Vec<u8> {
    let name = name.to_uppercase();
    match name.as_str() {
        "TCP" => vec![6],
        "UDP" => vec![17],
        "SCTP" => vec![132],
        "ANY" => vec![6, 17, 132],
        _ => PORTLESS
            .iter()
            .filter(|(known, _)| known.to_uppercase() == name)
            .map(|(_, number)| *number)
            .collect(),
    }
}

/// Labels of nodes, pods and services: key and values.
pub(crate) const LABELS: [(&str, [&str; 3]); 4] = [
    ("app", ["web", "db", "dns"]),
    ("env", ["prod", "dev", ""]),
    ("role", ["worker", "control", "edge"]),
    ("kubernetes.io/os", ["linux", "windows", "other"]),
];

/// Names of ports, of pods and of this host.
pub(crate) const PORTS: [&str; 3] = ["http", "dns", "metrics-1"];
