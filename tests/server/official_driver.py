"""Runs requests through the official server in a process of its own and tells what it did to the model.

A process, because `backend.model` chooses its base class when it is imported. Reads requests as JSON, writes replies
and calls as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

from backend._wsgi import official_app
from backend.rounds.answering import Answerer
from backend.settings import load_settings
from backend.store import events, notes

HOOKS = ("set_extra_params", "get", "predict", "fit")


def main() -> None:
    app = official_app(load_settings())
    from label_studio_ml import api
    from label_studio_ml.model import LabelStudioMLBase

    calls: list[Any] = []
    api.MODEL_CLASS = recording(api.MODEL_CLASS, calls)
    store = api.MODEL_CLASS().services.store
    replies = []
    for request in json.load(sys.stdin):
        calls.clear()
        fault = patch.object(Answerer, "answer", side_effect=OSError("/srv/secret")) if request.get("fault") else None
        headers = {"Authorization": f"Bearer {notes.events_secret(store)}"} if request["path"] == "/events" else {}
        body = {"data": request["text"]} if "text" in request else {"json": request.get("body")}
        with fault or nullcontext():
            answer = app.test_client().open(
                request["path"], method=request["method"], headers=headers, content_type="application/json", **body
            )
        last, noted = events.peek(store)
        events.forget(store, last)
        replies.append(
            {
                "status": answer.status,
                "body": answer.get_json(),
                "calls": list(calls),
                "noted": [action for actions in noted.values() for action in actions],
            }
        )
    derived = issubclass(api.MODEL_CLASS, LabelStudioMLBase)
    json.dump({"replies": replies, "derived": derived}, sys.stdout)


def recording(model_class: type, calls: list[Any]) -> type:
    def recorded(name: str) -> Callable[..., Any]:
        def call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            calls.append([name, list(args), kwargs])
            return getattr(model_class, name)(self, *args, **kwargs)

        return call

    return type(model_class.__name__, (model_class,), {name: recorded(name) for name in ("__init__", *HOOKS)})


if __name__ == "__main__":
    main()
