//! The HTTP client under everything: TLS, proxy, credentials, impersonation.
//!
//! The library's own stack is not used whole, for two reasons: it runs a credential plugin three times to set
//! itself up, and its sockets leave Nagle's algorithm on, which costs a tunnel of small frames up to 40 ms per
//! answer.

use super::credential::Credential;
use super::kubeconfig::{Settings, settings_error};
use super::{ConnectError, ConnectOptions, Said};
use crate::cluster::api::root;
use crate::event::Events;
use http::{HeaderMap, Request, Response, StatusCode, Uri, header::AUTHORIZATION};
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt as _};
use kube::config::{KubeConfigOptions, Kubeconfig, NamedAuthInfo, NamedCluster, NamedContext};
use std::sync::Arc;
use std::time::Duration;
use tower::{BoxError, Layer as _, ServiceExt as _};

/// The end of the wait for a TCP connection to the API server.
const TCP_TIMEOUT: Duration = Duration::from_secs(15);
/// A peer that does not acknowledge what was sent for this long is gone: watches would never notice else.
const TCP_DEAD: Duration = Duration::from_secs(20);

/// Makes the client.
pub(super) async fn client(
    mut settings: Settings,
    options: &ConnectOptions,
    events: &Events,
) -> Result<kube::Client, ConnectError> {
    let failed =
        |source: String| ConnectError::Settings { subject: settings.subject.clone(), source: Said(source) };
    let uri: Uri =
        settings.server.parse().map_err(|error| failed(format!("`{}`: {error}", settings.server)))?;
    if uri.scheme().is_none() || uri.host().is_none() {
        return Err(failed(format!("`{}` is no URL with a scheme and a host", settings.server)));
    }
    let (credential, identity) = match settings.user.auth_provider {
        // Legacy `auth-provider` entries (oidc) stay the library's business.
        Some(_) => (Credential::None, None),
        None => Credential::choose(&settings.user, options.interactive, events)
            .await
            .map_err(|source| ConnectError::Credential { server: settings.server.clone(), source })?,
    };
    if let Some(identity) = identity {
        use base64::Engine as _;
        use secrecy::ExposeSecret as _;
        let engine = base64::engine::general_purpose::STANDARD;
        settings.user.client_certificate_data = Some(engine.encode(identity.certificate));
        settings.user.client_key_data = Some(engine.encode(identity.key.expose_secret()).into());
    }
    // The plugin has run, and the library must not run it again.
    settings.user.exec = None;

    let namespace = settings.namespace.clone();
    let proxy_url = settings.cluster.proxy_url.take().filter(|url| !url.is_empty());
    let config = config(&settings).await?;
    let failed =
        |source: String| ConnectError::Settings { subject: settings.subject.clone(), source: Said(source) };
    let explain = |error: kube::Error| failed(root(&error));

    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(TCP_TIMEOUT));
    tcp.set_keepalive(Some(Duration::from_secs(10)));
    tcp.set_keepalive_interval(Some(Duration::from_secs(5)));
    tcp.set_keepalive_retries(Some(2));
    #[cfg(target_os = "linux")]
    tcp.set_tcp_user_timeout(Some(TCP_DEAD));

    let layers = Layers {
        base: config.base_uri_layer(),
        headers: impersonation(&config).map_err(explain)?,
        legacy: match config.auth_info.auth_provider {
            Some(_) => config.auth_layer().map_err(explain)?,
            None => None,
        },
        credential: Arc::new(credential),
        namespace,
    };
    let proxy = match proxy_url {
        Some(url) => Some(
            Matcher::builder()
                .all(url.clone())
                .build()
                .intercept(&uri)
                .ok_or_else(|| failed(format!("`{url}` is no usable proxy-url")))?,
        ),
        None => environment_proxy(options, &uri),
    };
    let Some(proxy) = proxy else {
        let connector = config.rustls_https_connector_with_connector(tcp).map_err(explain)?;
        return Ok(layers.over(connector));
    };
    tracing::debug!(proxy = ?proxy.uri().host(), "connecting through a proxy");
    match proxy.uri().scheme_str() {
        Some("http" | "https") => {
            // TLS to the proxy itself, if it speaks it; the cluster's TLS runs inside of the tunnel.
            let outer = config.rustls_https_connector_with_connector(tcp).map_err(explain)?;
            let mut tunnel = Tunnel::new(proxy.uri().clone(), outer);
            if let Some(value) = proxy.basic_auth() {
                tunnel = tunnel.with_auth(value.clone());
            }
            let connector = config.rustls_https_connector_with_connector(tunnel).map_err(explain)?;
            Ok(layers.over(connector))
        }
        Some("socks5" | "socks5h") => {
            let mut socks = SocksV5::new(proxy.uri().clone(), tcp);
            if let Some((user, password)) = proxy.raw_auth() {
                socks = socks.with_auth(user.to_owned(), password.to_owned());
            }
            let connector = config.rustls_https_connector_with_connector(socks).map_err(explain)?;
            Ok(layers.over(connector))
        }
        scheme => Err(failed(format!("proxies of the kind `{}` are not supported", scheme.unwrap_or("?")))),
    }
}

