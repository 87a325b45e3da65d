// SPDX-License-Identifier: MPL-2.0
//! Recording URLs: `camvault://HOST:PORT/NAME?from=…&to=…` (`camvaults` over TLS).

use std::fmt;
use std::str::FromStr;

/// Port of a vault where the URL names none.
pub const DEFAULT_PORT: u16 = 7420;

/// A point in a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Nanoseconds from the recording's start, written in seconds (`90` or `90.5`).
    Offset(u64),
    /// Unix nanoseconds, written as RFC 3339 (`2026-01-31T08:00:00Z`).
    Utc(i64),
}

impl FromStr for Moment {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let wrong = || UrlError::Moment(text.to_owned());
        if let Some(nanos) = seconds(text) {
            return Ok(Self::Offset(nanos));
        }
        let utc: jiff::Timestamp = text.parse().map_err(|_| wrong())?;
        i64::try_from(utc.as_nanosecond())
            .map(Self::Utc)
            .map_err(|_| wrong())
    }
}

/// Decimal seconds as nanoseconds; what is shorter than one is cut off.
fn seconds(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) {
        return None;
    }
    let nanos: u64 = format!("{part:0<9.9}").parse().ok()?;
    let all = whole.parse::<u64>().ok()?.checked_mul(1_000_000_000)?;
    // Positions are signed in many places.
    let fits = |nanos: &u64| i64::try_from(*nanos).is_ok();
    all.checked_add(nanos).filter(fits)
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offset(ns) => write!(f, "{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000),
            Self::Utc(ns) => match jiff::Timestamp::from_nanosecond(i128::from(*ns)) {
                Ok(utc) => utc.fmt(f),
                Err(_) => Err(fmt::Error),
            },
        }
    }
}

/// The part of a recording that is wanted; open ends are `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// First moment.
    pub from: Option<Moment>,
    /// Last moment.
    pub to: Option<Moment>,
}

/// A recording's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordingUrl {
    /// `camvaults`.
    pub tls: bool,
    /// `host:port`, lower case.
    pub authority: String,
    /// Name of the recording, without percent-encoding; may contain `/`.
    pub name: String,
    /// Part of it.
    pub window: Window,
}

impl RecordingUrl {
    /// Base URL of the vault, `http://host:port`.
    pub fn vault(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.authority)
    }
}

/// Why an address is none.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UrlError {
    /// Not of the form.
    #[error("{0:?} is not a recording URL: expected camvault://HOST:PORT/NAME")]
    Form(String),
    /// An unknown query key.
    #[error("unknown query key {0:?} in a recording URL: only from and to are known")]
    Query(String),
    /// Not a moment.
    #[error(
        "{0:?} is not a moment: give seconds from the start (90.5) or a UTC time (2026-01-31T08:00:00Z)"
    )]
    Moment(String),
    /// Not a vault.
    #[error("{0:?} is not a vault URL: expected http://HOST:PORT or https://HOST:PORT")]
    Vault(String),
}

impl FromStr for RecordingUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let wrong = || UrlError::Form(text.to_owned());
        let url: ::url::Url = text.parse().map_err(|_| wrong())?;
        let tls = match url.scheme() {
            "camvault" => false,
            "camvaults" => true,
            _ => return Err(wrong()),
        };
        let authority = authority(&url, url.port().unwrap_or(DEFAULT_PORT)).ok_or_else(wrong)?;
        let name = percent_encoding::percent_decode_str(url.path())
            .decode_utf8()
            .map_err(|_| wrong())?;
        let name = name.trim_start_matches('/').to_owned();
        // As parts of a path these mean something else.
        let dots = name.split('/').any(|part| part == "." || part == "..");
        let plain =
            url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
        if name.is_empty() || dots || !plain {
            return Err(wrong());
        }
        let mut window = Window::default();
        for (key, value) in url.query_pairs() {
            match &*key {
                "from" => window.from = Some(value.parse()?),
                "to" => window.to = Some(value.parse()?),
                _ => return Err(UrlError::Query(key.into_owned())),
            }
        }
        Ok(Self {
            tls,
            authority,
            name,
            window,
        })
    }
}

