use super::*;
use crate::config::env::Fixed;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rstest::rstest;
use std::ffi::OsString;

const TOKEN: &str =
    "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJpIiwiYXVkIjoic2lnc3RvcmUiLCJzdWIiOiJzIiwiZXhwIjoxfQ.c2ln";

fn settings(
    change: impl FnOnce(&mut IdentityArgs),
    keys: usize,
    env: &Fixed,
) -> Result<KeylessSettings, Misuse> {
    let mut args = IdentityArgs::default();
    change(&mut args);
    resolve(args, keys, Path::new("/"), env)
}

#[test]
fn an_ambient_token_alone_is_no_opt_in() {
    let env = Fixed::new([("SIGSTORE_ID_TOKEN", TOKEN)]);
    assert!(matches!(settings(|_| (), 0, &env), Err(Misuse::SignWithoutKey)));
    let by_flag = settings(|args| args.keyless = true, 0, &env).unwrap();
    assert!(matches!(by_flag.identity, Some(IdentityChoice::Given { place: "SIGSTORE_ID_TOKEN", .. })));
    let env = Fixed::new([("SIGSTORE_ID_TOKEN", TOKEN), ("COSIGN_EXPERIMENTAL", "1")]);
    assert!(settings(|_| (), 0, &env).unwrap().identity.is_some());
    // A key beats what only the environment says, without a word.
    let with_key = settings(|_| (), 1, &env).unwrap();
    assert!(with_key.identity.is_none() && with_key.notes.is_empty());
}

#[test]
fn a_key_beats_an_identity_unless_both_are_wanted() {
    let env = Fixed::default();
    let named = |args: &mut IdentityArgs| args.service_account = Some("ci/builder".to_owned());
    let one = settings(named, 1, &env).unwrap();
    assert!(one.identity.is_none() && one.notes[0].contains("not used"));
    let both = settings(|args| (named(args), args.keyless = true).0, 1, &env).unwrap();
    let Some(IdentityChoice::ServiceAccount { namespace, name }) = both.identity else {
        panic!("an account")
    };
    assert_eq!((namespace.as_deref(), name.as_str()), (Some("ci"), "builder"));
}

#[test]
fn tokens_and_paths_are_told_apart_and_never_repeated() {
    let env = Fixed::default();
    let given = |text: &str| settings(|args| args.identity_token = Some(text.to_owned()), 0, &env);
    let settings = given(TOKEN).unwrap();
    assert!(matches!(settings.identity, Some(IdentityChoice::Given { place: "--identity-token", .. })));
    assert_eq!(settings.flags, ["--identity-token", "TOKEN"]);
    assert!(!format!("{settings:?}").contains("eyJ"));
    assert!(matches!(given("/run/token").unwrap().identity, Some(IdentityChoice::File(_))));
    let damaged = format!("{}.{}.{}", "a".repeat(50), "%".repeat(50), "c".repeat(50));
    let error = given(&damaged).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("aaaa"));
}

type Variables = &'static [(&'static str, &'static str)];

/// Whom variables name, the first to be asked first.
const SOURCES: [(&str, Variables); 7] = [
    ("SIGSTORE_ID_TOKEN", &[("SIGSTORE_ID_TOKEN", TOKEN)]),
    ("GitHub", &[("ACTIONS_ID_TOKEN_REQUEST_URL", "https://a"), ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "t")]),
    ("Buildkite", &[("BUILDKITE_AGENT_ACCESS_TOKEN", "t"), ("BUILDKITE_JOB_ID", "j")]),
    ("CircleCI", &[("CIRCLECI", "true")]),
    ("an account of Google's", &[("GOOGLE_SERVICE_ACCOUNT_NAME", "a@p")]),
    ("a machine of Google's", &[("GCE_METADATA_HOST", "h")]),
    ("SPIFFE", &[("SPIFFE_ENDPOINT_SOCKET", "unix:///s")]),
];

