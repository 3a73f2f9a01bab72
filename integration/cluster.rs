//! Builders in a real cluster: made, found, shared, listed, removed; what cannot start; pods that are lost; streams
//! into pods. Each test has a namespace of its own.
//!
//! `make cluster` starts the cluster, and the tests run under its `CLUSTER_RUN`, as `make test` does.

#[path = "cluster/connections.rs"]
mod connections;
#[path = "cluster/failures.rs"]
mod failures;
#[path = "cluster/lifecycle.rs"]
mod lifecycle;
#[path = "support/rig.rs"]
mod rig;
#[path = "cluster/streams.rs"]
mod streams;

use kubectl_build::cluster::builder::{Builder, BuilderSpec};
use kubectl_build::cluster::connect::KubeconfigSource;
use kubectl_build::cluster::{ConnectOptions, Connection};
use kubectl_build::event::{Event, Events};
use rig::{Namespace, Rig};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;

/// A namespace of the cluster and a connection to it.
struct Bench {
    rig: Rig,
    namespace: Namespace,
    connection: Connection,
    events: Events,
    seen: UnboundedReceiver<Event>,
}

impl Bench {
    async fn new(purpose: &str) -> Self {
        let rig = Rig::load();
        let namespace = rig.namespace(purpose);
        let connection = Connection::connect(&options(&rig, namespace.name()), &Events::off()).await;
        let (events, seen) = Events::channel();
        Self { connection: connection.expect("the kubeconfig works"), rig, namespace, events, seen }
    }

    /// Returns a builder of the rig's image, which the nodes have.
    fn spec(&self) -> BuilderSpec {
        let image = Some(self.rig.get("BUILDKIT_IMAGE").to_owned());
        BuilderSpec { image, ..BuilderSpec::named("buildkit", Duration::from_secs(120)) }
    }

    /// Returns everything that a person was told so far.
    fn told(&mut self) -> String {
        let mut text = String::new();
        while let Ok(event) = self.seen.try_recv() {
            match event {
                Event::Note(note) => text.push_str(&format!("{note}\n")),
                Event::Output { bytes, .. } => text.push_str(&String::from_utf8_lossy(&bytes)),
                _ => {}
            }
        }
        text
    }

    /// Runs a command in the builder's pod and returns its standard output.
    fn in_pod(&self, builder: &Builder, script: &str) -> String {
        self.namespace.kubectl(&[
            "exec",
            &builder.pod.name,
            "-c",
            &builder.container,
            "--",
            "sh",
            "-c",
            script,
        ])
    }
}

fn options(rig: &Rig, namespace: &str) -> ConnectOptions {
    ConnectOptions {
        kubeconfig: KubeconfigSource::Explicit(rig.kubeconfig()),
        namespace: Some(namespace.to_owned()),
        ..ConnectOptions::default()
    }
}
