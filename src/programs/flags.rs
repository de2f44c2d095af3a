//! Determines if an option of a common program takes a value, according to the manual of the program. [`table`] lists
//! the options of launchers.
//!
//! If an option is not listed, Writ assumes that the option can take a value. A missing entry is safe, because Writ at
//! worst refuses a harmless rule. The author can repair such a rule: if the pattern of the parameter begins with a
//! letter, no value of the parameter can be an option.

use super::base_name;
use super::table;
pub(crate) use super::table::Takes;

/// Options of some programs.
struct Known {
    /// Names of the programs, separated by spaces.
    programs: &'static str,
    /// Letters of options in the notation of getopt: `n:` takes a value, `r` takes no value. Letters that take a value
    /// in only some of these programs are omitted.
    letters: &'static str,
    /// Long options that take no value, such as `--continue` or `-nH`.
    words: &'static str,
}

fn is_in(words: &str, word: &str) -> bool {
    words.split(' ').any(|listed| listed == word)
}

/// Character that stands for any text that the requester chooses. No program has an option with this character.
pub(crate) const ANY_TEXT: &str = "\u{fffd}";

/// Programs that pass the words after `--` to another program. The other program can read these words as options.
const PASS_ON: &str = "bundle cargo conda dotnet gcloud minikube nix npm npx pnpm poetry stack uv vagrant yarn";

/// Programs whose first word can consist of the letters of several options, without a dash: `tar xf ARCHIVE`.
const BUNDLES: &str = "ar bsdtar gtar jar star tar";

/// Programs with signals as options: `kill -TERM`.
const SIGNALLERS: &str = "kill killall pkill skill snice pgrep";

/// Long options that take no value in any known program.
const EVERYWHERE: &str = "--dry-run --force --help --no-pager --quiet --recursive --silent --verbose --yes";

