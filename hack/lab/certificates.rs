//! A certificate authority for one run, and what it signs: servers, users, and the key for service accounts.
//!
//! Every run has an authority of its own, whose key is never written anywhere: a kubeconfig left over from
//! another run opens nothing.

use std::fmt;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

use super::error::LabError;

/// The names under which the servers are reached. 10.0.0.1 is the first address of the service range, which
/// the API server takes for itself.
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

/// The people of the laboratory. Groups are what RBAC in the demo and the tests binds to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// May do everything (`system:masters`).
    Admin,
    /// An operator on call, of the group `sre`.
    Jane,
    /// Somebody who tries what she may not, of the group `guests`.
    Mallory,
}

impl User {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Admin, Self::Jane, Self::Mallory];

    /// The name the API server sees.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Jane => "jane",
            Self::Mallory => "mallory",
        }
    }

    /// The group the API server sees, besides `system:authenticated`.
    pub fn group(self) -> Option<&'static str> {
        match self {
            Self::Admin => Some("system:masters"),
            Self::Jane => Some("sre"),
            Self::Mallory => Some("guests"),
        }
    }
}

/// A certificate with its private key, both PEM. Debug shows neither.
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// Its private key (PKCS #8).
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
    /// Makes a new one.
    pub fn new() -> Result<Self, LabError> {
        let name = "writ-lab-ca";
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let issuer = KeyPair::generate().and_then(|key| CertifiedIssuer::self_signed(params, key));
        Ok(Self { issuer: issuer.map_err(certificate_error(name))? })
    }

    /// The authority's own certificate, PEM: what clients trust.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for a server on this machine. It serves as a client's too: etcd talks to itself.
    pub fn server(&self, name: &str) -> Result<Identity, LabError> {
        let names: Vec<String> = SERVER_NAMES.iter().map(ToString::to_string).collect();
        let params = CertificateParams::new(names).map_err(certificate_error(name))?;
        self.sign(params, name, vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth])
    }

    /// A certificate for a client: the API server takes the common name for the user and O for the group.
    /// (It would take several; rcgen holds one.)
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

/// A key pair for service account tokens, both PEM: the public half in `certificate`.
pub fn service_account_key() -> Result<Identity, LabError> {
    let key = KeyPair::generate().map_err(certificate_error("service accounts"))?;
    Ok(Identity { certificate: key.public_key_pem(), key: key.serialize_pem() })
}

fn certificate_error(subject: &str) -> impl FnOnce(rcgen::Error) -> LabError {
    let subject = subject.to_owned();
    move |source| LabError::Certificate { subject, source }
}