fn named(choice: &IdentityChoice) -> &'static str {
    match *choice {
        IdentityChoice::Given { place, .. } => place,
        IdentityChoice::ServiceAccount { .. } => "--service-account",
        IdentityChoice::Ambient(AmbientSource::GitHub { .. }) => "GitHub",
        IdentityChoice::Ambient(AmbientSource::Buildkite { .. }) => "Buildkite",
        IdentityChoice::Ambient(AmbientSource::CircleCi) => "CircleCI",
        IdentityChoice::Ambient(AmbientSource::GoogleAccount { .. }) => "an account of Google's",
        IdentityChoice::Ambient(AmbientSource::Google { .. }) => "a machine of Google's",
        IdentityChoice::Ambient(AmbientSource::Spiffe(_)) => "SPIFFE",
        IdentityChoice::File(_) => "a file",
        IdentityChoice::Login(_) => "a person",
    }
}

/// Somebody is there to log in.
fn attended(variables: &[(&str, &str)]) -> Fixed {
    let variables = variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
    Fixed { variables: variables.collect(), terminal: true, ..Fixed::default() }
}

#[test]
fn who_is_asked_in_which_order() {
    let chosen = |flag: fn(&mut IdentityArgs), variables: &[(&str, &str)]| {
        let both = |args: &mut IdentityArgs| (args.keyless = true, flag(args)).1;
        settings(both, 0, &attended(variables)).map(|settings| settings.identity.expect("an identity"))
    };
    type Flag = fn(&mut IdentityArgs);
    let flags: [(&str, Flag); 2] = [
        ("--identity-token", |args| args.identity_token = Some(TOKEN.to_owned())),
        ("--service-account", |args| args.service_account = Some("ci/builder".to_owned())),
    ];
    for (at, (expected, variables)) in SOURCES.iter().enumerate() {
        for (_, weaker) in &SOURCES[at..] {
            let both = [*variables, *weaker].concat();
            assert_eq!(named(&chosen(|_| (), &both).unwrap()), *expected, "{both:?}");
        }
        for (expected, flag) in flags {
            assert_eq!(named(&chosen(flag, variables).unwrap()), expected, "{variables:?}");
        }
    }
    let account = chosen(|_| (), &[("GOOGLE_SERVICE_ACCOUNT_NAME", "a@p")]).unwrap();
    let IdentityChoice::Ambient(AmbientSource::GoogleAccount { name, .. }) = account else {
        panic!("an account of Google's")
    };
    assert_eq!(name, "a@p");
    let refused = |variable: &str, value: &str| chosen(|_| (), &[(variable, value)]).unwrap_err();
    assert!(matches!(refused("GITHUB_ACTIONS", "true"), Misuse::GitHubPermission));
    assert!(matches!(refused("SPIFFE_ENDPOINT_SOCKET", "s"), Misuse::Value { .. }));
}

#[rstest]
#[case("kubectl-build --push --sign .")]
#[case("kubectl-buildkit sign r.example/a@sha256:0")]
fn a_token_and_an_account_exclude_one_another(#[case] line: &str) {
    let parse = |flags: &str| {
        let words: Vec<_> = format!("{line} {flags}").split_whitespace().map(OsString::from).collect();
        crate::cli::parse(&words, |_| false)
    };
    let (token, account) = ("--identity-token token", "--service-account ci/builder");
    assert!(parse(token).is_ok() && parse(account).is_ok());
    let error = parse(&format!("{token} {account}")).expect_err("both");
    assert_eq!(error.kind(), clap::error::ErrorKind::ArgumentConflict);
}

