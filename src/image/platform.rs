//! Platforms as people write them and as manifests have them, normalised as containerd does (platforms/database.go),
//! so that `linux/aarch64`, `linux/arm64/v8` and `linux/arm64` are one.

use crate::registry::DescriptorPlatform;
use std::fmt;
use std::str::FromStr;

/// What an image runs on, in its normal form.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Platform {
    /// Go's GOOS.
    pub os: String,
    /// Go's GOARCH.
    pub architecture: String,
    /// Such as `v7`, where it isn't the usual one.
    pub variant: Option<String>,
    /// Windows' build, such as `10.0.17763`.
    pub os_version: Option<String>,
    /// What it needs of the system, such as `win32k`, in order.
    pub os_features: Vec<String>,
}

/// Why a text is no platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    /// It is not written as one.
    #[error(
        "a platform is written OS/ARCH or OS/ARCH/VARIANT, such as `linux/arm64`, and Windows with its version and \
             features, such as `windows(10.0.17763+win32k)/amd64`"
    )]
    Form,
    /// An operating system alone.
    #[error("`{0}` says no architecture: write `{0}/amd64` or `{0}/arm64`")]
    NoArchitecture(String),
}

/// The architectures that may stand alone: nobody has an operating system of that name.
const ARCHITECTURES: &[&str] = &[
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "arm64",
    "arm64be",
    "armbe",
    "loong64",
    "mips",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "mipsle",
    "ppc",
    "ppc64",
    "ppc64le",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "sparc64",
    "wasm",
];

/// The operating systems that may be written without an architecture elsewhere.
const SYSTEMS: &[&str] = &["linux", "windows", "darwin", "freebsd", "wasip1"];

impl Platform {
    /// Returns the normal form of these parts.
    pub fn new(os: &str, architecture: &str, variant: &str) -> Self {
        let (architecture, variant) = normalise(&architecture.to_lowercase(), &variant.to_lowercase());
        let os = match os.to_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            other => other.to_owned(),
        };
        let variant = Some(variant).filter(|it| !it.is_empty());
        Self { os, architecture, variant, os_version: None, os_features: Vec::new() }
    }

    /// Returns the platform of an index entry, if it has one: BuildKit's attestations stand there as
    /// `unknown/unknown`.
    pub fn of(entry: &DescriptorPlatform) -> Option<Self> {
        if entry.os == "unknown" || entry.os.is_empty() {
            return None;
        }
        let platform =
            Self::new(&entry.os, &entry.architecture, entry.variant.as_deref().unwrap_or_default());
        Some(platform.with(entry.os_version.clone(), entry.os_features.clone()))
    }

    fn with(self, os_version: Option<String>, mut os_features: Vec<String>) -> Self {
        os_features.sort();
        os_features.dedup();
        Self { os_version, os_features, ..self }
    }

    /// Whether a machine of this architecture runs it by itself. An amd64 runs 386 in any variant that a person
    /// asks for; an arm64 may or may not have a 32-bit mode, which only its daemon can tell.
    pub fn runs_on(&self, architecture: &str) -> bool {
        let family = |of: &str| matches!((architecture, of), ("amd64", "386") | ("arm64", "arm"));
        self.os == "linux" && (self.architecture == architecture || family(&self.architecture))
    }

    /// Whether a daemon that names these platforms runs this one: variants below a named one are part of it.
    pub fn is_among(&self, offered: &[Self]) -> bool {
        offered.iter().any(|offer| {
            offer.os == self.os
                && offer.architecture == self.architecture
                && (offer.variant == self.variant || level(self) <= level(offer))
        })
    }
}

/// How much of its architecture a platform asks for: a machine with `v3` runs what is built for `v2`.
fn level(platform: &Platform) -> u32 {
    let number = |text: &str| text.trim_start_matches('v').split('.').next()?.parse().ok();
    let usual = match platform.architecture.as_str() {
        "amd64" => 1,
        "arm64" => 8,
        "arm" => 7,
        _ => 0,
    };
    platform.variant.as_deref().and_then(number).unwrap_or(usual)
}

/// Returns architecture and variant by the names that manifests have (containerd platforms/database.go).
fn normalise(architecture: &str, variant: &str) -> (String, String) {
    let (architecture, variant) = match (architecture, variant) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
        ("aarch64" | "arm64", "9" | "v9.0") => ("arm64", "v9"),
        ("aarch64" | "arm64", variant) => ("arm64", variant),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        other => other,
    };
    (architecture.to_owned(), variant.to_owned())
}

