"""Set a project up for active learning in one call: create, import, connect, order. Safe to run twice.

    python scripts/setup_project.py --template image_text_classification \\
        --tasks tasks.json --labels labels.txt --strategy bmmal

LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY say where; the backend must be running (`mmal serve`), with the same
MMAL_DATA_DIR. `mmal project create` is the same thing.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from backend.errors import MmalError
from backend.rounds.creating import create_project
from backend.rounds.services import Services
from backend.settings import load_settings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--template", required=True)
    parser.add_argument("--tasks", type=Path)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--title", default="")
    parser.add_argument("--strategy", help="default: the one for the template")
    parser.add_argument("--batch-size", type=int, help="default: 40")
    given = parser.parse_args()
    try:
        services = Services(load_settings())
        project = create_project(
            services,
            given.template,
            tasks_file=given.tasks,
            labels_file=given.labels,
            title=given.title,
            options={"strategy": given.strategy, "batch_size": given.batch_size},
        )
    except MmalError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    print(f"{services.settings.label_studio_url}/projects/{project.id}/data")
    return 0


if __name__ == "__main__":
    sys.exit(main())
