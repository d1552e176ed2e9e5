"""What a label config asks for: which task fields are data, which control answers, which answers exist."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any, Literal
from xml.etree import ElementTree

from backend.errors import LabelConfigUnsupported

REASON_KEY = "al_reason"
"""Task field in which an annotator reads why the task was chosen; never data, never hashed."""

CANDIDATES_KEY = "candidates"
"""Task field that lists the items to choose from in a pairing project."""

_IMAGE_TAGS = frozenset({"image"})
_TEXT_TAGS = frozenset({"text", "hypertext"})
_OTHER_DATA_TAGS = frozenset(
    {"paragraphs", "audio", "audioplus", "video", "timeseries", "list", "table", "pdf", "chat", "website"}
)
_OTHER_CONTROLS = frozenset(
    {
        "taxonomy", "rating", "textarea", "number", "datetime", "ranker", "pairwise", "labels",
        "rectanglelabels", "polygonlabels", "brushlabels", "keypointlabels", "ellipselabels",
        "hypertextlabels", "paragraphlabels",
    }
)  # fmt: skip
_MAX_MESSAGE = 300


@dataclass(frozen=True)
class TaskSchema:
    """The part of a label config that learning and publishing depend on.

    Attributes
    ----------
    image_key, text_key : task field shown by the Image tag and by the Text or HyperText tag, or None
    from_name, to_name : name of the Choices control and of the tag that it refers to
    choices : answers as Label Studio stores them (`alias` where one is set), in label-config order
    multi_label : several answers may be ticked; of a pairing form, several candidates may belong to the item
    config_hash : changes when a saved model or label would no longer mean the same; not with layout
    text_is_html : the text comes from a HyperText tag and is stripped of its markup before it is read
    kind : "pairing" when the answers are items listed in each task (`value="$candidates"`); `choices` is then empty
    written : name of the TextArea in which a pairing form takes a caption of the annotator's own, or None
    """

    image_key: str | None
    text_key: str | None
    from_name: str
    to_name: str
    choices: tuple[str, ...]
    multi_label: bool
    config_hash: str
    text_is_html: bool = False
    kind: Literal["classification", "pairing"] = "classification"
    written: str | None = None

    @classmethod
    def from_label_config(cls, xml: str, control: str | None = None) -> TaskSchema:
        """Read a label config.

        Parameters
        ----------
        xml : the project's label config
        control : name of the Choices control to learn, needed when there are several

        Raises
        ------
        LabelConfigUnsupported
            One line that says what is missing or too many and what to change.
        """
        root = _parse(xml)
        if _first(root, {"repeater"}) is not None:
            raise _unsupported("Repeater is not supported: show one image and one text per task")
        image_key = _data_key(root, _IMAGE_TAGS, "Image")
        text_key = _data_key(root, _TEXT_TAGS, "Text")
        if image_key is None and text_key is None:
            found = _names_of(root, _OTHER_DATA_TAGS)
            having = f" (found only {found}, which this backend cannot read)" if found else ""
            raise _unsupported(
                f"No Image or Text tag shows task data{having}:"
                ' add an Image tag with value="$image" or a Text tag with value="$text"'
            )
        chosen = _choices_control(root, control)
        from_name = _attribute(chosen, "name") or ""
        pairing = (_attribute(chosen, "value") or "").strip() == f"${CANDIDATES_KEY}"
        choices = _choice_values(chosen, from_name)
        multi_label = (_attribute(chosen, "choice") or "single").strip().lower() == "multiple"
        if pairing:
            _check_pairing(from_name, choices)
        elif len(choices) < (1 if multi_label else 2):
            raise _unsupported(
                f"Choices '{from_name}' has {len(choices)} Choice tag(s):"
                f" add at least {1 if multi_label else 2}, each with its own value"
            )
        to_name = (_attribute(chosen, "toName") or "").split(",")[0].strip()
        if not to_name:
            raise _unsupported(f"Choices '{from_name}' has no toName: set it to the name of a data tag")
        text_is_html = text_key is not None and _is_html(root, text_key)
        written = _written_control(root) if pairing else None
        meaning: list[Any] = [image_key, text_key, text_is_html, from_name, list(choices), multi_label]
        if pairing:
            meaning += ["pairing", written]
        digest = hashlib.sha256(json.dumps(meaning, ensure_ascii=False).encode()).hexdigest()[:16]
        kind: Literal["classification", "pairing"] = "pairing" if pairing else "classification"
        return cls(image_key, text_key, from_name, to_name, choices, multi_label, digest, text_is_html, kind, written)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those of "image" and "text" that a task can have."""
        present = (("image", self.image_key), ("text", self.text_key))
        return tuple(name for name, key in present if key is not None)

    @property
    def directions(self) -> tuple[str, ...]:
        """What a pairing form can show as the question: "image" (the answers are texts), "text", or both."""
        return self.modalities if self.kind == "pairing" else ()

    def image_of(self, data: Mapping[str, Any]) -> str | None:
        """Address of the task's image; None when the field is missing, empty or not a string."""
        return _string_at(data, self.image_key)

    def text_of(self, data: Mapping[str, Any]) -> str | None:
        """The task's text, without markup when it is HTML; None when missing, empty or not a string."""
        text = _string_at(data, self.text_key)
        if text is None or not self.text_is_html:
            return text
        return _strip_markup(text) or None


