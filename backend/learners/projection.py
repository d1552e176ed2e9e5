"""Linear projections of frozen modality vectors into one space, trained on known pairs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from backend.errors import FeaturesMismatch, HeadStateInvalid, InvalidOption, PairsInvalid
from backend.learners.canonical import canonical_weights
from backend.learners.contrastive import KnownMatches, contents
from backend.learners.projection_training import LOSSES, Loss, Towers, TrainingOptions, train

KIND = "projection"
FORMAT = "1"
CHUNK_ROWS = 8192
SIDES = ("image", "text")
WIDTH = 256


@dataclass(frozen=True)
class ProjectionHead:
    """One linear map a modality from frozen rows to unit rows of a shared width, compared by their cosine.

    ``(x - centre) @ weights``, scaled to unit length; a zero row, an absent modality, stays a zero row.
    weights: modality -> (D_m, d) float32; centre: modality -> (D_m,) float32; scale, bias: of the loss, learned:
    ``scale * cosine + bias`` is the logit of a match (the bias is 0 but for SigLIP).

    Source: unaligned.md, section 2.2: towers frozen, projection heads trained, restarted each round (ours there);
    CLIP arXiv 2103.00020, SigLIP 2303.15343, LiT 2111.07991.
    """

    weights: Mapping[str, np.ndarray]
    centre: Mapping[str, np.ndarray]
    scale: float
    bias: float

    @property
    def modalities(self) -> tuple[str, ...]:
        """The two sides, in the order of their names."""
        return tuple(sorted(self.weights))

    @property
    def width(self) -> int:
        """Length of the joint rows."""
        return int(next(iter(self.weights.values())).shape[1])

    @property
    def dims(self) -> dict[str, int]:
        """Modality -> length of the rows it takes."""
        return {name: len(self.weights[name]) for name in self.modalities}

    # -- where to start ------------------------------------------------------------------------------------------

    @classmethod
    def identity(cls, width: int, *, scale: float = 20.0, bias: float = -10.0) -> ProjectionHead:
        """The space of an encoder that has a joint one (CLIP, SigLIP): rows stay as they are."""
        return cls(
            {side: np.eye(width, dtype=np.float32) for side in SIDES},
            {side: np.zeros(width, dtype=np.float32) for side in SIDES},
            scale,
            bias,
        )

    @classmethod
    def random(cls, features: Mapping[str, np.ndarray], *, width: int = WIDTH, seed: int = 0) -> ProjectionHead:
        """Centred Gaussian projections: distances within a modality survive (Johnson and Lindenstrauss), similarities
        between modalities mean nothing."""
        rng = np.random.default_rng(seed)
        _checked(features)
        return cls(
            {
                side: (rng.normal(size=(features[side].shape[1], width)) / np.sqrt(width)).astype(np.float32)
                for side in SIDES
            },
            {side: present_mean(features[side]) for side in SIDES},
            20.0,
            -10.0,
        )

    @classmethod
    def canonical(
        cls, sources: Sequence[tuple[np.ndarray, np.ndarray]], *, width: int = WIDTH, scale: float = 20.0
    ) -> ProjectionHead:
        """The canonical directions of paired rows (see ``canonical_weights``), centred where the first source is.

        sources: image rows (p, D_image) and text rows (p, D_text) of true pairs, two at least, none absent.
        """
        image, text = canonical_weights(sources, width)
        centre = dict(zip(SIDES, map(present_mean, sources[0]), strict=True))
        return cls({"image": image, "text": text}, centre, scale, -10.0)

    # -- training ------------------------------------------------------------------------------------------------

    @classmethod
    def fit(
        cls,
        features: Mapping[str, np.ndarray],
        pairs: np.ndarray,
        *,
        loss: Loss = "clip",
        start: ProjectionHead | None = None,
        also: np.ndarray | None = None,
        same: Mapping[str, np.ndarray] | None = None,
        width: int = WIDTH,
        seed: int = 0,
        options: TrainingOptions | None = None,
    ) -> ProjectionHead:
        """Train on the known pairs, from ``start`` (each round from the same) or from their canonical directions.

        features: "image" -> (n, D_image), "text" -> (m, D_text), any float type, memory-mapped is fine; pairs: (p, 2)
        rows (image, text), repeats count once; also: (e, 2) further true pairs, which are trained on too, as the
        answers "also fits" of a query; same: modality -> (n,) numbers, equal for items of equal content, where the
        caller knows better than equal rows (the same words in other case); width: of the joint space, where there is
        no start. Entries of a batch that are known to fit, or have equal content, are no negatives. Pairs with an
        absent side are left out; below two pairs the start comes back, or random projections. LiT holds images still.
        Raises FeaturesMismatch, PairsInvalid and InvalidOption.
        """
        _checked(features)
        if loss not in LOSSES:
            raise InvalidOption(f"loss is {loss!r}; choose one of {', '.join(LOSSES)}")
        used = _checked_pairs(features, pairs if also is None else np.concatenate([pairs, also]))
        if start is not None:
            start._check_widths(features)
        chosen = {side: _finite(side, features[side][used[:, i]]) for i, side in enumerate(SIDES)}
        here = np.logical_and.reduce([block.any(axis=1) for block in chosen.values()])
        if here.sum() < 2:
            return start if start is not None else cls.random(features, width=width, seed=seed)
        image, text = (block[here] for block in chosen.values())
        begin = start if start is not None else cls.canonical([(image, text)], width=width)
        if not begin.weights["image"].any():
            # All pairs are one and the same: there is no direction that they agree along.
            return cls.random(features, width=width, seed=seed)
        rows = {"image": begin._centred("image", image), "text": begin._centred("text", text)}
        known = [_content(features, same, side, used[here, i]) for i, side in enumerate(SIDES)]
        found = train(
            (rows["image"], rows["text"]),
            KnownMatches(known[0], known[1]),
            begin._towers(),
            loss=loss,
            options=options or TrainingOptions(),
            seed=seed,
        )
        weights = {"image": found.image, "text": found.text}
        return cls(weights, begin.centre, float(np.exp(found.log_scale)), found.bias)

    # -- inference -----------------------------------------------------------------------------------------------

    def embed(self, modality: str, matrix: np.ndarray) -> np.ndarray:
        """(n, d) float32 unit rows of one modality's rows (n, D_m), read in chunks; zero rows stay zero.

        Raises FeaturesMismatch.
        """
        self._check_widths({modality: matrix})
        out = np.empty((len(matrix), self.width), dtype=np.float32)
        for begin in range(0, len(matrix), CHUNK_ROWS):
            projected = self._centred(modality, matrix[begin : begin + CHUNK_ROWS]) @ self.weights[modality]
            length = np.linalg.norm(projected, axis=1, keepdims=True)
            np.divide(projected, length, out=projected, where=length > 0)
            out[begin : begin + CHUNK_ROWS] = projected
        return out

    def _towers(self) -> Towers:
        return Towers(self.weights["image"], self.weights["text"], float(np.log(self.scale)), self.bias)

    def _centred(self, modality: str, rows: np.ndarray) -> np.ndarray:
        block = _finite(modality, rows)
        return np.where(block.any(axis=1, keepdims=True), block - self.centre[modality], np.float32(0))

    def _check_widths(self, features: Mapping[str, np.ndarray]) -> None:
        for name, matrix in features.items():
            wanted = self.dims.get(name)
            if matrix.ndim != 2 or matrix.shape[1] != wanted:
                raise FeaturesMismatch(
                    f"features[{name!r}] have shape {matrix.shape}, the projection takes {self.dims}; "
                    "encode the records with the encoder it was trained on"
                )

    # -- persistence ---------------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """Arrays and metadata strings that rebuild the head exactly (safetensors holds both)."""
        arrays = {f"weights.{name}": np.ascontiguousarray(w) for name, w in self.weights.items()}
        arrays |= {f"centre.{name}": np.ascontiguousarray(c) for name, c in self.centre.items()}
        return arrays, {
            "kind": KIND,
            "format": FORMAT,
            "modalities": json.dumps(list(self.modalities)),
            "scale": repr(self.scale),
            "bias": repr(self.bias),
        }

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> ProjectionHead:
        """Inverse of ``state``; arrays may be float16, as shipped. Raises HeadStateInvalid."""
        found = (metadata.get("kind"), metadata.get("format"))
        if found != (KIND, FORMAT):
            raise HeadStateInvalid(f"kind, format = {found}, expected {(KIND, FORMAT)}; train the projection again")
        try:
            names = json.loads(metadata["modalities"])
            head = cls(
                {name: np.asarray(arrays[f"weights.{name}"], dtype=np.float32) for name in names},
                {name: np.asarray(arrays[f"centre.{name}"], dtype=np.float32) for name in names},
                float(metadata["scale"]),
                float(metadata["bias"]),
            )
        except (KeyError, ValueError) as error:
            raise HeadStateInvalid(
                f"saved projection is incomplete or damaged ({error!r}); train it again"
            ) from error
        shapes = {name: (w.shape, head.centre[name].shape) for name, w in head.weights.items()}
        if tuple(sorted(names)) != SIDES or any(w != (*c, head.width) for w, c in shapes.values()):
            raise HeadStateInvalid(f"saved projection has weights and centres of shapes {shapes}; train it again")
        return head


def present_mean(matrix: np.ndarray) -> np.ndarray:
    """(D,) float32 mean of the rows that are not zero, read in chunks; zeros where there is none."""
    total, count = np.zeros(matrix.shape[1]), 0
    for begin in range(0, len(matrix), CHUNK_ROWS):
        block = np.asarray(matrix[begin : begin + CHUNK_ROWS], dtype=np.float32)
        total += block.sum(axis=0, dtype=np.float64)
        count += int(block.any(axis=1).sum())
    return (total / max(1, count)).astype(np.float32)


def _finite(modality: str, rows: np.ndarray) -> np.ndarray:
    block = np.asarray(rows, dtype=np.float32)
    if not np.isfinite(block).all():
        raise FeaturesMismatch(
            f"features[{modality!r}] hold NaN or infinity; store a zero row for an absent modality"
        )
    return block


def _checked(features: Mapping[str, np.ndarray]) -> None:
    if tuple(sorted(features)) != SIDES:
        raise FeaturesMismatch(f"features hold {sorted(features)}; a projection joins {list(SIDES)}")
    for name, matrix in features.items():
        if matrix.ndim != 2:
            raise FeaturesMismatch(f"features[{name!r}] have shape {matrix.shape}; pass (n, D)")


def _content(
    features: Mapping[str, np.ndarray], same: Mapping[str, np.ndarray] | None, side: str, rows: np.ndarray
) -> np.ndarray:
    """Numbers of these rows, equal where the content is: as the caller says, or by the rows themselves."""
    if same is None or side not in same:
        return contents(features[side][rows])
    numbers = np.asarray(same[side])
    if numbers.shape != (len(features[side]),) or not np.issubdtype(numbers.dtype, np.integer) or numbers.min() < 0:
        raise PairsInvalid(
            f"same[{side!r}] is {numbers.dtype} {numbers.shape}; pass ({len(features[side])},) integers from 0"
        )
    return numbers[rows]


def _checked_pairs(features: Mapping[str, np.ndarray], pairs: np.ndarray) -> np.ndarray:
    """(p, 2) int64 distinct pairs, in the order of their rows."""
    pairs = np.asarray(pairs)
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise PairsInvalid(f"pairs have shape {pairs.shape}; pass (p, 2) rows (image, text)")
    for i, side in enumerate(SIDES):
        outside = pairs[(pairs[:, i] < 0) | (pairs[:, i] >= len(features[side]))]
        if len(outside):
            raise PairsInvalid(
                f"pair {outside[0].tolist()} names {side} row {outside[0, i]}, and there are {len(features[side])}"
            )
    return np.unique(pairs.astype(np.int64), axis=0)
