"""Schemathesis reads the OpenAPI document and asks a running service whatever it allows."""

from pathlib import Path

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

from .serving import encode, grey_photo
from .test_server import ServiceProcess

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance]


def test_every_answer_is_one_that_is_documented(store: Path) -> None:
    with ServiceProcess({"RESTORE_MODEL_STORE": str(store), "RESTORE_CODEC_PROCESSES": "1"}) as service:
        service.wait_until_ready()
        schema = schemathesis.openapi.from_dict(service.client.get("/openapi.json").json())
        operations = [operation.ok() for operation in schema.get_all_operations()]
        assert {operation.path for operation in operations} >= {"/restore", "/livez", "/readyz", "/models"}

        @settings(
            max_examples=25,
            deadline=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(st.one_of([operation.as_strategy() for operation in operations]))
        def ask(case: schemathesis.Case) -> None:
            case.call_and_validate(base_url=str(service.client.base_url), checks=CHECKS)

        ask()
        photo = encode(grey_photo())
        assert service.client.post("/restore", content=photo).content == photo
