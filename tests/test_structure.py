"""Who imports whom, read from the source: floors that imports run down, no cycles, one door for a heavy package, files and
folders that can be held in the head. Imports inside functions count as those at a file's head.
"""

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from tests.places import REPO

Graph = Mapping[str, set[str]]

# From the top down. A file or folder of kaleido_fast imports from its own floor (in one direction: no rings) and from those
# below; what is named in no floor is a leaf, which everybody may import and which imports nothing of ours.
FLOORS = (
    ("__init__", "__main__", "cli", "verbs", "verbs_ablate", "verbs_exports", "verbs_finetune", "verbs_search", "verbs_serve",
     "api", "batched_model", "loading", "catalogue_flags"),
    ("config", "settings_table", "report"),
    ("search",),
    ("tasks", "finetune", "exports", "alignment", "parity", "bench"),
    ("training",),
    ("authors", "reference"),
    ("model",),
    ("data",),
    ("kernels",),
)
# Who may import a package that is heavy, or that another could replace: one file or folder.
DOORS = {
    "nvidia": "kaleido_fast/data/batches/dali.py",
    "xformers": "kaleido_fast/model/attention/xformers_attention.py",
    "deepspeed": "kaleido_fast/training/engine.py",
    "tokenizers": "kaleido_fast/data/shards/tokenizer.py",
    "pydantic": "kaleido_fast/config.py",
    "pyarrow": "kaleido_fast/data/catalogue/formats/arrow_tables.py",
    "h5py": "kaleido_fast/data/catalogue/formats/fashion_gen_catalogue.py",
    "tqdm": "kaleido_fast/progress_bar.py",
    "matplotlib": "kaleido_fast/report/",
    "transformers": ("kaleido_fast/bench/visualbert.py", "kaleido_fast/exports/"),
    "fastapi": "kaleido_fast/search/page/app.py",
    "starlette": "kaleido_fast/search/page/app.py",
    "uvicorn": "kaleido_fast/search/page/app.py",
    "onnx": "kaleido_fast/exports/onnx_towers.py",
    "onnxruntime": "kaleido_fast/exports/onnx_towers.py",
    "tensorboard": "kaleido_fast/training/run/tensorboard.py",
    "faiss": "kaleido_fast/search/approximate.py",
    "pycocoevalcap": "kaleido_fast/finetune/captioning/scores.py",
    "triton": ("kernels/", "kaleido_fast/bench/ptx/driver.py"),  # the emulator's driver stands where a GPU's does
}
# Packages without which kernels/ and model/ would do less; safetensors alone where weights are read and written.
LEAN = {"kernels": {"torch", "triton", "numpy"}, "kaleido_fast/model": {"torch", "numpy", "safetensors", "xformers"}}
MOST_FILES, MOST_LINES = 24, 300
FLAT = ("kernels", "tests/kernels")  # may hold more files
# What is not so yet. An entry that is no longer true must go.
KNOWN: dict[str, set[str]] = {"folders": set(), "doors": set(), "floors": set()}


def files(*folders: str) -> list[Path]:
    return [file for folder in folders for file in sorted((REPO / folder).rglob("*.py"))]


def place(file: Path) -> str:
    return str(file.relative_to(REPO))


def module(file: Path) -> str:
    """Its dotted name; kernels/ is installed as kaleido_fast.kernels."""
    name = place(file).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return f"kaleido_fast.{name}" if name.partition(".")[0] == "kernels" else name


OURS = {module(file): file for file in files("kaleido_fast", "kernels")}


