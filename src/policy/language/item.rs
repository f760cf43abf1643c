//! One item of a section: peers AND ports.

use serde_json::{Map, Value};

use super::namespaces::PeerScope;
use super::peers::{field_names, read_peers};
use super::ports::{read_icmps, read_to_ports};
use super::types::{Item, Peers, Ports};
use crate::policy::checker::{At, Checker, Fault, field};
use crate::policy::nearest::nearest;
use crate::policy::{Direction, Section};

/// What the rule around an item says about it.
#[derive(Clone, Copy)]
pub(super) struct Around<'a> {
    pub(super) section: Section,
    pub(super) direction: Direction,
    /// The rule is for workload endpoints: it is checked as Cilium checks it,
    /// and what a host cannot enforce is no error.
    pub(super) held: bool,
    pub(super) scope: PeerScope<'a>,
}

/// Reads one item; `index` is its number over the whole policy.
pub(super) fn read_item(
    checker: &mut Checker,
    at: &At<'_>,
    value: &Value,
    around: Around<'_>,
    index: usize,
) -> Option<Item> {
    let object = checker.object(at, value)?;
    let mut known: Vec<&str> = field_names(around.direction).collect();
    known.extend(["toPorts", "icmps", "authentication"]);
    checker.known_fields(at, object, &known);
    check_authentication(checker, at, object, around);
    let peers = read_peers(checker, at, object, around);
    let ports = read_ports(checker, at, object, around);
    let (peers, ports) = match (peers, ports) {
        // Neither peers nor ports: the item matches nothing.
        (None, None) => {
            warn_of_nothing(checker, at, around);
            (Peers::Select(Vec::new()), Ports::All)
        }
        (peers, ports) => (peers.unwrap_or(Peers::Any), ports.unwrap_or(Ports::All)),
    };
    if ports == Ports::Some(Vec::new()) {
        let fault = Fault::missing("no port is written: the item matches nothing");
        checker.warn(at, fault.suggest("remove toPorts to match every protocol"));
    }
    Some(Item {
        section: around.section,
        index,
        path: at.path(),
        peers,
        ports,
    })
}

fn warn_of_nothing(checker: &mut Checker, at: &At<'_>, around: Around<'_>) {
    let direction = around.direction.as_str();
    let reason = if around.section.is_deny() {
        format!("denies nothing by itself; {direction} is denied by default all the same")
    } else {
        format!("allows nothing: all it does is that {direction} is denied by default")
    };
    checker.warn(at, Fault::missing(reason));
}

fn check_authentication(
    checker: &mut Checker,
    at: &At<'_>,
    object: &Map<String, Value>,
    around: Around<'_>,
) {
    const MODES: [&str; 3] = ["disabled", "required", "test-always-fail"];
    let at = at.key("authentication");
    let Some(value) = field(object, "authentication") else {
        return;
    };
    if around.section.is_deny() {
        let reason = "authentication is not allowed in a deny section";
        return checker.error(&at, Fault::new(value, reason));
    }
    if !around.held {
        let reason = "mutual authentication cannot be enforced on a host";
        return checker.error(&at, Fault::new(value, reason));
    }
    let Some(object) = checker.object(&at, value) else {
        return;
    };
    checker.known_fields(&at, object, &["mode"]);
    let Some(mode) = field(object, "mode") else {
        return checker.error(&at, Fault::missing("mode: missing"));
    };
    let text = mode.as_str().unwrap_or("");
    if !MODES.contains(&text) {
        let suggestion = match nearest(text, MODES) {
            Some(meant) => format!("did you mean {meant:?}?"),
            None => format!("one of {}", MODES.join(", ")),
        };
        let fault = Fault::new(mode, "unknown mode").suggest(suggestion);
        checker.error(&at.key("mode"), fault);
    }
}

/// None: neither `toPorts` nor `icmps` is written, or both are empty.
fn read_ports(
    checker: &mut Checker,
    at: &At<'_>,
    object: &Map<String, Value>,
    around: Around<'_>,
) -> Option<Ports> {
    let at_ports = at.key("toPorts");
    let at_icmps = at.key("icmps");
    let to_ports = field(object, "toPorts")
        .and_then(|value| checker.list(&at_ports, value))
        .filter(|list| !list.is_empty());
    let icmps = field(object, "icmps")
        .and_then(|value| checker.list(&at_icmps, value))
        .filter(|list| !list.is_empty());
    if to_ports.is_some() && icmps.is_some() {
        let reason = "toPorts and icmps in one item are not allowed";
        checker.error(at, Fault::missing(reason).suggest("write two items"));
    }
    let mut matches = Vec::new();
    if let Some(list) = to_ports {
        matches.extend(read_to_ports(checker, &at_ports, list, around));
    }
    if let Some(list) = icmps {
        matches.extend(read_icmps(checker, &at_icmps, list));
    }
    (to_ports.is_some() || icmps.is_some()).then_some(Ports::Some(matches))
}
