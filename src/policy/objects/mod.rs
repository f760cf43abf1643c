//! Context objects: what rules talk about, as read from manifests or an API.
//!
//! Plain data. Unknown fields are ignored: these objects are others' words, and
//! only the parts below matter here. A part that does matter and that cannot be
//! read is an error of its object.

mod cidr_group;
mod common;
mod endpoint;
mod endpoint_slice;
mod identity;
mod namespace;
mod node;
mod pod;
mod service;
#[cfg(test)]
mod tests;

use serde_json::Value;

use super::checker::{At, Checker, Fault};
use super::language::Reading;
use crate::events::{ResourceKey, ResourceKind};
pub use cidr_group::CidrGroupObject;
pub use endpoint::EndpointObject;
pub use endpoint_slice::EndpointSliceObject;
pub use identity::IdentityObject;
pub use namespace::NamespaceObject;
pub use node::NodeObject;
pub use pod::PodObject;
pub use service::ServiceObject;

/// A context object, by kind. Name and namespace are those of its resource key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Object {
    /// Node or CiliumNode.
    Node(NodeObject),
    Namespace(NamespaceObject),
    Pod(PodObject),
    Service(ServiceObject),
    EndpointSlice(EndpointSliceObject),
    Identity(IdentityObject),
    Endpoint(EndpointObject),
    CidrGroup(CidrGroupObject),
}

/// Reads the context object of a key: all its errors at once.
#[must_use]
pub fn read_object(key: &ResourceKey, body: &Value) -> Reading<Object> {
    let mut checker = Checker::default();
    let object = read(&mut checker, key, body);
    let (errors, warnings) = checker.finish();
    Reading {
        value: object.filter(|_| errors.is_empty()),
        errors,
        warnings,
    }
}

fn read(checker: &mut Checker, key: &ResourceKey, body: &Value) -> Option<Object> {
    let object = checker.object(&At::ROOT, body)?;
    Some(match key.kind {
        ResourceKind::Node | ResourceKind::CiliumNode => {
            Object::Node(node::read(checker, key.kind, object))
        }
        ResourceKind::Namespace => Object::Namespace(namespace::read(checker, object)),
        ResourceKind::Pod => Object::Pod(pod::read(checker, object)),
        ResourceKind::Service => Object::Service(service::read(checker, object)),
        ResourceKind::EndpointSlice => Object::EndpointSlice(endpoint_slice::read(checker, object)),
        ResourceKind::CiliumIdentity => Object::Identity(identity::read(checker, key, object)),
        ResourceKind::CiliumEndpoint => Object::Endpoint(endpoint::read(checker, object)),
        ResourceKind::CiliumCIDRGroup => Object::CidrGroup(cidr_group::read(checker, object)),
        ResourceKind::CiliumClusterwideNetworkPolicy | ResourceKind::CiliumNetworkPolicy => {
            let reason = "a policy, not an object that policies talk about";
            checker.error(&At::ROOT.key("kind"), Fault::missing(reason));
            return None;
        }
    })
}