@cache
def imported(file: Path) -> frozenset[str]:
    """Every module that the file imports, anywhere in it: of ours the file, of others the whole name."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{place(file)}: a relative import"
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in OURS else str(node.module) for name in inside}
    return frozenset(names)


def arrows() -> dict[str, set[str]]:
    """Module of ours to the modules of ours that it imports."""
    return {name: {other for other in imported(file) if other in OURS and other != name} for name, file in OURS.items()}


def grouped(graph: Graph, depth: int) -> dict[str, set[str]]:
    """The same between folders: names cut to `depth` parts."""
    between: dict[str, set[str]] = defaultdict(set)
    for name, others in graph.items():
        room = ".".join(name.split(".")[:depth])
        between[room] |= {".".join(other.split(".")[:depth]) for other in others} - {room}
    return between


def cycle(graph: Graph) -> list[str]:
    """Modules that import each other in a ring, the first that is met; empty without one."""
    done: set[str] = set()

    def walk(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name):], name]
        if name in done:
            return []
        for other in sorted(graph.get(name, ())):
            if ring := walk(other, [*way, name]):
                return ring
        done.add(name)
        return []

    return next((ring for name in sorted(graph) if (ring := walk(name, []))), [])


def climbs(graph: Graph) -> Iterator[str]:
    """`importer -> imported` for each import from a floor above the importer's."""
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    for name, others in graph.items():
        own = (name.split(".") + ["__init__"])[1]
        for other in others:
            theirs = other.split(".")[1] if "." in other else "__init__"
            if floor.get(theirs, len(FLOORS)) < floor.get(own, len(FLOORS)):
                yield f"{name} -> {other}"


def test_imports_run_down() -> None:
    assert set(climbs(arrows())) == KNOWN["floors"]
    wrong = {"kaleido_fast.data.itm": {"kaleido_fast.config"}, "kaleido_fast.files": {"kaleido_fast.kernels.plan"}}
    assert list(climbs(wrong)) == [
        "kaleido_fast.data.itm -> kaleido_fast.config", "kaleido_fast.files -> kaleido_fast.kernels.plan"]


def test_nothing_imports_in_a_ring() -> None:
    graph = arrows()
    assert len(graph) > 200 and not cycle(graph)
    assert not cycle(grouped(graph, 2)), "between the folders of kaleido_fast"
    data = {name: others for name, others in graph.items() if name.startswith("kaleido_fast.data.")}
    assert not cycle(grouped(data, 3)), "between the rooms of data/"
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


def test_a_heavy_package_has_one_door() -> None:
    others = {f"{name.partition('.')[0]} in {place(file)}" for file in OURS.values() for name in imported(file)
              if not place(file).startswith(DOORS.get(name.partition(".")[0], ""))}
    assert others == KNOWN["doors"]
    for package, door in DOORS.items():
        assert any(place(file).startswith(door) for file in OURS.values()), f"{package}: {door} is gone"


@pytest.mark.parametrize("folder", LEAN)
def test_it_needs_little_beside_torch(folder: str) -> None:
    needed = {name.partition(".")[0] for file in files(folder) for name in imported(file)}
    assert needed - set(sys.stdlib_module_names) - {"kaleido_fast"} <= LEAN[folder]


def test_kernels_have_one_name() -> None:
    """And kernels know nothing of ours but kernels."""
    for file in files("kaleido_fast", "kernels", "tests", "benchmarks"):
        assert not {name for name in imported(file) if name.partition(".")[0] == "kernels"}, place(file)
    others = {name for file in files("kernels") for name in imported(file) if name.startswith("kaleido_fast")}
    assert all(name.startswith("kaleido_fast.kernels") for name in others)


def test_the_engine_knows_neither_tests_nor_benchmarks() -> None:
    for file in [*OURS.values(), *files("benchmarks")]:
        unknown = ("tests",) if place(file).startswith("benchmarks") else ("tests", "benchmarks")
        assert not {name for name in imported(file) if name.partition(".")[0] in unknown}, place(file)


def test_tests_import_each_other_by_name() -> None:
    """The interpreter alone loads files by their path: it reads a kernel's file a second time."""
    by_path = re.compile(r"spec_from_file_location|SourceFileLoader|sys\.path|runpy")
    loaders = {place(file) for file in files("tests", "benchmarks") if by_path.search(file.read_text("utf-8"))}
    assert loaders == {"tests/kernels/interpreter.py", place(Path(__file__))}


def test_files_and_folders_can_be_held_in_the_head() -> None:
    everything = files("kaleido_fast", "kernels", "tests", "benchmarks")
    assert not [place(file) for file in everything if len(file.read_text("utf-8").splitlines()) > MOST_LINES]
    sizes = {place(folder): sum(file.is_file() for file in folder.iterdir()) for folder in {file.parent for file in everything}}
    assert {name for name, size in sizes.items() if size > MOST_FILES and name not in FLAT} == KNOWN["folders"]