impl FromStr for Platform {
    type Err = PlatformError;

    /// containerd's grammar: `OS[(VERSION[+FEATURE]...)]/ARCH[/VARIANT]`.
    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let word =
            |part: &str, more: &str| part.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c));
        let mut parts: Vec<&str> = text.split('/').collect();
        let first = parts.remove(0);
        let (system, options) = match first.split_once('(') {
            Some((system, options)) => (system, Some(options.strip_suffix(')').ok_or(PlatformError::Form)?)),
            None => (first, None),
        };
        let part = |part: &&str| !part.is_empty() && word(part, "_.-");
        if system.is_empty() || !word(system, "_-") || !parts.iter().all(part) {
            return Err(PlatformError::Form);
        }
        let option =
            |option: &str| decoded(option).filter(|_| word(option, "_.%-")).ok_or(PlatformError::Form);
        let mut options_of = options.unwrap_or_default().split('+').map(option);
        let os_version = options_of.next().transpose()?.filter(|version| !version.is_empty());
        let os_features = options_of.collect::<Result<Vec<_>, _>>()?;
        if os_features.contains(&String::new()) {
            return Err(PlatformError::Form);
        }
        let platform = match parts[..] {
            // The builder runs Linux, whatever the client does.
            [] => {
                let lower = system.to_lowercase();
                let alone = Self::new("linux", &lower, "");
                if ARCHITECTURES.contains(&alone.architecture.as_str()) && options.is_none() {
                    return Ok(alone);
                }
                if SYSTEMS.contains(&lower.as_str()) {
                    return Err(PlatformError::NoArchitecture(lower));
                }
                return Err(PlatformError::Form);
            }
            [architecture] => Self::new(system, architecture, ""),
            [architecture, variant] => Self::new(system, architecture, variant),
            _ => return Err(PlatformError::Form),
        };
        Ok(platform.with(os_version, os_features))
    }
}

