//! Says in words what an error of a library means: rustls, webpki, tungstenite, PEM files, the system's I/O.
//!
//! These libraries print the names of their enum variants, which an operator cannot act on. A row of a table here maps
//! an error to one sentence. An error without a row gets the sentence of its kind and the name of its variant in words.
//!
//! Invariant: no `Debug` text reaches a message.

use async_tungstenite::tungstenite::Error as WsError;
use async_tungstenite::tungstenite::error::ProtocolError;
use rustls::pki_types::pem::Error as PemError;
use rustls::{AlertDescription, CertificateError, Error as TlsError};
use std::fmt::Debug;
use std::io;

/// Faults of a certificate, by the name of webpki's error.
const CERTIFICATE_FAULTS: &[(&str, &str)] = &[
    (
        CA_AS_SERVER,
        "it is a certificate of an authority (CA:TRUE), not of a server; give the server a certificate of its own, or \
         put this one into SINDRI_AGENT_CA_FILE",
    ),
    ("EmptyEkuExtension", "its list of purposes (extended key usage) is empty"),
    ("EndEntityUsedAsCa", "its chain holds an issuer that is not an authority"),
    ("NameConstraintViolation", "an authority in its chain must not sign for this name"),
    ("PathLenConstraintViolated", "its chain is longer than one of its authorities allows"),
    ("SignatureAlgorithmMismatch", "it names two different signature algorithms"),
    ("UnsupportedCertVersion", "its X.509 version is not 3, the only one that can name hosts"),
    ("UnsupportedCriticalExtension", "it has a critical extension that the agent does not know"),
];

/// webpki's name of the error for a server that presents a certificate of an authority.
const CA_AS_SERVER: &str = "CaUsedAsEndEntity";

/// TLS alerts that the server sends.
const ALERTS: &[(AlertDescription, &str)] = &[
    (
        AlertDescription::HandshakeFailure,
        "the server accepts none of the agent's TLS versions, ciphers or key exchanges",
    ),
    (AlertDescription::ProtocolVersion, "the server accepts neither TLS 1.2 nor TLS 1.3"),
    (AlertDescription::InsufficientSecurity, "the server requires stronger ciphers than the agent has"),
    (AlertDescription::UnrecognisedName, "the server has no host of this name"),
    (AlertDescription::CertificateRequired, "the server requires a client certificate, and the agent has none"),
    (AlertDescription::BadCertificate, "the server requires a client certificate, and the agent has none"),
    (AlertDescription::AccessDenied, "the server denies access"),
    (AlertDescription::InternalError, "the server reports an internal TLS error; read its log"),
    (AlertDescription::NoApplicationProtocol, "the server does not offer HTTP/1.1 over TLS"),
];

/// Whether a certificate was refused only because it is a certificate of an authority.
pub(super) fn is_authority_as_server(error: &TlsError) -> bool {
    matches!(error, TlsError::InvalidCertificate(CertificateError::Other(other)) if other.0.to_string() == CA_AS_SERVER)
}

/// What a TLS error means.
pub(super) fn tls(error: &TlsError) -> String {
    let with_name = |sentence: &str, name: &dyn Debug| format!("{sentence} ({})", spelt(name));
    match error {
        TlsError::InvalidCertificate(fault) => format!("its certificate cannot be accepted: {}", certificate(fault)),
        TlsError::AlertReceived(alert) => match ALERTS.iter().find(|(known, _)| known == alert) {
            Some((_, sentence)) => (*sentence).to_owned(),
            None => with_name("the server ended TLS with an alert", alert),
        },
        TlsError::InvalidMessage(why) => with_name("the server sent a malformed TLS message", why),
        TlsError::PeerIncompatible(why) => {
            with_name("the server and the agent share no TLS version, cipher or feature", why)
        }
        TlsError::PeerMisbehaved(why) => with_name("the server violated the TLS protocol", why),
        TlsError::InappropriateMessage { got_type, .. } => {
            with_name("the server sent an unexpected TLS message", got_type)
        }
        TlsError::InappropriateHandshakeMessage { got_type, .. } => {
            with_name("the server sent an unexpected TLS message", got_type)
        }
        TlsError::NoCertificatesPresented => "the server presented no certificate".to_owned(),
        TlsError::DecryptError => "a TLS record cannot be decrypted; something on the way changes the data".to_owned(),
        TlsError::PeerSentOversizedRecord => "the server sent a TLS record over the size limit".to_owned(),
        TlsError::NoApplicationProtocol => "the server does not offer HTTP/1.1 over TLS".to_owned(),
        TlsError::FailedToGetRandomBytes => "this machine has no source of random numbers".to_owned(),
        TlsError::FailedToGetCurrentTime => "this machine's clock cannot be read".to_owned(),
        // Misuse of the library, which the agent does not do, and variants of later versions.
        _ => "TLS failed on this machine".to_owned(),
    }
}

