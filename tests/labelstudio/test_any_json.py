"""Whatever stands in tasks, annotations and label configs: an answer in our terms, or a refusal in words."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.errors import LabelConfigUnsupported
from backend.json_reading import read_json, storable
from backend.labelstudio.annotations import read_answer, resolve_label
from backend.labelstudio.records import TaskSnapshot
from backend.labelstudio.schema import TaskSchema
from tests.live.pool import CONFIG, LABELS

often = settings(
    max_examples=int(os.environ.get("MMAL_FUZZ_CASES", "200")),
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    derandomize="MMAL_FUZZ_CASES" not in os.environ,
)
SCHEMA = TaskSchema.from_label_config(CONFIG)
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
    st.sampled_from(["tone", "picture", "choices", "warm", "data:,", "2026-01-01T00:00:00Z"]),
)  # fmt: skip
keys = st.sampled_from(["value", "choices", "from_name", "to_name", "type", "id", "photo", "title"]) | st.text(
    max_size=4
)
json_values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
)
values = json_values | st.fixed_dictionaries({"choices": json_values})
regions = st.fixed_dictionaries({"from_name": leaves, "to_name": leaves, "type": leaves, "value": values})
annotations = st.fixed_dictionaries(
    {"id": st.integers(min_value=1, max_value=2**31)},
    optional={
        "result": json_values | st.lists(regions, max_size=3), "was_cancelled": json_values,
        "ground_truth": json_values,
        "completed_by": json_values, "updated_at": json_values, "task": json_values,
    },
)  # fmt: skip
names = st.sampled_from(["View", "Image", "Text", "HyperText", "Choices", "Choice", "Header", "Repeater", "x"])
attributes = st.dictionaries(
    st.sampled_from(["name", "value", "toName", "choice", "alias", "valueType", "visibleWhen"]),
    st.sampled_from(["$image", "$text", "a", "b", "multiple", "", "$candidates", "a,b", "&lt;", "$"]),
    max_size=4,
)


def _element(name: str, given_attributes: dict[str, str], inside: list[str]) -> str:
    words = "".join(f' {key}="{value}"' for key, value in given_attributes.items())
    return f"<{name}{words}>{''.join(inside)}</{name}>"


configs = st.recursive(
    st.builds(_element, names, attributes, st.just([])),
    lambda inner: st.builds(_element, names, attributes, st.lists(inner, max_size=4)),
    max_leaves=10,
) | st.text(max_size=30)


@often
@given(st.lists(annotations, max_size=3))
def test_annotations_of_any_shape_are_read_or_named_unreadable(given_annotations: list[dict[str, Any]]) -> None:
    answers = [read_answer(SCHEMA, annotation) for annotation in given_annotations]
    for answer in answers:
        assert answer.choices is None or set(answer.choices) <= set(LABELS)
    resolution = resolve_label(answers, multi_label=False)
    assert (resolution.kind == "label") == (resolution.choices is not None)


@often
@given(st.dictionaries(keys, json_values, max_size=4))
def test_the_data_of_a_task_gives_words_or_nothing(data: dict[str, Any]) -> None:
    snapshot = TaskSnapshot.read({"id": 1, "data": data, "updated_at": None})
    for found in (SCHEMA.image_of(snapshot.data), SCHEMA.text_of(snapshot.data)):
        assert found is None or (isinstance(found, str) and found)


@often
@given(configs)
def test_a_label_config_is_understood_or_refused_in_one_line(xml: str) -> None:
    try:
        schema = TaskSchema.from_label_config(xml)
    except LabelConfigUnsupported as refused:
        assert str(refused) and "\n" not in str(refused)
    else:
        assert schema.modalities and schema.from_name


@often
@given(json_values)
def test_json_from_outside_becomes_what_every_store_can_hold(value: Any) -> None:
    import json

    read = read_json(json.dumps(value))
    assert storable(read) == read
    assert read_json(json.dumps(read, allow_nan=False)) == read
    json.dumps(read, ensure_ascii=False).encode()
