//! Which machine builds which platform: natively where one can, else emulated or cross-compiled if that was asked for.
//! Pure.

use crate::image::Platform;
use std::fmt;

/// A machine that builds: a node that takes builders, or a daemon outside of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Its name.
    pub name: String,
    /// Its own architecture, by Go's name.
    pub architecture: String,
}

/// What is to be placed.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The platforms, in the order asked for.
    pub platforms: &'a [Platform],
    /// QEMU may run what no machine runs natively.
    pub emulate: bool,
    /// Nothing of another platform is run.
    pub cross: bool,
}

/// How a machine builds for a platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It is its own, or one that it runs as well.
    Native,
    /// QEMU runs it.
    Emulated,
    /// Nothing of it is run.
    Cross,
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Emulated => "emulated",
            Self::Cross => "cross-compiled",
        })
    }
}

/// What the machines of one architecture build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The machines' architecture.
    pub architecture: String,
    /// The platforms, in the order asked for.
    pub platforms: Vec<(Platform, How)>,
}

impl Group {
    /// Returns the platforms' names, for a line of text.
    pub fn names(&self) -> String {
        let names: Vec<String> = self.platforms.iter().map(|(platform, _)| platform.to_string()).collect();
        names.join(", ")
    }
}

/// A platform that nothing builds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nothing here builds {platform}: {}", there.join(", "))]
pub struct Unplaced {
    /// The platform.
    pub platform: Platform,
    /// What there is.
    pub there: Vec<String>,
    /// Emulation was allowed, and there is none.
    pub emulate: bool,
    /// There may be more than is known of: nodes may not be listed.
    pub unlisted: bool,
}

/// Spreads platforms over architectures: one group for each that is needed. What is built on an architecture that is
/// not its own goes to `home`, the architecture that the builder has a pod of, or to the first that is needed anyway.
///
/// # Errors
/// The first platform that nothing builds.
pub fn place(
    wanted: Wanted<'_>,
    machines: &[Machine],
    home: Option<&str>,
) -> Result<Vec<Group>, Box<Unplaced>> {
    let has = |architecture: &str| machines.iter().any(|machine| machine.architecture == architecture);
    let foreign = || {
        let home = home.filter(|home| has(home));
        let needed = || wanted.platforms.iter().find_map(|platform| native(platform, machines));
        home.or_else(needed).or(machines.first().map(|machine| machine.architecture.as_str()))
    };
    let mut groups: Vec<Group> = Vec::new();
    for platform in wanted.platforms {
        let how = match () {
            () if native(platform, machines).is_some() => How::Native,
            () if wanted.cross => How::Cross,
            () => How::Emulated,
        };
        let architecture = match how {
            How::Native => native(platform, machines),
            How::Cross => foreign(),
            How::Emulated if wanted.emulate && platform.os == "linux" => foreign(),
            How::Emulated => None,
        };
        let Some(architecture) = architecture else {
            let there = machines.iter().map(|it| format!("{} is linux/{}", it.name, it.architecture));
            let there =
                if machines.is_empty() { vec!["no node takes builders".to_owned()] } else { shorten(there) };
            return Err(Box::new(Unplaced {
                platform: platform.clone(),
                there,
                emulate: wanted.emulate,
                unlisted: false,
            }));
        };
        let placed = (platform.clone(), how);
        match groups.iter_mut().find(|group| group.architecture == architecture) {
            Some(group) => group.platforms.push(placed),
            None => groups.push(Group { architecture: architecture.to_owned(), platforms: vec![placed] }),
        }
    }
    // The builder's own pod first: the others are made beside it.
    groups.sort_by_key(|group| home.is_some_and(|home| group.architecture != home));
    Ok(groups)
}

