"""How several answers become one label: the majority, or a model of how reliable each annotator is.

`dawid_skene` (Dawid and Skene, Applied Statistics 28, 1979) estimates for each annotator how often each class is
taken for each other one; `one_coin` (Zhang et al., JMLR 17, 2016) one accuracy each, which far fewer answers suffice
for. Both are crowd-kit's.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Literal

from backend.errors import LabelModelUnsuited
from backend.labelstudio.annotations import Answer, Resolution, latest_answers, resolve_label
from backend.labelstudio.schema import TaskSchema

LabelModel = Literal["majority", "dawid_skene", "one_coin"]
# A label that the model believes in less than this trains nothing; docs/annotators.md says what that costs and saves.
LEAST_CONFIDENCE = 0.7
# With fewer tasks that several annotators answered, who is reliable is guesswork, and the majority decides.
LEAST_TASKS = 20
_STEPS = 100


def check_label_model(model: LabelModel, schema: TaskSchema) -> None:
    """Refuse a model that cannot be used in this project.

    Raises
    ------
    LabelModelUnsuited
        Saying what to use or to install.
    """
    check_answers(model, schema)
    check_installed(model)


def check_answers(model: LabelModel, schema: TaskSchema) -> None:
    """Refuse a model that weighs answers of another kind, on whatever machine; raises LabelModelUnsuited."""
    if model == "majority":
        return
    if schema.kind == "pairing" or schema.multi_label:
        asks = "asks for pairs" if schema.kind == "pairing" else "lets annotators tick several choices"
        raise LabelModelUnsuited(
            f"label_model = {model!r} weighs single answers, and the project {asks}. Use label_model = 'majority'"
        )


def check_installed(model: LabelModel) -> None:
    """Refuse a model whose package is missing on this machine; raises LabelModelUnsuited."""
    if model != "majority" and find_spec("crowdkit") is None:
        raise LabelModelUnsuited(
            f"label_model = {model!r} needs the package crowd-kit, which is not installed here. Run"
            " `pip install 'mmal-backend[crowd]'` for web and worker, or use label_model = 'majority'"
        )


def resolve_labels(
    answers: Mapping[int, Sequence[Answer]], model: LabelModel, *, multi_label: bool
) -> dict[int, Resolution]:
    """One resolution for each task.

    Ground truth wins and unanimous answers stand, whatever the model. Where annotators disagree, the model picks
    among the answers that were given; one it believes in less than `LEAST_CONFIDENCE` is a tie. It learns from tasks
    with several answers only: a lone answer, which nothing contradicts, would make its annotator look infallible.

    Parameters
    ----------
    answers
        All answers of each task.
    """
    resolved = {task_id: resolve_label(found, multi_label) for task_id, found in answers.items()}
    if model == "majority":
        return resolved
    votes = {task_id: given for task_id, found in answers.items() if len(given := _votes(found)) > 1}
    split = [t for t, given in votes.items() if len(set(given.values())) > 1 and not resolved[t].from_ground_truth]
    if not split or len(votes) < LEAST_TASKS:
        return resolved
    truths = {t: (r.choices or ("",))[0] for t, r in resolved.items() if r.from_ground_truth}
    believed = _posteriors(votes, truths, model)
    for task_id in split:
        confidence, label = max((believed[task_id][label], label) for label in set(votes[task_id].values()))
        sure = confidence >= LEAST_CONFIDENCE
        resolved[task_id] = Resolution("label", (label,)) if sure else Resolution("tie")
    return resolved


def _votes(answers: Sequence[Answer]) -> dict[int, str]:
    """Annotator -> their answer; annotations without an annotator are annotators of their own (negative numbers)."""
    votes = {}
    for answer in latest_answers(answers):
        if answer.choices:
            voter = answer.annotator_id if answer.annotator_id is not None else -answer.annotation_id
            votes[voter] = answer.choices[0]
    return votes


def _posteriors(
    votes: Mapping[int, Mapping[int, str]], truths: Mapping[int, str], model: LabelModel
) -> dict[int, dict[str, float]]:
    """Task -> label -> how probable it is, 0 for labels that nobody gave anywhere."""
    import pandas as pd
    from crowdkit.aggregation import DawidSkene, OneCoinDawidSkene

    rows = [(task, voter, label) for task in sorted(votes) for voter, label in sorted(votes[task].items())]
    columns = ["task", "worker", "label"]
    with warnings.catch_warnings():
        # crowd-kit chains assignments in ways that newer pandas warns of.
        warnings.simplefilter("ignore")
        if model == "one_coin":
            probabilities = OneCoinDawidSkene(_STEPS).fit_predict_proba(pd.DataFrame(rows, columns=columns))
        else:
            labels = sorted({label for _, _, label in rows})
            voters = sorted({voter for _, voter, _ in rows})
            # A prior, in the only form that crowd-kit takes one: of each label one task that everybody got right.
            # A table of errors for each annotator has far more cells than a project of many classes has answers.
            prior = {-1 - place: label for place, label in enumerate(labels)}
            rows += [(task, voter, label) for task, label in prior.items() for voter in voters]
            # The model knows only labels that somebody gave.
            known = {task: label for task, label in truths.items() if label in labels and task in votes}
            truth = pd.Series({**known, **prior}, dtype=object)
            probabilities = DawidSkene(_STEPS).fit_predict_proba(
                pd.DataFrame(rows, columns=columns), true_labels=truth
            )
    return {int(task): row.to_dict() for task, row in probabilities.iterrows()}
