//! What a daemon that answers is to build: the plan meets what its worker says of itself.

use super::error::BuildError;
use super::placement::{self, How, Machine, Wanted};
use super::reach::Reached;
use super::request::BuildRequest;
use crate::event::Events;
use crate::image::Platform;

/// Checks that a builder builds its part of a request, and says how.
///
/// `group` is what was planned for it; without a plan, because nobody may list the nodes or there are none, the daemon's
/// own platforms decide, and it builds everything. `emulate` says that QEMU may run what it does not.
///
/// # Errors
/// A platform that it does not build, or it does not answer.
pub(super) async fn settle(
    reached: &Reached,
    request: &BuildRequest,
    group: Option<Vec<(Platform, How)>>,
    emulate: bool,
    events: &Events,
) -> Result<(), BuildError> {
    if request.platforms.is_empty() {
        return Ok(());
    }
    let offered = reached.platforms().await?;
    let at = reached.machine();
    let group = match group {
        Some(group) => group,
        None => {
            let architecture = offered.first().map(|own| own.architecture.clone()).unwrap_or_default();
            let machines = [Machine { name: at.to_owned(), architecture }];
            let wanted = Wanted { platforms: &request.platforms, emulate, cross: request.cross };
            placement::place(wanted, &machines, None)?.into_iter().flat_map(|group| group.platforms).collect()
        }
    };
    let settled = |(platform, how): (Platform, How)| {
        let how = placement::settled(&platform, how, &offered, emulate);
        (platform, how)
    };
    let group: Vec<(Platform, How)> = group.into_iter().map(settled).collect();
    let unnamed = |(platform, how): &&(Platform, How)| *how == How::Emulated && !platform.is_among(&offered);
    let unnamed: Vec<&str> =
        group.iter().filter(unnamed).map(|(platform, _)| platform.architecture.as_str()).collect();
    let emulators = if unnamed.is_empty() { Vec::new() } else { reached.emulators(&unnamed).await };
    placement::check(&group, at, &offered, &emulators)?;
    for (platform, how) in &group {
        events.note(format!("{platform} → {at}, {how}"));
    }
    Ok(())
}
