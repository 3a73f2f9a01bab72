//! Merges kubeconfigs and lays the flags over them, as client-go does.

use super::{ConnectError, ConnectOptions, InCluster, KubeconfigSource, Said};
use crate::cluster::api::root;
use kube::config::{AuthInfo, Cluster, ExecAuthCluster, Kubeconfig, KubeconfigError};
use std::path::{Path, PathBuf};

/// What a connection is made from.
#[derive(Debug)]
pub(super) struct Settings {
    /// Whom errors name: `context X` or the server.
    pub(super) subject: String,
    pub(super) server: String,
    pub(super) namespace: String,
    pub(super) cluster: Cluster,
    pub(super) user: AuthInfo,
    /// The service account's CA file, re-read as it rotates.
    pub(super) ca_file: Option<PathBuf>,
}

/// Chooses cluster, user and namespace.
pub(super) fn resolve(options: &ConnectOptions) -> Result<Settings, ConnectError> {
    let (config, looked) = read(&options.kubeconfig)?;
    let current =
        options.context.clone().or_else(|| config.current_context.clone()).filter(|name| !name.is_empty());
    // client-go looks for a service account only when neither files nor flags say where the cluster is.
    let nowhere = current.is_none() && options.server.is_none() && options.cluster.is_none();
    if nowhere {
        return match (&options.in_cluster, &options.kubeconfig) {
            (Some(pod), KubeconfigSource::List(_)) => service_account(pod, options),
            _ => Err(ConnectError::NoCluster { looked }),
        };
    }
    let context = match &current {
        Some(name) => {
            let found = config
                .contexts
                .iter()
                .find(|entry| &entry.name == name)
                .and_then(|entry| entry.context.clone());
            let known = || config.contexts.iter().map(|entry| entry.name.clone()).collect();
            Some(found.ok_or_else(|| ConnectError::Absent {
                kind: "context",
                name: name.clone(),
                known: known(),
            })?)
        }
        None => None,
    };
    let subject = match &current {
        Some(name) => format!("context `{name}`"),
        None => "the command line".to_owned(),
    };

    let cluster_name =
        options.cluster.clone().or_else(|| context.as_ref().map(|context| context.cluster.clone()));
    let cluster = match cluster_name {
        Some(name) => {
            let found = config
                .clusters
                .iter()
                .find(|entry| entry.name == name)
                .and_then(|entry| entry.cluster.clone());
            match found {
                Some(cluster) => cluster,
                None if options.server.is_some() && options.cluster.is_none() => Cluster::default(),
                None => {
                    let known = config.clusters.iter().map(|entry| entry.name.clone()).collect();
                    return Err(ConnectError::Absent { kind: "cluster", name, known });
                }
            }
        }
        None => Cluster::default(),
    };
    let user_name =
        options.user.clone().or_else(|| context.as_ref().and_then(|context| context.user.clone()));
    let user = match user_name {
        Some(name) => {
            let found = config
                .auth_infos
                .iter()
                .find(|entry| entry.name == name)
                .and_then(|entry| entry.auth_info.clone());
            if found.is_none() && options.user.is_some() {
                let known = config.auth_infos.iter().map(|entry| entry.name.clone()).collect();
                return Err(ConnectError::Absent { kind: "user", name, known });
            }
            // A context may name a user that is not there: kubectl then goes on without credentials.
            found.unwrap_or_default()
        }
        None => AuthInfo::default(),
    };

    let cluster = override_cluster(cluster, options);
    let mut user = override_user(user, options);
    if let Some(exec) = user.exec.as_mut().filter(|exec| exec.provide_cluster_info) {
        let described =
            ExecAuthCluster::try_from(&cluster).map_err(|error| settings_error(&subject, &error))?;
        exec.cluster = Some(described);
    }
    let server = cluster.server.clone().filter(|server| !server.is_empty()).ok_or_else(|| {
        let source = Said("its cluster has no `server`".to_owned());
        ConnectError::Settings { subject: subject.clone(), source }
    })?;
    let namespace = options
        .namespace
        .clone()
        .or_else(|| context.and_then(|context| context.namespace))
        .filter(|namespace| !namespace.is_empty())
        .unwrap_or_else(|| "default".to_owned());
    Ok(Settings { subject, server, namespace, cluster, user, ca_file: None })
}

/// Names the settings that the library cannot use.
pub(super) fn settings_error(subject: &str, error: &KubeconfigError) -> ConnectError {
    ConnectError::Settings { subject: subject.to_owned(), source: Said(error.to_string()) }
}

