//! From the name of a Service to the pods that take its connections.

use super::api::{ApiError, Operation};
use super::connect::Connection;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::api::{Api, ListParams};
use std::fmt;

/// A Service, by the name that it has in the cluster's DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceName {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// One of its pods is meant, by this host name.
    pub pod: Option<String>,
    /// The name says so (`….svc`, `….svc.cluster.local`); else a pod would find it by its search path.
    pub certain: bool,
}

impl ServiceName {
    /// Reads a host name as a pod in `namespace` would.
    pub fn of_host(host: &str, namespace: &str) -> Option<Self> {
        let labels: Vec<&str> = host.trim_end_matches('.').split('.').collect();
        let (name, space, pod, certain) = match labels[..] {
            [name, space, "svc", ..] => (name, space, None, true),
            [pod, name, space, "svc", ..] => (name, space, Some(pod.to_owned()), true),
            [name, space] => (name, space, None, false),
            [name] if name != "localhost" => (name, namespace, None, false),
            _ => return None,
        };
        let is_label =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let fits = is_label(name) && is_label(space);
        fits.then(|| Self { name: name.to_owned(), namespace: space.to_owned(), pod, certain })
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, namespace, .. } = self;
        write!(f, "Service `{name}` in namespace `{namespace}`")
    }
}

/// A port of a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodPort {
    /// The pod.
    pub pod: String,
    /// Its namespace.
    pub namespace: String,
    /// The port.
    pub port: u16,
}

/// Why no pod is known that takes a Service's connections.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The API server failed us.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// There is no such Service.
    #[error("there is no {0}")]
    None(ServiceName),
    /// It is another name for a host elsewhere.
    #[error("the {service} is another name for {host}")]
    External {
        /// The Service.
        service: ServiceName,
        /// The host.
        host: String,
    },
    /// Its endpoints are no pods.
    #[error("the {0} leads to no pods")]
    NoPods(ServiceName),
    /// It has no such port.
    #[error("the {service} has no port {port}, only {}", list(ports))]
    NoPort {
        /// The Service.
        service: ServiceName,
        /// The port.
        port: u16,
        /// Those that it has.
        ports: Vec<u16>,
    },
    /// None of its pods takes connections now.
    #[error("the {service} has no pod that is ready on port {port}")]
    NotReady {
        /// The Service.
        service: ServiceName,
        /// The port.
        port: u16,
    },
}

fn list(ports: &[u16]) -> String {
    ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl ServiceError {
    /// Returns what a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Api(error) => error.hint(),
            Self::None(ServiceName { namespace, .. }) => {
                Some(format!("`kubectl get services -n {namespace}` lists those that are there"))
            }
            Self::NoPort { service: ServiceName { name, namespace, .. }, .. } => {
                Some(format!("`kubectl get service -n {namespace} {name}` shows its ports"))
            }
            Self::NotReady { service: ServiceName { name, namespace, .. }, .. } => Some(format!(
                "`kubectl get endpointslices -n {namespace} -l kubernetes.io/service-name={name}` shows its pods"
            )),
            Self::External { .. } | Self::NoPods(_) => {
                Some("go through the builder's pod with `--registry-via builder`".to_owned())
            }
        }
    }

    /// Whether a pod of the cluster may reach the Service nevertheless.
    pub fn may_be_reached_by_pods(&self) -> bool {
        match self {
            Self::Api(error) => error.is_forbidden(),
            Self::External { .. } | Self::NoPods(_) => true,
            Self::None(_) | Self::NoPort { .. } | Self::NotReady { .. } => false,
        }
    }
}

