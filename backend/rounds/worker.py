"""The worker: a pulse that turns what the store says into jobs, and threads that run them.

What has to be done is always read from the store. The job queue only carries it to a thread, so a worker that is
killed loses nothing: the next pulse, of this worker or another, finds the same work.
"""

from __future__ import annotations

import ctypes
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress

from huey.consumer import Consumer

from backend import logs
from backend.errors import (
    ConfigurationError,
    LabelStudioError,
    LabelStudioUnreachable,
    LeaseLost,
    MmalError,
    QueueDamaged,
    QueueUnreachable,
    StoreError,
    TokenRefused,
)
from backend.labelstudio.project_setup import remove_automatic_webhook
from backend.rounds import measures, origin
from backend.rounds.connecting import attach_if_new, show_options
from backend.rounds.embedding import embed_chunk, stand_still, waiting
from backend.rounds.hangup import end_on_hangup
from backend.rounds.job_queue import OneLine, in_words, open_queue
from backend.rounds.messages import JsonSerializer
from backend.rounds.opinions import ask_opinions
from backend.rounds.pipeline import keep_in_force, recover, run_round, uncleared
from backend.rounds.publishing import trim_live_rows
from backend.rounds.services import Services, options_of
from backend.rounds.sync import sync_project
from backend.rounds.triggers import request_if_due
from backend.store import catalogue, events, faults, heartbeats, leases, projects, rounds, tasks
from backend.store.tables import Project

log = logging.getLogger(__name__)

# An embedding job ends after this many seconds and is asked for again, so that every project gets its turn.
EMBED_SECONDS = 20.0
TRIM_SECONDS = 60.0
BEAT_SECONDS = 5.0
CHECK_SECONDS = 60.0
# After the store refused: how long nothing is asked of it.
STORE_PAUSE = 5.0
QUEUE_PAUSE = 2.0
# A team submits several answers a second; Label Studio is not asked after each.
BETWEEN_LOOKS = 2.0


class _Consumer(Consumer):
    """Huey's, which a closed terminal ends."""

    def start(self) -> None:
        """Start the threads; the handlers of signals are set here."""
        super().start()
        end_on_hangup()


