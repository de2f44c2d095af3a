"""Each answer is one that the OpenAPI document describes. schemathesis makes the requests from the document."""

import os
import random

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import CHECKS

from lab import NAMESPACE, SHOW, URL, create_key

EXAMPLES = int(os.environ.get("WRIT_CONTRACT_EXAMPLES", "20"))
NAMES = [
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
]
CREDENTIALS = {"x-api-key", "authorization"}
# Streams have no end, or need a WebSocket: test_streams.py, test_compat.py.
schema = schemathesis.openapi.from_url(f"{URL}/api/openapi.json").exclude(path_regex="/(stream|watch|executions/.*)$")


def sometimes(case, values):
    """Chooses one of the values for three requests of four, so that requests get behind the checks of their form."""
    chance = random.Random(f"{case.path_parameters} {case.query} {case.body}")
    return chance.choice(values) if chance.random() < 0.75 else None


@pytest.fixture(scope="session")
def schema_key(cluster):
    return create_key("contract-schema", "jane", "sre")


@pytest.fixture(scope="session")
def commands(finished, large):
    return [finished, large, f"{NAMESPACE}:say-hello", f"{NAMESPACE}:not-listed", f"{NAMESPACE}:none"]


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_answers_are_documented(case, schema_key, commands):
    if sometimes(case, [True]):
        # The generated credentials of the document's security schemes are refused.
        case.headers = {name: value for name, value in (case.headers or {}).items() if name.lower() not in CREDENTIALS}
    machine, command_id = sometimes(case, ["web-1", "web-1", "web-2", "none"]), sometimes(case, commands)
    if ("/machines/{id}" in case.path or "/devices/{id}" in case.path) and machine:
        case.path_parameters["id"] = machine
    if ("/commands/{id}" in case.path or "/command/{id}" in case.path) and command_id:
        case.path_parameters["id"] = command_id
    if "namespace" in {parameter.name for parameter in case.operation.query} and sometimes(case, [True]):
        case.query = {**(case.query if isinstance(case.query, dict) else {}), "namespace": NAMESPACE}
    if isinstance(case.body, dict) and machine:
        good = {"machine": machine, "machines": [machine], "device_id": machine, "device_ids": [machine], **SHOW}
        case.body.update({name: good[name] for name in case.body if name in good})
    checks = CHECKS.get_by_names(NAMES)
    answer = case.call_and_validate(headers={"X-API-Key": schema_key}, checks=checks, timeout=60)
    # A server error is the end of an execution, for example on a machine that cannot be used.
    assert answer.status_code < 500 or "phase" in answer.json(), answer.text
