use super::*;
use proptest::prelude::*;
use rstest::rstest;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[rstest]
#[case("app", "docker.io/library/app", None)]
#[case("app:1", "docker.io/library/app", Some("1"))]
#[case("team/app", "docker.io/team/app", None)]
#[case("docker.io/app", "docker.io/library/app", None)]
#[case("index.docker.io/team/app", "docker.io/team/app", None)]
#[case("localhost/app", "localhost/app", None)]
#[case("localhost:5000/app:v1.2-rc_3", "localhost:5000/app", Some("v1.2-rc_3"))]
#[case("127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c", None)]
#[case("[::1]:5000/app:1", "[::1]:5000/app", Some("1"))]
#[case("[fd00::1]/app", "[fd00::1]/app", None)]
#[case("registry.default.svc.cluster.local:5000/x", "registry.default.svc.cluster.local:5000/x", None)]
#[case("REGISTRY/app", "REGISTRY/app", None)]
#[case("quay.io/a-b/c--d/e__f/g.h_i", "quay.io/a-b/c--d/e__f/g.h_i", None)]
fn parses(#[case] text: &str, #[case] repository: &str, #[case] tag: Option<&str>) {
    let reference: Reference = text.parse().unwrap();
    assert_eq!(reference.repository.to_string(), repository);
    assert_eq!(reference.tag.as_deref(), tag);
    assert_eq!(reference.digest, None);
    let again: Reference = reference.to_string().parse().unwrap();
    assert_eq!(again, reference);
}

#[test]
fn a_digest_stands_alone_or_after_a_tag() {
    let alone: Reference = format!("quay.io/a@sha256:{HEX}").parse().unwrap();
    assert_eq!(alone.digest, Some(Digest::of(b"")));
    assert_eq!(alone.tag_or_latest(), None);
    let both = format!("quay.io/a:1@sha256:{HEX}");
    assert_eq!(both.parse::<Reference>().unwrap().to_string(), both);
    assert_eq!("a".parse::<Reference>().unwrap().tag_or_latest(), Some("latest"));
}

#[rstest]
#[case("", ReferenceProblem::Empty)]
#[case(":1", ReferenceProblem::Empty)]
#[case("quay.io/", ReferenceProblem::Empty)]
#[case("https://quay.io/app", ReferenceProblem::Scheme("https".into()))]
#[case("quay.io/App", ReferenceProblem::Uppercase("App".into()))]
#[case("App", ReferenceProblem::Uppercase("library/App".into()))]
#[case("quay.io/a..b", ReferenceProblem::Path("a..b".into()))]
#[case("quay.io/a___b", ReferenceProblem::Path("a___b".into()))]
#[case("quay.io/-a", ReferenceProblem::Path("-a".into()))]
#[case("quay.io/a/", ReferenceProblem::Path("".into()))]
#[case("quay.io//a", ReferenceProblem::Path("".into()))]
#[case("quay.io/a b", ReferenceProblem::Path("a b".into()))]
#[case("quay.io:port/a", ReferenceProblem::Registry("quay.io:port".into()))]
#[case("quay.io:99999/a", ReferenceProblem::Registry("quay.io:99999".into()))]
#[case("-quay.io/a", ReferenceProblem::Registry("-quay.io".into()))]
#[case("[::g]/a", ReferenceProblem::Registry("[::g]".into()))]
#[case("a:", ReferenceProblem::Tag("".into()))]
#[case("a:.1", ReferenceProblem::Tag(".1".into()))]
#[case("a:1:2", ReferenceProblem::Tag("1:2".into()))]
#[case("a:tág", ReferenceProblem::Tag("tág".into()))]
#[case(HEX, ReferenceProblem::LooksLikeId)]
fn refuses(#[case] text: &str, #[case] problem: ReferenceProblem) {
    assert_eq!(text.parse::<Reference>().unwrap_err().problem, problem);
}

#[test]
fn refuses_what_is_too_long() {
    assert!(format!("a:{}", "t".repeat(128)).parse::<Reference>().is_ok());
    assert!(format!("a:{}", "t".repeat(129)).parse::<Reference>().is_err());
    assert!(format!("quay.io/{}", "a".repeat(255)).parse::<Reference>().is_ok());
    assert!(format!("quay.io/{}", "a".repeat(256)).parse::<Reference>().is_err());
}

#[test]
fn a_repository_has_neither_tag_nor_digest() {
    assert!("quay.io/a".parse::<Repository>().is_ok());
    assert!("quay.io/a:1".parse::<Repository>().is_err());
    assert!(format!("quay.io/a@sha256:{HEX}").parse::<Repository>().is_err());
}

#[test]
fn cosigns_name_for_docker_hub() {
    assert_eq!("app".parse::<Repository>().unwrap().signing_name(), "index.docker.io/library/app");
    assert_eq!("ghcr.io/a".parse::<Repository>().unwrap().signing_name(), "ghcr.io/a");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// oci-client has the same grammar, save for bracketed addresses, ids, ports over 65535, upper case, which
    /// makes the first part a registry for distribution/reference and not for it, and `a.b_c/d`, whose first part
    /// it takes for a folder of docker.io.
    #[test]
    fn agrees_with_oci_client(
        text in r"([a-z0-9.-]{1,12}(:[0-9]{1,4})?/)?[a-z0-9._/-]{1,12}(:[a-z0-9._-]{0,6})?"
    ) {
        let theirs = text.parse::<oci_client::Reference>();
        match text.parse::<Reference>() {
            Ok(ours) => {
                let theirs = theirs.expect("oci-client takes it too");
                prop_assert_eq!(theirs.registry(), ours.repository.registry.as_str());
                prop_assert_eq!(theirs.repository(), ours.repository.path.as_str());
                prop_assert_eq!(theirs.tag(), ours.tag_or_latest());
            }
            Err(error) => {
                let no_host = text.split_once('/').is_some_and(|(host, _)| host.contains('.') && host.contains('_'));
                prop_assert!(theirs.is_err() || no_host, "only oci-client takes it: {}", error);
            }
        }
    }
}
