"""While a host of images or the encoder fails, nothing is written off, nothing else waits, and it is tried again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from PIL import Image
from pydantic import SecretStr

from backend.errors import EncoderUnavailable
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.image_hosts import FAILURES, ImageHosts
from backend.rounds import embedding, triggers
from backend.rounds.report import status_lines
from backend.rounds.services import Services
from backend.rounds.status import project_status
from backend.rounds.worker import Worker
from backend.settings import Settings
from backend.store import catalogue, pauses, projects, tasks

CONFIG = (
    '<View><Image name="i" value="$image"/><Text name="t" value="$text"/>'
    '<Choices name="c" toName="i"><Choice value="a"/><Choice value="b"/></Choices></View>'
)


PERSONAL_TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJ0b2tlbl90eXBlIjoicmVmcmVzaCJ9.x"


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


class ImageHost:
    """A host of pictures whose status can be changed."""

    def __init__(self, picture: bytes) -> None:
        self.status, self.asked = 200, 0
        host = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                host.asked += 1
                self.send_response(host.status)
                self.send_header("Content-Length", str(len(picture)))
                self.end_headers()
                self.wfile.write(picture)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        Thread(target=self.server.serve_forever, daemon=True).start()


class World:
    """A project, two hosts of images, and a clock."""

    def __init__(self, folder: Path, picture: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        self.down, self.up = ImageHost(picture), ImageHost(picture)
        self.down.status = 503
        self.clock = Clock()
        self.services = Services(
            Settings(
                data_dir=folder,
                encoder="import:tests.live.toy_encoder:make",
                label_studio_api_key=SecretStr("a" * 40),
                label_studio_url=self.down.address,
                media_allow="127.0.0.1",
                encode_batch=8,
            )
        )
        self.store = self.services.store
        monkeypatch.setattr(self.store, "clock", self.clock)
        self.services.__dict__["image_hosts"] = ImageHosts(self.clock)
        projects.remember(self.store, 1, label_config=CONFIG, state="attached", watermark="2026-11-27T00:00:00Z")

    def add(self, host: ImageHost, ids: range, text: str = "text {n}") -> None:
        given = [tasks.Inputs(n, f"{host.address}/{n}.png", text.format(n=n)) for n in ids]
        tasks.remember(self.store, 1, given)

    def embed(self) -> int:
        """Until nothing can be embedded now; tells how many chunks that took."""
        chunks = 0
        while embedding.waiting(self.services, 1) and embedding.embed_chunk(self.services, 1):
            chunks += 1
            assert chunks < 200, "it spins"
        return chunks

    def pass_time_until(self, done: Callable[[], bool], most: float = 600.0) -> float:
        began = self.clock.now
        while not done():
            self.clock.now += 1.0
            assert self.clock.now - began < most, "not within this time"
            self.embed()
        return self.clock.now - began

    def with_picture(self) -> int:
        return sum(row.image_row >= 0 for row in tasks.vector_rows(self.store, 1, self.services.encoder_id))

    def counts(self) -> tasks.Counts:
        return tasks.counts(self.store, 1, self.services.encoder_id)

    def due(self) -> str:
        return triggers.due(self.services, projects.get(self.store, 1))

    def status(self) -> str:
        return "\n".join(status_lines(project_status(self.services, projects.get(self.store, 1))))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    Image.new("L", (8, 8), 100).save(tmp_path / "picture.png")
    made = World(tmp_path, (tmp_path / "picture.png").read_bytes(), monkeypatch)
    yield made
    for host in (made.down, made.up):
        host.server.shutdown()
        host.server.server_close()


def test_an_outage_writes_no_picture_off_and_no_restart_is_needed_after_it(world: World) -> None:
    world.add(world.down, range(1, 41), text="")
    world.embed()
    assert (world.counts().embedded, world.counts().pool, world.due()) == (0, 0, "")
    assert "40 cannot be had for now, tried again" in world.status()
    assert "server error 503" in world.status()
    world.down.status = 200
    world.pass_time_until(lambda: world.with_picture() == 40)
    assert world.due() == "first queue"
    assert tasks.problems(world.store, 1) == []
    world.clock.now += 1000.0
    world.embed()
    assert pauses.find(world.store, "media", 1) is None
    assert "cannot be had" not in world.status()


def test_a_queue_comes_by_the_texts_and_pictures_join_in(world: World) -> None:
    world.add(world.down, range(1, 21))
    world.embed()
    assert world.due() == "first queue"
    assert (world.counts().pool, world.with_picture()) == (20, 0)
    world.down.status = 200
    world.pass_time_until(lambda: world.with_picture() == 20)


def test_tasks_of_other_hosts_neither_wait_nor_are_waited_for(world: World) -> None:
    world.add(world.down, range(1, 31), text="")
    world.add(world.up, range(31, 51), text="")
    world.embed()
    assert (world.with_picture(), world.counts().embedded) == (20, 20)
    assert world.due() == "first queue"


def test_a_host_that_is_down_is_asked_seldom_and_is_back_within_minutes(world: World) -> None:
    world.add(world.down, range(1, 101))
    world.embed()
    for _ in range(1200):
        world.clock.now += 1.0
        world.embed()
    assert world.down.asked < 100
    world.down.status = 200
    took = world.pass_time_until(lambda: world.with_picture() == 100)
    assert took <= embedding.LONGEST_MEDIA_PAUSE + 1


def test_a_picture_that_is_not_there_is_written_off_as_ever(world: World) -> None:
    world.down.status = 404
    world.add(world.down, range(1, 6))
    world.embed()
    assert pauses.find(world.store, "media", 1) is None
    assert len(tasks.problems(world.store, 1)) == 5


def test_items_of_a_catalogue_wait_for_their_host_too(world: World) -> None:
    items = [catalogue.NewItem(f"i{n}", "image", f"{world.down.address}/{n}.png") for n in range(5)]
    items += [catalogue.NewItem(f"t{n}", "text", f"text {n}") for n in range(5)]
    catalogue.add(world.store, 1, items)
    world.embed()

    def embedded() -> Mapping[str, int]:
        counts = catalogue.counts(world.store, 1, world.services.encoder_id)
        return {modality: of.get("embedded", 0) for modality, of in counts.items()}

    assert embedded() == {"image": 0, "text": 5}
    assert "5 cannot be had for now" in world.status()
    world.down.status = 200
    world.pass_time_until(lambda: embedded() == {"image": 5, "text": 5})
    assert catalogue.problems(world.store, 1) == []


def test_a_token_that_cannot_be_renewed_counts_as_an_outage_of_label_studio(world: World) -> None:
    world.services.__dict__["label_studio"] = LabelStudio(world.down.address, PERSONAL_TOKEN)
    tasks.remember(world.store, 1, [tasks.Inputs(1, "/data/upload/1/a.png", "text")])
    world.embed()
    assert world.counts().embedded == 1
    assert "1 cannot be had for now" in world.status()


def test_one_slow_picture_says_nothing_of_its_host() -> None:
    clock = Clock()
    hosts = ImageHosts(clock)
    for _ in range(10):
        for _ in range(FAILURES - 1):
            hosts.failed("https://a.example/1.png", "slow")
        hosts.answered("https://a.example/2.png")
    assert not hosts.why_not("https://a.example/3.png")


def test_failures_that_were_under_way_lengthen_no_pause() -> None:
    clock = Clock()
    hosts = ImageHosts(clock)
    for _ in range(64):
        hosts.failed("https://user:secret@a.example/1.png", "refused")
    assert "refused" in hosts.why_not("https://a.example/2.png")
    assert not hosts.why_not("https://b.example/2.png")
    clock.now += 2.0
    assert not hosts.why_not("https://a.example/2.png")


def test_an_encoder_that_fails_is_tried_again_with_growing_pauses_and_loaded_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add(world.up, range(1, 6))
    worker = Worker(world.services)
    loaded = world.services.encoder

    def broken(texts: list[str]) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(loaded, "encode_texts", broken)
    tries = 0
    for _ in range(1000):
        if embedding.waiting(world.services, 1):
            worker.jobs["embed"].call_local(1)
            tries += 1
            if tries == 1:
                monkeypatch.setattr("backend.rounds.services.load_encoder", refuse)
        world.clock.now += 1.0
    assert 8 <= tries <= 11
    assert "nothing is embedded, tried again in" in world.status()
    assert "no CUDA here" in world.status()
    monkeypatch.undo()
    world.services.store.clock = world.clock  # type: ignore[method-assign]
    world.clock.now += embedding.LONGEST_ENCODER_PAUSE
    worker.jobs["embed"].call_local(1)
    assert world.services.encoder is not loaded
    assert world.counts().embedded == 5
    assert "nothing is embedded" not in world.status()


def refuse(*args: Any, **named: Any) -> None:
    raise EncoderUnavailable("MMAL_DEVICE='cuda' cannot be used: no CUDA here")
