//! A proxy that hears what it passes on, so that a test knows the secrets of a login, which nobody may print.

use crate::front::request;
use crate::leaks::forms;
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

/// What a login's secrets are called in forms and answers (RFC 6749, RFC 7636, RFC 8628, OpenID Connect Core 1.0).
const SECRETS: [&str; 7] =
    ["access_token", "client_secret", "code", "code_verifier", "device_code", "id_token", "refresh_token"];

/// The proxy. It lives as long as the test.
pub struct Tap {
    address: String,
    heard: Arc<Mutex<Vec<Exchange>>>,
}

/// A request, with its body, and the whole answer.
struct Exchange {
    head: String,
    asked: Vec<u8>,
    answered: Vec<u8>,
}

impl Tap {
    /// Starts one on loopback.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let heard = Arc::<Mutex<Vec<Exchange>>>::default();
        let into = Arc::clone(&heard);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let into = Arc::clone(&into);
                std::thread::spawn(move || pass(client, &into));
            }
        });
        Self { address, heard }
    }

    /// Makes a command take this way to all that it reaches without TLS, and log all that it can.
    pub fn before(&self, mut command: Command) -> Command {
        command.arg("-vv").env("http_proxy", format!("http://{}", self.address));
        command
    }

    /// Whether a request with this in its head was passed on.
    pub fn heard(&self, words: &str) -> bool {
        let heard = self.heard.lock().expect("nobody panicked");
        heard.iter().any(|exchange| exchange.head.contains(words))
    }

    /// Asserts that no secret that went by was printed, as it is or as base64, and that these did go by.
    #[track_caller]
    pub fn untold(&self, said: &str, gone: &[&str]) {
        let heard = self.heard.lock().expect("nobody panicked");
        // A terminal's edge may have broken it.
        let whole: String = said.split_whitespace().collect();
        for name in SECRETS {
            let values: Vec<String> = heard.iter().flat_map(|exchange| exchange.values(name)).collect();
            assert!(!gone.contains(&name) || !values.is_empty(), "no {name} went by:\n{said}");
            for form in values.iter().flat_map(|value| forms(value)) {
                assert!(!said.contains(&form) && !whole.contains(&form), "a {name} in:\n{said}");
            }
        }
        // The log was on, or this proves nothing.
        assert!(said.contains("DEBUG"), "no log:\n{said}");
    }
}

impl Exchange {
    /// Returns what stood under this name in the form that was sent and in the JSON that came.
    fn values(&self, name: &str) -> Vec<String> {
        let form = url::form_urlencoded::parse(&self.asked).filter(|(key, _)| key == name);
        let end = self.answered.windows(4).position(|window| window == b"\r\n\r\n");
        let body = end.map(|end| &self.answered[end + 4..]).unwrap_or_default();
        let json: Option<Value> = serde_json::from_slice(body).ok();
        let came = json.and_then(|json| Some(json.get(name)?.as_str()?.to_owned()));
        form.map(|(_, value)| value.into_owned()).chain(came).collect()
    }
}

/// Sends one request on to the host in its address. It is noted before the client has the answer.
fn pass(mut client: TcpStream, heard: &Mutex<Vec<Exchange>>) -> Option<()> {
    let (head, asked) = request(&mut client)?;
    let (method, rest) = head.split_once(" http://")?;
    let (host, rest) = rest.split_at(rest.find('/')?);
    let lines = rest.trim_end().lines().filter(|line| !line.to_lowercase().starts_with("connection:"));
    let lines = lines.collect::<Vec<_>>().join("\r\n");
    let sent = format!("{method} {lines}\r\nConnection: close\r\n\r\n");
    let mut service = TcpStream::connect(host).ok()?;
    service.write_all(&[sent.as_bytes(), &asked[..]].concat()).ok()?;
    let mut answered = Vec::new();
    service.read_to_end(&mut answered).ok()?;
    heard.lock().expect("nobody panicked").push(Exchange { head, asked, answered: answered.clone() });
    client.write_all(&answered).ok()
}
