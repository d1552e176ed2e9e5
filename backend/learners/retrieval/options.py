"""Options of retrieval models: frozen dataclasses that refuse what they cannot take."""

from __future__ import annotations

from dataclasses import dataclass, fields

from backend.checked_options import option as option
from backend.checked_options import option_problem
from backend.errors import InvalidRetrievalOption


@dataclass(frozen=True)
class RetrievalOptions:
    """Base of a model's options; constructing raises InvalidRetrievalOption."""

    def __post_init__(self) -> None:
        for spec in fields(self):
            problem = option_problem(spec.name, getattr(self, spec.name), spec.default, spec.metadata)
            if spec.metadata and problem:
                raise InvalidRetrievalOption(problem)
