//! Algorithms and timeouts of the handshake.

use std::borrow::Cow;
use std::time::Duration;

use russh::keys::Algorithm;
use russh::{Preferred, cipher, client, compression, kex, mac};

/// Interval of keepalives on an idle connection, and maximum number of unanswered keepalives. russh notices a dead
/// machine after 60 s: 15 s x (3 + 1).
const KEEPALIVE: (Duration, usize) = (Duration::from_secs(15), 3);
/// Maximum time without a message from the server, after which russh closes the connection. Also limits the first key
/// exchange, which has no keepalives. A silent command does not reach this limit, because answers to keepalives count.
const INACTIVITY: Duration = Duration::from_secs(75);

/// Returns the client's configuration, without SHA-1, CBC and compression. The client requests only the given types of
/// host keys and certificates.
pub(super) fn config(key_types: Vec<Algorithm>, certificate_types: Vec<Algorithm>) -> client::Config {
    client::Config {
        preferred: Preferred {
            kex: Cow::Borrowed(&[
                kex::MLKEM768X25519_SHA256,
                kex::CURVE25519,
                kex::CURVE25519_PRE_RFC_8731,
                kex::ECDH_SHA2_NISTP256,
                kex::ECDH_SHA2_NISTP384,
                kex::ECDH_SHA2_NISTP521,
                kex::DH_G16_SHA512,
                kex::DH_G18_SHA512,
                kex::EXTENSION_SUPPORT_AS_CLIENT,
                // Protects against prefix truncation (CVE-2023-48795) if the server also supports this extension.
                kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
            ]),
            key: Cow::Owned(key_types),
            host_key_certificates: Cow::Owned(certificate_types),
            // AES-GCM takes the least CPU time on processors with AES instructions. Prefix truncation
            // (CVE-2023-48795) does not concern AES-GCM.
            cipher: Cow::Borrowed(&[
                cipher::AES_256_GCM,
                cipher::CHACHA20_POLY1305,
                cipher::AES_256_CTR,
                cipher::AES_128_CTR,
            ]),
            mac: Cow::Borrowed(&[mac::HMAC_SHA512_ETM, mac::HMAC_SHA256_ETM, mac::HMAC_SHA512, mac::HMAC_SHA256]),
            compression: Cow::Borrowed(&[compression::NONE]),
        },
        keepalive_interval: Some(KEEPALIVE.0),
        keepalive_max: KEEPALIVE.1,
        inactivity_timeout: Some(INACTIVITY),
        ..client::Config::default()
    }
}
