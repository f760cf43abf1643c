//! Context objects: what each says of addresses, labels, groups and services.

use std::net::IpAddr;
use std::sync::Arc;

use super::StoredObject;
use super::addresses::Strength;
use super::claims::identity_object;
use super::state::State;
use crate::events::{ResourceKey, ResourceKind};
use crate::policy::objects::Object;
use crate::policy::selections::{Contribution, Touched};

impl State {
    /// Puts an object in, or takes it out.
    pub(super) fn put_object(
        &mut self,
        key: &ResourceKey,
        new: Option<Arc<StoredObject>>,
        touched: &mut Touched,
    ) {
        let old = self.objects.get(key).cloned();
        let object = |stored: &Option<Arc<StoredObject>>| -> Option<Object> {
            stored.as_ref().map(|stored| stored.object.clone())
        };
        let (was, is) = (object(&old), object(&new));
        let things = things_of(key, was.as_ref(), is.as_ref());
        let before: Vec<Option<Contribution>> = if was == is {
            Vec::new()
        } else {
            things
                .iter()
                .map(|thing| self.contribution(thing))
                .collect()
        };
        match new {
            Some(new) => self.objects.insert(key.clone(), new),
            None => self.objects.remove(key),
        };
        if was == is {
            return;
        }
        self.index_slice(key, was.as_ref(), is.as_ref());
        for (thing, before) in things.iter().zip(before) {
            let after = self.contribution(thing);
            self.selectors
                .thing_changed(thing, before.as_ref(), after.as_ref(), touched);
        }
        self.touch_claims(key, was.as_ref(), is.as_ref(), touched);
        self.touch_addresses(key, was.as_ref(), is.as_ref(), touched);
    }

    fn contribution(&self, key: &ResourceKey) -> Option<Contribution> {
        Contribution::of(key, &self.objects, &self.slices)
    }

    fn index_slice(&mut self, key: &ResourceKey, old: Option<&Object>, new: Option<&Object>) {
        if let Some(service) = old.and_then(|object| service_of(key, object)) {
            self.slices.remove(&(service, key.clone()));
        }
        if let Some(service) = new.and_then(|object| service_of(key, object)) {
            self.slices.insert((service, key.clone()));
        }
    }

    /// Numbers that the object may have given to other labels.
    fn touch_claims(
        &mut self,
        key: &ResourceKey,
        old: Option<&Object>,
        new: Option<&Object>,
        touched: &mut Touched,
    ) {
        for (object, is_new) in [(old, false), (new, true)] {
            let Some(Object::Endpoint(endpoint)) = object else {
                continue;
            };
            if let Some(number) = endpoint.identity {
                touched.claims.insert(number);
                if is_new {
                    self.claims.announcing.insert((number, key.clone()));
                } else {
                    self.claims.announcing.remove(&(number, key.clone()));
                }
            }
        }
        if key.kind == ResourceKind::CiliumIdentity
            && let Ok(number) = key.name.parse::<u32>()
            && identity_object(number) == *key
        {
            touched.claims.insert(number);
            let endpoints: Vec<ResourceKey> = self.claims.endpoints(number).cloned().collect();
            for endpoint in endpoints {
                let object = self.object(&endpoint);
                let addresses = object.map_or(&[][..], |object| addresses_of(&endpoint, object));
                touched.addresses.extend(addresses);
            }
        }
    }