#[test]
fn a_person_is_asked_last_and_only_where_there_is_one() {
    let login = |variables: &[(&str, &str)], change: fn(&mut IdentityArgs)| {
        let mut env = Fixed { terminal: true, ..Fixed::default() };
        env.variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let both = |args: &mut IdentityArgs| (args.keyless = true, change(args)).1;
        match settings(both, 0, &env).map(|settings| settings.identity) {
            Ok(Some(IdentityChoice::Login(choice))) => Ok(choice),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error),
        }
    };
    let choice = login(&[("DISPLAY", ":0")], |_| ()).unwrap();
    assert_eq!((choice.client_id.as_str(), choice.has_browser), ("sigstore", true));
    assert_eq!((choice.flow, choice.timeout), (None, Duration::from_secs(300)));
    for (variables, browser) in [
        (&[][..], cfg!(target_os = "macos")),
        (&[("WAYLAND_DISPLAY", "w")], true),
        (&[("DISPLAY", ":0"), ("SSH_CONNECTION", "a")], false),
        (&[("SSH_TTY", "a"), ("BROWSER", "helper")], true),
    ] {
        assert_eq!(login(variables, |_| ()).unwrap().has_browser, browser, "{variables:?}");
    }
    let passed = |args: &mut IdentityArgs| args.oidc_disable_ambient_providers = true;
    assert!(login(&[("SIGSTORE_ID_TOKEN", TOKEN), ("CIRCLECI", "true")], passed).is_ok());
    assert!(matches!(login(&[("CI", "true")], |_| ()), Err(Misuse::NoIdentity("CI is set"))));
    assert!(login(&[("CI", "false")], |_| ()).is_ok());
    let nobody = settings(|args| args.keyless = true, 0, &Fixed::default());
    assert!(matches!(nobody, Err(Misuse::NoIdentity("standard error is no terminal"))));
    let device = login(&[], |args| args.fulcio_auth_flow = Some("device".into())).unwrap();
    assert_eq!(device.flow, Some(Flow::Device));
    let wrongs: [fn(&mut IdentityArgs); 4] = [
        |args| args.fulcio_auth_flow = Some("token".into()),
        |args| args.oidc_redirect_url = Some("http://example.com/back".into()),
        |args| args.oidc_redirect_url = Some("https://localhost/back".into()),
        |args| args.sign_timeout = Some("0".into()),
    ];
    for wrong in wrongs {
        assert!(matches!(login(&[], wrong), Err(Misuse::Value { .. })));
    }
}

#[test]
fn logs_are_used_where_they_were_asked_for() {
    let env = Fixed::default();
    let mode = |change: fn(&mut IdentityArgs)| settings(change, 1, &env).map(|one| one.services.log_mode);
    assert_eq!(mode(|_| ()).unwrap(), LogMode::Off);
    assert_eq!(mode(|args| args.rekor_url = Some("https://r".into())).unwrap(), LogMode::Must);
    assert_eq!(mode(|args| args.rekor = Some("best-effort".into())).unwrap(), LogMode::BestEffort);
    assert!(mode(|args| args.rekor = Some("maybe".into())).is_err());
    let unlogged = settings(
        |args| (args.service_account, args.rekor) = (Some("a".into()), Some("false".into())),
        0,
        &env,
    );
    assert!(matches!(unlogged, Err(Misuse::KeylessUnlogged)));
}

#[test]
fn publishing_a_key_s_signatures_needs_consent() {
    let (none, yes) = (Fixed::default(), Fixed::new([("KUBECTL_BUILD_YES", "1")]));
    let ask = |env: &Fixed, url: Option<&str>| {
        let url = url.map(str::to_owned);
        settings(|args| (args.rekor, args.rekor_url) = (Some("true".into()), url), 1, env)
            .unwrap()
            .ask_consent
    };
    assert_eq!(ask(&none, None).as_deref(), Some("https://rekor.sigstore.dev/"));
    assert_eq!(ask(&none, Some("https://rekor.example")), None);
    assert_eq!(ask(&yes, None), None);
    let agreed = settings(|args| (args.rekor, args.yes) = (Some("true".into()), true), 1, &none).unwrap();
    assert!(agreed.ask_consent.is_none() && agreed.notes[0].contains("the public key"));
    let keyless = settings(|args| args.service_account = Some("a".into()), 0, &none).unwrap();
    assert!(keyless.ask_consent.is_none() && keyless.notes[0].contains("for good"));
}

#[test]
fn one_place_names_the_services() {
    let both = |args: &mut IdentityArgs| {
        args.service_account = Some("a".into());
        args.signing_config = Some("c.json".into());
        args.rekor_url = Some("https://r".into());
    };
    assert!(matches!(settings(both, 0, &Fixed::default()), Err(Misuse::ServicesTwice("--rekor-url"))));
    let wrong = |args: &mut IdentityArgs| args.rekor_url = Some("rekor.example".into());
    assert!(matches!(settings(wrong, 1, &Fixed::default()), Err(Misuse::Value { .. })));
    let env = Fixed::new([("COSIGN_FULCIO_URL", "https://f"), ("COSIGN_REKOR_URL", "https://r")]);
    let plan = settings(|args| args.service_account = Some("a".into()), 0, &env).unwrap().services;
    assert!(!plan.public && plan.authority.is_some() && plan.logs.len() == 1);
}

