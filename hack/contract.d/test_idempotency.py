"""Idempotency-Key: a repeated call starts nothing."""

from concurrent.futures import ThreadPoolExecutor

from lab import API, NAMESPACE, SHOW, assert_error, assert_malformed, executions, fresh


def test_a_repeated_call_has_the_first_answer_and_says_so(jane):
    headers = {"Idempotency-Key": fresh()}
    first, second = jane.execute("both streams", headers=headers), jane.execute("both streams", headers=headers)
    assert (first.status_code, second.status_code) == (200, 200) and first.json() == second.json()
    assert "Idempotency-Replayed" not in first.headers and second.headers["Idempotency-Replayed"] == "true"
    assert first.headers["Writ-Execution"] == second.headers["Writ-Execution"]
    assert first.headers["Writ-Execution"].startswith(f"{NAMESPACE}/key-")


def test_a_repeated_refusal_has_the_first_status(jane):
    headers = {"Idempotency-Key": fresh()}
    answers = [jane.execute("no rule has this text", headers=headers) for _ in range(2)]
    bodies = [assert_error(answer, 400, "Command not in whitelist", "NoMatchingRule") for answer in answers]
    assert bodies[0] == bodies[1] and answers[1].headers["Idempotency-Replayed"] == "true"


def test_concurrent_calls_with_one_key_run_the_command_once(jane):
    headers, before = {"Idempotency-Key": fresh()}, executions()
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda _: jane.execute("count to 5", headers=headers), range(16)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.headers["Writ-Execution"] for answer in answers}) == 1
    assert len(executions() - before) == 1
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1


def test_a_key_with_another_request_is_409(jane):
    headers = {"Idempotency-Key": fresh()}
    assert jane.execute("show one", headers=headers).status_code == 200
    for answer in [
        jane.execute("show two", headers=headers),
        jane.execute("show one", headers=headers, timeout=5),
        jane.execute("show one", headers=headers, machine="web-2"),
        jane.queue("show one", headers=headers),
    ]:
        assert_error(answer, 409, "Conflict", "IdempotencyKeyReused")


def test_another_caller_with_the_same_key_has_an_execution_of_its_own(jane, dave):
    headers = {"Idempotency-Key": fresh()}
    first, second = jane.execute("show one", headers=headers), dave.execute("show one", headers=headers)
    assert first.headers["Writ-Execution"] != second.headers["Writ-Execution"]
    assert "Idempotency-Replayed" not in second.headers


def test_a_queued_command_is_replayed(jane):
    headers = {"Idempotency-Key": fresh()}
    first, second = jane.queue("show one", headers=headers), jane.queue("show one", headers=headers)
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json()["command_id"] == second.json()["command_id"]
    assert second.headers["Idempotency-Replayed"] == "true"


def test_a_bulk_call_is_replayed_for_each_machine(jane):
    headers, body = {"Idempotency-Key": fresh()}, {"machines": ["web-1", "web-2"], "command": "show one"}
    ids = [
        [one["command_id"] for one in jane.post(f"{API}/commands/bulk", json=body, headers=headers).json()]
        for _ in "ab"
    ]
    assert ids[0] == ids[1] and len(set(ids[0])) == 2


def test_a_stream_joins_the_call_with_the_same_key(jane):
    request = {**SHOW, "idempotency_key": fresh()}
    (first, _), (second, _) = jane.stream(request), jane.stream(request)
    assert first[0]["command_id"] == second[0]["command_id"] and second[0]["is_replay"] is True
    assert [one for one in first if one["type"] != "execution"] == [one for one in second if one["type"] != "execution"]


def test_a_malformed_key_is_422(jane):
    for key in ["", "x" * 129, "with blank", "caf\u00e9".encode()]:
        assert_malformed(jane.execute("show one", headers={"Idempotency-Key": key}), "Idempotency-Key")
    twice = [("Idempotency-Key", fresh()), ("Idempotency-Key", fresh())]
    assert_malformed(jane.execute("show one", headers=twice), "Idempotency-Key must be sent once")
    assert jane.execute("show one", headers={"Idempotency-Key": fresh("x" * 115)}).status_code == 200