/// Returns the merged kubeconfig, and in words where was looked.
fn read(source: &KubeconfigSource) -> Result<(Kubeconfig, String), ConnectError> {
    match source {
        KubeconfigSource::Explicit(path) => {
            let config = read_one(path)?;
            Ok((config, format!("{} names no current context", path.display())))
        }
        KubeconfigSource::List(paths) => {
            let mut merged = Kubeconfig::default();
            let mut looked = Vec::new();
            for path in paths.iter().filter(|path| !path.as_os_str().is_empty()) {
                if !path.exists() {
                    looked.push(format!("{} is not there", path.display()));
                    continue;
                }
                let next = read_one(path)?;
                merged = merged.merge(next).map_err(|error| ConnectError::Parse {
                    path: path.clone(),
                    source: Said(root(&error)),
                })?;
                looked.push(format!("{} names no current context", path.display()));
            }
            if looked.is_empty() {
                looked.push("no kubeconfig was named".to_owned());
            }
            looked.push("this is not a pod with a service account".to_owned());
            Ok((merged, looked.join(", and ")))
        }
    }
}

fn read_one(path: &Path) -> Result<Kubeconfig, ConnectError> {
    Kubeconfig::read_from(path).map_err(|error| match error {
        KubeconfigError::ReadConfig(source, path) => ConnectError::Read { what: "kubeconfig", path, source },
        KubeconfigError::Parse(error) => {
            ConnectError::Parse { path: path.to_owned(), source: Said(error.to_string()) }
        }
        other => ConnectError::Parse { path: path.to_owned(), source: Said(other.to_string()) },
    })
}

fn override_cluster(mut cluster: Cluster, options: &ConnectOptions) -> Cluster {
    if options.server.is_some() {
        cluster.server.clone_from(&options.server);
    }
    if options.tls_server_name.is_some() {
        cluster.tls_server_name.clone_from(&options.tls_server_name);
    }
    if let Some(path) = &options.certificate_authority {
        cluster.certificate_authority = Some(path.to_string_lossy().into_owned());
        cluster.certificate_authority_data = None;
    }
    if let Some(insecure) = options.insecure_skip_tls_verify {
        cluster.insecure_skip_tls_verify = Some(insecure);
        if insecure {
            // client-go refuses both at once in a kubeconfig; the flag overrules the file's CA.
            cluster.certificate_authority = None;
            cluster.certificate_authority_data = None;
        }
    }
    cluster
}

fn override_user(mut user: AuthInfo, options: &ConnectOptions) -> AuthInfo {
    if let Some(token) = &options.token {
        user = AuthInfo {
            token: Some(token.clone()),
            // Who is impersonated is not part of how one logs in.
            impersonate: user.impersonate,
            impersonate_uid: user.impersonate_uid,
            impersonate_groups: user.impersonate_groups,
            impersonate_user_extra: user.impersonate_user_extra,
            client_certificate: user.client_certificate,
            client_certificate_data: user.client_certificate_data,
            client_key: user.client_key,
            client_key_data: user.client_key_data,
            ..AuthInfo::default()
        };
    }
    if options.username.is_some() || options.password.is_some() {
        user.username = options.username.clone().or(user.username);
        user.password = options.password.clone().or(user.password);
        (user.token, user.token_file, user.exec, user.auth_provider) = (None, None, None, None);
    }
    if let Some(path) = &options.client_certificate {
        user.client_certificate = Some(path.to_string_lossy().into_owned());
        user.client_certificate_data = None;
    }
    if let Some(path) = &options.client_key {
        user.client_key = Some(path.to_string_lossy().into_owned());
        user.client_key_data = None;
    }
    if options.impersonate.is_some() {
        user.impersonate.clone_from(&options.impersonate);
    }
    if options.impersonate_uid.is_some() {
        user.impersonate_uid.clone_from(&options.impersonate_uid);
    }
    if !options.impersonate_groups.is_empty() {
        user.impersonate_groups = Some(options.impersonate_groups.clone());
    }
    user
}