const KNOWN: &[Known] = &[
    Known { programs: "rm", letters: "dfiIrRv", words: "--dir --one-file-system --preserve-root" },
    Known { programs: "rmdir", letters: "pv", words: "--parents --ignore-fail-on-non-empty" },
    Known {
        programs: "cp mv ln install",
        letters: "abcdDfg:HiLlm:no:PpRrst:S:TuvxZC",
        words: "--archive --interactive --link --no-clobber --no-dereference --no-target-directory \
            --one-file-system --parents --relative --symbolic --symbolic-link",
    },
    Known { programs: "mkdir", letters: "m:pvZ", words: "--parents" },
    Known { programs: "touch", letters: "acd:fhmr:t:", words: "--no-create --no-dereference" },
    Known {
        programs: "ls dir vdir",
        letters: "aAbBcCdDfFgGhHiI:klLmnNopqQrRsStuUvw:xXZ",
        words: "--all --almost-all --directory --human-readable --inode --reverse --size",
    },
    Known { programs: "cat", letters: "AbeEnsTtuv", words: "--number --number-nonblank --show-all" },
    Known { programs: "head tail", letters: "c:n:qvzfFs:", words: "--follow --retry --zero-terminated" },
    Known {
        programs: "grep egrep fgrep zgrep zegrep zfgrep bzgrep xzgrep zstdgrep",
        letters: "A:B:C:D:d:e:f:m:EFGPivwxcLloqshHnTZaUrRIbuyz",
        words: "--basic-regexp --count --extended-regexp --files-with-matches --files-without-match --fixed-strings \
            --ignore-case --invert-match --line-number --line-regexp --no-filename --no-messages --only-matching \
            --perl-regexp --text --with-filename --word-regexp",
    },
    Known {
        programs: "sort",
        letters: "bcCdfghik:Mmno:RrsS:t:T:uVz",
        words: "--human-numeric-sort --numeric-sort --reverse --stable --unique --version-sort",
    },
    Known { programs: "uniq", letters: "cdDf:is:uw:z", words: "--count --repeated --unique" },
    Known { programs: "wc", letters: "clLmw", words: "--bytes --chars --lines --words" },
    Known { programs: "cut", letters: "b:c:d:f:nsz", words: "--complement --only-delimited" },
    Known { programs: "diff", letters: "aBbcC:dD:eEfF:iI:lL:nNpPqrsS:tTuU:vwW:x:X:yZ", words: "--brief" },
    Known {
        programs: "chmod chown chgrp",
        letters: "cfhHLPRv",
        words: "--changes --dereference --no-dereference --no-preserve-root --preserve-root",
    },
    Known { programs: "stat", letters: "L", words: "--dereference --file-system --terse" },
    Known {
        programs: "du",
        letters: "aB:bcd:DhHklLmPsSx",
        words: "--all --apparent-size --human-readable --inodes --one-file-system --summarize --total",
    },
    Known {
        programs: "df",
        letters: "aB:hHiklPt:Tx:",
        words: "--all --human-readable --inodes --local --portability --total",
    },
    Known {
        programs: "file",
        letters: "bcde:f:F:hiklLm:nNprsSzZ",
        words: "--brief --dereference --mime --mime-encoding --mime-type --no-dereference",
    },
    Known {
        programs: "readlink realpath",
        letters: "efmnqsvzLP",
        words: "--canonicalize --canonicalize-existing --canonicalize-missing --no-newline --strip --zero",
    },
    Known { programs: "basename", letters: "as:z", words: "--multiple --zero" },
    Known { programs: "dirname", letters: "z", words: "--zero" },
    Known {
        programs: "md5sum sha1sum sha224sum sha256sum sha384sum sha512sum",
        letters: "bctwz",
        words: "--binary --check --ignore-missing --status --strict --tag --text --warn",
    },
    Known { programs: "tee", letters: "aip", words: "--append --ignore-interrupts" },
    Known { programs: "truncate", letters: "cor:s:", words: "--no-create" },
    Known {
        programs: "tar bsdtar gtar",
        letters: "b:BcC:df:hijJkmOopPrtT:uUvxX:zZ",
        words: "--append --bzip2 --create --diff --extract --get --gzip --keep-old-files --list --no-recursion \
            --no-same-owner --no-same-permissions --preserve-permissions --update --xz",
    },
    Known {
        programs: "gzip gunzip zcat bzip2 bunzip2 bzcat xz unxz xzcat zstd unzstd zstdcat",
        letters: "cdfhklnNqrtvVz",
        words: "--best --compress --decompress --fast --keep --list --stdout --test",
    },
    Known { programs: "unzip", letters: "d:jlnoqtv", words: "" },
    Known { programs: "zip", letters: "jqrvy", words: "" },
    Known {
        programs: "rsync",
        letters: "aAB:cCdDe:f:FghHiIklKLM:nNoOpPqrRsStT:uUvWxXyz",
        words: "--archive --checksum --compress --delete --delete-after --itemize-changes --partial --progress \
            --stats",
    },
    Known { programs: "scp", letters: "ABCc:D:F:i:J:l:o:OP:pqrRS:TvX:", words: "" },
    Known {
        programs: "curl",
        letters: "A:aBb:c:C:d:D:E:e:fF:gGH:iIjJK:kLlm:MnNo:OP:pqQ:r:RsSt:T:u:U:vVw:x:X:y:Y:z:Z",
        words: "--compressed --fail --get --globoff --head --include --insecure --location --remote-name \
            --show-error",
    },
    Known {
        programs: "wget",
        letters: "a:A:bB:cdD:e:EFHi:I:kKl:LmNo:O:pP:qQ:rR:St:T:U:vVw:xX:",
        words: "-nH -nc -nd -np -nv --continue --no-check-certificate --no-verbose --server-response --spider",
    },
    Known {
        programs: "systemctl journalctl loginctl hostnamectl timedatectl localectl networkctl resolvectl",
        letters: "aefH:hklM:o:p:P:qrs:t:u:S:U:c:D:g:",
        words: "--all --catalog --dmesg --failed --follow --full --global --no-ask-password --no-block --no-full \
            --no-hostname --no-legend --no-reload --no-tail --no-wall --now --plain --reverse --runtime --system \
            --user --utc --value --wait",
    },
    Known { programs: "service rc-service", letters: "", words: "--full-restart --ifexists --ifstarted --status-all" },
    Known {
        programs: "pgrep pkill",
        letters: "acefF:g:G:ilnoP:s:t:u:U:vwx",
        words: "--count --echo --exact --full --ignore-case --list-full --list-name --newest --oldest",
    },
    Known { programs: "killall", letters: "egiIlqrvVw", words: "--exact --ignore-case --regexp --wait" },
    Known { programs: "id groups", letters: "aGgnruzZ", words: "--group --groups --name --real --user --zero" },
    Known {
        programs: "useradd",
        letters: "b:c:d:e:f:g:G:k:K:mMNop:rR:s:u:UZ:",
        words: "--create-home --no-create-home --no-user-group --system --user-group",
    },
    Known {
        programs: "usermod",
        letters: "ac:d:e:f:g:G:l:Lmop:s:u:UZ:",
        words: "--append --lock --move-home --unlock",
    },
    Known { programs: "adduser", letters: "", words: "--disabled-login --disabled-password --no-create-home --system" },
    Known { programs: "userdel deluser groupdel delgroup", letters: "fr", words: "--remove --remove-home --system" },
    Known { programs: "passwd", letters: "adekluSq", words: "--delete --expire --lock --status --unlock" },
    Known { programs: "chage", letters: "l", words: "--list" },
    Known {
        programs: "apt-get apt aptitude",
        letters: "c:dfmo:qst:uVvy",
        words: "--allow-downgrades --assume-yes --auto-remove --autoremove --download-only --fix-broken --installed \
            --no-install-recommends --no-upgrade --only-upgrade --purge --reinstall --simulate --upgradable",
    },
    Known { programs: "apt-cache", letters: "afginqo:c:", words: "--full --installed --names-only" },
    Known { programs: "apt-mark", letters: "qo:c:", words: "" },
    Known {
        programs: "dpkg dpkg-query",
        letters: "lLPrsSWi",
        words: "--list --listfiles --purge --remove --search --show --status",
    },
    Known {
        programs: "yum dnf microdnf tdnf",
        letters: "46Cbqvy",
        words: "--assumeno --assumeyes --best --downloadonly --nobest --nogpgcheck --refresh",
    },
    Known { programs: "zypper", letters: "nqvy", words: "--non-interactive --refresh" },
    Known {
        programs: "rpm",
        letters: "aceE:fhiKlpqRUVvdF",
        words: "--all --erase --info --install --list --query --upgrade --verify",
    },
    Known { programs: "ping ping6", letters: "46aAbBc:dDfi:I:LnOqrRs:t:UvVw:W:", words: "" },
    Known { programs: "host", letters: "aCdilrsvwTUV46c:N:R:t:W:", words: "" },
    Known {
        programs: "mount",
        letters: "aBfFhilno:O:rRst:vw",
        words: "--all --bind --fake --move --rbind --read-only",
    },
    Known { programs: "umount", letters: "aAdfhilnqrRvO:t:", words: "--all --all-targets --fake --lazy --read-only" },
    Known { programs: "logger", letters: "deisTf:n:p:P:t:u:", words: "--id --skip-empty --stderr" },
    Known { programs: "echo", letters: "eEn", words: "" },
    Known {
        programs: "git",
        letters: "qv",
        words: "--abbrev-commit --all --allow-empty --amend --bare --cached --detach --ff-only --graph --hard \
            --keep --mixed --name-only --name-status --no-color --no-commit --no-edit --no-ff --no-tags \
            --no-verify --numstat --oneline --patch --porcelain --prune --short --shortstat --signoff --soft \
            --staged --stat --tags",
    },
    Known {
        programs: "docker podman nerdctl",
        letters: "q",
        words: "--all --all-tags --detach --details --no-cache --no-stream --no-trunc --rm --timestamps --volumes",
    },
    Known {
        programs: "kubectl oc",
        letters: "ARw",
        words: "--all --all-containers --all-namespaces --delete-emptydir-data --follow --ignore-daemonsets \
            --no-headers --now --prefix --previous --show-labels --timestamps --watch",
    },
    Known {
        programs: "helm",
        letters: "q",
        words: "--all --all-namespaces --atomic --debug --install --reset-values --reuse-values --wait",
    },
    Known {
        programs: "psql pg_dump pg_dumpall pg_restore createdb dropdb vacuumdb reindexdb",
        letters: "",
        words: "--analyze --clean --create --data-only --full --if-exists --list --no-align --no-owner \
            --no-password --no-psqlrc --password --schema-only --tuples-only",
    },
    Known { programs: "smartctl", letters: "aHicAx", words: "--all --attributes --health --info --scan --xall" },
    Known {
        programs: "lsblk",
        letters: "abdfhiJlmnOpPsStv",
        words: "--all --bytes --fs --json --list --nodeps --paths",
    },
    Known { programs: "zfs zpool", letters: "Hprv", words: "" },
    Known { programs: "sysctl", letters: "abenNqw", words: "--all --ignore --names --values --write" },
];