/// Decodes an option of a system: `%2B` stands for the `+` that would begin the next.
fn decoded(text: &str) -> Option<String> {
    let mut pieces = text.split('%');
    let mut bytes = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        let (code, rest) = piece.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(code, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

fn encoded(text: &str) -> String {
    ["%25", "%2B", "%28", "%29", "%2F"]
        .iter()
        .zip(["%", "+", "(", ")", "/"])
        .fold(text.to_owned(), |text, (code, of)| text.replace(of, code))
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.os)?;
        if self.os_version.is_some() || !self.os_features.is_empty() {
            write!(f, "({}", encoded(self.os_version.as_deref().unwrap_or_default()))?;
            self.os_features.iter().try_for_each(|feature| write!(f, "+{}", encoded(feature)))?;
            f.write_str(")")?;
        }
        write!(f, "/{}", self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("linux/amd64", "linux/amd64")]
    #[case("linux/x86_64", "linux/amd64")]
    #[case("linux/amd64/v1", "linux/amd64")]
    #[case("linux/amd64/v3", "linux/amd64/v3")]
    #[case("Linux/AMD64", "linux/amd64")]
    #[case("linux/i386", "linux/386")]
    #[case("linux/aarch64", "linux/arm64")]
    #[case("linux/arm64/v8", "linux/arm64")]
    #[case("linux/arm64/8", "linux/arm64")]
    #[case("linux/arm64/v9", "linux/arm64/v9")]
    #[case("linux/arm", "linux/arm/v7")]
    #[case("linux/arm/6", "linux/arm/v6")]
    #[case("linux/armhf", "linux/arm/v7")]
    #[case("linux/armel", "linux/arm/v6")]
    #[case("macos/arm64", "darwin/arm64")]
    #[case("windows(10.0.17763)/amd64", "windows(10.0.17763)/amd64")]
    #[case("windows(10.0.17763+win32k)/amd64", "windows(10.0.17763+win32k)/amd64")]
    #[case("linux(+sse4+aes+aes)/amd64/v1", "linux(+aes+sse4)/amd64")]
    #[case("windows(10%2B1+a%2fb)/amd64", "windows(10%2B1+a%2Fb)/amd64")]
    #[case("linux()/amd64", "linux/amd64")]
    #[case("arm64", "linux/arm64")]
    #[case("linux/riscv64", "linux/riscv64")]
    fn platforms_have_one_spelling(#[case] text: &str, #[case] normal: &str) {
        let platform: Platform = text.parse().expect("a platform");
        assert_eq!(platform.to_string(), normal);
        assert_eq!(normal.parse::<Platform>().expect("a platform"), platform);
    }

    /// Each case of containerd's normalizeArch and its tables of systems and architectures (platforms/database.go).
    #[rstest]
    #[case("i386", &["", "v1"], "386")]
    #[case("x86_64", &["", "v1", "V1"], "amd64")]
    #[case("x86-64", &["v2"], "amd64/v2")]
    #[case("AMD64", &["v4"], "amd64/v4")]
    #[case("Aarch64", &["", "8", "v8"], "arm64")]
    #[case("arm64", &["v9"], "arm64/v9")]
    #[case("armhf", &["", "v6"], "arm/v7")]
    #[case("armel", &["", "v7"], "arm/v6")]
    #[case("arm", &["", "7", "v7", "V7"], "arm/v7")]
    #[case("arm", &["5", "v5"], "arm/v5")]
    #[case("arm", &["6"], "arm/v6")]
    #[case("arm", &["8"], "arm/v8")]
    #[case("s390x", &[""], "s390x")]
    fn architectures_and_variants_are_containerds(
        #[case] architecture: &str,
        #[case] variants: &[&str],
        #[case] normal: &str,
    ) {
        for variant in variants {
            let platform = Platform::new("linux", architecture, variant);
            assert_eq!(platform.to_string(), format!("linux/{normal}"), "{architecture}/{variant}");
        }
        let alone: Result<Platform, _> = architecture.parse();
        assert_eq!(alone.expect("an architecture alone"), Platform::new("linux", architecture, ""));
    }

    #[rstest]
    #[case("")]
    #[case("linux/")]
    #[case("linux/arm/")]
    #[case("/linux/arm")]
    #[case("linux /arm")]
    #[case("linux/&arm")]
    #[case("windows(10.0.17763+)/amd64")]
    #[case("windows(10.0.17763+win 32k)/amd64")]
    #[case("windows(10%2)/amd64")]
    #[case("windows(10%zz)/amd64")]
    #[case("windows(10)x/amd64")]
    #[case("amd64(+x)")]
    #[case("lin.ux/amd64")]
    #[case("linux/*")]
    #[case("/amd64")]
    #[case("linux/arm/v7/x")]
    #[case("linux/arm 64")]
    #[case("windows(10/amd64")]
    #[case("linux")]
    #[case("local")]
    fn what_is_no_platform(#[case] text: &str) {
        assert!(text.parse::<Platform>().is_err());
    }

    #[rstest]
    #[case("linux/amd64", "amd64", true)]
    #[case("linux/386", "amd64", true)]
    #[case("linux/amd64/v3", "amd64", true)]
    #[case("linux/arm/v7", "arm64", true)]
    #[case("linux/arm64", "amd64", false)]
    #[case("linux/amd64", "386", false)]
    #[case("windows/amd64", "amd64", false)]
    fn natives(#[case] platform: &str, #[case] architecture: &str, #[case] native: bool) {
        assert_eq!(platform.parse::<Platform>().expect("a platform").runs_on(architecture), native);
    }

    #[rstest]
    #[case("linux/amd64", &["linux/amd64"], true)]
    #[case("linux/amd64/v2", &["linux/amd64", "linux/amd64/v2"], true)]
    #[case("linux/amd64/v3", &["linux/amd64", "linux/amd64/v2"], false)]
    #[case("linux/arm/v6", &["linux/arm64", "linux/arm/v7"], true)]
    #[case("linux/arm/v7", &["linux/arm/v6"], false)]
    #[case("linux/arm/v7", &["linux/arm64"], false)]
    #[case("linux/arm64", &["linux/amd64"], false)]
    fn a_daemon_runs_what_it_names(#[case] platform: &str, #[case] offered: &[&str], #[case] runs: bool) {
        let offered: Vec<Platform> = offered.iter().map(|text| text.parse().expect("a platform")).collect();
        assert_eq!(platform.parse::<Platform>().expect("a platform").is_among(&offered), runs);
    }
}
