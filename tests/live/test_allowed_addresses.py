"""Label Studio's own protection lets our address through and stays up for every other."""

from __future__ import annotations

import ast
import json
import subprocess

import pytest

from backend.errors import LabelStudioRefused
from backend.labelstudio.allowed_addresses import DEFAULT_BANNED
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.project_setup import EVENTS
from backend.settings import takes_webhooks

from .conftest import MakeProject, executable
from .recording_backend import RecordingBackend

pytestmark = pytest.mark.live

# Another loopback address, a container's, a cloud's metadata service.
NEIGHBOURS = ("127.0.0.2", "172.17.0.2", "169.254.169.254")
HOSTS = [
    *(
        "web",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "ip6-localhost",
        "10.0.0.5",
        "999.1.1.1",
        "1.2.3",
        "::1",
        "fe80::1",
    ),
    *("mmal.internal", "mmal.internal.", "host.docker.internal", "backend.svc.cluster.local", "a_b.example", "x.y"),
    *("-a.example", "a-.example", "a..example", "a.-b", "a.b-", "w.c-om", "foo.123", "a.xn--p1ai", "bücher.example"),
]
VALIDATE = """
import json, sys
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import URLValidator

def valid(host):
    try:
        URLValidator()(f"http://{'[' + host + ']' if ':' in host else host}:9090/events")
    except ValidationError:
        return False
    return True

settings.configure()
print(json.dumps([valid(host) for host in sys.argv[1:]]))
"""


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


def test_hosts_that_label_studio_sends_no_webhook_to_are_told_by_the_settings() -> None:
    python = executable().parent / "python"
    told = subprocess.run([python, "-c", VALIDATE, *HOSTS], capture_output=True, text=True, check=True)
    assert [takes_webhooks(host) for host in HOSTS] == json.loads(told.stdout)
