"""The services of the compose file work together; see `compose_processes` for what stands in for containers."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests

from tests.container_files import filled_in
from tests.live import compose_round
from tests.live.compose_processes import ComposeProcesses

pytestmark = pytest.mark.live


def test_one_round_goes_through_every_service_of_the_compose_file(tmp_path: Path) -> None:
    variables = {**filled_in(), "MMAL_ENCODER": "import:tests.live.toy_encoder:make"}
    with ComposeProcesses(tmp_path, variables) as stack:
        client = compose_round.label_studio(stack, variables)
        project_id = compose_round.attach_a_project(stack, client)
        compose_round.answer_until_learnt(stack, client, project_id)
        assert all(stack.healthy(name) for name in stack.services)
        # Label Studio carried the password; a stranger is asked for it.
        assert requests.post(f"{stack.url('web')}/setup", json={}, timeout=10).status_code == 401
        stack.stop()
        assert not any(stack.healthy(name) for name in ("postgres", "redis", "label-studio", "web"))
