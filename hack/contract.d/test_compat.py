"""Compatibility routes: clients of Ogent and RemoteShell, with their paths, fields and statuses."""

import datetime

import pytest
from websockets.sync.client import connect

from lab import NAMESPACE, SOCKETS, assert_error, assert_malformed, fresh, rest_of

OGENT = ["/api/command", "/api/execute"]
COMMAND = {
    "command_id",
    "device_id",
    "command",
    "status",
    "created_at",
    "sent_at",
    "completed_at",
    "stdout",
    "stderr",
    "exit_code",
    "execution_time",
}
BULK = "/api/commands/bulk"


def queue(client, command, **fields):
    return client.post("/api/command", json={"device_id": "web-1", "command": command, **fields})


@pytest.mark.parametrize("path", OGENT)
def test_ogent_has_the_result_in_its_own_fields(jane, path):
    answer = jane.post(path, json={"command": "both streams", "machine": "web-1", "params": {}, "userId": "root"})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert set(body) == {"status", "exitCode", "execTime", "output", "executionId"}
    assert (body["status"], body["exitCode"], body["output"]) == ("completed", 3, "out\nerr\n")
    assert isinstance(body["execTime"], int)
    command = jane.read(body["executionId"])
    assert (command["requester"], command["duration_ms"]) == ("jane", body["execTime"])


@pytest.mark.parametrize("path", OGENT)
def test_ogent_names_a_rule_if_there_are_parameters(jane, path):
    answer = jane.post(path, json={"command": "show", "machine": "web-1", "params": {"word": "two"}})
    assert (answer.status_code, answer.json()["output"]) == (200, "two\n"), answer.text
    # Without parameters the command is text, and no rule has this text.
    assert jane.post(path, json={"command": "show", "machine": "web-1"}).status_code == 403
    number = jane.post(path, json={"command": "count", "machine": "web-1", "params": {"number": 1}})
    assert number.json()["output"] == "line 1\n", number.text


@pytest.mark.parametrize("path", OGENT)
def test_ogent_refuses_with_one_text(jane, carol, nobody, path):
    def run(client, command, **fields):
        return client.post(path, json={"command": command, "machine": "web-1", **fields})

    error = "Command not permitted"
    assert_error(run(jane, "not listed"), 403, error, "NoMatchingRule")
    assert_error(run(jane, "denied"), 403, error, "Denied")
    assert_error(run(jane, "for others"), 403, error, "NotPermitted")
    refused = run(jane, "show", params={"word": "four"})
    assert (refused.status_code, refused.json()["error"]) == (403, error)
    assert_error(run(carol, "show one", userId="jane"), 403, error, "Forbidden")
    assert run(nobody, "show one").status_code == 401
    assert_error(run(jane, "show one", machine="none"), 404, "Machine not found", "MachineNotFound")


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"command": "show one"}, "machine"),
        ({"machine": "web-1"}, "command"),
        ({"command": "", "machine": "web-1"}, "command"),
        ({"command": "show one", "machine": "web-1", "device_id": "web-1"}, "device_id"),
        ({"command": "show one", "machine": "web-1", "params": {"word": "one"}}, "command"),
        ({"command": "show", "machine": "web-1", "params": {"word": {}}}, "params.word"),
        ({"command": "show one", "machine": "web-1", "timeout": 5}, "timeout"),
    ],
)
@pytest.mark.parametrize("path", OGENT)
def test_a_malformed_call_of_ogent_is_422(jane, path, body, word):
    assert_malformed(jane.post(path, json=body), word)


def test_ogent_follows_an_execution(jane, finished):
    url = f"{SOCKETS}/api/executions/{finished}"
    with connect(url, additional_headers={"X-API-Key": jane.key}, open_timeout=30) as socket:
        messages, code = rest_of(socket)
    assert code == 1000
    for message in messages[:-1]:
        assert (message["executionId"], message["status"]) == (finished, "running")
    assert "".join(message["output"] for message in messages[:-1]) == "out\nerr\n"
    last = messages[-1]
    assert (last["executionId"], last["status"], last["exitCode"]) == (finished, "completed", 3)
    assert isinstance(last["execTime"], int)


