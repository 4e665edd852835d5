//! Test keys, and the two ways in which archives sign: `InRelease` (cleartext) and `Release.gpg` (detached).

use pgp::composed::{
    ArmorOptions, CleartextSignedMessage, DetachedSignature, KeyType, SecretKeyParamsBuilder,
    SignedPublicKey, SignedSecretKey,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::ser::Serialize as _;
use pgp::types::Password;
use std::path::Path;

/// A fresh key that nobody else has.
#[derive(Debug)]
pub struct Key {
    secret: SignedSecretKey,
}

impl Key {
    /// Makes one. The name stands in the certificate and nowhere else.
    pub fn generate(name: &str) -> Self {
        let params = SecretKeyParamsBuilder::default()
            // The older encoding of Ed25519, which every gpgv of the last ten years reads.
            .key_type(KeyType::Ed25519Legacy)
            .can_certify(true)
            .can_sign(true)
            .primary_user_id(format!("{name} <{name}@example.invalid>"))
            .build()
            .unwrap();
        Self { secret: params.generate(rand::thread_rng()).unwrap() }
    }

    /// The public half as apt's `signed-by=` wants it in a file that ends in `.gpg`: binary.
    pub fn keyring(&self) -> Vec<u8> {
        SignedPublicKey::from(self.secret.clone()).to_bytes().unwrap()
    }

    /// Writes such a file.
    pub fn write_keyring(&self, path: &Path) {
        std::fs::write(path, self.keyring()).unwrap();
    }

    /// The public half in ASCII armour, for a file that ends in `.asc`.
    pub fn armoured(&self) -> String {
        SignedPublicKey::from(self.secret.clone()).to_armored_string(ArmorOptions::default()).unwrap()
    }

    /// `Release` as `InRelease`.
    pub fn cleartext(&self, release: &str) -> Vec<u8> {
        let key = &self.secret.primary_key;
        CleartextSignedMessage::sign(rand::thread_rng(), release, key, &Password::empty())
            .unwrap()
            .to_armored_bytes(ArmorOptions::default())
            .unwrap()
    }

    /// `Release.gpg` for `Release`.
    pub fn detached(&self, release: &str) -> Vec<u8> {
        let (key, password) = (&self.secret.primary_key, Password::empty());
        let rng = rand::thread_rng();
        DetachedSignature::sign_binary_data(rng, key, &password, HashAlgorithm::Sha512, release.as_bytes())
            .unwrap()
            .to_armored_bytes(ArmorOptions::default())
            .unwrap()
    }
}
