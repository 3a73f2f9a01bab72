//! Signing what is there: every switch, in what is written and what is said.

use crate::fake_proxy::FakeProxy;
use crate::strict_registry::{Access, Referrers, StrictRegistry, Switches};
use crate::tls::Certificate;
use crate::{Home, Said, built};
use rstest::rstest;
use std::time::Duration;

const APP: &str = "team/app";
const ROBOT: &str = "org+robot$ci";
const API: &str = "as bundles, which the registry lists by its referrers API";
const NO_API: &str = "as bundles, which tags `sha256-…` list: the registry has no referrers API";

fn with(access: Access) -> Switches {
    Switches { access, ..Switches::default() }
}

fn without_referrers(referrers: Referrers) -> Switches {
    Switches { referrers, ..Switches::default() }
}

#[rstest]
#[case::open(Switches::default(), API)]
#[case::silent(without_referrers(Referrers::Silent), API)]
#[case::paged(Switches { paged: true, ..Switches::default() }, API)]
#[case::no_api(without_referrers(Referrers::Missing(404)), NO_API)]
#[case::led_elsewhere(without_referrers(Referrers::Missing(303)), NO_API)]
#[case::not_acceptable(without_referrers(Referrers::Missing(406)), NO_API)]
#[case::bad_request(without_referrers(Referrers::Missing(400)), NO_API)]
#[case::a_page(without_referrers(Referrers::Page), NO_API)]
#[case::immutable(Switches { immutable: true, ..Switches::default() }, API)]
#[case::immutable_without_api(
    Switches { immutable: true, ..without_referrers(Referrers::Missing(404)) },
    NO_API
)]
#[case::stored_elsewhere(
    Switches {
        blobs_elsewhere: true,
        uploads_elsewhere: true,
        ..with(Access::Bearer(ROBOT.into(), "p".into()))
    },
    API
)]
#[case::basic(with(Access::Basic(ROBOT.into(), "p".into())), API)]
#[case::short_tokens(
    Switches {
        token_life: Some(Duration::from_millis(1500)),
        slow: Some(Duration::from_millis(100)),
        ..with(Access::Bearer(ROBOT.into(), "p".into()))
    },
    API
)]
#[case::anonymous(with(Access::AnonymousPush), API)]
#[case::rate_limited(
    Switches { limited: Some(17), ..without_referrers(Referrers::Missing(404)) },
    NO_API
)]
#[case::relative(Switches { relative_locations: true, no_digest_header: true, ..Switches::default() }, API)]
fn an_image_is_signed_and_verifies(#[case] switches: Switches, #[case] can: &str) {
    let registry = StrictRegistry::start(Switches::default());
    let home = Home::new();
    if matches!(switches.access, Access::Basic(..) | Access::Bearer(..)) {
        home.log_in(&[(registry.host(), ROBOT, "p")]);
    }
    let image = built(&registry, APP);
    *registry.switches() = switches;
    let said = home.sign(&registry, APP, &image, &["--cosign-key", "one.pem"]).ok();
    let line = format!(
        "signed in {}/{APP}: index, linux/amd64, linux/arm64, what was attested (slsaprovenance1); \
         under `.sig` and `.att` tags and {can}",
        registry.host()
    );
    said.says(&[&line]);
    assert_eq!(registry.digest(APP, "1"), Some(image.digest));
    home.verifies(&registry, APP, "one.pem", &[]);
    let tags = registry.tags(APP);
    let of_each = if can == API { 2 } else { 3 };
    assert_eq!(tags.len(), 1 + 3 * of_each, "{tags:?}");
    assert!(tags.values().all(|writes| *writes == 1), "each tag is written once: {tags:?}");
    assert_eq!(registry.breaches(), [""; 0]);
    let strayed = registry.take_seen().into_iter().filter(|seen| seen.host == registry.storage());
    assert!(strayed.into_iter().all(|seen| seen.authorization.is_none()));

    // Again it finds all of it, and writes nothing.
    registry.switches().immutable = false;
    home.sign(&registry, APP, &image, &["--cosign-key", "one.pem"]).ok();
    let again = registry.tags(APP);
    assert!(tags.iter().all(|(tag, writes)| tag == "1" || again[tag] == *writes), "{again:?}");
}