def test_remote_shell_queues_reads_and_cancels(jane, dave):
    answer = queue(jane, "both streams", timeout=20)
    assert answer.status_code == 202 and set(answer.json()) == {"command_id", "status", "message"}
    assert answer.json()["status"] == "pending"
    command_id = answer.json()["command_id"]
    jane.end_of(command_id)
    command = jane.plain("GET", f"/api/command/{command_id}").json()
    assert set(command) >= COMMAND
    expected = {"device_id": "web-1", "command": "both streams", "status": "completed", "exit_code": 3}
    assert expected.items() <= command.items() and command["stdout"] == "out\n"
    for field in ["created_at", "sent_at", "completed_at"]:
        assert datetime.datetime.fromisoformat(command[field].replace("Z", "+00:00")).tzinfo
    assert 0 <= command["execution_time"] < 20
    slow = queue(jane, "wait 60").json()["command_id"]
    assert dave.plain("DELETE", f"/api/command/{slow}").status_code == 403
    assert jane.plain("DELETE", f"/api/command/{slow}").status_code == 202
    jane.end_of(slow)
    again = jane.plain("DELETE", f"/api/command/{slow}")
    assert (again.status_code, again.json()["status"], again.json()["device_id"]) == (200, "cancelled", "web-1")
    missing = jane.plain("GET", f"/api/command/{NAMESPACE}:none")
    assert_error(missing, 404, "Command not found", "CommandNotFound")


def test_remote_shell_queues_on_many_devices(jane):
    answer = jane.post(BULK, json={"device_ids": ["web-1", "none"], "command": "show one", "timeout": 20})
    assert answer.status_code == 202
    good, bad = answer.json()
    assert set(good) == {"device_id", "command_id", "status", "message"} and good["status"] == "pending"
    assert (bad["device_id"], bad["status"], bad["reason"]) == ("none", "failed", "MachineNotFound")
    for ids in [[], ["web-1", "web-1"], ["web-1"] * 101]:
        assert_malformed(jane.post(BULK, json={"device_ids": ids, "command": "show one"}), "device_ids")


def test_remote_shell_lists_commands_with_its_filters(jane, finished):
    def listed(**filters):
        page = jane.get("/api/commands", params={"limit": 500, **filters}).json()
        assert all(set(item) >= COMMAND for item in page["items"])
        return [item["command_id"] for item in page["items"]]

    day = jane.read(finished)["created_at"][:10]
    assert finished in listed(device_id="web-1", status="completed", start_date=day, end_date=day)
    assert finished not in listed(device_id="web-2") and finished not in listed(status="failed")
    assert listed(start_date="2100-01-01") == []
    for filters, word in [({"device_id": "a=b"}, "device_id"), ({"status": "x"}, "status"), ({"limit": 0}, "limit")]:
        assert_malformed(jane.get("/api/commands", params=filters), word)


def test_devices_have_history_and_statistics(jane, stranger, finished):
    items = jane.get("/api/devices").json()["items"]
    assert "web-1" in [item["device_id"] for item in items]
    device = jane.get("/api/devices/web-1").json()
    wanted = {"device_id", "status", "first_seen", "last_connected", "queue_size", "total_commands", "metadata"}
    assert wanted <= set(device) and device["total_commands"] > 0
    history = jane.get("/api/devices/web-1/history", params={"limit": 500}).json()["items"]
    assert finished in [item["command_id"] for item in history]
    statistics = jane.get("/api/devices/web-1/statistics").json()
    words = {"total_commands", "completed", "failed", "pending", "timeout", "avg_execution_time"}
    assert words <= set(statistics) and statistics["completed"] > 0
    for path in ["", "/web-1", "/web-1/history", "/web-1/statistics"]:
        assert stranger.get(f"/api/devices{path}").status_code == 403
    assert jane.get("/api/devices/none").status_code == 404


def test_the_rate_and_idempotency_are_those_of_the_other_routes(jane, limited):
    headers = {"Idempotency-Key": fresh()}
    body = {"command": "show one", "machine": "web-1"}
    first, second = (jane.post("/api/execute", json=body, headers=headers) for _ in range(2))
    assert first.json() == second.json() and second.headers["Idempotency-Replayed"] == "true"
    for answer in [limited.post("/api/execute", json=body), queue(limited, "show one")]:
        assert_error(answer, 429, "Rate limit exceeded", "RateLimited")
