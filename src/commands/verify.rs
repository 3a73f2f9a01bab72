//! `kubectl buildkit verify`: what cosign's verifiers say, with the reason for each signature that does not count.

use super::display::Early;
use super::failure::Failure;
use super::registries::Passable;
use super::verifiers::{self, NamedVerifier};
use super::{display, print_lines, registries, report};
use crate::build::store::RegistryStore;
use crate::cli::cluster::ClusterArgs;
use crate::cli::verify::VerifyArgs;
use crate::cluster::Connection;
use crate::config::env::Environment;
use crate::config::verify::{Output, VerifySettings};
use crate::config::{self, Misuse};
use crate::registry::{Client, Digest, Reference, Repository};
use crate::sign::{
    AcceptedSignature, CertificateIdentity, Format, Formats, RefusedSignature, VerifyRequest, Wanted,
    verify_image,
};
use crate::task::Cancel;
use crate::ui::printer;
use serde_json::{Value, json};

/// Verifies each image and tells what was found.
///
/// # Errors
/// The last image's that is not signed as asked; those of others are printed before.
pub(super) async fn run(
    args: VerifyArgs,
    cluster: ClusterArgs,
    env: &dyn Environment,
    cancel: Cancel,
) -> Result<(), Failure> {
    let directory = env.current_dir().map_err(Misuse::WorkingDirectory)?;
    let VerifyArgs { references, by, attestation, output, builder, registry } = args;
    let settings =
        config::verify::resolve(&references, by, attestation.as_deref(), &output, &directory, env)?;
    let registry = config::registry::resolve(registry, &directory, env)?;
    let cluster = config::cluster::resolve(cluster, &directory, env)?;
    let VerifySettings { references, by, annotations, storage, wanted, largest, output } = settings;

    let mut repositories: Vec<Repository> =
        references.iter().map(|reference| reference.repository.clone()).collect();
    repositories.extend(storage.clone());
    let needs_cluster = verifiers::need_cluster(&by) || registry.needs_cluster() || builder.is_some();
    let mut early = Early::new();
    let events = early.events();
    let prepared = async {
        let connection = match needs_cluster {
            true => Some(Connection::connect(&cluster.connect, &events).await.map_err(Failure::connect)?),
            false => None,
        };
        let known = registries::of_builder(builder.as_deref(), connection.as_ref()).await?;
        let passable = Passable {
            connection: connection.as_ref(),
            options: &cluster.connect,
            through: registries::through(builder.as_deref()),
            events: events.clone(),
        };
        let registries = registries::open(&registry, passable, &known, &repositories).await?;
        let verifiers = verifiers::of(by, connection.as_ref()).await?;
        Ok::<_, Failure>((registries.client, verifiers))
    };
    let prepared = cancel.guard(early.during(prepared)).await.map_err(Failure::interrupted)?;
    let (client, verifiers) = prepared?;

    let asked = Asked { client, verifiers, annotations, storage, wanted, largest };
    let mut failed: Option<Failure> = None;
    for reference in &references {
        let verified = cancel.guard(early.during(asked.verify(reference))).await;
        let verified = verified.map_err(Failure::interrupted)?;
        let told = match verified {
            Ok(found) => asked.tell(reference, &found, output).await,
            Err(failure) => Err(failure),
        };
        // The last failure is the command's own.
        if let Err(next) = told
            && let Some(before) = failed.replace(next)
        {
            before.print(&display::palette(env)).await;
        }
    }
    failed.map_or(Ok(()), Err)
}

struct Asked {
    client: Client,
    verifiers: Vec<NamedVerifier>,
    annotations: std::collections::BTreeMap<String, String>,
    storage: Option<Repository>,
    wanted: Wanted,
    largest: usize,
}

/// An image with the signatures that count, by whom.
struct Found {
    image: Digest,
    signatures: Vec<(String, AcceptedSignature)>,
}

impl Asked {
    /// Verifies one image: each of the keys must have signed it.
    async fn verify(&self, reference: &Reference) -> Result<Found, Failure> {
        let Reference { repository, digest, .. } = reference;
        // A digest is looked up too: a signature of what isn't there is no answer to "may I run it".
        let place = digest.map(|digest| digest.to_string());
        let place = place.as_deref().or(reference.tag_or_latest()).unwrap_or_default();
        let found = self.client.head_manifest(repository, place).await;
        let found = found.map_err(|error| Failure::registry(&error))?;
        let image = found.ok_or_else(|| Failure::nothing_there(reference))?.digest;
        // One resolution: the tag isn't looked at again.
        let image = digest.unwrap_or(image);
        let storage = self.storage.as_ref().unwrap_or(repository);
        let request = VerifyRequest {
            storage: storage.clone(),
            image,
            wanted: self.wanted.clone(),
            docker_reference: None,
            annotations: self.annotations.clone(),
            formats: Formats::Both,
            largest_attestation: self.largest,
        };
        let store = RegistryStore::new(self.client.clone());
        let mut signatures = Vec::new();
        for NamedVerifier { name, verifier, certified } in &self.verifiers {
            let verdict = verify_image(&store, verifier.as_ref(), &request).await;
            let verdict = verdict.map_err(|error| Failure::unverified(&error))?;
            if verdict.accepted.is_empty() {
                let asked = Described { reference, image: &image, storage, wanted: &self.wanted };
                return Err(Failure::not_signed(&asked, name, &verdict.refused));
            }
            // Beside a key's signature anything may stand; only who was asked for an identity has looked at it.
            let known = |found: AcceptedSignature| AcceptedSignature {
                certificate: found.certificate.filter(|_| *certified),
                ..found
            };
            signatures.extend(verdict.accepted.into_iter().map(|found| (name.clone(), known(found))));
        }
        Ok(Found { image, signatures })
    }

