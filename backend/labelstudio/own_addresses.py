"""Which webhooks and connections of a project are ours, those from before this backend moved among them."""

from __future__ import annotations

from collections.abc import Iterable

from backend.labelstudio.records import Webhook


def own_addresses(hooks: Iterable[Webhook], backend_url: str, secret: str, former: str = "") -> list[str]:
    """Where Label Studio has or had this backend: now, at the last attach, and by our webhooks; the first is now.

    Parameters
    ----------
    secret : what our webhooks carry, and nobody else's; empty: it is not known
    former : the address of the last attach; empty: there was none
    """
    sent_to = [hook.url.rstrip("/").removesuffix("/events") for hook in hooks if carries(hook, secret)]
    return list(dict.fromkeys(url.rstrip("/") for url in (backend_url, former, *sent_to) if url))


def carries(hook: Webhook, secret: str) -> bool:
    """Whether the webhook sends this secret along."""
    return bool(secret) and hook.headers.get("Authorization") == f"Bearer {secret}"


def is_at(url: str, addresses: Iterable[str], path: str = "") -> bool:
    """Whether an address is one of these, each with the path behind it."""
    return url.rstrip("/") in {f"{address.rstrip('/')}{path}" for address in addresses}