/// Returns the library's form of the settings: certificates loaded, everything else as given.
async fn config(settings: &Settings) -> Result<kube::Config, ConnectError> {
    let name = || "chosen".to_owned();
    let kubeconfig = Kubeconfig {
        clusters: vec![NamedCluster {
            name: name(),
            cluster: Some(settings.cluster.clone()),
            ..Default::default()
        }],
        auth_infos: vec![NamedAuthInfo {
            name: name(),
            auth_info: Some(settings.user.clone()),
            ..Default::default()
        }],
        contexts: vec![NamedContext {
            name: name(),
            context: Some(kube::config::Context {
                cluster: name(),
                user: Some(name()),
                ..Default::default()
            }),
            ..Default::default()
        }],
        current_context: Some(name()),
        ..Default::default()
    };
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|error| settings_error(&settings.subject, &error))?;
    config.root_cert_file.clone_from(&settings.ca_file);
    Ok(config)
}

/// Returns the proxy that the environment names for this cluster. Go's rule: never for the loopback.
fn environment_proxy(options: &ConnectOptions, uri: &Uri) -> Option<Intercept> {
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
    let loopback = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if loopback {
        return None;
    }
    Matcher::builder()
        .https(options.https_proxy.clone().unwrap_or_default())
        .http(options.http_proxy.clone().unwrap_or_default())
        .no(options.no_proxy.clone().unwrap_or_default())
        .build()
        .intercept(uri)
}

/// Returns the headers of `--as` and its kin. The library's layer knows how to escape them; it is asked with
/// an empty request.
fn impersonation(config: &kube::Config) -> kube::Result<HeaderMap> {
    use futures_util::FutureExt as _;
    let (sender, receiver) = std::sync::mpsc::channel();
    let probe = tower::service_fn(move |request: Request<()>| {
        let sent = sender.send(request.into_parts().0.headers);
        std::future::ready(sent.map_err(BoxError::from))
    });
    let layered = config.extra_headers_layer()?.layer(probe);
    let _asked = layered.oneshot(Request::new(())).now_or_never();
    Ok(receiver.try_recv().unwrap_or_default())
}

/// What goes around every request.
struct Layers {
    base: kube::client::middleware::BaseUriLayer,
    headers: HeaderMap,
    legacy: Option<kube::client::middleware::AuthLayer>,
    credential: Arc<Credential>,
    namespace: String,
}

impl Layers {
    fn over<C: Connect + Clone + Send + Sync + 'static>(self, connector: C) -> kube::Client {
        let Self { base, headers, legacy, credential, namespace } = self;
        let http =
            hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build::<_, Body>(connector);
        let send = tower::service_fn(move |mut request: Request<Body>| {
            let (http, headers, credential) = (http.clone(), headers.clone(), Arc::clone(&credential));
            async move {
                request.headers_mut().extend(headers);
                if let Some(value) = credential.header().await.map_err(BoxError::from)? {
                    request.headers_mut().insert(AUTHORIZATION, value);
                }
                let response: Response<hyper::body::Incoming> =
                    http.request(request).await.map_err(BoxError::from)?;
                if response.status() == StatusCode::UNAUTHORIZED {
                    credential.rejected().await;
                }
                Ok::<_, BoxError>(response)
            }
        });
        let send = base.layer(send);
        match legacy {
            Some(legacy) => kube::Client::new(legacy.layer(send), namespace),
            None => kube::Client::new(send, namespace),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxied(https: &str, no: &str, server: &str) -> Option<String> {
        let options = ConnectOptions {
            https_proxy: Some(https.into()).filter(|text: &String| !text.is_empty()),
            no_proxy: Some(no.into()),
            ..Default::default()
        };
        environment_proxy(&options, &server.parse().unwrap()).map(|proxy| proxy.uri().to_string())
    }

    #[test]
    fn the_environments_proxy_follows_gos_rules() {
        assert_eq!(
            proxied("http://proxy:3128", "", "https://k8s.corp:6443").as_deref(),
            Some("http://proxy:3128/")
        );
        assert_eq!(proxied("proxy:3128", "", "https://k8s.corp:6443").as_deref(), Some("http://proxy:3128/"));
        assert_eq!(proxied("http://proxy:3128", ".corp,10.0.0.0/8", "https://k8s.corp:6443"), None);
        assert_eq!(proxied("http://proxy:3128", ".corp,10.0.0.0/8", "https://10.1.2.3:6443"), None);
        assert_eq!(proxied("http://proxy:3128", "", "https://127.0.0.1:6443"), None);
        assert_eq!(proxied("", "", "https://k8s.corp:6443"), None);
    }

    #[tokio::test]
    async fn impersonation_travels_in_headers() {
        let mut config = kube::Config::new("https://k8s.corp".parse().unwrap());
        config.auth_info.impersonate = Some("jane".into());
        config.auth_info.impersonate_groups = Some(vec!["a".into(), "b".into()]);
        let headers = impersonation(&config).unwrap();
        assert_eq!(headers["impersonate-user"], "jane");
        assert_eq!(headers.get_all("impersonate-group").iter().count(), 2);
    }
}
