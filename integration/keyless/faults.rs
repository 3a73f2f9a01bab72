//! Services that fail: real ones never do on demand, so these are fakes in front of the real ones.

use crate::bench::{Bench, Image, leaks_nothing};
use crate::seen::Seen;
use crate::tool::{Ran, run};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// What a fake does with what it is asked for; the rest goes to the real service.
#[derive(Clone, Copy)]
enum Fault {
    /// Answers this status with this body.
    Answer(u16, &'static str),
    /// Answers with the beginning of JSON and ends the connection.
    Truncated,
    /// Answers with more than anybody reads.
    Endless,
}

/// A fake service on loopback that has a fault where `at` stands in the request, and passes everything else on.
fn fake(real: &str, at: &'static str, fault: Fault) -> String {
    let real = real.trim_start_matches("http://").split('/').next().expect("a host").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let real = real.clone();
            std::thread::spawn(move || serve(client, &real, at, fault));
        }
    });
    format!("http://{address}")
}

fn serve(mut client: TcpStream, real: &str, at: &str, fault: Fault) {
    let mut request = Vec::new();
    let mut buffer = [0; 16 * 1024];
    // One request on each connection: head, then as much body as it says.
    let (head, length) = loop {
        let Ok(read @ 1..) = client.read(&mut buffer) else { return };
        request.extend_from_slice(&buffer[..read]);
        let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&request[..end]).to_lowercase();
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        break (end + 4, length);
    };
    while request.len() < head + length {
        let Ok(read @ 1..) = client.read(&mut buffer) else { return };
        request.extend_from_slice(&buffer[..read]);
    }
    let first = String::from_utf8_lossy(&request[..head]).lines().next().unwrap_or_default().to_owned();
    if first.contains(at) {
        let _gone = match fault {
            Fault::Answer(status, body) => write!(
                client,
                "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            ),
            Fault::Truncated => {
                write!(client, "HTTP/1.1 201 X\r\nContent-Length: 4000\r\n\r\n{{\"logIndex\":\"1")
            }
            Fault::Endless => {
                let _started = write!(client, "HTTP/1.1 201 X\r\nContent-Length: 104857600\r\n\r\n");
                let chunk = vec![b'['; 1 << 16];
                while client.write_all(&chunk).is_ok() {}
                Ok(())
            }
        };
        return;
    }
    let text = String::from_utf8_lossy(&request[..head]).into_owned();
    let lines = text.trim_end().lines().filter(|line| !line.to_lowercase().starts_with("connection:"));
    let passed = lines.collect::<Vec<_>>().join("\r\n") + "\r\nConnection: close\r\n\r\n";
    let Ok(mut service) = TcpStream::connect(real) else { return };
    if service.write_all(passed.as_bytes()).and_then(|()| service.write_all(&request[head..])).is_ok() {
        let _gone = std::io::copy(&mut service, &mut client);
    }
}

/// Signs with one service replaced.
fn sign_with(bench: &Bench, image: &Image, flag: &str, url: &str) -> (Ran, String) {
    let mut flags = bench.service_flags();
    let at = flags.iter().position(|name| name == flag).expect("a flag") + 1;
    flags[at] = url.to_owned();
    let tag = format!("{}:signed", image.repository);
    let token = bench.cluster_token("default", "default", "sigstore");
    let path = bench.tool.file("token", &token);
    let more = ["--identity-token", path.to_str().expect("UTF-8"), "--tag", &tag, "-vv"];
    let ran = run(bench.sign(image, &flags, &more));
    leaks_nothing(&ran, &[&token]);
    (ran, tag)
}

fn tags(bench: &Bench, image: &Image) -> Vec<String> {
    Seen::plain(&bench.rig).tags(image.repository.split_once('/').expect("a name").1)
}

/// Nobody there, or somebody who says no: known before anything is signed.
#[test]
#[ignore = "needs the rig"]
fn a_service_that_is_down_is_told_before_anything_starts() {
    let bench = Bench::new("default", "REGISTRY");
    let image = bench.image();
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    for (flag, name) in [
        ("--fulcio-url", "the certificate authority"),
        ("--rekor-url", "the transparency log"),
        ("--timestamp-server-url", "the timestamp authority"),
    ] {
        let started = Instant::now();
        let (ran, _) = sign_with(&bench, &image, flag, &format!("http://{closed}"));
        ran.fails(1, &[name, &closed.to_string()]);
        assert!(started.elapsed() < Duration::from_secs(30), "{flag} took {:?}", started.elapsed());
    }
    assert_eq!(tags(&bench, &image), ["base"], "something was written");
}

/// What fails only after the push leaves no tag, says what to run, and that line finishes the job.
#[test]
#[ignore = "needs the rig"]
fn a_service_that_fails_later_leaves_no_tag_and_a_line_that_finishes() {
    let bench = Bench::new("default", "REGISTRY");
    let (fulcio, rekor) = (bench.services.get("FULCIO_URL"), bench.services.get("REKOR_URL"));
    let certificate = "POST /api/v2/signingCert";
    let entry = "POST /api/v2/log/entries";
    for (flag, real, at, fault, told) in [
        ("--fulcio-url", fulcio, certificate, Fault::Answer(503, ""), "answered 503"),
        ("--fulcio-url", fulcio, certificate, Fault::Answer(429, ""), "answered 429"),
        ("--fulcio-url", fulcio, certificate, Fault::Answer(200, "<html>"), "is not the JSON"),
        ("--fulcio-url", fulcio, certificate, Fault::Endless, "more than"),
        (
            "--rekor-url",
            rekor,
            entry,
            Fault::Answer(500, r#"{"code":13,"message":"no space left"}"#),
            "no space left",
        ),
        ("--rekor-url", rekor, entry, Fault::Truncated, "broke off"),
        ("--rekor-url", rekor, entry, Fault::Answer(201, r#"{"logIndex":"1"}"#), "is not a log entry"),
    ] {
        let image = bench.image();
        let url = fake(real, at, fault);
        let started = Instant::now();
        let (ran, tag) = sign_with(&bench, &image, flag, &url);
        let said = ran.fails(4, &[told, "was not moved", "finish with: "]);
        assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
        assert_eq!(tags(&bench, &image), ["base"], "{flag}: half of it was written");
        let line = said.lines().find_map(|line| line.split_once("finish with: ")).expect("a line").1;
        // The same line, once the service is back.
        let line = line.replace(&url, real).replace("kubectl buildkit", "kubectl-buildkit");
        bench.tool.shell(&line, &[]).ok();
        assert!(tags(&bench, &image).contains(&tag.rsplit_once(':').expect("a tag").1.to_owned()));
    }
}

/// A key's signature goes without the log where that was asked for, and says so.
#[test]
#[ignore = "needs the rig"]
fn a_log_that_fails_is_done_without_where_that_was_asked_for() {
    let bench = Bench::new("default", "REGISTRY");
    let (key, _) = bench.tool.key_pair("k", "");
    let image = bench.image();
    let rekor = fake(bench.services.get("REKOR_URL"), "POST /api/v2/log/entries", Fault::Answer(400, "{}"));
    let more = ["--cosign-key", key.to_str().expect("UTF-8"), "--rekor-url", &rekor];
    let with = |how: &[&str]| {
        let mut command = bench.sign(&image, &[], &[&more, how].concat());
        command.env("COSIGN_PASSWORD", "");
        run(command)
    };
    with(&[]).fails(4, &["answered 400"]);
    let ran = with(&["--rekor=best-effort"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("is not in the log"), "{}", ran.stderr);
    bench.verifies(&ran, "cosign 3");
}
