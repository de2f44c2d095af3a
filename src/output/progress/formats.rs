//! Recognises one line that reports progress, by the formats of the programs that print it.

/// Maximum length of a label, in characters. A viewer shows it in one line.
const MAX_LABEL: usize = 200;

/// Steps of dpkg: the beginning and the end of their lines.
const STEPS: [(&[u8], &[u8]); 7] = [
    (b"Preparing to unpack ", b" ..."),
    (b"Processing triggers for ", b") ..."),
    (b"Purging configuration files for ", b") ..."),
    (b"Removing ", b") ..."),
    (b"Selecting previously unselected package ", b"."),
    (b"Setting up ", b") ..."),
    (b"Unpacking ", b") ..."),
];

/// Columns of curl's meter: percent and size of the total, the received and the sent data, two average speeds, three
/// times, and the current speed.
const CURL_COLUMNS: [fn(&[u8]) -> bool; 12] = [
    is_whole, is_amount, is_whole, is_amount, is_whole, is_amount, is_amount, is_amount, is_time, is_time, is_time,
    is_amount,
];

/// A line of output.
pub struct Line<'text> {
    /// Text without escape sequences and without the end of the line.
    pub text: &'text [u8],
    /// True if a carriage return without a newline is before or after the line.
    pub is_redrawn: bool,
    /// True if the line has its end.
    pub is_complete: bool,
}

/// Report of progress in one line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Report<'text> {
    /// Percent of all steps of a package manager.
    Overall(u8),
    /// Name of the current step of a package manager.
    Step(&'text [u8]),
    /// Progress of anything else.
    Single {
        /// Completed part in percent, 0 to 100.
        percent: u8,
        /// Name of the step. Empty if it is unknown.
        label: &'text [u8],
    },
}

/// Returns true if a report without a percent sign can start with this byte.
pub fn starts_report(byte: u8) -> bool {
    (byte == b'P') | (byte == b'R') | (byte == b'S') | (byte == b'U') | (byte == b'd') | (byte == b'p')
}

/// Returns the report in a line.
pub fn recognize<'text>(line: &Line<'text>) -> Option<Report<'text>> {
    let first = *line.text.first()?;
    let of_packages = if starts_report(first) || first == b'(' { package_report(line) } else { None };
    of_packages.or_else(|| percent_report(line.text.trim_ascii(), line.is_redrawn))
}

fn package_report<'text>(line: &Line<'text>) -> Option<Report<'text>> {
    let text = line.text.trim_ascii_end();
    if let Some(rest) = text.strip_prefix(b"Progress: [") {
        let mut parts = rest.splitn(2, |byte| *byte == b'%');
        let percent = decimal(parts.next()?.trim_ascii_start())?;
        return parts.next()?.starts_with(b"]").then_some(Report::Overall(percent));
    }
    if let Some(rest) = text.strip_prefix(b"(Reading database ... ") {
        let percent = decimal(rest.strip_suffix(b"%")?)?;
        return Some(Report::Single { percent, label: b"Reading database" });
    }
    // The name of a step is at the end of the line, so only a complete line has the whole name.
    if !line.is_complete {
        return None;
    }
    if let Some(rest) = text.strip_prefix(b"pmstatus:").or_else(|| text.strip_prefix(b"dlstatus:")) {
        let mut fields = rest.splitn(3, |byte| *byte == b':').skip(1);
        let percent = decimal(fields.next()?)?;
        return Some(Report::Single { percent, label: fields.next()? });
    }
    let is_step = |(start, end): &(&[u8], &[u8])| text.starts_with(start) && text.ends_with(end);
    STEPS.iter().find(|step| is_step(step))?;
    text.strip_suffix(b" ...").or_else(|| text.strip_suffix(b".")).map(Report::Step)
}

fn percent_report(text: &[u8], is_redrawn: bool) -> Option<Report<'_>> {
    let mut percents = percents(text);
    let Some(Percent { value, start, end }) = percents.next() else {
        return if is_redrawn { curl_meter(text) } else { None };
    };
    let (before, after) = (text.get(..start)?, text.get(end..)?);
    let percent = u8::try_from(value.min(100)).unwrap_or(100);
    if let Some(label) = named_format(before, after) {
        return Some(Report::Single { percent, label });
    }
    let is_only = percents.next().is_none();
    (is_redrawn && is_only && value <= 100).then(|| Report::Single { percent, label: label_before(before) })
}

