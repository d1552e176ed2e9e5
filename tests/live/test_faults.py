"""What goes wrong is told in clear words, in log, status and doctor, and the rest goes on."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from backend.labelstudio.local_server import LocalLabelStudio
from tests.live.backend_process import BackendProcess, wait_for
from tests.live.loop import Loop
from tests.live.pool import CONFIG, data_uri, make_tasks

pytestmark = pytest.mark.live


def test_broken_images_empty_texts_and_tasks_without_fields_do_not_stop_the_rest(
    label_studio: LocalLabelStudio, tmp_path: Path
) -> None:
    good = make_tasks(30)
    broken = [
        {"photo": "data:image/png;base64,bm90IGEgcGljdHVyZQ==", "title": "not a picture", "truth": "warm"},
        {"photo": "http://127.0.0.1:9/gone.png", "title": "nobody answers", "truth": "warm"},
        {"photo": data_uri(np.zeros((2, 2, 3), np.uint8)), "title": "", "truth": "grey"},
        {"photo": 7, "title": "a number where a picture should be", "truth": "cold"},
        {"other": "neither field", "truth": "cold"},
        {"photo": "ftp://somewhere/x.png", "title": "a scheme nobody reads", "truth": "cold"},
    ]
    with Loop(label_studio, tmp_path, data=good + broken, options={"batch_size": 10, "queue_size": 36}) as loop:
        loop.wait_for_version()
        assert loop.status.embedded == 36
        assert set(loop.queued_ids()) == set(loop.task_ids)
        problems = loop.backend.cli("embed", "problems", "-p", str(loop.project_id)).stdout
        for task_id in (loop.task_ids[30], loop.task_ids[31], loop.task_ids[35]):
            assert f"task {task_id}: image: " in problems
        assert "3 with an unreadable image or text" in loop.backend.cli("status").stdout
        doctor = loop.backend.cli("doctor")
        assert doctor.returncode == 1
        assert "3 tasks have an image or text that cannot be read" in doctor.stdout
        loop.label_batch(8)
        loop.wait_for_version(after=loop.project.version)


def test_a_healthy_project_passes_the_doctor_and_each_damage_is_named(
    label_studio: LocalLabelStudio, tmp_path: Path
) -> None:
    with Loop(label_studio, tmp_path, tasks=40, options={"batch_size": 10}) as loop:
        loop.wait_for_version()
        healthy = loop.backend.cli("doctor")
        assert healthy.returncode == 0, healthy.stdout
        loop.client.update_project(loop.project_id, sampling="Sequential sampling")
        for hook in loop.client.webhooks(loop.project_id):
            loop.client.delete_webhook(hook.id)
        damaged = loop.backend.cli("doctor")
        assert damaged.returncode == 1
        assert "FAIL" in damaged.stdout
        assert "Sequential sampling" in damaged.stdout
        assert "no webhook sends events" in damaged.stdout
        assert loop.backend.cli("project", "attach", "-p", str(loop.project_id)).returncode == 0
        assert loop.backend.cli("doctor").returncode == 0


@pytest.mark.parametrize("token", ["0" * 40, "eyJhbGciOiJIUzI1NiJ9.eyJ0b2tlbl90eXBlIjoicmVmcmVzaCIsImV4cCI6MX0.x"])
def test_a_wrong_or_expired_token_is_named_with_its_remedy(
    label_studio: LocalLabelStudio, tmp_path: Path, token: str
) -> None:
    with Loop(label_studio, tmp_path, tasks=20, options={"poll_seconds": 1}) as loop:
        loop.wait_for_version()
        loop.backend.stop("worker")
        loop.backend.environment["LABEL_STUDIO_API_KEY"] = token
        loop.backend.start("worker")
        wait_for("the refusal to be noted", lambda: "TokenRefused" in loop.status.last_error)
        assert "LABEL_STUDIO_API_KEY" in loop.backend.cli("status").stdout
        doctor = loop.backend.cli("doctor")
        assert doctor.returncode == 1
        assert "LABEL_STUDIO_API_KEY" in doctor.stdout
        assert "TokenRefused" not in doctor.stderr


def test_without_a_token_the_doctor_says_which_variable_is_missing(
    label_studio: LocalLabelStudio, tmp_path: Path
) -> None:
    backend = BackendProcess(tmp_path, label_studio.url, "")
    doctor = backend.cli("doctor")
    assert doctor.returncode == 1
    assert "LABEL_STUDIO_API_KEY is empty" in doctor.stdout


def test_a_personal_access_token_runs_the_whole_loop(label_studio: LocalLabelStudio, tmp_path: Path) -> None:
    with Loop(label_studio, tmp_path, tasks=30, options={"poll_seconds": 1}) as loop:
        version = loop.wait_for_version()
        loop.backend.stop("worker")
        loop.backend.environment["LABEL_STUDIO_API_KEY"] = label_studio.personal_token()
        loop.backend.start("worker")
        assert loop.backend.cli("round", "start", "-p", str(loop.project_id)).returncode == 0
        loop.wait_for_version(after=version)
        assert loop.status.last_error == ""


def test_images_behind_an_address_are_fetched_and_a_later_repair_is_noticed(
    label_studio: LocalLabelStudio, tmp_path: Path
) -> None:
    import base64

    picture = base64.b64decode(data_uri(np.full((4, 4, 3), 200, np.uint8)).split(",")[1])
    available = {"yes": False}

    class Pictures(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if available["yes"] else 404)
            self.end_headers()
            self.wfile.write(picture if available["yes"] else b"")

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Pictures)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_address[1]}/a.png"
        data = [{"photo": f"{address}?{n}", "title": f"sea no{n}", "truth": "cold"} for n in range(8)]
        allowed = {"MMAL_MEDIA_ALLOW": address.split("/")[2]}
        with Loop(label_studio, tmp_path, data=data, options={"batch_size": 4}, environment=allowed) as loop:
            loop.wait_for_version()
            assert loop.status.unreadable_media == 8
            available["yes"] = True
            assert "8 tasks are read again" in loop.backend.cli("embed", "retry", "-p", str(loop.project_id)).stdout
            wait_for("the images to be read", lambda: loop.status.unreadable_media == 0)
    finally:
        server.shutdown()
        server.server_close()


def test_a_label_config_that_cannot_be_served_is_refused_when_connecting(
    label_studio: LocalLabelStudio, tmp_path: Path
) -> None:
    from backend.errors import LabelStudioRefused

    client = label_studio.client()
    project = client.create_project("unsupported", '<View><Text name="t" value="$t"/><Labels name="l" toName="t">'
                                    '<Label value="a"/></Labels></View>')  # fmt: skip
    backend = BackendProcess(tmp_path, label_studio.url, label_studio.admin.token).start("web")
    try:
        with pytest.raises(LabelStudioRefused, match="No Choices control"):
            client.connect_backend(project.id, backend.url, "mmal")
        attach = backend.cli("project", "attach", "-p", str(project.id))
        assert attach.returncode == 2
        assert "LabelConfigUnsupported: No Choices control" in attach.stderr
    finally:
        backend.stop()


def test_predictions_of_others_are_refused_unless_taken_over_and_survive_detaching(
    label_studio: LocalLabelStudio, tmp_path: Path
) -> None:
    client = label_studio.client()
    project = client.create_project("foreign", CONFIG)
    ids = client.import_tasks(project.id, make_tasks(20))
    client.import_predictions(
        project.id, [{"task": task, "result": [], "score": 0.5, "model_version": "theirs"} for task in ids[:5]]
    )
    client.set_model_version(project.id, "theirs")
    before = client.project(project.id)
    with BackendProcess(tmp_path, label_studio.url, label_studio.admin.token) as backend:
        refused = backend.cli("project", "attach", "-p", str(project.id))
        assert refused.returncode == 2
        assert "theirs (5)" in refused.stderr
        assert client.project(project.id) == before
        assert backend.cli("project", "attach", "-p", str(project.id), "--take-over").returncode == 0
        wait_for("a version of ours", lambda: (client.project(project.id).model_version or "").startswith("v"))
        wait_for("the round to end", lambda: '"round_running": ""' in backend.cli("status", "--json").stdout)
        assert backend.cli("project", "detach", "-p", str(project.id)).returncode == 0
        after = client.project(project.id)
        assert (after.model_version, after.sampling, after.show_collab_predictions) == (
            before.model_version, before.sampling, before.show_collab_predictions,
        )  # fmt: skip
        assert client.model_versions(project.id) == {"theirs": 5}
        assert client.webhooks(project.id) == []
        assert client.ml_backends(project.id) == []
        assert all(not t.data.get("al_reason") for t in client.iter_tasks(project.id))
