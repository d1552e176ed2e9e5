"""The options of a project, and the one place where every way of setting them is checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import chain, combinations
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from backend.errors import ConfigurationError, OptionsInvalid
from backend.json_reading import read_json
from backend.labelstudio.schema import TaskSchema
from backend.rounds.label_models import LabelModel, check_answers, check_installed
from backend.strategies import create_strategy

# What Label Studio's model form turns an object into when it is opened and saved.
FORM_ARTEFACT = "[object Object]"
# What a pairing project starts with; all others start with the default of the options.
PAIRING_STRATEGY = "pair_likely"
RETRIEVAL_LEARNERS = ("two_branch", "ascmr_network")
EXAMPLE = '{"strategy": "bmmal", "batch_size": 40}'

# Options that a label config may have no use for; those of a group go together.
DEPENDENT = (
    ("learner", "matching"),
    ("strategy", "strategy_options"),
    ("balance",),
    ("label_model",),
    ("one_to_one",),
)


class ProjectOptions(BaseModel):
    """What an admin may set for a project; the defaults serve without setting any."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    strategy: str = Field("auto", description="Acquisition strategy; `mmal strategy list` shows all.")
    strategy_options: dict[str, Any] = Field(default_factory=dict, description="Options of the strategy.")
    batch_size: int = Field(40, ge=1, le=5000, description="Tasks a round chooses together.")
    queue_size: int | None = Field(
        None, ge=1, le=20000, description="Tasks published to Label Studio; default max(200, 5 batches)."
    )
    balance: Literal["none", "pcb", "tail_first"] = Field(
        "none", description="Serve predicted-rare classes first: pcb (from the strategy's best tenth) or tail_first."
    )
    audit_share: float = Field(
        0.1,
        ge=0,
        le=0.5,
        description="Share of each batch drawn uniformly, the only labels to estimate accuracy from.",
    )
    refresh_share: float = Field(0.8, gt=0, le=1, description="Share of the batch after which the next round starts.")
    refresh_hours: float = Field(
        24.0,
        gt=0,
        description="A queue older than this is chosen again when labels or tasks came since, however few.",
    )
    prelabel: bool = Field(False, description="Tick the head's answer for annotators (it biases labels).")
    poll_seconds: float = Field(10.0, ge=1, description="How often Label Studio is asked for changes.")
    learner: Literal["late_fusion", "alignment", "two_branch", "ascmr_network"] = Field(
        "late_fusion", description="Model that is trained on the answers; a template sets the one it is made for."
    )
    matching: list[str] = Field(
        default_factory=list,
        description="Learner alignment: the answers that say the text fits the image; a template names them.",
    )
    candidates: int = Field(8, ge=2, le=8, description="Pairing: candidates a question shows.")
    coverage: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Pairing: show as many candidates as hold the counterpart this often, by the control sample.",
    )
    one_to_one: bool = Field(
        True, description="Pairing: an item has one counterpart at most; false where the form lets several be ticked."
    )
    alignment_loss: Literal["clip", "siglip", "lit"] = Field("clip", description="Pairing: loss of the projection.")
    stream_buffer: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Pairing: items that arrive make a round when so many wait; 0: no stream.",
    )
    stream_keep: int = Field(0, ge=0, description="Pairing: items of a full buffer that stay for the next one.")
    stream_mode: Literal["buffer", "item"] = Field(
        "buffer", description="Pairing: a full buffer is a round, or each item that arrives is judged by itself."
    )
    stream_rate: float = Field(
        0.1, gt=0, le=1, description="Pairing, mode item: share of the arriving items that is asked about."
    )
    label_model: LabelModel = Field(
        "majority", description="How several answers become a label: majority, dawid_skene, one_coin (crowd-kit)."
    )
    opinions: int = Field(
        0,
        ge=0,
        le=50,
        description="Answers a task may gather while its annotators disagree; 0: no more are asked for.",
    )
    control: str | None = Field(None, description="Choices control to learn, where the label config has several.")

    @property
    def streaming(self) -> bool:
        """Imported items arrive in a stream instead of filling the pools."""
        return self.stream_buffer > 0 or self.stream_mode == "item"

    @property
    def queue_length(self) -> int:
        """How many tasks are published."""
        return max(self.queue_size or max(200, 5 * self.batch_size), self.batch_size)


def parse_extra_params(value: Any) -> dict[str, Any]:
    """Options in what Label Studio hands over as ``extra_params``: an object, JSON text, nothing, or junk.

    Raises
    ------
    OptionsInvalid
        For junk, with an example of what to write.
    """
    if isinstance(value, str):
        text = value.strip()
        if not text or text == FORM_ARTEFACT:
            return {}
        try:
            value = read_json(text)
        except ValueError:
            raise OptionsInvalid(f"extra_params = {text[:80]!r} is not JSON. Write for example {EXAMPLE}") from None
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise OptionsInvalid(f"extra_params = {str(value)[:80]!r} is not an object. Write for example {EXAMPLE}")
    return dict(value)


def change_options(
    current: Mapping[str, Any], changes: Mapping[str, Any], schema: TaskSchema | None, pool_size: int | None = None
) -> ProjectOptions:
    """The options after some of them were changed.

    A new strategy starts with its default options unless some are given with it.

    Parameters
    ----------
    schema, pool_size
        What the project asks for and how many tasks it has, as far as they are known.

    Raises
    ------
    OptionsInvalid
        An option is unknown or has a value it cannot take.
    ConfigurationError
        The strategy is unknown, has no such option, or does not suit the project; see `create_strategy`.
    """
    options = _suited_to(current, changes, schema, pool_size)
    if schema is not None:
        check_installed(options.label_model)
    return options


