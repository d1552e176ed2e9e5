"""Words of items are words wherever a form shows HTML, and nothing but a small picture gets into a style."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backend.errors import PairTaskInvalid
from backend.json_reading import storable
from backend.labelstudio.pair_tasks import SHOWN_CHARACTERS, PairItem, query_task
from backend.labelstudio.schema import CANDIDATES_KEY, TaskSchema

CONFIG = """<View><Image name="image" value="$image"/><{tag} name="text" value="$text"/>
<Choices name="match" toName="image" value="$candidates"/></View>"""
PICTURE = "data:image/webp;base64,AAAA"
HOSTILE = (
    "<script>alert(1)</script>", "</span><img src=x onerror=alert(1)>", "\"'><svg onload=alert(1)>", "&lt;b&gt;",
    "a < b & c > d",
    "');background:url(//evil", "<!-- --><iframe>", "\\3c script", "javascript:alert(1)", "{{7*7}}$image`",
)  # fmt: skip
words = st.one_of(
    st.sampled_from(HOSTILE), st.text(alphabet=st.sampled_from("<>&\"'();:/= abcü\n"), min_size=1), st.text()
)


class Reader(HTMLParser):
    """What a browser would make of it: the tags, and the words between them."""

    def __init__(self, markup: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


def task(modality: str, query: str, candidate: str, tag: str = "Text") -> dict[str, object]:
    return query_task(
        TaskSchema.from_label_config(CONFIG.replace("{tag}", tag)),
        modality=modality,  # type: ignore[arg-type]
        query=PairItem("query", query),
        candidates=[PairItem("candidate", candidate)],
        similarities=[0.5],
        model_version="v1-auto",
        round_number=1,
    )


@settings(max_examples=200, deadline=None)
@given(words)
@example("<" * 2 * SHOWN_CHARACTERS)
def test_the_words_of_a_candidate_are_shown_as_they_are_and_never_as_markup(text: str) -> None:
    if not storable(text).strip():
        with pytest.raises(PairTaskInvalid):
            task("image", PICTURE, text)
        return
    option = task("image", PICTURE, text)[CANDIDATES_KEY][0]  # type: ignore[index]
    shown = Reader(option["html"])
    assert shown.tags == [("span", {"class": "al-caption"})]
    expected = storable(text).strip()
    assert shown.words == expected or (shown.words[-1] == "…" and expected.startswith(shown.words[:-1]))


@settings(max_examples=200, deadline=None)
@given(words)
def test_the_words_of_a_question_are_escaped_where_the_form_shows_html(text: str) -> None:
    if not storable(text).strip():
        return
    shown = Reader(str(task("text", text, PICTURE, tag="HyperText")["text"]))
    assert shown.tags == []
    assert shown.words == storable(text)
    assert task("text", text, PICTURE)["text"] == storable(text)


@settings(max_examples=200, deadline=None)
@given(
    words,
    st.sampled_from(["", PICTURE, "data:image/svg+xml;base64,AAAA", "https://h/a.png", "data:image/png;base64,"]),
)
def test_nothing_but_a_small_picture_gets_into_the_style_of_a_thumbnail(text: str, before: str) -> None:
    try:
        option = task("text", "a question", before + text)[CANDIDATES_KEY][0]  # type: ignore[index]
    except PairTaskInvalid:
        return
    [(tag, attributes)] = Reader(option["html"]).tags
    assert tag == "span" and set(attributes) == {"class", "role", "style"}
    style = attributes["style"] or ""
    assert re.fullmatch(r"background-image:url\('data:image/(webp|jpeg|png);base64,[A-Za-z0-9+/]+=*'\)", style)


def test_a_picture_itself_is_let_through() -> None:
    option = task("text", "a question", PICTURE)[CANDIDATES_KEY][0]  # type: ignore[index]
    assert PICTURE in option["html"]
