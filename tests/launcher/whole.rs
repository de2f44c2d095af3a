//! The launcher executes a request whole or not at all. It refuses a request that is cut, doubled, mixed with other
//! text or changed at any position. It evaluates no part of such a request. Each value contains shell text that creates
//! a marker file if a shell evaluates it.
//!
//! `WRIT_LAUNCHER_EVERY_OFFSET=1` tries every offset, which takes an hour or more. Without it, the tests try offsets at
//! a distance of 389 bytes. They also try those near the ends of the header, of the script and of its copy.

use std::path::PathBuf;

use writ::launcher::{Answer, ExecRequest, REFUSED_CUT_EXIT_CODE, RequestRefusal, Uid};

use crate::machine::{Kind, Machine, decision, everywhere, nonce, uid};

/// Distance of the offsets that the tests try, in bytes.
const STRIDE: usize = 389;

/// Launch request whose words contain shell text.
struct Victim<'a> {
    machine: &'a Machine,
    nonce: writ::launcher::Nonce,
    uid: Uid,
    request: ExecRequest,
    marker: PathBuf,
}

impl<'a> Victim<'a> {
    fn new(machine: &'a Machine) -> Self {
        let marker = machine.home.path().join("MARK");
        let value = format!("A; touch {};", marker.display()).repeat(20) + ";#";
        let (nonce, uid) = (nonce(), uid());
        let request = machine.localized(&machine.launching(&nonce, &uid, &decision(&["/bin/echo", &value])));
        Self { machine, nonce, uid, request, marker }
    }

    /// Sends `stdin` in place of the request, and checks that the launcher refuses it without any effect.
    fn refuses(&self, stdin: Vec<u8>, how: &str) {
        if stdin == self.request.stdin {
            return;
        }
        let spoilt = ExecRequest { command: self.request.command.clone(), stdin };
        let (said, exit_code) = self.machine.raw_session(&self.nonce, &spoilt).exited();
        assert!(!self.marker.exists(), "{how}: executed");
        assert!(!self.machine.file(&self.uid, "j").exists(), "{how}: came to the fence: {said:?}");
        assert!(said.stdout.is_empty() && said.stderr.is_empty(), "{how}: {said:?}");
        // If the change removed the nonce, the client recognizes no refusal. The exit code is always correct.
        assert_eq!(exit_code, i32::try_from(REFUSED_CUT_EXIT_CODE).ok(), "{how}: {said:?}");
        assert!(matches!(said.answers.as_slice(), [] | [Answer::Refused(RequestRefusal::Cut)]), "{how}: {said:?}");
    }

    fn offsets(&self) -> Vec<usize> {
        let length = self.request.stdin.len();
        if std::env::var_os("WRIT_LAUNCHER_EVERY_OFFSET").is_some() {
            return (0..length).collect();
        }
        let header = self.request.stdin.iter().position(|byte| *byte == b'\n').expect("a header") + 1;
        let middle = header + (length - header) / 2;
        let near = |at: usize| at.saturating_sub(2)..(at + 3).min(length);
        let mut offsets: Vec<usize> = (0..length).step_by(STRIDE).collect();
        offsets.extend([0, 6, 20, header, middle, length].into_iter().flat_map(near));
        offsets
    }
}

