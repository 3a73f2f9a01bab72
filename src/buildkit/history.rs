//! What the daemon remembers of a build that has ended, and the content that it keeps.

use super::client::{CALL_LIMIT, ClientError, refused};
use super::failure::Class;
use super::link::Lost;
use super::{Client, MESSAGE_LIMIT};
use crate::pb::containerd::services::content::v1::ReadContentRequest;
use crate::pb::moby::buildkit::v1::{BuildHistoryRequest, BuildResultInfo, Descriptor};
use std::collections::BTreeMap;
use tonic::Status;

/// Where a record says of what kind an attestation is, and how all kinds of provenance begin.
const KIND: &str = "in-toto.io/predicate-type";
const PROVENANCE: &str = "https://slsa.dev/provenance/";

impl Client {
    /// Returns the provenance of a build by this daemon, as predicates: by platform, or under an empty name where the
    /// build had one result. A daemon that keeps no history has none.
    ///
    /// # Errors
    /// The stream is gone, the daemon refuses, or it takes more than 30 s.
    pub async fn provenance(&self, reference: &str) -> Result<BTreeMap<String, Vec<u8>>, ClientError> {
        let status = match tokio::time::timeout(CALL_LIMIT, self.recorded(reference)).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(status)) => status,
            Err(_) => return Err(Lost::Silent(CALL_LIMIT).into()),
        };
        match self.answered(&status)? {
            failure if failure.class == Class::Unsupported => Ok(BTreeMap::new()),
            failure => Err(refused("ListenBuildHistory", failure)),
        }
    }

    /// Returns content that the daemon keeps, of at most `limit` bytes, as it gives it: whether it has this digest is
    /// for the caller to find out.
    ///
    /// # Errors
    /// The stream is gone, the daemon refuses (an old one knows no such call), or it takes more than 30 s.
    pub async fn content(&self, digest: &str, limit: usize) -> Result<Vec<u8>, ClientError> {
        let status = match tokio::time::timeout(CALL_LIMIT, self.read(digest, limit)).await {
            Ok(Ok(bytes)) => return Ok(bytes),
            Ok(Err(status)) => status,
            Err(_) => return Err(Lost::Silent(CALL_LIMIT).into()),
        };
        Err(refused("Read", self.answered(&status)?))
    }

    async fn recorded(&self, reference: &str) -> Result<BTreeMap<String, Vec<u8>>, Status> {
        let request = BuildHistoryRequest { r#ref: reference.to_owned(), early_exit: true };
        let mut events = self.control().listen_build_history(request).await?.into_inner();
        let mut found = BTreeMap::new();
        while let Some(event) = events.message().await? {
            let Some(record) = event.record else { continue };
            let one = record.result.map(|result| (String::new(), result));
            for (platform, result) in one.into_iter().chain(record.results) {
                if let Some(provenance) = provenance_of(&result) {
                    found.insert(platform, self.read(&provenance.digest, MESSAGE_LIMIT).await?);
                }
            }
        }
        Ok(found)
    }

    async fn read(&self, digest: &str, limit: usize) -> Result<Vec<u8>, Status> {
        let request = ReadContentRequest { digest: digest.to_owned() };
        let mut pieces = self.content.clone().read(request).await?.into_inner();
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.message().await? {
            bytes.extend_from_slice(&piece.data);
            if bytes.len() > limit {
                return Err(Status::out_of_range(format!("{digest} is too large")));
            }
        }
        Ok(bytes)
    }
}

fn provenance_of(result: &BuildResultInfo) -> Option<&Descriptor> {
    let mut attestations = result.attestations.iter();
    attestations.find(|one| one.annotations.get(KIND).is_some_and(|kind| kind.starts_with(PROVENANCE)))
}
