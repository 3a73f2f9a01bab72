//! Key services: their references joined with what their own tools read from environment and home.

use super::env::{Environment, names};
use super::misuse::Misuse;
use super::services;
use super::source::Source;
use crate::sign::key::Gitlab;
use crate::sign::kms::{KmsKey, KmsReference, aws, azure, gcp, pkcs11, plugin, vault};
use secrecy::SecretString;
use std::path::{Path, PathBuf};
use url::Url;

/// Where a machine of AWS or Azure asks about itself.
const METADATA: &str = "http://169.254.169.254/";
/// Where a container of ECS asks.
const CONTAINER: &str = "http://169.254.170.2";
pub(super) const GOOGLE_METADATA: &str = "metadata.google.internal";

/// What reads settings for one reference.
pub(super) struct Reader<'a> {
    pub(super) env: &'a dyn Environment,
    pub(super) directory: &'a Path,
    /// Who named the key.
    pub(super) source: Source,
    /// The key, as messages may show it.
    pub(super) shown: String,
}

impl Reader<'_> {
    /// Returns the key with all that is needed to reach it.
    pub(super) fn kms(&self, reference: KmsReference) -> Result<KmsKey, Misuse> {
        Ok(match reference {
            KmsReference::Vault(key) => KmsKey::Vault(self.vault(key)?),
            KmsReference::Aws(key) => KmsKey::Aws(Box::new(self.aws(key)?)),
            KmsReference::Gcp(key) => KmsKey::Gcp(self.gcp(key)?),
            KmsReference::Azure(key) => KmsKey::Azure(Box::new(self.azure(key)?)),
            KmsReference::Plugin(key) => KmsKey::Plugin(self.plugin(key)?),
            KmsReference::Pkcs11(key) => KmsKey::Pkcs11(Box::new(self.pkcs11(*key)?)),
        })
    }

    /// Returns where a GitLab project's variables are read.
    pub(super) fn gitlab(&self, project: String) -> Result<Gitlab, Misuse> {
        let token = self.env.get_filled(names::GITLAB_TOKEN);
        let token = token.ok_or_else(|| self.refuse(format!("{} is not set", names::GITLAB_TOKEN)))?;
        let host = self.env.get_filled(names::GITLAB_HOST).unwrap_or_else(|| "gitlab.com".to_owned());
        let host = if host.contains("://") { host } else { format!("https://{host}") };
        let host = self.url(names::GITLAB_HOST, &host)?;
        Ok(Gitlab { host, token: token.into(), project })
    }

    fn vault(&self, key: vault::Key) -> Result<vault::Settings, Misuse> {
        // Each product's tool knows the other's variables too, and prefers its own.
        let prefixes = match key.product {
            vault::Product::Vault => ["VAULT", "BAO"],
            vault::Product::OpenBao => ["BAO", "VAULT"],
        };
        let get = |name: &str| {
            prefixes.into_iter().find_map(|prefix| self.env.get_filled(&format!("{prefix}_{name}")))
        };
        let own = |name: &str| format!("{}_{name}", prefixes[0]);
        let address = get(names::VAULT_ADDR)
            .ok_or_else(|| self.refuse(format!("{} is not set", own(names::VAULT_ADDR))))?;
        let address = self.url(&own(names::VAULT_ADDR), &address)?;
        let token = match get(names::VAULT_TOKEN) {
            Some(token) => Some(SecretString::from(token)),
            None => match self.home(".vault-token") {
                Some(path) => self.read("the Vault token", &path)?,
                None => None,
            },
        };
        let token = token.ok_or_else(|| {
            let name = own(names::VAULT_TOKEN);
            self.refuse(format!("{name} is not set, and there is no ~/.vault-token: log in first"))
        })?;
        let mut http = services::http(self.env);
        if let Some(path) = get(names::VAULT_CACERT) {
            http.extra_ca_pem.push(self.file("VAULT_CACERT", Path::new(&path))?);
        }
        http.insecure = get(names::VAULT_SKIP_VERIFY).is_some_and(|value| is_true(&value));
        let mount = self.env.get_filled(names::TRANSIT_SECRET_ENGINE_PATH);
        let mount = mount.unwrap_or_else(|| "transit".to_owned());
        Ok(vault::Settings { key, address, token, namespace: get(names::VAULT_NAMESPACE), mount, http })
    }

    fn aws(&self, key: aws::Key) -> Result<aws::Settings, Misuse> {
        let get = |name: &str| self.env.get_filled(name);
        let url = |name: &str| get(name).map(|text| self.url(name, &text)).transpose();
        let endpoint = match url(names::AWS_ENDPOINT_URL_KMS)? {
            Some(url) => Some(url),
            None => url(names::AWS_ENDPOINT_URL)?,
        };
        let sts = match url(names::AWS_ENDPOINT_URL_STS)? {
            Some(url) => Some(url),
            None => url(names::AWS_ENDPOINT_URL)?,
        };
        let keys = get(names::AWS_ACCESS_KEY_ID).zip(get(names::AWS_SECRET_ACCESS_KEY));
        let keys = keys.map(|(id, secret)| aws::StaticKeys {
            id,
            secret: secret.into(),
            session_token: get(names::AWS_SESSION_TOKEN).map(Into::into),
        });
        let identity = get(names::AWS_WEB_IDENTITY_TOKEN_FILE).zip(get(names::AWS_ROLE_ARN));
        let web_identity = identity.map(|(file, role)| aws::WebIdentity {
            role,
            token_file: self.directory.join(file),
            session: get(names::AWS_ROLE_SESSION_NAME),
        });
        let shared =
            |name: &'static str, usual: &str| match get(name).map(PathBuf::from).or_else(|| self.home(usual))
            {
                Some(path) => self.read(name, &path),
                None => Ok(None),
            };
        let metadata = match get(names::AWS_EC2_METADATA_DISABLED).is_some_and(|value| is_true(&value)) {
            true => None,
            false => {
                let text = get(names::AWS_EC2_METADATA_SERVICE_ENDPOINT);
                Some(self.url(names::AWS_EC2_METADATA_SERVICE_ENDPOINT, text.as_deref().unwrap_or(METADATA))?)
            }
        };
        let mut http = services::http(self.env);
        if let Some(path) = get(names::AWS_CA_BUNDLE) {
            http.extra_ca_pem.push(self.file(names::AWS_CA_BUNDLE, Path::new(&path))?);
        }
        http.insecure = get(names::AWS_TLS_INSECURE_SKIP_VERIFY).as_deref() == Some("1");
        let sources = aws::Sources {
            keys,
            web_identity,
            profile: get(names::AWS_PROFILE),
            config: shared(names::AWS_CONFIG_FILE, ".aws/config")?,
            credentials: shared(names::AWS_SHARED_CREDENTIALS_FILE, ".aws/credentials")?,
            sso_cache: self.home(".aws/sso/cache"),
            container: self.aws_container()?,
            metadata,
            sts,
            environment: self.env.all(),
        };
        let region = get(names::AWS_REGION).or_else(|| get(names::AWS_DEFAULT_REGION));
        Ok(aws::Settings { key, region, endpoint, sources, http })
    }

    fn aws_container(&self) -> Result<Option<aws::Container>, Misuse> {
        let get = |name: &str| self.env.get_filled(name);
        let relative = get(names::AWS_CONTAINER_CREDENTIALS_RELATIVE_URI);
        let full = relative.map(|path| format!("{CONTAINER}{path}"));
        let Some(url) = full.or_else(|| get(names::AWS_CONTAINER_CREDENTIALS_FULL_URI)) else {
            return Ok(None);
        };
        Ok(Some(aws::Container {
            url: self.url(names::AWS_CONTAINER_CREDENTIALS_FULL_URI, &url)?,
            token: get(names::AWS_CONTAINER_AUTHORIZATION_TOKEN).map(Into::into),
            token_file: get(names::AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE).map(Into::into),
        }))
    }

    /// Who we are to Google: Application Default Credentials.
    pub(super) fn google(&self) -> Result<gcp::Credentials, Misuse> {
        let get = |name: &str| self.env.get_filled(name);
        let credentials = match get(names::GOOGLE_APPLICATION_CREDENTIALS) {
            Some(path) => {
                let name = names::GOOGLE_APPLICATION_CREDENTIALS;
                let text = String::from_utf8(self.file(name, Path::new(&path))?).unwrap_or_default();
                Some((SecretString::from(text), path))
            }
            None => {
                let config = get(names::CLOUDSDK_CONFIG).map(PathBuf::from);
                let folder = config.or_else(|| self.home(".config/gcloud"));
                match folder.map(|folder| folder.join("application_default_credentials.json")) {
                    Some(path) => self
                        .read("Google's application default credentials", &path)?
                        .map(|text| (text, path.display().to_string())),
                    None => None,
                }
            }
        };
        Ok(match credentials {
            Some((text, source)) => gcp::Credentials::File(text, source),
            None => {
                let host = get(names::GCE_METADATA_HOST);
                gcp::Credentials::Metadata(host.unwrap_or_else(|| GOOGLE_METADATA.to_owned()))
            }
        })
    }

    fn gcp(&self, key: gcp::Key) -> Result<gcp::Settings, Misuse> {
        let credentials = self.google()?;
        let endpoint = self.env.get_filled(names::CLOUDKMS_ENDPOINT);
        let endpoint = self.url(names::CLOUDKMS_ENDPOINT, endpoint.as_deref().unwrap_or(gcp::ENDPOINT))?;
        let quota_project = self.env.get_filled(names::GOOGLE_CLOUD_QUOTA_PROJECT);
        Ok(gcp::Settings { key, endpoint, credentials, quota_project, http: services::http(self.env) })
    }

    fn azure(&self, key: azure::Key) -> Result<azure::Settings, Misuse> {
        let get = |name: &str| self.env.get_filled(name);
        let application = || {
            let tenant = get(names::AZURE_TENANT_ID);
            let client = get(names::AZURE_CLIENT_ID);
            let (tenant, client) = tenant.zip(client).ok_or_else(|| {
                self.refuse(
                    "AZURE_TENANT_ID and AZURE_CLIENT_ID must be set with the secret or token file"
                        .to_owned(),
                )
            })?;
            let environment = get(names::AZURE_ENVIRONMENT).unwrap_or_default();
            let authority = get(names::AZURE_AUTHORITY_HOST);
            let authority = authority.unwrap_or_else(|| azure::authority_of(&environment).to_owned());
            let authority = self.url(names::AZURE_AUTHORITY_HOST, &authority)?;
            Ok::<_, Misuse>(azure::Application { authority, tenant, client })
        };
        let identity = match (get(names::AZURE_CLIENT_SECRET), get(names::AZURE_FEDERATED_TOKEN_FILE)) {
            (Some(secret), _) => {
                azure::Identity::Secret { secret: secret.into(), application: application()? }
            }
            (None, Some(file)) => azure::Identity::Federated {
                token_file: self.directory.join(file),
                application: application()?,
            },
            (None, None) if get(names::AZURE_CLIENT_CERTIFICATE_PATH).is_some() => {
                return Err(self.refuse(
                    "AZURE_CLIENT_CERTIFICATE_PATH is not supported: set AZURE_CLIENT_SECRET or AZURE_FEDERATED_TOKEN_FILE"
                        .to_owned(),
                ));
            }
            (None, None) => {
                let app = match get(names::IDENTITY_ENDPOINT).zip(get(names::IDENTITY_HEADER)) {
                    Some((url, header)) => Some((self.url(names::IDENTITY_ENDPOINT, &url)?, header.into())),
                    None => None,
                };
                let host = get(names::AZURE_POD_IDENTITY_AUTHORITY_HOST);
                let host = host.unwrap_or_else(|| METADATA.to_owned());
                let url = format!("{}/metadata/identity/oauth2/token", host.trim_end_matches('/'));
                let metadata = self.url(names::AZURE_POD_IDENTITY_AUTHORITY_HOST, &url)?;
                azure::Identity::Managed { client: get(names::AZURE_CLIENT_ID), app, metadata }
            }
        };
        Ok(azure::Settings { key, identity, http: services::http(self.env) })
    }

    fn plugin(&self, key: plugin::Key) -> Result<plugin::Settings, Misuse> {
        let name = key.program();
        let path = self.env.get_os(names::PATH).unwrap_or_default();
        let mut candidates = std::env::split_paths(&path)
            .filter(|folder| !folder.as_os_str().is_empty())
            .map(|folder| self.directory.join(folder).join(&name));
        let program = candidates.find(|candidate| is_program(candidate)).ok_or_else(|| Misuse::Value {
            name: self.source.to_string(),
            value: format!("{}://…", key.scheme),
            reason: format!("unknown key scheme `{}://`: there is no program `{name}` on PATH", key.scheme),
        })?;
        Ok(plugin::Settings { key, program, environment: self.env.all() })
    }

    fn pkcs11(&self, key: pkcs11::Key) -> Result<pkcs11::Settings, Misuse> {
        if !pkcs11::BUILT {
            let reason = "keys on tokens need a build that can load the token's library: `make install FEATURES=pkcs11`";
            return Err(self.refuse(reason.to_owned()));
        }
        let module = key.module.clone();
        let module =
            module.or_else(|| self.env.get_filled(names::COSIGN_PKCS11_MODULE_PATH).map(PathBuf::from));
        let module = module.ok_or_else(|| {
            self.refuse(
                "name the token's library with `module-path=` or COSIGN_PKCS11_MODULE_PATH".to_owned(),
            )
        })?;
        if !module.is_absolute() || !module.is_file() {
            return Err(
                self.refuse(format!("{} is no library, named by its absolute path", module.display()))
            );
        }
        let pin = match (&key.pin, &key.pin_file) {
            (Some(pin), _) => Some(pin.clone()),
            (None, Some(path)) => {
                let text = self.file("the token's PIN", path)?;
                let text = String::from_utf8(text).unwrap_or_default();
                Some(SecretString::from(text.trim_end_matches(['\r', '\n'])))
            }
            (None, None) => self.env.get_filled(names::COSIGN_PKCS11_PIN).map(SecretString::from),
        };
        let ignored = self.env.get_filled(names::COSIGN_PKCS11_IGNORE_CERTIFICATE);
        let check_certificate = ignored.as_deref() != Some("1");
        Ok(pkcs11::Settings { key, module, pin, check_certificate })
    }

    /// Says what is wrong with a reference in this environment.
    pub(super) fn refuse(&self, reason: String) -> Misuse {
        Misuse::Value { name: self.source.to_string(), value: self.shown.clone(), reason }
    }

    /// Reads an address; its text may hold a password and is not repeated.
    pub(super) fn url(&self, name: &str, text: &str) -> Result<Url, Misuse> {
        let url = text.parse::<Url>().ok();
        let bare = |url: &Url| url.username().is_empty() && url.password().is_none();
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host() && bare(url));
        url.ok_or_else(|| self.refuse(format!("{name} is no `https://` address without user and password")))
    }

    fn home(&self, below: &str) -> Option<PathBuf> {
        let home = self.env.get_os(names::HOME).filter(|home| !home.is_empty())?;
        Some(PathBuf::from(home).join(below))
    }

    fn file(&self, name: &'static str, path: &Path) -> Result<Vec<u8>, Misuse> {
        let path = self.directory.join(path);
        std::fs::read(&path).map_err(|source| Misuse::File { name, path, source })
    }

    /// Reads a file that need not be there.
    fn read(&self, name: &'static str, path: &Path) -> Result<Option<SecretString>, Misuse> {
        match std::fs::read_to_string(self.directory.join(path)) {
            Ok(text) => Ok(Some(text.into())),
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
            {
                Ok(None)
            }
            Err(source) => Err(Misuse::File { name, path: path.to_owned(), source }),
        }
    }
}

