"""What is compared: a strategy with its options and, where it is not its own, the strategy of the first batch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backend.errors import ReplayInvalid
from backend.strategies import create_strategy, strategy_names
from backend.strategies.base import LabelledStrategy, Strategy
from backend.strategies.registry import strategy_class


@dataclass(frozen=True)
class Arm:
    """``badge``: BADGE with its own cold start; ``random>badge``: a first batch at random, then BADGE.

    Options follow the name, each after a colon: ``random>badge:balance="pcb"``, values as JSON or plain text.
    """

    name: str
    strategy: str
    options: Mapping[str, Any] = field(default_factory=dict)
    cold: str = ""
    audit_share: float = 0.0

    @classmethod
    def parse(cls, text: str, options: Mapping[str, Any] | None = None, audit_share: float = 0.0) -> Arm:
        """Read an arm; ``options`` are added to those in the text; ``audit_share`` holds for the first batch too.

        Raises
        ------
        ReplayInvalid
            It is not of this form.
        """
        cold, arrow, rest = text.rpartition(">")
        strategy, *assignments = rest.split(":")
        pairs = [assignment.partition("=") for assignment in assignments]
        if not strategy or (arrow and not cold) or any(not name or not equals for name, equals, _ in pairs):
            raise ReplayInvalid(
                f"arm {text!r} cannot be read; write NAME, COLD>NAME or NAME:OPTION=VALUE, such as random>badge"
            )
        given = {name: _value(value) for name, _, value in pairs}
        return cls(text, strategy, {**given, **(options or {})}, cold, audit_share)

    def strategies(self) -> tuple[Strategy, Strategy]:
        """The strategy of the first batch, and that of all others.

        Raises
        ------
        UnknownStrategy, UnknownOption, InvalidOption
        """
        warm = create_strategy(self.strategy, **{"audit_share": self.audit_share, **self.options})
        return (create_strategy(self.cold, audit_share=self.audit_share) if self.cold else warm), warm

    def resolved(self) -> str:
        """Both strategies with all options, defaults too: another text where a later version has other defaults."""
        return repr(self.strategies())

    def check(self, *, n_classes: int, modalities: Sequence[str], multi_label: bool = False) -> None:
        """Raise StrategyUnsuited where the arm is not defined for such data."""
        for strategy in self.strategies():
            strategy.check(multi_label=multi_label, n_classes=n_classes, modalities=modalities)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


# Those that the acceptance of the default names; see docs/results.md.
_USUAL = ("margin", "badge", "bmmal", "typiclust", "dropquery")


def usual_arms() -> list[str]:
    """Random, the default, and the published strategies it is held against, each after a random first batch."""
    known = strategy_names()
    return ["random", "auto", *(f"random>{name}" for name in _USUAL if name in known)]


def all_arms() -> list[str]:
    """Random, the default and every other strategy of classification after a random first batch; those that need no
    label also from the first batch on."""
    suited = [name for name in strategy_names() if "shared_space" not in strategy_class(name).needs]
    others = [name for name in suited if name not in ("random", "auto")]
    alone = [name for name in others if not issubclass(strategy_class(name), LabelledStrategy)]
    return ["random", "auto", *(f"random>{name}" for name in others), *alone]
