"""What /metrics says is documented, survives restarts, and is the same from every process."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from backend.errors import LabelStudioUnreachable
from backend.rounds import measures
from backend.rounds.services import Services
from backend.rounds.worker import Worker
from backend.server.app import create_app
from backend.settings import Settings
from backend.store import counters, heartbeats, projects
from tests.store.test_store_faults import full_disk

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


def samples(web: FlaskClient) -> dict[tuple[str, tuple[str, ...]], float]:
    """(name, values of the labels, in the order of their names) -> value."""
    answer = web.get("/metrics")
    assert answer.status_code == 200
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def exposed_names(web: FlaskClient) -> set[str]:
    """As a query names them, of all families, whether they have samples yet or not."""
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", web.get("/metrics").text, re.MULTILINE))
    return {name for name in types if name.startswith("mmal_")}


def test_the_documentation_names_exactly_the_metrics_there_are(web: FlaskClient) -> None:
    section = OPERATIONS.read_text().split("\n## Metrics\n")[1].split("\n## ")[0]
    documented = re.findall(r"`(mmal_[a-z_]+)", "".join(re.findall(r"^\| (.*?) \|", section, re.MULTILINE)))
    assert sorted(documented) == sorted(exposed_names(web))


def test_requests_are_counted_by_route_and_status(web: FlaskClient) -> None:
    for path in ("/health", "/health", "/api/projects/7", "/api/projects/8", "/nowhere/1", "/nowhere/2"):
        web.get(path)
    web.open("/health", method="BREW")
    found = samples(web)
    assert found["mmal_requests_total", ("GET", "/health", "200")] == 2
    assert found["mmal_requests_total", ("GET", "/api/projects/<int:project_id>", "404")] == 2
    assert found["mmal_requests_total", ("GET", "unknown", "404")] == 2
    assert found["mmal_requests_total", ("other", "unknown", "405")] == 1
    assert found["mmal_request_duration_seconds_count", ("/health",)] == 2
    assert found["mmal_request_duration_seconds_bucket", ("+Inf", "/health")] == 2


def test_the_sums_of_all_processes_are_shown_by_each_and_survive_them(settings: Settings) -> None:
    first, second = create_app(settings).test_client(), create_app(settings).test_client()
    worker = Services(settings)
    for web, times in ((first, 3), (second, 4)):
        for _ in range(times):
            web.get("/health")
    worker.tally.count(measures.ROUNDS, 7, "published")
    worker.tally.observe(measures.ROUND_SECONDS, 7, seconds=4.5)
    worker.tally.write()
    first.get("/metrics")
    for web in (second, create_app(settings).test_client()):
        found = samples(web)
        assert found["mmal_requests_total", ("GET", "/health", "200")] == 7
        assert found["mmal_rounds_total", ("published", "7")] == 1
        assert found["mmal_round_duration_seconds_bucket", ("2.0", "7")] == 0
        assert found["mmal_round_duration_seconds_bucket", ("5.0", "7")] == 1
        assert found["mmal_round_duration_seconds_sum", ("7",)] == 4.5


def test_what_the_store_refused_to_count_is_counted_later(services: Services) -> None:
    services.tally.count(measures.EMBEDDED, 1, by=64)
    with full_disk(0):
        services.tally.write()
    services.tally.count(measures.EMBEDDED, 1, by=36)
    services.tally.write()
    services.tally.write()
    assert counters.every(services.store)["mmal_embedded", ("1",)] == 100


def test_a_failing_job_is_counted_by_its_kind_and_label_studio_is_down(services: Services, web: FlaskClient) -> None:
    worker = Worker(services)

    def unreachable(project_id: int) -> None:
        raise LabelStudioUnreachable("refused")

    worker._guarded("sync", unreachable)(7)
    heartbeats.beat(services.store, worker.holder, worker._label_studio_answers)
    found = samples(web)
    assert found["mmal_failures_total", ("sync", "LabelStudioUnreachable")] == 1
    assert found["mmal_job_duration_seconds_count", ("sync",)] == 1
    assert found["mmal_label_studio_up", ()] == 0
    assert found["mmal_workers", ()] == 1
    assert 0 <= found["mmal_worker_heartbeat_age_seconds", ()] < 60


def test_without_any_worker_its_heartbeat_is_infinitely_old(web: FlaskClient) -> None:
    found = samples(web)
    assert found["mmal_worker_heartbeat_age_seconds", ()] == float("inf")
    assert found["mmal_workers", ()] == 0
    assert ("mmal_label_studio_up", ()) not in found


@pytest.mark.parametrize("error", ["", "sync: refused"])
def test_a_failing_project_is_told_apart_from_a_sound_one(web: FlaskClient, services: Services, error: str) -> None:
    projects.remember(services.store, 7, state="attached", last_error=error)
    assert samples(web)["mmal_project_failing", ("7",)] == bool(error)


def test_a_damaged_store_is_a_metric_and_not_a_failed_scrape(web: FlaskClient, settings: Settings) -> None:
    assert samples(web)["mmal_store_up", ()] == 1
    (settings.data_dir / "mmal.sqlite3").unlink()
    found = samples(web)
    assert found["mmal_store_up", ()] == 0
    assert found["mmal_data_free_bytes", ()] > 0