class Worker:
    """Jobs of all projects.

    Parameters
    ----------
    hold
        Called at each named point of a round; fault tests stop the worker there.
    """

    def __init__(self, services: Services, hold: Callable[[str], None] = lambda point: None) -> None:
        self.services, self.hold = services, hold
        # Containers may share host name and process number.
        self.holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
        self.huey = open_queue(services, JsonSerializer())
        self.jobs = {
            name: self.huey.task(name=name)(self._guarded(name, function))
            for name, function in {
                "attach": self.attach,
                projects.LOOK: self.sync,
                "embed": self.embed,
                "round": self.round,
                "trim": self.trim,
            }.items()
        }
        self._running: set[tuple[str, int]] = set()
        self._hinted: set[int] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._store_refused = float("-inf")
        self._beaten = float("-inf")
        self._checked = time.monotonic()
        self._label_studio_answers: bool | None = None
        self._trimmed: dict[int, float] = {}
        self._reconciled: set[int] = set()

    def run(self) -> None:
        """Work until SIGTERM, SIGINT or SIGHUP."""
        pulse = threading.Thread(target=self._pulse, name="pulse", daemon=True)
        pulse.start()
        log.info("worker %s started", self.holder)
        for handler in logging.getLogger().handlers:
            handler.addFilter(OneLine())
        # A job must start at once: the default would let an idle consumer sleep for ten seconds. Redis wakes it by
        # itself, and is left alone for longer when it does not answer.
        _Consumer(
            self.huey,
            workers=self.services.settings.worker_threads,
            initial_delay=0.05,
            max_delay=QUEUE_PAUSE if self.huey.storage.blocking else 0.2,
            periodic=False,
        ).run()
        self._stop.set()
        pulse.join(timeout=5)
        with suppress(StoreError):
            self.services.tally.write()
            heartbeats.end(self.services.store, self.holder)

    # Jobs --------------------------------------------------------------------------------------------------

    def attach(self, project_id: int) -> None:
        """Set a newly connected project up in Label Studio."""
        attach_if_new(self.services, project_id)

    def sync(self, project_id: int) -> None:
        """Look at Label Studio; ask for a round where one is due."""
        with self._lease(projects.LOOK, project_id) as lease:
            if lease is not None:
                self._sync(project_id)

    def _sync(self, project_id: int) -> None:
        self._settle_cut_off(project_id)
        project = projects.get(self.services.store, project_id)
        old = self.services.store.clock() - project.reconciled_at > self.services.settings.reconcile_hours * 3600
        reconcile = old or project_id not in self._reconciled
        if reconcile and project.watermark:
            # What changed comes first. Comparing everything takes minutes in a large project, and a worker that
            # dies each time before it is through would never learn an answer.
            sync_project(self.services, project_id)
            request_if_due(self.services, project_id)
        report = sync_project(self.services, project_id, reconcile=reconcile)
        if reconcile:
            tasks.retry_problems(self.services.store, project_id)
            catalogue.retry_problems(self.services.store, project_id)
            # Label Studio makes it anew whenever somebody saves the connection.
            remove_automatic_webhook(self.services.label_studio, project_id, self.services.settings.backend_url)
        self._reconciled.add(project_id)
        if report.serving != project.version:
            self._restore_version(project_id)
        ask_opinions(self.services, project_id)
        self._label_studio_answers = True
        projects.record_look(self.services.store, project_id)
        request_if_due(self.services, project_id)
        show_options(self.services, project_id)
        store, seconds = self.services.store, self.services.settings.lease_seconds
        if not leases.holder_of(store, f"round {project_id}", seconds) and uncleared(self.services, project_id):
            # Not here: a Label Studio that does not get through with deleting must not keep answers waiting.
            self._trimmed.pop(project_id, None)

    def _settle_cut_off(self, project_id: int) -> None:
        """A round whose worker died is adopted or asked for again, whether or not anything else asks for one."""
        if rounds.of_project(self.services.store, project_id, "running", limit=1):
            self._recover(project_id)

    def _recover(self, project_id: int) -> None:
        # Whose lease nobody holds is no longer running.
        with self._lease("round", project_id) as lease:
            if lease is not None:
                recover(self.services, project_id)

    def _restore_version(self, project_id: int) -> None:
        # Not while a round is between its switch and its bookkeeping: it would be taken for a stale page.
        with self._lease("round", project_id) as lease:
            if lease is not None:
                client = self.services.label_studio
                serving = client.project(project_id).model_version
                keep_in_force(self.services, project_id, serving, client.model_versions(project_id))

    def _lease(self, job: str, project_id: int) -> AbstractContextManager[leases.HeldLease | None]:
        return leases.held(
            self.services.store, f"{job} {project_id}", self.holder, self.services.settings.lease_seconds
        )

    def embed(self, project_id: int) -> None:
        """Embed for a while."""
        with self._lease("embed", project_id) as lease:
            until = time.monotonic() + EMBED_SECONDS
            while lease is not None and time.monotonic() < until and not self._stop.is_set():
                if self._embed_chunk(project_id) == 0:
                    return
                lease.check()
                request_if_due(self.services, project_id)

    def _embed_chunk(self, project_id: int) -> int:
        try:
            return embed_chunk(self.services, project_id)
        except (StoreError, LeaseLost):
            raise
        except Exception as error:
            stand_still(self.services, project_id, error)
            raise

    def round(self, project_id: int) -> None:
        """Run a round."""
        run_round(self.services, project_id, self.holder, self.hold)
        _return_freed_memory()
        request_if_due(self.services, project_id)

    def trim(self, project_id: int) -> None:
        """Delete what a round could not clear away after its switch, and a few rows of answers on demand."""
        if uncleared(self.services, project_id):
            self._recover(project_id)
        trim_live_rows(self.services, project_id)

    # Pulse -------------------------------------------------------------------------------------------------

    def _pulse(self) -> None:
        while not self._stop.wait(self.services.settings.pulse_seconds):
            if time.monotonic() - self._store_refused < STORE_PAUSE:
                continue
            try:
                self._beat()
                with in_words(self.services.settings):
                    self.look()
                if self.services.settings.pulse_file:
                    self.services.settings.pulse_file.touch()
            except (StoreError, QueueUnreachable, QueueDamaged) as error:
                self._store_refused = time.monotonic()
                log.error("%s (%s; tried again in %.0f s)", error, type(error).__name__, STORE_PAUSE)
            except Exception:
                log.exception("pulse failed; tried again in %s s", self.services.settings.pulse_seconds)

    def _beat(self) -> None:
        if time.monotonic() - self._beaten >= BEAT_SECONDS:
            heartbeats.beat(self.services.store, self.holder, self._label_studio_answers)
            self._beaten = time.monotonic()
        if time.monotonic() - self._checked >= CHECK_SECONDS:
            faults.check(self.services.store.engine)
            self._checked = time.monotonic()

    def look(self) -> None:
        """Turn what the store says into jobs."""
        seen, hints = events.peek(self.services.store)
        for project_id, actions in hints.items():
            self._hinted.add(project_id)
            self.services.tally.count(measures.EVENTS, project_id, by=actions.total())
            if actions["START_TRAINING"]:
                projects.request_round(self.services.store, project_id, "Start Training was pressed", at_once=True)
        if seen:
            events.forget(self.services.store, seen)
        # What another worker is at would only be turned away by its lease.
        leased = leases.held_now(self.services.store, self.services.settings.lease_seconds)
        asked = self._asked_for()
        for project in projects.every(self.services.store, "new", "attached"):
            for job in self._wanted(project):
                if (job, project.id) not in asked and f"{job} {project.id}" not in leased:
                    self.jobs[job](project.id)
                    if job == projects.LOOK:
                        self._hinted.discard(project.id)

    def _wanted(self, project: Project) -> list[str]:
        now = self.services.store.clock()
        if project.state == "new":
            return ["attach"] if now >= project.round_not_before else []
        wanted: list[str] = []
        patience = BETWEEN_LOOKS if project.id in self._hinted else options_of(project).poll_seconds
        if now - project.synced_at >= patience:
            wanted.append(projects.LOOK)
        if project.id in self.services.others_projects:
            return wanted
        if project.round_requested and now >= project.round_not_before:
            wanted.append("round")
        if waiting(self.services, project.id):
            wanted.append("embed")
        if project.version and now - self._trimmed.get(project.id, 0.0) >= TRIM_SECONDS:
            self._trimmed[project.id] = now
            wanted.append("trim")
        return wanted

    def _asked_for(self) -> set[tuple[str, int]]:
        with self._lock:
            running = set(self._running)
        return running | {(task.name, task.args[0]) for task in self.huey.pending()}

    def _guarded(self, name: str, function: Callable[[int], None]) -> Callable[[int], None]:
        """Run a job; what goes wrong is noted with the project, in words, and never stops the worker."""

        def run(project_id: int) -> None:
            with self._lock:
                if (name, project_id) in self._running:
                    return
                self._running.add((name, project_id))
            try:
                with logs.context(job=name, project_id=project_id):
                    self._attempt(name, function, project_id)
            finally:
                with self._lock:
                    self._running.discard((name, project_id))

        return run

    def _attempt(self, job: str, function: Callable[[int], None], project_id: int) -> None:
        started = time.monotonic()
        try:
            self._confirm(job, project_id)
            function(project_id)
        except Exception as error:
            self._note(job, project_id, error)
        finally:
            self.services.tally.observe(measures.JOB_SECONDS, job, seconds=time.monotonic() - started)

    def _confirm(self, job: str, project_id: int) -> None:
        """Do nothing with a project of another Label Studio. A look and attaching ask themselves."""
        if job in (projects.LOOK, "attach"):
            return
        try:
            origin.confirm(self.services, project_id)
        except (LabelStudioError, ConfigurationError):
            # While nobody can tell, what is known is embedded.
            if job != "embed":
                raise

    def _note(self, job: str, project_id: int, error: Exception) -> None:
        if isinstance(error, MmalError):
            log.warning("project %s: %s: %s", project_id, job, error)
        else:
            log.exception("project %s: %s failed", project_id, job)
        self.services.tally.count(measures.FAILURES, job, type(error).__name__)
        if isinstance(error, (LabelStudioUnreachable, TokenRefused)):
            self._label_studio_answers = False
        if isinstance(error, StoreError):
            self._store_refused = time.monotonic()
        store = self.services.store
        words = f"{job}: {type(error).__name__}: {error}"
        try:
            projects.record_failure(store, project_id, words, pause=job == "attach")
            if job == projects.LOOK:
                # A look that failed waits for the next poll, like one that went through.
                projects.remember(store, project_id, synced_at=store.clock())
        except StoreError as refused:
            log.error("project %s: the failure is in this log only: %s", project_id, refused)


def _return_freed_memory() -> None:
    """Give what a round has freed back to the system: glibc keeps it, once for each thread that ever ran a round."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
