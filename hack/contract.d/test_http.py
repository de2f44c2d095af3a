"""HTTP: headers of each answer, unknown routes and methods, the OpenAPI document and its page."""

import pytest

from lab import API, EXECUTE, SHOW, assert_error

SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}


def test_each_answer_has_a_request_id_and_the_security_headers(jane, nobody, finished):
    for answer in [
        jane.plain("GET", f"{API}/me"),
        jane.plain("GET", f"{API}/commands/{finished}/output/stdout"),
        jane.plain("GET", f"{API}/commands/{finished}/events"),
        nobody.plain("GET", f"{API}/me"),
        nobody.plain("GET", "/none"),
        nobody.plain("PUT", f"{API}/me"),
        jane.execute("no rule has this text"),
        jane.plain("POST", f"{API}/commands", content=b"x" * 70000),
    ]:
        assert {name: answer.headers.get(name) for name in SECURITY} == SECURITY, answer.request.url
        assert len(answer.headers["X-Request-Id"]) >= 16
        assert "Server" not in answer.headers and "Access-Control-Allow-Origin" not in answer.headers


def test_a_request_id_of_the_client_is_kept_if_it_is_harmless(nobody):
    def id_for(value):
        return nobody.plain("GET", f"{API}/me", headers={"X-Request-Id": value}).headers["X-Request-Id"]

    assert id_for("trace-4711") == "trace-4711"
    for value in ["with blank", "x" * 1000, "a\tb", "\u00e9".encode(), ""]:
        assert id_for(value) not in (value, "")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/api",
        "/api/v1",
        f"{API}/none",
        f"{API}/machines/web-1/none",
        f"{API}//me",
        f"{API}/me/",
        "/metrics",
        "/healthz",
        "/api/docs/none",
        "/api/docs/..%2f..%2fetc%2fpasswd",
    ],
)
def test_an_unknown_route_is_404_as_json(jane, nobody, path):
    for client in [jane, nobody]:
        for method in ["GET", "POST"] if "docs" not in path else ["GET"]:
            assert_error(client.plain(method, path), 404, "Not found", "NoSuchRoute")


def test_another_method_is_405_as_json(jane, nobody):
    for client in [jane, nobody]:
        answer = client.plain("PUT", f"{API}/me")
        assert_error(answer, 405, "Method not allowed", "NoSuchMethod")
        assert set(answer.headers["Allow"].replace(" ", "").split(",")) == {"GET", "HEAD"}
    assert_error(jane.plain("GET", f"{API}/machines/web-1/commands/execute"), 405, "Method not allowed", "NoSuchMethod")
    assert_error(jane.plain("POST", "/api/openapi.json"), 405, "Method not allowed", "NoSuchMethod")


def test_head_has_the_headers_of_get(jane):
    answer = jane.plain("HEAD", f"{API}/me")
    assert answer.status_code == 200 and answer.content == b"" and answer.headers["Content-Type"] == "application/json"


def test_a_preflight_of_another_origin_permits_nothing(nobody):
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    answer = nobody.plain("OPTIONS", f"{API}/commands", headers=headers)
    assert not any(name.startswith("access-control") for name in answer.headers)


def test_the_page_of_the_document_loads_nothing_from_elsewhere(nobody):
    answer = nobody.plain("GET", "/api/docs")
    assert (answer.status_code, answer.headers["Location"]) == (307, "docs/")
    page = nobody.plain("GET", "/api/docs/")
    assert page.headers["Content-Type"].startswith("text/html") and "https://" not in page.text
    assert "default-src 'none'; script-src 'self'" in page.headers["Content-Security-Policy"]


def test_the_document_describes_each_operation(nobody):
    document = nobody.plain("GET", "/api/openapi.json").json()
    assert document["openapi"].startswith("3.1") and set(document["components"]["securitySchemes"]) == {
        "api_key",
        "bearer",
    }
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert {"401", "422", "429", "500", "503"} <= set(operation["responses"]), (method, path)


def test_pipelined_and_repeated_requests_on_one_connection(jane):
    for _ in range(10):
        assert jane.execute(**SHOW).status_code == 200
        assert jane.execute("").status_code == 422


def test_a_connection_that_stays_open_serves_the_next_request(jane, nobody):
    # An answer before the end of the body closes the connection, and says so.
    for client in [jane, nobody]:
        for _ in range(20):
            for content_type in ["text/plain", "application/json"]:
                answer = client.post(EXECUTE, content=b"x" * 1000, headers={"Content-Type": content_type})
                assert answer.status_code in (401, 422), answer.text
