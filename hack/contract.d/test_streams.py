"""WebSockets and NDJSON: run and follow a command, watch it, and follow all changes."""

import base64
import json
import threading
import time
from contextlib import ExitStack

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from lab import API, EXECUTE, NAMESPACE, SHOW, SOCKETS, URL, Client, assert_error, assert_malformed, create_key
from lab import rest_of, text_of

RUN = f"/machines/web-1/commands/stream?namespace={NAMESPACE}"
COUNT = {"command": "count to 5", "action_type": "read"}
LINES = "".join(f"line {number}\n" for number in range(1, 6))


def refused(client, path, **options):
    with pytest.raises(InvalidStatus) as refusal:
        client.socket(path, **options)
    response = refusal.value.response
    assert response.headers["Content-Type"] == "application/json"
    return response.status_code, json.loads(response.body)["reason"]


def test_output_comes_as_it_is_produced_and_the_exit_code_last(jane):
    with jane.socket(RUN) as socket:
        socket.send(json.dumps(COUNT))
        times, messages = [], []
        for message in socket:
            times.append(time.monotonic())
            messages.append(json.loads(message))
    first, *parts, last = messages
    assert set(first) == {"type", "command_id"} and first["type"] == "execution"
    assert all(set(part) == {"type", "data", "offset"} and part["type"] == "stdout" for part in parts)
    assert text_of(messages) == LINES and times[-1] - times[1] > 0.5
    assert last == {"type": "exit", "data": 0} and socket.close_code == 1000
    assert jane.read(first["command_id"])["stdout"] == LINES


def test_both_streams_and_the_exit_code(jane):
    messages, _ = jane.stream({"command": "both streams", "action_type": "read", "timeout": 10, "reason": "contract"})
    assert text_of(messages) == "out\n" and text_of(messages, "stderr") == "err\n"
    assert messages[-1] == {"type": "exit", "data": 3}


def test_a_signal_is_an_exit_without_a_code(jane):
    messages, _ = jane.stream({"command": "killed", "action_type": "read"})
    assert messages[-1] == {"type": "exit", "data": None, "signal": "KILL"}


def test_nothing_is_truncated(jane):
    messages, _ = jane.stream({"command": "large output", "action_type": "read"})
    assert text_of(messages) == "".join(f"{number}\n" for number in range(1, 40001))
    assert max(len(json.dumps(message)) for message in messages) <= 65536 + 1024


def test_bytes_that_are_not_utf8_come_as_base64(jane):
    messages, _ = jane.stream({"command": "other bytes", "action_type": "read"})
    parts = [message for message in messages if message["type"] == "stdout"]
    data = b"".join(
        base64.b64decode(one["data_base64"]) if "data_base64" in one else one["data"].encode() for one in parts
    )
    assert data == b"a\xff\xfeb" and any("data" not in one for one in parts)


def test_progress_is_reported(jane):
    messages, _ = jane.stream({"command": "progress", "action_type": "read"})
    reports = [message["data"] for message in messages if message["type"] == "progress"]
    assert 90 in [report["percent"] for report in reports] and all(
        set(report) == {"percent", "label"} for report in reports
    )


def test_redacted_output_has_no_secret(jane):
    messages, _ = jane.stream({"command": "redacted", "action_type": "read"})
    assert text_of(messages) == "*** done\n" and "secret" not in json.dumps(messages)


@pytest.mark.parametrize(
    ("request_", "reason", "code"),
    [
        ({"command": "no rule has this text", "action_type": "read"}, "NoMatchingRule", 1008),
        ({"command": "denied", "action_type": "read"}, "Denied", 1008),
        ({"command": "show one"}, "Malformed", 1008),
        ({**SHOW, "comand": "x"}, "Malformed", 1008),
        ({**SHOW, "timeout": 0}, "Malformed", 1008),
        ({**SHOW, "idempotency_key": ""}, "Malformed", 1008),
        ([], "Malformed", 1008),
        ({"command": "too much output", "action_type": "read"}, "OutputLimitExceeded", 1011),
    ],
)
def test_an_error_is_the_last_message(jane, request_, reason, code):
    messages, close_code = jane.stream(request_)
    assert messages[-1]["reason"] == reason and messages[-1]["error"] and messages[-1]["message"], messages[-1]
    assert close_code == code


