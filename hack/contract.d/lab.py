"""Access to the demo that hack/contract has started: its cluster, its gateway, and clients with different rights."""

import json
import os
import subprocess
import time
import uuid

import httpx
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

URL = os.environ["WRIT_CONTRACT_URL"]
NAMESPACE = os.environ["WRIT_CONTRACT_NAMESPACE"]
SOCKETS = URL.replace("http", "ws", 1)
API = "/api/v1"
EXECUTE = f"{API}/machines/web-1/commands/execute"
SHOW = {"command": "show one", "action_type": "read"}


def kubectl(*arguments, text=None):
    """Runs kubectl as administrator."""
    command = [os.environ["WRIT_CONTRACT_KUBECTL"], "--kubeconfig", os.environ["WRIT_CONTRACT_ADMIN"], "-n", NAMESPACE]
    return subprocess.run([*command, *arguments], input=text, text=True, check=True, capture_output=True).stdout


def create_key(name, user, *groups, per_minute=600):
    """Creates an API key, instead of an earlier one with this name."""
    revoke_key(name)
    command = [os.environ["WRIT_CONTRACT_WRIT"], "api-key", "create", name, "--user", user, "--expires", "1d"]
    command += [word for group in groups for word in ("--group", group)]
    command += ["--commands-per-minute", str(per_minute), "--kubeconfig", os.environ["WRIT_CONTRACT_ADMIN"]]
    return subprocess.run(command, text=True, check=True, capture_output=True).stdout.strip()


def revoke_key(name):
    """Revokes an API key."""
    command = [os.environ["WRIT_CONTRACT_WRIT"], "api-key", "revoke", name]
    subprocess.run([*command, "--kubeconfig", os.environ["WRIT_CONTRACT_ADMIN"]], check=False, capture_output=True)


class Client(httpx.Client):
    """Client that waits when it reads too often. Answers about too many commands are for the tests."""

    def __init__(self, key=None):
        self.key = key
        super().__init__(base_url=URL, headers={"X-API-Key": key} if key else {}, timeout=130)

    def send(self, request, **options):
        for _ in range(20):
            answer = super().send(request, **options)
            if answer.status_code != 429 or b"ReadsLimited" not in answer.content:
                break
            time.sleep(int(answer.headers["Retry-After"]))
        return answer

    def plain(self, method, path, **options):
        """Sends a request without a namespace."""
        return self.request(method, path, **options)

    def get(self, path, params=None, **options):
        return self.request("GET", path, params={"namespace": NAMESPACE, **(params or {})}, **options)

    def post(self, path, params=None, **options):
        return self.request("POST", path, params={"namespace": NAMESPACE, **(params or {})}, **options)

    def execute(self, command, action_type="read", machine="web-1", headers=None, **fields):
        body = {"command": command, "action_type": action_type, **fields}
        return self.post(f"{API}/machines/{machine}/commands/execute", json=body, headers=headers)

    def queue(self, command, machine="web-1", headers=None, **fields):
        return self.post(f"{API}/commands", json={"machine": machine, "command": command, **fields}, headers=headers)

    def read(self, command_id):
        return self.plain("GET", f"{API}/commands/{command_id}").json()

    def end_of(self, command_id, patience=30):
        """Waits until a command has ended, and returns it."""
        return self.wait_until(command_id, lambda command: command["completed_at"], patience)

    def wait_until(self, command_id, is_reached, patience=30):
        deadline = time.monotonic() + patience
        while not is_reached(command := self.read(command_id)):
            assert time.monotonic() < deadline, command
            time.sleep(0.05)
        return command

    def stream_lines(self, path):
        """Opens an answer that has one message in each line."""
        return httpx.stream("GET", URL + path, headers={"X-API-Key": self.key}, timeout=30)

    def socket(self, path, **options):
        """Opens a WebSocket."""
        headers = {"X-API-Key": self.key} if self.key else {}
        return connect(f"{SOCKETS}{API}{path}", additional_headers=headers, open_timeout=30, **options)

    def stream(self, request, machine="web-1"):
        """Runs a command over a WebSocket, and returns its messages and the code of the close frame."""
        with self.socket(f"/machines/{machine}/commands/stream?namespace={NAMESPACE}") as socket:
            socket.send(json.dumps(request))
            return rest_of(socket)


def rest_of(socket):
    """Returns all messages up to the end, and the code of the close frame."""
    messages = []
    try:
        for message in socket:
            messages.append(json.loads(message))
    except ConnectionClosedError:
        pass
    return messages, socket.close_code


def text_of(messages, stream="stdout"):
    """Returns the bytes of a stream as text, and checks the offsets of the messages."""
    text = b""
    for message in messages:
        if message["type"] == stream:
            assert message["offset"] == len(text)
            text += message["data"].encode()
    return text.decode()


def assert_error(answer, status, error, reason, *words):
    """Checks an answer with an error."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    body = answer.json()
    assert (body["error"], body["reason"]) == (error, reason), body
    assert set(body) <= {"error", "reason", "message", "execution", "may_have_run", "phase"}
    for word in words:
        assert word in body["message"], body
    if "execution" in body:
        assert answer.headers["Writ-Execution"] == body["execution"]
    return body


def assert_malformed(answer, *words):
    """Checks the answer to a malformed request."""
    return assert_error(answer, 422, "Malformed request", "Malformed", *words)


def fresh(prefix="key"):
    """Returns a text that nobody has used."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def executions():
    """Returns the names of all executions."""
    return set(kubectl("get", "commandexecutions", "-o", "name").split())
