"""Tasks that ask for a pair: what they hold, what they hide, and how large they may be."""

from __future__ import annotations

import base64
import html
import io
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from backend.errors import MediaNotAnImage, PairTaskInvalid
from backend.labelstudio.pair_answers import read_query
from backend.labelstudio.pair_tasks import (
    MAX_TASK_BYTES,
    NONE,
    SHOWN_CHARACTERS,
    UNSURE,
    PairItem,
    query_key,
    query_task,
    thumbnail,
)
from backend.labelstudio.schema import TaskSchema
from backend.labelstudio.task_templates import TaskTemplate

FOLDER = Path(__file__).parents[2] / "tasks_templates"
BOTH = TaskTemplate.load(FOLDER / "image_text_pairing").schema(())
IMAGES_ASK = TaskTemplate.load(FOLDER / "image_to_captions").schema(())
QUERY = PairItem("i1", "https://example.org/1.png")
CAPTIONS = tuple(PairItem(f"t{n}", f"caption number {n}") for n in range(8))


def picture(noise: bool = False, size: tuple[int, int] = (600, 400), mode: str = "RGB") -> bytes:
    rng = np.random.default_rng(0)
    image = Image.new(mode, size, (200, 60, 30, 0)[: len(mode)])
    if noise:
        image = Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def bytes_of(address: str) -> bytes:
    head, _, body = address.partition(",")
    assert head == "data:image/webp;base64"
    return base64.b64decode(body, validate=True)


def ask(schema: TaskSchema = BOTH, **changes: Any) -> dict[str, Any]:
    given_: dict[str, Any] = {
        "modality": "image",
        "query": QUERY,
        "candidates": CAPTIONS,
        "similarities": [0.9 - 0.1 * n for n in range(len(changes.get("candidates", CAPTIONS)))],
        "model_version": "v3",
        "round_number": 3,
        **changes,
    }
    return query_task(schema, **given_)


def test_a_task_holds_the_query_its_candidates_and_all_that_is_needed_to_replay_it() -> None:
    task = ask(reason="The model is torn between two answers", purpose="audit")
    assert (task["image"], task["text"]) == ("https://example.org/1.png", "")
    assert task["al_reason"] == "The model is torn between two answers"
    query = read_query(task)
    assert query.candidate_ids == tuple(item.id for item in CAPTIONS)
    assert query.similarities == pytest.approx([0.9 - 0.1 * n for n in range(8)])
    assert (query.modality, query.item_id, query.purpose) == ("image", "i1", "audit")
    assert (query.round_number, query.model_version) == (3, "v3")
    assert query.key == query_key(3, "image", "i1", "audit") == "3/audit/image/i1"
    assert json.loads(json.dumps(task)) == task


def test_a_form_that_shows_one_pane_gets_no_field_of_the_other() -> None:
    assert "text" not in ask(IMAGES_ASK)


def test_order_of_the_options_is_fixed_by_the_key_and_not_by_the_ranks() -> None:
    shown = [option["value"] for option in ask()["candidates"]]
    assert sorted(shown[:-2]) == [item.id for item in CAPTIONS]
    assert shown[-2:] == [NONE, UNSURE]
    assert [option["value"] for option in ask(candidates=CAPTIONS[::-1])["candidates"]] == shown
    assert [option["value"] for option in ask(round_number=4)["candidates"]] != shown


def test_the_best_guess_stands_at_every_place_about_equally_often() -> None:
    places = [
        [option["value"] for option in ask(query=PairItem(f"i{n}", "x"))["candidates"]].index("t0")
        for n in range(2000)
    ]
    counts = np.bincount(places, minlength=8)
    # Chi-square with 7 degrees of freedom: 35 is exceeded once in 90,000 draws, and the draw is fixed by the ids.
    assert ((counts - 250) ** 2 / 250).sum() < 35


def test_keys_of_the_exits_do_not_depend_on_the_number_of_candidates() -> None:
    for count in (1, 3, 8, 12):
        items = [PairItem(f"t{n}", "x") for n in range(count)]
        keys = [option.get("hotkey") for option in ask(candidates=items)["candidates"]]
        assert keys[-2:] == ["9", "0"]
        assert keys[:-2] == [*"12345678"[:count], *[None] * (count - 8)]


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.words += data


@given(st.text(min_size=1, max_size=SHOWN_CHARACTERS))
def test_no_text_becomes_markup(words: str) -> None:
    if not "".join(c for c in words if c.isprintable()).strip():
        return
    [option, *_] = ask(candidates=[PairItem("t", words)])["candidates"]
    read = Tags()
    read.feed(option["html"])
    read.close()
    assert read.tags == ["span"]
    kept = "".join(c for c in words if ord(c) > 31 or c in "\n\t\r")
    assert read.words == html.unescape(html.escape(kept.strip()))
    json.dumps(option, ensure_ascii=False).encode()


def test_long_captions_are_cut_where_they_are_shown_and_only_there() -> None:
    task = ask(candidates=[PairItem("t", "word " * 500)])
    words = task["candidates"][0]["html"].removeprefix('<span class="al-caption">').removesuffix("</span>")
    assert len(words) <= SHOWN_CHARACTERS and words.endswith("…")


