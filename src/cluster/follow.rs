//! Follows objects as they change: one list, then a watch, again from the start when the server has forgotten
//! where we were.

use super::api::{ApiError, Operation};
use super::connect::Connection;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use kube::api::{Api, ListParams, WatchParams};
use kube::core::WatchEvent;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::time::Duration;

/// How long one watch request lives; the server ends it and we ask on. Proxies that cut idle connections after
/// a minute or five are the reason that it is short.
const WATCH_SECONDS: u32 = 50;
/// The pause before a watch that ended or failed is asked for again, and between looks where RBAC allows
/// looking only.
const PAUSE: Duration = Duration::from_millis(500);

/// What happened to the followed objects.
#[derive(Debug)]
pub(super) enum Change<K> {
    /// These are all there are.
    Reset(Vec<K>),
    /// This one is new or different.
    Applied(K),
    /// This one is gone.
    Deleted(K),
}

/// Objects of one kind, as they change. [`Follow::next`] may be dropped and called again at any time.
pub(super) struct Follow<K> {
    connection: Connection,
    api: Api<K>,
    resource: &'static str,
    labels: Option<String>,
    fields: Option<String>,
    version: Option<String>,
    stream: Option<BoxStream<'static, kube::Result<WatchEvent<K>>>>,
    watchable: bool,
    pause: bool,
}

impl<K> Follow<K>
where
    K: Clone + Debug + DeserializeOwned + Send + 'static,
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    /// Follows the objects of a namespace; `resource` is the name that RBAC has for the kind.
    pub(super) fn new(connection: &Connection, namespace: &str, resource: &'static str) -> Self {
        Self {
            api: Api::namespaced(connection.client().clone(), namespace),
            connection: connection.clone(),
            resource,
            labels: None,
            fields: None,
            version: None,
            stream: None,
            watchable: true,
            pause: false,
        }
    }

    /// Narrows to a label selector.
    pub(super) fn labels(mut self, selector: String) -> Self {
        self.labels = Some(selector);
        self
    }

    /// Narrows to a field selector.
    pub(super) fn fields(mut self, selector: String) -> Self {
        self.fields = Some(selector);
        self
    }

    fn operation(&self, verb: &'static str) -> Operation {
        let namespace = self.api.namespace().map(Into::into);
        Operation { verb, resource: self.resource, name: None, namespace }
    }

    /// Waits for the next change; the first is always a [`Change::Reset`].
    ///
    /// # Errors
    /// When listing fails for good. Asking again afterwards starts over.
    pub(super) async fn next(&mut self) -> Result<Change<K>, ApiError> {
        loop {
            if self.pause {
                tokio::time::sleep(PAUSE).await;
                self.pause = false;
            }
            let Some(version) = self.version.clone() else {
                return self.list().await.map(Change::Reset);
            };
            let Some(stream) = self.stream.as_mut() else {
                if self.watchable {
                    self.watch(&version).await?;
                } else {
                    (self.version, self.pause) = (None, true);
                }
                continue;
            };
            match stream.next().await {
                Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object))) => {
                    self.version = object.meta().resource_version.clone().or(Some(version));
                    return Ok(Change::Applied(object));
                }
                Some(Ok(WatchEvent::Deleted(object))) => {
                    self.version = object.meta().resource_version.clone().or(Some(version));
                    return Ok(Change::Deleted(object));
                }
                Some(Ok(WatchEvent::Bookmark(mark))) => self.version = Some(mark.metadata.resource_version),
                // Mostly 410: the version is too old to go on from.
                Some(Ok(WatchEvent::Error(status))) => {
                    tracing::debug!(resource = self.resource, ?status, "watch starts over");
                    (self.stream, self.version, self.pause) = (None, None, true);
                }
                Some(Err(error)) => {
                    tracing::debug!(resource = self.resource, %error, "watch broke");
                    (self.stream, self.pause) = (None, true);
                }
                // Some proxies end a watch at once.
                None => (self.stream, self.pause) = (None, true),
            }
        }
    }

    async fn list(&mut self) -> Result<Vec<K>, ApiError> {
        let parameters = ListParams {
            label_selector: self.labels.clone(),
            field_selector: self.fields.clone(),
            ..ListParams::default()
        };
        let operation = self.operation("list");
        let list = self.connection.call(operation, || self.api.list(&parameters)).await?;
        self.stream = None;
        self.version = Some(list.metadata.resource_version.unwrap_or_default());
        Ok(list.items)
    }

    async fn watch(&mut self, version: &str) -> Result<(), ApiError> {
        let parameters = WatchParams {
            label_selector: self.labels.clone(),
            field_selector: self.fields.clone(),
            timeout: Some(WATCH_SECONDS),
            ..WatchParams::default()
        };
        let operation = self.operation("watch");
        match self.connection.call(operation, || self.api.watch(&parameters, version)).await {
            Ok(stream) => self.stream = Some(stream.boxed()),
            Err(error) if error.is_forbidden() => self.watchable = false,
            Err(error) => {
                tracing::debug!(resource = self.resource, %error, "cannot watch; listing again");
                (self.version, self.pause) = (None, true);
            }
        }
        Ok(())
    }
}
