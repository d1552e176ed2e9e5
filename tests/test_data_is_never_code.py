"""Nothing that is read from a file, a queue or the network is run as code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
FILES = sorted(path for room in ("backend", "scripts", "benchmarks") for path in (REPOSITORY / room).rglob("*.py"))
READERS_OF_CODE = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]


def calls(tree: ast.AST) -> Iterator[tuple[str, dict[str, object]]]:
    """("np.load", {keyword: its literal value, or the node}) of every call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            values = {k.arg or "**": getattr(k.value, "value", k.value) for k in node.keywords}
            yield ast.unparse(node.func), values


def dangers(source: str) -> list[str]:
    """What a file does that could run data as code."""
    tree = ast.parse(source)
    found = [f"imports {name}" for name in imported(tree) if name in READERS_OF_CODE]
    for name, keywords in calls(tree):
        if name == "torch.load" and keywords.get("weights_only") is not True:
            found.append("torch.load without weights_only=True")
        if keywords.get("weights_only", True) is not True:
            found.append(f"{name} with weights_only off")
        if keywords.get("allow_pickle", False) is not False:
            found.append(f"{name} with allow_pickle on")
        if name in ("eval", "exec", "os.system", "os.popen") or keywords.get("shell", False) is not False:
            found.append(name)
        if name.startswith("yaml.") and name not in ("yaml.safe_load", "yaml.safe_dump"):
            found.append(name)
        if name.endswith("Huey") and "serializer" not in keywords:
            found.append(f"{name} with its own serializer, which is pickle")
    return found


def test_no_file_of_ours_reads_anything_that_could_be_code() -> None:
    assert len(FILES) > 100
    found = {str(path.relative_to(REPOSITORY)): dangers(path.read_text()) for path in FILES}
    assert not {path: problems for path, problems in found.items() if problems}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "torch.load(path)",
        "torch.load(path, weights_only=chosen)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text)",
        "eval(text)",
        "subprocess.run(text, shell=True)",
        "SqliteHuey('x')",
    ],
)
def test_the_check_itself_sees(source: str) -> None:
    assert dangers(source)
