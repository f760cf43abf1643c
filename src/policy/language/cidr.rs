//! Prefixes as Cilium reads them.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value};

use super::selector::{Matched, read_selector};
use super::types::{CidrGroups, Peer};
use crate::policy::checker::{At, Checker, Fault, field};

/// Reads one prefix; host bits are masked, a bare address is a whole-length
/// prefix with a warning.
pub(in crate::policy) fn read_cidr(
    checker: &mut Checker,
    at: &At<'_>,
    value: &Value,
) -> Option<IpNet> {
    let text = checker.string(at, value)?;
    if text.is_empty() {
        checker.error(at, Fault::new(value, "an empty prefix").suggest(EXAMPLE));
        return None;
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        let prefix = IpNet::from(address);
        checker.warn(
            at,
            Fault::new(value, "a bare address")
                .suggest(format!("write {prefix}; newer Cilium refuses it")),
        );
        return Some(prefix);
    }
    match parse_prefix(text) {
        Ok(prefix) => {
            if prefix != prefix.trunc() {
                let masked = format!("the host bits are ignored: this is {}", prefix.trunc());
                checker.warn(at, Fault::new(value, masked));
            }
            Some(prefix.trunc())
        }
        Err(reason) => {
            checker.error(at, Fault::new(value, reason).suggest(EXAMPLE));
            None
        }
    }
}

const EXAMPLE: &str = "a valid one is \"10.0.0.0/8\" or \"2001:db8::/32\"";

fn parse_prefix(text: &str) -> Result<IpNet, String> {
    let (address, length) = text
        .split_once('/')
        .ok_or("not an address and not a prefix")?;
    let address: IpAddr = address
        .parse()
        .map_err(|_| "not a prefix: the part before \"/\" is not an IP address")?;
    let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || (length.len() > 1 && length.starts_with('0')) {
        return Err("not a prefix: the part after \"/\" is not a number".to_owned());
    }
    let max = if address.is_ipv4() { 32 } else { 128 };
    length
        .parse()
        .ok()
        .and_then(|length| IpNet::new(address, length).ok())
        .ok_or_else(|| format!("the prefix length must be at most {max}"))
}

/// Checks one `except` against its `cidr`.
fn check_except(checker: &mut Checker, at: &At<'_>, value: &Value, cidr: IpNet, except: IpNet) {
    let same_family = cidr.addr().is_ipv4() == except.addr().is_ipv4();
    let reason = if !same_family {
        format!("of another address family than cidr {cidr}")
    } else if except.prefix_len() < cidr.prefix_len() {
        format!("shorter than cidr {cidr}")
    } else if !cidr.contains(&except) {
        format!("not within cidr {cidr}")
    } else {
        return;
    };
    checker.error(
        at,
        Fault::new(value, reason).suggest("each except must lie within its cidr"),
    );
}

/// Reads one element of `fromCIDRSet` or `toCIDRSet`.
pub(super) fn read_cidr_set(
    checker: &mut Checker,
    at: &At<'_>,
    object: &Map<String, Value>,
) -> Option<Peer> {
    const KINDS: [&str; 3] = ["cidr", "cidrGroupRef", "cidrGroupSelector"];
    let [by_cidr, by_name, by_labels] = KINDS;
    checker.known_fields(at, object, &[by_cidr, by_name, by_labels, "except"]);
    // An empty string counts as not written, as in Cilium.
    let written = |name: &str| field(object, name).filter(|value| value.as_str() != Some(""));
    let used = KINDS.into_iter().filter(|name| written(name).is_some());
    if used.count() != 1 {
        let reason = "exactly one of cidr, cidrGroupRef and cidrGroupSelector must be written";
        checker.error(at, Fault::missing(reason));
    }
    let cidr = written(by_cidr).and_then(|value| read_cidr(checker, &at.key(by_cidr), value));
    let except = read_excepts(checker, at, object, cidr);
    if let Some(value) = written(by_name) {
        let name = read_group_name(checker, &at.key(by_name), value)?;
        return Some(Peer::CidrGroup {
            groups: CidrGroups::Named(name.to_owned()),
            except,
        });
    }
    if let Some(value) = written(by_labels) {
        let selector = read_selector(checker, &at.key(by_labels), value, Matched::Objects)?;
        return Some(Peer::CidrGroup {
            groups: CidrGroups::Labelled(selector),
            except,
        });
    }
    cidr.map(|cidr| Peer::Cidr { cidr, except })
}

fn read_excepts(
    checker: &mut Checker,
    at: &At<'_>,
    object: &Map<String, Value>,
    cidr: Option<IpNet>,
) -> Vec<IpNet> {
    let mut except = Vec::new();
    let at = at.key("except");
    let list = field(object, "except").and_then(|list| checker.list(&at, list));
    for (index, value) in list.into_iter().flatten().enumerate() {
        let at = at.index(index);
        let Some(prefix) = read_cidr(checker, &at, value) else {
            continue;
        };
        if let Some(cidr) = cidr {
            check_except(checker, &at, value, cidr, prefix);
        }
        except.push(prefix);
    }
    except.sort();
    except.dedup();
    except
}

/// The name of a CiliumCIDRGroup, as Kubernetes allows it.
fn read_group_name<'v>(checker: &mut Checker, at: &At<'_>, value: &'v Value) -> Option<&'v str> {
    const NAME_MAX: usize = 253;
    let name = checker.string(at, value)?;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let valid = name.len() <= NAME_MAX
        && name.split('.').all(|part| {
            let bytes = part.as_bytes();
            bytes.first().is_some_and(|byte| plain(*byte))
                && bytes.last().is_some_and(|byte| plain(*byte))
                && bytes.iter().all(|byte| plain(*byte) || *byte == b'-')
        });
    if !valid {
        let reason = "not the name of a CiliumCIDRGroup";
        let suggestion = "lower-case letters, digits, '-' and '.'";
        checker.error(at, Fault::new(value, reason).suggest(suggestion));
    }
    valid.then_some(name)
}
