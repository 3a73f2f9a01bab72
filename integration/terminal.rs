//! Progress and prompts on a real (pseudo-)terminal: what is on the screen at the end, and in which state the
//! terminal is left on every way out. The test runs itself as the program on the terminal, hence no harness.
//!
//! `cargo test --test terminal -- --child build` shows the display on the terminal at hand.

#![expect(clippy::print_stdout, reason = "a test without harness reports for itself")]

use kubectl_build::event::{Event, Events, StepId, StepState, Stream};
use kubectl_build::ui::colours::Palette;
use kubectl_build::ui::progress::{self, Display, Mode, ProgressOptions};
use kubectl_build::ui::{prompt, terminal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant, SystemTime};

const ROWS: u16 = 24;
const COLUMNS: u16 = 80;
/// Machines that test are slow; nothing here takes a second where all is well.
const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, role] = args.as_slice()
        && flag == "--child"
    {
        return child(role);
    }
    let tests: [(&str, fn()); 9] = [
        ("a_build_that_ends", a_build_that_ends),
        ("an_interrupted_build", an_interrupted_build),
        ("a_second_ctrl_c", a_second_ctrl_c),
        ("a_panic", a_panic),
        ("a_signal_that_nobody_handles", a_signal_that_nobody_handles),
        ("a_terminal_that_takes_nothing", a_terminal_that_takes_nothing),
        ("a_password", a_password),
        ("an_interrupted_password", an_interrupted_password),
        ("a_password_that_nobody_waits_for", a_password_that_nobody_waits_for),
    ];
    // libtest's options come along with everyone else's; those with a value say it after `=`.
    let filters: Vec<_> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let (mut ran, mut failed) = (0, 0);
    for (name, test) in tests {
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter.as_str())) {
            continue;
        }
        let passed = std::panic::catch_unwind(test).is_ok();
        ran += 1;
        failed += usize::from(!passed);
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
    }
    println!("test result: {} passed; {failed} failed", ran - failed);
    // A filter that fits nothing is a mistake: nothing was tested.
    ExitCode::from(u8::from(failed > 0 || ran == 0))
}

fn a_build_that_ends() {
    let mut pty = Pty::run("build");
    assert_eq!(pty.wait(), Some(0));
    let lines = pty.lines();
    assert!(lines[0].contains("a note"), "{lines:#?}");
    assert!(lines[1].starts_with("[+] Building"), "{lines:#?}");
    assert!(lines[1].contains("(3/3) FINISHED"), "{lines:#?}");
    assert!(lines[1].ends_with("kubernetes:buildkit"), "{lines:#?}");
    assert!(lines.iter().any(|line| line.starts_with(" => [2/2] RUN make")), "{lines:#?}");
    assert_eq!(lines.iter().filter(|line| line.contains("Building")).count(), 1, "{lines:#?}");
    pty.assert_in_order();
}

fn an_interrupted_build() {
    let mut pty = Pty::run("forever");
    pty.until("the log", |screen| screen.contents().contains("=> => # line 9"));
    pty.type_in(b"\x03");
    assert_eq!(pty.wait(), Some(130));
    assert!(
        pty.lines().iter().any(|line| line.starts_with(" => CANCELED [2/2] RUN make")),
        "{:#?}",
        pty.lines()
    );
    pty.assert_in_order();
}

fn a_second_ctrl_c() {
    let mut pty = Pty::run("hasty");
    pty.until("the log", |screen| screen.contents().contains("=> => # line 9"));
    pty.type_in(b"\x03");
    assert_eq!(pty.wait(), Some(130));
    pty.assert_in_order();
}

fn a_panic() {
    let mut pty = Pty::run("panic");
    assert_eq!(pty.wait(), Some(101));
    assert!(pty.screen().contents().contains("a bug"), "the message is not drawn over: {:#?}", pty.lines());
    pty.assert_in_order();
}

fn a_signal_that_nobody_handles() {
    for _ in 0..5 {
        let mut pty = Pty::run("forever-deaf");
        pty.until("the log", |screen| screen.contents().contains("=> => # line 3"));
        let pid = Pid::from_child(&pty.child);
        kill_process(pid, Signal::KILL).unwrap();
        assert_eq!(pty.wait(), None);
        pty.assert_in_order();
    }
}

