"""Output without a stream of messages: polling, raw bytes, search."""

import time

import pytest

from lab import API, assert_error, assert_malformed

LARGE = "".join(f"{number}\n" for number in range(1, 40001)).encode()


def raw(client, command_id, stream="stdout", query="", **headers):
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.plain("GET", f"{API}/commands/{command_id}/output/{stream}{query}", headers=names)


def test_polling_has_the_next_bytes_until_the_end(jane, large):
    offset, text = 0, b""
    while True:
        part = jane.plain("GET", f"{API}/commands/{large}/output?stdout_offset={offset}").json()
        assert set(part) == {
            "command_id",
            "stdout",
            "stderr",
            "stdout_encoding",
            "stderr_encoding",
            "stdout_offset",
            "stderr_offset",
            "is_finished",
            "status",
            "gaps",
        }
        assert len(part["stdout"]) <= 65536 and part["gaps"] == [] and part["stdout_encoding"] == "utf-8"
        text += part["stdout"].encode()
        assert part["stdout_offset"] == len(text)
        if part["is_finished"]:
            break
        offset = part["stdout_offset"]
    assert text == LARGE and part["status"] == "completed" and part["stderr_offset"] == 0


def test_polling_a_running_command_misses_nothing(jane):
    command_id = jane.queue("count to 8").json()["command_id"]
    text, parts, part, deadline = "", 0, {"stdout_offset": 0, "is_finished": False}, time.monotonic() + 30
    while not part["is_finished"]:
        assert time.monotonic() < deadline
        part = jane.plain("GET", f"{API}/commands/{command_id}/output?offset={part['stdout_offset']}").json()
        text += part["stdout"]
        parts += part["stdout"] != ""
        time.sleep(0.1)
    assert text == "".join(f"line {number}\n" for number in range(1, 9)) and parts > 2 and part["status"] == "completed"


def test_polling_has_both_streams_and_other_bytes(jane, finished):
    part = jane.plain("GET", f"{API}/commands/{finished}/output?stderr_offset=1").json()
    assert (part["stdout"], part["stderr"], part["stderr_offset"]) == ("out\n", "rr\n", 4)
    other = jane.execute("other bytes").json()["command_id"]
    part = jane.plain("GET", f"{API}/commands/{other}/output").json()
    assert (part["stdout"], part["stdout_encoding"], part["stdout_offset"]) == ("Yf/+Yg==", "base64", 4)


def test_malformed_offsets_are_422(jane, finished):
    for query in ["offset=-1", "offset=x", "offset=1&stdout_offset=1", "offset=18446744073709551616", "from=1"]:
        assert_malformed(jane.plain("GET", f"{API}/commands/{finished}/output?{query}"))


def test_an_offset_behind_the_end_is_an_end(jane, finished):
    part = jane.plain("GET", f"{API}/commands/{finished}/output?offset=18446744073709551615")
    assert part.status_code == 200 and part.json()["stdout"] == "" and part.json()["is_finished"] is True


def test_raw_output_has_each_byte(jane, large, finished):
    answer = raw(jane, large)
    assert answer.status_code == 200 and answer.content == LARGE
    expected = {
        "Content-Type": "application/octet-stream",
        "Content-Length": str(len(LARGE)),
        "Accept-Ranges": "bytes",
        "Writ-Output-Complete": "true",
        "X-Content-Type-Options": "nosniff",
        "Content-Disposition": f'attachment; filename="{large.split(":")[1]}.stdout"',
    }
    assert {name: answer.headers[name] for name in expected} == expected and answer.headers["ETag"]
    assert raw(jane, finished, "stderr").content == b"err\n"
    assert raw(jane, large, "stderr").content == b""


@pytest.mark.parametrize(
    ("header", "first", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        ("bytes=228890-", 228890, 228894),
        ("bytes=-5", 228889, 228894),
        ("bytes=0-999999999", 0, 228894),
        ("bytes=70000-140000", 70000, 140001),
    ],
)
def test_a_range_is_206(jane, large, header, first, end):
    answer = raw(jane, large, Range=header)
    assert answer.status_code == 206 and answer.content == LARGE[first:end]
    assert answer.headers["Content-Range"] == f"bytes {first}-{end - 1}/228894"


