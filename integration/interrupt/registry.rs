//! Registries that refuse, have trouble or say nothing: to the daemon, which pushes, and to ourselves, who sign.

use crate::rig::Rig;
use crate::running::Running;
use crate::strict_registry::{Fault, StrictRegistry, Switches};
use crate::tool::Ran;
use crate::{BUILDER, Site};
use std::time::{Duration, Instant};

/// The daemon tries again for a while before it gives up.
const PUSH: Duration = Duration::from_secs(90);

struct Registry {
    site: Site,
    strict: StrictRegistry,
    key: String,
}

impl Registry {
    fn new(purpose: &str) -> Self {
        let rig = Rig::load();
        let strict = StrictRegistry::at(rig.get("CLIENT_ADDRESS"), Switches::default());
        let site = Site::with_builder(purpose, &[strict.host()]);
        let key = site.tool.key_pair("k", "").0.to_str().expect("UTF-8").to_owned();
        Self { site, strict, key }
    }

    fn push(&self, name: &str, sign: bool) -> Ran {
        let ran = self.push_all(&[name], sign);
        assert_eq!(self.digest(name), None, "no tag was written");
        ran
    }

    /// Pushes to several repositories, whatever becomes of it.
    fn push_all(&self, names: &[&str], sign: bool) -> Ran {
        let (host, site) = (self.strict.host(), &self.site);
        let tags: Vec<_> = names.iter().map(|name| format!("{host}/{name}:1")).collect();
        let mut arguments = vec!["--builder", BUILDER, "--push", "--registry-http", host, "quick"];
        arguments.extend(tags.iter().flat_map(|tag| ["-t", tag.as_str()]));
        if sign {
            arguments.extend(["--sign", "--cosign-key", &self.key]);
        }
        let mut command = site.tool.command("kubectl-build", &arguments);
        command.env("COSIGN_PASSWORD", "");
        Running::start(command).ends(Instant::now(), PUSH)
    }

    /// Returns what the tag of a repository points at.
    fn digest(&self, name: &str) -> Option<String> {
        self.strict.digest(name, "1").map(|digest| digest.to_string())
    }
}

/// The statuses, and words of the hint for each.
const REFUSALS: [(u16, &str); 5] = [
    (401, "docker login"),
    (403, "right"),
    (404, "repository"),
    (429, "try again"),
    (500, "try again later"),
];

#[test]
#[ignore = "needs the rig"]
fn what_the_daemon_is_told_when_it_pushes_is_told_with_a_hint() {
    let registry = Registry::new("refused");
    for (status, hint) in REFUSALS {
        let name = crate::fresh("refused");
        registry.strict.set(move |method, _| (method != "HEAD").then_some(Fault::Status(status)));
        let ran = registry.push(&name, false);
        ran.fails(1, &[registry.strict.host(), &name, "hint: ", hint]);
    }
}

#[test]
#[ignore = "needs the rig"]
fn what_preflight_is_told_stops_the_build() {
    let registry = Registry::new("preflight");
    for (status, hint) in REFUSALS {
        let name = crate::fresh("preflight");
        registry.strict.set(move |_, _| Some(Fault::Status(status)));
        let ran = registry.push(&name, true);
        ran.fails(1, &[registry.strict.host(), &name, "hint: ", hint]);
        assert!(!registry.strict.was_asked("PUT", &name), "nothing was pushed");
    }
}

/// After the push: exit 4, and the line that finishes it.
#[test]
#[ignore = "needs the rig"]
fn what_signing_is_told_leaves_the_tag_alone() {
    let registry = Registry::new("unsigned");
    let faults = [
        (Fault::Status(403), "ask for that right"),
        (Fault::Status(429), "try again in 600 s"),
        (Fault::Status(503), "try again later"),
        (Fault::Broken, "try again later"),
    ];
    for (fault, hint) in faults {
        let name = crate::fresh("unsigned");
        registry.strict.set(move |method, path| (method == "PUT" && path.ends_with(".sig")).then_some(fault));
        let ran = registry.push(&name, true);
        ran.fails(4, &[registry.strict.host(), &name, "was not moved", "finish with: ", hint]);
    }
}

