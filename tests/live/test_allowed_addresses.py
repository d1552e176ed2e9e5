"""Label Studio's own protection lets our address through and stays up for every other."""

from __future__ import annotations

import ast

import pytest

from backend.errors import LabelStudioRefused
from backend.labelstudio.allowed_addresses import DEFAULT_BANNED
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.project_setup import EVENTS

from .conftest import MakeProject, executable
from .recording_backend import RecordingBackend

pytestmark = pytest.mark.live

# Another loopback address, a container's, a cloud's metadata service.
NEIGHBOURS = ("127.0.0.2", "172.17.0.2", "169.254.169.254")


def test_a_backend_at_the_allowed_address_is_connected_and_sent_events(
    client: LabelStudio, make_project: MakeProject
) -> None:
    project = make_project(1)
    with RecordingBackend() as backend:
        by_name = backend.url.replace("127.0.0.1", "localhost")
        client.connect_backend(project.id, by_name, "by name")
        client.create_webhook(project.id, f"{backend.url}/events", EVENTS)
        client.import_tasks(project.id, [{"image": "/data/new.png", "text": "new"}])
        assert backend.wait_for(lambda: "TASKS_CREATED" in backend.events())


@pytest.mark.parametrize("address", NEIGHBOURS)
def test_other_addresses_are_refused_as_backends_and_as_webhooks(
    client: LabelStudio, make_project: MakeProject, address: str
) -> None:
    project = make_project()
    with pytest.raises(LabelStudioRefused, match="reserved network address"):
        client.connect_backend(project.id, f"http://{address}:9090", "neighbour")
    with pytest.raises(LabelStudioRefused, match="reserved network address"):
        client.create_webhook(project.id, f"http://{address}:9090/events", EVENTS)
    assert client.ml_backends(project.id) == [] and client.webhooks(project.id) == []


def test_the_networks_refused_by_default_are_those_we_leave_a_gap_in() -> None:
    (source,) = executable().parents[1].glob("lib/python*/site-packages/label_studio/core/utils/io.py")
    (found,) = [
        ast.literal_eval(node.value)
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "default_banned_subnets"
    ]
    assert [network.replace("2001:0000::", "2001::") for network in found] == list(DEFAULT_BANNED)