/// Returns what comes of these beside a key, but for what is the flags' alone: they stand in lines that are printed,
/// and `--oidc-issuer` makes its issuer the only one.
fn resolved(keyless: bool, env: &Fixed, flag: impl FnOnce(&mut IdentityArgs)) -> String {
    let both = |args: &mut IdentityArgs| (args.keyless = keyless, flag(args)).1;
    let mut settings = settings(both, 1, env).unwrap();
    settings.flags.clear();
    settings.services.issuer_is_must = false;
    format!("{settings:?}")
}

#[test]
fn variables_have_the_effect_of_their_flags() {
    const CONFIG: &str =
        concat!(env!("CARGO_MANIFEST_DIR"), "/hack/fuzz/seeds/trust/signing-config-local.json");
    const ROOT: &str =
        concat!(env!("CARGO_MANIFEST_DIR"), "/integration/fixtures/signing/trusted-root-local.json");
    type Flag = fn(&mut IdentityArgs, String);
    let rows: [(&str, &str, bool, Flag); 11] = [
        ("COSIGN_YES", "true", true, |args, _| args.yes = true),
        ("COSIGN_TLOG_UPLOAD", "true", false, |args, how| args.rekor = Some(how)),
        ("COSIGN_FULCIO_URL", "https://f", true, |args, url| args.fulcio_url = Some(url)),
        ("COSIGN_REKOR_URL", "https://r", true, |args, url| args.rekor_url = Some(url)),
        ("COSIGN_TIMESTAMP_SERVER_URL", "https://t", true, |args, url| {
            args.timestamp_server_url = Some(url);
        }),
        ("COSIGN_SIGNING_CONFIG", CONFIG, true, |args, file| args.signing_config = Some(file.into())),
        ("COSIGN_TRUSTED_ROOT", ROOT, true, |args, file| args.trusted_root = Some(file.into())),
        ("COSIGN_OIDC_ISSUER", "https://i", true, |args, url| args.oidc_issuer = Some(url)),
        ("COSIGN_OIDC_CLIENT_ID", "client", true, |args, id| args.oidc_client_id = Some(id)),
        ("COSIGN_OIDC_REDIRECT_URL", "http://localhost:9/", true, |args, url| {
            args.oidc_redirect_url = Some(url);
        }),
        ("COSIGN_FULCIO_AUTH_FLOW", "device", true, |args, flow| args.fulcio_auth_flow = Some(flow)),
    ];
    let nothing = attended(&[]);
    for (variable, value, keyless, flag) in rows {
        let by_flag = resolved(keyless, &nothing, |args| flag(args, value.to_owned()));
        assert_ne!(by_flag, resolved(keyless, &nothing, |_| ()), "{variable}");
        assert_eq!(resolved(keyless, &attended(&[(variable, value)]), |_| ()), by_flag, "{variable}");
    }
}

#[test]
fn a_clock_s_certificates_can_be_a_file() {
    let json = include_str!("../../../integration/fixtures/signing/trusted-root-emulator.json");
    let root: serde_json::Value = serde_json::from_str(json).unwrap();
    let chain = root["timestampAuthorities"][0]["certChain"]["certificates"].as_array().unwrap();
    let der = |one: &serde_json::Value| STANDARD.decode(one["rawBytes"].as_str().unwrap()).unwrap();
    let chain: Vec<_> = chain.iter().map(|one| pem::Pem::new("CERTIFICATE", der(one))).collect();
    let folder = tempfile::tempdir().unwrap();
    let services = |name: &str, content: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, content).unwrap();
        let env = Fixed::new([("SIGSTORE_TSA_CERTIFICATE_FILE", file.to_str().unwrap())]);
        settings(|args| args.service_account = Some("a".into()), 0, &env).map(|settings| settings.services)
    };
    let named = services("tsa.pem", &pem::encode_many(&chain)).unwrap();
    // All but the clock stays the public instance's, and nobody is asked for a newer one.
    assert_eq!(format!("{:?}", named.trust), format!("{:?}", Some(TrustRoot::public())));
    assert!(named.public && named.tuf.is_none());
    let refused = services("empty.pem", "").unwrap_err().to_string();
    assert!(refused.contains("SIGSTORE_TSA_CERTIFICATE_FILE"), "{refused}");
}
