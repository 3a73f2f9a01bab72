use super::*;
use rstest::rstest;
use secrecy::ExposeSecret as _;

fn shown(credential: &Credential) -> String {
    match credential {
        Credential::Anonymous => "anonymous".to_owned(),
        Credential::Basic { username, password } => format!("{username}:{}", password.expose_secret()),
        Credential::IdentityToken(token) => format!("identity {}", token.expose_secret()),
        Credential::RegistryToken(token) => format!("registry {}", token.expose_secret()),
    }
}

async fn look(json: &str, host: &str, path: &str) -> String {
    let document = Document::parse("config.json", json.as_bytes()).unwrap();
    let resolver = Resolver::new(vec![document], HelperEnvironment::default());
    shown(&resolver.lookup(host, Some(path)).await.unwrap())
}

#[rstest]
#[case::host(r#"{"auths":{"r.io":{"auth":"dTpw"}}}"#, true)]
#[case::path_only(r#"{"auths":{"r.io/org":{"auth":"dTpw"}}}"#, true)]
#[case::token_only(r#"{"auths":{"r.io":{"registrytoken":"t"}}}"#, true)]
#[case::wildcard_path(r#"{"auths":{"*.io/org":{"auth":"dTpw"}}}"#, true)]
#[case::broken(r#"{"auths":{"r.io/org":{"auth":"%"}}}"#, true)]
#[case::no_such_helper(r#"{"credsStore":"none"}"#, true)]
#[case::empty_entry(r#"{"auths":{"r.io":{}}}"#, false)]
#[case::other_host(r#"{"auths":{"q.io/r.io":{"auth":"dTpw"}}}"#, false)]
#[tokio::test]
async fn what_is_known_of_a_host_at_any_path(#[case] json: &str, #[case] known: bool) {
    let document = Document::parse("config.json", json.as_bytes()).unwrap();
    let resolver = Resolver::new(vec![document], HelperEnvironment::default());
    assert_eq!(resolver.knows("R.io").await, known);
}

#[rstest]
#[case::plain(r#"{"auths":{"r.io":{"auth":"dTpw"}}}"#, "r.io", "u:p")]
#[case::no_padding(r#"{"auths":{"r.io":{"auth":"dTpwdw"}}}"#, "r.io", "u:pw")]
#[case::colon_in_password(r#"{"auths":{"r.io":{"auth":"dTpwOnE="}}}"#, "r.io", "u:p:q")]
#[case::fields(r#"{"auths":{"r.io":{"username":"org+robot","password":"a$b"}}}"#, "r.io", "org+robot:a$b")]
#[case::other_host(r#"{"auths":{"r.io":{"auth":"dTpw"}}}"#, "q.io", "anonymous")]
#[case::port_counts(r#"{"auths":{"r.io":{"auth":"dTpw"}}}"#, "r.io:5000", "anonymous")]
#[case::scheme(r#"{"auths":{"https://r.io":{"auth":"dTpw"}}}"#, "r.io", "u:p")]
#[case::v1(r#"{"auths":{"https://r.io/v1/":{"auth":"dTpw"}}}"#, "r.io", "u:p")]
#[case::case_of_host(r#"{"auths":{"R.io":{"auth":"dTpw"}}}"#, "r.IO", "u:p")]
#[case::hub_by_v1(r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"}}}"#, "docker.io", "u:p")]
#[case::hub_by_daemon(r#"{"auths":{"docker.io":{"auth":"dTpw"}}}"#, "registry-1.docker.io", "u:p")]
#[case::identity(r#"{"auths":{"r.io":{"auth":"MDA6","identitytoken":"t"}}}"#, "r.io", "identity t")]
#[case::registry(r#"{"auths":{"r.io":{"registrytoken":"t"}}}"#, "r.io", "registry t")]
#[case::empty_entry(r#"{"auths":{"r.io":{}}}"#, "r.io", "anonymous")]
#[case::null_entry(r#"{"auths":{"r.io":null}}"#, "r.io", "anonymous")]
#[case::null_auths(r#"{"auths":null,"credsStore":""}"#, "r.io", "anonymous")]
#[case::empty_file("", "r.io", "anonymous")]
#[case::wildcard(r#"{"auths":{"*.azurecr.io":{"auth":"dTpw"}}}"#, "mine.azurecr.io", "u:p")]
#[case::wildcards(r#"{"auths":{"m*n*.*cr.io":{"auth":"dTpw"}}}"#, "mine.azurecr.io", "u:p")]
#[case::wildcards_in_order(r#"{"auths":{"m*n*i*.*.io":{"auth":"dTpw"}}}"#, "mine.azurecr.io", "anonymous")]
#[case::wildcard_is_one_label(r#"{"auths":{"*.io":{"auth":"dTpw"}}}"#, "a.b.io", "anonymous")]
#[tokio::test]
async fn finds(#[case] json: &str, #[case] host: &str, #[case] expected: &str) {
    assert_eq!(look(json, host, "team/app").await, expected);
}

