//! The daemon's settings: `buildkitd.toml` made from a file and flags, and read back from a builder.
//!
//! Pure. The registry settings of a builder live here and nowhere else, so that the daemon's pulls and pushes and
//! the client's own registry calls share them.

use std::collections::BTreeMap;
use toml::{Table, Value};

/// The file's key in the ConfigMap.
pub const CONFIG_KEY: &str = "buildkitd.toml";
/// Where the builder's own ConfigMap is mounted.
pub const CONFIG_DIRECTORY: &str = "/etc/buildkit";
/// Where the ConfigMap of `--custom-config` is mounted, as the predecessor did.
pub const CUSTOM_DIRECTORY: &str = "/etc/config";

/// The content of a builder that nobody configured.
pub const DEFAULT_CONFIG: &str = "\
# Default buildkitd configuration.
# Another is given with `kubectl buildkit create --config FILE`; the format is BuildKit's:
# https://docs.docker.com/build/buildkit/toml-configuration/
";

/// How one registry is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryHost {
    /// PEM bundles, one per file.
    pub ca_pem: Vec<Vec<u8>>,
    /// Plain HTTP.
    pub http: bool,
    /// TLS without verification.
    pub insecure: bool,
    /// Hosts to pull from instead.
    pub mirrors: Vec<String>,
}

/// The entry of a builder's ConfigMap that names its key.
const BUILDER_KEY: &str = "builder-key";

/// What a builder is set up with: how registries are reached, by `host[:port]`, and whose key signs for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistrySettings {
    /// The registries that differ from the default.
    pub hosts: BTreeMap<String, RegistryHost>,
    /// CA files that the daemon's settings name and the cluster's objects don't hold (`host`, `path`): the
    /// daemon may have them, the client does not.
    pub unread: Vec<(String, String)>,
    /// The reference of the key that signs what is built there, beside the user's: never the key itself.
    pub builder_key: Option<String>,
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not TOML.
    #[error("the builder's configuration is not valid TOML")]
    Syntax(#[source] toml::de::Error),
    /// TOML, but `registry` is not as BuildKit wants it.
    #[error("the builder's configuration has a malformed `registry` section: {0}")]
    Registry(String),
    /// A CA file holds no certificate.
    #[error("the CA file for registry `{0}` holds no PEM certificate")]
    NoCertificate(String),
}

impl ConfigError {
    /// Returns what a person can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(
            "the format is described at https://docs.docker.com/build/buildkit/toml-configuration/"
                .to_owned(),
        )
    }
}

/// The content of a builder's ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFiles {
    /// Key to text: `buildkitd.toml` and CA files.
    pub files: BTreeMap<String, String>,
}

impl ConfigFiles {
    /// Makes the files from `--config`'s text (as given, byte for byte, when no registry flag changes it) and
    /// the registry flags, which win over it.
    ///
    /// # Errors
    /// When the text is not what BuildKit would read, or a CA is none.
    pub fn render(config: Option<&str>, registries: &RegistrySettings) -> Result<Self, ConfigError> {
        let text = config.unwrap_or(DEFAULT_CONFIG);
        let mut table: Table = text.parse().map_err(ConfigError::Syntax)?;
        registry_table(&table)?;
        let mut files = BTreeMap::new();
        files.extend(registries.builder_key.iter().map(|key| (BUILDER_KEY.to_owned(), key.clone())));
        if registries.hosts.is_empty() {
            files.insert(CONFIG_KEY.to_owned(), text.to_owned());
            return Ok(Self { files });
        }
        let section = table.entry("registry").or_insert_with(|| Value::Table(Table::new()));
        let section = section.as_table_mut().expect("checked above");
        for (host, settings) in &registries.hosts {
            let entry = section.entry(host.clone()).or_insert_with(|| Value::Table(Table::new()));
            let entry =
                entry.as_table_mut().ok_or_else(|| ConfigError::Registry(format!("`{host}` is no table")))?;
            if settings.http {
                entry.insert("http".to_owned(), Value::Boolean(true));
            }
            if settings.insecure {
                entry.insert("insecure".to_owned(), Value::Boolean(true));
            }
            if !settings.mirrors.is_empty() {
                entry.insert("mirrors".to_owned(), strings(&settings.mirrors));
            }
            if !settings.ca_pem.is_empty() {
                let mut paths = Vec::new();
                for (index, pem) in settings.ca_pem.iter().enumerate() {
                    let pem = String::from_utf8(pem.clone())
                        .ok()
                        .filter(|text| text.contains("-----BEGIN CERTIFICATE"));
                    let pem = pem.ok_or_else(|| ConfigError::NoCertificate(host.clone()))?;
                    let key = ca_key(host, index);
                    paths.push(format!("{CONFIG_DIRECTORY}/{key}"));
                    files.insert(key, pem);
                }
                entry.insert("ca".to_owned(), strings(&paths));
            }
        }
        let comment = match config {
            Some(_) => "# From the given configuration and the registry flags.\n".to_owned(),
            None => DEFAULT_CONFIG.to_owned(),
        };
        files.insert(CONFIG_KEY.to_owned(), format!("{comment}\n{table}"));
        Ok(Self { files })
    }

