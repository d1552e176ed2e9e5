"""Switch the acquisition strategy of a project with nothing but the Label Studio SDK.

    python scripts/switch_strategy.py --project 3 bmmal --batch-size 40

Writes the extra parameters of the model connection, as Settings > Model > Edit does. Label Studio asks the
backend first: a name or option that does not exist is refused with the list of those that do.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

from label_studio_sdk.client import LabelStudio
from label_studio_sdk.core.api_error import ApiError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("strategy")
    parser.add_argument("--project", type=int, required=True)
    parser.add_argument("--batch-size", type=int)
    given = parser.parse_args()
    studio = LabelStudio(base_url=os.environ["LABEL_STUDIO_URL"], api_key=os.environ["LABEL_STUDIO_API_KEY"])
    connections = [backend for backend in studio.ml.list(project=given.project) if backend.title == "mmal"]
    if not connections:
        print(f"project {given.project} has no model called 'mmal'; run scripts/setup_project.py", file=sys.stderr)
        return 2
    # After a move an old one may be left, which does not answer.
    backend = min(connections, key=lambda one: one.state != "CO")
    # What was set before stays, except options of the strategy before.
    options = {**_read(backend.extra_params), "strategy": given.strategy}
    options.pop("strategy_options", None)
    if given.batch_size:
        options["batch_size"] = given.batch_size
    # It asks with what is sent, and fills in a blank password only.
    user = {"basic_auth_user": backend.basic_auth_user, "basic_auth_pass": ""}
    credentials = {"auth_method": "BASIC_AUTH", **user} if backend.auth_method == "BASIC_AUTH" else {}
    try:
        # All three of url, project and title must be sent each time.
        studio.ml.update(
            id=backend.id,
            url=backend.url,
            project=given.project,
            title=backend.title,
            # Text, because the settings page cannot show an object.
            extra_params=json.dumps(options),
            **credentials,
        )
    except ApiError as error:
        print(f"refused: {error.body}", file=sys.stderr)
        return 1
    print(f"project {given.project}: {options}")
    return 0


def _read(stored: object) -> dict[str, object]:
    """Options as Label Studio keeps them: text, an object, or what somebody mistyped, which counts as none."""
    try:
        options = json.loads(stored) if isinstance(stored, str) else stored
    except json.JSONDecodeError:
        options = None
    return dict(options) if isinstance(options, dict) else {}


if __name__ == "__main__":
    sys.exit(main())
