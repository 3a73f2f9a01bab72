//! How the cluster is reached: kubectl's flags and KUBECONFIG, resolved.

use super::duration;
use super::env::{Environment, names};
use super::misuse::Misuse;
use crate::cli::cluster::ClusterArgs;
use crate::cluster::ConnectOptions;
use crate::cluster::connect::{InCluster, KubeconfigSource};
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

/// How the cluster is reached, and how the user said so.
#[derive(Clone, Debug)]
pub struct ClusterSettings {
    /// What connecting needs.
    pub connect: ConnectOptions,
    /// The flags as given (without token and password), for command lines that we print to be run again.
    pub flags: Vec<String>,
}

/// Resolves the cluster's arguments.
///
/// # Errors
/// A `--request-timeout` that is no time.
pub fn resolve(
    args: ClusterArgs,
    directory: &Path,
    env: &dyn Environment,
) -> Result<ClusterSettings, Misuse> {
    let request_timeout = match args.request_timeout.as_deref() {
        None | Some("0") => None,
        Some(text) => Some(duration::parse(text).ok_or_else(|| {
            let reason = "a time is written like `30s` or `5m`".to_owned();
            Misuse::Value { name: "--request-timeout".to_owned(), value: text.to_owned(), reason }
        })?),
    };
    let flags = flags(&args);
    let absolute = |path: Option<PathBuf>| path.map(|path| directory.join(path));
    let listed = env.get_os(names::KUBECONFIG).filter(|value| !value.is_empty());
    let home = env.get_os(names::HOME).map(|home| PathBuf::from(home).join(".kube/config"));
    let kubeconfig = match (args.kubeconfig, listed) {
        (Some(path), _) => KubeconfigSource::Explicit(directory.join(path)),
        (None, Some(list)) => {
            let paths = std::env::split_paths(&list).filter(|path| !path.as_os_str().is_empty());
            KubeconfigSource::List(paths.map(|path| directory.join(path)).collect())
        }
        (None, None) => KubeconfigSource::List(home.into_iter().collect()),
    };
    let proxy = |upper: &str, lower: &str| env.get_filled(upper).or_else(|| env.get_filled(lower));
    let connect = ConnectOptions {
        kubeconfig,
        context: args.context,
        cluster: args.cluster,
        user: args.user,
        namespace: args.namespace,
        server: args.server,
        token: args.token.map(Into::into),
        username: args.username,
        password: args.password.map(Into::into),
        impersonate: args.impersonate,
        impersonate_groups: args.impersonate_groups,
        impersonate_uid: args.impersonate_uid,
        certificate_authority: absolute(args.certificate_authority),
        client_certificate: absolute(args.client_certificate),
        client_key: absolute(args.client_key),
        tls_server_name: args.tls_server_name,
        insecure_skip_tls_verify: args.insecure_skip_tls_verify,
        request_timeout,
        https_proxy: proxy("HTTPS_PROXY", "https_proxy"),
        http_proxy: proxy("HTTP_PROXY", "http_proxy"),
        no_proxy: proxy("NO_PROXY", "no_proxy"),
        in_cluster: in_cluster(env),
        interactive: std::io::stdin().is_terminal(),
    };
    Ok(ClusterSettings { connect, flags })
}

/// Returns the flags that say which cluster is meant, as given: what other kubectl lines need to mean the same.
pub fn place(args: &ClusterArgs) -> Vec<String> {
    let mut flags = Vec::new();
    if let Some(path) = &args.kubeconfig {
        flags.extend(["--kubeconfig".to_owned(), path.display().to_string()]);
    }
    if let Some(context) = &args.context {
        flags.extend(["--context".to_owned(), context.clone()]);
    }
    flags
}

