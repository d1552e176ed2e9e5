"""A real browser signed in to Label Studio, and pictures of what it shows."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, Request, Response, sync_playwright

from backend.labelstudio.local_server import LocalLabelStudio

PICTURES = Path(__file__).resolve().parents[2] / "docs" / "images"
QUIET = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


@contextmanager
def signed_in(server: LocalLabelStudio) -> Iterator[Page]:
    """A page of the admin; a missing browser is a failure, never a skip."""
    chromium = os.environ.get("MMAL_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.fail("This test needs a browser: install chromium, or set MMAL_CHROMIUM to one", pytrace=False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=QUIET)
        page = browser.new_context(viewport={"width": 1200, "height": 640}).new_page()
        page.goto(f"{server.url}/user/login/")
        page.fill("input[name=email]", server.admin.email)
        page.fill("input[name=password]", server.admin.password)
        page.keyboard.press("Enter")
        page.wait_for_url(lambda url: "login" not in url)
        page.wait_for_load_state("networkidle")
        yield page
        browser.close()


def is_next_task(event: Request | Response) -> bool:
    """The call by which the label stream gets its next task."""
    return "id=next_task" in event.url


def keep_picture(page: Page, name: str) -> None:
    """Write docs/images/NAME.png when MMAL_SCREENSHOTS is set."""
    if os.environ.get("MMAL_SCREENSHOTS"):
        picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        picture.save(PICTURES / f"{name}.png", optimize=True)