/// A percentage in a line.
struct Percent {
    /// Value without its fraction, 0 to 999.
    value: u16,
    /// Position of its first digit.
    start: usize,
    /// Position after its percent sign.
    end: usize,
}

fn percents(text: &[u8]) -> impl Iterator<Item = Percent> {
    let signs = text.iter().enumerate().filter(|(_, byte)| **byte == b'%');
    signs.filter_map(|(sign, _)| percent_at(text, sign))
}

/// Returns the percentage that ends at a percent sign. Returns `None` if it is a part of another word, for example of
/// `45%d`, `v1%`, `1,234%` or `-5%`.
fn percent_at(text: &[u8], sign: usize) -> Option<Percent> {
    let (before, after) = text.split_at_checked(sign)?;
    let is_word_byte = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(*byte, b'%' | b'_');
    if after.get(1).is_some_and(is_word_byte) {
        return None;
    }
    let (left, last) = split_digits(before);
    let (left, whole) = match left.strip_suffix(b".").map(split_digits) {
        Some((left, whole)) if !whole.is_empty() && !last.is_empty() => (left, whole),
        _ => (left, last),
    };
    let is_separate = match left.split_last() {
        None => true,
        Some((b'.', further)) => !further.last().is_some_and(u8::is_ascii_digit),
        Some((byte, _)) => {
            matches!(byte, b' ' | b'\t' | b'[' | b'(' | b'|' | b'#' | b'=' | b'>' | b':' | b'*' | 0x80..)
        }
    };
    if !is_separate || whole.is_empty() || whole.len() > 3 {
        return None;
    }
    let value = whole.iter().fold(0, |value, digit| value * 10 + u16::from(digit - b'0'));
    Some(Percent { value, start: left.len(), end: sign + 1 })
}

/// Splits a text before the digits at its end.
fn split_digits(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().rposition(|byte| !byte.is_ascii_digit()).map_or(0, |last| last + 1))
}

/// Returns the label of a line whose format is known, from the text before and after its percentage.
fn named_format<'text>(before: &'text [u8], after: &'text [u8]) -> Option<&'text [u8]> {
    if let (true, Some(rest)) = (before.is_empty(), after.strip_prefix(b" [")) {
        // apt: `12% [3 Packages 1,234 kB/5,678 kB 22%]`
        let end = rest.iter().rposition(|byte| *byte == b']')?;
        return rest.get(..end);
    }
    if is_wget_bar(after) {
        return Some(before.trim_ascii());
    }
    if after.starts_with(b"|#") || after.starts_with(b"|\xe2\x96") {
        return Some(label_before(before));
    }
    let is_other = is_rsync(before, after) || is_wget_dots(before) || is_hash_bar(before, after);
    is_other.then_some(b"".as_slice())
}

/// wget: `NAME  45%[====>   ] 1,234,567  1.2MB/s  eta 3s`.
fn is_wget_bar(after: &[u8]) -> bool {
    let is_bar = |byte: &u8| matches!(*byte, b'=' | b'>' | b'<' | b'+' | b' ');
    let rest = after.strip_prefix(b"[").unwrap_or_default();
    rest.iter().find(|byte| !is_bar(byte)) == Some(&b']')
}

/// rsync: `32,768  45%    1.23MB/s    0:00:01 (xfr#1, to-chk=5/10)`.
fn is_rsync(before: &[u8], after: &[u8]) -> bool {
    let mut fields = after.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
    let is_rate = |field: &[u8]| field.strip_suffix(b"B/s").is_some_and(is_amount);
    is_amount(before.trim_ascii()) && fields.next().is_some_and(is_rate) && fields.next().is_some_and(is_time)
}

