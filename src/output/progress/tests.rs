use proptest::prelude::*;

use super::*;

/// Returns the newest report after all chunks.
fn newest<'chunk>(chunks: impl IntoIterator<Item = &'chunk [u8]>) -> Progress {
    let mut parser = ProgressParser::default();
    chunks.into_iter().filter_map(|chunk| parser.push(chunk)).last().unwrap_or_default()
}

/// Returns all reports of chunks that are pushed one after the other.
fn reports(chunks: &[&str]) -> Vec<(Option<u8>, String)> {
    let mut parser = ProgressParser::default();
    let reports = chunks.iter().filter_map(|chunk| parser.push(chunk.as_bytes()));
    reports.map(|Progress { percent, label }| (percent, label)).collect()
}

/// Checks the newest report of an output, whole, cut at every offset, and byte by byte.
#[track_caller]
fn gives(output: &str, percent: Option<u8>, label: &str) {
    let expected = Progress { percent, label: label.to_owned() };
    let bytes = output.as_bytes();
    for at in 0..=bytes.len() {
        let (first, second) = bytes.split_at(at);
        assert_eq!(newest([first, second]), expected, "{output:?} cut at {at}");
    }
    assert_eq!(newest(bytes.chunks(1)), expected, "{output:?} byte by byte");
}

#[track_caller]
fn gives_nothing(output: &str) {
    gives(output, None, "");
    assert_eq!(reports(&[output]), [], "{output:?}");
}

#[test]
fn steps_of_dpkg_are_labels_without_a_percent() {
    let selecting = "Selecting previously unselected package hello.\n";
    gives(selecting, None, "Selecting previously unselected package hello");
    let reading = "(Reading database ... \r(Reading database ... 5%\r(Reading database ... 10%";
    gives(&format!("{selecting}{reading}"), Some(10), "Reading database");
    let read = format!("{selecting}{reading}\r(Reading database ... 100%\r(Reading database ... 8123 files and ");
    let read = format!("{read}directories currently installed.)\r\n");
    gives(&read, Some(100), "Reading database");
    for (line, label) in [
        ("Preparing to unpack .../hello_2.10-3_amd64.deb ...\n", "Preparing to unpack .../hello_2.10-3_amd64.deb"),
        ("Unpacking hello (2.10-3) ...\r\n", "Unpacking hello (2.10-3)"),
        ("Unpacking libc6:amd64 (2.36-9) over (2.36-8) ...\n", "Unpacking libc6:amd64 (2.36-9) over (2.36-8)"),
        ("Setting up hello (2.10-3) ...\n", "Setting up hello (2.10-3)"),
        ("Processing triggers for man-db (2.11.2-2) ...\n", "Processing triggers for man-db (2.11.2-2)"),
        ("Removing hello (2.10-3) ...\n", "Removing hello (2.10-3)"),
        ("Purging configuration files for hello (2.10-3) ...\n", "Purging configuration files for hello (2.10-3)"),
    ] {
        gives(line, None, label);
        gives(&format!("{read}{line}"), None, label);
    }
}

#[test]
fn percent_of_apt_stays_with_the_steps_of_dpkg() {
    gives("\r\nProgress: [ 42%]\r\n", Some(42), "");
    let plain = "\r\nProgress: [ 40%]\r\nUnpacking hello (2.10-3) ...\r\n";
    gives(plain, Some(40), "Unpacking hello (2.10-3)");
    gives(&format!("{plain}\r\nProgress: [ 60%]\r\n"), Some(60), "Unpacking hello (2.10-3)");
    gives(&format!("{plain}\r\nProgress: [100%]\r\nSetting up b (1) ...\n"), None, "Setting up b (1)");
    let bar = "\u{1b}7\u{1b}[24;0f\u{1b}[42m\u{1b}[30mProgress: [ 50%]\u{1b}[49m\u{1b}[39m [#######.......] \u{1b}8";
    gives(bar, Some(50), "");
    gives(&format!("Setting up a (1) ...\r\n{bar}"), Some(50), "Setting up a (1)");
    gives(&format!("{bar}Setting up b (2) ...\r\n"), Some(50), "Setting up b (2)");
}