def test_a_first_message_over_64_kib_closes_the_socket(jane):
    messages, code = jane.stream({**SHOW, "reason": "x" * 70000})
    assert not any(message.get("type") == "exit" for message in messages) and code != 1000


def test_without_a_first_message_the_socket_closes_after_ten_seconds(jane):
    with jane.socket(RUN) as socket:
        messages, code = rest_of(socket)
    assert (messages[-1]["reason"], code) == ("NoRequest", 1008)


def test_a_command_goes_on_when_its_client_is_gone(jane):
    with jane.socket(RUN) as socket:
        socket.send(json.dumps(COUNT))
        command_id = json.loads(socket.recv())["command_id"]
    command = jane.end_of(command_id)
    assert (command["phase"], command["stdout"]) == ("Succeeded", LINES)


def test_checks_come_before_the_socket_opens(jane, nobody, carol):
    assert refused(nobody, RUN) == (401, "Unauthenticated")
    assert refused(carol, RUN) == (403, "Forbidden")
    assert refused(jane, f"/machines/none/commands/stream?namespace={NAMESPACE}") == (404, "MachineNotFound")
    assert refused(jane, RUN + "&command=show") == (422, "Malformed")
    assert refused(jane, f"/commands/{NAMESPACE}:none/stream") == (404, "CommandNotFound")
    assert refused(jane, "/commands/none/stream") == (422, "Malformed")


def test_a_request_that_is_no_websocket_is_426(jane, finished):
    for path in [RUN, f"/commands/{finished}/stream"]:
        answer = jane.plain("GET", API + path)
        assert_error(answer, 426, "Upgrade required", "NotAWebSocket")
        assert answer.headers["Upgrade"] == "websocket"


def test_pages_of_another_origin_open_no_socket(jane, finished):
    for path in [RUN, f"/commands/{finished}/stream", f"/commands/watch?namespace={NAMESPACE}"]:
        for origin in ["https://evil.example", "null", URL + ".evil.example", URL.replace("http", "https")]:
            assert refused(jane, path, origin=origin) == (403, "OriginNotAllowed")
        with jane.socket(path, origin=URL):
            pass


def test_a_browser_sends_its_credential_as_a_subprotocol(jane):
    key = base64.urlsafe_b64encode(jane.key.encode()).decode().rstrip("=")
    offered = ["v1.writ.dev", f"base64url.bearer.authorization.k8s.io.{key}"]
    with connect(f"{SOCKETS}{API}{RUN}", subprotocols=offered, origin=URL) as socket:
        assert socket.subprotocol == "v1.writ.dev"
        socket.send(json.dumps(SHOW))
        messages, code = rest_of(socket)
    assert (text_of(messages), code) == ("one\n", 1000)


def test_a_credential_in_the_url_of_a_socket_is_none(nobody, jane):
    for parameter in [f"api_key={jane.key}", f"token={jane.key}"]:
        assert refused(nobody, f"{RUN}&{parameter}") == (401, "Unauthenticated")


def watched(messages, command_id, offset=0):
    """Checks the messages of a viewer, and returns the text of standard output."""
    first, *parts, last = messages
    assert (first["type"], first["command_id"], first["executionId"]) == ("execution", command_id, command_id)
    text = b""
    for part in parts:
        assert (part["executionId"], part["status"]) == (command_id, "running")
        if part["type"] == "stdout":
            assert part["offset"] == offset + len(text) and part["output"] == part["data"]
            text += part["data"].encode()
    assert (last["type"], last["executionId"], last["status"]) == ("end", command_id, "completed")
    return text.decode(), last


