"""Machines: list, one, history, statistics, rules."""

import pytest

from lab import API, NAMESPACE, assert_error, assert_malformed

FIELDS = {
    "name",
    "namespace",
    "uid",
    "status",
    "phase",
    "message",
    "address",
    "port",
    "user",
    "first_seen",
    "last_connected",
    "queue_size",
    "running",
    "total_commands",
    "metadata",
}


def test_a_machine_has_all_its_fields(jane):
    machine = jane.get(f"{API}/machines/web-1").json()
    assert set(machine) == FIELDS
    expected = {"name": "web-1", "namespace": NAMESPACE, "status": "online", "phase": "Online", "address": "127.0.0.1"}
    assert expected.items() <= machine.items()
    assert machine["total_commands"] > 0 and machine["first_seen"] <= machine["last_connected"]
    metadata = machine["metadata"]
    assert set(metadata) == {"labels", "hostname", "os", "architecture", "kernel", "shell", "boot_id"}
    other = jane.get(f"{API}/machines/web-2").json()
    assert other["status"] == "misconfigured" and "host key" in other["message"]
    by_uid = jane.plain("GET", f"{API}/machines/{machine['uid']}").json()
    assert by_uid["name"] == "web-1"


def test_machines_come_in_pages(jane):
    everything = jane.get(f"{API}/machines").json()
    assert [machine["name"] for machine in everything["items"]] == ["web-1", "web-2"] and "continue" not in everything
    first = jane.get(f"{API}/machines", params={"limit": 1}).json()
    second = jane.get(f"{API}/machines", params={"limit": 1, "continue": first["continue"]}).json()
    assert [first["items"][0]["name"], second["items"][0]["name"]] == ["web-1", "web-2"] and "continue" not in second


def test_history_has_the_commands_of_one_machine(jane, finished):
    page = jane.get(f"{API}/machines/web-1/history", params={"limit": 500}).json()
    assert finished in [command["command_id"] for command in page["items"]]
    assert {command["machine"] for command in page["items"]} == {"web-1"} and page["is_complete"] is True
    first = jane.get(f"{API}/machines/web-1/history", params={"limit": 1}).json()
    second = jane.get(f"{API}/machines/web-1/history", params={"limit": 1, "continue": first["continue"]}).json()
    assert first["items"] != second["items"]


def test_statistics_count_each_command_once(jane, finished):
    statistics = jane.get(f"{API}/machines/web-1/statistics").json()
    words = ["completed", "failed", "pending", "sent", "executing", "timeout", "cancelled"]
    assert set(statistics) == {"total_commands", *words, "avg_execution_time", "is_complete"}
    assert sum(statistics[word] for word in words) == statistics["total_commands"] and statistics["completed"] > 0
    assert statistics["avg_execution_time"] > 0 and statistics["is_complete"] is True


def test_rules_have_their_parameters(jane):
    answer = jane.get(f"{API}/machines/web-1/rules").json()
    rules = {rule["rule"]: rule for rule in answer["items"]}
    assert answer["is_complete"] is True and {"show", "count", "say-hello"} <= set(rules)
    assert "for-others" not in rules and "denied" not in rules
    assert rules["show"] == {
        "whitelist": "contract",
        "rule": "show",
        "description": "Prints a word.",
        "action_type": "read",
        "match": "show {word}",
        "argv": ["/bin/echo", "{word}"],
        "environment": [],
        "interactive": False,
        "timeout_seconds": {"default": 30, "maximum": 3600},
        "parameters": [
            {"name": "word", "description": "The word.", "enum": ["one", "three", "two"], "max_length": 256}
        ],
    }
    assert rules["count"]["parameters"][0]["integer"] == {"minimum": 1, "maximum": 100}


@pytest.mark.parametrize("path", ["", "/history", "/statistics", "/rules"])
def test_an_unknown_machine_is_404(jane, path):
    for name in ["none", "a=b", "WEB", "x" * 300, "%2e%2e", "a%2Fb", "00000000-0000-4000-8000-000000000000"]:
        answer = jane.get(f"{API}/machines/{name}{path}")
        assert_error(answer, 404, "Machine not found", "MachineNotFound")


@pytest.mark.parametrize("path", ["", "/history", "/statistics", "/rules"])
def test_an_unknown_parameter_is_422(jane, path):
    assert_malformed(jane.get(f"{API}/machines/web-1{path}", params={"namspace": "x"}), "unknown field `namspace`")


def test_malformed_positions_are_422(jane):
    for path in ["/machines", "/machines/web-1/history"]:
        assert_malformed(jane.get(f"{API}{path}", params={"continue": "***"}), "continue")
        assert_malformed(jane.get(f"{API}{path}", params={"limit": 501}), "limit")
