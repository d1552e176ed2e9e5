"""Prometheus metrics, read from the store at each scrape, so that all web processes say the same."""

from __future__ import annotations

import time
from collections.abc import Iterator

from flask import Blueprint, Response, current_app
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from backend.rounds.services import Services
from backend.rounds.status import ProjectStatus, project_status
from backend.store import events, projects

routes = Blueprint("metrics", __name__)


class StoreCollector(Collector):
    """Gauges of every connected project."""

    def __init__(self, services: Services) -> None:
        self.services = services

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One family a measure, one sample a project."""
        statuses = [project_status(self.services, p) for p in projects.every(self.services.store, "attached")]
        measures = {
            "queue_remaining": ("Published tasks nobody has answered", lambda s: s.queue_remaining),
            "last_publish_age": ("Seconds since the queue in force was published", _age),
            "unsynced_labels": ("Annotations Label Studio counted and we had not read", lambda s: s.unsynced_answers),
            "unfitted_labels": ("Labels that came after the last fit", lambda s: s.unfitted_labels),
            "labels": ("Tasks in the training set", lambda s: s.labels),
            "tasks": ("Tasks in Label Studio", lambda s: s.tasks),
            "tasks_embedded": ("Tasks with vectors", lambda s: s.embedded),
            "rounds": ("Rounds started", lambda s: s.rounds),
            "rounds_failed": ("Rounds that failed", lambda s: s.rounds_failed),
        }
        for name, (text, value) in measures.items():
            family = GaugeMetricFamily(f"mmal_{name}", text, labels=["project"])
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
        yield GaugeMetricFamily(
            "mmal_events_waiting", "Webhook events no worker has seen", events.waiting(self.services.store)
        )


def _age(status: ProjectStatus) -> float:
    return time.time() - status.published_at if status.published_at else float("nan")


@routes.get("/metrics")
def metrics() -> Response:
    """Everything in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(StoreCollector(current_app.extensions["mmal"][0]))
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
