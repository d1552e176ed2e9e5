"""Label names reach the strategies as vectors, encoded once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from backend.labelstudio.schema import TaskSchema
from backend.rounds.embedding import label_vectors
from backend.rounds.services import Services
from backend.settings import Settings
from tests.live.toy_encoder import ToyEncoder

BOTH = """<View><Image name="i" value="$image"/><Text name="t" value="$text"/>
<Choices name="label" toName="i"><Choice value="big_cat" alias="c1"/>
<Choice value="big-dog" alias="c2"/></Choices></View>"""
ONLY_IMAGES = BOTH.replace('<Text name="t" value="$text"/>', "")


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return Services(Settings(data_dir=tmp_path, encoder="import:tests.live.toy_encoder:make"))


def test_names_are_encoded_as_an_annotator_reads_them(services: Services) -> None:
    encoder = services.encoder
    found = label_vectors(services, TaskSchema.from_label_config(BOTH))
    assert found.keys() == {"text"}
    np.testing.assert_allclose(found["text"], encoder.encode_texts(["big cat", "big dog"]), atol=1e-3)


def test_names_are_encoded_once(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = TaskSchema.from_label_config(BOTH)
    _ = services.encoder
    first = label_vectors(services, schema)
    monkeypatch.setattr(ToyEncoder, "encode_texts", lambda *_: pytest.fail("encoded again"))
    np.testing.assert_array_equal(label_vectors(services, schema)["text"], first["text"])


def test_names_say_nothing_about_images_where_the_towers_share_no_space(services: Services) -> None:
    _ = services.encoder
    assert label_vectors(services, TaskSchema.from_label_config(ONLY_IMAGES)) == {}


def test_names_serve_images_too_where_the_towers_share_a_space(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ToyEncoder, "aligned", True)
    monkeypatch.setattr("tests.live.toy_encoder.IMAGE_DIM", 64)
    _ = services.encoder
    assert label_vectors(services, TaskSchema.from_label_config(ONLY_IMAGES)).keys() == {"image"}