/// wget without a terminal: `50K .......... .......... 12% 1.2M 3s`.
fn is_wget_dots(before: &[u8]) -> bool {
    let (amount, dots) = before.split_at(before.iter().position(|byte| *byte == b' ').unwrap_or(before.len()));
    let is_dot = |byte: &u8| matches!(*byte, b'.' | b',' | b' ');
    let has_unit = amount.last().is_some_and(u8::is_ascii_alphabetic);
    has_unit && is_amount(amount) && dots.contains(&b'.') && dots.iter().all(is_dot)
}

/// curl: `#####  45.3%`.
fn is_hash_bar(before: &[u8], after: &[u8]) -> bool {
    after.is_empty() && before.starts_with(b"##") && before.iter().all(|byte| matches!(*byte, b'#' | b' '))
}

/// curl: `  5  100M    5 5120k    0     0  1234k      0  0:01:23  0:00:04  0:01:19 1235k`. Without a total, the percent
/// is unknown.
fn curl_meter(text: &[u8]) -> Option<Report<'_>> {
    let fields = || text.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
    let mut columns = fields();
    if !CURL_COLUMNS.iter().all(|is_column| columns.next().is_some_and(is_column)) {
        return None;
    }
    let mut columns = fields();
    let percent = decimal(columns.next()?)?;
    let has_total = columns.next()? != b"0";
    has_total.then_some(Report::Single { percent, label: b"" })
}

fn is_whole(field: &[u8]) -> bool {
    (1..=3).contains(&field.len()) && field.iter().all(u8::is_ascii_digit)
}

/// Returns true for a size: `0`, `32,768`, `5120k`, `1.23M`.
fn is_amount(field: &[u8]) -> bool {
    let number = match field.split_last() {
        Some((b'k' | b'K' | b'M' | b'G' | b'T' | b'P', number)) => number,
        _ => field,
    };
    let is_part = |byte: &u8| byte.is_ascii_digit() || matches!(*byte, b'.' | b',' | b'\'');
    number.first().is_some_and(u8::is_ascii_digit) && number.iter().all(is_part)
}

/// Returns true for a time: `0:01:23`, `--:--:--`, `??:??:??`.
fn is_time(field: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_digit() || matches!(*byte, b':' | b'-' | b'?');
    field.contains(&b':') && field.iter().all(is_part)
}

/// Returns a number without its fraction, at most 100.
fn decimal(text: &[u8]) -> Option<u8> {
    let mut parts = text.splitn(2, |byte| *byte == b'.');
    let whole = parts.next().filter(|whole| !whole.is_empty())?;
    let fraction = parts.next().unwrap_or_default();
    if !whole.iter().chain(fraction).all(u8::is_ascii_digit) {
        return None;
    }
    let value =
        whole.iter().fold(0_u64, |value, digit| value.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
    u8::try_from(value.min(100)).ok()
}

/// Returns the words before a percentage, without bars. Empty if the text does not begin with a letter: such a text
/// has numbers that change with each report.
fn label_before(before: &[u8]) -> &[u8] {
    let is_decoration = |byte: &u8| !byte.is_ascii_alphanumeric() && byte.is_ascii();
    // The blocks of bars, arrows and dashes are between U+2000 and U+2FFF, and all have this first byte.
    let words = before.split(|byte| *byte == 0xe2).next().unwrap_or_default();
    let end = words.iter().rposition(|byte| !is_decoration(byte)).map_or(0, |last| last + 1);
    let words = words.get(..end).unwrap_or_default();
    let start = words.iter().position(|byte| !is_decoration(byte)).unwrap_or(end);
    let words = words.get(start..).unwrap_or_default();
    match words.first() {
        Some(first) if first.is_ascii_alphabetic() || !first.is_ascii() => words,
        _ => b"",
    }
}

/// Returns a label as text. Spaces replace control characters, and characters that change the display of text.
pub fn printable(label: &[u8]) -> String {
    let is_hidden = |each: char| {
        each.is_control()
            || matches!(each, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
            || matches!(each, '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let text = String::from_utf8_lossy(label.trim_ascii());
    let shown: String = text.chars().take(MAX_LABEL).map(|each| if is_hidden(each) { ' ' } else { each }).collect();
    shown.trim().to_owned()
}
