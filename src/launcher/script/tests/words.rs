//! Reads a script like a shell, as far as necessary to find the commands that the script executes.

use std::collections::BTreeSet;

/// Words that precede a command and are not commands themselves.
const KEYWORDS: &[&str] = &["if", "then", "else", "elif", "while", "until", "do", "!", "{", "}", "fi", "done", "esac"];
/// Commands that execute another command. The other command is the first word after their options.
const PREFIXES: &[&str] = &["command", "exec", "setsid"];

/// Names in a script: the commands that it executes, the functions that it defines, and the variables that it sets with
/// assignments, `for` and `read`.
#[derive(Debug, Default)]
pub struct Words {
    pub commands: BTreeSet<String>,
    pub functions: BTreeSet<String>,
    pub variables: BTreeSet<String>,
}

impl Words {
    pub fn of(script: &str) -> Self {
        let mut reader = Reader { rest: script, words: Self::default(), heredoc: None };
        reader.list();
        assert!(reader.rest.is_empty(), "not understood: {}", reader.rest);
        reader.words
    }
}

struct Reader<'a> {
    rest: &'a str,
    words: Words,
    /// Delimiter of the here-documents that begin on the next line, and the number of these here-documents.
    heredoc: Option<(String, usize)>,
}

impl Reader<'_> {
    /// Reads commands up to the end, or up to a `)` that belongs to an outer command.
    fn list(&mut self) {
        while !self.rest.is_empty() && !self.rest.starts_with(')') {
            self.command();
        }
    }

    fn skip(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Reads a separator, a subshell, a keyword, the head of a function, or a simple command.
    fn command(&mut self) {
        if self.separator() {
            return;
        }
        if self.skip("(") {
            self.list();
            assert!(self.skip(")"), "no end of ( before {}", self.rest);
            return;
        }
        let (mut is_name, mut reads) = (true, false);
        while let Some(word) = self.word() {
            let assigned = word.split_once('=').map(|(name, _)| name).filter(|name| is_variable(name));
            if is_name && self.skip("()") {
                self.words.functions.insert(word);
                return;
            }
            match word.as_str() {
                name if !is_name => {
                    if reads && is_variable(name) {
                        self.words.variables.insert(name.to_owned());
                    }
                }
                _ if assigned.is_some() => self.words.variables.extend(assigned.map(str::to_owned)),
                "case" => return self.case(),
                "for" => {
                    let variable = self.word();
                    self.words.variables.extend(variable);
                }
                "in" => is_name = false,
                keyword if KEYWORDS.contains(&keyword) => return,
                option if option.starts_with('-') => {}
                name => {
                    is_name = PREFIXES.contains(&name);
                    reads = name == "read";
                    if !name.contains(['$', '/', '"']) {
                        self.words.commands.insert(name.to_owned());
                    }
                }
            }
        }
    }

    /// Reads the separator between two commands. After a newline, also reads the here-documents. Returns false if there
    /// is no separator.
    fn separator(&mut self) -> bool {
        if self.skip("\n") {
            if let Some((word, count)) = self.heredoc.take() {
                for _ in 0..count {
                    let (_, behind) = self.rest.split_once(&format!("\n{word}\n")).unwrap();
                    self.rest = behind;
                }
            }
            return true;
        }
        [";;", "&&", "||", ";", "&", "|", " "].iter().any(|each| self.skip(each))
    }

    /// Reads the rest of a `case` command, after the word `case`.
    fn case(&mut self) {
        self.word().unwrap();
        assert_eq!(self.word().unwrap(), "in");
        loop {
            while self.rest.starts_with([' ', '\n', ';']) {
                self.rest = &self.rest[1..];
            }
            if self.skip("esac") {
                return;
            }
            while !self.skip(")") {
                let _ = self.skip("|") || self.word().is_some();
            }
            while !self.rest.starts_with(";;") && !self.rest.starts_with("esac") {
                self.command();
            }
        }
    }

    /// Returns the next word of this command. Skips redirections.
    fn word(&mut self) -> Option<String> {
        let mut word = String::new();
        loop {
            let first = self.rest.chars().next();
            match first {
                Some(' ') if word.is_empty() => self.rest = &self.rest[1..],
                None | Some(' ' | '\n' | ';' | '|' | '(' | ')') => return (!word.is_empty()).then_some(word),
                Some('&') => return (!word.is_empty()).then_some(word),
                Some('<' | '>') => {
                    // The number of a file descriptor can precede a redirection.
                    assert!(word.bytes().all(|byte| byte.is_ascii_digit()), "{word}");
                    word.clear();
                    self.redirection();
                }
                Some('\'') => {
                    let (_, behind) = self.rest[1..].split_once('\'').unwrap();
                    self.rest = behind;
                    word.push('"');
                }
                Some('"') => {
                    self.rest = &self.rest[1..];
                    self.quoted();
                    word.push('"');
                }
                Some('$') => {
                    word.push('$');
                    self.expansion();
                }
                Some(other) => {
                    assert!(other != '\\' && other != '`', "{}", self.rest);
                    word.push(other);
                    self.rest = &self.rest[other.len_utf8()..];
                }
            }
        }
    }

    fn redirection(&mut self) {
        if self.skip("<<") {
            let end = self.word().unwrap();
            let count = self.heredoc.take().map_or(0, |(_, count)| count);
            self.heredoc = Some((end, count + 1));
            return;
        }
        while self.rest.starts_with(['<', '>', '&']) {
            self.rest = &self.rest[1..];
        }
        self.word().unwrap();
    }

    /// Reads up to the end of double quotes.
    fn quoted(&mut self) {
        loop {
            match self.rest.as_bytes()[0] {
                b'"' => break,
                b'$' => self.expansion(),
                b'\\' => self.rest = &self.rest[2..],
                _ => self.rest = &self.rest[1..],
            }
        }
        self.rest = &self.rest[1..];
    }

    fn expansion(&mut self) {
        if self.skip("$((") {
            let (_, behind) = self.rest.split_once("))").unwrap();
            self.rest = behind;
        } else if self.skip("$(") {
            self.list();
            assert!(self.skip(")"), "no end of $( before {}", self.rest);
        } else if self.skip("${") {
            let (_, behind) = self.rest.split_once('}').unwrap();
            self.rest = behind;
        } else {
            self.rest = &self.rest[1..];
        }
    }
}

fn is_variable(name: &str) -> bool {
    let is_of_name = |each: char| each.is_ascii_alphanumeric() || each == '_';
    !name.is_empty() && !name.starts_with(|each: char| each.is_ascii_digit()) && name.chars().all(is_of_name)
}

#[test]
fn commands_and_functions_are_found() {
    let script = "f() {\n_a=$(g 1; h | (i)) j \"k $(l \"m\") n\" && o 2>&1 >\"p\" <q\n}\nif ! r; then s; else t; fi\n\
        case $u in\nv | \"w x\"*) y ;;\nesac\nfor z in a b; do c; done\ncommand exec 7<<_ 8<<_ || d\ne\n_\ne\n_\n\
        exec >&- setsid \"$@\"\ncommand -v aa >/dev/null\n_b=1 _c='bb; cc'\nwhile :; do dd & done\nee() {\n}\n$ff gg\n/hh\n[ ii ]\n_d= _e=$x read -r _ _f 2>_g <h || dd bs=1\n";
    let words = Words::of(script);
    let all = |words: &BTreeSet<String>| words.iter().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(all(&words.functions), "ee f");
    assert_eq!(all(&words.commands), ": [ aa c command d dd exec g h i j l o r read s setsid t y");
    assert_eq!(all(&words.variables), "_ _a _b _c _d _e _f z");
}
