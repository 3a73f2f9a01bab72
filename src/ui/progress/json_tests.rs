use super::super::ProgressOptions;
use super::super::plain::Plain;
use super::super::testing::{
    cached, count, counted, done, failed, ms, output, pending, play, running, step, warning,
};
use super::*;
use insta::assert_snapshot;
use serde_json::Value;
use std::time::Duration;

fn a_build() -> Vec<Event> {
    vec![
        Event::Note("found builder".into()),
        pending("sha256:aa"),
        running("sha256:aa", 0),
        count("sha256:aa", "transferring context:", (10, Some(2_000_000)), 10),
        counted("sha256:aa", "transferring context:", (2_000_000, Some(2_000_000)), 1210),
        done("sha256:aa", 1500),
        cached("sha256:bb", 1600),
        running("sha256:cc", 1600),
        warning("sha256:cc", "R: x", Some("Dockerfile:3")),
        warning("sha256:cc", "R: x", Some("Dockerfile:3")),
        output("sha256:cc", "half a li", 1700),
        output("sha256:cc", "ne\né\n", 1800),
        failed("sha256:cc", "exit code: 1", 1900),
        running("client:push", 1900),
        step("client:push", StepState::Cancelled, 1950),
    ]
}

fn lines() -> String {
    play(&mut Json::new(), a_build(), 2000).0
}

