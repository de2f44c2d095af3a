"""Queued commands, bulk calls, cancellation, and the list of commands."""

import time

import pytest

from lab import API, NAMESPACE, Client, assert_error, assert_malformed, create_key

FIELDS = {
    "command_id",
    "uid",
    "namespace",
    "machine",
    "command",
    "action_type",
    "requester",
    "request_reason",
    "status",
    "phase",
    "reason",
    "message",
    "created_at",
    "sent_at",
    "completed_at",
    "stdout",
    "stderr",
    "stdout_truncated",
    "stderr_truncated",
    "stdout_encoding",
    "stderr_encoding",
    "exit_code",
    "signal",
    "execution_time",
    "duration_ms",
}
WORDS = {"pending", "sent", "executing", "completed", "timeout", "cancelled", "failed"}
BULK = f"{API}/commands/bulk"


def ids_of(page):
    return [command["command_id"] for command in page["items"]]


def test_a_queued_command_is_202_and_ends(jane):
    answer = jane.queue("both streams", action_type="read", timeout=10, expires_in=60, reason="contract")
    assert answer.status_code == 202 and set(answer.json()) == {"command_id", "status", "message"}
    command_id = answer.json()["command_id"]
    assert answer.json()["status"] == "pending" and command_id in answer.json()["message"]
    assert answer.headers["Writ-Execution"] == command_id.replace(":", "/", 1)
    command = jane.end_of(command_id)
    assert set(command) == FIELDS
    expected = {
        "command_id": command_id,
        "namespace": NAMESPACE,
        "machine": "web-1",
        "command": "both streams",
        "action_type": "read",
        "requester": "jane",
        "request_reason": "contract",
        "status": "completed",
        "phase": "Failed",
        "reason": "NonZeroExitCode",
        "stdout": "out\n",
        "stderr": "err\n",
        "exit_code": 3,
        "signal": None,
    }
    assert expected.items() <= command.items()
    assert command["created_at"] <= command["sent_at"] <= command["completed_at"]
    assert command["execution_time"] == command["duration_ms"] / 1000
    assert jane.read(command["uid"]) == command


def test_a_machine_that_cannot_be_used_does_not_spoil_the_queue(jane):
    answer = jane.queue("show one", machine="web-2", expires_in=5)
    assert answer.status_code == 202
    assert jane.end_of(answer.json()["command_id"])["status"] == "failed"


def test_a_refused_command_is_queued_and_then_failed(jane):
    command = jane.end_of(jane.queue("no rule has this text").json()["command_id"])
    assert (command["status"], command["phase"], command["reason"]) == ("failed", "Rejected", "NoMatchingRule")
    assert command["sent_at"] is None and command["exit_code"] is None


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"command": ""}, "command"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": 86401}, "timeout"),
        ({"expires_in": -1}, "expires_in"),
        ({"expires_in": 604801}, "expires_in"),
        ({"action_type": "A"}, "action_type"),
        ({"machine": 5}, "machine"),
        ({"machines": ["web-1"]}, "machines"),
    ],
)
def test_a_malformed_queued_command_is_422(jane, change, word):
    body = {"machine": "web-1", "command": "show one", **change}
    assert_malformed(jane.post(f"{API}/commands", json=body), word)


def test_an_unknown_machine_is_404(jane):
    for machine in ["none", "", "../x", "WEB", "00000000-0000-4000-8000-000000000000", "x" * 300]:
        assert_error(jane.queue("show one", machine=machine), 404, "Machine not found", "MachineNotFound")


def test_an_unknown_command_is_404_and_a_malformed_id_is_422(jane):
    for command_id in [f"{NAMESPACE}:none", "00000000-0000-4000-8000-000000000000"]:
        for method in ["GET", "DELETE"]:
            answer = jane.plain(method, f"{API}/commands/{command_id}")
            assert_error(answer, 404, "Command not found", "CommandNotFound", command_id)
    for command_id in ["none", "a:b:c", f"{NAMESPACE}:..", f"{NAMESPACE}%2Fnone", ":", f"{NAMESPACE}:a%00"]:
        for path in ["", "/output", "/output/stderr", "/events"]:
            assert_malformed(jane.plain("GET", f"{API}/commands/{command_id}{path}"), "command_id")


