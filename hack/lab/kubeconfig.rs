//! Kubeconfig files. Each file contains one user, with the user's certificate or token. Clients always verify the
//! server's certificate.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::certificates::Identity;

/// Returns the text of a kubeconfig. The laboratory chooses all names in the kubeconfig, so no name needs quotes.
pub fn text(server: &str, authority_pem: &str, user: &str, identity: &Identity) -> String {
    let certificate = STANDARD.encode(&identity.certificate);
    let key = STANDARD.encode(&identity.key);
    let proof = format!("client-certificate-data: {certificate}\n    client-key-data: {key}");
    with_proof(server, authority_pem, user, &proof)
}

/// Returns the text of a kubeconfig for a user with a token.
pub fn with_token(server: &str, authority_pem: &str, user: &str, token: &str) -> String {
    with_proof(server, authority_pem, user, &format!("token: {token}"))
}

fn with_proof(server: &str, authority_pem: &str, user: &str, proof: &str) -> String {
    let authority = STANDARD.encode(authority_pem);
    format!(
        "\
apiVersion: v1
kind: Config
current-context: {user}@writ-lab
contexts:
- name: {user}@writ-lab
  context:
    cluster: writ-lab
    user: {user}
clusters:
- name: writ-lab
  cluster:
    server: {server}
    certificate-authority-data: {authority}
users:
- name: {user}
  user:
    {proof}
"
    )
}