def _unsupported(message: str) -> LabelConfigUnsupported:
    # The message becomes an HTTP reason phrase, the only place where Label Studio's form shows it.
    line = " ".join(message.split())
    return LabelConfigUnsupported(line if len(line) <= _MAX_MESSAGE else line[: _MAX_MESSAGE - 3] + "...")


def _parse(xml: str) -> ElementTree.Element:
    if not xml or not xml.strip():
        raise _unsupported("The label config is empty: save one under Settings > Labeling Interface")
    if re.search(r"<!(DOCTYPE|ENTITY)", xml, re.IGNORECASE):
        raise _unsupported("The label config declares a DOCTYPE or ENTITY: remove it")
    try:
        return ElementTree.fromstring(xml)
    except (ElementTree.ParseError, ValueError) as error:
        raise _unsupported(f"The label config is not valid XML ({error}): correct it") from None


def _tag(element: ElementTree.Element) -> str:
    # Comments and processing instructions have no string tag.
    return element.tag.lower() if isinstance(element.tag, str) else ""


def _attribute(element: ElementTree.Element, name: str) -> str | None:
    # Label Studio lower-cases attribute names, so toName and toname are the same to it.
    for key, value in element.attrib.items():
        if key.lower() == name.lower():
            return value
    return None


def _first(root: ElementTree.Element, tags: set[str] | frozenset[str]) -> ElementTree.Element | None:
    return next((element for element in root.iter() if _tag(element) in tags), None)


def _names_of(root: ElementTree.Element, tags: frozenset[str]) -> str:
    return ", ".join(sorted({str(element.tag) for element in root.iter() if _tag(element) in tags}))


def _data_elements(root: ElementTree.Element, tags: frozenset[str]) -> Iterator[tuple[str, ElementTree.Element]]:
    """Field and element of every tag of this kind that shows task data (not a constant, not the reason)."""
    for element in root.iter():
        if _tag(element) not in tags:
            continue
        name = _attribute(element, "name") or "?"
        if _attribute(element, "valueList"):
            raise _unsupported(
                f"{element.tag} '{name}' uses valueList (several images in a task):"
                ' show one image with value="$image"'
            )
        value = (_attribute(element, "value") or "").strip()
        if "$" not in value:
            continue
        if not value.startswith("$") or value.count("$") > 1 or re.search(r"\s", value):
            raise _unsupported(
                f"{element.tag} '{name}' mixes words and fields in value=\"{value}\":"
                " put the whole content in one field"
            )
        key = value[1:]
        if key == REASON_KEY:
            continue
        if (_attribute(element, "valueType") or "").lower() == "url":
            raise _unsupported(
                f"{element.tag} '{name}' has valueType=\"url\": put the text itself in the task and remove valueType"
            )
        yield key, element