/// What the kubelet tells a pod (client-go rest/config.go).
pub(super) fn in_cluster(env: &dyn Environment) -> Option<InCluster> {
    Some(InCluster {
        host: env.get_filled("KUBERNETES_SERVICE_HOST")?,
        port: env.get_filled("KUBERNETES_SERVICE_PORT")?,
        namespace: env.get_filled("POD_NAMESPACE"),
        service_account: PathBuf::from("/var/run/secrets/kubernetes.io/serviceaccount"),
    })
}

fn flags(args: &ClusterArgs) -> Vec<String> {
    let mut flags = Vec::new();
    let mut text = |name: &str, value: &Option<String>| {
        if let Some(value) = value {
            flags.extend([name.to_owned(), value.clone()]);
        }
    };
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    text("--kubeconfig", &path(&args.kubeconfig));
    text("--context", &args.context);
    text("--namespace", &args.namespace);
    text("--cluster", &args.cluster);
    text("--user", &args.user);
    text("--server", &args.server);
    text("--username", &args.username);
    text("--as", &args.impersonate);
    for group in &args.impersonate_groups {
        text("--as-group", &Some(group.clone()));
    }
    text("--as-uid", &args.impersonate_uid);
    text("--certificate-authority", &path(&args.certificate_authority));
    text("--client-certificate", &path(&args.client_certificate));
    text("--client-key", &path(&args.client_key));
    text("--tls-server-name", &args.tls_server_name);
    if let Some(insecure) = args.insecure_skip_tls_verify {
        flags.push(format!("--insecure-skip-tls-verify={insecure}"));
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::env::Fixed;
    use clap::Parser as _;
    use secrecy::ExposeSecret as _;
    use std::time::Duration;

    #[test]
    fn each_of_kubectls_flags_says_what_it_says_to_kubectl() {
        let line = [
            "kubectl build",
            "--kubeconfig=config",
            "--context=context",
            "--namespace=namespace",
            "--cluster=cluster",
            "--user=user",
            "--server=https://server",
            "--token=token",
            "--username=username",
            "--password=password",
            "--as=as",
            "--as-group=one",
            "--as-group=two",
            "--as-uid=uid",
            "--certificate-authority=ca.crt",
            "--client-certificate=client.crt",
            "--client-key=client.key",
            "--tls-server-name=tls-server-name",
            "--insecure-skip-tls-verify",
            "--request-timeout=7s",
        ];
        let parsed = crate::cli::build::BuildArgs::try_parse_from(line).expect("arguments");
        // What the flags say goes over the environment.
        let env = Fixed::new([("KUBECONFIG", "/another/config"), ("HOME", "/home/me")]);
        let connect = resolve(parsed.cluster, Path::new("/here"), &env).expect("settings").connect;

        let KubeconfigSource::Explicit(kubeconfig) = &connect.kubeconfig else {
            panic!("{:?}", connect.kubeconfig)
        };
        assert_eq!(kubeconfig, Path::new("/here/config"));
        for (text, said) in [
            (&connect.context, "context"),
            (&connect.namespace, "namespace"),
            (&connect.cluster, "cluster"),
            (&connect.user, "user"),
            (&connect.server, "https://server"),
            (&connect.username, "username"),
            (&connect.impersonate, "as"),
            (&connect.impersonate_uid, "uid"),
            (&connect.tls_server_name, "tls-server-name"),
        ] {
            assert_eq!(text.as_deref(), Some(said));
        }
        for (secret, said) in [(&connect.token, "token"), (&connect.password, "password")] {
            assert_eq!(secret.as_ref().map(|secret| secret.expose_secret()), Some(said));
        }
        for (path, said) in [
            (&connect.certificate_authority, "/here/ca.crt"),
            (&connect.client_certificate, "/here/client.crt"),
            (&connect.client_key, "/here/client.key"),
        ] {
            assert_eq!(path.as_deref(), Some(Path::new(said)));
        }
        assert_eq!(connect.impersonate_groups, ["one", "two"]);
        assert_eq!(connect.insecure_skip_tls_verify, Some(true));
        assert_eq!(connect.request_timeout, Some(Duration::from_secs(7)));
    }
}