#[test]
fn downloads_of_apt_have_the_text_in_brackets() {
    gives("\r0% [Working]\r            \rHit:1 http://deb.debian.org/debian trixie InRelease\r\n", Some(0), "Working");
    let label = "3 Packages 1,234 kB/5,678 kB 22%";
    gives(&format!("\r0% [Working]\r12% [{label}]"), Some(12), label);
    let label = "1 Sources 8 B/9 B 2%] [2 Packages 1 B/9 B 0%";
    gives(&format!("\r45% [{label}]  1,234 kB/s 5s\r"), Some(45), label);
    gives("Reading package lists... 0%\r\rReading package lists... 45%\r", Some(45), "Reading package lists");
    let done = "Building dependency tree... 0%\rBuilding dependency tree... 50%\rBuilding dependency tree... Done\n";
    gives(done, Some(50), "Building dependency tree");
}

#[test]
fn status_lines_of_apt_have_percent_and_text() {
    gives("pmstatus:hello:40.0000:Installing hello (amd64)\n", Some(40), "Installing hello (amd64)");
    gives("pmstatus:dpkg-exec:0:Running dpkg\n", Some(0), "Running dpkg");
    gives("dlstatus:1:20.5:Retrieving file 1 of 2\n", Some(20), "Retrieving file 1 of 2");
    gives("dlstatus:1:999999999999999999999.5:Retrieving: more\n", Some(100), "Retrieving: more");
    for none in
        ["pmstatus:hello:inf:x\n", "pmstatus:hello:-1:x\n", "pmstatus:hello\n", "dlstatus:1:2", "pmstatus::.5:\n"]
    {
        gives_nothing(none);
    }
}

#[test]
fn transfers_have_the_percent_of_their_format() {
    let rsync = "sending incremental file list\nweb.tar\n\r         32,768  45%    1.23MB/s    0:00:01  ";
    gives(rsync, Some(45), "");
    gives(&format!("{rsync}\r         72,817 100%    3.47MB/s    0:00:00 (xfr#1, to-chk=5/10)\n"), Some(100), "");
    gives("          1.23G  7%  110.00kB/s   ??:??:?? (xfr#1, ir-chk=5/10)\n", Some(7), "");
    let wget = "\rdebian.iso            0%[                    ]       0  --.-KB/s               ";
    gives(wget, Some(0), "debian.iso");
    let next = "\rdebian.iso           45%[========>           ]   1.18M  1.2MB/s    eta 3s    ";
    gives(&format!("{wget}{next}"), Some(45), "debian.iso");
    gives("    50K .......... .......... .......... .......... .......... 12% 1.2M 3s\n", Some(12), "");
    gives("  3072K ,,,,,,,, ........ ........ ........ .....           100% 9.88M=0.4s\n", Some(100), "");
}

#[test]
fn meter_of_curl_counts_only_with_a_known_total() {
    let header = concat!(
        "  % Total    % Received % Xferd  Average Speed   Time    Time     Time  Current\n",
        "                                 Dload  Upload   Total   Spent    Left  Speed\n",
        "\r  0     0    0     0    0     0      0      0 --:--:-- --:--:-- --:--:--     0",
    );
    gives_nothing(header);
    gives_nothing(&format!("{header}\r  0     0    0 51200    0     0  12345      0 --:--:--  0:00:04 --:--:-- 12345"));
    let row = "\r  5  100M    5 5120k    0     0  1234k      0  0:01:23  0:00:04  0:01:19 1235k";
    gives(&format!("{header}{row}"), Some(5), "");
    let last = "\r100  100M  100  100M    0     0  1234k      0  0:01:23  0:01:23 --:--:-- 1235k\n";
    gives(&format!("{header}{row}{last}"), Some(100), "");
    gives("\r#=#=#                     \r##                         2.8%\r##################  45.3%", Some(45), "");
    gives("######################################################################## 100.0%\n", Some(100), "");
}

