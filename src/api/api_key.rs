//! API keys of the gateway: the text of a key, and the names in the Secret that stores its digest. Pure: the random
//! bits are an argument.
//!
//! A key is `writ_`, then 256 random bits as 43 base62 digits, then a checksum as 6 base62 digits. The digits are
//! `0-9A-Za-z`. The checksum is the CRC-32 (ISO-HDLC, as in zlib) of the characters before it. A secret scanner finds
//! keys by `writ_[0-9A-Za-z]{49}`, and verifies them without a request.
//!
//! # Guarantees
//! A key is wiped from memory when it is dropped. A key cannot be printed by accident: `Debug` shows none of its
//! characters, and a key has neither `Display` nor `Serialize`.

use std::fmt;

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// Prefix of every key.
const PREFIX: &str = "writ_";
/// Number of base62 digits for 256 bits: 62^43 is slightly more than 2^256.
const RANDOM_DIGITS: usize = 43;
/// Number of base62 digits for 32 bits.
const CHECKSUM_DIGITS: usize = 6;
/// Length of a key in bytes.
const KEY_BYTES: usize = PREFIX.len() + RANDOM_DIGITS + CHECKSUM_DIGITS;
/// Digits of base62, in the order of ASCII.
const DIGITS: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Text before the key in the digest for the name of the Secret. With this text, the name reveals nothing about the
/// stored digest.
const NAME_DOMAIN: &str = "writ api key name\n";
/// Number of bytes of the digest in the name of the Secret.
const NAME_BYTES: usize = 16;

/// Prefix of the name of each Secret with an API key.
pub const API_KEY_SECRET_PREFIX: &str = "writ-api-key-";
/// Type of a Secret with an API key.
pub const API_KEY_TYPE: &str = "writ.dev/api-key";
/// Label, with the value `true`, of a Secret with an API key.
pub const API_KEY_LABEL: &str = "writ.dev/api-key";
/// Label of a Secret with an API key: the name by which people list and revoke the key.
pub const API_KEY_NAME_LABEL: &str = "writ.dev/api-key-name";
/// Annotation of a Secret with an API key: the user for whom the gateway acts.
pub const API_KEY_USER_ANNOTATION: &str = "writ.dev/api-key-user";
/// Annotation of a Secret with an API key: the groups of the user, as a JSON array without white space.
pub const API_KEY_GROUPS_ANNOTATION: &str = "writ.dev/api-key-groups";
/// Annotation of a Secret with an API key: the time from which the key is refused, for example `2026-11-21T10:00:00Z`.
pub const API_KEY_EXPIRES_ANNOTATION: &str = "writ.dev/api-key-expires";
/// Annotation of a Secret with an API key: maximum number of commands in 60 s.
pub const API_KEY_RATE_ANNOTATION: &str = "writ.dev/api-key-commands-per-minute";
/// Entry of a Secret with an API key: SHA-256 of the key, in hexadecimal.
pub const API_KEY_DIGEST_ENTRY: &str = "digest";

/// The text of an API key.
pub struct ApiKey(Zeroizing<String>);

/// Reason why a text is no API key. The message contains no part of the text.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ApiKeyError {
    /// The text has another prefix.
    #[error("the API key cannot be used: it must start with {PREFIX}; copy the whole key")]
    Prefix,
    /// The text is too short or too long.
    #[error("the API key cannot be used: it must have {KEY_BYTES} characters; copy the whole key, without white space")]
    Length,
    /// The text has a character that is no digit of base62.
    #[error("the API key cannot be used: only letters and digits may follow {PREFIX}; copy the key again")]
    Alphabet,
    /// The checksum belongs to another text.
    #[error("the API key cannot be used: its checksum is wrong, so a character has changed; copy the key again")]
    Checksum,
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ApiKey(..)")
    }
}

