"""The arrows between rooms go down only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

BACKEND = Path(__file__).parents[1] / "backend"
ROOMS = ("encoders", "labelstudio", "learners", "rounds", "server", "simulation", "store", "strategies")
# What a room may import of this project, besides itself and what every room may.
EVERYWHERE = {"errors", "json_reading", "blas_threads", "checked_options", "half_precision"}
ALLOWED = {
    "learners": set(),
    "strategies": set(),
    "encoders": {"settings"},
    "labelstudio": {"settings"},
    "store": {"settings"},
    "simulation": {"learners", "strategies", "encoders", "labelstudio"},
    "rounds": {"labelstudio", "store", "encoders", "learners", "strategies", "settings", "logs"},
    "server": {"logs", "model", "rounds", "store", "settings", "strategies"},
}
PURE = {"numpy", "scipy", "torch", "sklearn", "safetensors"}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write absolute imports"
            yield node.module or ""


def files(room: str) -> list[Path]:
    return sorted((BACKEND / room).rglob("*.py"))


def test_every_folder_is_a_known_room() -> None:
    folders = {path.name for path in BACKEND.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_the_rooms_below_it(room: str) -> None:
    assert files(room)
    for path in files(room):
        used = {name.split(".")[1] for name in imports(path) if name.startswith("backend.")}
        assert used - {room, *EVERYWHERE} <= ALLOWED[room], path


@pytest.mark.parametrize("room", ["learners", "strategies"])
def test_learners_and_strategies_are_arrays_in_arrays_out(room: str) -> None:
    import sys

    for path in files(room):
        outside = {name.split(".")[0] for name in imports(path)} - {"backend", *sys.stdlib_module_names}
        assert outside <= PURE, path


def test_no_file_is_longer_than_it_can_be_read() -> None:
    long = {
        str(p.relative_to(BACKEND)): n for p in BACKEND.rglob("*.py") if (n := len(p.read_text().splitlines())) > 450
    }
    assert not long


def used_names(path: Path) -> Iterator[str]:
    """Names that a file reads, and strings that may be one: what an entry point or a getattr is given."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def defined_for_others(path: Path, own_classes: set[str]) -> Iterator[str]:
    """Public functions, classes and methods without a decorator that registers them; no methods of a class that
    extends one of another library, which calls them itself."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not (
            isinstance(node, ast.FunctionDef) and node.decorator_list
        ):
            yield node.name
        if isinstance(node, ast.ClassDef) and {ast.unparse(base).split("[")[0] for base in node.bases} <= own_classes:
            yield from (method.name for method in node.body if isinstance(method, ast.FunctionDef))


def test_what_only_tests_call_is_no_part_of_the_product() -> None:
    product = [path for path in BACKEND.rglob("*.py") if "migrations" not in path.parts]
    beside = [*(BACKEND.parent / "scripts").rglob("*.py"), *(BACKEND.parent / "benchmarks").rglob("*.py")]
    used = {name for path in (*product, *beside) for name in used_names(path)}
    classes = {
        node.name for path in product for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)
    }
    uncalled = {
        (path.relative_to(BACKEND).as_posix(), name)
        for path in product
        for name in defined_for_others(path, classes)
        if not name.startswith("_") and name not in used
    }
    assert not uncalled, "move to tests/reference, or remove"