/// Returns the ready pods behind a port of a Service, and their own ports.
///
/// # Errors
/// There are none, or the API server does not tell.
pub async fn pods(
    connection: &Connection,
    service: &ServiceName,
    port: u16,
) -> Result<Vec<PodPort>, ServiceError> {
    let ServiceName { name, namespace, .. } = service;
    let services: Api<Service> = Api::namespaced(connection.client().clone(), namespace);
    let slices: Api<EndpointSlice> = Api::namespaced(connection.client().clone(), namespace);
    let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={name}"));
    let (found, slices) = tokio::join!(
        connection.call(Operation::one("get", "services", namespace, name), || services.get(name)),
        connection.call(Operation::many("list", "endpointslices.discovery.k8s.io", namespace), || {
            slices.list(&of_service)
        }),
    );
    let found = found.map_err(|error| match error {
        ApiError::NotFound { .. } => ServiceError::None(service.clone()),
        other => other.into(),
    })?;
    choose(service, &found, port, || Ok(slices?.items))
}

fn choose(
    service: &ServiceName,
    found: &Service,
    port: u16,
    slices: impl FnOnce() -> Result<Vec<EndpointSlice>, ApiError>,
) -> Result<Vec<PodPort>, ServiceError> {
    let spec = found.spec.clone().unwrap_or_default();
    if let Some(host) = spec.external_name.filter(|_| spec.type_.as_deref() == Some("ExternalName")) {
        return Err(ServiceError::External { service: service.clone(), host });
    }
    // Without an address of its own there is nothing that would map ports: names lead to the pods themselves.
    let headless = spec.cluster_ip.as_deref() == Some("None");
    let is_tcp = |protocol: &Option<String>| protocol.as_deref().unwrap_or("TCP") == "TCP";
    let ports = spec.ports.unwrap_or_default();
    let tcp = || ports.iter().filter(|it| is_tcp(&it.protocol));
    let number = |port: i32| u16::try_from(port).ok();
    let name = tcp().find(|it| number(it.port) == Some(port)).map(|it| it.name.clone().unwrap_or_default());
    if name.is_none() && !headless {
        let ports = tcp().filter_map(|it| number(it.port)).collect();
        return Err(ServiceError::NoPort { service: service.clone(), port, ports });
    }
    let slices = slices()?;
    let endpoints = || slices.iter().flat_map(|slice| &slice.endpoints);
    let selectorless = spec.selector.as_ref().is_none_or(std::collections::BTreeMap::is_empty);
    let is_pod = |endpoint: &Endpoint| {
        endpoint.target_ref.as_ref().is_some_and(|target| target.kind.as_deref() == Some("Pod"))
    };
    if selectorless && !endpoints().any(is_pod) {
        return Err(ServiceError::NoPods(service.clone()));
    }
    let mut pods = Vec::new();
    for slice in &slices {
        let own = slice
            .ports
            .iter()
            .flatten()
            .find(|it| is_tcp(&it.protocol) && Some(it.name.clone().unwrap_or_default()) == name);
        let own = own.and_then(|it| number(it.port?)).or(headless.then_some(port));
        let Some(own) = own else { continue };
        let meant = |endpoint: &&Endpoint| {
            let ready = endpoint.conditions.as_ref().is_none_or(|it| it.ready != Some(false));
            ready && is_pod(endpoint) && (service.pod.is_none() || endpoint.hostname == service.pod)
        };
        for target in slice.endpoints.iter().filter(meant).filter_map(|it| it.target_ref.as_ref()) {
            let namespace = target.namespace.clone().unwrap_or_else(|| service.namespace.clone());
            pods.push(PodPort { pod: target.name.clone().unwrap_or_default(), namespace, port: own });
        }
    }
    pods.sort();
    pods.dedup();
    match pods.is_empty() {
        true => Err(ServiceError::NotReady { service: service.clone(), port }),
        false => Ok(pods),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    #[rstest]
    #[case("registry.tools.svc", Some(("registry", "tools", None, true)))]
    #[case("registry.tools.svc.cluster.local", Some(("registry", "tools", None, true)))]
    #[case("registry.tools.svc.corp.example.", Some(("registry", "tools", None, true)))]
    #[case("registry-0.registry.tools.svc.cluster.local", Some(("registry", "tools", Some("registry-0"), true)))]
    #[case("registry.tools", Some(("registry", "tools", None, false)))]
    #[case("registry", Some(("registry", "mine", None, false)))]
    #[case("localhost", None)]
    #[case("registry.example.com", None)]
    #[case("svc.example.com", None)]
    #[case("10.96.0.10", None)]
    #[case("a..svc", None)]
    fn names_as_the_clusters_dns_reads_them(
        #[case] host: &str,
        #[case] expected: Option<(&str, &str, Option<&str>, bool)>,
    ) {
        let found = ServiceName::of_host(host, "mine");
        let found =
            found.as_ref().map(|it| (it.name.as_str(), it.namespace.as_str(), it.pod.as_deref(), it.certain));
        assert_eq!(found, expected);
    }

    fn service() -> Value {
        json!({
            "clusterIP": "10.0.0.1",
            "selector": { "app": "registry" },
            "ports": [{ "name": "web", "port": 443, "targetPort": 5000 }, { "name": "metrics", "port": 9090 }],
        })
    }

    fn endpoint(pod: &str, ready: bool) -> Value {
        json!({
            "addresses": ["10.1.0.1"],
            "conditions": { "ready": ready },
            "hostname": pod,
            "targetRef": { "kind": "Pod", "name": pod, "namespace": "tools" },
        })
    }

    fn slice(port: u16, endpoints: &[Value]) -> Value {
        json!({
            "metadata": {},
            "addressType": "IPv4",
            "ports": [{ "name": "metrics", "port": 1 }, { "name": "web", "port": port }],
            "endpoints": endpoints,
        })
    }

    fn chosen(host: &str, spec: Value, slices: &[Value], port: u16) -> String {
        let service = ServiceName::of_host(host, "mine").unwrap();
        let found: Service = serde_json::from_value(json!({ "metadata": {}, "spec": spec })).unwrap();
        let slices = slices.iter().map(|slice| serde_json::from_value(slice.clone()).unwrap()).collect();
        match choose(&service, &found, port, || Ok(slices)) {
            Ok(pods) => {
                let pods = pods.iter().map(|it| format!("{}/{}:{}", it.namespace, it.pod, it.port));
                pods.collect::<Vec<_>>().join(" ")
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_services_port_leads_to_the_ready_pods_own() {
        let host = "registry.tools.svc";
        let slices = [
            slice(5000, &[endpoint("b", true), endpoint("a", true), endpoint("c", false)]),
            slice(5001, &[endpoint("d", true)]),
        ];
        assert_eq!(chosen(host, service(), &slices, 443), "tools/a:5000 tools/b:5000 tools/d:5001");
        assert_eq!(chosen("b.registry.tools.svc", service(), &slices, 443), "tools/b:5000");
        assert_eq!(
            chosen(host, service(), &slices, 80),
            "the Service `registry` in namespace `tools` has no port 80, only 443, 9090"
        );
        assert_eq!(
            chosen(host, service(), &[slice(5000, &[endpoint("c", false)])], 443),
            "the Service `registry` in namespace `tools` has no pod that is ready on port 443"
        );
    }

    #[test]
    fn without_an_address_of_its_own_a_service_maps_no_ports() {
        let mut spec = service();
        spec["clusterIP"] = "None".into();
        let slices = [slice(5000, &[endpoint("a", true)])];
        assert_eq!(chosen("registry.tools.svc", spec, &slices, 8080), "tools/a:8080");
    }

    #[test]
    fn what_leads_to_no_pods_is_left_to_others() {
        let external = json!({ "type": "ExternalName", "externalName": "r.example" });
        assert_eq!(
            chosen("registry.tools.svc", external, &[], 443),
            "the Service `registry` in namespace `tools` is another name for r.example"
        );
        let mut spec = service();
        spec["selector"] = json!({});
        let mut elsewhere = endpoint("a", true);
        elsewhere["targetRef"] = Value::Null;
        assert_eq!(
            chosen("registry.tools.svc", spec, &[slice(5000, &[elsewhere])], 443),
            "the Service `registry` in namespace `tools` leads to no pods"
        );
    }
}
