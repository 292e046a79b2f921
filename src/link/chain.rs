//! Reads the issuer's name out of a certificate.
//!
//! It is for the report of a chain that webpki has verified. A name that it cannot read is left out. It reads one field
//! of X.509 (RFC 5280, section 4.1) in DER. On any bytes it reads each of them a few times at most and does not
//! recurse.

/// Attribute types of X.520 (RFC 5280, appendix A.1), in DER: the common name, and the organisation where there is
/// none.
const COMMON_NAME: &[u8] = &[0x55, 4, 3];
const ORGANISATION: &[u8] = &[0x55, 4, 10];

/// The longest name that is returned, in characters; RFC 5280 allows 64.
const NAME_CHARACTERS_MAX: usize = 64;

const INTEGER: u8 = 0x02;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;

/// The name of the issuer of a certificate in DER.
pub(super) fn issuer(certificate: &[u8]) -> Option<String> {
    let (certificate, _) = expect(SEQUENCE, certificate)?;
    let (mut rest, _) = expect(SEQUENCE, certificate)?;
    if let Some((_, after)) = expect(VERSION, rest) {
        rest = after;
    }
    let (_serial, rest) = expect(INTEGER, rest)?;
    let (_algorithm, rest) = expect(SEQUENCE, rest)?;
    let (name, _) = expect(SEQUENCE, rest)?;
    attribute(name, COMMON_NAME).or_else(|| attribute(name, ORGANISATION))
}

/// The first value of this type in a name, printable.
fn attribute(mut name: &[u8], wanted: &[u8]) -> Option<String> {
    while let Some((mut set, after)) = expect(SET, name) {
        while let Some((pair, after)) = expect(SEQUENCE, set) {
            let (kind, value) = expect(OBJECT_IDENTIFIER, pair)?;
            if kind == wanted {
                let (_, text, _) = element(value)?;
                let text = String::from_utf8_lossy(text);
                let visible = |c: char| if c.is_control() { ' ' } else { c };
                return Some(text.chars().take(NAME_CHARACTERS_MAX).map(visible).collect());
            }
            set = after;
        }
        name = after;
    }
    None
}

/// The content of an element with this tag, and what follows it.
fn expect(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (its_tag, content, rest) = element(bytes)?;
    (its_tag == tag).then_some((content, rest))
}

/// Tag, content and what follows: lengths of up to 16 MiB, definite, as DER has them.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [tag, length, rest @ ..] = bytes else { return None };
    let (length, rest) = match usize::from(*length) {
        short @ ..=0x7f => (short, rest),
        long @ 0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(long - 0x80)?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair};

    fn certificate(names: &[(DnType, &str)]) -> Vec<u8> {
        let mut params = CertificateParams::new(["console.test".to_owned()]).expect("a name");
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, name) in names {
            params.distinguished_name.push(kind.clone(), *name);
        }
        let signed = params.self_signed(&KeyPair::generate().expect("a key")).expect("signed");
        signed.der().to_vec()
    }

    #[test]
    fn issuer_is_named_by_common_name_or_organisation() {
        let both = [(DnType::OrganizationName, "Let's Encrypt"), (DnType::CommonName, "R11\n")];
        assert_eq!(issuer(&certificate(&both)).as_deref(), Some("R11 "));
        assert_eq!(issuer(&certificate(&both[..1])).as_deref(), Some("Let's Encrypt"));
        assert_eq!(issuer(&certificate(&[(DnType::CountryName, "AT")])), None);
        let long = "ä".repeat(200);
        let name = issuer(&certificate(&[(DnType::CommonName, &long)])).expect("a name");
        assert_eq!(name.chars().count(), NAME_CHARACTERS_MAX);
    }

    #[test]
    fn truncated_certificate_has_no_other_name() {
        let whole = certificate(&[(DnType::CommonName, "R11")]);
        for length in 0..whole.len() {
            assert_eq!(issuer(&whole[..length]), None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0_usize..400,
        ) {
            let _ = issuer(&bytes);
            let mut changed = certificate(&[(DnType::CommonName, "R11")]);
            for (place, byte) in changed.iter_mut().skip(at).zip(bytes) {
                *place = byte;
            }
            let _ = issuer(&changed);
        }
    }
}
