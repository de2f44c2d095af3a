//! What Writ asks a login shell for, written down a second time: what a ledger must say is not worked out by what is tested.

/// Before the program, where a command has no variables, directory or user of its own.
const START: &str = "exec '/usr/bin/env' '-uLANGUAGE' '-uLD_AUDIT' '-uLD_LIBRARY_PATH' '-uLD_PRELOAD' '-uGCONV_PATH' '-uBASHOPTS' \
    '-uBASH_ENV' '-uCDPATH' '-uENV' '-uFPATH' '-uGLOBIGNORE' '-uIFS' '-uPS4' '-uSHELLOPTS' '-uZDOTDIR' \
    '-uJAVA_TOOL_OPTIONS' '-uNODE_OPTIONS' '-uPERL5DB' '-uPERL5LIB' '-uPERL5OPT' '-uPERLLIB' '-uPYTHONHOME' \
    '-uPYTHONINSPECT' '-uPYTHONPATH' '-uPYTHONUSERBASE' '-uRUBYLIB' '-uRUBYOPT' \
    'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' 'LC_ALL=C'";

/// A command in a ledger, from its words. None of them may have a `'`, `\` or `!` in it.
pub fn asked(words: &[&str]) -> String {
    words.iter().fold(START.to_owned(), |line, word| line + " '" + word + "'")
}

/// Of what a login shell was asked for, the words of the commands that the launcher was to start, as they stand there, in
/// quotes: behind the mark that only a launch has. An error where something else than the launcher was asked for.
pub fn launched(ledger: &[String]) -> Result<Vec<String>, String> {
    let mut commands = Vec::new();
    for line in ledger {
        // What Writ sends of its own accord is constant text, the start of which is this.
        if !["exec /bin/sh -c '{ set +", "set -- '"].iter().any(|start| line.starts_with(start)) {
            return Err(line.clone());
        }
        if let Some((_, marked)) = line.split_once(" 'WRIT_EXECUTION=") {
            let (_, words) = marked.split_once("' ").ok_or_else(|| line.clone())?;
            commands.push(words.to_owned());
        }
    }
    Ok(commands)
}

/// Words as [`launched`] has them. None of them may have a `'`, `\` or `!` in it.
pub fn in_quotes(words: &[&str]) -> String {
    words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ")
}