/// Why a certificate is not accepted.
pub(super) fn certificate(fault: &CertificateError) -> String {
    use CertificateError as Fault;
    let sentence = match fault {
        Fault::BadEncoding => "it is not correctly encoded",
        Fault::Expired | Fault::ExpiredContext { .. } => "it has expired",
        Fault::NotValidYet | Fault::NotValidYetContext { .. } => "it is not valid yet",
        Fault::Revoked => "it was revoked",
        Fault::UnhandledCriticalExtension => "it has a critical extension that the agent does not know",
        Fault::UnknownIssuer => "this machine does not trust its issuer",
        Fault::UnknownRevocationStatus
        | Fault::ExpiredRevocationList
        | Fault::ExpiredRevocationListContext { .. }
        | Fault::InvalidOcspResponse => "its revocation status is unknown",
        Fault::BadSignature => "its issuer did not sign it",
        #[allow(deprecated)] // Still a variant that may come.
        Fault::UnsupportedSignatureAlgorithm => SIGNED_OTHERWISE,
        Fault::UnsupportedSignatureAlgorithmContext { .. }
        | Fault::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => SIGNED_OTHERWISE,
        Fault::NotValidForName | Fault::NotValidForNameContext { .. } => "it is for another host",
        Fault::InvalidPurpose | Fault::InvalidPurposeContext { .. } => {
            "it is not for servers (extended key usage serverAuth)"
        }
        Fault::Other(other) => {
            let name = other.0.to_string();
            return match CERTIFICATE_FAULTS.iter().find(|(known, _)| *known == name) {
                Some((_, sentence)) => (*sentence).to_owned(),
                None => format!("it violates X.509 ({})", spelt_name(&name)),
            };
        }
        _ => "it violates X.509",
    };
    sentence.to_owned()
}

/// RSA keys below 2048 bits, SHA-1, Ed448 and the like.
const SIGNED_OTHERWISE: &str = "it, or one of its issuers, is signed with an algorithm that the agent does not accept";

/// What an I/O error means. On a TLS connection it may hold an error of rustls or tungstenite.
pub(super) fn io(error: &io::Error) -> String {
    let inner = error.get_ref();
    if let Some(error) = inner.and_then(|inner| inner.downcast_ref::<TlsError>()) {
        return tls(error);
    }
    if let Some(error) = inner.and_then(|inner| inner.downcast_ref::<WsError>()) {
        return websocket(error);
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the stream ended".to_owned(),
        _ => error.to_string(),
    }
}

/// What an error of the WebSocket means.
pub(super) fn websocket(error: &WsError) -> String {
    let violation = match error {
        WsError::Io(error) => return io(error),
        WsError::ConnectionClosed | WsError::AlreadyClosed => return "the connection is closed".to_owned(),
        WsError::Capacity(_) => return "the console sent a message over 1 MiB".to_owned(),
        WsError::Utf8(_) => return "the console sent a text message that is not UTF-8".to_owned(),
        WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            return "the stream ended without a close frame".to_owned();
        }
        WsError::Protocol(ProtocolError::NonZeroReservedBits) => "reserved bits are set, as by compression",
        WsError::Protocol(ProtocolError::MaskedFrameFromServer) => "a frame of a server is masked",
        WsError::Protocol(ProtocolError::FragmentedControlFrame) => "a control frame is fragmented",
        WsError::Protocol(ProtocolError::ControlFrameTooBig) => "a control frame is over 125 bytes",
        WsError::Protocol(ProtocolError::UnexpectedContinueFrame) => "a fragment continues nothing",
        WsError::Protocol(ProtocolError::ExpectedFragment(_)) => "a message begins within another",
        WsError::Protocol(
            ProtocolError::UnknownControlFrameType(_)
            | ProtocolError::UnknownDataFrameType(_)
            | ProtocolError::InvalidOpcode(_),
        ) => "a frame is of an unknown type",
        WsError::Protocol(ProtocolError::InvalidCloseSequence) => "a close frame is malformed",
        WsError::Protocol(ProtocolError::ReceivedAfterClosing) => "a frame follows the close frame",
        // Errors of the opening handshake, which `upgrade` does, and variants of later versions.
        _ => return "the console violated the WebSocket protocol".to_owned(),
    };
    format!("the console violated the WebSocket protocol: {violation}")
}

