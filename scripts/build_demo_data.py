"""Builds the demo set of 800 drawings with titles, or measures how much each modality tells about the class.

python scripts/build_demo_data.py                      # download the two Debian packages, build
python scripts/build_demo_data.py --from DIR           # packages already unpacked into DIR (dpkg -x)
python scripts/build_demo_data.py --measure            # linear probes on the set as it is
python scripts/build_demo_data.py --contact-sheet FILE # look at it
"""

from __future__ import annotations

import argparse
from pathlib import Path

from backend.simulation.demo_data import build_demo
from backend.simulation.openclipart import PACKAGES
from backend.simulation.packages import debian_packages
from backend.simulation.pairs import load_dataset
from backend.simulation.probe import contact_sheet, measure, table

TARGET = Path(__file__).resolve().parent.parent / "tasks_templates" / "image_text_classification" / "demo"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="unpacked", type=Path, help="folder with both packages unpacked")
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="where downloads and vectors are kept")
    parser.add_argument("--target", type=Path, default=TARGET)
    parser.add_argument("--measure", action="store_true", help="print linear probes of the set")
    parser.add_argument("--contact-sheet", type=Path, help="write a picture of the whole set, a row per class")
    arguments = parser.parse_args()

    if not arguments.measure and arguments.contact_sheet is None:
        unpacked = arguments.unpacked or debian_packages(PACKAGES, arguments.cache)
        rows = build_demo(unpacked, arguments.target)
        size = sum(path.stat().st_size for path in arguments.target.rglob("*") if path.is_file())
        print(f"{len(rows)} items, {size / 1e6:.2f} MB in {arguments.target}")
        return
    pairs = load_dataset(arguments.target)
    if arguments.contact_sheet is not None:
        contact_sheet(pairs).save(arguments.contact_sheet)
    if arguments.measure:
        print(table(measure(pairs, arguments.cache)))


if __name__ == "__main__":
    main()
