//! The shared `config` and `credentials` files (AWS SDKs and Tools Reference Guide, "Shared config and credentials").

use std::collections::BTreeMap;

/// Sections of both files by name: `profile NAME`s and `sso-session NAME`s.
#[derive(Clone, Default)]
pub(super) struct Profiles {
    profiles: BTreeMap<String, BTreeMap<String, String>>,
    sessions: BTreeMap<String, BTreeMap<String, String>>,
}

impl Profiles {
    /// Reads both files; what the credentials file says of a profile beats the config file. Lines that mean
    /// nothing are passed over, as AWS's own tools do.
    pub(super) fn parse(config: Option<&str>, credentials: Option<&str>) -> Self {
        let mut all = Self::default();
        for (section, name, value) in config.into_iter().flat_map(lines) {
            match section.split_once(char::is_whitespace) {
                Some(("profile", profile)) => set(&mut all.profiles, unquoted(profile), name, value),
                Some(("sso-session", session)) => set(&mut all.sessions, unquoted(session), name, value),
                None if section == "default" => set(&mut all.profiles, section, name, value),
                _ => {}
            }
        }
        for (section, name, value) in credentials.into_iter().flat_map(lines) {
            set(&mut all.profiles, section, name, value);
        }
        all
    }

    pub(super) fn has(&self, profile: &str) -> bool {
        self.profiles.contains_key(profile)
    }

    /// Returns a profile's setting, if it is there and not empty.
    pub(super) fn get(&self, profile: &str, name: &str) -> Option<&str> {
        self.profiles.get(profile)?.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Returns a setting of a profile's single sign-on: its session's, or its own.
    pub(super) fn sso(&self, profile: &str, name: &str) -> Option<&str> {
        let session = self.get(profile, "sso_session").and_then(|session| self.sessions.get(session));
        session.and_then(|session| session.get(name)).map(String::as_str).or_else(|| self.get(profile, name))
    }
}

type Sections = BTreeMap<String, BTreeMap<String, String>>;

fn set(sections: &mut Sections, section: &str, name: &str, value: &str) {
    sections.entry(section.to_owned()).or_default().insert(name.to_ascii_lowercase(), value.to_owned());
}

fn unquoted(name: &str) -> &str {
    name.trim().trim_matches(['"', '\''])
}

/// Returns section, name and value of each setting.
fn lines(text: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    let mut section = "";
    text.lines().filter_map(move |line| {
        // An indented line belongs to a nested block, such as `s3 =`, which concerns nobody here.
        if line.starts_with([' ', '\t', '#', ';']) {
            return None;
        }
        let line = line.split(" #").next()?.split(" ;").next()?.trim();
        if let Some(rest) = line.strip_prefix('[') {
            section = rest.split(']').next()?.trim();
            return None;
        }
        let (name, value) = line.split_once('=')?;
        Some((section, name.trim(), value.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_files_make_one() {
        let config = "# comment\n[default]\nregion = eu-west-1\ns3 =\n  max = 1\n[profile  ci] ; x\nREGION=us-east-1 # here\n\
                      role_arn = arn:x\n[sso-session corp]\nsso_region = eu-north-1\n[profile login]\nsso_session = corp\n\
                      [ignored]\naws_access_key_id = no\n";
        let credentials = "[ci]\naws_access_key_id=AK\n[default]\naws_secret_access_key = a=b\n";
        let profiles = Profiles::parse(Some(config), Some(credentials));
        assert_eq!(profiles.get("default", "region"), Some("eu-west-1"));
        assert_eq!(profiles.get("default", "aws_secret_access_key"), Some("a=b"));
        assert_eq!(profiles.get("default", "s3"), None);
        assert_eq!(profiles.get("default", "max"), None);
        assert_eq!(profiles.get("ci", "region"), Some("us-east-1"));
        assert_eq!(profiles.get("ci", "aws_access_key_id"), Some("AK"));
        assert_eq!(profiles.sso("login", "sso_region"), Some("eu-north-1"));
        assert!(!profiles.has("ignored"));
        assert!(!Profiles::parse(None, None).has("default"));
    }

    proptest::proptest! {
        #[test]
        fn nothing_breaks_it(text in "[\\[\\]a-z=#; \n\t\"é]{0,80}") {
            drop(Profiles::parse(Some(&text), Some(&text)));
        }
    }
}
