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
