//! Password hashes as mosquitto reads them: `$7$<iterations>$<salt>$<hash>`, PBKDF2 with HMAC-SHA-512.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2};

/// What `mosquitto_passwd -H sha512-pbkdf2` of mosquitto 2.1 uses. The broker computes it at every
/// connection, so more of it would be a means to slow the broker down.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(1000).expect("it is not 0");

/// The hash of a user's password, with a salt that is derived from the key and the user's name.
pub fn hashed(user: &str, password: &str, key: &[u8]) -> String {
    let salt = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA512, key), format!("salt of {user}").as_bytes());
    with_salt(password, salt.as_ref())
}

fn with_salt(password: &str, salt: &[u8]) -> String {
    let hash = derived(password, salt);
    format!("$7${ITERATIONS}${}${}", STANDARD.encode(salt), STANDARD.encode(hash))
}

/// Hashes are slow on purpose, and a pass needs those of all users of a pipeline: a fifth of the operator's
/// processor time was theirs. So those of before are kept, by a digest of what they are made of.
fn derived(password: &str, salt: &[u8]) -> [u8; 64] {
    static KNOWN: Mutex<Option<HashMap<[u8; 32], [u8; 64]>>> = Mutex::new(None);
    /// 1.6 MB.
    const MOST: usize = 14_336;
    let mut source = digest::Context::new(&digest::SHA256);
    source.update(&salt.len().to_le_bytes());
    source.update(salt);
    source.update(password.as_bytes());
    let source: [u8; 32] = source.finish().as_ref().try_into().expect("SHA-256 has 32 bytes");
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(hash) = known().get_or_insert_default().get(&source) {
        return *hash;
    }
    let mut hash = [0; 64];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA512, ITERATIONS, salt, password.as_bytes(), &mut hash);
    let mut all = known();
    let all = all.get_or_insert_default();
    if all.len() == MOST {
        all.clear();
    }
    all.insert(source, hash);
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_one_that_mosquitto_passwd_makes() {
        // mosquitto_passwd -H sha512-pbkdf2 -c -b FILE alice secret-1, of mosquitto 2.1.2
        let line = "$7$1000$48x5JlY+ivn08nFtGxi2NVqVx95PXEbNEqq5tmTQM5ld36meDN8BF2lqNjprmzcFRm0bS27leo7Xfnzsggu5lA==$fdOYFKwp6rJG/n2CSFCvjjCmYYElFJRqMENYF3GlBvRf1Ooe5XKz9KPDRCpMTuoBnRadIsm+0QHxNLZaLadh7A==";
        let salt = STANDARD.decode(line.split('$').nth(3).expect("there is a salt")).expect("it is base64");
        assert_eq!(with_salt("secret-1", &salt), line);
    }

    #[test]
    fn users_with_one_password_have_different_hashes() {
        assert_ne!(hashed("a", "password", b"key"), hashed("b", "password", b"key"));
        assert_ne!(hashed("a", "password", b"key"), hashed("a", "password", b"another"));
        assert_eq!(hashed("a", "password", b"key"), hashed("a", "password", b"key"));
    }
}
