"""Prometheus metrics, read from the store at each scrape, so that all web processes say the same."""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Callable, Iterator

from flask import Blueprint, Response, current_app
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from backend import __version__
from backend.errors import StoreError
from backend.rounds import measures
from backend.rounds.measures import Counted
from backend.rounds.services import Services
from backend.rounds.status import ProjectStatus, project_status
from backend.store import counters, events, heartbeats, projects

routes = Blueprint("metrics", __name__)

GAUGES: dict[str, tuple[str, Callable[[ProjectStatus], float]]] = {
    "mmal_queue_remaining": ("Published tasks nobody has answered", lambda s: s.queue_remaining),
    "mmal_pool": ("Tasks with vectors that nobody has answered", lambda s: s.pool),
    "mmal_last_publish_age": ("Seconds since the queue in force was published", lambda s: _age(s.published_at)),
    "mmal_last_sync_age": ("Seconds since Label Studio was last looked at", lambda s: _age(s.synced_at)),
    "mmal_unsynced_labels": ("Annotations Label Studio counted and we had not read", lambda s: s.unsynced_answers),
    "mmal_unfitted_labels": ("Labels that came after the last fit", lambda s: s.unfitted_labels),
    "mmal_labels": ("Tasks in the training set", lambda s: s.labels),
    "mmal_tasks": ("Tasks in Label Studio", lambda s: s.tasks),
    "mmal_tasks_embedded": ("Tasks with vectors", lambda s: s.embedded),
    "mmal_unreadable_media": ("Tasks with an image or text that cannot be read", lambda s: s.unreadable_media),
    "mmal_control_answers": ("Control answers that accuracy is told from", lambda s: _pooled(s, "answers")),
    "mmal_accuracy": ("Share of them the head had right before, see docs", lambda s: _pooled(s, "accuracy")),
    "mmal_accuracy_low": ("Lower end of its 95% interval", lambda s: _pooled(s, "low")),
    "mmal_accuracy_high": ("Upper end of its 95% interval", lambda s: _pooled(s, "high")),
    "mmal_images_deferred": ("Tasks and items whose image's host does not answer", lambda s: s.images_deferred),
    "mmal_project_failing": (
        "1 while the project has an ERROR in mmal status, or nothing is embedded",
        lambda s: bool(s.last_error or s.encoder_failing),
    ),
}
"""Name -> (meaning, value) of what each attached project has one of."""


class StoreCollector(Collector):
    """Everything that is known of the projects, the worker and the store."""

    def __init__(self, services: Services) -> None:
        self.services, self.store = services, services.store

    def collect(self) -> Iterator[Metric]:
        """All families, without samples where the store cannot be read."""
        yield GaugeMetricFamily(
            "mmal_data_free_bytes", "Free space where MMAL_DATA_DIR lies", shutil.disk_usage(self.store.data_dir).free
        )
        build = GaugeMetricFamily("mmal_build_info", "Version of this backend", labels=["version", "python"])
        build.add_metric([__version__, platform.python_version()], 1)
        yield build
        try:
            self.services.tally.write()
            found = [*self._projects(self._statuses()), *self._worker(), *_counted(counters.every(self.store))]
        except StoreError:
            found = [*self._projects([]), *_counted({})]
            yield GaugeMetricFamily("mmal_store_up", "Whether the store can be read", 0)
        else:
            yield GaugeMetricFamily("mmal_store_up", "Whether the store can be read", 1)
        yield from found

    def _statuses(self) -> list[ProjectStatus]:
        return [project_status(self.services, p) for p in projects.every(self.store, "attached")]

    def _projects(self, statuses: list[ProjectStatus]) -> Iterator[Metric]:
        for name, (text, value) in GAUGES.items():
            family = GaugeMetricFamily(name, text, labels=["project"])
            for status in statuses:
                family.add_metric([str(status.project_id)], float(value(status)))
            yield family
        steps = GaugeMetricFamily(
            "mmal_round_seconds", "Seconds of each step of the last round", labels=["project", "step"]
        )
        for status in statuses:
            for step, seconds in status.round_seconds.items():
                steps.add_metric([str(status.project_id), step], seconds)
        yield steps

    def _worker(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "mmal_events_waiting", "Webhook events no worker has seen", events.waiting(self.store)
        )
        beats = heartbeats.every(self.store)
        yield GaugeMetricFamily("mmal_workers", "Workers that are running", len(heartbeats.alive(self.store)))
        yield GaugeMetricFamily(
            "mmal_worker_heartbeat_age_seconds",
            "Seconds since a worker last gave a sign of life",
            self.store.clock() - beats[0].at if beats else float("inf"),
        )
        answers = GaugeMetricFamily(
            "mmal_label_studio_up", "Whether Label Studio answered the worker when last asked"
        )
        if beats and beats[0].label_studio is not None:
            answers.add_metric([], float(beats[0].label_studio))
        yield answers


def _counted(sums: dict[counters.Key, float]) -> Iterator[Metric]:
    for counted in measures.ALL:
        own = {labels: value for (name, labels), value in sums.items() if name == counted.name}
        yield _histogram(counted, own) if counted.buckets else _counter(counted, own)


def _counter(counted: Counted, own: dict[tuple[str, ...], float]) -> Metric:
    family = CounterMetricFamily(counted.name, counted.text, labels=counted.labels)
    for labels, value in sorted(own.items()):
        family.add_metric(labels, value)
    return family


def _histogram(counted: Counted, own: dict[tuple[str, ...], float]) -> Metric:
    family = HistogramMetricFamily(counted.name, counted.text, labels=counted.labels)
    for labels in sorted({labels[:-1] for labels in own}):
        below, buckets = 0.0, []
        for bound in (*map(str, counted.buckets), measures.OVER):
            below += own.get((*labels, bound), 0.0)
            buckets.append((floatToGoString(bound), below))
        family.add_metric(labels, buckets, own.get((*labels, measures.SUM), 0.0))
    return family


def _pooled(status: ProjectStatus, figure: str) -> float:
    found = status.accuracy and status.accuracy.now
    return float(getattr(found, figure)) if found else float("nan")


def _age(moment: float) -> float:
    return time.time() - moment if moment else float("nan")


@routes.get("/metrics")
def metrics() -> Response:
    """Everything in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(StoreCollector(current_app.extensions["mmal"][0]))
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
