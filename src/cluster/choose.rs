//! Which pod of a builder a build goes to. Pure.

use k8s_openapi::api::core::v1::Pod;
use std::hash::Hasher as _;

/// Returns the pod that serves `key`, the absolute path of the build context: always the same one while the set
/// of pods is the same, and another only if that one goes (rendezvous hashing), so that the daemon's cache and
/// its copy of the context are found again.
pub(super) fn choose<'a>(pods: impl IntoIterator<Item = &'a Pod>, key: &str) -> Option<&'a Pod> {
    let ready = pods.into_iter().filter(|pod| is_usable(pod));
    ready.max_by_key(|pod| {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        (weight(name, key), name)
    })
}

/// Whether a pod takes builds: ready, and not on its way out.
pub(super) fn is_usable(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none() && is_ready(pod)
}

/// Whether the pod's Ready condition holds.
pub(super) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn weight(pod: &str, key: &str) -> u64 {
    // FNV-1a with a final mix: stable across releases and machines, as the standard library's hasher is not
    // promised to be.
    #[derive(Default)]
    struct Fnv(u64);
    impl std::hash::Hasher for Fnv {
        fn finish(&self) -> u64 {
            let mut x = self.0;
            x = (x ^ (x >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
            x = (x ^ (x >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
            x ^ (x >> 33)
        }
        fn write(&mut self, bytes: &[u8]) {
            for byte in bytes {
                self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
    }
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    hasher.write(pod.as_bytes());
    hasher.write(&[0]);
    hasher.write(key.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, ready: bool, terminating: bool) -> Pod {
        let deleted =
            if terminating { serde_json::json!("2026-01-01T00:00:00Z") } else { serde_json::Value::Null };
        serde_json::from_value(serde_json::json!({
            "metadata": { "name": name, "deletionTimestamp": deleted },
            "status": {
                "phase": "Running",
                "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }],
            },
        }))
        .unwrap()
    }

    fn name(pod: Option<&Pod>) -> Option<&str> {
        pod?.metadata.name.as_deref()
    }

    #[test]
    fn only_ready_pods_that_stay_are_chosen() {
        let pods = [pod("a", false, false), pod("b", true, true), pod("c", true, false)];
        for key in ["/home/x", "/home/y", ""] {
            assert_eq!(name(choose(&pods, key)), Some("c"));
        }
        assert_eq!(name(choose(&pods[..2], "/home/x")), None);
    }

    #[test]
    fn a_context_keeps_its_pod_when_others_come_and_go() {
        let pods: Vec<_> = (0..8).map(|index| pod(&format!("buildkit-{index}"), true, false)).collect();
        let keys: Vec<_> = (0..200).map(|index| format!("/home/user/project-{index}")).collect();
        let mut used = std::collections::BTreeSet::new();
        for key in &keys {
            let chosen = name(choose(&pods, key)).unwrap().to_owned();
            let reversed: Vec<_> = pods.iter().rev().cloned().collect();
            assert_eq!(name(choose(&reversed, key)), Some(chosen.as_str()), "the order does not matter");
            for gone in &pods {
                if name(Some(gone)) != Some(chosen.as_str()) {
                    let rest: Vec<_> = pods.iter().filter(|pod| *pod != gone).cloned().collect();
                    assert_eq!(name(choose(&rest, key)), Some(chosen.as_str()));
                }
            }
            used.insert(chosen);
        }
        assert_eq!(used.len(), 8, "all pods get work");
    }

    #[test]
    fn the_choice_is_the_same_in_every_release() {
        let pods: Vec<_> = (0..4).map(|index| pod(&format!("buildkit-{index}"), true, false)).collect();
        let chosen: Vec<_> =
            ["/a", "/b", "/c", "/d", "/e"].map(|key| name(choose(&pods, key)).unwrap()).into();
        assert_eq!(chosen, ["buildkit-2", "buildkit-1", "buildkit-3", "buildkit-3", "buildkit-3"]);
    }
}