#[test]
#[ignore = "needs the rig"]
fn a_registry_that_never_answers_is_given_up() {
    let registry = Registry::new("never");
    registry.strict.set(|_, _| Some(Fault::Late(Duration::from_secs(300))));
    let name = crate::fresh("never");
    registry.push(&name, true).fails(1, &[registry.strict.host(), &name, "no answer", "hint: "]);
}

/// The daemon itself would wait forever.
#[test]
#[ignore = "needs the rig"]
fn a_push_that_stands_still_is_given_up() {
    let registry = Registry::new("mute");
    let name = crate::fresh("mute");
    registry.strict.set(|method, _| (method != "HEAD").then_some(Fault::Late(Duration::from_secs(300))));
    let ran = registry.push(&name, false);
    ran.fails(1, &["the build stands still", registry.strict.host(), &name, "no answer", "hint: "]);
}

/// Nor has it a limit for reading a cache, while which no other build goes on there either.
#[test]
#[ignore = "needs the rig"]
fn a_cache_that_is_never_read_is_given_up() {
    let registry = Registry::new("unread");
    registry.strict.set(|_, _| Some(Fault::Late(Duration::from_secs(300))));
    let (host, name) = (registry.strict.host(), crate::fresh("unread"));
    let from = format!("{host}/{name}:1");
    let arguments = ["--builder", BUILDER, "--registry-http", host, "--cache-from", &from, "quick"];
    let command = registry.site.tool.command("kubectl-build", &arguments);
    let ran = Running::start(command).ends(Instant::now(), PUSH);
    ran.fails(1, &["the build stands still", host, &name, "no answer", "hint: "]);
}

/// A registry that takes the image and then says nothing, to the signature or to the tag.
#[test]
#[ignore = "needs the rig"]
fn a_registry_that_falls_silent_after_the_push_is_given_up() {
    let registry = Registry::new("silent");
    let (unsigned, untagged) = (crate::fresh("unsigned"), crate::fresh("untagged"));
    let silent = [format!("/{unsigned}/manifests/sha256-"), format!("/{untagged}/manifests/1")];
    registry.strict.set(move |method, path| {
        let held = method == "PUT" && silent.iter().any(|place| path.contains(place));
        held.then_some(Fault::Late(Duration::from_secs(300)))
    });
    std::thread::scope(|scope| {
        for (name, state) in [(&unsigned, "was not moved"), (&untagged, "may have been moved")] {
            let registry = &registry;
            scope.spawn(move || {
                let place = format!("{}/{name}", registry.strict.host());
                registry.push(name, true).fails(
                    4,
                    &[
                        "no answer",
                        "hint: ",
                        &format!("{place}:1 {state}"),
                        &format!("the image is there: {place}@sha256:"),
                        "finish with: ",
                    ],
                );
            });
        }
    });
}

#[test]
#[ignore = "needs the rig"]
fn tags_wait_for_all_signatures_and_each_says_what_it_points_at() {
    let registry = Registry::new("several");
    let (host, names) = (registry.strict.host().to_owned(), ["first", "second"].map(crate::fresh));
    let [first, second] = &names;
    let refuse = |place: &str| {
        let place = format!("/{second}/manifests/{place}");
        registry.strict.set(move |method, path| {
            (method == "PUT" && path.contains(&place)).then_some(Fault::Status(403))
        });
        registry.push_all(&[first, second], true)
    };
    refuse("sha256-").fails(
        4,
        &[
            &format!("{host}/{first}:1 was not moved"),
            &format!("{host}/{second}:1 was not moved"),
            "finish with: ",
        ],
    );
    assert_eq!((registry.digest(first), registry.digest(second)), (None, None));
    let stderr = refuse("1").fails(
        4,
        &[
            &format!("writing `{host}/{second}:1` failed"),
            &format!("{host}/{first}:1 points at the image"),
            &format!("{host}/{second}:1 was not moved"),
            "finish with: ",
        ],
    );
    let digest = registry.digest(first).expect("the first tag is there");
    assert!(stderr.contains(&format!("{host}/{second}@{digest}")), "{stderr}");
    assert_eq!(registry.digest(second), None);
}