#[rstest]
#[case("team/app/sub", "app:p")]
#[case("team/app", "app:p")]
#[case("team/apple", "team:p")]
#[case("team", "team:p")]
#[case("teams/app", "host:p")]
#[case("", "host:p")]
#[tokio::test]
async fn the_longest_path_wins(#[case] path: &str, #[case] expected: &str) {
    let json = r#"{"auths":{
        "r.io":{"username":"host","password":"p"},
        "https://r.io/team/":{"username":"team","password":"p"},
        "r.io/team/app":{"username":"app","password":"p"}}}"#;
    assert_eq!(look(json, "r.io", path).await, expected);
}

#[tokio::test]
async fn the_longest_path_of_all_documents_wins_and_then_the_first_document() {
    let parse = |name: &str, json: &str| Document::parse(name, json.as_bytes()).unwrap();
    let documents = vec![
        parse("flag", r#"{"auths":{"r.io":{}}}"#),
        parse("secret", r#"{"auths":{"r.io":{"auth":"dTpw"}}}"#),
        parse(
            "account",
            r#"{"auths":{"r.io":{"auth":"bm9ib2R5Og=="},"r.io/team":{"username":"org+robot","password":"a$b"}}}"#,
        ),
    ];
    let resolver = Resolver::new(documents, HelperEnvironment::default());
    for (path, user, origin) in [("other", "u:p", "secret"), ("team/a", "org+robot:a$b", "account")] {
        let found = resolver.find("r.io", Some(path)).await.unwrap();
        assert_eq!((shown(&found.credential).as_str(), found.origin.as_deref()), (user, Some(origin)));
    }
}

#[tokio::test]
async fn the_older_secret_is_read() {
    let document = Document::parse_dockercfg("s", br#"{"r.io":{"auth":"dTpw"}}"#).unwrap();
    let resolver = Resolver::new(vec![document], HelperEnvironment::default());
    assert_eq!(shown(&resolver.lookup("r.io", None).await.unwrap()), "u:p");
}

#[tokio::test]
async fn a_broken_entry_is_named_without_its_value() {
    let document = Document::parse("config.json", br#"{"auths":{"r.io":{"auth":"c2VjcmV0"}}}"#).unwrap();
    let resolver = Resolver::new(vec![document], HelperEnvironment::default());
    let message = resolver.lookup("r.io", None).await.unwrap_err().to_string();
    assert_eq!(message, "the `auth` value for `r.io` in `config.json` is not base64 of `user:password`");
    assert!(!format!("{resolver:?}").contains("c2VjcmV0"));
    assert!(Document::parse("x", b"[").is_err());
}

#[cfg(unix)]
mod helpers {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;
    use std::time::{Duration, Instant};

    fn install(directory: &Path, name: &str, script: &str) {
        let path = directory.join(format!("docker-credential-{name}"));
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn resolver(directory: &Path, json: &str, timeout: Duration) -> Resolver {
        let path = std::env::join_paths([directory, Path::new("/usr/bin"), Path::new("/bin")]).unwrap();
        let variables =
            vec![("PATH".into(), path.clone()), ("HOME".into(), directory.as_os_str().to_owned())];
        let environment = HelperEnvironment { path, variables, timeout };
        Resolver::new(vec![Document::parse("config.json", json.as_bytes()).unwrap()], environment)
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_helper_is_asked_once_in_five_minutes() {
        let home = tempfile::tempdir().unwrap();
        install(
            home.path(),
            "fake",
            r#"read -r s; echo "$s $1" >> $HOME/asked; echo "{\"Username\":\"u\",\"Secret\":\"$s\"}""#,
        );
        let json = r#"{"credsStore":"fake","auths":{"r.io":{}}}"#;
        let resolver = resolver(home.path(), json, LONG);
        for _ in 0..2 {
            let found = resolver.find("r.io", Some("a")).await.unwrap();
            assert_eq!(shown(&found.credential), "u:r.io");
            assert_eq!(found.origin.as_deref(), Some("docker-credential-fake"));
        }
        assert_eq!(
            shown(&resolver.lookup("docker.io", None).await.unwrap()),
            "u:https://index.docker.io/v1/"
        );
        resolver.forget().await;
        resolver.lookup("r.io", None).await.unwrap();
        let asked = std::fs::read_to_string(home.path().join("asked")).unwrap();
        assert_eq!(asked, "r.io get\nhttps://index.docker.io/v1/ get\nr.io get\n");
    }

    #[rstest]
    #[case::token(r#"echo '{"Username":"<token>","Secret":"t"}'"#, "identity t")]
    #[case::unknown("echo 'credentials not found in native keychain'; exit 1", "anonymous")]
    #[case::empty(r#"echo '{"Username":"","Secret":""}'"#, "anonymous")]
    #[tokio::test]
    async fn answers(#[case] script: &str, #[case] expected: &str) {
        let home = tempfile::tempdir().unwrap();
        install(home.path(), "fake", script);
        let resolver = resolver(home.path(), r#"{"credHelpers":{"r.io":"fake"}}"#, LONG);
        assert_eq!(shown(&resolver.lookup("r.io", None).await.unwrap()), expected);
    }

    #[rstest]
    #[case::says_no("echo 'pass not initialized'; exit 3", "exit status: 3: pass not initialized")]
    #[case::no_json("echo hello", "its answer is not the JSON that helpers give")]
    #[tokio::test]
    async fn failures(#[case] script: &str, #[case] expected: &str) {
        let home = tempfile::tempdir().unwrap();
        install(home.path(), "fake", script);
        let resolver = resolver(home.path(), r#"{"credHelpers":{"r.io":"fake"}}"#, LONG);
        let error = resolver.lookup("r.io", None).await.unwrap_err();
        let CredentialError::Helper { helper, source, .. } = &error else { panic!("{error}") };
        assert_eq!((helper.as_str(), source.to_string().as_str()), ("docker-credential-fake", expected));
    }

    #[tokio::test]
    async fn a_helper_that_hangs_is_ended() {
        let home = tempfile::tempdir().unwrap();
        install(home.path(), "fake", "exec sleep 600");
        let resolver =
            resolver(home.path(), r#"{"credHelpers":{"r.io":"fake"}}"#, Duration::from_millis(300));
        let started = Instant::now();
        let error = resolver.lookup("r.io", None).await.unwrap_err();
        assert!(matches!(&error, CredentialError::Helper { source: HelperError::Timeout(_), .. }), "{error}");
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[tokio::test]
    async fn a_missing_store_does_not_hide_an_entry() {
        let home = tempfile::tempdir().unwrap();
        let json = r#"{"credsStore":"desktop","auths":{"r.io":{"auth":"dTpw"}}}"#;
        let resolver = resolver(home.path(), json, LONG);
        assert_eq!(shown(&resolver.lookup("r.io", None).await.unwrap()), "u:p");
        let error = resolver.lookup("q.io", None).await.unwrap_err();
        assert!(matches!(&error, CredentialError::Helper { source: HelperError::Missing, .. }), "{error}");
    }

    #[tokio::test]
    async fn a_name_cannot_leave_the_path() {
        let home = tempfile::tempdir().unwrap();
        let resolver = resolver(home.path(), r#"{"credsStore":"../x"}"#, LONG);
        let error = resolver.lookup("r.io", None).await.unwrap_err();
        assert!(matches!(&error, CredentialError::Helper { source: HelperError::Name, .. }), "{error}");
    }
}
