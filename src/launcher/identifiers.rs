//! Identifiers in requests and replies. Their characters have no special meaning in shells and file names.

/// Random value that marks the lines of a reply: 32 lower-case hexadecimal digits, different for each request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Nonce(pub(super) String);

impl Nonce {
    /// Returns `None` if the text is not 32 lower-case hexadecimal digits.
    pub fn new(text: &str) -> Option<Self> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        (text.len() == 32 && digits).then(|| Self(text.to_owned()))
    }
}

/// UID of an execution. The names of its files on the machine start with this UID.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Uid(String);

impl Uid {
    /// Returns `None` if the text is not 1 to 64 letters, digits and `-`, or if the text starts with `-`.
    pub fn new(text: &str) -> Option<Self> {
        let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        (!text.is_empty() && text.len() <= 64 && plain && !text.starts_with('-')).then(|| Self(text.to_owned()))
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
