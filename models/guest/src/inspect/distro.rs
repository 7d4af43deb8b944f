//! Which distribution, from the files that say so, in the order libguestfs asks them: os-release, lsb-release, the
//! vendors' release files, debian_version last (CentOS 6 has only the release files).

use super::fstab::numbered;
use super::model::{Family, Os, Sourced};
use drylab_catalog::Witness;

/// Release files of vendors and the distribution each means.
const RELEASE_FILES: [(&str, &str); 8] = [
    ("/etc/oracle-release", "oracle"),
    ("/etc/centos-release", "centos"),
    ("/etc/rocky-release", "rocky"),
    ("/etc/almalinux-release", "almalinux"),
    ("/etc/fedora-release", "fedora"),
    ("/etc/redhat-release", "rhel"),
    ("/etc/SuSE-release", "suse"),
    ("/etc/system-release", "unknown"),
];

/// Files to read for [`identify`].
pub(crate) fn files() -> impl Iterator<Item = &'static str> {
    let named = [
        "/etc/os-release",
        "/usr/lib/os-release",
        "/etc/lsb-release",
        "/etc/debian_version",
    ];
    named
        .into_iter()
        .chain(RELEASE_FILES.iter().map(|(path, _)| *path))
}

/// Identifies the distribution; `read` gives the text of a file.
pub(crate) fn identify(read: &dyn Fn(&str) -> Option<String>, arch: Sourced<String>) -> Os {
    let keyed = [
        ("/etc/os-release", "ID", "VERSION_ID", "PRETTY_NAME"),
        ("/usr/lib/os-release", "ID", "VERSION_ID", "PRETTY_NAME"),
        (
            "/etc/lsb-release",
            "DISTRIB_ID",
            "DISTRIB_RELEASE",
            "DISTRIB_DESCRIPTION",
        ),
    ];
    for (path, id, version, pretty) in keyed {
        let Some(text) = read(path) else { continue };
        let Some(name) = assignment(&text, path, id) else {
            continue;
        };
        let name = Sourced::new(name.value.to_lowercase(), name.witness);
        let empty = || {
            Sourced::new(
                String::new(),
                Witness::file(path, 0, format!("no line {version}=")),
            )
        };
        let version = assignment(&text, path, version).unwrap_or_else(empty);
        let pretty = assignment(&text, path, pretty).unwrap_or_else(|| name.clone());
        return Os {
            family: Family::Linux,
            name,
            version,
            arch,
            pretty,
        };
    }
    for (path, fallback) in RELEASE_FILES {
        let Some(text) = read(path) else { continue };
        let Some((line, content)) = numbered(&text).find(|(_, content)| !content.trim().is_empty())
        else {
            continue;
        };
        let content = content.trim();
        let witness = Witness::file(path, line, content);
        let lower = content.to_lowercase();
        let known = [
            "centos",
            "red hat",
            "oracle",
            "scientific",
            "fedora",
            "rocky",
            "almalinux",
            "suse",
        ];
        let name = known
            .iter()
            .find(|name| lower.contains(**name))
            .map_or(fallback, |name| match *name {
                "red hat" => "rhel",
                name => name,
            });
        let digit = |word: &&str| word.starts_with(|letter: char| letter.is_ascii_digit());
        let version = content.split_whitespace().find(digit).unwrap_or_default();
        return Os {
            family: Family::Linux,
            name: Sourced::new(name.to_owned(), witness.clone()),
            version: Sourced::new(version.to_owned(), witness.clone()),
            arch,
            pretty: Sourced::new(content.to_owned(), witness),
        };
    }
    debian(read("/etc/debian_version"), arch)
}

/// Debian by its version file, or a Linux that says nothing of itself.
fn debian(text: Option<String>, arch: Sourced<String>) -> Os {
    let path = "/etc/debian_version";
    let name = if text.is_some() { "debian" } else { "linux" };
    let text = text.unwrap_or_default();
    let version = text.lines().next().unwrap_or_default().trim();
    let witness = match name {
        "debian" => Witness::file(path, 1, version),
        _ => Witness::file("/etc", 0, "no release file"),
    };
    Os {
        family: Family::Linux,
        name: Sourced::new(name.to_owned(), witness.clone()),
        version: Sourced::new(version.to_owned(), witness.clone()),
        arch,
        pretty: Sourced::new(format!("{name} {version}").trim().to_owned(), witness),
    }
}

/// Value of a shell assignment `key=value`, quotes removed.
pub(crate) fn assignment(text: &str, path: &str, key: &str) -> Option<Sourced<String>> {
    numbered(text).find_map(|(line, content)| {
        let value = content.trim().strip_prefix(key)?.strip_prefix('=')?;
        let value = value
            .trim()
            .trim_matches(|letter| letter == '"' || letter == '\'');
        Some(Sourced::new(
            value.to_owned(),
            Witness::file(path, line, content.trim()),
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::{Sourced, identify};
    use drylab_catalog::Witness;

    fn os(files: &[(&str, &str)]) -> (String, String, String) {
        let read = |path: &str| {
            files
                .iter()
                .find(|(name, _)| *name == path)
                .map(|(_, text)| (*text).to_owned())
        };
        let os = identify(
            &read,
            Sourced::new(String::new(), Witness::file("/bin/sh", 0, "")),
        );
        (
            os.name.value,
            os.version.value,
            os.name.witness.place.to_string(),
        )
    }

    #[test]
    fn distributions_are_known_by_their_own_files() {
        let centos = [("/etc/redhat-release", "CentOS release 6.3 (Final)\n")];
        assert_eq!(
            os(&centos),
            (
                "centos".into(),
                "6.3".into(),
                "/etc/redhat-release:1".into()
            )
        );
        let ubuntu = [
            (
                "/etc/lsb-release",
                "DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=12.04\n",
            ),
            ("/etc/debian_version", "wheezy/sid\n"),
        ];
        assert_eq!(
            os(&ubuntu),
            ("ubuntu".into(), "12.04".into(), "/etc/lsb-release:1".into())
        );
        let rhel = [(
            "/etc/redhat-release",
            "Red Hat Enterprise Linux Server release 6.3 (Santiago)\n",
        )];
        assert_eq!(os(&rhel).0, "rhel");
        assert_eq!(
            os(&[("/etc/debian_version", "6.0.5\n")]),
            (
                "debian".into(),
                "6.0.5".into(),
                "/etc/debian_version:1".into()
            )
        );
        assert_eq!(os(&[]).0, "linux");
    }
}
