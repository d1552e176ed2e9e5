"""The ASCMR authors' retrieval network as a model to train, keep and embed with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import numpy as np

from backend.errors import FeaturesMismatch, InvalidRetrievalOption
from backend.half_precision import single
from backend.learners.late_fusion import LateFusionHead
from backend.learners.retrieval.ascmr_network import ENCODERS, LabelGraph, NetworkShape
from backend.learners.retrieval.ascmr_training import Trained, TrainingPlan, train
from backend.learners.retrieval.cosine_head import cosine_head
from backend.learners.retrieval.options import RetrievalOptions, option
from backend.learners.retrieval.saved_model import part_named, rebuilding, saved_head, state_with_head
from backend.learners.retrieval.training_rows import TrainingRows

KIND = "ascmr_network"
CHUNK_ROWS = 8192
BRANCHES = {"image": "img_net.denseL1", "text": "text_net.denseL1"}


@dataclass(frozen=True)
class AscmrOptions(RetrievalOptions):
    """How ``AscmrNetwork.fit`` trains; defaults are the authors' for MIRFlickr (ascmr.md sections 1.1, 1.2 and 4).

    class_vectors: (C, w) a vector for each class's name, GloVe with the authors; without it, one-hot rows (ours).
    """

    width: int = option(1024, "numbers in an embedded row", low=2)
    layers: int = option(5, "layers of the label encoder", low=1, high=50)
    encoder: str = option("gcn", "kind of these layers", choices=ENCODERS)
    threshold: float = option(0.4, "share of a class's pairs that makes another class its neighbour", low=0.0)
    text_hidden: int = option(512, "hidden numbers of the decoder towards text", low=1)
    image_hidden: int = option(2048, "hidden numbers of the decoder towards image", low=1)
    alpha: float = option(0.3, "weight of the similarity loss", low=0.0)
    beta: float = option(0.2, "weight of the adversarial loss", low=0.0)
    learning_rate: float = option(5e-5, "of Adam", low=0.0)
    epochs: int = option(1000, "at most", low=0)
    batch: int = option(64, "pairs a step", low=1)
    patience: int = option(10, "epochs without a better value before stopping", low=1)
    held_out: float = option(0.2, "part of the labelled pairs that decides when to stop", low=0.0, high=0.5)
    compat: bool = option(False, "counts of labels as they are: no smoothing, shared labels not clipped at 1")
    class_vectors: np.ndarray | None = field(default=None, compare=False)

    def plan(self) -> TrainingPlan:
        """The part that the training loop needs."""
        return TrainingPlan(
            self.alpha,
            self.beta,
            self.learning_rate,
            self.epochs,
            self.batch,
            self.patience,
            self.held_out,
            clip_shared=not self.compat,
        )


@dataclass(frozen=True)
class AscmrNetwork:
    """Two branches ReLU(W x + b) whose class prototypes come from a graph of the labels (``ascmr_network``).

    Network, losses and optimiser are the authors'. Ours, and different (ascmr.md section 5): label co-occurrence is
    counted on the labelled pairs of the round, with add-one smoothing; shared labels are clipped at 1; a part of the
    labelled pairs, and not the test set, decides when to stop, and the best weights are restored; embedded rows have
    length 1, those of an absent modality are zero, and only pairs with both modalities train. ``compat`` takes the
    first two back. A round restarts unless it is given ``start``, the model of the round before, whose weights the
    authors carry over. No figure of the paper is claimed to follow.
    """

    shape: NetworkShape
    weights: Mapping[str, np.ndarray]
    words: np.ndarray
    graph: np.ndarray
    epochs: int
    head: LateFusionHead = field(repr=False)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Image and text."""
        return tuple(BRANCHES)

    @property
    def width(self) -> int:
        """Numbers in an embedded row."""
        return self.shape.width

    # -- training ------------------------------------------------------------------------------------------------

    @classmethod
    def fit(
        cls,
        features: Mapping[str, np.ndarray],
        labels: np.ndarray,
        *,
        seed: int = 0,
        labelled: np.ndarray | None = None,
        options: AscmrOptions | None = None,
        start: AscmrNetwork | None = None,
    ) -> AscmrNetwork:
        """Train on the labelled pairs that have both modalities; features and labels as ``TwoBranchHead.fit``.

        seed: weights, order of the pairs, and which of them are held out; start: weights to go on from, where their
        shapes fit. Raises LabelsInvalid, FeaturesMismatch, InvalidRetrievalOption and RetrievalTrainingFailed.
        """
        options = options or AscmrOptions()
        if set(features) != set(BRANCHES):
            raise FeaturesMismatch(
                f"features are {sorted(features)}; the network is made for exactly {sorted(BRANCHES)}"
            )
        rows = TrainingRows.of(features, labels, labelled)
        words = _words(options.class_vectors, rows.n_classes)
        shape = NetworkShape(
            image=rows.blocks["image"].shape[1],
            text=rows.blocks["text"].shape[1],
            words=words.shape[1],
            classes=rows.n_classes,
            width=options.width,
            layers=options.layers,
            encoder=options.encoder,
            text_hidden=options.text_hidden,
            image_hidden=options.image_hidden,
        )
        graph = LabelGraph.of_labels(rows.labels, options.threshold, smoothing=0.0 if options.compat else 1.0)
        begin = start.weights if start is not None and start.shape == shape else None
        blocks = {name: block[rows.complete].astype(np.float32) for name, block in rows.blocks.items()}
        truth = rows.labels[rows.complete]
        trained = train(shape, blocks, truth, words, graph.normalised, options.plan(), begin, seed)
        head = _head(trained, blocks, truth)
        return cls(shape, trained.weights, words, graph.normalised, trained.epochs, head)

    # -- inference (numpy alone) ---------------------------------------------------------------------------------

    def embed(self, features: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """modality -> (n, D) float32 unit rows of the shared space, zero rows where the modality is absent (or no
        ReLU of the branch is active). Read in chunks. Raises FeaturesMismatch."""
        for name, matrix in features.items():
            if name not in BRANCHES:
                raise FeaturesMismatch(f"modality {name!r} is not one of the model's {list(BRANCHES)}; rename it")
            wanted = getattr(self.shape, name)
            if matrix.ndim != 2 or matrix.shape[1] != wanted:
                raise FeaturesMismatch(
                    f"features[{name!r}] has shape {matrix.shape}, the model needs (n, {wanted}); "
                    "encode the records with the encoder the model was trained on"
                )
        return {name: embedded(self.weights, name, matrix) for name, matrix in features.items()}

    # -- persistence ---------------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """Arrays and metadata strings that rebuild the model exactly (safetensors holds both)."""
        arrays = {**part_named("network", self.weights), "words": self.words, "graph": self.graph}
        told = {"shape": json.dumps(asdict(self.shape)), "epochs": json.dumps(self.epochs)}
        return state_with_head(KIND, self.head, arrays, told)

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> AscmrNetwork:
        """Inverse of ``state``; raises HeadStateInvalid."""
        with rebuilding(KIND, metadata):
            shape = NetworkShape(**json.loads(metadata["shape"]))
            return cls(
                shape,
                {name: np.asarray(arrays[f"network.{name}"]) for name in shape.weight_names()},
                np.asarray(arrays["words"]),
                np.asarray(arrays["graph"]),
                int(json.loads(metadata["epochs"])),
                saved_head(arrays, metadata),
            )


def embedded(weights: Mapping[str, np.ndarray], modality: str, matrix: np.ndarray) -> np.ndarray:
    """(n, D) float32 unit rows of one branch; zero rows stay zero."""
    name = BRANCHES[modality]
    turned, bias = np.ascontiguousarray(weights[f"{name}.weight"].T), weights[f"{name}.bias"]
    out = np.empty((len(matrix), turned.shape[1]), dtype=np.float32)
    for begin in range(0, len(matrix), CHUNK_ROWS):
        rows = single(matrix[begin : begin + CHUNK_ROWS])
        part = out[begin : begin + CHUNK_ROWS]
        np.maximum(rows @ turned + bias, 0.0, out=part)
        part[~rows.any(axis=1)] = 0.0
        length = np.linalg.norm(part, axis=1, keepdims=True)
        part /= np.where(length > 0, length, 1.0)
    return out


def _head(trained: Trained, blocks: Mapping[str, np.ndarray], labels: np.ndarray) -> LateFusionHead:
    """Calibrated on the pairs held out, on all where there are too few."""
    rows = trained.held_out if len(trained.held_out) else np.arange(len(labels))
    cosines = {
        name: embedded(trained.weights, name, block[rows]) @ trained.prototypes.T for name, block in blocks.items()
    }
    known = np.ones(labels[rows].shape, dtype=bool)
    return cosine_head(trained.prototypes, cosines, labels[rows], known, np.any(labels, axis=0))


def _words(vectors: np.ndarray | None, n_classes: int) -> np.ndarray:
    if vectors is None:
        return np.eye(n_classes, dtype=np.float32)
    words = np.asarray(vectors, dtype=np.float32)
    if words.ndim != 2 or len(words) != n_classes or not np.isfinite(words).all():
        raise InvalidRetrievalOption(
            f"class_vectors have shape {words.shape}; pass ({n_classes}, w) finite numbers, one row per class"
        )
    return words
