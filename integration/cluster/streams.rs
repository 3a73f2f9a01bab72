use super::Bench;
use kubectl_build::cluster::builder;
use kubectl_build::cluster::exec::{self, Command, DialError, ExecEnd};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const MEGABYTE: usize = 1 << 20;

fn command(bench: &Bench, builder: &builder::Builder, words: &[&str]) -> Command {
    Command {
        pod: builder.pod.name.clone(),
        namespace: bench.namespace.name().to_owned(),
        container: builder.container.clone(),
        command: words.iter().map(|word| (*word).to_owned()).collect(),
    }
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn processes_end_as_they_end() {
    let bench = Bench::new("ends").await;
    let builder = builder::ensure(&bench.connection, &bench.spec(), "", &bench.events).await.unwrap();
    let run = async |words: &[&str]| {
        exec::run(&bench.connection, &command(&bench, &builder, words), Duration::from_secs(20)).await
    };

    let output = run(&["sh", "-c", "echo out; echo err >&2"]).await.unwrap();
    assert_eq!((output.stdout.as_slice(), output.diagnosis.stderr.as_str()), (&b"out\n"[..], "err\n"));
    assert_eq!(output.diagnosis.end, Some(ExecEnd::Exited { code: 0 }));

    let output = run(&["sh", "-c", "exit 7"]).await.unwrap();
    assert_eq!(output.diagnosis.end, Some(ExecEnd::Exited { code: 7 }));

    let output = run(&["/no/such/program"]).await.unwrap();
    assert!(matches!(&output.diagnosis.end, Some(end) if !end.is_success()), "{:?}", output.diagnosis);

    let absent = Command { pod: "no-such-pod".to_owned(), ..command(&bench, &builder, &["true"]) };
    let began = Instant::now();
    let error = exec::dial(&bench.connection, &absent).await.unwrap_err();
    assert!(matches!(error, DialError::Api { .. }), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(2), "what is not there is not dialled again");
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn stdin_closes_alone() {
    let bench = Bench::new("half").await;
    let builder = builder::ensure(&bench.connection, &bench.spec(), "", &bench.events).await.unwrap();
    let words = ["sh", "-c", "wc -c; sleep 1; echo after"];
    let mut stream = exec::dial(&bench.connection, &command(&bench, &builder, &words)).await.unwrap();
    stream.write_all(&vec![1; 3 * MEGABYTE]).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text.split_whitespace().collect::<Vec<_>>(), [(3 * MEGABYTE).to_string().as_str(), "after"]);
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn the_daemon_greets_through_dial_stdio() {
    let bench = Bench::new("greets").await;
    let builder = builder::ensure(&bench.connection, &bench.spec(), "", &bench.events).await.unwrap();
    let dial = command(&bench, &builder, &["buildctl", "dial-stdio"]);
    let stream = exec::converse(&bench.connection, &dial, std::future::ready).await.unwrap();
    let handle = stream.handle();
    assert_eq!(stream.diagnosis().end, None);
    // The daemon dies under it: the stream ends, it does not hang.
    bench.namespace.kubectl(&["delete", "pod", &builder.pod.name, "--wait=false", "--grace-period=1"]);
    let end =
        tokio::time::timeout(Duration::from_secs(15), handle.ended()).await.expect("it is noticed in time");
    assert!(
        matches!(
            end,
            ExecEnd::Exited { .. } | ExecEnd::Closed { .. } | ExecEnd::Failed { .. } | ExecEnd::Cut { .. }
        ),
        "{end:?}"
    );

    let wrong = command(&bench, &builder, &["buildctl", "--addr", "unix:///none", "dial-stdio"]);
    let next = builder::ensure(&bench.connection, &bench.spec(), "", &bench.events).await.unwrap();
    let wrong = Command { pod: next.pod.name, ..wrong };
    let error = exec::converse(&bench.connection, &wrong, std::future::ready).await.unwrap_err();
    let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    assert!(matches!(error, DialError::Ended { .. }) && source.contains("/none"), "{error:?}");
}

/// Both directions and both at once, against `kubectl exec` in the same minute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a cluster"]
async fn streams_are_as_fast_as_kubectls() {
    const SIZE: usize = 96 * MEGABYTE;
    let bench = Bench::new("speed").await;
    let builder = builder::ensure(&bench.connection, &bench.spec(), "", &bench.events).await.unwrap();
    let count = format!("head -c {SIZE} /dev/zero");

    let peer = |arguments: &[&str], input: bool| {
        let pod = builder.pod.name.as_str();
        let mut kubectl = bench.rig.command(bench.rig.peer("kubectl"));
        kubectl.args(["-n", bench.namespace.name(), "exec", "-i", pod, "--"]).args(arguments);
        kubectl.stdout(Stdio::null());
        let began = Instant::now();
        if input {
            let mut zeros = std::process::Command::new("head")
                .args(["-c", &SIZE.to_string(), "/dev/zero"])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            kubectl.stdin(zeros.stdout.take().unwrap());
            assert!(kubectl.status().unwrap().success());
            // The command holds the reading end; without it `head` ends whatever came of kubectl.
            drop(kubectl);
            assert!(zeros.wait().unwrap().success(), "kubectl took all of it");
        } else {
            assert!(kubectl.stdin(Stdio::null()).status().unwrap().success());
        }
        began.elapsed()
    };
    let (peer_in, peer_out) = (peer(&["wc", "-c"], true), peer(&["sh", "-c", &count], false));

    let block = vec![0; 64 * 1024];
    let mut buffer = vec![0; 64 * 1024];
    let dial = async |script: &str| {
        exec::dial(&bench.connection, &command(&bench, &builder, &["sh", "-c", script])).await.unwrap()
    };

    let began = Instant::now();
    let mut stream = dial("wc -c").await;
    for _ in 0..SIZE / block.len() {
        stream.write_all(&block).await.unwrap();
    }
    stream.shutdown().await.unwrap();
    let mut counted = String::new();
    stream.read_to_string(&mut counted).await.unwrap();
    assert_eq!(counted.trim(), SIZE.to_string());
    let ours_in = began.elapsed();

    let began = Instant::now();
    let mut stream = dial(&count).await;
    let mut total = 0;
    loop {
        match stream.read(&mut buffer).await.unwrap() {
            0 => break,
            length => total += length,
        }
    }
    let ours_out = began.elapsed();
    assert_eq!(total, SIZE);

    let began = Instant::now();
    let (mut reader, mut writer) = tokio::io::split(dial("dd bs=65536").await);
    let write = async {
        for _ in 0..SIZE / block.len() {
            writer.write_all(&block).await.unwrap();
        }
        writer.shutdown().await.unwrap();
    };
    let read = async {
        let mut total = 0;
        loop {
            match reader.read(&mut buffer).await.unwrap() {
                0 => break total,
                length => total += length,
            }
        }
    };
    let ((), echoed) =
        tokio::time::timeout(Duration::from_secs(120), async { tokio::join!(write, read) }).await.unwrap();
    let both = began.elapsed();
    assert_eq!(echoed, SIZE);

    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let rate = |took: Duration| (SIZE / MEGABYTE) as f64 / took.as_secs_f64();
    let figures = format!(
        "MiB/s in: {:.0} (kubectl {:.0}), out: {:.0} (kubectl {:.0}), echo: {:.0}",
        rate(ours_in),
        rate(peer_in),
        rate(ours_out),
        rate(peer_out),
        rate(both)
    );
    #[expect(clippy::print_stderr, reason = "the figures are what one runs this for")]
    {
        eprintln!("{figures}");
    }
    // Noisy machines: half of the peer's speed would be a fault of ours, less than that much is noise.
    assert!(ours_in < peer_in * 2 && ours_out < peer_out * 2, "{figures}");
}