def _suited_to(
    current: Mapping[str, Any], changes: Mapping[str, Any], schema: TaskSchema | None, pool_size: int | None = None
) -> ProjectOptions:
    """As `change_options`, whatever is installed on this machine."""
    merged = {**current, **changes}
    if (
        changes.get("strategy", current.get("strategy")) != current.get("strategy")
        and "strategy_options" not in changes
    ):
        merged["strategy_options"] = {}
    pairing = schema is not None and schema.kind == "pairing"
    if schema is not None and pairing:
        merged.setdefault("strategy", PAIRING_STRATEGY)
        # Who may tick several answers says that an item may have several counterparts.
        merged.setdefault("one_to_one", not schema.multi_label)
    try:
        options = ProjectOptions(**merged)
    except ValidationError as error:
        raise OptionsInvalid(_explain(error)) from error
    for reserved in ("name", "balance", "audit_share"):
        if reserved in options.strategy_options:
            raise OptionsInvalid(
                f"strategy_options.{reserved} is no option of a strategy. Set {reserved} itself, or not"
            )
    if options.opinions in (1, 2):
        raise OptionsInvalid(
            f"opinions = {options.opinions} asks nobody: annotators can disagree when two answers are there."
            " Use 3 or more, or 0 to ask for no further opinion"
        )
    strategy = create_strategy(options.strategy, balance=options.balance, **options.strategy_options)
    if schema is not None:
        check_answers(options.label_model, schema)
        _check_learner(options, schema)
        _check_form(options, schema)
        strategy.check(
            multi_label=schema.multi_label,
            n_classes=len(schema.choices),
            modalities=_seen_by_strategy(options, schema),
            pool_size=pool_size,
            pairs=pairing,
            shared_space=options.learner in RETRIEVAL_LEARNERS,
        )
    return options


def suited_options(current: Mapping[str, Any], schema: TaskSchema) -> ProjectOptions:
    """The options for a label config that changed: the same where it can use them, else without as few as it takes.

    A project that turned from classes to pairs has no use for its strategy, nor perhaps one that turned from one
    answer to several; a learner may have named an answer that is gone. A package that is missing here is none of the
    label config's doing: whoever can mend that is told by the round that needs it.
    """
    for count in range(len(DEPENDENT) + 1):
        for groups in combinations(DEPENDENT, count):
            gone = set(chain.from_iterable(groups))
            try:
                return _suited_to({name: value for name, value in current.items() if name not in gone}, {}, schema)
            except ConfigurationError as error:
                refused = error
    raise refused


def _check_learner(options: ProjectOptions, schema: TaskSchema) -> None:
    """Refuse a learner that the label config cannot feed.

    Raises
    ------
    OptionsInvalid
        Saying what the learner needs.
    """
    if options.learner == "late_fusion" or schema.kind == "pairing":
        return
    if len(schema.modalities) < 2:
        raise OptionsInvalid(
            f"learner = {options.learner!r} compares image and text, and the label config has"
            f" {' and '.join(schema.modalities)} only. Use learner = 'late_fusion'"
        )
    if (options.learner == "alignment") == schema.multi_label:
        wanted = "one answer" if options.learner == "alignment" else 'several answers (choice="multiple")'
        raise OptionsInvalid(f"learner = {options.learner!r} needs a control with {wanted}. Use 'late_fusion' here")
    if options.learner == "alignment":
        matching_classes(options, schema)


def matching_classes(options: ProjectOptions, schema: TaskSchema) -> tuple[int, ...]:
    """The classes of pairs that fit, which train the projection: no order of the answers tells which they are.

    Raises
    ------
    OptionsInvalid
        With the answers to choose from.
    """
    found = tuple(i for i, choice in enumerate(schema.choices) if choice in options.matching)
    if not found or len(found) < len(set(options.matching)) or len(found) == len(schema.choices):
        raise OptionsInvalid(
            f"matching = {json.dumps(options.matching)}: learner = 'alignment' must know which answers say that the"
            f" text fits the image. Set it to a list of some of {json.dumps(schema.choices)}, not all"
        )
    return found


def _seen_by_strategy(options: ProjectOptions, schema: TaskSchema) -> tuple[str, ...]:
    """The modalities of what a strategy is given."""
    if schema.kind == "pairing":
        # Both pools are there, whatever the form shows as the question.
        return ("image", "text")
    # How well the two agree is one thing: neither side alone says anything of it.
    return ("agreement",) if options.learner == "alignment" else schema.modalities


def _check_form(options: ProjectOptions, schema: TaskSchema) -> None:
    if schema.kind == "pairing" and schema.multi_label and options.one_to_one:
        raise OptionsInvalid(
            "one_to_one = True: in the project's form several answers can be ticked. Leave it out, or set"
            ' choice="single-radio" in the label config'
        )
    wanted = options.strategy_options.get("directions", "both")
    if schema.kind == "pairing" and wanted != "both" and wanted not in schema.directions:
        raise OptionsInvalid(
            f"strategy_options.directions = {wanted!r}: the project's form asks about {schema.directions[0]} items"
            " only. Use a project of the template image_text_pairing"
        )


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"Unknown option {name!r}. Use: {', '.join(ProjectOptions.model_fields)}"
    return f"{name} = {str(first['input'])[:60]!r} cannot be used: {first['msg']}"
