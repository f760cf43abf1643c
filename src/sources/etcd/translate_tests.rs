//! Values as objects, and what is said against those that are none.

use proptest::prelude::{any, proptest};
use serde_json::{Value, json};

use super::keys::{ADDRESSES, MASTERS, NODES, Name, POLICIES};
use super::translate::{Own, translate};

fn read(key: &str, value: &Value) -> Result<Option<Value>, String> {
    let own = Own {
        cluster: "default".to_owned(),
        node: "here".to_owned(),
    };
    let value = value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned);
    let name = Name::of(key).expect("a key that is read").expect("a name");
    let read = translate(&own, key, name, value.as_bytes())?;
    Ok(read.map(|it| it.resource.body.value()))
}

#[test]
fn nodes_are_objects() {
    let node = json!({"Name": "a", "Cluster": "default", "Labels": {"role": "db"},
        "IPAddresses": [{"Type": "InternalIP", "IP": "10.0.0.1"}, {"Type": "Odd", "IP": "10.0.0.2"}],
        "IPv4HealthIP": "10.0.9.9", "Source": "local"});
    let body = read(&format!("{NODES}default/a"), &node)
        .expect("a node")
        .expect("another's");
    assert_eq!(
        body["metadata"],
        json!({"name": "a", "labels": {"role": "db"}})
    );
    assert_eq!(
        body["spec"]["addresses"],
        json!([{"type": "InternalIP", "ip": "10.0.0.1"}])
    );
    // A node of another cluster is none of ours by the same name.
    let mut far = node.clone();
    far["Cluster"] = json!("far");
    let body = read(&format!("{NODES}far/a"), &far)
        .expect("a node")
        .expect("another's");
    assert_eq!(body["metadata"]["name"], "far/a");
    let said = read(&format!("{NODES}default/b"), &node).expect_err("another node");
    assert!(said.contains("node a"), "{said}");
    assert_eq!(
        read(&format!("{NODES}default/here"), &node),
        Ok(None),
        "our own word"
    );
}

#[test]
fn addresses_are_endpoints_with_numbers() {
    let value = json!({"IP": "10.0.0.5", "Mask": null, "HostIP": "10.0.0.1", "ID": 300, "Key": 0,
        "Metadata": "cilium-global:default:a:7", "K8sNamespace": "shop", "K8sPodName": "cart",
        "NamedPorts": [{"Name": "web", "Port": 80, "Protocol": "TCP"}]});
    let key = format!("{ADDRESSES}10.0.0.5");
    let body = read(&key, &value).expect("an address").expect("another's");
    assert_eq!(body["status"]["identity"], json!({"id": 300}));
    assert_eq!(
        body["status"]["networking"]["addressing"],
        json!([{"ipv4": "10.0.0.5"}])
    );
    assert_eq!(body["status"]["named-ports"][0]["port"], 80);
    let mut reserved = value.clone();
    reserved["ID"] = json!(4);
    let body = read(&key, &reserved)
        .expect("an address")
        .expect("another's");
    assert_eq!(
        body["status"]["identity"]["labels"],
        json!(["reserved:health"])
    );
    let mut own = value.clone();
    own["Metadata"] = json!("cilium-global:default:here:0");
    assert_eq!(read(&key, &own), Ok(None), "our own word");
    let mut prefix = value.clone();
    prefix["Mask"] = json!("////AA==");
    assert!(
        read(&key, &prefix)
            .expect_err("a prefix")
            .contains("prefix")
    );
    let said = read(&format!("{ADDRESSES}10.0.0.6"), &value).expect_err("another address");
    assert!(said.contains("10.0.0.5"), "{said}");
    // A word of Palisade says itself who it is, whatever its number means to others.
    let mut labelled = value;
    labelled["Labels"] = json!("k8s:app=cart;k8s:io.kubernetes.pod.namespace=shop;");
    let body = read(&key, &labelled)
        .expect("an address")
        .expect("another's");
    assert_eq!(
        body["status"]["identity"],
        json!({"labels": ["k8s:app=cart", "k8s:io.kubernetes.pod.namespace=shop"]})
    );
}

#[test]
fn errors_name_the_field() {
    let (address, node) = (format!("{ADDRESSES}10.0.0.5"), format!("{NODES}default/a"));
    for (key, value, words) in [
        (&address, json!({"IP": "10.0.0.5"}), "missing field `ID`"),
        (
            &address,
            json!({"IP": "10.0.0.5", "ID": "x"}),
            "ID: invalid",
        ),
        (&address, json!({"IP": "10.0.0", "ID": 300}), "IP: invalid"),
        (
            &address,
            json!({"IP": "10.0.0.5", "ID": 300, "Labels": "app"}),
            "Labels: `app`",
        ),
        (
            &node,
            json!({"Name": "a", "IPAddresses": [{"Type": "InternalIP", "IP": "x"}]}),
            "IPAddresses[0].IP: invalid",
        ),
        (
            &node,
            json!({"Name": "a", "Labels": {"role": 1}}),
            "Labels.role: invalid",
        ),
        (&node, json!("{} {}"), "not as expected"),
        (
            &format!("{MASTERS}7"),
            json!("k8s:app=a;"),
            "7 is no number from 256",
        ),
        (
            &format!("{MASTERS}300"),
            json!("k8s:app=a;b"),
            "`b`: expected source:key=value",
        ),
    ] {
        let said = read(key, &value).expect_err("an error");
        assert!(said.contains(words), "{value}: {said}");
    }
}

#[test]
fn numbers_are_identities() {
    let key = format!("{MASTERS}300");
    let body = read(
        &key,
        &json!("k8s:app=a;k8s:io.cilium.k8s.policy.cluster=default;"),
    );
    let body = body.expect("labels").expect("another's");
    assert_eq!(body["security-labels"]["k8s:app"], "a");
    assert!(read(&key, &json!("app=a")).is_err());
}

#[test]
fn manifests_are_about_their_keys() {
    let key = format!("{POLICIES}CiliumNetworkPolicy/shop/a");
    let yaml = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\n\
                metadata: {name: a, namespace: shop}\nspec: {endpointSelector: {}}\n";
    assert!(read(&key, &json!(yaml)).expect("a policy").is_some());
    let said = read(&key, &json!(yaml.replace("shop", "other"))).expect_err("another's");
    assert!(said.contains("CiliumNetworkPolicy/other/a"), "{said}");
    let said = read(&key, &json!(format!("{yaml}---\n{yaml}"))).expect_err("twice");
    assert!(!said.is_empty());
    let said = read(&key, &json!("a: [\n")).expect_err("no YAML");
    assert!(said.contains("line"), "{said}");
    assert!(read(&key, &json!("")).is_err());
}

proptest! {
    /// Values come from anywhere.
    #[test]
    fn no_value_panics(key in 0_usize..4, tail in ".{0,12}", value in any::<Vec<u8>>()) {
        let own = Own {
            cluster: "default".to_owned(),
            node: "here".to_owned(),
        };
        let prefixes = [NODES, ADDRESSES, MASTERS, POLICIES];
        let keys = ["default/a", "10.0.0.1", "256", "CiliumClusterwideNetworkPolicy/a"];
        for key in [format!("{}{tail}", prefixes[key]), format!("{}{}", prefixes[key], keys[key])] {
            if let Some(Ok(name)) = Name::of(&key) {
                drop(translate(&own, &key, name, &value));
            }
        }
    }
}
