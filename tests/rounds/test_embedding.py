"""Embedding is done in portions that fit into memory, whatever the tasks bring."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from backend.rounds import embedding
from backend.rounds.services import Services
from backend.settings import Settings
from backend.store import projects, tasks


def picture(shade: int, side: int = 100) -> str:
    buffer = io.BytesIO()
    Image.new("L", (side, side), shade).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def test_all_jobs_of_a_process_share_one_set_of_connections(tmp_path: Path) -> None:
    services = Services(Settings(data_dir=tmp_path, label_studio_api_key="unused"))  # type: ignore[arg-type]
    assert services.media is services.media


def test_large_pictures_are_decoded_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(
        data_dir=tmp_path,
        encoder="import:tests.live.toy_encoder:make",
        label_studio_api_key="unused",  # type: ignore[arg-type]
        max_image_pixels=25_000,
    )
    services = Services(settings)
    projects.remember(services.store, 1, state="attached")
    addresses = [picture(shade) for shade in range(10)] + [picture(200, side=160), "data:image/png;base64,AAAA"]
    tasks.remember(services.store, 1, [tasks.Inputs(n, address, "") for n, address in enumerate(addresses, 1)])
    together: list[int] = []
    encode = services.encoder.encode_images

    def watched(images: list[Image.Image]) -> object:
        together.append(sum(image.width * image.height for image in images))
        return encode(images)

    monkeypatch.setattr(services.encoder, "encode_images", watched)
    assert embedding.embed_chunk(services, 1) == 12
    assert sum(together) == 10 * 100 * 100
    assert max(together) < 2 * settings.max_image_pixels
    assert {task_id for task_id, _, _ in tasks.problems(services.store, 1)} == {11, 12}


def test_what_is_tried_again_waits_for_what_is_new_and_is_then_through(tmp_path: Path) -> None:
    settings = Settings(
        data_dir=tmp_path, encoder="import:tests.live.toy_encoder:make", label_studio_api_key="unused"
    )  # type: ignore[arg-type]
    services = Services(settings)
    store, encoder = services.store, services.encoder_id
    projects.remember(store, 1, state="attached")
    tasks.remember(store, 1, [tasks.Inputs(1, "data:image/png;base64,AAAA", "words")])
    assert embedding.embed_chunk(services, 1) == 1
    assert not embedding.waiting(services, 1)
    before = tasks.vector_rows(store, 1, encoder)
    assert [row.text_row >= 0 and row.image_row for row in before] == [-1]

    assert tasks.retry_problems(store, 1) == 1
    assert embedding.waiting(services, 1)
    assert tasks.vector_rows(store, 1, encoder) == before
    tasks.remember(store, 1, [tasks.Inputs(2, picture(7), "")])
    assert embedding.embed_chunk(services, 1) == 1
    assert [row.task_id for row in tasks.vector_rows(store, 1, encoder)] == [1, 2]
    assert embedding.embed_chunk(services, 1) == 1
    assert not embedding.waiting(services, 1)
    assert [task_id for task_id, _, _ in tasks.problems(store, 1)] == [1]