/// Returns true if a program passes the words after `--` to another program.
pub(crate) fn passes_words_on(program: &str) -> bool {
    is_in(PASS_ON, base_name(program))
}

/// Returns true if a program reads its first word as letters of options, with or without a dash.
pub(crate) fn reads_bundles(program: &str) -> bool {
    is_in(BUNDLES, base_name(program)) || base_name(program) == "ps"
}

/// Determines if `word` takes the next word as its value. Returns [`Takes::Nothing`] if `word` is not an option, and
/// [`Takes::Unknown`] if the option is not listed.
pub(crate) fn takes(path: &str, word: &str) -> Takes {
    let program = base_name(path);
    let known = KNOWN.iter().find(|known| is_in(known.programs, program));
    let is_listed = known.is_some_and(|known| is_in(known.words, word)) || is_in(EVERYWHERE, word);
    // None of these words takes the next word: `--lines=5` contains its value, `-` is a file, and `--` ends the
    // options.
    let is_whole = matches!(word, "-" | "--") || (word.starts_with("--") && word.contains('='));
    if is_listed || is_whole || !word.starts_with('-') {
        return Takes::Nothing;
    }
    let launcher = table::find(path).map(|(_, description)| description).filter(|description| description.is_exact);
    if word.starts_with("--") {
        return launcher.map_or(Takes::Unknown, |launcher| launcher.takes(word));
    }
    let is_signal = |word: &str| word.len() > 3 && word.bytes().skip(1).all(|byte| byte.is_ascii_uppercase());
    if is_in(SIGNALLERS, program) && is_signal(word) {
        return Takes::Nothing;
    }
    match launcher {
        Some(launcher) => cluster(word, |letter| launcher.takes(&format!("-{letter}"))),
        None => cluster(word, |letter| letter_takes(known.map_or("", |known| known.letters), letter)),
    }
}

