"""Synchronous execution: POST /machines/{id}/commands/execute."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from lab import API, EXECUTE, NAMESPACE, SHOW, assert_error, assert_malformed


def test_a_command_that_ends_by_itself_is_200_with_any_exit_code(jane):
    answer = jane.execute("both streams", reason="contract")
    assert answer.status_code == 200
    body = answer.json()
    duration = body.pop("duration_ms")
    command_id = body.pop("command_id")
    assert isinstance(duration, int) and duration >= 0
    assert answer.headers["Writ-Execution"] == command_id.replace(":", "/", 1)
    assert "Idempotency-Replayed" not in answer.headers
    assert command_id.startswith(f"{NAMESPACE}:run-")
    assert body == {
        "exit_code": 3,
        "stdout": "out\n",
        "stderr": "err\n",
        "phase": "Failed",
        "reason": "NonZeroExitCode",
        "stdout_truncated": False,
        "stderr_truncated": False,
        "stdout_encoding": "utf-8",
        "stderr_encoding": "utf-8",
    }


def test_success_has_exit_code_0(jane):
    body = jane.execute("show two").json()
    assert (body["exit_code"], body["stdout"], body["phase"], body["reason"]) == (0, "two\n", "Succeeded", "Completed")


def test_a_signal_has_no_exit_code(jane):
    body = jane.execute("killed").json()
    assert (body["exit_code"], body["signal"], body["phase"], body["reason"]) == (None, "KILL", "Failed", "Signalled")


def test_bytes_that_are_not_utf8_come_as_base64(jane):
    body = jane.execute("other bytes").json()
    assert (body["stdout"], body["stdout_encoding"]) == ("Yf/+Yg==", "base64")


def test_large_output_is_cut_and_says_so(jane, large):
    body = jane.read(large)
    assert body["stdout_truncated"] is True and len(body["stdout"]) < 20_000


def test_redacted_output_has_no_secret(jane):
    assert jane.execute("redacted").json()["stdout"] == "*** done\n"


def test_a_machine_has_a_name_and_a_uid(jane):
    uid = jane.get(f"{API}/machines/web-1").json()["uid"]
    answer = jane.plain("POST", f"{API}/machines/{uid}/commands/execute", json=SHOW)
    assert answer.status_code == 200 and answer.json()["stdout"] == "one\n"


def test_the_body_needs_no_content_type_but_no_other_one(jane):
    body = b'{"command": "show one", "action_type": "read"}'
    assert jane.post(EXECUTE, content=body).status_code == 200
    assert (
        jane.post(EXECUTE, content=body, headers={"Content-Type": "application/json; charset=utf-8"}).status_code == 200
    )
    for other in ["text/plain", "application/x-www-form-urlencoded"]:
        assert_malformed(jane.post(EXECUTE, content=body, headers={"Content-Type": other}), "Content-Type")


@pytest.mark.parametrize(
    ("command", "status", "error", "reason"),
    [
        ("no rule has this text", 400, "Command not in whitelist", "NoMatchingRule"),
        ("show four", 400, "Command not in whitelist", "NoMatchingRule"),
        ("show one ", 400, "Command not in whitelist", "NoMatchingRule"),
        ("for others", 403, "Command not permitted", "NotPermitted"),
        ("denied", 403, "Command not permitted", "Denied"),
        ("ambiguous", 403, "Command not permitted", "Ambiguous"),
        ("too much output", 500, "Output limit exceeded", "OutputLimitExceeded"),
    ],
)
def test_the_policy_and_the_limits_have_their_status(jane, command, status, error, reason):
    body = assert_error(jane.execute(command), status, error, reason)
    assert body["execution"].startswith(f"{NAMESPACE}/run-")
    assert body["phase"] == ("Failed" if status == 500 else "Rejected") and "may_have_run" not in body


def test_another_action_type_is_not_in_the_whitelist(jane):
    answer = jane.execute("show one", action_type="restart")
    assert answer.status_code in (400, 403) and answer.json()["phase"] == "Rejected", answer.text


def test_an_unknown_machine_is_404_and_creates_nothing(jane):
    answer = jane.execute("show one", machine="no-such-machine")
    body = assert_error(answer, 404, "Machine not found", "MachineNotFound", "no-such-machine")
    assert "execution" not in body and "Writ-Execution" not in answer.headers


def test_a_machine_that_cannot_be_used_is_500_at_once(jane):
    started = time.monotonic()
    body = assert_error(jane.execute("show one", machine="web-2"), 500, "SSH error", "HostKeyMismatch")
    assert "host key" in body["message"] and "may_have_run" not in body
    assert time.monotonic() - started < 20


def test_a_timeout_is_408_and_closes_the_connection(jane):
    started = time.monotonic()
    answer = jane.execute("wait 30", action_type="wait", timeout=2)
    body = assert_error(answer, 408, "Command execution timeout", answer.json()["reason"])
    assert answer.headers["Connection"] == "close"
    assert 1.5 < time.monotonic() - started < 10
    ended = jane.end_of(body["execution"].replace("/", ":", 1))
    assert (ended["status"], ended["phase"]) == ("timeout", "TimedOut")


def test_a_cancelled_command_is_409(jane, dave):
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(jane.execute, "wait 30", action_type="wait")
        found, deadline = [], time.monotonic() + 20
        while not found:
            assert time.monotonic() < deadline
            page = dave.get(f"{API}/commands", params={"machine": "web-1", "status": "executing"}).json()
            found = [one["command_id"] for one in page["items"] if one["command"] == "wait 30"]
            time.sleep(0.2)
        command_id = found[0]
        assert jane.plain("DELETE", f"{API}/commands/{command_id}").status_code == 202
        body = assert_error(waiting.result(), 409, "Command cancelled", waiting.result().json()["reason"])
    assert body["phase"] == "Cancelled"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"command": ""}, "command must not be empty"),
        ({"command": "   "}, "command must not be empty"),
        ({"command": "a\nb"}, "command must be printable ASCII"),
        ({"command": "a\u0000b"}, "command must be printable ASCII"),
        ({"command": "caf\u00e9"}, "command must be printable ASCII"),
        ({"command": "x" * 4097}, "command must have at most 4096"),
        ({"command": ["show", "one"]}, "command"),
        ({"command": None}, "command"),
        ({"action_type": None}, "action_type"),
        ({"action_type": ""}, "action_type"),
        ({"action_type": "Read"}, "action_type"),
        ({"timeout": 0}, "POST /api/v1/commands"),
        ({"timeout": 121}, "POST /api/v1/commands"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": "30"}, "timeout"),
        ({"timeout": 2**40}, "timeout"),
        ({"reason": "x" * 1025}, "reason"),
        ({"userId": "root"}, "userId"),
        ({"machine": "web-2"}, "machine"),
    ],
)
def test_a_malformed_body_is_422_and_names_the_field(jane, change, word):
    assert_malformed(jane.post(EXECUTE, json={**SHOW, **change}), word)


@pytest.mark.parametrize("field", ["command", "action_type"])
def test_a_missing_field_is_422(jane, field):
    assert_malformed(jane.post(EXECUTE, json={name: value for name, value in SHOW.items() if name != field}), field)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"null",
        b'{"command": "show one", "action_type": "read"} {}',
        b'{"command": "show one", "command": "show two", "action_type": "read"}',
        b"\xff\xfe",
    ],
)
def test_a_body_that_is_no_request_is_422(jane, body):
    assert_malformed(jane.post(EXECUTE, content=body))


def test_a_body_over_64_kib_is_413(jane):
    for body in [b"x" * 65537, iter([b"x" * 40000, b"x" * 40000])]:
        assert_error(jane.post(EXECUTE, content=body), 413, "Request too large", "TooLarge", "65536")
