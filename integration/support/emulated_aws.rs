//! moto, an emulator of AWS, behind TLS; its KMS is repaired so that it signs digests (hack/cluster/kms).

use crate::peers::{free_address, peer};
use crate::tls::{Certificate, TlsFront};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) struct EmulatedAws {
    /// `host:port` of its TLS.
    pub(crate) host: String,
    pub(crate) authority_pem: String,
    /// Its address without TLS.
    pub(crate) plain: String,
    process: Child,
    front: TlsFront,
}

impl EmulatedAws {
    pub(crate) async fn start() -> Self {
        let address: SocketAddr = free_address(Ipv4Addr::LOCALHOST.into()).parse().expect("an address");
        let mut process = Command::new(peer("emulated-aws"))
            .args(["-H", "127.0.0.1", "-p", &address.port().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("moto starts");
        let end = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(address).is_err() {
            let ended = process.try_wait().expect("our child");
            assert!(ended.is_none() && Instant::now() < end, "moto doesn't start");
            std::thread::sleep(Duration::from_millis(50));
        }
        let certificate = Certificate::from_authority("127.0.0.1");
        let front = TlsFront::start(&certificate, &address.to_string()).await;
        let (host, authority_pem) = (front.host().to_owned(), certificate.authority_pem);
        Self { host, authority_pem, plain: format!("http://{address}/"), process, front }
    }

    /// Makes a key of this spec under an alias, and returns its ARN.
    pub(crate) fn key(&self, alias: &str, spec: &str, usage: &str) -> String {
        let key = self.call("CreateKey", json!({ "KeySpec": spec, "KeyUsage": usage }));
        let arn = key["KeyMetadata"]["Arn"].as_str().expect("an ARN").to_owned();
        let alias = format!("alias/{alias}");
        self.call("CreateAlias", json!({ "AliasName": alias, "TargetKeyId": key["KeyMetadata"]["KeyId"] }));
        arn
    }

    /// Calls KMS without our own client; moto looks at no signature.
    pub(crate) fn call(&self, operation: &str, body: Value) -> Value {
        let output = Command::new("curl")
            .args(["-s", "--fail-with-body", "--max-time", "30", "-X", "POST", &self.plain])
            .args(["-H", "Content-Type: application/x-amz-json-1.1"])
            .args(["-H", &format!("X-Amz-Target: TrentService.{operation}")])
            .args(["-H", "Authorization: AWS4-HMAC-SHA256 Credential=AK/20260101/eu-west-1/kms/aws4_request, SignedHeaders=host, Signature=x"])
            .args(["--data", &body.to_string()])
            .output()
            .expect("curl runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{operation}: {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// Returns how many connections were made over TLS.
    pub(crate) fn connections(&self) -> usize {
        self.front.accepted()
    }
}

impl Drop for EmulatedAws {
    fn drop(&mut self) {
        let _gone_already = self.process.kill();
        let _reaped = self.process.wait();
    }
}
