"""Clients for the tests: callers with different rights, each with an API key of its own."""

from pathlib import Path

import pytest

from lab import SHOW, Client, create_key, kubectl


@pytest.fixture(scope="session", autouse=True)
def cluster():
    """Rules and rights."""
    kubectl("apply", "-f", str(Path(__file__).with_name("objects.yaml")))


@pytest.fixture(scope="session")
def jane(cluster):
    """Client of the demo's requester: may run, read and cancel her own."""
    client = Client(create_key("contract-jane", "jane", "sre"))
    # The rules of the contract test are in force.
    for _ in range(100):
        if client.execute(**SHOW).status_code == 200:
            return client
    raise AssertionError(client.execute(**SHOW).text)


@pytest.fixture(scope="session")
def carol(cluster):
    """Client that may read, and run nothing."""
    return Client(create_key("contract-carol", "carol"))


@pytest.fixture(scope="session")
def dave(cluster):
    """Client that may run and read, as jane."""
    return Client(create_key("contract-dave", "dave"))


@pytest.fixture(scope="session")
def stranger(cluster):
    """Client without any right."""
    return Client(create_key("contract-stranger", "stranger"))


@pytest.fixture(scope="session")
def nobody(cluster):
    """Client without a credential."""
    return Client()


@pytest.fixture(scope="session")
def limited(cluster):
    """Client that has created as many commands as it may in a minute."""
    client = Client(create_key("contract-limited", "jane", "sre", per_minute=2))
    for _ in range(2):
        assert client.queue("show one", expires_in=0).status_code == 202
    return client


@pytest.fixture(scope="session")
def finished(jane):
    """A command that has written to both streams and has ended with exit code 3."""
    answer = jane.execute("both streams", reason="contract")
    assert answer.status_code == 200, answer.text
    return answer.json()["command_id"]


@pytest.fixture(scope="session")
def large(jane):
    """A command with more output than its status holds."""
    answer = jane.execute("large output")
    assert answer.status_code == 200, answer.text
    return answer.json()["command_id"]


@pytest.fixture
def running(jane):
    """A command that runs until the end of the test."""
    command_id = jane.queue("wait 60").json()["command_id"]
    jane.wait_until(command_id, lambda command: command["status"] == "executing")
    yield command_id
    jane.plain("DELETE", f"/api/v1/commands/{command_id}")
    jane.end_of(command_id)