impl fmt::Display for RecordingUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "camvaults" } else { "camvault" };
        let name = percent_encoding::utf8_percent_encode(&self.name, NAME);
        write!(f, "{scheme}://{}/{name}", self.authority)?;
        let mut separator = '?';
        for (key, moment) in [("from", self.window.from), ("to", self.window.to)] {
            if let Some(moment) = moment {
                write!(f, "{separator}{key}={moment}")?;
                separator = '&';
            }
        }
        Ok(())
    }
}

/// Escaped in a name: what would end the path or be read as an escape.
const NAME: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS
    .add(b' ')
    .add(b'%')
    .add(b'?')
    .add(b'#')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'\\');

/// Checks a vault's base URL and takes off a closing `/`; also takes a recording URL, whose vault
/// it gives.
pub fn vault_base(text: &str) -> Result<String, UrlError> {
    let wrong = || UrlError::Vault(text.to_owned());
    let url: ::url::Url = text.parse().map_err(|_| wrong())?;
    let scheme = match url.scheme() {
        "http" | "camvault" => "http",
        "https" | "camvaults" => "https",
        _ => return Err(wrong()),
    };
    let port = url.port_or_known_default().unwrap_or(DEFAULT_PORT);
    let authority = authority(&url, port).ok_or_else(wrong)?;
    Ok(format!("{scheme}://{authority}"))
}

/// `host:port` as HTTP has it, whose rules for hosts are stricter than those for `camvault` URLs.
fn authority(url: &::url::Url, port: u16) -> Option<String> {
    let host = url.host_str().filter(|h| !h.is_empty())?;
    let http: ::url::Url = format!("http://{host}:{port}").parse().ok()?;
    Some(format!("{}:{port}", http.host_str()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn urls_of_the_manual() {
        let url: RecordingUrl =
            "camvault://127.0.0.1:7420/yard/north?from=2026-01-31T08:00:00Z&to=90.5"
                .parse()
                .unwrap();
        assert_eq!(
            (url.vault().as_str(), url.name.as_str()),
            ("http://127.0.0.1:7420", "yard/north")
        );
        assert_eq!(url.window.to, Some(Moment::Offset(90_500_000_000)));
        assert_eq!(url.to_string().parse::<RecordingUrl>().unwrap(), url);
        let tls: RecordingUrl = "camvaults://Vault.example/door".parse().unwrap();
        assert_eq!(tls.vault(), "https://vault.example:7420");
        assert_eq!(
            vault_base("http://[::1]:7420/").unwrap(),
            "http://[::1]:7420"
        );
        for wrong in [
            "camvault://h:1/",
            "http://h/x",
            "camvault:///x",
            "camvault://h/x?seek=1",
            "camvault://u@h/x",
            "camvault://h/x?from=yesterday",
            "camvault://h/x?from=-1",
            "camvault://h/x?from=.",
            "camvault://h/x?from=1.0000000000e",
            "camvault://h/x?to=9223372036.9",
            "camvault://.1:7420/x",
            "camvault://h/a%2F..",
        ] {
            assert!(wrong.parse::<RecordingUrl>().is_err(), "{wrong}");
        }
    }

    /// What the fuzzer found that did not read back as it was.
    #[test]
    fn what_was_read_is_written_so_that_it_reads_back() {
        for (text, written) in [
            (
                "camvault://h/x?to=1.000000003",
                "camvault://h:7420/x?to=1.000000003",
            ),
            ("camvault://h/%2Fx", "camvault://h:7420/x"),
            (
                "camvault://M%C3%BCller/x",
                "camvault://xn--mller-kva:7420/x",
            ),
        ] {
            let url: RecordingUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), written);
            assert_eq!(written.parse(), Ok(url));
        }
    }

    proptest! {
        #[test]
        fn names_survive(name in "[^/\\x00-\\x1f\\\\.][^\\x00-\\x1f\\\\./]{0,20}") {
            let url = RecordingUrl { tls: false, authority: "h:1".into(), name, window: Window::default() };
            prop_assert_eq!(url.to_string().parse::<RecordingUrl>(), Ok(url));
        }

        #[test]
        fn any_text_is_read_without_harm(text in ".{0,60}") {
            let _ = text.parse::<RecordingUrl>();
            let _ = format!("camvault://{text}").parse::<RecordingUrl>();
        }
    }
}