#[test]
fn each_path_has_credentials_of_its_own() {
    let access = Access::Bearer("u".into(), "p".into());
    let registry = StrictRegistry::start(with(access));
    registry.switches().others.insert("sigs".into(), ("robot$sigs".into(), "q".into()));
    let home = Home::new();
    let sigs = format!("{}/sigs", registry.host());
    home.log_in(&[(registry.host(), "u", "p"), (&sigs, "robot$sigs", "q")]);
    let image = built(&registry, APP);
    let elsewhere = ["--signature-repository", &format!("{sigs}/app")];
    home.sign(&registry, APP, &image, &[&["--cosign-key", "one.pem"], &elsewhere[..]].concat()).ok();
    home.verifies(&registry, APP, "one.pem", &elsewhere);
    assert_eq!((registry.tags(APP).len(), registry.tags("sigs/app").len()), (1, 6));
    assert_eq!(registry.breaches(), [""; 0]);
}

/// Where a tag of signatures is there already and nobody may move it, the two ways out are told, and lead out.
#[test]
fn an_immutable_tag_is_explained() {
    let registry = StrictRegistry::start(Switches { immutable: true, ..Switches::default() });
    let home = Home::new();
    let image = built(&registry, APP);
    let sign = |key: &str, more: &[&str]| {
        let at = format!("{}/{APP}", registry.host());
        let image = format!("{at}@{}", image.digest);
        let sign = ["sign", "--registry-http", registry.host(), "--cosign-key", key, &image];
        home.run("kubectl-buildkit", &[&sign[..], more].concat())
    };
    sign("one.pem", &[]).ok();
    let refused = sign("two.pem", &[]);
    let tag = format!("the tag {}.sig in {}/{APP} is immutable", image.digest.tag(), registry.host());
    refused.fails(4, &[&tag, "`--signature-format bundle`", "`--signature-repository REPOSITORY`"]);
    sign("two.pem", &["--signature-format", "bundle"]).ok();
    let elsewhere = format!("{}/sigs", registry.host());
    sign("two.pem", &["--signature-repository", &elsewhere]).ok();
    // Without the API bundles need a tag, too.
    registry.switches().referrers = Referrers::Missing(404);
    sign("one.pem", &["--signature-format", "bundle"]).ok();
    let refused = sign("two.pem", &["--signature-format", "bundle"]);
    let refused = refused.fails(4, &["no referrers API", "`--signature-repository REPOSITORY`"]);
    assert!(!refused.stderr.contains("--signature-format bundle`"), "{}", refused.stderr);
}

#[rstest]
#[case::nobody(Access::Basic("u".into(), "p".into()), None, "docker login")]
#[case::wrong(Access::Bearer("u".into(), "p".into()), Some("q"), "docker login")]
#[case::may_not(Access::AnonymousPull, None, "docker login")]
fn without_the_right_credentials_nobody_is_asked_for_them(
    #[case] access: Access,
    #[case] password: Option<&str>,
    #[case] hint: &str,
) {
    let registry = StrictRegistry::start(Switches::default());
    let home = Home::new();
    if let Some(password) = password {
        home.log_in(&[(registry.host(), "u", password)]);
    }
    let image = built(&registry, APP);
    registry.switches().access = access;
    let said = home.sign(&registry, APP, &image, &["--cosign-key", "one.pem"]);
    assert!(matches!(said.code, Some(1 | 4)), "{:?} {}", said.code, said.stderr);
    said.says(&[hint, "401 Unauthorized"]);
    assert_eq!(registry.digest(APP, "1"), None);
}

