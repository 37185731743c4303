//! The pipeline's own certificate authority: made once, and followed by another long before it expires.
//!
//! The next one is trusted for a week before it signs, so that every client has it by then; the one before is
//! trusted until the last certificate that it signed has expired.

use std::iter;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData,
};

use crate::certificate::{Pair, Subject, directory_name};
use crate::resources::hash;

const DAY: i64 = 86_400;

/// How long an authority holds, in seconds.
const AUTHORITY: i64 = 3_650 * DAY;

/// How long what it signs holds.
const CERTIFICATE: i64 = 90 * DAY;

/// For how long a new authority is trusted before it signs.
const TRUSTED_FIRST: i64 = 7 * DAY;

/// Clocks differ: what is made holds since a moment before.
const SKEW: i64 = 3_600;

/// A certificate could not be made.
#[derive(Debug, thiserror::Error)]
#[error("make a certificate")]
pub struct NoCertificate(#[from] rcgen::Error);

/// The authority, and the one before, while it is trusted.
#[derive(Clone)]
pub struct Authorities {
    /// The newest.
    pub newest: Pair,
    /// The one before.
    pub before: Option<Pair>,
}

impl Authorities {
    /// What is there, if it is still good, or else a new one.
    pub(super) fn kept_or_new(kept: Option<Self>, now: Timestamp) -> Result<Self, NoCertificate> {
        let holds = |kept: &Self| is_held(&kept.newest, now);
        let Some(kept) = kept.filter(holds) else {
            return Ok(Self { newest: authority(now)?, before: None });
        };
        if kept.newest.validity().is_some_and(|validity| validity.is_due(now)) {
            return Ok(Self { newest: authority(now)?, before: Some(kept.newest) });
        }
        let is_needed = age(&kept.newest, now) < TRUSTED_FIRST + CERTIFICATE;
        let before = kept.before.filter(|before| is_needed && is_held(before, now));
        Ok(Self { before, ..kept })
    }

    /// The one that signs.
    pub fn signing(&self, now: Timestamp) -> &Pair {
        match &self.before {
            Some(before) if age(&self.newest, now) < TRUSTED_FIRST => before,
            _ => &self.newest,
        }
    }

    /// All that are to be trusted, as PEM.
    pub fn trusted(&self) -> String {
        self.each().collect()
    }

    /// The same as files of a directory in which OpenSSL looks for them, with their names, the newest first.
    pub fn files(&self) -> Vec<(String, String)> {
        self.each().filter_map(|authority| Some((directory_name(authority)?, authority.to_owned()))).collect()
    }

    fn each(&self) -> impl Iterator<Item = &str> {
        iter::once(&self.newest).chain(&self.before).map(|pair| pair.certificate.as_str())
    }

    /// What is there, if it is still good, or else a new certificate.
    pub(super) fn kept_or_issued(
        &self,
        kept: Option<Pair>,
        subject: Subject<'_>,
        now: Timestamp,
    ) -> Result<Pair, NoCertificate> {
        let signing = self.signing(now);
        let is_good = |kept: &Pair| {
            let is_due = kept.validity().is_none_or(|validity| validity.is_due(now));
            !is_due && kept.check(subject, Some(&signing.certificate), now).is_ok()
        };
        match kept.filter(is_good) {
            Some(kept) => Ok(kept),
            None => issue(signing, subject, now),
        }
    }
}

/// Whether it is a certificate that has not expired.
fn is_held(pair: &Pair, now: Timestamp) -> bool {
    pair.validity().is_some_and(|validity| now < validity.until)
}

/// For how many seconds it has been there.
fn age(pair: &Pair, now: Timestamp) -> i64 {
    pair.validity().map_or(0, |validity| now.as_second() - validity.from.as_second() - SKEW)
}

fn authority(now: Timestamp) -> Result<Pair, NoCertificate> {
    let key = KeyPair::generate()?;
    Ok(Pair { certificate: authority_params(&key, now).self_signed(&key)?.pem(), key: key.serialize_pem() })
}

/// Its name follows from its key: no other authority has it, and it is known without reading the certificate.
fn authority_params(key: &KeyPair, now: Timestamp) -> CertificateParams {
    let id = &hash(&[key.subject_public_key_info().as_slice()])[..16];
    let mut params = params(&format!("iotpipeline {id}"), AUTHORITY, now);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn issue(signing: &Pair, subject: Subject<'_>, now: Timestamp) -> Result<Pair, NoCertificate> {
    let authority_key = KeyPair::from_pem(&signing.key)?;
    let issuer = Issuer::new(authority_params(&authority_key, now), authority_key);
    let mut params = match subject {
        Subject::Server(hosts) => {
            let mut params = params(hosts.first().map_or("", String::as_str), CERTIFICATE, now);
            params.subject_alt_names = CertificateParams::new(hosts)?.subject_alt_names;
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            params
        }
        Subject::User(name) => {
            let mut params = params(name, CERTIFICATE, now);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            params
        }
    };
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    Ok(Pair { certificate: params.signed_by(&key, &issuer)?.pem(), key: key.serialize_pem() })
}

fn params(common_name: &str, seconds: i64, now: Timestamp) -> CertificateParams {
    let at = |second: i64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(second.unsigned_abs());
    let mut params = CertificateParams::default();
    params.not_before = at(now.as_second() - SKEW);
    params.not_after = at(now.as_second() + seconds);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

#[cfg(test)]
mod tests;