impl ApiKey {
    /// Returns the key for 256 random bits. The bits must come from a cryptographic generator.
    pub fn from_random(random: [u8; 32]) -> Self {
        let random = Zeroizing::new(random);
        // The capacity prevents a reallocation, which would leave a copy of the key in freed memory.
        let mut text = Zeroizing::new(String::with_capacity(KEY_BYTES));
        text.push_str(PREFIX);
        push_base62(&mut text, &random);
        let checksum = crc32(text.as_bytes()).to_be_bytes();
        push_checksum(&mut text, checksum);
        Self(text)
    }

    /// Parses a key.
    ///
    /// # Errors
    /// See [`ApiKeyError`].
    pub fn parse(text: &str) -> Result<Self, ApiKeyError> {
        let digits = text.strip_prefix(PREFIX).ok_or(ApiKeyError::Prefix)?;
        if text.len() != KEY_BYTES {
            return Err(ApiKeyError::Length);
        }
        if !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(ApiKeyError::Alphabet);
        }
        let (before, checksum) = text.split_at_checked(KEY_BYTES - CHECKSUM_DIGITS).ok_or(ApiKeyError::Length)?;
        let mut expected = String::with_capacity(CHECKSUM_DIGITS);
        push_checksum(&mut expected, crc32(before.as_bytes()).to_be_bytes());
        if checksum != expected {
            return Err(ApiKeyError::Checksum);
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// Returns the text of the key. Show it to its owner only, and only once.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Returns the SHA-256 of the key, as the Secret stores it.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_bytes()).into()
    }

    /// Returns the name of the key's Secret. The holder of a key finds its Secret by one read, without a list.
    pub fn secret_name(&self) -> String {
        let digest = Sha256::new().chain_update(NAME_DOMAIN).chain_update(self.0.as_bytes()).finalize();
        let hexadecimal = digest.iter().take(NAME_BYTES).map(|byte| format!("{byte:02x}"));
        format!("{API_KEY_SECRET_PREFIX}{}", hexadecimal.collect::<String>())
    }
}

/// Appends a number of 256 bits as [`RANDOM_DIGITS`] digits, the most significant digit first.
fn push_base62(text: &mut String, number: &[u8; 32]) {
    let mut digits = Zeroizing::new([0_u8; RANDOM_DIGITS]);
    let mut rest = Zeroizing::new(*number);
    for digit in digits.iter_mut().rev() {
        *digit = divide_by_62(rest.as_mut_slice());
    }
    text.extend(digits.iter().map(|digit| symbol(*digit)));
}

/// Appends a checksum as [`CHECKSUM_DIGITS`] digits, the most significant digit first.
fn push_checksum(text: &mut String, mut checksum: [u8; 4]) {
    let mut digits = [0_u8; CHECKSUM_DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = divide_by_62(&mut checksum);
    }
    text.extend(digits.iter().map(|digit| symbol(*digit)));
}

/// Divides a big-endian number by 62 in place, and returns the remainder.
fn divide_by_62(number: &mut [u8]) -> u8 {
    let mut remainder = 0_u16;
    for byte in number {
        let value = (remainder << 8) | u16::from(*byte);
        // The remainder before was less than 62, so the quotient is less than 256.
        *byte = u8::try_from(value / 62).unwrap_or(u8::MAX);
        remainder = value % 62;
    }
    u8::try_from(remainder).unwrap_or(u8::MAX)
}

fn symbol(digit: u8) -> char {
    DIGITS.chars().nth(usize::from(digit)).unwrap_or('0')
}