/// Why a file of certificates cannot be read.
pub(super) fn pem(error: &PemError) -> String {
    match error {
        PemError::Io(error) => io(error),
        PemError::MissingSectionEnd { .. } => "a certificate in it has no END line".to_owned(),
        PemError::IllegalSectionStart { .. } => "a BEGIN line in it is malformed".to_owned(),
        PemError::Base64Decode(_) => "a certificate in it is not base64".to_owned(),
        PemError::NoItemsFound => NO_CERTIFICATE.to_owned(),
        PemError::SectionTooLarge => "a certificate in it is over the limit".to_owned(),
        _ => "it is not in PEM form".to_owned(),
    }
}

/// The fault of a file without a certificate.
pub(super) const NO_CERTIFICATE: &str = "it holds no PEM certificate";

/// The name of a variant in words: `UnknownPSKIdentity` is "unknown PSK identity".
fn spelt(variant: &dyn Debug) -> String {
    let name = format!("{variant:?}");
    // The library has no name for this number.
    if name.contains("(0x") { "unknown".to_owned() } else { spelt_name(&name) }
}

fn spelt_name(name: &str) -> String {
    let end = name.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(name.len());
    let name: Vec<char> = name.chars().take(end).collect();
    let is_upper = |at: usize| name.get(at).is_some_and(char::is_ascii_uppercase);
    let is_lower = |at: usize| name.get(at).is_some_and(char::is_ascii_lowercase);
    let mut words = String::new();
    for (at, letter) in name.iter().enumerate() {
        let follows_lower = at.checked_sub(1).is_some_and(|before| !is_upper(before));
        if is_upper(at) && at > 0 && (follows_lower || is_lower(at + 1)) {
            words.push(' ');
        }
        // A word of capitals is an abbreviation.
        let is_word = is_lower(at + 1) || (at + 1 == name.len() && follows_lower);
        words.push(if is_word { letter.to_ascii_lowercase() } else { *letter });
    }
    words
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::link::{PeerFault, TlsFault};
    use async_tungstenite::tungstenite::error::{CapacityError, SubProtocolError, UrlError};
    use async_tungstenite::tungstenite::protocol::frame::coding::Data;
    use proptest::prelude::*;
    use rustls::pki_types::{ServerName, UnixTime};
    use rustls::{ContentType, HandshakeType, InvalidMessage, OtherError, PeerIncompatible, PeerMisbehaved};
    use std::sync::Arc;
    use std::time::Duration;

    /// Standard names that are written so in a sentence.
    const NAMES: [&str; 5] = ["WebSocket", "MiB", "serverAuth", "subjectAltName", "SINDRI_AGENT_CA_FILE"];

    /// Asserts that a text is a sentence and no `Debug` output: no camel case, no braces, no constructor.
    #[track_caller]
    pub(crate) fn assert_sentence(text: &str) {
        let plain = NAMES.iter().fold(text.to_owned(), |text, name| text.replace(name, "name"));
        let pairs: Vec<(char, char)> = plain.chars().zip(plain.chars().skip(1)).collect();
        let is_joined = pairs.iter().any(|(left, right)| left.is_ascii_lowercase() && right.is_ascii_uppercase());
        let is_called = pairs.iter().any(|(left, right)| left.is_alphanumeric() && *right == '(');
        let is_debug =
            is_joined || is_called || plain.contains(['{', '}', '[', ']', '_', '\\']) || plain.contains("::");
        assert!(!text.is_empty() && !is_debug, "no sentence: {text}");
    }

    /// All errors of rustls and webpki about a certificate.
    fn certificate_faults() -> Vec<CertificateError> {
        use CertificateError as Fault;
        let (time, next_update) = (UnixTime::now(), UnixTime::since_unix_epoch(Duration::from_secs(1)));
        let expected = ServerName::try_from("console.test").expect("a name");
        let oid = || vec![1, 2, 3];
        let names = [
            "CaUsedAsEndEntity",
            "CertDistrusted",
            "EmptyEkuExtension",
            "EndEntityUsedAsCa",
            "ExtensionValueInvalid",
            "InvalidCrlNumber",
            "InvalidNetworkMaskConstraint",
            "InvalidSerialNumber",
            "MalformedDnsIdentifier",
            "MalformedExtensions",
            "MalformedNameConstraint",
            "MaximumNameConstraintComparisonsExceeded",
            "MaximumPathBuildCallsExceeded",
            "MaximumPathDepthExceeded",
            "MaximumSignatureChecksExceeded",
            "NameConstraintViolation",
            "PathLenConstraintViolated",
            "SignatureAlgorithmMismatch",
            "TrailingData(Certificate)",
            "UnsupportedCertVersion",
            "UnsupportedCriticalExtension",
            "UnsupportedNameType",
        ];
        let others = names.map(|name| Fault::Other(OtherError(Arc::new(io::Error::other(name)))));
        #[allow(deprecated)]
        let mut all = vec![
            Fault::BadEncoding,
            Fault::Expired,
            Fault::ExpiredContext { time, not_after: next_update },
            Fault::NotValidYet,
            Fault::NotValidYetContext { time, not_before: next_update },
            Fault::Revoked,
            Fault::UnhandledCriticalExtension,
            Fault::UnknownIssuer,
            Fault::UnknownRevocationStatus,
            Fault::ExpiredRevocationList,
            Fault::ExpiredRevocationListContext { time, next_update },
            Fault::BadSignature,
            Fault::UnsupportedSignatureAlgorithm,
            Fault::UnsupportedSignatureAlgorithmContext { signature_algorithm_id: oid(), supported_algorithms: vec![] },
            Fault::UnsupportedSignatureAlgorithmForPublicKeyContext {
                signature_algorithm_id: oid(),
                public_key_algorithm_id: oid(),
            },
            Fault::NotValidForName,
            Fault::NotValidForNameContext { expected, presented: vec!["DnsName(\"a.test\")".to_owned()] },
            Fault::InvalidPurpose,
            Fault::InvalidOcspResponse,
            Fault::ApplicationVerificationFailure,
        ];
        all.extend(others);
        all
    }

    fn tls_errors() -> Vec<TlsError> {
        let mut all: Vec<TlsError> = certificate_faults().into_iter().map(TlsError::InvalidCertificate).collect();
        for number in 0..=u8::MAX {
            all.push(TlsError::AlertReceived(AlertDescription::from(number)));
            let got_type = ContentType::from(number);
            all.push(TlsError::InappropriateMessage { expect_types: vec![ContentType::Alert], got_type });
            let got_type = HandshakeType::from(number);
            all.push(TlsError::InappropriateHandshakeMessage { expect_types: vec![], got_type });
        }
        for why in [
            InvalidMessage::CertificatePayloadTooLarge,
            InvalidMessage::HandshakePayloadTooLarge,
            InvalidMessage::InvalidContentType,
            InvalidMessage::InvalidDhParams,
            InvalidMessage::MessageTooLarge,
            InvalidMessage::MessageTooShort,
            InvalidMessage::MissingData("extension"),
            InvalidMessage::TrailingData("extension"),
            InvalidMessage::UnexpectedMessage("ServerHello"),
            InvalidMessage::UnknownProtocolVersion,
            InvalidMessage::UnsupportedCompression,
        ] {
            all.push(TlsError::InvalidMessage(why));
        }
        for why in [
            PeerIncompatible::NoCipherSuitesInCommon,
            PeerIncompatible::NoKxGroupsInCommon,
            PeerIncompatible::ServerDoesNotSupportTls12Or13,
            PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
            PeerIncompatible::ExtendedMasterSecretExtensionRequired,
        ] {
            all.push(TlsError::PeerIncompatible(why));
        }
        for why in [
            PeerMisbehaved::AttemptedDowngradeToTls12WhenTls13IsSupported,
            PeerMisbehaved::IllegalHelloRetryRequestWithEmptyCookie,
            PeerMisbehaved::MissingKeyShare,
            PeerMisbehaved::TooManyEmptyFragments,
            PeerMisbehaved::UnsolicitedEncryptedExtension,
        ] {
            all.push(TlsError::PeerMisbehaved(why));
        }
        all.extend([
            TlsError::NoCertificatesPresented,
            TlsError::UnsupportedNameType,
            TlsError::DecryptError,
            TlsError::EncryptError,
            TlsError::General("InternalThing { x: 1 }".to_owned()),
            TlsError::FailedToGetCurrentTime,
            TlsError::FailedToGetRandomBytes,
            TlsError::HandshakeNotComplete,
            TlsError::PeerSentOversizedRecord,
            TlsError::NoApplicationProtocol,
            TlsError::BadMaxFragmentSize,
            TlsError::Other(OtherError(Arc::new(io::Error::other("Thing(1)")))),
        ]);
        all
    }

    fn websocket_errors() -> Vec<WsError> {
        use ProtocolError as Fault;
        let faults = [
            Fault::WrongHttpMethod,
            Fault::SecWebSocketSubProtocolError(SubProtocolError::NoSubProtocol),
            Fault::HandshakeIncomplete,
            Fault::SendAfterClosing,
            Fault::ReceivedAfterClosing,
            Fault::NonZeroReservedBits,
            Fault::UnmaskedFrameFromClient,
            Fault::MaskedFrameFromServer,
            Fault::FragmentedControlFrame,
            Fault::ControlFrameTooBig,
            Fault::UnknownControlFrameType(11),
            Fault::UnknownDataFrameType(3),
            Fault::UnexpectedContinueFrame,
            Fault::ExpectedFragment(Data::Text),
            Fault::ResetWithoutClosingHandshake,
            Fault::InvalidOpcode(9),
            Fault::InvalidCloseSequence,
        ];
        let mut all: Vec<WsError> = faults.into_iter().map(WsError::Protocol).collect();
        all.extend([
            WsError::ConnectionClosed,
            WsError::AlreadyClosed,
            WsError::Capacity(CapacityError::MessageTooLong { size: 2, max_size: 1 }),
            WsError::Utf8("[255]".to_owned()),
            WsError::AttackAttempt,
            WsError::Url(UrlError::NoHostName),
            WsError::Io(io::ErrorKind::ConnectionReset.into()),
        ]);
        all
    }

    #[test]
    fn tls_errors_are_sentences() {
        for error in tls_errors() {
            assert_sentence(&tls(&error));
            // During the handshake and after it.
            let wrapped = || io::Error::new(io::ErrorKind::InvalidData, error.clone());
            assert_sentence(&TlsFault::from(wrapped()).to_string());
            assert_sentence(&PeerFault::Broke(wrapped()).to_string());
        }
    }

    #[test]
    fn websocket_errors_are_sentences() {
        for error in websocket_errors() {
            assert_sentence(&websocket(&error));
            assert_sentence(&io(&io::Error::other(error)));
        }
    }

    #[test]
    fn system_errors_are_sentences() {
        for number in 1..=133 {
            let text = io(&io::Error::from_raw_os_error(number));
            assert!(text.ends_with(&format!(" (os error {number})")) && text.len() > 16, "{text}");
        }
        for kind in [
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::InvalidData,
            io::ErrorKind::UnexpectedEof,
            io::ErrorKind::WriteZero,
        ] {
            assert_sentence(&io(&kind.into()));
        }
        for error in [
            PemError::MissingSectionEnd { end_marker: b"x".to_vec() },
            PemError::IllegalSectionStart { line: b"x".to_vec() },
            PemError::Base64Decode("Invalid(1)".to_owned()),
            PemError::Io(io::ErrorKind::UnexpectedEof.into()),
            PemError::NoItemsFound,
            PemError::SectionTooLarge,
        ] {
            assert_sentence(&pem(&error));
        }
    }

    #[test]
    fn json_errors_are_sentences() {
        for text in ["", "{", "nul", "[1,]", "{\"a\" 1}", "1e999", "\"\\x\"", "\"\\ud800\"", "{} x"] {
            assert_sentence(&serde_json::from_str::<serde_json::Value>(text).expect_err(text).to_string());
        }
    }

    #[test]
    fn variant_name_becomes_words() {
        assert_eq!(spelt(&AlertDescription::UnknownPSKIdentity), "unknown PSK identity");
        assert_eq!(spelt(&AlertDescription::UnknownCA), "unknown CA");
        assert_eq!(spelt(&AlertDescription::Unknown(200)), "unknown");
        assert_eq!(spelt(&InvalidMessage::MissingData("Thing")), "missing data");
        assert_eq!(spelt_name(""), "");
    }

    #[test]
    fn debug_text_is_no_sentence() {
        for text in ["Other(OtherError(CaUsedAsEndEntity))", "HandshakeFailure", "Some(1)", "a { b: 1 }"] {
            assert!(std::panic::catch_unwind(|| assert_sentence(text)).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_name_is_spelt_without_panic(name in ".{0,20}") {
            let _ = spelt_name(&name);
        }
    }
}