fn a_terminal_that_takes_nothing() {
    let mut pty = Pty::run("stuck");
    let began = Instant::now();
    // Nothing reads from the terminal until the program has gone.
    while pty.child.try_wait().unwrap().is_none() {
        assert!(began.elapsed() < PATIENCE, "the program waits for the terminal");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(pty.wait(), Some(7), "7 says that not everything could be written");
}

fn a_password() {
    let mut pty = Pty::run("password");
    pty.until("the question", |screen| screen.contents().contains("password for cosign.key: "));
    assert!(!pty.modes().local_modes.contains(LocalModes::ECHO));
    pty.type_in("s3crét\x7ft\n".as_bytes());
    assert_eq!(pty.wait(), Some(0));
    assert!(pty.screen().contents().contains("got 7 bytes"), "{:#?}", pty.lines());
    assert!(!pty.screen().contents().contains("s3cr"), "{:#?}", pty.lines());
    pty.assert_in_order();
}

fn an_interrupted_password() {
    let mut pty = Pty::run("password");
    pty.until("the question", |screen| screen.contents().contains("password for cosign.key: "));
    // Ctrl-Z would leave the shell with a terminal that shows nothing.
    pty.type_in(b"\x1a");
    pty.type_in(b"\x03");
    assert_eq!(pty.wait(), Some(130));
    assert!(pty.screen().contents().contains("interrupted while waiting"), "{:#?}", pty.lines());
    pty.assert_in_order();
}

fn a_password_that_nobody_waits_for() {
    let mut pty = Pty::run("password-late");
    assert_eq!(pty.wait(), Some(5));
    pty.assert_in_order();
}

/// A program on a terminal of its own.
struct Pty {
    master: File,
    // Keeps the terminal's modes after the program has gone.
    slave: File,
    child: Child,
    parser: vt100::Parser,
    bytes: Vec<u8>,
    before: Termios,
}

impl Pty {
    fn run(role: &str) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let size = Winsize { ws_row: ROWS, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave =
            rustix::fs::open(&name, rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY, 0.into()).unwrap();
        let slave = File::from(slave);
        let end = || slave.try_clone().unwrap();
        // Before the program starts, which may change them at once.
        let before = tcgetattr(&slave).unwrap();
        // util-linux's setsid makes the terminal the controlling one, which takes unsafe code from here.
        let child = Command::new("setsid")
            .arg("--ctty")
            .arg(std::env::current_exe().unwrap())
            .args(["--child", role])
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .expect("util-linux's setsid is there");
        let parser = vt100::Parser::new(ROWS, COLUMNS, 0);
        Self { master: File::from(master), slave, child, parser, bytes: Vec::new(), before }
    }

    fn screen(&self) -> &vt100::Screen {
        self.parser.screen()
    }

    fn lines(&self) -> Vec<String> {
        self.screen().contents().lines().map(|line| line.trim_end().to_owned()).collect()
    }

    fn modes(&self) -> Termios {
        tcgetattr(&self.slave).unwrap()
    }

    fn type_in(&mut self, keys: &[u8]) {
        self.master.write_all(keys).unwrap();
    }

    /// Reads what the terminal shows, waiting at most 50 ms for it; returns whether there was something.
    fn read(&mut self) -> bool {
        let wait = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        let ready = poll(&mut [PollFd::new(&self.master, PollFlags::IN)], Some(&wait)).unwrap();
        if ready == 0 {
            return false;
        }
        let mut chunk = [0; 4096];
        let read = self.master.read(&mut chunk).unwrap();
        self.parser.process(&chunk[..read]);
        self.bytes.extend_from_slice(&chunk[..read]);
        true
    }

    fn until(&mut self, what: &str, there: impl Fn(&vt100::Screen) -> bool) {
        let began = Instant::now();
        while !there(self.screen()) {
            assert!(began.elapsed() < PATIENCE, "{what} did not come: {:#?}", self.lines());
            self.read();
        }
    }

    /// Waits for the program to end and reads what it left; `None` for a signal.
    fn wait(&mut self) -> Option<i32> {
        let began = Instant::now();
        loop {
            let ended = self.child.try_wait().unwrap();
            while self.read() {}
            if let Some(status) = ended {
                return status.code();
            }
            if began.elapsed() > PATIENCE {
                self.child.kill().unwrap();
                panic!("the program did not end: {:#?}", self.lines());
            }
        }
    }

    /// Checks that the terminal is as a shell wants it.
    fn assert_in_order(&self) {
        assert!(!self.screen().hide_cursor(), "the cursor is there: {:#?}", self.lines());
        assert_eq!(self.screen().cursor_position().1, 0, "the prompt starts a line: {:#?}", self.lines());
        let text = String::from_utf8_lossy(&self.bytes);
        assert!(text.rfind("\x1b[?2026h") <= text.rfind("\x1b[?2026l"), "no frame is left half-drawn");
        let (before, after) = (&self.before, self.modes());
        assert_eq!(before.local_modes, after.local_modes);
        assert_eq!(before.input_modes, after.input_modes);
        assert_eq!(format!("{:?}", before.special_codes), format!("{:?}", after.special_codes));
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

// The program on the terminal.

fn child(role: &str) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let code = runtime.block_on(async {
        match role {
            "build" => build().await,
            "forever" => forever(Leave::Finish).await,
            "hasty" => forever(Leave::AtOnce).await,
            "forever-deaf" => forever(Leave::Never).await,
            "panic" => panicking().await,
            "stuck" => stuck().await,
            "password" => password().await,
            "password-late" => password_late().await,
            other => panic!("no role {other}"),
        }
    });
    // A thread that is stuck in a write would keep the runtime from ending.
    runtime.shutdown_background();
    ExitCode::from(code)
}

fn show() -> (Events, Display) {
    let (events, receiver) = Events::channel();
    let options = ProgressOptions {
        mode: Mode::Tty,
        terminal: true,
        title: "kubernetes:buildkit".into(),
        palette: Palette::default(),
        patience: Duration::from_secs(1),
        ..ProgressOptions::default()
    };
    (events, progress::start(receiver, options))
}

fn step(events: &Events, name: &str, state: StepState) {
    let (id, name) = (StepId(name.to_owned()), name.to_owned());
    events.send(Event::Step { id, name, state, at: SystemTime::now() });
}

async fn make(events: &Events, lines: u32) {
    let name = "[2/2] RUN make";
    step(events, name, StepState::Running);
    for line in 0..lines {
        let bytes = format!("line {line}\n").into();
        let (id, stream) = (StepId(name.to_owned()), Stream::Stdout);
        events.send(Event::Output { id, stream, bytes, at: SystemTime::now() });
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn build() -> u8 {
    let (events, display) = show();
    step(&events, "[internal] load build definition from Dockerfile", StepState::Running);
    tokio::time::sleep(Duration::from_millis(400)).await;
    events.note("a note");
    step(&events, "[internal] load build definition from Dockerfile", StepState::Done { cached: false });
    let name = "[1/2] FROM docker.io/library/alpine:3.22";
    step(&events, name, StepState::Running);
    let total = Some(4_560_000);
    for done in (0..=4_560_000).step_by(570_000) {
        let (id, item) = (StepId(name.to_owned()), "sha256:4abcf2066143".to_owned());
        events.send(Event::Counter {
            id,
            item,
            done,
            total,
            finished: Some(done) == total,
            at: SystemTime::now(),
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    step(&events, name, StepState::Done { cached: false });
    make(&events, 40).await;
    step(&events, "[2/2] RUN make", StepState::Done { cached: false });
    u8::from(!display.finish().await.written)
}

enum Leave {
    Finish,
    AtOnce,
    Never,
}

async fn forever(leave: Leave) -> u8 {
    let (events, display) = show();
    let working = make(&events, u32::MAX);
    if matches!(leave, Leave::Never) {
        working.await;
    } else {
        tokio::select! {
            () = working => {}
            interrupted = tokio::signal::ctrl_c() => interrupted.unwrap(),
        }
    }
    if matches!(leave, Leave::AtOnce) {
        terminal::restore();
        #[expect(clippy::exit, reason = "as on a second Ctrl-C")]
        std::process::exit(130);
    }
    step(&events, "[2/2] RUN make", StepState::Cancelled);
    display.finish().await;
    130
}

async fn panicking() -> u8 {
    let (events, _display) = show();
    make(&events, 12).await;
    panic!("a bug");
}

async fn stuck() -> u8 {
    let (events, display) = show();
    for _ in 0..2000 {
        events.note("x".repeat(70));
    }
    make(&events, 12).await;
    if display.finish().await.written { 0 } else { 7 }
}

async fn password() -> u8 {
    use secrecy::ExposeSecret as _;
    match prompt::password("password for cosign.key").await {
        Ok(password) => {
            println!("got {} bytes", password.expose_secret().len());
            0
        }
        Err(error @ prompt::PromptError::Interrupted) => {
            println!("{error}");
            130
        }
        Err(error) => {
            println!("{error}");
            1
        }
    }
}

async fn password_late() -> u8 {
    let asked = tokio::time::timeout(Duration::from_millis(500), prompt::password("password")).await;
    println!();
    if asked.is_err() { 5 } else { 1 }
}
