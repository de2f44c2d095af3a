//! Creates the certificates of servers and users for one run of the laboratory, and the key pair for service account
//! tokens.
//!
//! Every run has its own certificate authority, whose key is never written to a file. A kubeconfig of an earlier run
//! therefore gives no access.

use std::fmt;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

use super::error::LabError;

/// Names and addresses in the certificates of servers. 10.0.0.1 is the address of the API server's own Service.
const SERVER_NAMES: &[&str] = &[
    "127.0.0.1",
    "::1",
    "localhost",
    "10.0.0.1",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

/// Users of the laboratory. The demo and the tests grant rights to the groups of these users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// An administrator with all rights (`system:masters`).
    Admin,
    /// An operator on call, of the group `sre`.
    Jane,
    /// A user without rights, of the group `guests`, for tests of refusals.
    Mallory,
}

impl User {
    /// All users.
    pub const ALL: [Self; 3] = [Self::Admin, Self::Jane, Self::Mallory];

    /// Returns the user name for the API server.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Jane => "jane",
            Self::Mallory => "mallory",
        }
    }

    /// Returns the group for the API server, in addition to `system:authenticated`.
    pub fn group(self) -> Option<&'static str> {
        match self {
            Self::Admin => Some("system:masters"),
            Self::Jane => Some("sre"),
            Self::Mallory => Some("guests"),
        }
    }
}

/// A certificate and its private key, both PEM. The Debug output contains neither.
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The private key of the certificate (PKCS #8).
    pub key: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Identity(..)")
    }
}

/// The certificate authority of one run.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Authority(..)")
    }
}

impl Authority {
    /// Creates an authority.
    pub fn new() -> Result<Self, LabError> {
        let name = "writ-lab-ca";
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let issuer = KeyPair::generate().and_then(|key| CertifiedIssuer::self_signed(params, key));
        Ok(Self { issuer: issuer.map_err(certificate_error(name))? })
    }

    /// Returns the authority's own certificate, PEM, for clients that must trust the authority.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Returns a certificate for a server on this machine. etcd also uses its certificate as a client, for connections
    /// to itself.
    pub fn server(&self, name: &str) -> Result<Identity, LabError> {
        let names: Vec<String> = SERVER_NAMES.iter().map(ToString::to_string).collect();
        let params = CertificateParams::new(names).map_err(certificate_error(name))?;
        self.sign(params, name, vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth])
    }

    /// Returns a certificate for a client. The API server reads the user from the common name, and the group from the
    /// field O (organization). There is only one group, because rcgen supports only one field O.
    pub fn client(&self, name: &str, group: Option<&str>) -> Result<Identity, LabError> {
        let mut params = CertificateParams::default();
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        self.sign(params, name, vec![ExtendedKeyUsagePurpose::ClientAuth])
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        name: &str,
        usages: Vec<ExtendedKeyUsagePurpose>,
    ) -> Result<Identity, LabError> {
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages;
        params.use_authority_key_identifier_extension = true;
        let sign = || {
            let key = KeyPair::generate()?;
            let certificate = params.signed_by(&key, &self.issuer)?;
            Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
        };
        sign().map_err(certificate_error(name))
    }
}

/// Returns a key pair for service account tokens, both PEM. The public key is in `certificate`.
pub fn service_account_key() -> Result<Identity, LabError> {
    let key = KeyPair::generate().map_err(certificate_error("service accounts"))?;
    Ok(Identity { certificate: key.public_key_pem(), key: key.serialize_pem() })
}

fn certificate_error(subject: &str) -> impl FnOnce(rcgen::Error) -> LabError {
    let subject = subject.to_owned();
    move |source| LabError::Certificate { subject, source }
}
