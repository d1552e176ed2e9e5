"""What encoders do in a second on a device, where the time goes, and how far their vectors are from the CPU's.

    python -m benchmarks.encoder_speed                          # JSON on stdout, Markdown tables on stderr
    python -m benchmarks.encoder_speed --device cuda --encoder packaged open_clip:ViT-B-32:/models/b32.pt --items 2048
    python -m benchmarks.encoder_speed --batches 32 64 128 256 512 1024   # the tower alone, both precisions

Pictures are parts of two photographs that scikit-learn ships, cut at random places and scaled to sizes that are usual
in labelling (500 x 375 to 1600 x 1200), decoded beforehand; texts are sentences of 3 to 60 words. "whole" is
``encode_images`` or ``encode_texts`` with ``--call`` items a call, as the worker calls it (MMAL_ENCODE_BATCH);
"prepared" scales pictures or tokenizes only; "tower" starts from what is prepared. Each is the best of ``--repeats``.
The shift is the largest change of a cosine among and between rows against float32 vectors made on the CPU.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from backend.encoders import load_encoder
from backend.encoders.open_clip_encoder import OpenClipEncoder
from backend.errors import EncoderUnavailable

SIZES = ((500, 375), (640, 480), (768, 1024), (1024, 768), (1600, 1200))
VOCABULARY = (
    "the a red old small station house on with of engine map river two women market in front crowd stone by night "
    "1930 boat harbour dog runs after child blue window portrait unknown tree snow mountain behind letter and table"
)
MODALITIES = ("image", "text")


def pictures(count: int) -> list[Image.Image]:
    """Parts of two photographs, decoded; seed 0."""
    rng = np.random.default_rng(0)
    photographs = [Image.fromarray(array) for array in load_sample_images().images]
    made = []
    for number in range(count):
        source = photographs[number % len(photographs)]
        width, height = (int(side * rng.uniform(0.25, 1.0)) for side in source.size)
        left, top = int(rng.uniform(0, source.width - width)), int(rng.uniform(0, source.height - height))
        made.append(source.resize(SIZES[rng.integers(len(SIZES))], box=(left, top, left + width, top + height)))
    return made


def sentences(count: int) -> list[str]:
    """Texts of 3 to 60 words, short ones more often; seed 0."""
    rng = np.random.default_rng(0)
    lengths = (3 * 20 ** rng.random(count)).astype(int)
    return [" ".join(rng.choice(VOCABULARY.split(), length)) for length in lengths]


def best_pace(work: Callable[[], object], items: int, device: torch.device, repeats: int) -> float:
    """Items a second of the fastest of ``repeats`` runs after one that only warms up."""
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return round(items / min(seconds[1:]), 1)


def in_calls(encode: Callable[[Any], object], items: Sequence[Any], size: int) -> Callable[[], object]:
    """Work that encodes ``size`` items a call."""
    return lambda: [encode(items[at : at + size]) for at in range(0, len(items), size)]


def largest_shift(own: np.ndarray, reference: np.ndarray) -> float:
    """The largest change of a cosine among own rows, and between own and reference rows."""
    exact = reference @ reference.T
    return round(float(max(np.abs(own @ own.T - exact).max(), np.abs(reference @ own.T - exact).max())), 6)


def prepared(encoder: OpenClipEncoder, modality: str, items: Sequence[Any], size: int) -> list[torch.Tensor]:
    """What the tower takes, in batches."""
    if modality == "image":
        return list(encoder.prepare.batches(items, size))
    # As the encoder does it: texts of like length together.
    ordered = sorted(items, key=len)
    return [encoder.tokenize(ordered[at : at + size]) for at in range(0, len(ordered), size)]


def measure(
    encoder: OpenClipEncoder, modality: str, items: Sequence[Any], args: argparse.Namespace
) -> dict[str, Any]:
    """Paces of one modality at the precision and the batch that the encoder chose."""
    encode = encoder.encode_images if modality == "image" else encoder.encode_texts
    size = min(args.call, encoder.batch[modality])

    def pace(work: Callable[[], object]) -> float:
        return best_pace(work, len(items), encoder.device, args.repeats)

    found: dict[str, Any] = {
        "modality": modality,
        "precision": "bf16" if encoder.bf16[modality] else "fp32",
        "batch": encoder.batch[modality],
        "call": args.call,
        "whole": pace(in_calls(encode, items, args.call)),
        "whole_in_one_call": pace(lambda: encode(items)),
        "prepared": pace(lambda: prepared(encoder, modality, items, size)),
    }
    ready = prepared(encoder, modality, items, size)
    found["tower"] = pace(lambda: [encoder.run(modality, batch) for batch in ready])
    return found


def sweep(encoder: OpenClipEncoder, modality: str, items: Sequence[Any], args: argparse.Namespace) -> dict[str, Any]:
    """Paces of the tower alone: batch size -> precision -> items a second."""
    chosen = encoder.batch[modality], encoder.bf16[modality]
    found: dict[str, Any] = {}
    for size in args.batches:
        ready = prepared(encoder, modality, items[:size], size)[0]
        times = max(1, len(items) // len(ready))
        for precision in ("fp32", "bf16"):
            encoder.batch[modality], encoder.bf16[modality] = size, precision == "bf16"

            def work(batch: torch.Tensor = ready, times: int = times) -> None:
                for _ in range(times):
                    encoder.run(modality, batch)

            found.setdefault(str(size), {})[precision] = best_pace(
                work, len(ready) * times, encoder.device, args.repeats
            )
            if encoder.batch[modality] < size:
                found[str(size)][precision] = None  # out of memory: halved
    encoder.batch[modality], encoder.bf16[modality] = chosen
    return found


def report(spec: str, items: dict[str, Sequence[Any]], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Figures of one encoder, a line for each modality."""
    began = time.perf_counter()
    encoder = load_encoder(spec, device=args.device)
    loaded = round(time.perf_counter() - began, 1)
    if not isinstance(encoder, OpenClipEncoder):
        raise EncoderUnavailable(f"--encoder {spec}: only the packaged encoder and open_clip's are measured.")
    exact = load_encoder(spec, device="cpu")
    assert isinstance(exact, OpenClipEncoder)
    exact.bf16 = dict.fromkeys(MODALITIES, False)
    lines = []
    for modality, sample in items.items():
        name = f"encode_{modality}s"
        few = list(islice(sample, args.compared))
        own, reference = (getattr(one, name)(few) for one in (encoder, exact))
        encoder.bf16[modality], chosen = not encoder.bf16[modality], encoder.bf16[modality]
        other = getattr(encoder, name)(few)
        encoder.bf16[modality] = chosen
        line = {"encoder": spec, "device": encoder.device.type, "load_s": loaded}
        line |= measure(encoder, modality, sample, args)
        line |= {"shift": largest_shift(own, reference), "shift_other": largest_shift(other, reference)}
        if args.batches:
            line["towers"] = sweep(encoder, modality, sample, args)
        lines.append(line)
    return lines


