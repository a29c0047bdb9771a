//! Certificate verifiers that skip checks, for the `danger_` settings.
//!
//! Each verifier still checks that the server has the private key of its certificate.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

/// Returns a verifier that accepts every certificate.
pub(super) fn any_certificate_verifier() -> Arc<dyn ServerCertVerifier> {
    Arc::new(InsecureVerifier {
        strict_verifier: None,
    })
}

/// Returns a verifier that makes all checks of `strict` except the check of the host name.
pub(super) fn any_host_name_verifier(
    strict: Arc<dyn ServerCertVerifier>,
) -> Arc<dyn ServerCertVerifier> {
    Arc::new(InsecureVerifier {
        strict_verifier: Some(strict),
    })
}

#[derive(Debug)]
struct InsecureVerifier {
    /// The verifier that checks certificates. Its verdict on the host name is ignored. `None` skips
    /// all checks.
    strict_verifier: Option<Arc<dyn ServerCertVerifier>>,
}

fn signature_algorithms() -> WebPkiSupportedAlgorithms {
    ring::default_provider().signature_verification_algorithms
}

impl ServerCertVerifier for InsecureVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(strict_verifier) = &self.strict_verifier else {
            return Ok(ServerCertVerified::assertion());
        };
        match strict_verifier.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            // rustls checks the host name last, so the certificate is valid otherwise.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &signature_algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &signature_algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        signature_algorithms().supported_schemes()
    }
}
