//! The receiving side of a transfer, with the checks that a daemon makes.

use crate::pb::fsutil::types::{Packet, Stat, packet::Type};
use crate::pb::moby::filesync::v1::file_sync_client::FileSyncClient;
use std::collections::{BTreeMap, HashSet};
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

pub(super) const DIRECTORY: u32 = 1 << 31;
const TYPES: u32 = 0b1000_1111_0010_1000 << 16;

/// A transfer under way.
pub(super) struct Receiver {
    requests: mpsc::UnboundedSender<Packet>,
    packets: Streaming<Packet>,
}

/// What a whole transfer gave.
#[derive(Default)]
pub(super) struct Received {
    pub(super) stats: Vec<Stat>,
    pub(super) files: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Received {
    pub(super) fn paths(&self) -> Vec<String> {
        self.stats.iter().map(|stat| String::from_utf8_lossy(&stat.path).into_owned()).collect()
    }

    pub(super) fn stat(&self, path: &[u8]) -> &Stat {
        self.stats.iter().find(|stat| stat.path == path).unwrap_or_else(|| panic!("no STAT of {path:?}"))
    }
}

impl Receiver {
    /// Asks for the directory `context`, with more metadata.
    pub(super) async fn open(inner: &Channel, metadata: &[(&'static str, &str)]) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::unbounded_channel();
        let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|packet| (packet, receiver))
        });
        let mut request = Request::new(stream);
        if !metadata.iter().any(|(key, _)| *key == "dir-name") {
            request.metadata_mut().insert("dir-name", "context".parse().expect("ASCII"));
        }
        for (key, value) in metadata {
            request.metadata_mut().append(*key, value.parse().expect("ASCII"));
        }
        let mut client = FileSyncClient::new(inner.clone()).max_decoding_message_size(16 << 20);
        Ok(Self { requests, packets: client.diff_copy(request).await?.into_inner() })
    }

    pub(super) fn send(&self, kind: Type, id: u32, data: &'static [u8]) {
        let packet = Packet { r#type: kind.into(), id, data: data.into(), stat: None };
        self.requests.send(packet).expect("the stream is open");
    }

    pub(super) fn request(&self, id: u32) {
        self.send(Type::Req, id, b"");
    }

    /// Returns the next packet, an ERR as an error of its text.
    pub(super) async fn next(&mut self) -> Result<Option<Packet>, String> {
        let packet = self.packets.message().await.map_err(|status| status.message().to_owned())?;
        match packet {
            Some(packet) if packet.r#type() == Type::Err => {
                Err(String::from_utf8_lossy(&packet.data).into_owned())
            }
            other => Ok(other),
        }
    }

    /// Reads STATs up to the last, requesting nothing.
    pub(super) async fn stats(&mut self) -> Result<Vec<Stat>, String> {
        let mut stats = Vec::new();
        while let Some(packet) = self.next().await? {
            assert_eq!(packet.r#type(), Type::Stat, "nothing was requested");
            match packet.stat {
                Some(stat) => stats.push(stat),
                None => return Ok(stats),
            }
        }
        panic!("the walk ended without its last STAT");
    }

    /// Reads one requested file.
    pub(super) async fn file(&mut self, id: u32) -> Result<Vec<u8>, String> {
        let mut contents = Vec::new();
        while let Some(packet) = self.next().await? {
            assert_eq!((packet.r#type(), packet.id), (Type::Data, id));
            if packet.data.is_empty() {
                return Ok(contents);
            }
            contents.extend_from_slice(&packet.data);
        }
        panic!("the stream ended within a file");
    }

    /// Says that all is there, and expects the answer and the end.
    pub(super) async fn finish(&mut self) {
        self.send(Type::Fin, 0, b"");
        let fin = self.next().await.expect("an answer").expect("a packet");
        assert_eq!(fin.r#type(), Type::Fin);
        assert!(self.next().await.expect("a good end").is_none());
    }
}

/// Receives everything that the view has, requesting each file as soon as its STAT comes.
pub(super) async fn receive(inner: &Channel, metadata: &[(&'static str, &str)]) -> Result<Received, String> {
    let mut receiver = Receiver::open(inner, metadata).await.map_err(|status| status.message().to_owned())?;
    let mut received = Received::default();
    let mut requested: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    let mut walking = true;
    while walking || !requested.is_empty() {
        let packet = receiver.next().await?.expect("more to come");
        match (packet.r#type(), packet.stat) {
            (Type::Stat, Some(stat)) => {
                if stat.mode & TYPES == 0 && stat.linkname.is_empty() {
                    let id = received.stats.len() as u32;
                    requested.insert(id, stat.path.to_vec());
                    receiver.request(id);
                }
                received.stats.push(stat);
            }
            (Type::Stat, None) => walking = false,
            (Type::Data, _) => {
                let path = requested.get(&packet.id).expect("only what was requested").clone();
                if packet.data.is_empty() {
                    requested.remove(&packet.id);
                }
                received.files.entry(path).or_default().extend_from_slice(&packet.data);
            }
            (other, _) => panic!("unexpected {other:?}"),
        }
    }
    receiver.finish().await;
    validate(&received.stats);
    Ok(received)
}

/// What a daemon insists on: order, parents first, hard links to what was sent (fsutil validator.go,
/// hardlinks.go), and owner 0.
fn validate(stats: &[Stat]) {
    let key = |stat: &Stat| -> Vec<Vec<u8>> { stat.path.split(|b| *b == b'/').map(<[u8]>::to_vec).collect() };
    let mut directories: HashSet<Vec<u8>> = HashSet::from([Vec::new()]);
    let mut files: HashSet<&[u8]> = HashSet::new();
    for (stat, next) in stats.iter().zip(stats.iter().skip(1)) {
        assert!(key(stat) < key(next), "out of order: {:?} {:?}", stat.path, next.path);
    }
    for stat in stats {
        let slash = stat.path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        assert!(directories.contains(&stat.path[..slash]), "no parent of {:?}", stat.path);
        assert_eq!((stat.uid, stat.gid), (0, 0));
        if stat.mode & DIRECTORY != 0 {
            directories.insert(stat.path.to_vec());
        } else if stat.mode & 1 << 27 == 0 {
            if stat.linkname.is_empty() {
                files.insert(&stat.path);
            } else {
                assert!(files.contains(&stat.linkname[..]), "link to unknown {:?}", stat.linkname);
            }
        }
    }
}
