"""Downloads: a URL with a ticket, which counts once, without another credential."""

import pytest

from lab import API, NAMESPACE, assert_error, assert_malformed

DOWNLOADS = f"{API}/downloads"


def request(client, command_id, stream="stdout", **query):
    what = {"kind": "output", "command_id": command_id, "stream": stream, **query}
    return client.post(DOWNLOADS, json={"what": what})


def link(client, *arguments, **query):
    answer = request(client, *arguments, **query)
    assert answer.status_code == 201 and set(answer.json()) == {"url", "expires_in"}, answer.text
    assert answer.json()["expires_in"] == 60
    return answer.json()["url"]


def test_a_url_gives_the_file_once(jane, nobody, large):
    url = link(jane, large)
    assert nobody.plain("HEAD", url).status_code == 405
    answer = nobody.plain("GET", url)
    assert answer.status_code == 200 and answer.content.startswith(b"1\n2\n") and answer.content.endswith(b"40000\n")
    name = large.split(":")[1]
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}.stdout"'
    assert answer.headers["Cache-Control"] == "no-store" and answer.headers["Referrer-Policy"] == "no-referrer"
    again, invented = nobody.plain("GET", url), nobody.plain("GET", f"{DOWNLOADS}/{'A' * 43}")
    assert_error(again, 404, "Not found", "NoSuchDownload")
    assert again.json() == invented.json() == jane.plain("GET", f"{DOWNLOADS}/x").json()


def test_a_range_and_a_search_are_possible(jane, nobody, finished):
    url = link(jane, finished)
    part = nobody.plain("GET", url, headers={"Range": "bytes=0-1"})
    assert (part.status_code, part.content) == (206, b"ou")
    assert nobody.plain("GET", url).status_code == 404
    found = nobody.plain("GET", link(jane, finished, "stderr", grep="^e", limit=1))
    assert [match["line"] for match in found.json()["matches"]] == ["err"]
    assert found.headers["Content-Disposition"].endswith('.stderr.json"')


def test_only_a_caller_who_may_read_the_command_receives_a_url(nobody, stranger, jane, finished):
    assert request(nobody, finished).status_code == 401
    assert_error(request(stranger, finished), 403, "Forbidden", "Forbidden")
    assert_error(request(jane, f"{NAMESPACE}:none"), 404, "Command not found", "CommandNotFound")


@pytest.mark.parametrize(
    ("what", "word"),
    [
        ({}, "kind"),
        ({"kind": "secret"}, "secret"),
        ({"kind": "output", "command_id": "x", "stream": "stdout"}, "command_id"),
        ({"kind": "output", "command_id": "a:b", "stream": "stdin"}, "stdin"),
        ({"kind": "output", "command_id": "a:b", "stream": "stdout", "grep": "("}, "grep"),
        ({"kind": "output", "command_id": "a:b", "stream": "stdout", "limit": 1}, "need grep"),
        ({"kind": "output", "command_id": "a:b", "stream": "stdout", "url": "x"}, "url"),
    ],
)
def test_a_malformed_request_is_422(jane, what, word):
    assert_malformed(jane.post(DOWNLOADS, json={"what": what}), word)