#[test]
fn redrawn_line_counts_with_the_words_before_its_percent() {
    gives("\r  0%|          | 0/9 [00:00<?, ?it/s]\r 45%|████▌     | 4/9 [00:01<00:01, 4.0it/s]", Some(45), "");
    gives("Downloading web-1.2.tar.gz:  45%|####5     | 45/100\n", Some(45), "Downloading web-1.2.tar.gz");
    gives("Receiving objects:  44% (44/99)\rReceiving objects:  45% (45/99)\u{1b}[K\r", Some(45), "Receiving objects");
    gives("copying 1%\rcopying 2%, done.\n", Some(2), "copying");
    gives("\u{1b}[2K\u{1b}[1Gbuild [##   ] 20%\u{1b}[2K\u{1b}[1Gbuild [###  ] 30%", Some(30), "build");
    gives("x\rlädt ███▌   35%", Some(35), "lädt");
    gives("x\r  10MiB 0:00:01 [ 9MiB/s] [=====>    ] 45% ETA 0:00:01\r", Some(45), "");
}

#[test]
fn percentages_in_other_text_are_no_progress() {
    for text in [
        "Filesystem      Size  Used Avail Use% Mounted on\n/dev/sda1        50G   20G   28G  45% /mnt\n",
        "Filesystem      Size  Used Avail Use% Mounted on\r\n/dev/sda1        50G   20G   28G  45% /mnt\r\n",
        "Use%\n 45%\n100%\n",
        "45%\r\r\n100%\r\r\n",
        "\n\r45%\n\r87%\n\r",
        "TOTAL      100     13    87%\r\ncoverage 87%\r\n",
        "%Cpu(s):  2.3 us,  1.0 sy\n  812 root  20  0 1.2g 0.1g S 45.0  2.1 0:01.23 web\n",
        "\u{1b}[H\u{1b}[2J/dev/sda1  50G  20G  28G  45% /mnt\u{1b}[2;1H/dev/sdb1 9%",
        "\u{1b}[31mcoverage 87%\u{1b}[0m\r\n",
        "procs -----------memory---------- ---swap--\r\n 1  0      0 123456  7890 12345    0    0     5\r\n",
        "x\rcpu 45% memory 30%\r",
        "x\rGET /a%20b%2045%zz\r",
        "x\rload 145%\rdrop -5%\rsum 1,234%\rversion v45%\rratio 1/45%\r1.234.5%\r45%%\r%\r",
        "Removing intermediate container 0a1b2c\nRemoving web_1 ... done\nUnpacking the boxes ...\n",
        "Setting up the account.\nProcessing triggers for\nSelecting previously unselected package\n",
        "Progress: [42]\nProgress: 42%\n(Reading database ... 8123 files\n",
        "12% [unfinished\n45%[link] and 45%| cell\n50K and 12%\n32,768  45%  of\n",
    ] {
        let mut parser = ProgressParser::default();
        assert_eq!(parser.push(text.as_bytes()), None, "{text:?}");
    }
    for text in ["coverage 87%\r\n", "45%\r\r\n", "Use%\n 45%\n", "\n\r87%\n\r", "Progress: 42%\n"] {
        gives_nothing(text);
    }
}

#[test]
fn unfinished_line_that_becomes_no_report_makes_progress_unknown() {
    let cpu = reports(&["x\rcpu 45%", " memory 30%"]);
    assert_eq!(cpu, [(Some(45), "cpu".to_owned()), (None, String::new())]);
    let after = reports(&["pmstatus:a:7:b\n", "x\rcpu 45%", " memory 30%"]);
    assert_eq!(after.last(), Some(&(Some(7), "b".to_owned())));
}

#[test]
fn report_is_returned_only_if_it_changed() {
    let chunks = ["x\rcopying 1%", "\rcopying 1%", "\rcopying 1%\r", "copying 2%", " of 9 MB", "\n", "more\n", ""];
    assert_eq!(reports(&chunks), [(Some(1), "copying".to_owned()), (Some(2), "copying".to_owned())]);
}