/// Determines if a word of option letters takes the next word as its value. If only the letter `o` takes a value,
/// `-euo` takes the next word. `-oeu` does not take the next word, because `eu` is the value.
pub(super) fn cluster(word: &str, takes: impl Fn(char) -> Takes) -> Takes {
    let mut rest = word.chars().skip(1).peekable();
    // In `-xab` with an unknown letter `x`, `ab` is the value of `x`, or two more letters. To be safe, the loop assumes
    // two more letters, because `b` can then take the next word.
    while let Some(letter) = rest.next() {
        let is_last = rest.peek().is_none();
        match takes(letter) {
            Takes::Value => return if is_last { Takes::Value } else { Takes::Nothing },
            Takes::Nothing => {}
            // A digit is a part of a value, as in `-n5`. No program has a digit as an option that takes the next word.
            Takes::Unknown if is_last && !letter.is_ascii_digit() => return Takes::Unknown,
            Takes::Unknown => {}
        }
    }
    Takes::Nothing
}

/// Finds a letter in a list of letters, and determines if the letter takes a value.
fn letter_takes(letters: &str, letter: char) -> Takes {
    match letters.split_once(letter).filter(|_| letter != ':') {
        None => Takes::Unknown,
        Some((_, behind)) if behind.starts_with(':') => Takes::Value,
        Some(_) => Takes::Nothing,
    }
}

/// Returns the number of letters in `word` that can take a later word as their value: 2 for `xbf` in
/// `tar xbf 20 ARCHIVE`. Returns 0 if the program does not read `word` as letters of options without a dash.
pub(crate) fn values_of_a_bundle(program: &str, word: &str) -> usize {
    if !is_in(BUNDLES, base_name(program)) || word.starts_with('-') {
        return 0;
    }
    let letters =
        KNOWN.iter().find(|known| is_in(known.programs, base_name(program))).map_or("", |known| known.letters);
    // An unknown letter can take a value, so it counts.
    word.chars().filter(|letter| letter_takes(letters, *letter) != Takes::Nothing).count()
}
