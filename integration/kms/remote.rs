//! PEM keys behind a URL and in a fake of GitLab's CI variables.

use crate::fake_cloud::{FakeCloud, GITLAB_TOKEN};
use crate::support::Bench;
use crate::tls::{Certificate, TlsFront};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the rig"]
async fn cosigns_own_key_signs_from_a_url_and_from_a_fake_gitlab() {
    let cloud = FakeCloud::start().await;
    let mut bench = Bench::new(&[("COSIGN_PASSWORD", "secret-of-the-key")]);
    bench.shell("cosign 3", "cosign generate-key-pair").ok();
    let key = std::fs::read_to_string(bench.home().join("cosign.key")).unwrap();
    cloud.put("/team/cosign.key", &key);
    let url = format!("http://user:hidden@{}/team/cosign.key?signature=hidden", cloud.host);
    let image = bench.image("url").await;
    bench.sign(&image, &url).ok().never_says(&["hidden", "secret-of-the-key"]);
    bench.accept(&image, "cosign.pub");
    let absent = format!("http://{}/absent.key", cloud.host);
    bench.sign(&image, &absent).fails(1, &["cannot be read", "404"]);

    bench.unset("COSIGN_PASSWORD");
    bench.set("GITLAB_HOST", &format!("http://{}", cloud.host));
    let image = bench.image("gitlab").await;
    bench.sign(&image, "gitlab://group/project").fails(2, &["GITLAB_TOKEN is not set"]);
    bench.set("GITLAB_TOKEN", "wrong");
    bench.sign(&image, "gitlab://group/project").fails(1, &["GitLab", "GITLAB_TOKEN is not valid"]);
    bench.set("GITLAB_TOKEN", GITLAB_TOKEN);
    bench.sign(&image, "gitlab://group/project").fails(1, &["no such project or variable"]);
    let variable = |name: &str| format!("/api/v4/projects/group%2Fproject/variables/{name}");
    cloud.put(&variable("COSIGN_PRIVATE_KEY"), &key);
    bench.sign(&image, "gitlab://group/project").fails(2, &["there is no password for it"]);
    cloud.put(&variable("COSIGN_PASSWORD"), "secret-of-the-key");
    bench.sign(&image, "gitlab://group/project").ok().never_says(&[GITLAB_TOKEN, "secret-of-the-key"]);
    bench.accept(&image, "cosign.pub");
    let public = std::fs::read_to_string(bench.home().join("cosign.pub")).unwrap();
    cloud.put(&variable("COSIGN_PUBLIC_KEY"), &public);
    bench.verify(&image, "gitlab://group/project").ok().never_says(&[GITLAB_TOKEN]);
    cloud.put("/public.key", &public);
    bench.verify(&image, &format!("http://{}/public.key", cloud.host)).ok();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the rig"]
async fn a_key_behind_tls_signs_and_verifies_where_its_server_is_trusted() {
    let cloud = FakeCloud::start().await;
    let certificate = Certificate::from_authority("127.0.0.1");
    let front = TlsFront::start(&certificate, &cloud.host).await;
    let mut bench = Bench::new(&[("COSIGN_PASSWORD", "secret-of-the-key")]);
    bench.shell("cosign 3", "cosign generate-key-pair").ok();
    for (file, name) in [("cosign.key", "cosign.key"), ("cosign.pub", "public.key")] {
        cloud.put(&format!("/team/{name}"), &std::fs::read_to_string(bench.home().join(file)).unwrap());
    }
    let at = |name: &str| format!("https://user:hidden@{}/team/{name}?signature=hidden", front.host());
    let secrets = ["hidden", "secret-of-the-key"];
    let image = bench.image("tls").await;
    let untrusted = ["cannot be read", "cannot be reached", "certificate"];
    bench.sign(&image, &at("cosign.key")).fails(1, &untrusted).never_says(&secrets);
    assert!(!bench.is_signed(&image).await);
    let authority = bench.file("ca.pem", &certificate.authority_pem);
    bench.set("SSL_CERT_FILE", &authority);
    bench.sign(&image, &at("cosign.key")).ok().never_says(&secrets);
    bench.accept(&image, "cosign.pub");
    bench.verify(&image, &at("public.key")).ok().never_says(&secrets);
    assert!(front.accepted() > 0);
}