def _data_key(root: ElementTree.Element, tags: frozenset[str], title: str) -> str | None:
    found = {key: _attribute(element, "name") or "?" for key, element in _data_elements(root, tags)}
    if len(found) > 1:
        shown = ", ".join(f"'{name}' (${key})" for key, name in found.items())
        raise _unsupported(f"{len(found)} {title} tags show different fields: {shown}; keep one of them")
    return next(iter(found), None)


def _is_html(root: ElementTree.Element, text_key: str) -> bool:
    elements = _data_elements(root, _TEXT_TAGS)
    return any(key == text_key and _tag(element) == "hypertext" for key, element in elements)


def _choices_control(root: ElementTree.Element, control: str | None) -> ElementTree.Element:
    controls = [element for element in root.iter() if _tag(element) == "choices"]
    names = [_attribute(element, "name") or "?" for element in controls]
    if control is not None:
        if control not in names:
            known = ", ".join(names) or "none"
            raise _unsupported(f"No Choices control is named '{control}' (there is: {known}): correct `control`")
        controls = [controls[names.index(control)]]
    if not controls:
        found = _names_of(root, _OTHER_CONTROLS)
        having = f" (found {found}, which cannot be learnt yet)" if found else ""
        raise _unsupported(
            f'No Choices control{having}: add a Choices tag (name="label", toName="image")'
            " that holds one Choice tag for each answer"
        )
    if len(controls) > 1:
        raise _unsupported(
            f"{len(controls)} Choices controls: {', '.join(names)}; keep one, or name the one to learn in `control`"
        )
    chosen = controls[0]
    name = _attribute(chosen, "name")
    if not name:
        raise _unsupported("The Choices control has no name: add one")
    for flag in ("perRegion", "perItem"):
        if (_attribute(chosen, flag) or "").lower() == "true":
            raise _unsupported(f"Choices '{name}' has {flag}=\"true\": only answers about the whole task are learnt")
    value = (_attribute(chosen, "value") or "").strip()
    if "$" in value and value != f"${CANDIDATES_KEY}":
        raise _unsupported(
            f"Choices '{name}' takes its answers from the task (value=\"{value}\"): list them as Choice tags, the"
            f' same for every task; only pairing projects list them in the task, as value="${CANDIDATES_KEY}"'
        )
    return chosen


def _check_pairing(name: str, choices: tuple[str, ...]) -> None:
    if choices:
        raise _unsupported(
            f"Choices '{name}' has value=\"${CANDIDATES_KEY}\" and Choice tags of its own:"
            ' remove them, each task lists all it asks, "none of these" included'
        )


def _written_control(root: ElementTree.Element) -> str | None:
    area = _first(root, {"textarea"})
    return None if area is None else _attribute(area, "name")


def _choice_values(control: ElementTree.Element, name: str) -> tuple[str, ...]:
    values: list[str] = []
    for choice in (element for element in control.iter() if _tag(element) == "choice"):
        if any(_tag(inner) == "choice" for inner in choice.iter() if inner is not choice):
            raise _unsupported(f"Choices '{name}' has nested Choice tags: list all answers on one level")
        value = _attribute(choice, "alias") or _attribute(choice, "value")
        if not value:
            raise _unsupported(f"Choices '{name}' has a Choice without a value: add one")
        if value in values:
            raise _unsupported(f"Choices '{name}' has the answer '{value}' twice: give each its own value or alias")
        values.append(value)
    return tuple(values)


def _string_at(data: Mapping[str, Any], key: str | None) -> str | None:
    """Value of a field, or of a path such as `meta.url` or `urls[0]`, when it is a string with content."""
    if key is None:
        return None
    value: Any = data.get(key)
    if value is None and re.search(r"[.\[]", key):
        value = data
        for part in re.findall(r"[^.\[\]]+", key):
            if isinstance(value, Mapping):
                value = value.get(part)
            elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
                value = value[int(part)]
            else:
                return None
    return value if isinstance(value, str) and value.strip() else None


class _TextOfHtml(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in ("script", "style")
        self.parts.append(" ")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("script", "style") and self._hidden > 0
        self.parts.append(" ")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(data)


def _strip_markup(html: str) -> str:
    parser = _TextOfHtml()
    parser.feed(html)
    parser.close()
    return " ".join("".join(parser.parts).split())
