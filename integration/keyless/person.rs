//! Who logs in: a real browser, or a person in a hurry who fills in the provider's forms by hand.

use crate::rig::{Rig, text};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// A browser takes its time to start where everything else runs, too.
const PATIENCE: Duration = Duration::from_secs(180);

/// Chromium without a window, driven over WebDriver (W3C). It ends when dropped.
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    /// A pipe that nobody holds would end the driver.
    _output: BufReader<ChildStdout>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts one. The driver picks a port and may find it taken a moment later, upon which it ends.
    pub fn start(rig: &Rig) -> Self {
        let mut tries = (0..5).filter_map(|_| Self::try_start(rig));
        tries.next().expect("chromedriver starts")
    }

    fn try_start(rig: &Rig) -> Option<Self> {
        // In a process namespace of its own, which takes the browser along when it ends.
        let mut command = rig.command("unshare");
        let mut driver = command
            .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["/usr/bin/chromedriver", "--port=0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver");
        let mut output = BufReader::new(driver.stdout.take().expect("it is piped"));
        let mut line = String::new();
        // It says which port it was asked for (0), and later which one it has.
        let port = loop {
            line.clear();
            if output.read_line(&mut line).expect("text") == 0 {
                let _reaped = driver.wait();
                return None;
            }
            let port = line.split("successfully on port ").nth(1);
            if let Some(port) = port.and_then(|port| port.trim_end().trim_end_matches('.').parse().ok()) {
                break port;
            }
        };
        let profile = tempfile::tempdir().expect("a folder");
        let mut browser = Self { driver, port, session: String::new(), _output: output, _profile: profile };
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            &format!("--user-data-dir={}", browser._profile.path().display()),
        ];
        let options = json!({ "binary": "/usr/bin/chromium", "args": arguments });
        let wanted = json!({ "capabilities": { "alwaysMatch": { "goog:chromeOptions": options } } });
        let session = browser.call("POST", "/session", &wanted);
        browser.session = session["sessionId"].as_str().expect("a session").to_owned();
        Some(browser)
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        self.try_call(method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    fn try_call(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(PATIENCE)).expect("it can");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).map_err(|error| error.to_string())?;
        // The driver keeps the connection, whatever it is asked: its answer ends where it says.
        let (mut answer, mut head) = (BufReader::new(stream), String::new());
        while !head.ends_with("\r\n\r\n") {
            let read = answer.read_line(&mut head).map_err(|error| error.to_string())?;
            if read == 0 {
                return Err("no answer".to_owned());
            }
        }
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
        });
        let mut body = vec![0; length.ok_or("an answer without a length")?];
        answer.read_exact(&mut body).map_err(|error| error.to_string())?;
        let value: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        match head.contains(" 200 ") {
            true => Ok(value["value"].clone()),
            false => Err(value["value"]["message"].to_string()),
        }
    }

    fn at(&self, path: &str) -> String {
        format!("/session/{}{path}", self.session)
    }

    pub fn visit(&self, page: &str) {
        self.call("POST", &self.at("/url"), &json!({ "url": page }));
    }

    /// Does something to an element, as soon as it is there.
    fn act(&self, css: &str, what: &str, body: &Value) {
        let end = Instant::now() + PATIENCE;
        loop {
            let acted = || {
                let found = self.try_call(
                    "POST",
                    &self.at("/element"),
                    &json!({ "using": "css selector", "value": css }),
                )?;
                let element =
                    found.as_object().and_then(|found| found.values().next()).ok_or("no element")?;
                let element = element.as_str().ok_or("no element")?;
                self.try_call("POST", &self.at(&format!("/element/{element}/{what}")), body)
            };
            match acted() {
                Ok(_) => return,
                Err(error) => assert!(Instant::now() < end, "{css}: {error} on\n{}", self.text()),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub fn click(&self, css: &str) {
        self.act(css, "click", &json!({}));
    }

    pub fn type_into(&self, css: &str, text: &str) {
        self.act(css, "value", &json!({ "text": text }));
    }

    /// Returns what the page says.
    pub fn text(&self) -> String {
        let script = json!({ "script": "return document.documentElement.innerText", "args": [] });
        let text = self.try_call("POST", &self.at("/execute/sync"), &script);
        text.ok().and_then(|text| text.as_str().map(str::to_owned)).unwrap_or_default()
    }

    pub fn until(&self, words: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.text().contains(words) {
            assert!(Instant::now() < end, "no {words:?} on:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Logs in at the provider's pages, and consents.
    pub fn log_in(&self, name: &str) {
        self.type_into("input[name=login]", name);
        self.type_into("input[name=password]", "any");
        self.click("button[type=submit]");
        self.until("Authorize");
        self.click("button[type=submit]");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ended = self.driver.kill();
        let _reaped = self.driver.wait();
    }
}

/// Logs in by hand, with curl: for tests in which not the browser matters but when somebody logs in.
pub fn log_in(rig: &Rig, page: &str, name: &str) {
    let jar = tempfile::NamedTempFile::new().expect("a file");
    let curl = |arguments: &[&str]| {
        let mut command: Command = rig.command("/usr/bin/curl");
        command.args(["-sSL", "--max-time", "30", "-b"]).arg(jar.path()).arg("-c").arg(jar.path());
        let output = command.args(arguments).output().expect("curl runs");
        assert!(output.status.success(), "curl: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let action = |html: &str| {
        let action = html.split("action=\"").nth(1).and_then(|rest| rest.split('"').next());
        action.unwrap_or_else(|| panic!("no form in {html}")).to_owned()
    };
    let login = curl(&[page]);
    let (name, prompt) = (format!("login={name}"), "prompt=login");
    let consent = curl(&["-d", prompt, "-d", &name, "-d", "password=any", &action(&login)]);
    let done = curl(&["-d", "prompt=consent", &action(&consent)]);
    assert!(done.contains("Logged in as"), "{done}");
}