#[test]
fn only_the_end_of_a_long_chunk_is_searched() {
    let filler = "filler without a report\n".repeat(MAX_SEARCHED_BYTES);
    assert_eq!(reports(&[&format!("pmstatus:a:7:b\n{filler}")]), []);
    assert_eq!(reports(&[&format!("{filler}pmstatus:a:7:b\n")]), [(Some(7), "b".to_owned())]);
    // The beginning of the first searched line is unknown, also if the rest reads like a report.
    let cut = format!("{}pmstatus:a:7:b\n", "x".repeat(MAX_SEARCHED_BYTES));
    assert_eq!(reports(&[&cut]), []);
    assert_eq!(reports(&["pmstatus:a:7:", &"b".repeat(2 * MAX_SEARCHED_BYTES), "\n"]), []);
    assert_eq!(reports(&["x\rcopying 1", &"0".repeat(2 * MAX_SEARCHED_BYTES), "%\r2%"]), [(Some(2), String::new())]);
}

#[test]
fn long_lines_and_labels_are_bounded() {
    let long = format!("pmstatus:a:7:{}\n", "é\u{1b}[31m\u{7}\u{202e}".repeat(150));
    let reports = reports(&[&long]);
    let [(Some(7), label)] = reports.as_slice() else { panic!("{reports:?}") };
    assert_eq!(label, &"é  ".repeat(67)[..label.len()]);
    assert!(label.chars().count() <= 200, "{label}");
    let mut parser = ProgressParser::default();
    for _ in 0..10_000 {
        parser.push(b"a line that never ends 45");
    }
    assert!(parser.line.text.len() <= MAX_LINE_BYTES);
}

#[test]
fn unfinished_escape_sequence_hides_at_most_one_line() {
    for start in ["\u{1b}", "\u{1b}[", "\u{1b}[12;", "\u{1b}]0;title", "\u{1b}P", "\u{1b}(", "\u{1b}]0;a\u{1b}\\"] {
        gives(&format!("{start}\npmstatus:a:7:b\n"), Some(7), "b");
    }
}

/// Returns parts of output that are near a report, so that random texts reach most code.
fn part() -> impl Strategy<Value = Vec<u8>> {
    let texts = [
        "\n",
        "\r",
        "\r\n",
        "\u{1b}",
        "\u{1b}[",
        "\u{1b}[1G",
        "\u{1b}8",
        "\u{1b}[2;1H",
        "%",
        "45%",
        "101%",
        " 7%",
        "[",
        "] ",
        ".",
        "|",
        "#",
        "█",
        "Progress: [",
        "%]",
        "Unpacking a (1) ...",
        " Setting up a (1) ...",
        "pmstatus:a:",
        "7.5:b",
        "(Reading database ... ",
        "32,768  ",
        "  1.23MB/s 0:00:01",
        "[==> ]",
        "50K ....",
        "copying ",
        "é",
        " ",
        "  5  100M    5 5120k    0     0  1234k      0  0:01:23  0:00:04  0:01:19 1235k",
        "text",
    ];
    let texts = proptest::sample::select(texts.map(str::as_bytes).map(<[u8]>::to_vec).to_vec());
    prop_oneof![8 => texts, 1 => proptest::collection::vec(any::<u8>(), 0..4)]
}

proptest! {
    #[test]
    fn random_output_gives_bounded_reports_however_it_is_cut(
        parts in proptest::collection::vec(part(), 0..24),
        cuts in proptest::collection::vec(0_usize..2000, 0..8),
    ) {
        let output = parts.concat();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(output.len())).chain([0, output.len()]).collect();
        cuts.sort_unstable();
        let mut parser = ProgressParser::default();
        let mut last = Progress::default();
        for window in cuts.windows(2) {
            if let Some(report) = parser.push(&output[window[0]..window[1]]) {
                prop_assert!(report.percent.is_none_or(|percent| percent <= 100), "{report:?}");
                prop_assert!(report.label.chars().count() <= 200, "{report:?}");
                prop_assert!(!report.label.chars().any(char::is_control), "{report:?}");
                prop_assert_ne!(&report, &last);
                last = report;
            }
        }
        prop_assert_eq!(last, newest([output.as_slice()]));
    }

    #[test]
    fn random_bytes_of_any_length_do_no_harm(
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..6000), 0..4),
    ) {
        let mut parser = ProgressParser::default();
        for chunk in &chunks {
            let report = parser.push(chunk);
            prop_assert!(report.and_then(|report| report.percent).is_none_or(|percent| percent <= 100));
            prop_assert!(parser.line.text.len() <= MAX_LINE_BYTES);
        }
    }
}
