//! The tool while it runs: what it has said so far, signals to it, and the time it takes to end.

use crate::rig::text;
use crate::tool::Ran;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::{Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Until something that a test waits for has happened; machines that test are slow.
const PATIENCE: Duration = Duration::from_secs(90);

/// A process whose output is read as it comes. It is killed when dropped.
pub struct Running {
    child: Child,
    stdout: Stream,
    stderr: Stream,
}

struct Stream(Arc<Mutex<Vec<u8>>>, JoinHandle<()>);

impl Stream {
    fn read(mut from: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&bytes);
        let thread = std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = from.read(&mut chunk) {
                into.lock().expect("no holder panics").extend_from_slice(&chunk[..length]);
            }
        });
        Self(bytes, thread)
    }

    fn text(&self) -> String {
        text(&self.0.lock().expect("no holder panics"))
    }
}

impl Running {
    /// Starts a command in a process group of its own, with nothing on its stdin.
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().expect("it starts");
        let stdout = Stream::read(child.stdout.take().expect("it is piped"));
        let stderr = Stream::read(child.stderr.take().expect("it is piped"));
        Self { child, stdout, stderr }
    }

    /// Waits until it has said this on standard error.
    #[track_caller]
    pub fn until(&self, words: &str) {
        self.until_that(&format!("{words:?} was said"), || self.stderr.text().contains(words));
    }

    /// Waits until something has happened while it runs.
    #[track_caller]
    pub fn until_that(&self, what: &str, happened: impl Fn() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !happened() {
            assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}:\n{}", self.stderr.text());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Stops it as soon as it has one of these files open, and returns which.
    #[track_caller]
    pub fn stop_with_open(&self, paths: &[PathBuf]) -> usize {
        let end = Instant::now() + PATIENCE;
        let folder = format!("/proc/{}/fd", self.child.id());
        loop {
            let files = std::fs::read_dir(&folder).into_iter().flatten().flatten();
            let files = files.filter_map(|file| std::fs::read_link(file.path()).ok());
            let found = files.filter_map(|file| paths.iter().position(|path| *path == file)).next();
            if let Some(found) = found {
                self.signal(Signal::STOP);
                return found;
            }
            assert!(Instant::now() < end, "none of {paths:?} is opened:\n{}", self.stderr.text());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Sends a signal and returns when that was.
    pub fn signal(&self, signal: Signal) -> Instant {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
        Instant::now()
    }

    /// Waits for the end, which must come within `limit` after `since`, and leave no process behind.
    #[track_caller]
    pub fn ends(mut self, since: Instant, limit: Duration) -> Ran {
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it is ours") {
                break status;
            }
            assert!(since.elapsed() < limit, "it still runs after {limit:?}:\n{}", self.stderr.text());
            std::thread::sleep(Duration::from_millis(20));
        };
        let took = since.elapsed();
        // Shown with --nocapture: how near the limit it was.
        println!("ended after {:.1} s", took.as_secs_f64());
        assert_eq!(group(self.child.id()), Vec::<String>::new(), "processes that it left behind");
        // Nobody holds the pipes any more, so their last bytes are on their way to the readers.
        let end = Instant::now() + Duration::from_secs(5);
        while !(self.stdout.1.is_finished() && self.stderr.1.is_finished()) {
            assert!(Instant::now() < end, "somebody holds its output open");
            std::thread::sleep(Duration::from_millis(10));
        }
        let (stdout, stderr) = (self.stdout.text(), self.stderr.text());
        println!("{}", stderr.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n"));
        Ran { stdout, stderr, ..Ran::of(&std::process::Output { status, stdout: vec![], stderr: vec![] }) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has usually ended already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Returns the processes of a group that live, as `/proc` has them.
fn group(id: u32) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats = processes.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    // "pid (name) state parent group …", and the name may hold anything (proc(5)).
    let in_group = |stat: &String| {
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?;
        Some(fields.nth(1)?.parse() == Ok(id) && state != "Z")
    };
    stats.filter(|stat| in_group(stat) == Some(true)).collect()
}

/// A command on a terminal of its own.
pub struct Pty {
    master: File,
    slave: File,
    child: Child,
    parser: vt100::Parser,
    said: Vec<u8>,
    before: Termios,
}

impl Pty {
    /// Starts a command with all its streams on a terminal.
    pub fn start(command: Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).expect("it is ours");
        unlockpt(&master).expect("it is ours");
        let size = Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).expect("it has a size");
        let name = ptsname(&master, Vec::new()).expect("it has a name");
        let slave = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOCTTY)
            .open(name.to_str().expect("ASCII"));
        let slave = slave.expect("its other end");
        let before = tcgetattr(&slave).expect("it is a terminal");
        let end = || slave.try_clone().expect("a descriptor");
        // util-linux's setsid makes the terminal the controlling one, which takes unsafe code from here.
        let mut session = Command::new("setsid");
        session.arg("--ctty").arg(command.get_program()).args(command.get_args());
        session.env_clear().env("TERM", "xterm");
        session.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        session.current_dir(command.get_current_dir().expect("it is set"));
        let child = session.stdin(end()).stdout(end()).stderr(end()).spawn().expect("setsid is there");
        let parser = vt100::Parser::new(30, 100, 0);
        Self { master: File::from(master), slave, child, parser, said: Vec::new(), before }
    }

    /// Returns what is on the screen.
    pub fn screen(&self) -> &vt100::Screen {
        self.parser.screen()
    }

    /// Returns all that was ever written to it.
    pub fn said(&self) -> String {
        text(&self.said)
    }

    /// Waits until something that was written is what is looked for, and returns that.
    #[track_caller]
    pub fn until_said<T>(&mut self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = find(&self.said()) {
                return found;
            }
            assert!(Instant::now() < end, "no {what} in:\n{}", self.said());
            self.read();
        }
    }

    /// Sends a signal and returns when that was.
    pub fn signal(&self, signal: Signal) -> Instant {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
        Instant::now()
    }

    /// Types, and returns when that was.
    pub fn type_in(&mut self, keys: &[u8]) -> Instant {
        self.master.write_all(keys).expect("the terminal takes it");
        Instant::now()
    }

    /// Waits until these words are on the screen.
    #[track_caller]
    pub fn until(&mut self, words: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.screen().contents().contains(words) {
            assert!(Instant::now() < end, "no {words:?} on:\n{}", self.screen().contents());
            self.read();
        }
    }

    /// Waits for the end and returns the exit code.
    #[track_caller]
    pub fn ends(&mut self, since: Instant, limit: Duration) -> i32 {
        loop {
            if let Some(status) = self.child.try_wait().expect("it is ours") {
                println!("ended after {:.1} s", since.elapsed().as_secs_f64());
                while self.read() {}
                return status.code().expect("no signal ended it");
            }
            assert!(since.elapsed() < limit, "it still runs:\n{}", self.screen().contents());
            self.read();
        }
    }

    /// Asserts that the terminal is as it was: the cursor is visible, lines wrap, what is typed is shown.
    #[track_caller]
    pub fn assert_in_order(&self) {
        assert!(!self.screen().hide_cursor(), "the cursor is hidden");
        let now = tcgetattr(&self.slave).expect("it is a terminal");
        assert_eq!(now.local_modes, self.before.local_modes, "echo and the like");
        assert!(now.local_modes.contains(LocalModes::ECHO));
        assert_eq!(now.input_modes, self.before.input_modes);
        assert_eq!(now.output_modes, self.before.output_modes);
    }

    /// Reads what has come; false if nothing has.
    fn read(&mut self) -> bool {
        let soon = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
        if !matches!(poll(&mut fds, Some(&soon)), Ok(1)) {
            return false;
        }
        let mut chunk = [0; 4096];
        let Ok(length @ 1..) = self.master.read(&mut chunk) else { return false };
        self.parser.process(&chunk[..length]);
        self.said.extend_from_slice(&chunk[..length]);
        true
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        // It has usually ended already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
