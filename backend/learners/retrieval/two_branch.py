"""The light retrieval model: two branches of one layer each on frozen vectors, and class prototypes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from backend.errors import FeaturesMismatch
from backend.half_precision import single
from backend.learners.calibration import FOLDS, stratified_folds
from backend.learners.late_fusion import LateFusionHead
from backend.learners.retrieval.cosine_head import cosine_head
from backend.learners.retrieval.options import RetrievalOptions, option
from backend.learners.retrieval.pair_space import pair_space_again
from backend.learners.retrieval.posterior import leading_span, posterior, posterior_weights, shared_targets
from backend.learners.retrieval.saved_model import rebuilding, saved_head, state_with_head
from backend.learners.retrieval.training_rows import TrainingRows, all_pairs

KIND = "two_branch"
CHUNK_ROWS = 8192
# From this many labelled rows on, one fold of them calibrates as well as all, in half the time.
ONE_FOLD_FROM = 1500
# Pairs that the pair space is computed from, at most; more are drawn from.
MOST_PAIRS = 10_000


@dataclass(frozen=True)
class TwoBranchOptions(RetrievalOptions):
    """How ``TwoBranchHead.fit`` trains."""

    class_width: int = option(96, "numbers for class prototypes, at most; fewer classes take one each", low=1)
    pair_width: int = option(30, "numbers for the pair space, at most", low=0)
    pair_share: float = option(0.7, "how much of what no class explains the pair space tells", low=0.0, high=1.0)
    pairs: str = option("all", "pairs that make the pair space, unlabelled ones too", choices=("labelled", "all"))
    inverse_regularization: float = option(100.0, "of the branches; larger fits the labels closer", low=1e-3)


@dataclass(frozen=True)
class Branch:
    """One modality's layer: weights (C + 1, D_m), the last output being "none of the classes"; centre (D_m,) and
    directions (D_m, d) of the pair space. float32."""

    weights: np.ndarray
    centre: np.ndarray
    directions: np.ndarray


@dataclass(frozen=True)
class TwoBranchHead:
    """Shared space in which a modality's row is the mean of class prototypes under that modality's own posterior.

    Branch m reads p_m = softmax(W_m x_m) over the classes seen, "none of them" being one more outcome where rows
    without a label were seen, and places the row at

        z_m = [ p_m R | a s_m u_m | sqrt(1 - a^2) s_m e_m ],    s_m = sqrt(1 - |p_m R|^2),

    a point of unit length: R (C, K) unit prototypes, the axes while K = C; u_m the unit row of the pair space
    (``pair_space``), e_m an axis that belongs to the modality, a the option ``pair_share``. With orthonormal R the
    cosine of z_m with a prototype is p_m,c itself, and that of an image with a text is sum_c p_v,c p_t,c, the
    probability of the same class, plus what the pair space says where neither branch is sure. The last block only
    brings rows to unit length without making unsure ones alike.

    W_m minimises |W|^2 / 2 + inverse_regularization * cross-entropy against labels that share a row equally, within
    the ``posterior.MOST_DIRECTIONS`` principal directions of the training rows (all of them while labels are fewer):
    convex, from scratch each round, nothing drawn but the folds of the calibration. Pairs with one modality train its
    branch.

    The pair space is computed from unlabelled pairs as well: an image and its text belong together whether or not
    somebody named their classes, which helps most while labels are few (docs/results.md has figures).
    ``pairs="labelled"`` leaves them out.

    Ours. The parts: multinomial logistic regression; unit length by an added axis as in Bachrach et al., RecSys 2014.
    """

    branches: Mapping[str, Branch]
    prototypes: np.ndarray
    outputs: Mapping[str, np.ndarray]
    pair_share: float
    head: LateFusionHead = field(repr=False)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities in the order of their names."""
        return tuple(sorted(self.branches))

    @property
    def width(self) -> int:
        """Numbers in an embedded row."""
        directions = self.branches[self.modalities[0]].directions
        return self.prototypes.shape[1] + directions.shape[1] + len(self.branches)

    # -- training ------------------------------------------------------------------------------------------------

    @classmethod
    def fit(
        cls,
        features: Mapping[str, np.ndarray],
        labels: np.ndarray,
        *,
        seed: int = 0,
        labelled: np.ndarray | None = None,
        options: TwoBranchOptions | None = None,
    ) -> TwoBranchHead:
        """Train on the labelled rows, to convergence.

        features: modality -> (n, D_m) unit rows, zero row where absent; labels: (n, C) 0/1, a row with a negative
        entry is unlabelled; labelled: (n,) bool, further restricts the rows; seed: folds of the calibration and, for
        more classes than ``class_width``, the prototypes. Raises LabelsInvalid and FeaturesMismatch.
        """
        options = options or TwoBranchOptions()
        rows = TrainingRows.of(features, labels, labelled)
        rng = np.random.default_rng(seed)
        prototypes = class_prototypes(rows.n_classes, options.class_width, rng)
        targets = shared_targets(rows.labels)
        fold = stratified_folds(rows.labels, FOLDS, rng)
        joint = rows.pairs() if options.pairs == "labelled" else all_pairs(features, MOST_PAIRS)
        spaces = pair_space_again(joint, options.pair_width)
        branches, outputs, held_out = {}, {}, {}
        for name in rows.names:
            weights, held = _train_branch(rows.blocks[name], rows.present[name], targets, fold, options)
            centre, directions = spaces[name]
            branches[name] = Branch(*(block.astype(np.float32) for block in (weights, centre, directions)))
            outputs[name] = targets[rows.present[name]].any(axis=0)
            held_out[name] = held[:, :-1] @ prototypes @ prototypes.T
        extra = next(iter(branches.values())).directions.shape[1] + len(branches)
        wide = np.concatenate([prototypes, np.zeros((len(prototypes), extra))], axis=1)
        known = _could_be_known(rows.labels, fold)
        head = cosine_head(wide, held_out, rows.labels, known, np.any(rows.labels, axis=0))
        return cls(branches, prototypes.astype(np.float32), outputs, options.pair_share, head)

    # -- inference (numpy alone) ---------------------------------------------------------------------------------

    def embed(self, features: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """modality -> (n, width) float32 unit rows of the shared space, zero rows where the modality is absent.

        features: any of the modalities, (n, D_m) of any float dtype, read in chunks. Raises FeaturesMismatch.
        """
        self._check(features)
        out = {}
        for name, matrix in features.items():
            out[name] = np.empty((len(matrix), self.width), dtype=np.float32)
            for begin in range(0, len(matrix), CHUNK_ROWS):
                part = slice(begin, min(begin + CHUNK_ROWS, len(matrix)))
                out[name][part] = self._placed(name, single(matrix[part]))
        return out

    def _placed(self, name: str, rows: np.ndarray) -> np.ndarray:
        branch = self.branches[name]
        out = np.zeros((len(rows), self.width), dtype=np.float32)
        n_classes, width = self.prototypes.shape
        share = posterior(rows @ branch.weights.T, self.outputs[name])[:, :n_classes]
        out[:, :width] = share @ self.prototypes
        rest = np.sqrt(np.maximum(1.0 - np.einsum("ij,ij->i", out, out), 0.0))
        agreed = (rows - branch.centre) @ branch.directions
        length = np.linalg.norm(agreed, axis=1)
        told = np.where(length > 0, self.pair_share, 0.0)
        agreed *= (told * rest / np.where(length > 0, length, 1.0))[:, None]
        out[:, width : width + agreed.shape[1]] = agreed
        axis = width + agreed.shape[1] + self.modalities.index(name)
        out[:, axis] = rest * np.sqrt(1.0 - told**2)
        out /= np.linalg.norm(out, axis=1, keepdims=True)
        out[~rows.any(axis=1)] = 0.0
        return out

    def _check(self, features: Mapping[str, np.ndarray]) -> None:
        for name, matrix in features.items():
            if name not in self.branches:
                raise FeaturesMismatch(
                    f"modality {name!r} is not one of the model's {list(self.modalities)}; retrain or rename it"
                )
            wanted = self.branches[name].weights.shape[1]
            if matrix.ndim != 2 or matrix.shape[1] != wanted:
                raise FeaturesMismatch(
                    f"features[{name!r}] has shape {matrix.shape}, the model needs (n, {wanted}); "
                    "encode the records with the encoder the model was trained on"
                )

    # -- persistence ---------------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """Arrays and metadata strings that rebuild the model exactly (safetensors holds both)."""
        arrays = {"prototypes": self.prototypes}
        for name, branch in self.branches.items():
            arrays |= {
                f"weights.{name}": branch.weights,
                f"centre.{name}": branch.centre,
                f"directions.{name}": branch.directions,
                f"outputs.{name}": self.outputs[name].astype(np.uint8),
            }
        told = {"modalities": json.dumps(list(self.modalities)), "pair_share": repr(self.pair_share)}
        return state_with_head(KIND, self.head, arrays, told)

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> TwoBranchHead:
        """Inverse of ``state``; raises HeadStateInvalid."""
        with rebuilding(KIND, metadata):
            names = json.loads(metadata["modalities"])
            return cls(
                branches={
                    name: Branch(
                        *(np.asarray(arrays[f"{kind}.{name}"]) for kind in ("weights", "centre", "directions"))
                    )
                    for name in names
                },
                prototypes=np.asarray(arrays["prototypes"]),
                outputs={name: np.asarray(arrays[f"outputs.{name}"]).astype(bool) for name in names},
                pair_share=float(metadata["pair_share"]),
                head=saved_head(arrays, metadata),
            )


def class_prototypes(n_classes: int, most: int, rng: np.random.Generator) -> np.ndarray:
    """(C, min(C, most)) unit rows: the axes where they suffice, else rows of a random tight frame, whose cosines with
    one another are as small as so many rows can have on average."""
    if n_classes <= most:
        return np.eye(n_classes)
    frame, _ = np.linalg.qr(rng.normal(size=(n_classes, most)))
    return np.asarray(frame / np.linalg.norm(frame, axis=1, keepdims=True))


def _train_branch(
    block: np.ndarray, present: np.ndarray, targets: np.ndarray, fold: np.ndarray, options: TwoBranchOptions
) -> tuple[np.ndarray, np.ndarray]:
    """(weights (C + 1, D_m), posterior (n, C + 1) of each row by a branch that the other folds trained)."""
    rows, wanted = block[present], targets[present]
    held = np.zeros(targets.shape)
    if not len(rows):
        return np.zeros((targets.shape[1], block.shape[1])), held
    span = leading_span(rows)
    strength, own = options.inverse_regularization, fold[present]
    solved = posterior_weights(span, np.arange(len(rows)), wanted, strength)
    scored = np.zeros(wanted.shape)
    for number in _scored_folds(fold):
        train, out = np.flatnonzero(own != number), np.flatnonzero(own == number)
        weights = posterior_weights(span, train, wanted[train], strength, solved)
        scored[out] = posterior(span.coordinates[out] @ weights.T, wanted[train].any(axis=0))
    held[present] = scored
    return solved @ span.basis.T, held


def _could_be_known(labels: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """(n, C) bool, rows of a scored fold; False where the class has labels in the row's own fold only, so that no
    branch could know it."""
    known = np.zeros(labels.shape, dtype=bool)
    for number in _scored_folds(fold):
        lonely = labels[fold == number].any(axis=0) & ~labels[fold != number].any(axis=0)
        known[np.ix_(fold == number, ~lonely)] = True
    return known


def _scored_folds(fold: np.ndarray) -> range:
    return range(1 if len(fold) >= ONE_FOLD_FROM else FOLDS)
