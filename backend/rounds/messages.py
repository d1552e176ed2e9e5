"""Jobs on their way to a thread, as JSON: reading huey's own pickles would run what anybody put into the queue."""

from __future__ import annotations

import json
from typing import Any

from huey.registry import Message
from huey.serializer import Serializer

from backend.errors import JobMessageInvalid


class JsonSerializer(Serializer):
    """A job's name and numbers. Jobs of ours have neither a date nor a follow-up, and nothing else is taken."""

    def _serialize(self, data: Any) -> bytes:
        if not isinstance(data, Message):
            raise JobMessageInvalid(f"{type(data).__name__} is no job: results and locks are not kept in the queue")
        return json.dumps({name: value for name, value in data._asdict().items() if value is not None}).encode()

    def _deserialize(self, data: bytes) -> Message:
        try:
            fields = json.loads(data)
            return Message(**{**fields, "args": tuple(fields["args"]), "kwargs": dict(fields["kwargs"])})
        except (ValueError, TypeError, KeyError, RecursionError):
            raise JobMessageInvalid("The queue holds something that is no job of this backend; left out") from None
