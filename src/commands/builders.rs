//! `kubectl buildkit create`, `ls` and `rm`.

use super::display::{self, Early, Shown};
use super::failure::Failure;
use super::print_lines;
use crate::cli::buildkit::{CreateArgs, RmArgs};
use crate::cli::cluster::ClusterArgs;
use crate::cluster::Connection;
use crate::cluster::builder::{self, Listed};
use crate::config::env::Environment;
use crate::config::{self, Misuse};
use crate::task::Cancel;

/// Makes a builder and waits until it is ready.
///
/// # Errors
/// Whatever keeps it from that.
pub(super) async fn create(
    args: CreateArgs,
    cluster: ClusterArgs,
    verbose: u8,
    env: &dyn Environment,
    cancel: Cancel,
) -> Result<(), Failure> {
    let directory = env.current_dir().map_err(Misuse::WorkingDirectory)?;
    let mode = display::mode(config::build::progress(args.progress.clone(), false, verbose, env)?, env)?;
    let spec = config::builder::spec(args, &directory, env)?;
    let mut early = Early::new();
    let connection = connect(cluster, env, &cancel, &mut early).await?;
    let shown = Shown::start(mode, format!("kubernetes:{}", spec.name), env, early);
    let created = cancel.guard(builder::create(&connection, &spec, &shown.events)).await;
    let created = match created {
        Ok(created) => created.map_err(Failure::cluster),
        Err(cause) => Err(Failure::interrupted(cause)),
    };
    let created = shown.end(created).await?;
    print_lines([created.builder.name])
}

/// Lists builders, those without running pods too.
///
/// # Errors
/// The cluster's.
pub(super) async fn list(cluster: ClusterArgs, env: &dyn Environment, cancel: Cancel) -> Result<(), Failure> {
    let mut early = Early::new();
    let connection = connect(cluster, env, &cancel, &mut early).await?;
    let listed = cancel.guard(early.during(builder::list(&connection))).await;
    print_lines(table(&listed.map_err(Failure::interrupted)?.map_err(Failure::cluster)?))
}

/// Removes builders, every one that was named, and tells what stayed of each.
///
/// # Errors
/// An unknown name, or the cluster's.
pub(super) async fn remove(
    args: RmArgs,
    cluster: ClusterArgs,
    env: &dyn Environment,
    cancel: Cancel,
) -> Result<(), Failure> {
    let names =
        if args.names.is_empty() { vec![config::builder::DEFAULT_NAME.to_owned()] } else { args.names };
    let mut early = Early::new();
    let connection = connect(cluster, env, &cancel, &mut early).await?;
    let events = early.events();
    let mut failed: Option<Failure> = None;
    for name in names {
        let removed = cancel.guard(early.during(builder::remove(&connection, &name, &events))).await;
        let told = match removed.map_err(Failure::interrupted)? {
            Ok(()) => print_lines([format!("{name} removed")]),
            Err(error) => Err(Failure::cluster(error)),
        };
        // The last failure is the command's own.
        if let Err(next) = told
            && let Some(before) = failed.replace(next)
        {
            before.print(&display::palette(env)).await;
        }
    }
    failed.map_or(Ok(()), Err)
}

async fn connect(
    cluster: ClusterArgs,
    env: &dyn Environment,
    cancel: &Cancel,
    early: &mut Early,
) -> Result<Connection, Failure> {
    let directory = env.current_dir().map_err(Misuse::WorkingDirectory)?;
    let settings = config::cluster::resolve(cluster, &directory, env)?;
    let events = early.events();
    let connected = early.during(Connection::connect(&settings.connect, &events));
    let connected = cancel.guard(connected).await;
    connected.map_err(Failure::interrupted)?.map_err(Failure::connect)
}

/// Lays out builders in columns; a builder's further pods have lines of their own under it.
fn table(builders: &[Listed]) -> Vec<String> {
    let mut rows = vec![["NAME", "MODE", "NODE", "STATUS", "PLATFORMS"].map(str::to_owned)];
    for builder in builders {
        let row = |name: &str, node: &str, status: &str, platforms: &str| {
            let mode = if name.is_empty() { "" } else { builder.mode.as_str() };
            [name, mode, node, status, platforms].map(str::to_owned)
        };
        if builder.pods.is_empty() {
            rows.push(row(&builder.name, "-", &builder.status, "-"));
        }
        for (index, pod) in builder.pods.iter().enumerate() {
            let name = if index == 0 { builder.name.as_str() } else { "" };
            let platforms = if pod.platforms.is_empty() { "-".to_owned() } else { pod.platforms.join(",") };
            rows.push(row(name, pod.node.as_deref().unwrap_or("-"), &pod.status, &platforms));
        }
    }
    let mut widths = [0; 5];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let lay = |row: &[String; 5]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("   ").trim_end().to_owned()
    };
    rows.iter().map(lay).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::builder::ListedPod;

    #[test]
    fn builders_without_pods_are_listed_too() {
        let listed = |name: &str, status: &str, pods| Listed {
            name: name.to_owned(),
            mode: "userns".to_owned(),
            image: "image".to_owned(),
            status: status.to_owned(),
            pods,
        };
        let pod = ListedPod {
            name: "buildkit-0".to_owned(),
            node: Some("node-a".to_owned()),
            status: "Running".to_owned(),
            platforms: vec!["linux/amd64".to_owned(), "linux/386".to_owned()],
        };
        let lines = table(&[listed("buildkit", "Running", vec![pod]), listed("idle", "no pods", Vec::new())]);
        let expected = [
            "NAME       MODE     NODE     STATUS    PLATFORMS",
            "buildkit   userns   node-a   Running   linux/amd64,linux/386",
            "idle       userns   -        no pods   -",
        ];
        assert_eq!(lines, expected);
    }
}