    /// Returns a short mark that differs when the content does; a pod template that carries it restarts the
    /// builder with new settings.
    pub fn mark(&self) -> String {
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        for (key, text) in &self.files {
            for part in [key, text] {
                context.update(&(part.len() as u64).to_le_bytes());
                context.update(part.as_bytes());
            }
        }
        context.finish().as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Reads the registry settings back from a builder's files: `own` are those of its ConfigMap, `custom` those of
/// the `--custom-config` ConfigMap. Settings that do not parse are nobody's: the daemon refuses them too.
pub fn read_registries(
    own: &BTreeMap<String, Vec<u8>>,
    custom: &BTreeMap<String, Vec<u8>>,
) -> RegistrySettings {
    let mut settings = RegistrySettings::default();
    let key = own.get(BUILDER_KEY).and_then(|bytes| std::str::from_utf8(bytes).ok());
    settings.builder_key = key.map(str::trim).filter(|key| !key.is_empty()).map(str::to_owned);
    let Some(table) =
        own.get(CONFIG_KEY).and_then(|bytes| std::str::from_utf8(bytes).ok()?.parse::<Table>().ok())
    else {
        return settings;
    };
    let Ok(Some(section)) = registry_table(&table) else { return settings };
    for (host, entry) in section {
        let Some(entry) = entry.as_table() else { continue };
        let flag = |name: &str| entry.get(name).and_then(Value::as_bool).unwrap_or(false);
        let list = |name: &str| -> Vec<String> {
            let values = entry.get(name).and_then(Value::as_array).into_iter().flatten();
            values.filter_map(|value| value.as_str().map(str::to_owned)).collect()
        };
        let mut registry = RegistryHost {
            ca_pem: Vec::new(),
            http: flag("http"),
            insecure: flag("insecure"),
            mirrors: list("mirrors"),
        };
        for path in list("ca") {
            let inside = |directory: &str| path.strip_prefix(directory)?.strip_prefix('/').map(str::to_owned);
            let found = inside(CONFIG_DIRECTORY)
                .and_then(|key| own.get(&key))
                .or_else(|| inside(CUSTOM_DIRECTORY).and_then(|key| custom.get(&key)));
            match found {
                Some(bytes) => registry.ca_pem.push(bytes.clone()),
                None => settings.unread.push((host.clone(), path)),
            }
        }
        settings.hosts.insert(host.clone(), registry);
    }
    settings
}

fn registry_table(table: &Table) -> Result<Option<&Table>, ConfigError> {
    match table.get("registry") {
        None => Ok(None),
        Some(Value::Table(section)) => match section.iter().find(|(_, entry)| !entry.is_table()) {
            None => Ok(Some(section)),
            Some((name, _)) => Err(ConfigError::Registry(format!(
                "`registry.{name}` is no table; write [registry.\"HOST\"]"
            ))),
        },
        Some(_) => Err(ConfigError::Registry("`registry` is no table".to_owned())),
    }
}

fn strings(values: &[String]) -> Value {
    Value::Array(values.iter().cloned().map(Value::String).collect())
}

/// Returns the key of a CA file: ConfigMap keys take letters, digits, `-`, `_` and `.` only.
fn ca_key(host: &str, index: usize) -> String {
    let host: String = host
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '_' })
        .collect();
    match index {
        0 => format!("registry-{host}.crt"),
        _ => format!("registry-{host}.{index}.crt"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEM: &[u8] = b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";

    fn bytes(files: &ConfigFiles) -> BTreeMap<String, Vec<u8>> {
        files.files.iter().map(|(key, text)| (key.clone(), text.clone().into_bytes())).collect()
    }

    #[test]
    fn the_default_says_that_it_is() {
        let files = ConfigFiles::render(None, &RegistrySettings::default()).unwrap();
        assert!(files.files[CONFIG_KEY].contains("Default buildkitd configuration."));
    }

    #[test]
    fn a_given_file_is_kept_byte_for_byte() {
        let text = "debug = true # why\n[registry.\"r:5000\"]\nhttp=true\n";
        let files = ConfigFiles::render(Some(text), &RegistrySettings::default()).unwrap();
        assert_eq!(files.files[CONFIG_KEY], text);
        let read = read_registries(&bytes(&files), &BTreeMap::new());
        assert!(read.hosts["r:5000"].http);
    }

    #[test]
    fn flags_and_file_are_read_back_as_one() {
        let flags = RegistrySettings {
            hosts: BTreeMap::from([
                (
                    "r:5000".to_owned(),
                    RegistryHost { insecure: true, ca_pem: vec![PEM.to_vec()], ..Default::default() },
                ),
                (
                    "docker.io".to_owned(),
                    RegistryHost { mirrors: vec!["mirror.corp".to_owned()], ..Default::default() },
                ),
            ]),
            ..RegistrySettings::default()
        };
        let text = "debug = true\n[registry.\"r:5000\"]\nhttp = true\n[registry.other]\nca = [\"/etc/config/cert.pem\", \"/elsewhere.pem\"]\n";
        let files = ConfigFiles::render(Some(text), &flags).unwrap();
        insta::assert_snapshot!(files.files[CONFIG_KEY], @r#"
        # From the given configuration and the registry flags.

        debug = true

        [registry."docker.io"]
        mirrors = ["mirror.corp"]

        [registry.other]
        ca = ["/etc/config/cert.pem", "/elsewhere.pem"]

        [registry."r:5000"]
        ca = ["/etc/buildkit/registry-r_5000.crt"]
        http = true
        insecure = true
        "#);
        let custom = BTreeMap::from([("cert.pem".to_owned(), b"custom".to_vec())]);
        let read = read_registries(&bytes(&files), &custom);
        let expected =
            RegistryHost { http: true, insecure: true, ca_pem: vec![PEM.to_vec()], mirrors: Vec::new() };
        assert_eq!(read.hosts["r:5000"], expected);
        assert_eq!(read.hosts["other"].ca_pem, [b"custom".to_vec()]);
        assert_eq!(read.unread, [("other".to_owned(), "/elsewhere.pem".to_owned())]);
    }

    #[test]
    fn what_the_daemon_would_refuse_is_refused_before() {
        assert!(matches!(
            ConfigFiles::render(Some("a = "), &RegistrySettings::default()),
            Err(ConfigError::Syntax(_))
        ));
        let error =
            ConfigFiles::render(Some("[registry]\nhttp = true\n"), &RegistrySettings::default()).unwrap_err();
        assert!(error.to_string().contains("write [registry.\"HOST\"]"), "{error}");
    }

    #[test]
    fn the_mark_follows_the_content() {
        let one = ConfigFiles::render(None, &RegistrySettings::default()).unwrap();
        let two = ConfigFiles::render(Some("debug = true"), &RegistrySettings::default()).unwrap();
        assert_ne!(one.mark(), two.mark());
        assert_eq!(one.mark().len(), 16);
    }

    #[test]
    fn the_builders_key_is_read_back_and_changes_nothing_else() {
        let settings =
            RegistrySettings { builder_key: Some("k8s://ci/builder".to_owned()), ..Default::default() };
        let files = ConfigFiles::render(None, &settings).unwrap().files;
        let plain = ConfigFiles::render(None, &RegistrySettings::default()).unwrap().files;
        assert_eq!(files[CONFIG_KEY], plain[CONFIG_KEY]);
        let bytes = files.into_iter().map(|(name, text)| (name, text.into_bytes())).collect();
        assert_eq!(read_registries(&bytes, &BTreeMap::new()), settings);
        assert_eq!(plain.len(), 1);
    }
}