/// Returns the architecture among those of the machines that runs a platform by itself: its own rather than a cousin.
fn native<'a>(platform: &Platform, machines: &'a [Machine]) -> Option<&'a str> {
    let all = || machines.iter().map(|machine| machine.architecture.as_str());
    let own = all().find(|architecture| platform.os == "linux" && platform.architecture == *architecture);
    own.or_else(|| all().find(|architecture| platform.runs_on(architecture)))
}

/// Returns how a daemon that names these platforms builds one: what its machine should run by itself, and it does not
/// name, is emulated where that is allowed.
pub fn settled(platform: &Platform, how: How, offered: &[Platform], emulate: bool) -> How {
    match how {
        How::Native if emulate && platform.os == "linux" && !platform.is_among(offered) => How::Emulated,
        how => how,
    }
}

/// Names a few of many.
fn shorten(machines: impl ExactSizeIterator<Item = String>) -> Vec<String> {
    const SHOWN: usize = 6;
    let more = machines.len().saturating_sub(SHOWN);
    let mut shown: Vec<String> = machines.take(SHOWN).collect();
    if more > 0 {
        shown.push(format!("and {more} more"));
    }
    shown
}

/// Returns what a daemon that names these platforms does not build of what was placed on it. `emulators` are those
/// that it has and does not name.
///
/// # Errors
/// The first platform that it does not build.
pub fn check(
    group: &[(Platform, How)],
    at: &str,
    offered: &[Platform],
    emulators: &[Platform],
) -> Result<(), Box<Unplaced>> {
    let runs = |(platform, how): &&(Platform, How)| match how {
        How::Cross => true,
        How::Native => platform.is_among(offered),
        How::Emulated => platform.is_among(offered) || platform.is_among(emulators),
    };
    match group.iter().find(|placed| !runs(placed)) {
        None => Ok(()),
        Some((platform, how)) => {
            let offered: Vec<String> = offered.iter().map(ToString::to_string).collect();
            let there = vec![format!("{at} runs {}", offered.join(", "))];
            Err(Box::new(Unplaced {
                platform: platform.clone(),
                there,
                emulate: *how == How::Emulated,
                unlisted: false,
            }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn platforms(list: &[&str]) -> Vec<Platform> {
        list.iter().map(|text| text.parse().expect("a platform")).collect()
    }

    fn machines(list: &[&str]) -> Vec<Machine> {
        let machine = |(at, architecture): (usize, &&str)| Machine {
            name: format!("node-{at}"),
            architecture: (*architecture).to_owned(),
        };
        list.iter().enumerate().map(machine).collect()
    }

    /// Returns the plan in short: `amd64: linux/amd64 native, …`.
    fn plan(asked: &[&str], nodes: &[&str], home: Option<&str>, flags: &str) -> Vec<String> {
        let (platforms, machines) = (platforms(asked), machines(nodes));
        let (emulate, cross) = (flags.contains("emulate"), flags.contains("cross"));
        let wanted = Wanted { platforms: &platforms, emulate, cross };
        let line = |group: &Group| {
            let placed = group.platforms.iter().map(|(platform, how)| format!("{platform} {how}"));
            format!("{}: {}", group.architecture, placed.collect::<Vec<_>>().join(", "))
        };
        match place(wanted, &machines, home) {
            Ok(groups) => groups.iter().map(line).collect(),
            Err(error) => vec![error.to_string()],
        }
    }

    #[rstest]
    #[case::one_pod(&["linux/amd64", "linux/386"], &["amd64", "amd64"], None, "",
        &["amd64: linux/amd64 native, linux/386 native"])]
    #[case::two_pods(&["linux/arm64", "linux/amd64"], &["amd64", "arm64"], None, "",
        &["arm64: linux/arm64 native", "amd64: linux/amd64 native"])]
    #[case::the_builders_own_first(&["linux/arm64", "linux/amd64"], &["amd64", "arm64"], Some("amd64"), "",
        &["amd64: linux/amd64 native", "arm64: linux/arm64 native"])]
    #[case::emulated_where_the_builder_is(&["linux/arm64", "linux/amd64"], &["amd64"], None, "emulate",
        &["amd64: linux/arm64 emulated, linux/amd64 native"])]
    #[case::emulated_at_home(&["linux/s390x"], &["amd64", "arm64"], Some("arm64"), "emulate",
        &["arm64: linux/s390x emulated"])]
    #[case::native_before_emulated(&["linux/amd64", "linux/arm64"], &["amd64", "arm64"], Some("amd64"), "emulate",
        &["amd64: linux/amd64 native", "arm64: linux/arm64 native"])]
    #[case::a_home_that_is_gone(&["linux/amd64"], &["amd64"], Some("arm64"), "", &["amd64: linux/amd64 native"])]
    #[case::thirty_two_bits(&["linux/arm/v7"], &["amd64", "arm64"], None, "", &["arm64: linux/arm/v7 native"])]
    #[case::cross(&["windows/amd64", "linux/arm64"], &["amd64"], None, "cross",
        &["amd64: windows/amd64 cross-compiled, linux/arm64 cross-compiled"])]
    #[case::no_node(&["linux/amd64", "linux/arm64"], &["amd64", "amd64"], None, "",
        &["nothing here builds linux/arm64: node-0 is linux/amd64, node-1 is linux/amd64"])]
    #[case::no_qemu_for_windows(&["windows/amd64"], &["amd64"], None, "emulate",
        &["nothing here builds windows/amd64: node-0 is linux/amd64"])]
    #[case::no_nodes(&["linux/amd64"], &[], None, "emulate",
        &["nothing here builds linux/amd64: no node takes builders"])]
    fn each_platform_goes_where_it_runs(
        #[case] asked: &[&str],
        #[case] nodes: &[&str],
        #[case] home: Option<&str>,
        #[case] flags: &str,
        #[case] expected: &[&str],
    ) {
        assert_eq!(plan(asked, nodes, home, flags), expected);
    }

    #[test]
    fn a_large_cluster_is_not_listed_whole() {
        let nodes = vec!["amd64"; 100];
        let told = plan(&["linux/arm64"], &nodes, None, "");
        assert!(told[0].ends_with("node-5 is linux/amd64, and 94 more"), "{told:?}");
    }

    #[rstest]
    #[case("linux/arm/v7", &["linux/arm64", "linux/arm/v7"], true, How::Native)]
    #[case("linux/arm/v7", &["linux/arm64"], true, How::Emulated)]
    #[case("linux/arm/v7", &["linux/arm64"], false, How::Native)]
    fn what_a_machine_does_not_run_after_all_may_be_emulated(
        #[case] platform: &str,
        #[case] offered: &[&str],
        #[case] emulate: bool,
        #[case] how: How,
    ) {
        let platform = platform.parse().expect("a platform");
        assert_eq!(settled(&platform, How::Native, &platforms(offered), emulate), how);
    }

    #[rstest]
    #[case("linux/arm64", How::Emulated, &["linux/amd64", "linux/arm64"], &[], true)]
    #[case("linux/arm64", How::Emulated, &["linux/amd64"], &["linux/arm64"], true)]
    #[case("linux/arm64", How::Emulated, &["linux/amd64"], &[], false)]
    #[case("linux/arm/v7", How::Native, &["linux/arm64"], &["linux/arm/v7"], false)]
    #[case("windows/amd64", How::Cross, &["linux/amd64"], &[], true)]
    fn the_daemon_has_the_last_word(
        #[case] platform: &str,
        #[case] how: How,
        #[case] offered: &[&str],
        #[case] emulators: &[&str],
        #[case] builds: bool,
    ) {
        let group = [(platform.parse().expect("a platform"), how)];
        let checked = check(&group, "node-a", &platforms(offered), &platforms(emulators));
        assert_eq!(checked.is_ok(), builds, "{checked:?}");
    }
}