def test_text_queries_offer_thumbnails_as_backgrounds() -> None:
    small = thumbnail(picture())
    task = ask(
        modality="text", query=PairItem("t1", "a < b & c"), candidates=[PairItem("i1", small), PairItem("i2", small)]
    )
    assert (task["image"], task["text"]) == ("", "a < b & c")
    for option in task["candidates"][:2]:
        # Label Studio takes data: out of src; see tests/live/test_pair_templates.py.
        assert f"background-image:url('{small}')" in option["html"] and "src=" not in option["html"]


def test_html_panes_get_the_words_escaped() -> None:
    xml = TaskTemplate.load(FOLDER / "image_text_pairing").label_config(())
    schema = TaskSchema.from_label_config(xml.replace("<Text ", "<HyperText "))
    small = thumbnail(picture())
    task = ask(schema, modality="text", query=PairItem("t", "1 < 2 & <b>"), candidates=[PairItem("i", small)])
    assert schema.text_of(task) == "1 < 2 & <b>"


def test_an_id_with_a_dollar_is_kept_in_an_alias() -> None:
    options = ask(candidates=[PairItem("a$text", "x"), PairItem("plain", "y")])["candidates"]
    assert {option["value"]: option.get("alias") for option in options[:2]} == {"a$text": "a$text", "plain": None}


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 900), st.integers(1, 900), st.booleans())
def test_thumbnails_keep_their_limits_and_shape(width: int, height: int, noise: bool) -> None:
    data = bytes_of(thumbnail(picture(noise, (width, height))))
    assert len(data) <= 6000
    with Image.open(io.BytesIO(data)) as small:
        assert max(small.size) <= min(160, max(width, height))
        shrunk = max(small.size) / max(width, height)
        assert abs(small.width - shrunk * width) <= 1 and abs(small.height - shrunk * height) <= 1


def test_thumbnails_are_sharper_where_there_is_room_and_white_behind_glass() -> None:
    noisy = picture(True)
    assert len(bytes_of(thumbnail(noisy, most_bytes=12000))) > len(bytes_of(thumbnail(noisy, most_bytes=2000)))
    with Image.open(io.BytesIO(bytes_of(thumbnail(picture(mode="RGBA"))))) as small:
        assert min(small.convert("RGB").getpixel((5, 5))) > 250  # type: ignore[type-var, arg-type]


def test_what_is_no_picture_or_cannot_be_small_enough_is_refused() -> None:
    with pytest.raises(MediaNotAnImage):
        thumbnail(b"no picture")
    with pytest.raises(PairTaskInvalid, match="most_bytes = 10"):
        thumbnail(picture(True), most_bytes=10)


def test_sixteen_noisy_thumbnails_fit_into_a_task() -> None:
    small = thumbnail(picture(True))
    task = ask(
        modality="text", query=PairItem("t", "x" * 2000), candidates=[PairItem(f"i{n}", small) for n in range(16)]
    )
    assert len(json.dumps(task).encode()) < MAX_TASK_BYTES


@pytest.mark.parametrize(
    ("schema", "changes", "said"),
    [
        (
            IMAGES_ASK,
            {"modality": "text"},
            "query_modality = 'text': this project's form asks about image items only",
        ),
        (BOTH, {"modality": "sound"}, "query_modality = 'sound'"),
        (BOTH, {"candidates": []}, "candidate_ids = []"),
        (BOTH, {"candidates": [PairItem("a", "x"), PairItem("a", "y")]}, "candidate_ids holds 'a' twice"),
        (BOTH, {"candidates": [PairItem(NONE, "x")]}, "candidate_ids = '__none__' stands for an answer"),
        (BOTH, {"candidates": [PairItem(17, "x")]}, "candidate_ids = 17"),  # type: ignore[arg-type]
        (BOTH, {"candidates": [PairItem(" ", "x")]}, "candidate_ids = ' '"),
        (BOTH, {"query": PairItem("", "x")}, "query_id = ''"),
        (BOTH, {"query": PairItem("i", " ")}, "query 'i' has no content"),
        (BOTH, {"candidates": [PairItem("a", " \x00")]}, "candidate 'a' has no words"),
        (BOTH, {"similarities": [0.5]}, "one finite number for each of the 8"),
        (BOTH, {"similarities": [float("nan")] * 8}, "candidate_sims"),
        (BOTH, {"modality": "text"}, "Give its thumbnail"),
        (BOTH, {"query": PairItem("i", "data:" + "x" * MAX_TASK_BYTES)}, f"at most {MAX_TASK_BYTES} are sent"),
    ],
)
def test_each_fault_names_the_field(schema: TaskSchema, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(PairTaskInvalid) as refused:
        ask(schema, **changes)
    assert said in str(refused.value)


def test_an_image_that_would_break_out_of_its_style_is_refused() -> None:
    evil = PairItem("i", "data:image/webp;base64,AA')\"><script>alert(1)</script>")
    with pytest.raises(PairTaskInvalid, match="thumbnail"):
        ask(modality="text", query=PairItem("t", "x"), candidates=[evil])


def test_classification_projects_have_no_direction() -> None:
    schema = TaskTemplate.load(FOLDER / "image_text_classification").schema(["a", "b"])
    with pytest.raises(PairTaskInvalid, match="query_modality"):
        ask(schema)