def test_one_failure_of_a_bulk_call_does_not_spoil_the_rest(jane):
    body = {"machines": ["web-1", "none", "web-2"], "command": "show one", "action_type": "read", "expires_in": 5}
    answer = jane.post(BULK, json=body)
    assert answer.status_code == 202
    first, second, third = answer.json()
    assert [one["machine"] for one in answer.json()] == body["machines"]
    assert set(first) == {"machine", "command_id", "status", "message"} and first["status"] == "pending"
    assert set(second) == {"machine", "status", "message", "error", "reason"} and second["status"] == "failed"
    assert (second["error"], second["reason"]) == ("Machine not found", "MachineNotFound")
    assert jane.end_of(first["command_id"])["stdout"] == "one\n"
    assert jane.end_of(third["command_id"])["status"] == "failed"


@pytest.mark.parametrize(
    ("machines", "word"),
    [
        ([], "1 to 100"),
        ([f"m-{index}" for index in range(101)], "1 to 100"),
        (["a", "b", "a"], "twice"),
        ("a", "machines"),
    ],
)
def test_a_malformed_bulk_call_is_422(jane, machines, word):
    assert_malformed(jane.post(BULK, json={"machines": machines, "command": "show one"}), word)


def test_a_bulk_call_counts_one_per_machine(jane):
    def remaining():
        return jane.plain("GET", f"{API}/me").json()["rate"]["remaining"]

    before = remaining()
    jane.post(BULK, json={"machines": ["web-1", "web-2"], "command": "show one", "expires_in": 0})
    assert remaining() <= before - 2


def test_a_running_command_is_cancelled(jane):
    command_id = jane.queue("wait 60").json()["command_id"]
    jane.wait_until(command_id, lambda command: command["status"] == "executing")
    answer = jane.plain("DELETE", f"{API}/commands/{command_id}")
    assert answer.status_code == 202 and set(answer.json()) == FIELDS
    command = jane.end_of(command_id)
    assert (command["status"], command["phase"]) == ("cancelled", "Cancelled")
    again = jane.plain("DELETE", f"{API}/commands/{command_id}")
    assert again.status_code == 200 and again.json()["status"] == "cancelled"


def test_an_ended_command_stays_as_it_is(jane, finished):
    before = jane.read(finished)
    answer = jane.plain("DELETE", f"{API}/commands/{finished}")
    assert answer.status_code == 200 and answer.json() == before == jane.read(finished)


def test_a_command_of_somebody_else_is_not_cancelled(dave, carol, jane, running):
    for client in [dave, carol]:
        assert_error(client.plain("DELETE", f"{API}/commands/{running}"), 403, "Forbidden", "Forbidden")
    assert jane.read(running)["status"] == "executing"


def test_the_list_has_the_newest_first_and_pages_have_each_command_once(jane):
    mine = [jane.queue("show one").json()["command_id"] for _ in range(5)]
    for command_id in mine:
        jane.end_of(command_id)
    everything = jane.get(f"{API}/commands", params={"limit": 500}).json()
    assert set(everything["items"][0]) == FIELDS and everything["is_complete"] is True and "continue" not in everything
    created = [command["created_at"] for command in everything["items"]]
    assert created == sorted(created, reverse=True)
    seen, position = [], {}
    while position is not None and len(seen) < 12:
        page = jane.get(f"{API}/commands", params={"limit": 2, **position}).json()
        assert len(page["items"]) <= 2
        seen += ids_of(page)
        position = {"continue": page["continue"]} if "continue" in page else None
    assert len(set(seen)) == len(seen) and set(mine) <= set(seen) and seen == ids_of(everything)[: len(seen)]


