//! Compares the requests in the ledger of an SSH server with the requests that Writ must send. This module uses none of
//! Writ's own code.

/// Start of the request for a command without variables, directory and user. The words of the command follow.
const START: &str = "exec '/usr/bin/env' '-uLANGUAGE' '-uLD_AUDIT' '-uLD_LIBRARY_PATH' '-uLD_PRELOAD' '-uGCONV_PATH' '-uBASHOPTS' \
    '-uBASH_ENV' '-uCDPATH' '-uENV' '-uFPATH' '-uGLOBIGNORE' '-uIFS' '-uPS4' '-uSHELLOPTS' '-uZDOTDIR' \
    '-uJAVA_TOOL_OPTIONS' '-uNODE_OPTIONS' '-uPERL5DB' '-uPERL5LIB' '-uPERL5OPT' '-uPERLLIB' '-uPYTHONHOME' \
    '-uPYTHONINSPECT' '-uPYTHONPATH' '-uPYTHONUSERBASE' '-uRUBYLIB' '-uRUBYOPT' \
    'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' 'LC_ALL=C'";
/// Start of a request in Direct mode. It replaces the `exec` of [`START`] by a shell script. The script prints a marker
/// line. After it has read an input line of 32 characters, the script starts the command.
const MARKED: &str = r#"exec '/bin/sh' '-c' 'set +aeuvx; unset -f echo read test; unset _n _s _t; _t=$TMOUT; unset TMOUT; : 3<&0; test -f /dev/stdin || test /dev/stdin -ef /dev/null || test -f /dev/stdout || test /dev/stdout -ef /dev/null || { echo "$1:$2" && while IFS="" read -r _n; do case ${#_n} in 32) test -z "$_t" || export TMOUT="$_t"; exec </dev/null && echo "$1:$_n" && shift 2 && exec "$@"; exit 93 ;; esac; done; }; exit 93' 'writ' 'WRIT3' 'ready' "#;
/// Possible starts of a launcher request: for a POSIX login shell, and for any other login shell. recording-shell.sh
/// contains the same two texts.
const LAUNCHER: [&str; 2] = ["set +aCeuvxmb -f; ", "exec /bin/sh -c 'set +aCeuvxmb -f; "];
/// Number of words before the command in a launch request: NONCE DIRECTORY ID UID BOOT NOT-BEFORE LAST-START LIMIT
/// GRACE MOST DRAIN USER ENTER SKIP. Other requests about one execution have fewer words.
const BEFORE_COMMAND: usize = 14;
/// The UID in requests that concern no execution.
const NO_UID: &str = "-";

/// Returns the expected ledger record of a command with these words. The words must not contain `'`, `\` or `!`.
pub fn asked(words: &[&str]) -> String {
    words.iter().fold(START.to_owned(), |line, word| line + " '" + word + "'")
}

/// Returns the record with `exec` in place of [`MARKED`], for comparison with [`asked`]. Returns `None` if the record
/// does not start with [`MARKED`].
pub fn without_mark(record: &str) -> Option<String> {
    record.strip_prefix(MARKED).map(|command| format!("exec {command}"))
}

/// Returns the commands of all launch requests in the ledger, each as its words, in the order of the requests.
///
/// # Errors
/// Returns the first record that is no launcher request, or has an unexpected form.
pub fn launched(ledger: &[String]) -> Result<Vec<Vec<String>>, String> {
    let mut commands = Vec::new();
    for record in ledger {
        if !LAUNCHER.iter().any(|start| record.starts_with(start)) {
            return Err(record.clone());
        }
        // The script follows the first newline. A request without a script launches no command.
        let script = record.split_once('\n').map_or("", |(_, script)| script);
        if script.is_empty() {
            continue;
        }
        let mut words = words(script).ok_or_else(|| record.clone())?;
        if words.len() > BEFORE_COMMAND && words.get(3).is_some_and(|uid| uid != NO_UID) {
            commands.push(words.split_off(BEFORE_COMMAND));
        }
    }
    Ok(commands)
}

/// Returns true for a request of the launcher that concerns no execution, for example an inspection of the machine.
pub fn concerns_no_execution(record: &str) -> bool {
    let script = record.split_once('\n').map_or("", |(_, script)| script);
    let is_launcher = LAUNCHER.iter().any(|start| record.starts_with(start));
    is_launcher && words(script).is_some_and(|words| words.get(3).is_none_or(|uid| uid == NO_UID))
}

/// Returns the words of the script's command `set --`, which follows the line with the nonce. Each word is in single
/// quotes, and `'\''` stands for a quote. Returns `None` if the script has another form.
fn words(script: &str) -> Option<Vec<String>> {
    let (nonce, behind) = script.split_once('\n')?;
    let mut rest = behind.strip_prefix("set --").filter(|_| nonce.starts_with('#'))?;
    let mut words = Vec::new();
    while let Some(quoted) = rest.strip_prefix(" '") {
        let mut word = String::new();
        rest = quoted;
        loop {
            let (part, behind) = rest.split_once('\'')?;
            word.push_str(part);
            rest = behind;
            let Some(more) = rest.strip_prefix("\\''") else { break };
            word.push('\'');
            rest = more;
        }
        words.push(word);
    }
    rest.starts_with('\n').then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(words: &str) -> String {
        format!("set +aCeuvxmb -f; eval \"$1\"; exit 93\n#nonce\nset --{words}\nexec 3>&2\necho ' not a word'")
    }

    #[test]
    fn words_of_launches_are_read_whatever_is_in_them() {
        let before = " 'nonce' '/d' 'id' 'uid' 'boot' '1' '2' '3' '4' '5' '6' '-' '' '0'";
        let launch = record(&format!("{before} '/bin/echo' 'it'\\''s' '' ' a\n' '\\' ''\\'''\\'''"));
        let poll = record(" 'nonce' '/d' 'id' 'uid' 'poll' '0' '0'");
        let acknowledge = record(&format!(" 'nonce' '/d' 'id' '-' 'acknowledge'{}", " 'uid'".repeat(20)));
        let wrapped = format!("exec /bin/sh -c '{}", record(" 'nonce' ''"));
        let cut = "set +aCeuvxmb -f; exit 93".to_owned();
        let words = ["/bin/echo", "it's", "", " a\n", "\\", "''"].map(str::to_owned).to_vec();
        assert_eq!(launched(&[poll, launch, acknowledge, wrapped, cut]), Ok(vec![words]));
    }

    #[test]
    fn mark_is_told_from_the_command() {
        let record = format!("{MARKED}'/usr/bin/env' '/bin/echo' 'WRIT3:'");
        let command = "exec '/usr/bin/env' '/bin/echo' 'WRIT3:'".to_owned();
        assert_eq!(without_mark(&record), Some(command.clone()));
        assert_eq!(without_mark(&command), None);
    }

    #[test]
    fn request_of_another_form_is_an_error() {
        for other in [
            "/bin/true".to_owned(),
            "exec '/bin/echo'".to_owned(),
            record(" 'a' b"),
            record(" 'a").replace('\n', "'"),
            record("").replace("\nset --", "\ntrue; set --"),
        ] {
            match launched(&[record(""), other.clone()]) {
                Err(found) => assert_eq!(found, other),
                Ok(found) => assert!(!other.contains('\n') && other.starts_with("set +"), "{other}: {found:?}"),
            }
        }
    }
}
