use super::{Bench, options};
use kubectl_build::cluster::connect::KubeconfigSource;
use kubectl_build::cluster::{ApiError, ClusterError, ConnectOptions, Connection, builder, secret};
use kubectl_build::event::Events;
use secrecy::ExposeSecret as _;

async fn fails(bench: &Bench, options: &ConnectOptions) -> ApiError {
    let connection = Connection::connect(options, &Events::off()).await.unwrap();
    match builder::ensure(&connection, &bench.spec(), "", &Events::off()).await {
        Err(ClusterError::Api(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn what_is_wrong_with_a_connection_is_named() {
    let bench = Bench::new("connect").await;
    let good = options(&bench.rig, bench.namespace.name());

    let refused = ConnectOptions { server: Some("https://127.0.0.1:1".into()), ..good.clone() };
    let error = fails(&bench, &refused).await;
    assert!(
        matches!(&error, ApiError::Unreachable { source, .. } if source.0.contains("refused")),
        "{error:?}"
    );

    let unknown = ConnectOptions { server: Some("https://no-such-host.invalid:6443".into()), ..good.clone() };
    let error = fails(&bench, &unknown).await;
    assert!(matches!(error, ApiError::Unreachable { .. }), "{error:?}");

    let other_ca = ConnectOptions {
        certificate_authority: Some(bench.rig.get("REGISTRY_TLS_CA").into()),
        ..good.clone()
    };
    let error = fails(&bench, &other_ca).await;
    assert!(matches!(error, ApiError::Untrusted { .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("--certificate-authority"));

    let other_token = ConnectOptions { token: Some("wrong".to_owned().into()), ..good };
    let error = fails(&bench, &other_token).await;
    assert!(matches!(error, ApiError::Unauthorized { .. }), "{error:?}");
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn missing_rights_are_named_and_the_least_rights_are_enough() {
    let bench = Bench::new("rights").await;
    let namespace = bench.namespace.name().to_owned();
    let user = format!("system:serviceaccount:{namespace}:builder");
    bench.namespace.kubectl(&["create", "serviceaccount", "builder"]);
    let limited = ConnectOptions { impersonate: Some(user), ..options(&bench.rig, &namespace) };
    let error = fails(&bench, &limited).await;
    assert_eq!(error.to_string(), format!("you are not allowed to list pods in namespace `{namespace}`"));
    assert!(error.hint().unwrap().contains(&format!("kubectl auth can-i list pods -n {namespace}")));

    let there = builder::ensure(&bench.connection, &bench.spec(), "", &bench.events).await.unwrap();
    bench.namespace.kubectl(&["create", "role", "connect", "--verb=list", "--resource=pods"]);
    bench.namespace.kubectl(&[
        "create",
        "rolebinding",
        "connect",
        "--role=connect",
        &format!("--serviceaccount={namespace}:builder"),
    ]);
    let connection = Connection::connect(&limited, &Events::off()).await.unwrap();
    let mut found = builder::ensure(&connection, &bench.spec(), "", &bench.events).await;
    for _ in 0..50 {
        if found.is_ok() {
            break;
        }
        // The authoriser learns of a new role after a moment.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        found = builder::ensure(&connection, &bench.spec(), "", &bench.events).await;
    }
    let found = found.unwrap();
    assert_eq!(found.pod, there.pod);
    assert_eq!(found.registries, None, "its configuration may not be read");
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn kubeconfigs_merge_as_kubectls_do() {
    let bench = Bench::new("merge").await;
    let directory = tempfile::tempdir().unwrap();
    let first = directory.path().join("first");
    let context = format!(
        "contexts:\n- name: mine\n  context: {{cluster: CLUSTER, user: USER, namespace: {}}}\n",
        bench.namespace.name()
    );
    let kubectl = |path: &str| bench.rig.kubectl(&["config", "view", "--minify", "-o", path]);
    let context = context
        .replace("CLUSTER", kubectl("jsonpath={.clusters[0].name}").trim())
        .replace("USER", kubectl("jsonpath={.users[0].name}").trim());
    std::fs::write(&first, format!("apiVersion: v1\nkind: Config\n{context}current-context: mine\n"))
        .unwrap();
    let paths = vec![first, directory.path().join("missing"), bench.rig.kubeconfig()];
    let options = ConnectOptions { kubeconfig: KubeconfigSource::List(paths), ..ConnectOptions::default() };
    let connection = Connection::connect(&options, &Events::off()).await.unwrap();
    assert_eq!(connection.namespace(), bench.namespace.name());
    assert_eq!(builder::list(&connection).await.unwrap(), []);
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn secrets_are_read_decoded() {
    let bench = Bench::new("secret").await;
    bench.namespace.kubectl(&[
        "create",
        "secret",
        "generic",
        "key",
        "--from-literal=cosign.password=p\u{e4}ss",
    ]);
    let secret = secret::read(&bench.connection, bench.namespace.name(), "key").await.unwrap();
    assert_eq!(secret["cosign.password"].expose_secret(), "päss".as_bytes());
    assert!(!format!("{secret:?}").contains("112"), "a secret does not print itself");
    let error = secret::read(&bench.connection, bench.namespace.name(), "none").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("there is no Secret `none` in namespace `{}`", bench.namespace.name())
    );
}