#[test]
fn every_event_is_a_line_in_buildkits_form() {
    assert_snapshot!(lines(), @r#"
    {"vertexes":[{"digest":"sha256:75816817096d6329ac393ad20fbdc7cbc7b838677f271cd59bb35917a82e5282","name":"found builder","started":"2023-11-14T22:13:20Z","completed":"2023-11-14T22:13:20Z"}]}
    {"vertexes":[{"digest":"sha256:aa","name":"sha256:aa"}]}
    {"vertexes":[{"digest":"sha256:aa","name":"sha256:aa","started":"2023-11-14T22:13:20Z"}]}
    {"statuses":[{"id":"transferring context:","vertex":"sha256:aa","total":2000000,"current":10,"timestamp":"2023-11-14T22:13:20.01Z","started":"2023-11-14T22:13:20.01Z"}]}
    {"statuses":[{"id":"transferring context:","vertex":"sha256:aa","total":2000000,"current":2000000,"timestamp":"2023-11-14T22:13:21.21Z","started":"2023-11-14T22:13:20.01Z","completed":"2023-11-14T22:13:21.21Z"}]}
    {"vertexes":[{"digest":"sha256:aa","name":"sha256:aa","started":"2023-11-14T22:13:20Z","completed":"2023-11-14T22:13:21.5Z"}]}
    {"vertexes":[{"digest":"sha256:bb","name":"sha256:bb","started":"2023-11-14T22:13:21.6Z","completed":"2023-11-14T22:13:21.6Z","cached":true}]}
    {"vertexes":[{"digest":"sha256:cc","name":"sha256:cc","started":"2023-11-14T22:13:21.6Z"}]}
    {"warnings":[{"vertex":"sha256:cc","level":1,"short":"UjogeCAoRG9ja2VyZmlsZTozKQ==","detail":["TW9yZSBhYm91dCBpdA=="],"url":"https://docs.docker.com/go/dockerfile/rule/"}]}
    {"logs":[{"vertex":"sha256:cc","stream":1,"data":"aGFsZiBhIGxp","timestamp":"2023-11-14T22:13:21.7Z"}]}
    {"logs":[{"vertex":"sha256:cc","stream":1,"data":"bmUKw6kK","timestamp":"2023-11-14T22:13:21.8Z"}]}
    {"vertexes":[{"digest":"sha256:cc","name":"sha256:cc","started":"2023-11-14T22:13:21.6Z","completed":"2023-11-14T22:13:21.9Z","error":"exit code: 1"}]}
    {"vertexes":[{"digest":"sha256:d50fd329722a9d1f5f73a7da6662b91b7f46611bbaace502f8eaba7fe951fbd4","name":"client:push","started":"2023-11-14T22:13:21.9Z"}]}
    {"vertexes":[{"digest":"sha256:d50fd329722a9d1f5f73a7da6662b91b7f46611bbaace502f8eaba7fe951fbd4","name":"client:push","started":"2023-11-14T22:13:21.9Z","completed":"2023-11-14T22:13:21.95Z","error":"context canceled"}]}
    "#);
}

/// Reads back what a `SolveStatus` says, as a consumer of rawjson would.
fn events(line: &str) -> Vec<Event> {
    let status: Value = serde_json::from_str(line).unwrap();
    let list = |name: &str| status[name].as_array().cloned().unwrap_or_default();
    let id = |value: &Value| StepId(value.as_str().unwrap().to_owned());
    let time = |value: &Value| {
        let at: jiff::Timestamp = value.as_str()?.parse().ok()?;
        Some(SystemTime::UNIX_EPOCH + Duration::try_from(at.as_duration()).unwrap())
    };
    let bytes = |value: &Value| BASE64_STANDARD.decode(value.as_str().unwrap()).unwrap();
    let text = |value: &Value| String::from_utf8(bytes(value)).unwrap();
    let mut events = Vec::new();
    for vertex in list("vertexes") {
        let mut add = |state, at| {
            let name = vertex["name"].as_str().unwrap_or_default().to_owned();
            events.push(Event::Step { id: id(&vertex["digest"]), name, state, at });
        };
        match (time(&vertex["started"]), time(&vertex["completed"]), vertex["error"].as_str()) {
            (None, ..) => add(StepState::Pending, SystemTime::UNIX_EPOCH),
            (Some(started), None, _) => add(StepState::Running, started),
            (Some(started), Some(completed), error) => {
                add(StepState::Running, started);
                let cached = vertex["cached"] == true;
                let state =
                    error.map_or(StepState::Done { cached }, |error| StepState::Failed(error.to_owned()));
                add(state, completed);
            }
        }
    }
    events.extend(list("statuses").iter().map(|status| Event::Counter {
        id: id(&status["vertex"]),
        item: status["id"].as_str().unwrap().to_owned(),
        done: status["current"].as_u64().unwrap(),
        total: status["total"].as_u64(),
        finished: status["completed"].is_string(),
        at: time(&status["timestamp"]).unwrap(),
    }));
    events.extend(list("logs").iter().map(|log| Event::Output {
        id: id(&log["vertex"]),
        stream: if log["stream"] == 2 { Stream::Stderr } else { Stream::Stdout },
        bytes: bytes(&log["data"]).into(),
        at: time(&log["timestamp"]).unwrap(),
    }));
    events.extend(list("warnings").iter().map(|warning| Event::Warning {
        id: id(&warning["vertex"]),
        warning: Warning {
            short: text(&warning["short"]),
            detail: warning["detail"].as_array().unwrap().iter().map(text).collect(),
            url: warning["url"].as_str().unwrap().to_owned(),
            location: None,
        },
    }));
    events
}

#[test]
fn a_recorded_build_can_be_played_again() {
    let replayed = lines().lines().flat_map(events).collect::<Vec<_>>();
    let again = play(&mut Plain::new(ProgressOptions::default()), replayed, 2000).0;
    assert_snapshot!(again, @"
    #1 found builder
    #1 DONE 0.0s

    #2 sha256:aa
    #2 transferring context: 10B / 2.00MB
    #2 transferring context: 2.00MB / 2.00MB 1.2s done
    #2 DONE 1.5s

    #3 sha256:bb
    #3 CACHED

    #4 sha256:cc
    #4 WARN: R: x (Dockerfile:3)
    #4 0.100 half a line
    #4 0.200 é
    #4 ERROR: exit code: 1

    #5 client:push
    #5 CANCELED

     1 warning found:
     - R: x (Dockerfile:3)
    ");
}

/// What `buildctl build --progress rawjson` of BuildKit 0.33.1 wrote of a build whose last step fails.
const RECORDED: &str = include_str!("../../../integration/fixtures/progress/buildctl-0.33.1.rawjson");

/// Returns the recorded build's events as if it had begun at zero.
fn recorded() -> Vec<Event> {
    let mut events: Vec<_> = RECORDED.lines().flat_map(events).collect();
    let began = events.iter().find_map(|event| match event {
        Event::Step { state: StepState::Running, at, .. } => Some(*at),
        _ => None,
    });
    let began = began.expect("something started");
    for event in &mut events {
        if let Event::Step { at, .. } | Event::Counter { at, .. } | Event::Output { at, .. } = event {
            *at = ms(0) + at.duration_since(began).unwrap_or_default();
        }
    }
    events
}

#[test]
fn a_build_that_buildctl_recorded_reads_as_buildctl_tells_it() {
    let plain = play(&mut Plain::new(ProgressOptions::default()), recorded(), 6000).0;
    assert_snapshot!(plain, @r#"
    #1 [internal] load build definition from Dockerfile
    #1 transferring dockerfile: 466B done
    #1 WARN: FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)
    #1 DONE 0.0s

    #2 [internal] load .dockerignore
    #2 transferring context: 2B done
    #2 DONE 0.0s

    #3 [internal] load build context
    #3 transferring context: 2.20MB 0.1s done
    #3 DONE 0.1s

    #4 [base 1/4] COPY lib /lib
    #4 DONE 0.0s

    #5 [base 2/4] COPY lib64 /lib64
    #5 DONE 0.0s

    #6 [base 3/4] COPY busybox /bin/sh
    #6 DONE 0.1s

    #7 [base 4/4] COPY busybox /bin/busybox
    #7 DONE 0.1s

    #8 [one 1/1] RUN busybox echo hello; busybox sleep 1; busybox printf 'half a '; busybox sleep 1; busybox echo line
    #8 0.368 hello
    #8 1.376 half a line
    #8 DONE 2.4s

    #9 [two 1/1] RUN for i in 1 2 3 4; do busybox echo two $i; busybox sleep 1; done
    #9 0.362 two 1
    #9 1.364 two 2
    #9 2.368 two 3
    #9 ...

    #10 [stage-3 1/4] COPY --from=one /bin/sh /one
    #10 DONE 0.1s

    #9 [two 1/1] RUN for i in 1 2 3 4; do busybox echo two $i; busybox sleep 1; done
    #9 3.374 two 4
    #9 DONE 4.4s

    #11 [stage-3 2/4] COPY --from=two /bin/sh /two
    #11 DONE 0.0s

    #12 [stage-3 3/4] COPY blob /blob
    #12 DONE 0.1s

    #13 [stage-3 4/4] RUN busybox echo to stderr >&2; exit 3
    #13 0.194 to stderr
    #13 ERROR: process "/bin/sh -c busybox echo to stderr >&2; exit 3" did not complete successfully: exit code: 3

     1 warning found:
     - FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)
    "#);
}

#[test]
fn what_buildctl_recorded_survives_our_form_of_it() {
    let ours = play(&mut Json::new(), recorded(), 6000).0;
    let again: Vec<_> = ours.lines().flat_map(events).collect();
    let plain = |events| play(&mut Plain::new(ProgressOptions::default()), events, 6000).0;
    assert_eq!(plain(again), plain(recorded()));
}

#[test]
fn ids_of_ours_are_digests_too() {
    let digest = as_digest(&StepId::client("push"));
    assert_eq!(digest.len(), "sha256:".len() + 64);
    assert_ne!(digest, as_digest(&StepId::client("sign")));
    assert_eq!(as_digest(&StepId("sha256:aa".into())), "sha256:aa");
}

#[test]
fn times_are_gos() {
    assert_eq!(rfc3339(ms(0)), "2023-11-14T22:13:20Z");
    assert_eq!(rfc3339(ms(1500)), "2023-11-14T22:13:21.5Z");
}