def print_tables(lines: list[dict[str, Any]]) -> None:
    """Markdown on stderr."""

    def show(*cells: object) -> None:
        print("| " + " | ".join(str(cell) for cell in cells) + " |", file=sys.stderr)

    heads = (
        "encoder", "modality", "precision", "batch", "a call", "whole", "in one call", "prepared", "tower", "shift",
        "shift at the other precision",
    )  # fmt: skip
    show(*heads)
    print("|---" * len(heads) + "|", file=sys.stderr)
    keys = ("modality", "precision", "batch", "call", "whole", "whole_in_one_call", "prepared", "tower")
    for line in lines:
        show(line["encoder"].split("/")[0], *(line[key] for key in keys), line["shift"], line["shift_other"])
    for line in lines:
        for size, paces in line.get("towers", {}).items():
            show(line["encoder"].split("/")[0], line["modality"], size, paces["fp32"], paces["bf16"])


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="as MMAL_DEVICE")
    parser.add_argument("--encoder", nargs="+", default=["packaged"], help="as MMAL_ENCODER, one or more")
    parser.add_argument("--items", type=int, default=256, help="pictures, and texts")
    parser.add_argument("--call", type=int, default=32, help="items a call, as MMAL_ENCODE_BATCH")
    parser.add_argument("--compared", type=int, default=64, help="of these, how many are compared with the CPU")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="*", default=[], help="sizes for the tower alone")
    args = parser.parse_args()
    items: dict[str, Sequence[Any]] = {"image": pictures(args.items), "text": sentences(args.items)}
    lines = [line for spec in args.encoder for line in report(spec, items, args)]
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    machine = {"card": card, "processor": platform.machine(), "threads": torch.get_num_threads()}
    print(json.dumps({"machine": machine, "torch": torch.__version__, "encoders": lines}, indent=1))
    print_tables(lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
