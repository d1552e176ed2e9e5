"""How well a text fits an image, in grades: a head on the calibrated similarity of the projected pair."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from backend.errors import FeaturesMismatch, HeadStateInvalid
from backend.learners.calibration import FOLDS, stratified_folds
from backend.learners.late_fusion import LateFusionHead
from backend.learners.projection import CHUNK_ROWS, SIDES, ProjectionHead
from backend.learners.projection_training import Loss
from backend.learners.targets import read_targets

KIND = "alignment"
FORMAT = "1"
AGREEMENT = "agreement"
# Standard scores at which the code of a similarity begins and ends to move.
LEAST, MOST = -1.0, 4.0
# Rows that the spread of the pool is believed to be worth before any is seen.
PRIOR_ROWS = 32.0
MOMENT_ROWS = 4096
# Below this many true pairs the start alone serves.
FEWEST_TRUE = 10
T = TypeVar("T")


@dataclass(frozen=True)
class JointSpace:
    """A projection, and how the pool lies in it.

    mean, spread: modality -> (d,) and (d, d) float32 moments of the pool's joint rows.
    """

    projection: ProjectionHead
    mean: Mapping[str, np.ndarray]
    spread: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, projection: ProjectionHead, features: Mapping[str, np.ndarray]) -> JointSpace:
        """The moments of at most ``MOMENT_ROWS`` records, spread evenly over the pool."""
        moments = {}
        for side in SIDES:
            n = len(features[side])
            rows = np.unique(np.linspace(0, n - 1, min(n, MOMENT_ROWS)).astype(np.int64))
            moments[side] = _moments(projection.embed(side, features[side][rows]))
        return cls(
            projection, {side: m for side, (m, _) in moments.items()}, {side: s for side, (_, s) in moments.items()}
        )

    def code(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """(n, 2) float32 code of each pair's standard score, a zero row where a side is absent; in chunks."""
        out = np.zeros((len(features["image"]), 2), dtype=np.float32)
        for begin in range(0, len(out), CHUNK_ROWS):
            part = slice(begin, begin + CHUNK_ROWS)
            rows = {side: self.projection.embed(side, features[side][part]) for side in SIDES}
            similarity = np.einsum("nd,nd->n", rows["image"], rows["text"])
            score = np.zeros(len(similarity), dtype=np.float32)
            for side, other in (("image", "text"), ("text", "image")):
                usual = rows[side] @ self.mean[other]
                variance = np.einsum("nd,nd->n", rows[side] @ self.spread[other], rows[side])
                score += (similarity - usual) / np.sqrt(np.maximum(variance, np.float32(1e-9))) / 2
            angle = np.pi / 2 * np.clip((score - LEAST) / (MOST - LEAST), 0.0, 1.0)
            here = np.logical_and(rows["image"].any(axis=1), rows["text"].any(axis=1))
            out[part] = np.stack([np.cos(angle), np.sin(angle)], axis=1) * np.asarray(here)[:, None]
        return out


