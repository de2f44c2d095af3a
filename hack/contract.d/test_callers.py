"""Who is calling: credentials, rights, and the order of the checks."""

import base64
import time

import pytest

from lab import API, EXECUTE, NAMESPACE, SHOW, URL, Client, assert_error, assert_malformed, create_key, revoke_key

NO_MACHINE = f"{API}/machines/no-such-machine/commands/execute"


def operations(client):
    paths = client.plain("GET", "/api/openapi.json").json()["paths"]
    return [(method, path) for path, methods in paths.items() for method in methods]


def test_each_operation_needs_a_credential_before_everything_else(nobody):
    for method, path in operations(nobody):
        answer = nobody.plain(method.upper(), path.replace("{id}", "%ff"), content=b"no JSON" * 20)
        assert_error(answer, 401, "Unauthorized", "Unauthenticated", "X-API-Key", "Authorization: Bearer")
        assert answer.headers["WWW-Authenticate"] == "Bearer", path


def test_document_and_its_page_need_no_credential(nobody):
    for path in ["/api/openapi.json", "/api/docs/", "/api/docs/swagger-ui-bundle.js"]:
        assert nobody.plain("GET", path).status_code == 200, path


def test_a_key_is_accepted_in_two_headers(jane, nobody):
    for name, value in [
        ("X-API-Key", jane.key),
        ("Authorization", f"Bearer {jane.key}"),
        ("Authorization", f"bearer {jane.key}"),
    ]:
        assert nobody.plain("GET", f"{API}/me", headers={name: value}).json()["user"] == "jane"


def test_a_credential_in_the_url_is_none(nobody, jane):
    for name in ["api_key", "X-API-Key", "access_token", "token", "authorization"]:
        assert nobody.plain("GET", f"{API}/machines?{name}={jane.key}").status_code == 401
        assert_malformed(jane.get(f"{API}/machines", params={name: jane.key}), "unknown field")
    with_user = f"{URL.replace('://', f'://jane:{jane.key}@')}{API}/me"
    assert nobody.get(with_user).status_code == 401


def test_unusable_credentials_have_one_and_the_same_answer(nobody, jane):
    basic = base64.b64encode(f"jane:{jane.key}".encode()).decode()
    expected = nobody.plain("GET", f"{API}/me").json()
    for headers in [
        {"X-API-Key": jane.key[:-1] + ("a" if jane.key[-1] != "a" else "b")},
        {"X-API-Key": "writ_"},
        {"X-API-Key": ""},
        {"Authorization": f"Basic {basic}"},
        {"Authorization": "Bearer eyJhbGciOiJub25lIn0.e30."},
        {"Authorization": f"Bearer {jane.key}", "X-API-Key": jane.key},
        [("X-API-Key", jane.key), ("X-API-Key", jane.key)],
        {"Sec-WebSocket-Protocol": "base64url.bearer.authorization.k8s.io.***"},
    ]:
        answer = nobody.plain("GET", f"{API}/me", headers=headers)
        assert (answer.status_code, answer.json()) == (401, expected), headers


def test_a_revoked_key_is_refused_within_ten_seconds():
    client = Client(create_key("contract-revoked", "jane", "sre"))
    assert client.get(f"{API}/machines").status_code == 200
    revoke_key("contract-revoked")
    deadline = time.monotonic() + 11
    while client.get(f"{API}/machines").status_code == 200:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert client.get(f"{API}/machines").status_code == 401


def test_me_shows_the_caller_and_the_rate(jane, stranger):
    me = jane.plain("GET", f"{API}/me").json()
    assert (me["user"], me["uid"], me["credential"], me["api_key"]) == ("jane", "", "api_key", "contract-jane")
    assert set(me["groups"]) == {"sre", "system:authenticated"}
    assert NAMESPACE in me["namespaces"] and me["is_complete"] is True
    assert me["rate"]["limit"] == 600 and 0 < me["rate"]["remaining"] < 600
    assert stranger.plain("GET", f"{API}/me").json()["namespaces"] == []


def test_a_malformed_request_is_422_also_without_the_right(stranger):
    assert_malformed(stranger.post(EXECUTE, json={**SHOW, "comand": "x"}), "unknown field `comand`")
    assert_malformed(stranger.post(f"{API}/commands", json={"machine": "web-1", "command": ""}), "command")
    assert_malformed(stranger.get(f"{API}/commands", params={"limit": 0}), "limit")


