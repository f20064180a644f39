"""The modelling file of an exported folder: put together from the sources that this package itself runs, so that what is
exported cannot drift from them. Imports of ours fall away, since all they name stands in the same file."""

import ast
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from kaleido_fast.model.patch_encoders.interface import PatchEncoder

CATALOGUE, ENCODERS = "kaleido_fast.data.catalogue", "kaleido_fast.model.patch_encoders"
HEAD = '''"""A Kaleido-BERT exported by kaleido_fast: load it with AutoModel and AutoProcessor, trust_remote_code=True.

One file, made of kaleido_fast's own sources; it needs torch, transformers, numpy and Pillow.
"""

from __future__ import annotations

'''


class Part(NamedTuple):
    """A source file, or some definitions of it."""

    module: str
    only: tuple[str, ...] = ()


PICTURES = (Part(f"{CATALOGUE}.product", ("PhotographSource", "PhotographFile")), Part(f"{CATALOGUE}.locking"),
            Part(f"{CATALOGUE}.colour"), Part(f"{CATALOGUE}.resize"), Part(f"{CATALOGUE}.photograph"),
            Part(f"{CATALOGUE}.picture"))
MODEL = (Part("kaleido_fast.exports.towers"), Part("kaleido_fast.exports.huggingface_model"))
ANNOTATIONS = ("KaleidoSettings", "ModelSettings")  # named in annotations alone, which nobody reads at work
# What the sources of a patch encoder take from others.
SHARED = {
    "dct": (), "linear": (Part(f"{ENCODERS}.dct"),),
    **dict.fromkeys(("resnet50", "efficientnet_lite0"), (
        Part("kaleido_fast.model.settings", ("RANDOM",)), Part(f"{ENCODERS}.pretrained"), Part(f"{ENCODERS}.frozen_layers"),
        Part(f"{ENCODERS}.convolutional"))),
}


def modelling_file(encoder: type[PatchEncoder]) -> str:
    """The text of the file for models with this patch encoder."""
    parts = (*PICTURES, Part(f"{ENCODERS}.interface"), *SHARED[encoder.name], Part(encoder.__module__), *MODEL)
    return f"{_joined(parts)}\n\nPATCH_ENCODER = {encoder.__name__}\n"


def _joined(parts: Sequence[Part]) -> str:
    imports: set[str] = set()
    names: list[str] = []
    needed: set[str] = set()
    bodies = []
    for part in parts:
        file = importlib.import_module(part.module).__file__
        assert file is not None
        source = Path(file).read_text(encoding="utf-8")
        tree = ast.parse(source)
        for node in tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom) and not _is_ours(node):
                imports.add(ast.unparse(node))
            elif isinstance(node, ast.ImportFrom) and not part.only:
                needed |= {alias.name for alias in node.names}
        kept = [node for node in tree.body if _names(node) and (not part.only or set(_names(node)) & set(part.only))]
        names += [name for node in kept for name in _names(node)]
        bodies.append(f"# {part.module.removeprefix('kaleido_fast.')}\n\n{_text(source, kept, whole=not part.only)}")
    twice = {name for name in names if names.count(name) > 1}
    assert not twice, f"two definitions of {twice} in one file"
    assert not (absent := needed - {*names, *ANNOTATIONS}), f"{absent} are needed and stand in no part"
    ordered = sorted(imports, key=lambda line: (line.startswith("from"), line))
    return HEAD + "\n".join(ordered) + "\n\n\n" + "\n\n\n".join(bodies)


def _text(source: str, nodes: Sequence[ast.stmt], whole: bool) -> str:
    """The lines of these definitions; of a whole file with the comments between them."""
    lines = source.splitlines()
    spans = [(min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", []))]) - 1, node.end_lineno or 0)
             for node in nodes]
    if whole:
        first = spans[0][0]
        while lines[first - 1].startswith("#"):
            first -= 1
        return "\n".join(lines[first:])
    return "\n\n\n".join("\n".join(lines[start:end]) for start, end in spans)


def _names(node: ast.stmt) -> list[str]:
    """What a statement defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]


def _is_ours(node: ast.Import | ast.ImportFrom) -> bool:
    module = node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name
    return module.partition(".")[0] == "kaleido_fast"