fn is_true(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "1" | "t" | "true")
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::env::Fixed;
    use crate::sign::key::KeyReference;

    fn read(text: &str, env: &Fixed) -> Result<KmsKey, Misuse> {
        let reader = Reader {
            env,
            directory: Path::new("/"),
            source: Source::Flag("--cosign-key"),
            shown: text.to_owned(),
        };
        match text.parse() {
            Ok(KeyReference::Kms(reference)) => reader.kms(reference),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_of_vault_and_openbao_prefers_its_own_variables() {
        let env = Fixed::new([
            ("VAULT_ADDR", "https://vault:8200"),
            ("BAO_ADDR", "https://bao:8200"),
            ("BAO_TOKEN", "SECRET"),
            ("VAULT_NAMESPACE", "team"),
        ]);
        for (text, address) in
            [("hashivault://k", "https://vault:8200/"), ("openbao://k", "https://bao:8200/")]
        {
            let key = read(text, &env).unwrap();
            assert!(!format!("{key:?}").contains("SECRET"));
            let KmsKey::Vault(settings) = key else { panic!("of Vault") };
            assert_eq!(settings.address.as_str(), address);
            assert_eq!((settings.mount.as_str(), settings.namespace.as_deref()), ("transit", Some("team")));
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let empty = Fixed::default();
        let said = |text: &str, env: &Fixed| read(text, env).unwrap_err().to_string();
        assert!(said("hashivault://k", &empty).contains("VAULT_ADDR is not set"));
        assert!(said("openbao://k", &empty).contains("BAO_ADDR is not set"));
        let env = Fixed::new([("VAULT_ADDR", "https://user:SECRET@[")]);
        let error = said("hashivault://k", &env);
        assert!(
            error.contains("VAULT_ADDR is no `https://` address without user") && !error.contains("SECRET"),
            "{error}"
        );
        let env = Fixed::new([("VAULT_ADDR", "https://v")]);
        assert!(said("hashivault://k", &env).contains("VAULT_TOKEN is not set"));
        let error = said("my-hsm://user:SECRET@x", &empty);
        assert!(
            error.contains("no program `sigstore-kms-my-hsm` on PATH") && !error.contains("SECRET"),
            "{error}"
        );
        let env = Fixed::new([("GOOGLE_APPLICATION_CREDENTIALS", "/no/such.json")]);
        let gcp = "gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k";
        assert!(said(gcp, &env).contains("GOOGLE_APPLICATION_CREDENTIALS"));
        let env = Fixed::new([("AZURE_CLIENT_SECRET", "SECRET")]);
        let error = said("azurekms://v.vault.azure.net/k", &env);
        assert!(error.contains("AZURE_TENANT_ID") && !error.contains("SECRET"), "{error}");
        // Else the machine's own identity would sign, which nobody asked for.
        let env = Fixed::new([("AZURE_CLIENT_CERTIFICATE_PATH", "app.pem")]);
        assert!(said("azurekms://v.vault.azure.net/k", &env).contains("is not supported: set AZURE_CLIENT"));
    }

    #[test]
    fn aws_reads_what_its_tools_read() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(".aws")).unwrap();
        std::fs::write(folder.path().join(".aws/credentials"), "[default]\naws_access_key_id = AK\n")
            .unwrap();
        let home = folder.path().to_str().unwrap();
        let env = Fixed::new([
            ("HOME", home),
            ("AWS_REGION", "eu-west-1"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/x"),
            ("AWS_ACCESS_KEY_ID", "AK"),
            ("AWS_SECRET_ACCESS_KEY", "SECRET"),
        ]);
        let key = read("awskms:///alias/app", &env).unwrap();
        assert!(!format!("{key:?}").contains("SECRET"), "{key:?}");
        let KmsKey::Aws(settings) = key else { panic!("of AWS") };
        assert_eq!(settings.region.as_deref(), Some("eu-west-1"));
        assert!(settings.sources.credentials.is_some() && settings.sources.config.is_none());
        assert!(settings.sources.metadata.is_none());
        assert_eq!(settings.sources.container.unwrap().url.as_str(), "http://169.254.170.2/v2/x");
    }
}
