//! Skips the escape sequences of terminals: colours, movements of the cursor, titles.

/// First byte of every sequence.
pub const ESCAPE: u8 = 0x1b;

/// State of the reader of escape sequences.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Escape {
    /// The next byte is text.
    #[default]
    None,
    /// The escape byte was read.
    Start,
    /// The parameters of a control sequence follow (`ESC [`).
    Parameters {
        /// True if there are no parameters so far.
        is_empty: bool,
        /// True if the parameters so far mean the first column, as they do in `ESC [ G` and `ESC [ 1 G`.
        is_first: bool,
    },
    /// A string follows, for example the title of the window.
    Text,
}

/// Movement of the cursor by a sequence.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Movement {
    /// The sequence is unfinished, or moves nothing.
    None,
    /// To the first column of the same line, as a carriage return does.
    FirstColumn,
    /// To another position.
    Elsewhere,
}

impl Escape {
    /// Reads the next byte of a sequence. Returns `None` if the byte does not belong to the sequence.
    pub fn read(&mut self, byte: u8) -> Option<Movement> {
        let (next, movement) = match (*self, byte) {
            (Self::None, _) => return None,
            (Self::Start, b'[') => (Self::Parameters { is_empty: true, is_first: true }, Movement::None),
            (Self::Start, b']' | b'P' | b'X' | b'^' | b'_') => (Self::Text, Movement::None),
            (Self::Start, b'7' | b'8' | b'D' | b'E' | b'M') => (Self::None, Movement::Elsewhere),
            (Self::Start, ESCAPE | b' '..=b'/') => (Self::Start, Movement::None),
            (Self::Start, b'0'..=b'~') => (Self::None, Movement::None),
            (Self::Parameters { is_empty, is_first }, b' '..=b'?') => {
                let is_first = is_first && is_empty && matches!(byte, b'0' | b'1');
                (Self::Parameters { is_empty: false, is_first }, Movement::None)
            }
            (Self::Parameters { is_first: true, .. }, b'G') => (Self::None, Movement::FirstColumn),
            (Self::Parameters { .. }, b'A' | b'B' | b'E' | b'F' | b'H' | b'd' | b'f' | b's' | b'u') => {
                (Self::None, Movement::Elsewhere)
            }
            (Self::Parameters { .. }, b'@'..=b'~') => (Self::None, Movement::None),
            (Self::Text, 0x07) => (Self::None, Movement::None),
            (Self::Text, ESCAPE) => (Self::Start, Movement::None),
            // A string that never ends must not hide all output after it.
            (Self::Text, b'\n' | b'\r') | (Self::Start | Self::Parameters { .. }, _) => return None,
            (Self::Text, _) => (Self::Text, Movement::None),
        };
        *self = next;
        Some(movement)
    }
}
