//! Kubeconfig files: one user each, certificates embedded, the server's certificate always checked.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::certificates::Identity;

/// The text of a kubeconfig. The names in it come from this laboratory, so nothing needs quoting.
pub fn text(server: &str, authority_pem: &str, user: &str, identity: &Identity) -> String {
    let authority = STANDARD.encode(authority_pem);
    let certificate = STANDARD.encode(&identity.certificate);
    let key = STANDARD.encode(&identity.key);
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
    client-certificate-data: {certificate}
    client-key-data: {key}
"
    )
}