def test_viewers_of_a_running_command_see_it_from_the_first_byte(jane, carol):
    command_id = jane.queue("count to 10").json()["command_id"]
    jane.wait_until(command_id, lambda command: command["status"] in ("executing", "completed"))
    time.sleep(0.6)
    results = {}

    def view(index):
        with carol.socket(f"/commands/{command_id}/stream") as socket:
            results[index] = rest_of(socket)

    threads = [threading.Thread(target=view, args=[index]) for index in range(3)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    for messages, code in results.values():
        text, last = watched(messages, command_id)
        assert text == "".join(f"line {number}\n" for number in range(1, 11))
        assert (last["exitCode"], last["phase"], last["reason"], code) == (0, "Succeeded", "Completed", 1000)
        assert last["execTime"] == jane.read(command_id)["duration_ms"]


def test_an_ended_command_is_shown_from_an_offset(jane, large):
    whole = "".join(f"{number}\n" for number in range(1, 40001))
    for query, offset in [("", 0), ("?offset=100", 100), ("?stdout_offset=228893", 228893), ("?offset=228894", 228894)]:
        with jane.socket(f"/commands/{large}/stream{query}") as socket:
            text, last = watched(rest_of(socket)[0], large, offset)
        assert text == whole[offset:] and last["exitCode"] == 0
    assert refused(jane, f"/commands/{large}/stream?offset=1&stdout_offset=1") == (422, "Malformed")
    assert refused(jane, f"/commands/{large}/stream?offset=-1") == (422, "Malformed")


def test_a_refused_command_ends_at_once_for_its_viewers(jane):
    command_id = jane.queue("no rule has this text").json()["command_id"]
    with jane.socket(f"/commands/{command_id}/stream") as socket:
        messages, _ = rest_of(socket)
    assert (messages[-1]["phase"], messages[-1]["reason"], messages[-1]["exitCode"]) == (
        "Rejected",
        "NoMatchingRule",
        None,
    )


def test_events_are_the_messages_of_the_stream_as_lines(jane, finished):
    answer = jane.plain("GET", f"{API}/commands/{finished}/events")
    assert answer.status_code == 200 and answer.headers["Content-Type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    with jane.socket(f"/commands/{finished}/stream") as socket:
        messages, _ = rest_of(socket)
    assert sorted(map(json.dumps, lines)) == sorted(map(json.dumps, messages)) and lines[-1] == messages[-1]
    assert_malformed(jane.plain("GET", f"{API}/commands/{finished}/events?from=1"), "unknown field `from`")


def test_events_of_a_running_command_come_as_they_are_produced(jane):
    command_id = jane.queue("count to 5").json()["command_id"]
    with jane.stream_lines(f"{API}/commands/{command_id}/events") as answer:
        lines = [json.loads(line) for line in answer.iter_lines()]
    lines = [line for line in lines if line["type"] != "ping"]
    assert watched(lines, command_id)[0] == LINES


def test_changes_are_sent_over_a_socket(jane, running):
    with jane.socket(f"/commands/watch?namespace={NAMESPACE}") as socket:
        first = json.loads(socket.recv(timeout=10))
        assert set(first) == {"type", "commands", "is_complete"} and first["type"] == "listed"
        assert running in [command["command_id"] for command in first["commands"]]
        mine = jane.execute("show one").json()["command_id"]
        while True:
            change = json.loads(socket.recv(timeout=10))
            if change["type"] == "changed" and change["command"]["command_id"] == mine:
                assert set(change) == {"type", "command"}
                if change["command"]["status"] == "completed":
                    break


def test_changes_are_sent_as_lines(jane):
    with jane.stream_lines(f"{API}/commands/watch?namespace={NAMESPACE}") as answer:
        assert answer.headers["Content-Type"] == "application/x-ndjson"
        lines = answer.iter_lines()
        assert json.loads(next(lines))["type"] == "listed"
        mine = jane.queue("show one").json()["command_id"]
        for line in lines:
            change = json.loads(line)
            if change["type"] == "changed" and change["command"]["command_id"] == mine:
                break


def test_changes_need_the_right_to_list(stranger, nobody):
    assert_error(stranger.get(f"{API}/commands/watch"), 403, "Forbidden", "Forbidden")
    assert refused(stranger, f"/commands/watch?namespace={NAMESPACE}") == (403, "Forbidden")
    assert refused(nobody, f"/commands/watch?namespace={NAMESPACE}") == (401, "Unauthenticated")


def test_one_caller_has_at_most_64_sockets():
    client = Client(create_key("contract-sockets", "dave"))
    with ExitStack() as sockets:
        for _ in range(64):
            sockets.enter_context(client.socket(RUN))
            time.sleep(0.03)
        assert refused(client, RUN) == (429, "TooManySockets")
    assert client.post(EXECUTE, json=SHOW).status_code == 200