/// Returns the settings of the pod that the process runs in.
fn service_account(pod: &InCluster, options: &ConnectOptions) -> Result<Settings, ConnectError> {
    let host = match pod.host.parse::<std::net::Ipv6Addr>() {
        Ok(address) => format!("[{address}]"),
        Err(_) => pod.host.clone(),
    };
    let server = format!("https://{host}:{}", pod.port);
    let file = |name: &str| pod.service_account.join(name);
    let (token, ca) = (file("token"), file("ca.crt"));
    let read = |what, path: PathBuf| {
        std::fs::read_to_string(&path).map_err(|source| ConnectError::Read { what, path, source })
    };
    read("the service account's certificate authority", ca.clone())?;
    let namespace =
        match options.namespace.clone().or_else(|| pod.namespace.clone()).filter(|name| !name.is_empty()) {
            Some(namespace) => namespace,
            None => read("the service account's namespace", file("namespace"))?.trim().to_owned(),
        };
    let user = AuthInfo { token_file: Some(token.to_string_lossy().into_owned()), ..AuthInfo::default() };
    let cluster = Cluster {
        server: Some(server.clone()),
        certificate_authority: Some(ca.to_string_lossy().into_owned()),
        ..Cluster::default()
    };
    // Flags such as --token or --as go over a service account as over a kubeconfig.
    let cluster = override_cluster(cluster, options);
    let ca_file = cluster.certificate_authority.as_ref().map(PathBuf::from);
    let user = override_user(user, options);
    Ok(Settings {
        subject: "the pod's service account".to_owned(),
        server,
        namespace,
        cluster,
        user,
        ca_file,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn config(name: &str, server: &str, extra: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: {name}\n  cluster: {{server: '{server}'}}\n\
             users:\n- name: {name}\n  user: {{token: t-{name}}}\n\
             contexts:\n- name: {name}\n  context: {{cluster: {name}, user: {name}, namespace: ns-{name}}}\n{extra}"
        )
    }

    fn files(contents: &[String]) -> (tempfile::TempDir, Vec<PathBuf>) {
        let directory = tempfile::tempdir().unwrap();
        let paths = contents.iter().enumerate().map(|(index, text)| {
            let path = directory.path().join(format!("config-{index}"));
            fs::write(&path, text).unwrap();
            path
        });
        let paths = paths.collect();
        (directory, paths)
    }

    #[test]
    fn files_merge_and_the_first_current_context_wins() {
        let (directory, mut paths) = files(&[
            config("a", "https://a", ""),
            config("b", "https://b", "current-context: b\n"),
            config("c", "https://c", "current-context: c\n"),
        ]);
        paths.insert(1, directory.path().join("missing"));
        let options = ConnectOptions { kubeconfig: KubeconfigSource::List(paths), ..Default::default() };
        let settings = resolve(&options).unwrap();
        assert_eq!((settings.server.as_str(), settings.namespace.as_str()), ("https://b", "ns-b"));

        let options = ConnectOptions { context: Some("c".into()), namespace: Some("mine".into()), ..options };
        let settings = resolve(&options).unwrap();
        assert_eq!((settings.server.as_str(), settings.namespace.as_str()), ("https://c", "mine"));

        let options = ConnectOptions { context: Some("nope".into()), ..options };
        let error = resolve(&options).unwrap_err();
        assert_eq!(error.to_string(), "context `nope` does not exist");
        assert_eq!(error.hint().unwrap(), "the kubeconfig has the contexts a, b, c");
    }

    #[test]
    fn flags_go_over_the_context() {
        let (_directory, paths) = files(&[config("a", "https://a", "current-context: a\n")]);
        let options = ConnectOptions {
            kubeconfig: KubeconfigSource::Explicit(paths[0].clone()),
            server: Some("https://other:6443".into()),
            token: Some("secret".to_owned().into()),
            impersonate: Some("jane".into()),
            impersonate_groups: vec!["g1".into(), "g2".into()],
            insecure_skip_tls_verify: Some(true),
            ..Default::default()
        };
        let settings = resolve(&options).unwrap();
        assert_eq!(settings.server, "https://other:6443");
        assert_eq!(settings.user.impersonate.as_deref(), Some("jane"));
        assert_eq!(settings.user.impersonate_groups.as_ref().unwrap().len(), 2);
        assert_eq!(settings.cluster.insecure_skip_tls_verify, Some(true));
        assert!(!format!("{settings:?}").contains("secret"), "a token must not print itself");
    }

    #[test]
    fn a_server_alone_is_enough() {
        let options = ConnectOptions { server: Some("http://127.0.0.1:8001".into()), ..Default::default() };
        let settings = resolve(&options).unwrap();
        assert_eq!(
            (settings.server.as_str(), settings.namespace.as_str()),
            ("http://127.0.0.1:8001", "default")
        );
    }

    #[test]
    fn without_a_kubeconfig_the_pod_speaks_for_itself() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("token"), "t").unwrap();
        fs::write(directory.path().join("ca.crt"), "ca").unwrap();
        fs::write(directory.path().join("namespace"), "ci\n").unwrap();
        let pod = InCluster {
            host: "fd00::1".into(),
            port: "443".into(),
            namespace: None,
            service_account: directory.path().to_owned(),
        };
        let missing = KubeconfigSource::List(vec![directory.path().join("no-such-config")]);
        let options = ConnectOptions { in_cluster: Some(pod), kubeconfig: missing, ..Default::default() };
        let settings = resolve(&options).unwrap();
        assert_eq!((settings.server.as_str(), settings.namespace.as_str()), ("https://[fd00::1]:443", "ci"));
        assert_eq!(settings.ca_file.unwrap(), directory.path().join("ca.crt"));

        let alone = ConnectOptions { in_cluster: None, ..options };
        let error = resolve(&alone).unwrap_err();
        assert!(error.to_string().starts_with("no cluster to connect to: "), "{error}");
        assert!(error.to_string().contains("no-such-config is not there"), "{error}");
    }

    #[test]
    fn broken_files_are_named() {
        let (directory, paths) = files(&["{ not yaml".to_owned()]);
        let options =
            ConnectOptions { kubeconfig: KubeconfigSource::List(paths.clone()), ..Default::default() };
        let error = resolve(&options).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot parse kubeconfig {}", paths[0].display()));

        let absent = directory.path().join("absent");
        let options =
            ConnectOptions { kubeconfig: KubeconfigSource::Explicit(absent.clone()), ..Default::default() };
        let error = resolve(&options).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot read kubeconfig {}", absent.display()));
    }
}