def test_filters_of_the_list_all_count(jane, dave, finished):
    command = jane.read(finished)
    other = dave.queue("show one", machine="web-2", expires_in=1).json()["command_id"]
    dave.end_of(other)

    def listed(**filters):
        return ids_of(jane.get(f"{API}/commands", params={"limit": 500, **filters}).json())

    assert finished in listed(machine="web-1", status="completed", requester="jane")
    assert finished not in listed(machine="web-2") and other in listed(machine="web-2")
    assert finished not in listed(status="failed") and other in listed(status="failed")
    assert finished not in listed(requester="dave") and other in listed(requester="dave")
    assert listed(requester="nobody") == [] == listed(machine="none")
    day, at = command["created_at"][:10], command["created_at"]
    assert finished in listed(start_date=day, end_date=day) and finished in listed(start_date=at, end_date=at)
    assert listed(start_date="2100-01-01") == [] == listed(end_date="2000-01-01")


@pytest.mark.parametrize(
    ("filters", "word"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 501}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"status": "running"}, "pending, sent, executing"),
        ({"machine": "a=b"}, "machine"),
        ({"start_date": "yesterday"}, "start_date"),
        ({"end_date": "2026-13-01"}, "end_date"),
        ({"continue": "x"}, "continue"),
        ({"continue": "e30"}, "continue"),
        ({"state": "failed"}, "unknown field `state`"),
        ({"namespace": "A"}, "namespace"),
    ],
)
def test_a_malformed_filter_is_422(jane, filters, word):
    assert_malformed(jane.get(f"{API}/commands", params=filters), word)


def test_a_parameter_sent_twice_is_422(jane):
    assert_malformed(jane.plain("GET", f"{API}/commands?namespace={NAMESPACE}&limit=1&limit=2"), "limit")


def test_explain_says_what_would_happen_and_runs_nothing(jane):
    before = ids_of(jane.get(f"{API}/commands", params={"limit": 1}).json())

    def explain(**body):
        return jane.post(f"{API}/commands/explain", json={"machine": "web-1", **body})

    allowed = explain(command="show one", action_type="read", timeout=5).json()
    assert (allowed["allowed"], allowed["reason"]) == (True, None) and "nearest" not in allowed
    decision = {
        "whitelist": "contract",
        "rule": "show",
        "action_type": "read",
        "argv": ["/bin/echo", "one"],
        "environment": {},
        "timeout_seconds": 5,
        "interactive": False,
        "redact": [],
    }
    assert decision.items() <= allowed["decision"].items()
    assert explain(argv=["/bin/echo", "one"]).json()["decision"]["rule"] == "show"
    assert explain(rule={"name": "show", "parameters": {"word": "two"}}).json()["decision"]["argv"][-1] == "two"
    denied = explain(command="show four").json()
    assert (denied["allowed"], denied["reason"]) == (False, "NoMatchingRule") and "decision" not in denied
    assert denied["nearest"]["rule"] == "show" and denied["nearest"]["why"]
    assert explain(command="denied").json()["reason"] == "Denied"
    assert explain(command="for others").json()["reason"] == "NotPermitted"
    assert_error(explain(machine="none", command="show one"), 404, "Machine not found", "MachineNotFound")
    for body in [{}, {"command": "a", "argv": ["a"]}, {"command": ""}, {"command": "a", "timeout": 0}, {"comand": "a"}]:
        assert_malformed(explain(**body))
    time.sleep(0.2)
    assert ids_of(jane.get(f"{API}/commands", params={"limit": 1}).json()) == before


def test_a_caller_who_may_not_read_whitelists_learns_the_verdict_only():
    erin = Client(create_key("contract-erin", "erin"))
    allowed = erin.post(f"{API}/commands/explain", json={"machine": "web-1", "command": "show one"})
    assert allowed.status_code == 200 and allowed.json()["allowed"] is True and "decision" not in allowed.json()
    denied = erin.post(f"{API}/commands/explain", json={"machine": "web-1", "command": "show four"}).json()
    assert denied["allowed"] is False and "nearest" not in denied
    assert erin.get(f"{API}/machines/web-1/rules").status_code == 403
