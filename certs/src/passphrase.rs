//! The key of an authority under a passphrase: PKCS#8, PBES2 with PBKDF2-HMAC-SHA-256 and AES-256-CBC, which OpenSSL
//! reads (`openssl pkey`).

use crate::error::CertsError;
use crate::files;
use pkcs8::der::pem::LineEnding;
use pkcs8::der::{Decode, SecretDocument};
use pkcs8::pkcs5::pbes2::{EncryptionScheme, Kdf, Parameters, Pbkdf2Params};
use pkcs8::{EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef};
use std::path::Path;
use zeroize::Zeroizing;

/// Rounds of PBKDF2: what OWASP recommends for HMAC-SHA-256.
const ROUNDS: u32 = 600_000;
/// The label of an encrypted key in PEM.
const LABEL: &str = "ENCRYPTED PRIVATE KEY";

/// What the key of an authority is encrypted with.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// The first line of a file that only its owner, and perhaps its group, may read.
    ///
    /// # Errors
    /// A file that cannot be read, that others may read, or that begins with an empty line.
    pub fn read(path: &Path) -> Result<Self, CertsError> {
        let text = Zeroizing::new(files::read_secret(path)?);
        let line = text.lines().next().unwrap_or_default();
        if line.is_empty() {
            return Err(CertsError::unusable(path, "the first line is empty: write the passphrase there"));
        }
        Ok(Self(Zeroizing::new(line.to_owned())))
    }

    /// A key in DER, encrypted, in PEM.
    pub(crate) fn encrypt(&self, der: &[u8]) -> Result<Zeroizing<String>, CertsError> {
        let failed = |problem: &dyn std::fmt::Display| CertsError::Encryption(problem.to_string());
        let (salt, iv) = (files::random()?, files::random()?);
        let kdf = Kdf::Pbkdf2(Pbkdf2Params::hmac_sha256(ROUNDS, &salt).map_err(|problem| failed(&problem))?);
        let parameters = Parameters { kdf, encryption: EncryptionScheme::Aes256Cbc { iv } };
        let key = PrivateKeyInfoRef::from_der(der).map_err(|problem| failed(&problem))?;
        let document = key.encrypt_with_params(parameters, self.0.as_bytes()).map_err(|problem| failed(&problem))?;
        document.to_pem(LABEL, LineEnding::LF).map_err(|problem| failed(&problem))
    }

    /// The key in the encrypted PEM text of file `path`, in DER.
    pub(crate) fn decrypt(&self, path: &Path, text: &str) -> Result<Zeroizing<Vec<u8>>, CertsError> {
        let (_, document) = SecretDocument::from_pem(text)
            .map_err(|_| CertsError::unusable(path, "no encrypted key in PEM: restore it from a backup"))?;
        let key = EncryptedPrivateKeyInfoRef::from_der(document.as_bytes())
            .map_err(|_| CertsError::unusable(path, "a malformed encrypted key: restore it from a backup"))?;
        let wrong = |_| CertsError::PassphraseWrong(path.to_owned());
        let key = key.decrypt(self.0.as_bytes()).map_err(wrong)?;
        Ok(Zeroizing::new(key.as_bytes().to_vec()))
    }
}

/// Whether a key in PEM is encrypted.
pub(crate) fn is_encrypted(text: &str) -> bool {
    text.contains(&format!("-----BEGIN {LABEL}-----"))
}
