//! Checks status messages and the documentation of the reasons by a second, stricter list of words. In other texts,
//! these words can be correct.
//!
//! The test reads the string literals of the modules that build status messages, and the documentation of the reasons.
//! It does not read tests, attributes and comments. A literal of one word is a name and no message.

use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// Files and directories of the modules that build status messages.
const MESSAGES: &[&str] = &["src/execution.rs", "src/execution", "src/machine.rs", "src/machine", "src/api/crds.rs"];
/// File with the documentation of the reasons.
const REASONS: &str = "src/api/execution_status/reason.rs";

/// Words that a message must not have: metaphors, verbs of persons, relative clauses without a noun, old names. The
/// plain word is the noun for the thing, or the exact verb (read, probe, report, record, fix).
const WORDS: &str = "anew beside blind booted folder folders frozen goodbye hang hangs heard hears look looked looking \
                     looks mend mended mends nobody rests said saw say seen sees shall tell tells told unfit vanish what \
                     whatever whoever whose";
/// Phrases that a message must not have.
const PHRASES: &str = "a person, all the same, are over, as it was declared, asked for, at a time, at all, but for, goes on, \
                       held against, in the making, is none, is over, its time, let in, lets in, made up, no account, one's, \
                       so long, so many, taken for, the others, where it, where none, where that, where there, who asks, \
                       who had, who has, who is";

/// Returns the faults of one text, without its placeholders (`{name}`).
fn faults(text: &str) -> Vec<&'static str> {
    let mut depth = 0_u32;
    let visible = text.chars().filter(|each| {
        match each {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => return depth == 0,
        }
        false
    });
    let plain: String = visible
        .map(|each| if each.is_alphanumeric() || each == '\'' { each.to_ascii_lowercase() } else { ' ' })
        .collect();
    let words: Vec<&str> = plain.split_whitespace().collect();
    let spaced = format!(" {} ", words.join(" "));
    let listed = WORDS.split_whitespace().chain(PHRASES.split(", "));
    listed.filter(|fault| spaced.contains(&format!(" {fault} "))).collect()
}

/// String literals of a source text, without those of tests and attributes.
fn literals(tokens: TokenStream, found: &mut Vec<String>) {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Punct(mark) if mark.as_char() == '#' => {
                if let Some(TokenTree::Punct(_)) = tokens.peek() {
                    tokens.next();
                }
                if let Some(TokenTree::Group(group)) = tokens.peek()
                    && group.delimiter() == Delimiter::Bracket
                {
                    let is_test = group.stream().to_string().replace(' ', "") == "cfg(test)";
                    tokens.next();
                    if is_test {
                        skip_item(&mut tokens);
                    }
                }
            }
            TokenTree::Literal(literal) => {
                found.extend(syn::parse_str::<syn::LitStr>(&literal.to_string()).map(|text| text.value()));
            }
            TokenTree::Group(group) => literals(group.stream(), found),
            _ => {}
        }
    }
}

/// Skips one item: up to its body or its semicolon.
fn skip_item(tokens: &mut impl Iterator<Item = TokenTree>) {
    for token in tokens {
        match token {
            TokenTree::Group(body) if body.delimiter() == Delimiter::Brace => return,
            TokenTree::Punct(end) if end.as_char() == ';' => return,
            _ => {}
        }
    }
}

/// Doc comments within a source text.
fn documentation(tokens: TokenStream, found: &mut Vec<String>) {
    let text_of = |attribute: &Group| -> Option<String> {
        let tokens: Vec<TokenTree> = attribute.stream().into_iter().collect();
        match tokens.as_slice() {
            [TokenTree::Ident(name), TokenTree::Punct(_), TokenTree::Literal(text)] if name == "doc" => {
                syn::parse_str::<syn::LitStr>(&text.to_string()).ok().map(|text| text.value())
            }
            _ => None,
        }
    };
    for token in tokens {
        if let TokenTree::Group(group) = token {
            match text_of(&group) {
                Some(text) => found.push(text),
                None => documentation(group.stream(), found),
            }
        }
    }
}

fn tokens_of(path: &Path) -> TokenStream {
    std::fs::read_to_string(path).expect("a file of the source").parse().expect("a file that compiles")
}

/// Source files under a path, without tests.
fn sources(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = std::fs::read_dir(path).expect("a directory of the source");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let is_test = |path: &PathBuf| path.file_stem().is_some_and(|stem| stem == "tests");
    paths.filter(|path| !is_test(path)).flat_map(|path| sources(&path)).filter(|path| is_rust(path)).collect()
}

fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "rs")
}

#[test]
fn status_messages_have_plain_words() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut wrong, mut messages) = (Vec::new(), 0);
    for path in MESSAGES.iter().flat_map(|path| sources(&root.join(path))) {
        let mut texts = Vec::new();
        literals(tokens_of(&path), &mut texts);
        for text in texts.iter().filter(|text| text.contains(' ')) {
            messages += 1;
            let faults = faults(text);
            if !faults.is_empty() {
                wrong.push(format!("{}: {faults:?} in {text:?}", path.strip_prefix(root).unwrap_or(&path).display()));
            }
        }
    }
    assert!(messages > 60, "only {messages} messages were read");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn reasons_are_documented_in_plain_words() {
    let mut texts = Vec::new();
    documentation(tokens_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join(REASONS)), &mut texts);
    assert!(texts.len() > 60, "only {} lines were read", texts.len());
    let wrong: Vec<_> = texts.iter().filter(|text| !faults(text).is_empty()).map(|text| (faults(text), text)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_listed_word_is_found_wherever_it_stands() {
    let source = r##"
        /// mended
        #[expect(dead_code, reason = "told so")]
        fn f() -> String { g(|| format!("the folder {said} is gone")) + r#"Told, twice"# + "said" }
        #[cfg(test)]
        mod tests { const X: &str = "it was mended"; }
        const Y: &str = "made
            anew; who asks";
    "##;
    let mut found = Vec::new();
    literals(source.parse().expect("a source"), &mut found);
    let faults: Vec<_> = found.iter().filter(|text| text.contains(' ')).map(|text| faults(text)).collect();
    assert_eq!(faults, [vec!["folder"], vec!["told"], vec!["anew", "who asks"]]);
}
