use super::*;

/// Made by OpenSSL 3: a certificate with a UTCTime and a GeneralizedTime, and its key.
const CERTIFICATE: &str = include_str!("tests/server.crt");
const KEY: &str = include_str!("tests/server.key");
const AUTHORITY: &str = include_str!("tests/authority.crt");

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn check(certificate: &str, key: &str) -> Result<(), CertificateError> {
    let pair = Pair { certificate: certificate.into(), key: key.into() };
    pair.check(
        Subject::Server(&["works-broker.test.svc".into()]),
        Some(AUTHORITY),
        at("2030-01-01T00:00:00Z"),
    )
}

#[test]
fn the_validity_is_the_one_that_openssl_prints() {
    let pair = Pair { certificate: CERTIFICATE.into(), key: KEY.into() };
    let validity = pair.validity().expect("a certificate");
    assert_eq!(validity.from, at("2026-11-24T03:50:49Z"));
    assert_eq!(validity.until, at("2126-10-31T03:50:49Z"));
}

#[test]
fn no_beginning_of_a_certificate_has_a_validity_that_it_hasnt() {
    let der = chain(CERTIFICATE).expect("PEM").remove(0);
    let whole = Validity::of(&der);
    for end in 0..der.len() {
        let cut = Validity::of(&der[..end]);
        assert!(cut.is_none(), "{end} bytes: {cut:?}");
    }
    assert!(whole.is_some());
}

#[test]
fn what_is_the_matter_is_said() {
    assert!(check(CERTIFICATE, KEY).is_ok(), "{:?}", check(CERTIFICATE, KEY));
    assert!(matches!(check("x", KEY), Err(CertificateError::Certificate)));
    assert!(matches!(check(CERTIFICATE, "x"), Err(CertificateError::Key)));
    let other = rcgen::KeyPair::generate().expect("a key").serialize_pem();
    assert!(matches!(check(CERTIFICATE, &other), Err(CertificateError::Pair)));
}

#[test]
fn an_authority_s_file_has_the_name_by_which_openssl_looks_for_it() {
    // As `openssl x509 -hash` says.
    let authority = include_str!("../../tests/support/authority.pem");
    assert_eq!(directory_name(authority).as_deref(), Some("fe4d8312.0"));
    assert_eq!(directory_name("no PEM"), None);
}
