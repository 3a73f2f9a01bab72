//! Tokens made up here: their signatures are for others to check.

use super::*;
use rstest::rstest;

fn token(claims: &str) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", part(r#"{"alg":"ES256"}"#), part(claims), part("signature"))
}

const NOW: i64 = 1_800_000_000;

fn now() -> jiff::Timestamp {
    jiff::Timestamp::from_second(NOW).unwrap()
}

fn check(claims: &str) -> Result<IdentityToken, IdentityError> {
    let token = IdentityToken::parse(&token(claims), "the test")?;
    token.check("the test", AUDIENCE, now()).map(|()| token)
}

#[test]
fn every_ci_systems_claims_are_understood() {
    let email = check(
        r#"{"iss":"https://i","aud":"sigstore","sub":"123","email":"dev@example.com","exp":1800000060}"#,
    );
    assert_eq!(email.unwrap().subject, "dev@example.com");
    let account = r#"{"iss":"https://i","aud":["x","sigstore"],"sub":"system:serviceaccount:a:b","exp":1800000060.5,"nbf":1799999999}"#;
    let account = check(account).unwrap();
    assert_eq!((account.subject.as_str(), account.audiences.len()), ("system:serviceaccount:a:b", 2));
}

#[rstest]
#[case(r#"{"iss":"i","aud":"sigstore","sub":"s","exp":1799999700}"#, "expired 5 min ago")]
#[case(r#"{"iss":"i","aud":["a","b"],"sub":"s","exp":1800000060}"#, "is for `a`, `b`, not for `sigstore`")]
#[case(r#"{"iss":"i","aud":"sigstore","sub":"s","exp":1800000060,"nbf":1800000600}"#, "not valid before")]
#[case(r#"{"iss":"i","aud":"sigstore","sub":"s"}"#, "no identity token")]
#[case("[]", "no identity token")]
fn what_is_wrong_is_said(#[case] claims: &str, #[case] expected: &str) {
    let error = check(claims).unwrap_err().to_string();
    assert!(error.contains(expected) && error.contains("the test"), "{error}");
}

#[test]
fn no_message_holds_the_token() {
    let text = token(r#"{"iss":"i","aud":"other","sub":"s","exp":1}"#);
    let parsed = IdentityToken::parse(&format!(" {text}\n"), "the test").unwrap();
    assert_eq!(parsed.expose(), text);
    let error = parsed.check("the test", AUDIENCE, now()).unwrap_err();
    for part in text.split('.') {
        assert!(!format!("{parsed:?} {error} {error:?}").contains(part));
        let cut = IdentityToken::parse(&text.replacen('.', "", 1), "the test").unwrap_err();
        assert!(!format!("{cut} {cut:?}").contains(part));
    }
}

#[tokio::test]
async fn a_file_is_read_each_time() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let source = TokenFile::new(file.path());
    for subject in ["one", "two"] {
        let claims = format!(r#"{{"iss":"i","aud":"sigstore","sub":"{subject}","exp":1800000060}}"#);
        std::fs::write(file.path(), token(&claims) + "\n").unwrap();
        assert_eq!(source.token().await.unwrap().subject, subject);
    }
    let gone = TokenFile::new("/no/such/token").token().await.unwrap_err();
    assert!(gone.to_string().contains("/no/such/token"), "{gone}");
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text: String, claims: String) {
        let _either_way = IdentityToken::parse(&text, "");
        let _either_way = IdentityToken::parse(&token(&claims), "");
    }
}
