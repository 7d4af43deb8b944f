//! Which names inside a descriptor may be followed.
//!
//! DSP0243 1.1 §7.1: `ovf:href` is a URI, relative to the descriptor. A reader that resolves whatever stands there
//! reads any file of the machine it runs on, so only plain relative paths below the descriptor pass.

use crate::findings::quote;
use drylab_block::{Error, Result};

/// Longest name accepted, in bytes: what one path may have on the systems the lab models.
const LONGEST: usize = 4096;

/// The percent-decoded relative path that `href` names, when following it cannot leave the descriptor's folder.
///
/// # Errors
/// [`Error::Unsupported`] for absolute paths, `.` and `..` segments, empty segments, backslashes, URL schemes and drive
/// letters, control characters, and names over 4096 bytes; [`Error::Corrupt`] for broken percent-encoding.
pub fn safe_href(href: &str) -> Result<String> {
    let refuse = |why: &str| Error::unsupported(format_args!("href {} {why}", quote(href)));
    if href.len() > LONGEST {
        return Err(refuse("is longer than 4096 bytes"));
    }
    // The scheme is looked for before decoding (as a URI reader does) and after (as a file opener would).
    if has_scheme(href) {
        return Err(refuse("has a URL scheme or a drive letter"));
    }
    let name = percent_decode(href)?;
    if name.is_empty() {
        return Err(refuse("is empty"));
    }
    if has_scheme(&name) {
        return Err(refuse("has a URL scheme or a drive letter"));
    }
    if name.starts_with('/') {
        return Err(refuse("is absolute"));
    }
    if name.contains('\\') {
        return Err(refuse("has a backslash"));
    }
    if name.chars().any(char::is_control) {
        return Err(refuse("has a control character"));
    }
    if name
        .split('/')
        .any(|part| part == "." || part == ".." || part.is_empty())
    {
        return Err(refuse("has an empty, \".\" or \"..\" segment"));
    }
    Ok(name)
}

/// RFC 3986 §3.1: a letter, then letters, digits, `+`, `-`, `.`, up to a colon before any slash.
fn has_scheme(text: &str) -> bool {
    let Some((scheme, _)) = text.split_once(':') else {
        return false;
    };
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

/// Replaces `%XX` once.
fn percent_decode(text: &str) -> Result<String> {
    let broken = || {
        Error::corrupt(format_args!(
            "href {} has broken percent-encoding",
            quote(text)
        ))
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(broken());
        };
        let value = high.saturating_mul(16).saturating_add(low);
        bytes.push(u8::try_from(value).map_err(|_| broken())?);
    }
    String::from_utf8(bytes).map_err(|_| broken())
}

#[cfg(test)]
mod tests {
    use super::safe_href;

    #[test]
    fn plain_names_pass_and_are_decoded_once() {
        for (href, name) in [
            ("disk1.vmdk", "disk1.vmdk"),
            ("a b%20c.vmdk", "a b c.vmdk"),
            ("disks/one.vmdk", "disks/one.vmdk"),
            ("100%25.vmdk", "100%.vmdk"),
            ("%2541", "%41"),
            (
                "vm:name with a space before:colon",
                "vm:name with a space before:colon",
            ),
            ("..vmdk", "..vmdk"),
        ] {
            // "vm:…" is a scheme by grammar; only its variant with a blank in front of the colon is a name.
            let found = safe_href(href);
            if href.starts_with("vm:") {
                assert!(found.is_err());
            } else {
                assert_eq!(found.as_deref(), Ok(name));
            }
        }
    }

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        for href in [
            "",
            "/etc/passwd",
            "../x",
            "a/../../x",
            "a/./b",
            "a//b",
            "a/",
            "..",
            ".",
            "..%2fx",
            "%2e%2e/x",
            "%2Fetc/passwd",
            "a\\b",
            "%5c%5cserver",
            "\\\\server\\share",
            "C:\\x",
            "c:x",
            "%63:x",
            "http://host/x",
            "file:x",
            "//host/x",
            "data:,x",
            "a%00b",
            "a\nb",
            "%",
            "%4",
            "%zz",
            "%ff",
        ] {
            assert!(safe_href(href).is_err(), "{href}");
        }
        assert!(safe_href(&"a".repeat(5000)).is_err());
    }
}
