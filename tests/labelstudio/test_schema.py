"""Label configs, real ones and strange ones."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from xml.sax.saxutils import quoteattr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import LabelConfigUnsupported
from backend.labelstudio.schema import TaskSchema

FIXTURES = Path(__file__).parents[1] / "fixtures" / "label_studio_1.23.2"
CONFIGS = {
    name: entry["label_config"] for name, entry in json.loads((FIXTURES / "label_configs.json").read_text()).items()
}

IMAGE = '<Image name="image" value="$image"/>'
TEXT = '<Text name="text" value="$text"/>'
CHOICES = '<Choices name="label" toName="image"><Choice value="a"/><Choice value="b"/></Choices>'


def read(*parts: str, control: str | None = None) -> TaskSchema:
    return TaskSchema.from_label_config(f"<View>{''.join(parts)}</View>", control)


@pytest.mark.parametrize(
    ("name", "image_key", "text_key", "from_name", "choices", "multi_label"),
    [
        ("a1_single_choice", "image", "text", "label", ("news", "ad", "meme", "other"), False),
        ("a2_multi_label", "image", "text", "labels", ("hateful", "sarcastic", "offensive", "benign"), True),
        ("b_alignment", "image", "caption", "match", ("yes", "partial", "no"), False),
        ("d2_relevance_choices_taxonomy", "image", "query", "grade", ("3", "2", "1", "0"), False),
    ],
)
def test_configs_taken_from_label_studio_are_understood(
    name: str,
    image_key: str,
    text_key: str,
    from_name: str,
    choices: tuple[str, ...],
    multi_label: bool,
) -> None:
    schema = TaskSchema.from_label_config(CONFIGS[name])
    assert (schema.image_key, schema.text_key, schema.from_name) == (image_key, text_key, from_name)
    assert (schema.choices, schema.multi_label, schema.to_name) == (choices, multi_label, "image")
    assert schema.modalities == ("image", "text")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("c1_image_K_captions", "takes its answers from the task"),
        ("c3_caption_K_images_repeater", "Repeater"),
        ("c4_pairwise_two_images", "2 Image tags show different fields: 'left' ($left), 'right' ($right)"),
        ("c4b_pairwise_two_texts_one_image", "2 Text tags"),
        ("c5_ranker_list_images", "No Choices control (found Ranker"),
        ("c7_static_4_images", "4 Image tags"),
        ("d1_relevance_rating", "No Choices control (found Rating"),
    ],
)
def test_configs_that_cannot_be_learnt_say_why(name: str, said: str) -> None:
    with pytest.raises(LabelConfigUnsupported) as refused:
        TaskSchema.from_label_config(CONFIGS[name])
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (("",), "No Image or Text tag"),
        ((CHOICES,), "No Image or Text tag"),
        (('<Audio name="a" value="$a"/>', CHOICES), "found only Audio"),
        ((IMAGE, TEXT), "No Choices control:"),
        ((IMAGE, '<Taxonomy name="t" toName="image"><Choice value="a"/></Taxonomy>'), "found Taxonomy"),
        ((IMAGE, CHOICES, CHOICES.replace("label", "second")), "2 Choices controls: label, second"),
        ((IMAGE, '<Choices name="l" toName="image"><Choice value="a"/></Choices>'), "has 1 Choice tag"),
        ((IMAGE, '<Choices name="l" toName="image"/>'), "has 0 Choice tag"),
        (
            (IMAGE, '<Choices name="l" toName="image"><Choice value="a"/><Choice value="a"/></Choices>'),
            "answer 'a' twice",
        ),
        (
            (
                IMAGE,
                '<Choices name="l" toName="image"><Choice value="a"><Choice value="b"/></Choice>'
                '<Choice value="c"/></Choices>',
            ),
            "nested",
        ),
        ((IMAGE, CHOICES.replace("<Choices", '<Choices perRegion="true"')), "perRegion"),
        ((IMAGE, CHOICES.replace('toName="image"', "")), "no toName"),
        ((IMAGE.replace('value="$image"', 'valueList="$images"'), CHOICES), "valueList"),
        ((TEXT.replace("/>", ' valueType="url"/>'), CHOICES), 'valueType="url"'),
        ((TEXT.replace("$text", "Title: $text"), CHOICES), "mixes words and fields"),
    ],
)
def test_each_fault_has_one_line_that_names_it(parts: tuple[str, ...], said: str) -> None:
    with pytest.raises(LabelConfigUnsupported) as refused:
        read(*parts)
    message = str(refused.value)
    assert said in message
    # It is sent as an HTTP reason phrase and shown in a dialog that renders HTML.
    assert "\n" not in message and "<" not in message and len(message) <= 300


@pytest.mark.parametrize("xml", ["", "   ", "<View>", "not xml", '<!DOCTYPE x [<!ENTITY a "b">]><View>&a;</View>'])
def test_what_is_no_label_config_is_refused(xml: str) -> None:
    with pytest.raises(LabelConfigUnsupported):
        TaskSchema.from_label_config(xml)


PAIRING = '<Choices name="match" toName="image" value="$candidates" choice="single-radio"/>'


def test_answers_listed_in_each_task_make_a_pairing_project() -> None:
    schema = TaskSchema.from_label_config(CONFIGS["c2_caption_K_images_choices_html"])
    assert (schema.kind, schema.from_name, schema.to_name, schema.choices) == ("pairing", "pick", "caption", ())
    assert (schema.directions, schema.written, schema.multi_label) == (("text",), None, False)
    area = '<View visibleWhen="choice-selected"><TextArea name="own" toName="image"/></View>'
    both = read(IMAGE, TEXT, PAIRING, area)
    assert (both.directions, both.written) == (("image", "text"), "own")
    assert read(IMAGE, PAIRING).directions == ("image",)
    assert read(IMAGE, TEXT, CHOICES).kind == "classification" and read(IMAGE, TEXT, CHOICES).directions == ()


@pytest.mark.parametrize(
    ("control", "said"),
    [
        (PAIRING.replace("$candidates", "$options"), 'only pairing projects list them in the task, as value="$cand'),
        (PAIRING.replace("/>", '><Choice value="none"/></Choices>'), "Choice tags of its own"),
        (PAIRING.replace("$candidates", "$candidates[0]"), "takes its answers from the task"),
    ],
)
def test_pairing_forms_that_cannot_be_read_back_are_refused(control: str, said: str) -> None:
    with pytest.raises(LabelConfigUnsupported) as refused:
        read(IMAGE, control)
    assert said in str(refused.value) and len(str(refused.value)) <= 300


def test_pairing_has_a_hash_of_its_own_that_follows_the_text_box() -> None:
    hashes = {
        read(IMAGE, PAIRING).config_hash,
        read(IMAGE, TEXT, PAIRING).config_hash,
        read(IMAGE, PAIRING, '<TextArea name="own" toName="image"/>').config_hash,
        read(IMAGE, CHOICES.replace('name="label"', 'name="match"')).config_hash,
    }
    assert len(hashes) == 4


def test_the_reason_and_constant_tags_are_never_data() -> None:
    schema = read(
        '<Header value="$al_reason"/><Text name="why" value="$al_reason"/>',
        '<HyperText name="help" value="&lt;b&gt;Look closely&lt;/b&gt;"/>',
        '<Image name="legend" value="https://example.org/legend.png"/><Header value="$title"/>',
        TEXT,
        CHOICES,
    )
    assert (schema.image_key, schema.text_key, schema.modalities) == (None, "text", ("text",))


def test_one_of_several_controls_can_be_named() -> None:
    second = '<Choices name="mood" toName="text" choice="multiple"><Choice value="x"/></Choices>'
    assert read(IMAGE, TEXT, CHOICES, second, control="label").choices == ("a", "b")
    assert read(IMAGE, TEXT, CHOICES, second, control="mood").multi_label
    with pytest.raises(LabelConfigUnsupported, match="there is: label, mood"):
        read(IMAGE, TEXT, CHOICES, second, control="moood")


def test_the_same_field_may_be_shown_twice() -> None:
    assert read(IMAGE, IMAGE.replace('name="image"', 'name="zoomed"'), CHOICES).image_key == "image"


def test_attribute_and_tag_case_do_not_matter_as_in_label_studio() -> None:
    lowered = CHOICES.replace("toName", "toname").replace("Choices", "choices")
    assert read(IMAGE, lowered).to_name == "image"


def test_hash_follows_meaning_and_not_layout() -> None:
    plain = read(IMAGE, TEXT, CHOICES)
    laid_out = read('<Style>.a{}</Style><View className="a">', IMAGE, "</View><!-- note -->", TEXT, CHOICES)
    assert laid_out.config_hash == plain.config_hash
    for changed in (
        read(IMAGE, CHOICES),
        read(IMAGE, TEXT.replace("$text", "$caption"), CHOICES),
        read(IMAGE, TEXT, CHOICES.replace('"b"', '"c"')),
        read(IMAGE, TEXT, CHOICES.replace("<Choices", '<Choices choice="multiple"')),
        read(IMAGE, TEXT, CHOICES.replace('name="label"', 'name="other"')),
        read(IMAGE, TEXT.replace("Text", "HyperText"), CHOICES),
    ):
        assert changed.config_hash != plain.config_hash


@pytest.mark.parametrize("data", [{}, {"image": ""}, {"image": "  "}, {"image": None}, {"image": ["a.png"]}])
def test_missing_empty_and_strange_fields_are_absent(data: dict[str, object]) -> None:
    schema = read(IMAGE, TEXT, CHOICES)
    assert schema.image_of(data) is None and schema.text_of(data) is None


def test_fields_may_lie_deeper_in_the_task() -> None:
    schema = read(IMAGE.replace("$image", "$media.images[1].url"), CHOICES)
    data = {"media": {"images": [{"url": "0.png"}, {"url": "1.png"}]}}
    assert schema.image_of(data) == "1.png"
    assert schema.image_of({"media": {"images": []}}) is None
    assert schema.image_of({"media.images[1].url": "flat.png"}) == "flat.png"


def test_hypertext_is_read_without_its_markup() -> None:
    schema = read(TEXT.replace("Text ", "HyperText "), CHOICES)
    html = "<style>p{}</style><p>A <b>red</b>\n circle</p><script>x()</script><p>R&amp;D</p>"
    assert schema.text_of({"text": html}) == "A red circle R&D"
    assert schema.text_of({"text": "<p> </p>"}) is None
    assert read(TEXT, CHOICES).text_of({"text": "1 < 2 > 0"}) == "1 < 2 > 0"


labels = st.lists(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(str.strip),
    min_size=2,
    max_size=12,
    unique=True,
)


@given(labels, st.booleans())
def test_choices_are_read_in_order_whatever_their_words(names: list[str], multi_label: bool) -> None:
    tags = "".join(f"<Choice value={quoteattr(name)}/>" for name in names)
    kind = "multiple" if multi_label else "single-radio"
    schema = read(IMAGE, f'<Choices name="l" toName="image" choice="{kind}">{tags}</Choices>')
    assert schema.choices == tuple(names)
    assert schema.multi_label == multi_label


@given(labels)
def test_aliases_are_what_is_stored(names: list[str]) -> None:
    tags = "".join(f'<Choice value={quoteattr(name)} alias="{n}"/>' for n, name in enumerate(names))
    schema = read(IMAGE, f'<Choices name="l" toName="image">{tags}</Choices>')
    assert schema.choices == tuple(str(n) for n in range(len(names)))
    assert all(int(a) < int(b) for a, b in pairwise(schema.choices))


@given(st.text(max_size=200))
def test_no_text_gets_past_the_own_error(xml: str) -> None:
    with pytest.raises(LabelConfigUnsupported):
        TaskSchema.from_label_config(xml)
