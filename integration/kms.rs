//! Keys of key services, through the binary: a real OpenBao, an emulator of AWS, fakes of Google Cloud, Azure and
//! GitLab, and a plugin; `cosign` 2 and 3 accept what they signed.

#[path = "kms/aws.rs"]
mod aws;
#[path = "kms/azure.rs"]
mod azure;
#[path = "support/emulated_aws.rs"]
mod emulated_aws;
#[path = "support/fake_cloud.rs"]
mod fake_cloud;
#[allow(
    dead_code,
    clippy::disallowed_methods,
    reason = "the suite of identities uses more of it, without a runtime"
)]
#[path = "support/front.rs"]
mod front;
#[path = "kms/gcp.rs"]
mod gcp;
#[path = "kms/generate.rs"]
mod generate;
#[path = "kms/leaks.rs"]
mod leaks;
#[path = "support/openbao.rs"]
mod openbao;
#[path = "support/peers.rs"]
mod peers;
#[path = "kms/plugin.rs"]
mod plugin;
#[path = "support/registries.rs"]
mod registries;
#[path = "kms/remote.rs"]
mod remote;
#[path = "kms/support.rs"]
mod support;
#[path = "support/tls.rs"]
mod tls;
#[path = "kms/vault.rs"]
mod vault;