fn spoil(test: impl Fn(&Victim<'_>, usize) + Sync) {
    everywhere(|kind| {
        let machine = Machine::new(kind);
        let victim = Victim::new(&machine);
        for at in victim.offsets() {
            test(&victim, at);
        }
        // The unchanged request runs.
        let said = machine.raw_session(&victim.nonce, &victim.request).finish();
        assert!(matches!(said.answer(), Answer::Ended(_)), "{kind:?}: {said:?}");
        assert!(!victim.marker.exists(), "{kind:?}");
    });
}

#[test]
fn a_request_that_was_cut_is_refused() {
    spoil(|victim, at| {
        let whole = &victim.request.stdin;
        victim.refuses(whole[..at].to_vec(), &format!("ends at {at}"));
        victim.refuses(whole[at + 1..].to_vec(), &format!("begins behind {at}"));
        for length in [1, 300, 4_096] {
            let behind = whole.get(at + length..).unwrap_or_default();
            victim.refuses([&whole[..at], behind].concat(), &format!("{length} bytes are missing at {at}"));
        }
    });
}

#[test]
fn a_request_that_was_doubled_or_mixed_with_other_text_is_refused() {
    spoil(|victim, at| {
        let whole = &victim.request.stdin;
        let (before, behind) = whole.split_at(at);
        victim.refuses([before, whole, behind].concat(), &format!("itself at {at}"));
        let part = behind.get(..300).unwrap_or(behind);
        victim.refuses([before, part, behind].concat(), &format!("a part twice at {at}"));
        for text in ["\n", " ", "x", "touch MARK\n", "'", "\u{1c}", "#"] {
            victim.refuses([before, text.as_bytes(), behind].concat(), &format!("{text:?} at {at}"));
        }
    });
}

/// The changed request has the same length, so neither its length nor its ends reveal the change.
#[test]
fn a_request_in_which_text_was_replaced_or_moved_is_refused() {
    spoil(|victim, at| {
        let whole = &victim.request.stdin;
        let mut changed = whole.clone();
        changed[at] = if changed[at] == b';' { b' ' } else { b';' };
        victim.refuses(changed, &format!("another byte at {at}"));
        let text = b"; touch MARK; ";
        if let Some(place) = whole.get(at..at + text.len()) {
            let mut changed = whole.clone();
            changed[at..at + place.len()].copy_from_slice(text);
            victim.refuses(changed, &format!("other text at {at}"));
            let moved = [&whole[..at], &whole[at + text.len()..], place].concat();
            victim.refuses(moved, &format!("moved from {at} to the end"));
        }
    });
}

/// Empty input, and input that is not a request.
#[test]
fn input_that_is_no_request_is_refused() {
    everywhere(|kind| {
        let machine = Machine::new(kind);
        let victim = Victim::new(&machine);
        let nonce = "0123456789abcdef0123456789abcdef";
        let script = format!("#{nonce}\ntouch {}", victim.marker.display());
        for text in [
            String::new(),
            "\n\n\n".to_owned(),
            script.clone(),
            format!("WRIT2 {nonce} {} \u{1c}\n{script}", script.len()),
            format!("WRIT2 {nonce} {} \u{1c}\n{1}\u{1c}{1}", script.len() - 33, &script[33..]),
            format!("WRIT2 {nonce} {} \u{1c}\n{script}\u{1c}{script}\u{1c}{script}", script.len()),
            format!("WRIT2 {nonce} * \u{1c}\n{script}\u{1c}{script}"),
            format!("WRIT2 {nonce} $(touch MARK) \u{1c}\n{script}\u{1c}{script}"),
            format!("WRIT2 {nonce} a[$({script})] \u{1c}\n{script}\u{1c}{script}"),
            format!("WRIT2 {} {} \u{1c}\n{script}\u{1c}{script}", &nonce[1..], script.len()),
            format!("WRIT2 {nonce} {}\n{script}\n{script}", script.len()),
            "x".repeat(3_000_000),
            "\0".repeat(1000),
        ] {
            victim.refuses(text.into_bytes(), &format!("{kind:?}"));
        }
    });
}

#[test]
fn a_refusal_tells_its_reason_if_the_header_is_whole() {
    let machine = Machine::new(Kind::Dash);
    let victim = Victim::new(&machine);
    let mut spoilt = victim.request.clone();
    spoilt.stdin.truncate(spoilt.stdin.len() - 300);
    let said = machine.raw_session(&victim.nonce, &spoilt).finish();
    assert_eq!(said.answers, [Answer::Refused(RequestRefusal::Cut)], "{said:?}");
}