/// Returns the CRC-32 of zlib, PNG and Ethernet. No library, because the pure core has no dependency with a CRC-32, and
/// 48 bytes need no speed.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0_u32, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Key whose random bits are the bytes 0 to 31. An independent program has computed the text.
    const EXAMPLE: &str = "writ_003aUlTJC7tjlCTQj2uNU3MFagCXG9LRKRcwGkBIDlf3FQ7WD";

    fn example() -> ApiKey {
        ApiKey::from_random(std::array::from_fn(|index| u8::try_from(index).unwrap()))
    }

    /// Returns the error of a text that is no key.
    fn error_of(text: &str) -> ApiKeyError {
        ApiKey::parse(text).unwrap_err()
    }

    #[test]
    fn a_key_has_the_documented_form() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(example().text(), EXAMPLE);
        assert_eq!(ApiKey::from_random([0; 32]).text().get(5..48), Some("0".repeat(43).as_str()));
        let largest = ApiKey::from_random([255; 32]);
        assert!(largest.text().len() == KEY_BYTES && largest.text() > ApiKey::from_random([254; 32]).text());
    }

    #[test]
    fn name_and_digest_depend_on_the_whole_key_and_not_on_each_other() {
        let key = example();
        let digest: String = key.digest().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, "2812aec95a0ddc4006e9dcd11c69f9b0ebbcf153c15499c28cb6efe7ed44fce2");
        assert_eq!(key.secret_name(), "writ-api-key-c7163645c5b4ef5b5b2494d2c69b718c");
        let other = ApiKey::from_random([7; 32]);
        assert!(other.secret_name() != key.secret_name() && other.digest() != key.digest());
    }

    #[test]
    fn a_text_that_is_no_key_is_refused_without_repeating_it() {
        for text in ["", "writ", "Writ_", "ghp_abc", " writ_", &EXAMPLE[1..]] {
            assert_eq!(error_of(text), ApiKeyError::Prefix, "{text}");
        }
        for text in ["writ_", &EXAMPLE[..53], &format!("{EXAMPLE}0"), &format!("{EXAMPLE}\n"), &EXAMPLE.repeat(9999)] {
            assert_eq!(error_of(text), ApiKeyError::Length);
        }
        for bad in ["-", "_", "+", " ", "\0", "\u{7f}"] {
            assert_eq!(error_of(&EXAMPLE.replacen(&EXAMPLE[20..21], bad, 1)), ApiKeyError::Alphabet, "{bad:?}");
        }
        // A character of two bytes in place of two characters keeps the length.
        assert_eq!(error_of(&format!("writ_\u{e9}{}", &EXAMPLE[7..])), ApiKeyError::Alphabet);
        assert_eq!(error_of(&format!("{}\u{e9}", &EXAMPLE[..52])), ApiKeyError::Alphabet);
        for error in [ApiKeyError::Prefix, ApiKeyError::Length, ApiKeyError::Alphabet, ApiKeyError::Checksum] {
            assert!(!error.to_string().contains(&EXAMPLE[5..10]));
        }
    }

    #[test]
    fn debug_output_shows_nothing_of_a_key() {
        assert_eq!(format!("{:?}", example()), "ApiKey(..)");
    }

    proptest! {
        #[test]
        fn every_key_can_be_parsed_again(random in any::<[u8; 32]>()) {
            let key = ApiKey::from_random(random);
            prop_assert_eq!(key.text().len(), KEY_BYTES);
            let parsed = ApiKey::parse(key.text()).unwrap();
            prop_assert_eq!(parsed.text(), key.text());
            prop_assert_eq!(parsed.digest(), key.digest());
        }

        #[test]
        fn different_bits_give_different_keys(one in any::<[u8; 32]>(), bit in 0_usize..256) {
            let mut other = one;
            other[bit / 8] ^= 1 << (bit % 8);
            let (one, other) = (ApiKey::from_random(one), ApiKey::from_random(other));
            prop_assert_ne!(one.text(), other.text());
        }

        #[test]
        fn one_changed_character_is_detected(random in any::<[u8; 32]>(), at in 5_usize..KEY_BYTES, by in 1_u8..62) {
            let text = ApiKey::from_random(random).text().to_owned();
            let digit = DIGITS.find(&text[at..=at]).unwrap();
            let changed = symbol(u8::try_from((digit + usize::from(by)) % 62).unwrap());
            let changed = format!("{}{changed}{}", &text[..at], &text[at + 1..]);
            prop_assert_eq!(ApiKey::parse(&changed).unwrap_err(), ApiKeyError::Checksum);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "(writ_)?.{0,60}") {
            let _ = ApiKey::parse(&text);
        }
    }
}