@dataclass(frozen=True)
class AlignmentHead:
    """Grades of an image-text pair (match, partly, mismatch; relevance 0 to 3) from how much it agrees.

    The cosine of the projected pair is set beside what this image has with the pool's texts and what this text has
    with the pool's images, in standard scores, so that an item that resembles everything gains nothing by it; their
    mean z becomes the row (cos t, sin t), t = pi/2 (z - LEAST) / (MOST - LEAST) clipped, and a ``LateFusionHead`` on
    these two numbers gives each grade its probability and its temperature. Middle grades get the middle by
    themselves: the logits are linear in a point that wanders along an arc. The grades may be of any number and order.

    The embedded features have the one modality "agreement": neither image nor text alone says anything about whether
    they agree. A pair with an absent side is a zero row and gets even odds over the grades seen.

    Ours. Correcting for hubs: negCLIPLoss, arXiv 2405.19547 (there by a log-sum-exp over the batch).
    """

    space: JointSpace
    head: LateFusionHead

    @classmethod
    def fit(
        cls,
        features: Mapping[str, np.ndarray],
        labels: np.ndarray,
        *,
        n_classes: int,
        start: ProjectionHead,
        matching: Collection[int] = (),
        labelled: np.ndarray | None = None,
        loss: Loss = "clip",
        seed: int = 0,
    ) -> AlignmentHead:
        """Train on the labelled pairs; the others tell how similar images and texts of the pool are anyway.

        features: "image" -> (n, D_image), "text" -> (n, D_text), row i with row i, zero rows where absent; labels,
        labelled: as in ``LateFusionHead.fit``; start: the warm start, or ``ProjectionHead.identity`` for an encoder
        with a joint space; matching: the grades that say the pair is a true one. Pairs with such a grade train the
        projection further, from the start each time, and the head then learns from codes of projections that have
        not seen the pair in question (three folds): on its own training pairs a projection agrees far too well.
        Raises LabelsInvalid and FeaturesMismatch.
        """
        _check_pairs(features)
        rows, _, _ = read_targets(labels, labelled, n_classes, False)
        true = rows[np.isin(np.asarray(labels)[rows], list(matching))]
        every = JointSpace.of(start, features)
        code = np.zeros((len(features["image"]), 2), dtype=np.float32)
        if len(true) < FEWEST_TRUE:
            code[rows] = every.code(_rows(features, rows))
        else:
            fold = stratified_folds(np.asarray(labels)[rows], FOLDS, np.random.default_rng(seed))
            for number in range(FOLDS):
                held = rows[fold == number]
                unseen = _trained(features, np.setdiff1d(true, held), start, loss, seed)
                code[held] = JointSpace.of(unseen, features).code(_rows(features, held))
            every = JointSpace.of(_trained(features, true, start, loss, seed), features)
        of_rows = np.asarray(labels)[rows]
        head = LateFusionHead.fit({AGREEMENT: code[rows]}, of_rows, n_classes=n_classes, seed=seed)
        return cls(every, head)

    # -- inference -----------------------------------------------------------------------------------------------

    def embed(self, features: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """{"agreement": (n, 2) float32 unit rows}, zero rows where a side is absent; read in chunks.

        What ``head`` takes, and a pool with it: ``Pool.from_head(a.embed(features), labels, labelled, a.head, ...)``.
        Raises FeaturesMismatch.
        """
        _check_pairs(features)
        return {AGREEMENT: self.space.code(features)}

    def probabilities(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """Calibrated probability (n, C) float32 of each grade."""
        return self.head.probabilities(self.embed(features))

    # -- persistence ---------------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """Arrays and metadata strings that rebuild the head exactly (safetensors holds both)."""
        arrays: dict[str, np.ndarray] = {}
        metadata = {"kind": KIND, "format": FORMAT}
        for prefix, part in (("projection.", self.space.projection), ("head.", self.head)):
            own_arrays, own_metadata = part.state()
            arrays |= {prefix + name: array for name, array in own_arrays.items()}
            metadata |= {prefix + name: text for name, text in own_metadata.items()}
        for side in SIDES:
            arrays |= {f"mean.{side}": self.space.mean[side], f"spread.{side}": self.space.spread[side]}
        return arrays, metadata

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> AlignmentHead:
        """Inverse of ``state``; raises HeadStateInvalid."""
        found = (metadata.get("kind"), metadata.get("format"))
        if found != (KIND, FORMAT):
            raise HeadStateInvalid(f"kind, format = {found}, expected {(KIND, FORMAT)}; retrain the head")
        try:
            mean = {side: np.asarray(arrays[f"mean.{side}"]) for side in SIDES}
            spread = {side: np.asarray(arrays[f"spread.{side}"]) for side in SIDES}
        except KeyError as error:
            raise HeadStateInvalid(f"saved head is incomplete or damaged ({error!r}); retrain the head") from error
        projection = ProjectionHead.from_state(_below("projection.", arrays), _below("projection.", metadata))
        return cls(
            JointSpace(projection, mean, spread),
            LateFusionHead.from_state(_below("head.", arrays), _below("head.", metadata)),
        )


def _moments(joint: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (d,) and covariance (d, d) of the rows present, drawn towards a round one where they are few."""
    rows = joint[joint.any(axis=1)].astype(np.float64)
    d = joint.shape[1]
    mean = rows.sum(axis=0) / max(1, len(rows))
    scatter = (rows - mean).T @ (rows - mean)
    # Unit rows without a preferred direction have the covariance 1 / d.
    covariance = (scatter + PRIOR_ROWS * np.eye(d) / d) / (len(rows) + PRIOR_ROWS)
    return mean.astype(np.float32), covariance.astype(np.float32)


def _trained(
    features: Mapping[str, np.ndarray], rows: np.ndarray, start: ProjectionHead, loss: Loss, seed: int
) -> ProjectionHead:
    pairs = np.stack([rows, rows], axis=1)
    return ProjectionHead.fit(features, pairs, loss=loss, start=start, seed=seed)


def _rows(features: Mapping[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    return {side: features[side][rows] for side in SIDES}


def _check_pairs(features: Mapping[str, np.ndarray]) -> None:
    if tuple(sorted(features)) != SIDES or len(features["image"]) != len(features["text"]):
        shapes = {name: matrix.shape for name, matrix in features.items()}
        raise FeaturesMismatch(f"features have shapes {shapes}; alignment grades one image with one text a row")


def _below(prefix: str, entries: Mapping[str, T]) -> dict[str, T]:
    return {name.removeprefix(prefix): value for name, value in entries.items() if name.startswith(prefix)}
