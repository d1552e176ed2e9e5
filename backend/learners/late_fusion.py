"""Late fusion of frozen modality vectors: one linear head on their concatenation, one on each alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from backend.errors import FeaturesMismatch, HeadStateInvalid
from backend.half_precision import single
from backend.learners.head_problem import HeadProblem
from backend.learners.logistic import RowSpan, softmax
from backend.learners.targets import read_targets, training_block

KIND = "late_fusion"
FORMAT = "1"
CHUNK_ROWS = 8192


@dataclass(frozen=True)
class LateFusionHead:
    """Convex linear classifier on [x_1 | ... | x_M] with one more linear head for each modality alone.

    Single-label: multinomial logistic regression without bias over the classes seen so far, minimising
    ``|W|^2 / 2 + inverse_regularization * sum CE``. Classes never seen get probability 0; with one class seen that
    class gets 1; with none every class gets 1 / C.
    Multi-label: C independent binary logistic heads of the same form, with a bias that is penalised like a weight
    (a rare class would otherwise sit at 1/2 far from all data). A class seen with one outcome only leans to that
    outcome as far as the penalty lets it; with no labelled row every probability is 1/2.

    A missing modality is a zero row and adds nothing to the logits. The unimodal heads share no parameter with the
    fused one and are not calibrated: they serve comparisons between modalities.

    Source: Shen et al., BMMAL, ACM MM 2023 (fused and unimodal heads); the convex objective is
    label_efficiency.md, recipe step 3; temperature: Guo et al., ICML 2017.
    """

    fused: Mapping[str, np.ndarray]
    unimodal: Mapping[str, np.ndarray]
    fused_bias: np.ndarray
    unimodal_bias: Mapping[str, np.ndarray]
    seen: np.ndarray
    temperature: float
    multi_label: bool
    inverse_regularization: float

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities in the order of their names."""
        return tuple(self.fused)

    @property
    def n_classes(self) -> int:
        """Number of classes, seen or not."""
        return len(self.fused_bias)

    # -- training ------------------------------------------------------------------------------------------------

    @classmethod
    def fit(
        cls,
        features: Mapping[str, np.ndarray],
        labels: np.ndarray,
        *,
        n_classes: int,
        multi_label: bool = False,
        labelled: np.ndarray | None = None,
        seed: int = 0,
        inverse_regularization: float = 30.0,
        calibrate: bool = True,
        warm_start: LateFusionHead | None = None,
    ) -> LateFusionHead:
        """Train on the labelled rows to convergence.

        features: modality -> (n, D_m); labels: (n,) class index or -1, or (n, C) 0/1 for multi-label, where a row
        with a negative entry is unlabelled; labelled: (n,) bool, further restricts the rows; seed: folds of the
        calibration only; warm_start: an earlier head, which changes the number of steps and not the optimum.
        Raises LabelsInvalid and FeaturesMismatch.
        """
        names = _checked_modalities(features, len(labels))
        rows, targets, seen = read_targets(labels, labelled, n_classes, multi_label)
        blocks = {name: training_block(features[name], rows, name) for name in names}
        if warm_start is not None and not warm_start._fits(blocks, n_classes, multi_label):
            warm_start = None
        outputs = np.arange(n_classes) if multi_label else np.flatnonzero(seen)
        problem = HeadProblem(targets, outputs, n_classes, multi_label, inverse_regularization)

        joint = np.concatenate([blocks[name] for name in names], axis=1)
        start = None if warm_start is None else np.concatenate([warm_start.fused[m] for m in names], axis=1)
        weights, bias, temperature = _solve(
            problem, joint, start, None if warm_start is None else warm_start.fused_bias, seed if calibrate else None
        )
        cuts = np.cumsum([blocks[name].shape[1] for name in names])[:-1]
        alone = {
            name: _solve(
                problem,
                blocks[name],
                None if warm_start is None else warm_start.unimodal[name],
                None if warm_start is None else warm_start.unimodal_bias[name],
                None,
            )
            for name in names
        }
        return cls(
            fused=dict(zip(names, np.split(weights, cuts, axis=1), strict=True)),
            unimodal={name: solved[0] for name, solved in alone.items()},
            fused_bias=bias,
            unimodal_bias={name: solved[1] for name, solved in alone.items()},
            seen=seen,
            temperature=temperature,
            multi_label=multi_label,
            inverse_regularization=float(inverse_regularization),
        )

    def _fits(self, blocks: Mapping[str, np.ndarray], n_classes: int, multi_label: bool) -> bool:
        widths = {name: block.shape[1] for name, block in blocks.items()}
        return (
            widths == {name: weights.shape[1] for name, weights in self.fused.items()}
            and n_classes == self.n_classes
            and multi_label == self.multi_label
        )

    # -- inference (numpy alone) ---------------------------------------------------------------------------------

    def logits(self, features: Mapping[str, np.ndarray], coalition: Iterable[str] | None = None) -> np.ndarray:
        """Fused logits (n, C) float32; modalities outside the coalition count as zero rows."""
        members = self.modalities if coalition is None else tuple(coalition)
        self._check_known(members)
        return self._linear(features, {m: self.fused[m] for m in self.modalities if m in members}, self.fused_bias)

    def probabilities(self, features: Mapping[str, np.ndarray], *, calibrated: bool = True) -> np.ndarray:
        """Fused probabilities (n, C) float32; ``calibrated=False`` leaves the temperature out."""
        return self._activate(self.logits(features), self.temperature if calibrated else 1.0)

    def coalition_probabilities(
        self, features: Mapping[str, np.ndarray], coalition: frozenset[str], *, calibrated: bool = True
    ) -> np.ndarray:
        """Fused probabilities (n, C) with every modality outside the coalition replaced by zero rows."""
        return self._activate(self.logits(features, coalition), self.temperature if calibrated else 1.0)

    def unimodal_probabilities(self, features: Mapping[str, np.ndarray], modality: str) -> np.ndarray:
        """Probabilities (n, C) float32 of the head trained on one modality alone, without temperature."""
        self._check_known((modality,))
        logits = self._linear(features, {modality: self.unimodal[modality]}, self.unimodal_bias[modality])
        return self._activate(logits, 1.0)

    def _check_known(self, modalities: Iterable[str]) -> None:
        unknown = sorted(set(modalities) - set(self.modalities))
        if unknown:
            raise FeaturesMismatch(
                f"modality {unknown[0]!r} is not one of the head's {list(self.modalities)}; retrain or rename it"
            )

    def _linear(
        self, features: Mapping[str, np.ndarray], weights: Mapping[str, np.ndarray], bias: np.ndarray
    ) -> np.ndarray:
        self._check_known(features)
        if not features:
            raise FeaturesMismatch("features is empty; pass one matrix per modality, zero rows where it is absent")
        n = len(next(iter(features.values())))
        for name, matrix in features.items():
            wanted = self.fused[name].shape[1]
            if matrix.ndim != 2 or matrix.shape != (n, wanted):
                raise FeaturesMismatch(
                    f"features[{name!r}] has shape {matrix.shape}, the head needs ({n}, {wanted}); "
                    "encode the records with the encoder the head was trained on"
                )
        turned = {name: np.ascontiguousarray(w.T, dtype=np.float32) for name, w in weights.items()}
        out = np.empty((n, self.n_classes), dtype=np.float32)
        for begin in range(0, n, CHUNK_ROWS):
            part = slice(begin, min(begin + CHUNK_ROWS, n))
            out[part] = bias
            for name, matrix in turned.items():
                if name in features:
                    out[part] += single(features[name][part]) @ matrix
        return out

    def _activate(self, logits: np.ndarray, temperature: float) -> np.ndarray:
        for begin in range(0, len(logits), CHUNK_ROWS):
            part = logits[begin : begin + CHUNK_ROWS]
            if temperature != 1.0:
                part /= np.float32(temperature)
            if self.multi_label:
                part[...] = expit(part)
            elif self.seen.any():
                part[:, ~self.seen] = -np.inf
                part[...] = softmax(part)
            else:
                part[...] = 1.0 / self.n_classes
        return logits

    # -- persistence ---------------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """Arrays and metadata strings that rebuild the head exactly (safetensors holds both)."""
        arrays = {f"fused.{name}": np.ascontiguousarray(w) for name, w in self.fused.items()}
        arrays |= {f"unimodal.{name}": np.ascontiguousarray(w) for name, w in self.unimodal.items()}
        arrays |= {f"unimodal_bias.{name}": b for name, b in self.unimodal_bias.items()}
        arrays |= {"fused_bias": self.fused_bias, "seen": self.seen.astype(np.uint8)}
        return arrays, {
            "kind": KIND,
            "format": FORMAT,
            "modalities": json.dumps(list(self.modalities)),
            "multi_label": json.dumps(self.multi_label),
            "temperature": repr(self.temperature),
            "inverse_regularization": repr(self.inverse_regularization),
        }

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> LateFusionHead:
        """Inverse of ``state``; raises HeadStateInvalid."""
        found = (metadata.get("kind"), metadata.get("format"))
        if found != (KIND, FORMAT):
            raise HeadStateInvalid(f"kind, format = {found}, expected {(KIND, FORMAT)}; retrain the head")
        try:
            names = json.loads(metadata["modalities"])
            return cls(
                fused={name: np.asarray(arrays[f"fused.{name}"]) for name in names},
                unimodal={name: np.asarray(arrays[f"unimodal.{name}"]) for name in names},
                fused_bias=np.asarray(arrays["fused_bias"]),
                unimodal_bias={name: np.asarray(arrays[f"unimodal_bias.{name}"]) for name in names},
                seen=np.asarray(arrays["seen"]).astype(bool),
                temperature=float(metadata["temperature"]),
                multi_label=bool(json.loads(metadata["multi_label"])),
                inverse_regularization=float(metadata["inverse_regularization"]),
            )
        except (KeyError, ValueError) as error:
            raise HeadStateInvalid(f"saved head is incomplete or damaged ({error!r}); retrain the head") from error