#[test]
fn a_body_that_is_too_large_is_told_with_a_hint() {
    let registry = StrictRegistry::start(Switches { largest: Some(600), ..Switches::default() });
    let home = Home::new();
    let image = built(&registry, APP);
    home.sign(&registry, APP, &image, &["--cosign-key", "one.pem"])
        .fails(4, &["413", "client_max_body_size"]);
    assert_eq!(registry.digest(APP, "1"), None);
}

/// Most proxies open tunnels to TLS ports only: what goes without TLS is theirs to send on, as curl and Go have it.
#[test]
fn a_registry_without_tls_is_reached_through_a_proxy_that_opens_no_tunnels() {
    // It knows itself by another name.
    let basic = with(Access::Basic(ROBOT.into(), "p".into()));
    let registry = StrictRegistry::start(Switches { relative_locations: true, ..basic });
    let proxy = FakeProxy::start(registry.host(), "Basic dTpzZWNyZXQ=");
    let home = Home::new();
    let host = "registry.test:5000";
    home.log_in(&[(host, ROBOT, "p")]);
    let image = built(&registry, APP);
    let (tag, image) = (format!("{host}/{APP}:1"), format!("{host}/{APP}@{}", image.digest));
    let run = |arguments: &[&str], variable: &str, proxy: &str| {
        let mut command = home.command("kubectl-buildkit", arguments);
        Said::of(&command.env(variable, proxy).output().expect("it runs"))
    };
    let sign = ["sign", "--registry-http", host, "--cosign-key", "one.pem", "--tag", &tag, &image];
    let address = |us: &str| format!("http://{us}{}", proxy.address);
    let said = run(&sign, "HTTP_PROXY", &address("u:secret@")).ok();
    said.says(&[&format!("connecting to {host} through the proxy {}", proxy.address)]);
    run(&["verify", "--registry-http", host, "--key", "one.pem", &tag], "http_proxy", &address("u:secret@"))
        .ok();
    let seen = proxy.seen();
    assert!(seen.iter().all(|line| line.contains(" http://registry.test:5000/v2/")), "{seen:?}");
    let refused = seen.iter().filter(|line| line.ends_with(" 407")).count();
    assert_eq!(refused, 2, "once for each command, which learns from it that there is a proxy: {seen:?}");
    assert_eq!(registry.breaches(), [""; 0]);

    // The same proxy by TLS.
    let certificate = Certificate::from_authority("localhost");
    let front = proxy.behind_tls(&certificate);
    let secured = format!("https://u:secret@{}", front.host().replace("127.0.0.1", "localhost"));
    let verify = ["verify", "--registry-http", host, "--key", "one.pem", &tag];
    let unknown = run(&verify, "HTTP_PROXY", &secured);
    unknown.fails(1, &["through the proxy localhost:", "no TLS with it", "SSL_CERT_FILE names"]);
    let trusted = home.path().join("proxy.pem");
    std::fs::write(&trusted, &certificate.authority_pem).expect("a file");
    let mut command = home.command("kubectl-buildkit", &verify);
    command.env("HTTP_PROXY", &secured).env("SSL_CERT_FILE", &trusted);
    Said::of(&command.output().expect("it runs")).ok();
    assert!(front.accepted() > 1);

    let refused = run(&sign, "HTTP_PROXY", &address("u:wrong@"));
    refused.fails(1, &["407 Proxy Authentication Required", "through the proxy 127.0.0.1:", "HTTP_PROXY"]);
    let said = run(&sign, "HTTP_PROXY", "ftp://u:secret@proxy");
    assert!(!said.stderr.contains("secret"), "{}", said.stderr);
    said.fails(2, &["HTTP_PROXY names no proxy that can be used", "socks5://HOST:PORT"]);
    let nobody =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    for scheme in ["http", "https", "socks5"] {
        let said = run(&sign, "HTTP_PROXY", &format!("{scheme}://{nobody}"));
        said.fails(
            1,
            &[&format!("{host} is not reached through the proxy {nobody}: Connection refused"), "NO_PROXY"],
        );
    }
}
