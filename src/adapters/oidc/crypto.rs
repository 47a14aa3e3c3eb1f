//! Signatures of tokens, verified by the library that does TLS too.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind, new_error};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::signature as ring_of;
use signature::Verifier;

/// Verifies and signs nothing: we make no tokens.
pub(super) static PROVIDER: CryptoProvider =
    CryptoProvider { signer_factory: no_signer, verifier_factory: verifier, key_utils: KeyUtils::new_unimplemented() };

fn no_signer(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    Err(new_error(ErrorKind::InvalidAlgorithm))
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    Ok(Box::new(Ring { algorithm: *algorithm, key: key.clone() }))
}

struct Ring {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl Verifier<Vec<u8>> for Ring {
    fn verify(&self, message: &[u8], signed: &Vec<u8>) -> Result<(), signature::Error> {
        let verified = match (self.key.kind(), rsa(self.algorithm), curve(self.algorithm)) {
            (DecodingKeyKind::RsaModulusExponent { n, e }, Some(how), _) => {
                ring_of::RsaPublicKeyComponents { n, e }.verify(how, message, signed)
            }
            (DecodingKeyKind::SecretOrDer(point), None, Some(how)) => {
                ring_of::UnparsedPublicKey::new(how, point).verify(message, signed)
            }
            _ => return Err(signature::Error::new()),
        };
        verified.map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Ring {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

fn rsa(algorithm: Algorithm) -> Option<&'static ring_of::RsaParameters> {
    match algorithm {
        Algorithm::RS256 => Some(&ring_of::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => Some(&ring_of::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => Some(&ring_of::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => Some(&ring_of::RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => Some(&ring_of::RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => Some(&ring_of::RSA_PSS_2048_8192_SHA512),
        _ => None,
    }
}

fn curve(algorithm: Algorithm) -> Option<&'static dyn ring_of::VerificationAlgorithm> {
    match algorithm {
        Algorithm::ES256 => Some(&ring_of::ECDSA_P256_SHA256_FIXED),
        Algorithm::ES384 => Some(&ring_of::ECDSA_P384_SHA384_FIXED),
        Algorithm::EdDSA => Some(&ring_of::ED25519),
        _ => None,
    }
}