    /// Prints what was found: for programs on standard output, for people beside it, or for people alone.
    async fn tell(&self, reference: &Reference, found: &Found, output: Output) -> Result<(), Failure> {
        let lines = self.lines(reference, found);
        match output {
            Output::Text => print_lines(lines),
            Output::Json => {
                let printed = match self.wanted {
                    Wanted::Signature => print_lines([array(reference, found)]),
                    Wanted::Attestation(_) => print_lines(
                        found.signatures.iter().filter_map(|(_, found)| found.envelope.as_deref()),
                    ),
                };
                printer::remark(lines).await;
                printed
            }
        }
    }

    fn lines(&self, reference: &Reference, found: &Found) -> Vec<String> {
        let what = match &self.wanted {
            Wanted::Signature => "signed".to_owned(),
            Wanted::Attestation(kind) => format!("attested ({kind})"),
        };
        let line = |(name, signature): &(String, AcceptedSignature)| {
            let AcceptedSignature { format, location, annotations, certificate, logged, .. } = signature;
            let more: String = annotations.iter().map(|(key, value)| format!(" {key}={value}")).collect();
            let unchecked = if signature.log_checked { "" } else { ", which was not checked" };
            let logged: String = logged.iter().map(|place| format!(", {place}{unchecked}")).collect();
            // What was asked for may be a pattern.
            let name = match certificate {
                Some(CertificateIdentity { subject: Some(subject), issuer: Some(issuer), .. }) => {
                    format!("{subject} (by the word of {issuer})")
                }
                _ => name.clone(),
            };
            let image = format!("{}@{}", reference.repository, found.image);
            format!("{image}: {what} by {name} ({format}: {location}){more}{logged}")
        };
        found.signatures.iter().map(line).collect()
    }
}

/// Returns cosign's array: each signature's claims.
fn array(reference: &Reference, found: &Found) -> String {
    let claims = |(_, signature): &(String, AcceptedSignature)| {
        let AcceptedSignature { format, docker_reference, kind, annotations, certificate, .. } = signature;
        // Bundles name no repository; cosign shows what was asked for.
        let name = docker_reference.clone().unwrap_or_else(|| reference.to_string());
        let mut optional = annotations.clone();
        // As cosign does for `.sig` signatures, and here for bundles too.
        let identity = certificate.as_ref().map(|it| [("Subject", &it.subject), ("Issuer", &it.issuer)]);
        for (key, value) in identity.into_iter().flatten() {
            optional.extend(value.clone().map(|value| (key.to_owned(), value)));
        }
        let optional = match (format, optional.is_empty()) {
            (Format::Legacy, true) => Value::Null,
            _ => json!(optional),
        };
        let mut claims = json!({
            "critical": {
                "identity": { "docker-reference": name },
                "image": { "docker-manifest-digest": found.image.to_string() },
                "type": kind,
            },
            "optional": optional,
        });
        if !signature.logged.is_empty() {
            claims["log"] = report::log(&signature.logged);
        }
        claims
    };
    Value::Array(found.signatures.iter().map(claims).collect()).to_string()
}

/// What was asked about an image that isn't signed so.
pub(super) struct Described<'a> {
    reference: &'a Reference,
    image: &'a Digest,
    storage: &'a Repository,
    wanted: &'a Wanted,
}

impl Described<'_> {
    /// Says that there is nothing of the kind at all.
    pub(super) fn nothing(&self) -> String {
        let Self { reference, image, storage, wanted } = self;
        let what = match wanted {
            Wanted::Signature => "signature".to_owned(),
            Wanted::Attestation(kind) => format!("attestation of type {kind}"),
        };
        let elsewhere = match **storage == reference.repository {
            true => String::new(),
            false => format!(" in {storage}"),
        };
        format!("there is no {what} of {}@{image}{elsewhere}", reference.repository)
    }

    /// Says that nothing of what is there counts.
    pub(super) fn none_matches(&self, key: &str) -> String {
        let Self { reference, image, wanted, .. } = self;
        let what = match wanted {
            Wanted::Signature => "signature".to_owned(),
            Wanted::Attestation(kind) => format!("attestation of type {kind}"),
        };
        format!("no {what} of {}@{image} is by {key} and as asked for", reference.repository)
    }

    /// Says why one doesn't count.
    pub(super) fn reason(refused: &RefusedSignature) -> String {
        let RefusedSignature { format, location, reason } = refused;
        format!("{format} {location}: {reason}")
    }
}