def _solve(
    problem: HeadProblem,
    rows: np.ndarray,
    start: np.ndarray | None,
    start_bias: np.ndarray | None,
    calibration_seed: int | None,
) -> tuple[np.ndarray, np.ndarray, float]:
    """(weights (C, D), bias (C,), temperature); rows of classes without an output stay zero."""
    weights = np.zeros((problem.n_classes, rows.shape[1]))
    bias = np.zeros(problem.n_classes)
    if problem.trivial:
        return weights, bias, 1.0
    if problem.multi_label:
        rows = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
        if start is not None and start_bias is not None:
            start = np.concatenate([start, start_bias[:, None]], axis=1)
    span = RowSpan.of(rows)
    reduced = problem.weights(span, None if start is None else start[problem.outputs] @ span.basis)
    temperature = 1.0 if calibration_seed is None else problem.temperature(span, reduced, calibration_seed)
    solved = reduced @ span.basis.T
    if problem.multi_label:
        bias[problem.outputs] = solved[:, -1]
        solved = solved[:, :-1]
    weights[problem.outputs] = solved
    return weights, bias, temperature


def _checked_modalities(features: Mapping[str, np.ndarray], n: int) -> tuple[str, ...]:
    if not features:
        raise FeaturesMismatch("features is empty; pass one (n, D) matrix per modality")
    for name, matrix in features.items():
        if matrix.ndim != 2 or len(matrix) != n:
            raise FeaturesMismatch(
                f"features[{name!r}] has shape {matrix.shape}, labels have {n} rows; give one row per record"
            )
    return tuple(sorted(features))