@pytest.mark.parametrize("machine", ["web-1", "no-such-machine"])
def test_a_caller_without_the_right_does_not_learn_if_a_machine_exists(stranger, machine):
    for answer in [
        stranger.execute("show one", machine=machine),
        stranger.queue("show one", machine=machine),
        stranger.post(f"{API}/commands/bulk", json={"machines": [machine], "command": "show one"}),
        stranger.post(f"{API}/commands/explain", json={"machine": machine, "command": "show one"}),
        stranger.get(f"{API}/machines/{machine}"),
        stranger.get(f"{API}/machines/{machine}/history"),
        stranger.get(f"{API}/machines/{machine}/statistics"),
        stranger.get(f"{API}/machines/{machine}/rules"),
    ]:
        body = assert_error(answer, 403, "Forbidden", "Forbidden")
        assert machine not in body["message"]


def test_a_caller_without_the_right_does_not_learn_if_a_command_exists(stranger, finished):
    for command_id in [finished, f"{NAMESPACE}:no-such-command"]:
        for path in ["", "/output", "/output/stdout", "/events"]:
            answer = stranger.plain("GET", f"{API}/commands/{command_id}{path}")
            assert_error(answer, 403, "Forbidden", "Forbidden")
        assert stranger.plain("DELETE", f"{API}/commands/{command_id}").status_code == 403


def test_a_uid_of_another_namespace_is_404(stranger, jane, finished):
    uid = jane.read(finished)["uid"]
    for unseen in [uid, "00000000-0000-4000-8000-000000000000"]:
        assert stranger.plain("GET", f"{API}/commands/{unseen}").status_code == 404
    machine = jane.get(f"{API}/machines/web-1").json()["uid"]
    for unseen in [machine, "00000000-0000-4000-8000-000000000000"]:
        assert stranger.plain("GET", f"{API}/machines/{unseen}").status_code in (403, 404)


def test_each_call_needs_its_own_right(carol, finished):
    assert carol.get(f"{API}/commands").status_code == 200
    assert carol.plain("GET", f"{API}/commands/{finished}").status_code == 200
    assert carol.get(f"{API}/machines/web-1/rules").status_code == 200
    for answer in [
        carol.execute("show one"),
        carol.queue("show one"),
        carol.post(f"{API}/commands/explain", json={"machine": "web-1", "command": "show one"}),
    ]:
        assert_error(answer, 403, "Forbidden", "Forbidden", "create")


def test_another_namespace_is_403_also_if_it_does_not_exist(jane):
    for namespace in ["kube-system", "no-such-namespace"]:
        answer = jane.plain("POST", f"{EXECUTE}?namespace={namespace}", json=SHOW)
        assert_error(answer, 403, "Forbidden", "Forbidden")
    assert_malformed(jane.plain("POST", f"{EXECUTE}?namespace=No_Namespace", json=SHOW), "namespace")


def test_over_the_rate_is_429_before_the_policy_and_after_all_other_checks(limited):
    answer = limited.execute("no rule has this text")
    body = assert_error(answer, 429, "Rate limit exceeded", "RateLimited", "2 commands", "60 s")
    assert 1 <= int(answer.headers["Retry-After"]) <= 60 and "execution" not in body
    assert_error(limited.queue("show one"), 429, "Rate limit exceeded", "RateLimited")
    assert_malformed(limited.execute("show one", timeout=0), "timeout")
    assert_error(limited.execute("show one", machine="none"), 404, "Machine not found", "MachineNotFound")
    assert_error(limited.plain("POST", NO_MACHINE + "?namespace=default", json=SHOW), 403, "Forbidden", "Forbidden")
    answers = limited.post(f"{API}/commands/bulk", json={"machines": ["web-1"], "command": "show one"}).json()
    assert [(one["status"], one["reason"]) for one in answers] == [("failed", "RateLimited")]
    messages, code = limited.stream(SHOW)
    assert (messages[-1]["reason"], code) == ("RateLimited", 1008)


def test_calls_that_create_nothing_do_not_count(jane):
    client = Client(create_key("contract-refused", "jane", "sre", per_minute=1))
    assert client.execute("").status_code == 422
    assert client.execute("show one", machine="none").status_code == 404
    assert client.plain("POST", f"{EXECUTE}?namespace=default", json=SHOW).status_code == 403
    assert client.plain("GET", f"{API}/me").json()["rate"] == {"limit": 1, "remaining": 1}
    headers = {"Idempotency-Key": "contract-refused"}
    assert [client.execute("show one", headers=headers).status_code for _ in range(3)] == [200, 200, 200]
    assert client.execute("show one").status_code == 429