    /// Addresses whose owner may be another, or have other labels.
    fn touch_addresses(
        &mut self,
        key: &ResourceKey,
        old: Option<&Object>,
        new: Option<&Object>,
        touched: &mut Touched,
    ) {
        let fact = (self.strength(key), Some(key.clone()));
        for address in old.map_or(&[][..], |object| addresses_of(key, object)) {
            self.addresses.remove(*address, &fact);
            touched.addresses.insert(*address);
        }
        for address in new.map_or(&[][..], |object| addresses_of(key, object)) {
            self.addresses.add(*address, fact.clone());
            touched.addresses.insert(*address);
        }
        match key.kind {
            ResourceKind::Node | ResourceKind::CiliumNode if self.addresses.nodes_apart => {
                // Both objects of a node give it labels.
                let kind = if key.kind == ResourceKind::Node {
                    ResourceKind::CiliumNode
                } else {
                    ResourceKind::Node
                };
                let other = ResourceKey {
                    kind,
                    ..key.clone()
                };
                let object = self.object(&other);
                let addresses = object.map_or(&[][..], |object| addresses_of(&other, object));
                touched.addresses.extend(addresses);
            }
            ResourceKind::Namespace => self.touch_pods(&key.name, touched),
            ResourceKind::Node
            | ResourceKind::CiliumNode
            | ResourceKind::CiliumClusterwideNetworkPolicy
            | ResourceKind::CiliumNetworkPolicy
            | ResourceKind::CiliumCIDRGroup
            | ResourceKind::Pod
            | ResourceKind::Service
            | ResourceKind::EndpointSlice
            | ResourceKind::CiliumIdentity
            | ResourceKind::CiliumEndpoint => {}
        }
    }

    /// The labels of a namespace are labels of its pods.
    fn touch_pods(&self, namespace: &str, touched: &mut Touched) {
        let first = ResourceKey {
            kind: ResourceKind::Pod,
            namespace: Some(namespace.to_owned()),
            name: String::new(),
        };
        let pods = self.objects.range(first..).take_while(|(key, _)| {
            key.kind == ResourceKind::Pod && key.namespace.as_deref() == Some(namespace)
        });
        for (key, stored) in pods {
            touched.addresses.extend(addresses_of(key, &stored.object));
        }
    }

    /// The addresses of this machine, sorted and without duplicates.
    pub(super) fn put_local_addresses(&mut self, new: Vec<IpAddr>, touched: &mut Touched) {
        let fact = (Strength::Local, None);
        let old = std::mem::replace(&mut self.local_addresses, new.into());
        for address in old.iter() {
            if self.local_addresses.binary_search(address).is_err() {
                self.addresses.remove(*address, &fact);
                touched.addresses.insert(*address);
            }
        }
        for address in self.local_addresses.iter() {
            self.addresses.add(*address, fact.clone());
            touched.addresses.insert(*address);
        }
    }
}

/// The service of an EndpointSlice.
fn service_of(key: &ResourceKey, object: &Object) -> Option<ResourceKey> {
    let Object::EndpointSlice(slice) = object else {
        return None;
    };
    Some(ResourceKey {
        kind: ResourceKind::Service,
        namespace: key.namespace.clone(),
        name: slice.service.clone()?,
    })
}

/// The groups and services that an object is or belongs to.
fn things_of(key: &ResourceKey, old: Option<&Object>, new: Option<&Object>) -> Vec<ResourceKey> {
    match key.kind {
        ResourceKind::CiliumCIDRGroup | ResourceKind::Service => vec![key.clone()],
        ResourceKind::EndpointSlice => {
            let mut services: Vec<_> = [old, new]
                .into_iter()
                .flatten()
                .filter_map(|object| service_of(key, object))
                .collect();
            services.dedup();
            services
        }
        ResourceKind::CiliumClusterwideNetworkPolicy
        | ResourceKind::CiliumNetworkPolicy
        | ResourceKind::Node
        | ResourceKind::CiliumNode
        | ResourceKind::Namespace
        | ResourceKind::Pod
        | ResourceKind::CiliumIdentity
        | ResourceKind::CiliumEndpoint => Vec::new(),
    }
}

/// The addresses of whom the object is about.
fn addresses_of<'a>(key: &ResourceKey, object: &'a Object) -> &'a [IpAddr] {
    match object {
        Object::Node(node) => &node.addresses,
        Object::Pod(pod) => &pod.addresses,
        // Without an identity it says nothing yet.
        Object::Endpoint(endpoint) if endpoint.is_somebody() => &endpoint.addresses,
        // Where the Kubernetes API is.
        Object::EndpointSlice(slice)
            if key.namespace.as_deref() == Some("default")
                && slice.service.as_deref() == Some("kubernetes") =>
        {
            &slice.addresses
        }
        Object::Endpoint(_)
        | Object::EndpointSlice(_)
        | Object::Namespace(_)
        | Object::Service(_)
        | Object::Identity(_)
        | Object::CidrGroup(_) => &[],
    }
}
