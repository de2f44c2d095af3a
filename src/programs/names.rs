//! Names of programs. All files of the same program get the same name.

use super::base_name;

/// Suffixes that packages add to the name of a program for a variant of the program (`vim.tiny`, `nc.openbsd`,
/// `emacs-nox`).
const VARIANTS: &[&str] = &[
    "athena",
    "basic",
    "bin",
    "dbg",
    "debug",
    "distrib",
    "gtk",
    "gtk2",
    "gtk3",
    "gtk4",
    "io",
    "lucid",
    "minimal",
    "motif",
    "multiarch",
    "nox",
    "nox11",
    "openbsd",
    "orig",
    "pgtk",
    "real",
    "remote",
    "stable",
    "static",
    "tiny",
    "traditional",
    "x11",
];
/// Prefixes that systems add to the name of a program (`original-awk`, `bsd-csh`, `platform-python`,
/// `microk8s.kubectl`).
const VENDORS: &[&str] =
    &["original-", "bsd-", "heirloom-", "platform-", "system-", "microk8s.", "microk8s-", "uu-", "uu_", "gnu"];

/// Returns the known name of the program at `path`: `perl` for `/usr/bin/perl5.36-x86_64-linux-gnu`. Returns `None` if
/// the program is not known. Known names such as `sqlite3` and `bzip2` stay unchanged.
pub(crate) fn known_name<'a>(path: &'a str, is_known: &impl Fn(&str) -> bool) -> Option<&'a str> {
    let name = base_name(path);
    let name = if name.starts_with("ld-linux") || name.starts_with("ld-musl") || name.starts_with("ld64") {
        "ld.so"
    } else {
        name
    };
    without_ending(name, is_known).or_else(|| {
        let vendors = VENDORS.iter().filter_map(|vendor| name.strip_prefix(vendor));
        // Compilers and binutils for another type of machine, for example `x86_64-linux-gnu-gcc`.
        let triple = ["-gnu-", "-gnueabihf-", "-musl-", "-elf-"].iter().filter_map(|end| Some(name.split_once(end)?.1));
        // GNU programs on systems such as BSD, for example `gtar` and `gxargs`.
        let gnu = name.strip_prefix('g').filter(|rest| rest.len() > 1);
        vendors.chain(triple).chain(gnu).find_map(|rest| without_ending(rest, is_known))
    })
}

/// Removes the version and the variant at the end of a name. Returns `None` if the result is not a known name.
fn without_ending<'a>(name: &'a str, is_known: &impl Fn(&str) -> bool) -> Option<&'a str> {
    let variant = ['.', '-'].iter().filter_map(|sign| {
        let (head, tail) = name.rsplit_once(*sign)?;
        VARIANTS.contains(&tail).then_some(head)
    });
    let versioned = std::iter::once(name).chain(variant.clone()).filter_map(without_version);
    std::iter::once(name).chain(variant).chain(versioned).find(|name| is_known(name))
}

/// Returns the name without its version: `python` for `python3.13t`, `gdb` for `gdb-15`. Returns `None` if the name has
/// no version.
fn without_version(name: &str) -> Option<&str> {
    let start = name.find(|character: char| character.is_ascii_digit())?;
    let (head, tail) = name.split_at_checked(start)?;
    let rest = tail.trim_start_matches(|character: char| character.is_ascii_digit() || character == '.');
    let is_version = rest.len() <= 1 && rest.bytes().all(|byte| byte.is_ascii_lowercase()) || rest.starts_with('-');
    let head = head.strip_suffix(['-', '.', '@']).unwrap_or(head);
    (is_version && !head.is_empty()).then_some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_versions_and_variants_are_dropped() {
        let known = ["python", "perl", "vim", "nc", "awk", "gdb", "sqlite3", "luajit", "bzip2", "ld.so", "tar", "gcc"];
        let known = [known.as_slice(), &["psql", "docker", "podman", "kubectl", "csh", "rbash", "git"]].concat();
        let name = |path| known_name(path, &|name: &str| known.contains(&name));
        for (path, expected) in [
            ("/usr/bin/python3.13t", "python"),
            ("/usr/bin/perl5.36-x86_64-linux-gnu", "perl"),
            ("/usr/bin/vim.tiny", "vim"),
            ("/bin/nc.traditional", "nc"),
            ("/usr/bin/gdb-15", "gdb"),
            ("/usr/bin/sqlite3", "sqlite3"),
            ("/usr/bin/luajit-2.1.0-beta3", "luajit"),
            ("/usr/bin/original-awk", "awk"),
            ("/lib64/ld-linux-x86-64.so.2", "ld.so"),
            ("/usr/bin/gtar", "tar"),
            ("/usr/bin/x86_64-linux-gnu-gcc-14", "gcc"),
            ("/usr/bin/psql17", "psql"),
            ("/usr/bin/docker.io", "docker"),
            ("/usr/bin/podman-remote", "podman"),
            ("/snap/bin/microk8s.kubectl", "kubectl"),
            ("/bin/rbash", "rbash"),
        ] {
            assert_eq!(name(path), Some(expected), "{path}");
        }
        for path in
            ["/opt/perl-report", "/usr/bin/perldoc", "/opt/python.sh", "/usr/bin/git-lfs", "/opt/tarball", "/PERL"]
        {
            assert_eq!(name(path), None, "{path}");
        }
    }
}