def test_a_range_that_means_nothing_is_ignored(jane, finished):
    for header in ["bytes=2-1", "lines=0-1", "bytes=0-1,2-3", "bytes=x-", "bytes"]:
        answer = raw(jane, finished, Range=header)
        assert (answer.status_code, answer.content) == (200, b"out\n"), header


def test_a_range_without_a_byte_is_416(jane, finished):
    for header in ["bytes=4-", "bytes=99999999999999999999-", "bytes=-0"]:
        answer = raw(jane, finished, Range=header)
        assert_error(answer, 416, "Range not satisfiable", "NoSuchRange", "4 bytes")
        assert answer.headers["Content-Range"] == "bytes */4"


def test_if_range_counts_only_for_the_same_bytes(jane, finished):
    tag = raw(jane, finished).headers["ETag"]
    assert raw(jane, finished, Range="bytes=0-1", If_Range=tag).status_code == 206
    assert raw(jane, finished, Range="bytes=0-1", If_Range='"other"').content == b"out\n"


def test_head_has_the_length_only(jane, large):
    answer = jane.plain("HEAD", f"{API}/commands/{large}/output/stdout")
    assert (answer.status_code, answer.headers["Content-Length"], answer.content) == (200, "228894", b"")


def test_raw_output_of_a_running_command_has_the_bytes_so_far(jane):
    command_id = jane.queue("count to 15").json()["command_id"]
    time.sleep(1.5)
    answer = raw(jane, command_id)
    assert answer.status_code == 200 and answer.content.startswith(b"line 1\n")
    assert answer.headers["Writ-Output-Complete"] == "false" and len(answer.content) < 120
    jane.end_of(command_id)


def test_a_search_has_lines_with_offsets_and_context(jane, large):
    result = raw(jane, large, query="?grep=^1234.$&before=1&after=2&limit=3").json()
    assert set(result) == {"matches", "is_complete", "searched_bytes"} and len(result["matches"]) == 3
    first = result["matches"][0]
    offset = LARGE.index(b"\n12340\n") + 1
    assert first == {
        "offset": offset,
        "match_offset": offset,
        "line": "12340",
        "before": ["12339"],
        "after": ["12341", "12342"],
    }
    assert result["is_complete"] is False
    whole = raw(jane, large, query="?grep=^39999$").json()
    assert [match["line"] for match in whole["matches"]] == ["39999"]
    assert (whole["is_complete"], whole["searched_bytes"]) == (True, len(LARGE))
    later = raw(jane, large, query=f"?grep=^1$&offset={offset}").json()
    assert later["matches"] == [] and later["is_complete"] is True


def test_a_search_continues_behind_its_last_bytes(jane, large):
    lines, offset = [], 0
    for _ in range(50):
        result = raw(jane, large, query=f"?grep=99$&limit=100&offset={offset}").json()
        lines += [match["line"] for match in result["matches"]]
        offset += result["searched_bytes"]
        if result["is_complete"]:
            break
    assert lines == [str(number) for number in range(1, 40001) if number % 100 == 99]


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("grep=(", "grep"),
        ("grep=", "grep"),
        ("grep=" + "x" * 1025, "grep"),
        ("grep=x&before=51", "before"),
        ("grep=x&after=51", "after"),
        ("grep=x&limit=0", "limit"),
        ("grep=x&limit=1001", "limit"),
        ("before=1", "need grep"),
        ("offset=1", "need grep"),
        ("pattern=x", "unknown field `pattern`"),
        (r"grep=(a)\1", "grep"),
    ],
)
def test_a_malformed_search_is_422(jane, finished, query, word):
    assert_malformed(raw(jane, finished, query=f"?{query}"), word)


def test_a_command_that_did_not_run_has_no_output(jane):
    command_id = jane.execute("no rule has this text").json()["execution"].replace("/", ":", 1)
    part = jane.plain("GET", f"{API}/commands/{command_id}/output").json()
    assert (part["stdout"], part["is_finished"], part["status"]) == ("", True, "failed")
    assert raw(jane, command_id).content == b"" and raw(jane, command_id, query="?grep=x").json()["matches"] == []


def test_another_stream_is_404(jane, finished):
    assert_error(raw(jane, finished, "stdin"), 404, "Not found", "NoSuchRoute")
