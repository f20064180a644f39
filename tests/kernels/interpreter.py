"""Interpreted twins: the Triton files of kaleido_fast.kernels, run on CPU tensors in plain Python.

A kernel is compiled or interpreted from the moment it is decorated. So a twin is the file loaded a second time
under the interpreter's knob, and with it every `*_triton` file it imports; the real modules stay as they are and
can still be built ahead of time. Only files named `*_triton` are loaded twice: they register nothing.
"""

import functools
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType, ModuleType, SimpleNamespace

import triton.language as tl
from triton import knobs
from triton.runtime import interpreter
from triton.runtime.jit import JITFunction

PACKAGE = "kaleido_fast.kernels"


@functools.cache
def interpreted(name: str, package: str = PACKAGE) -> ModuleType:
    """The interpreted twin of one file, `interpreted("cut_triton").cut_triton(...)`; one for the whole process.

    Raises:
        ValueError: the file is not a `*_triton` one, and might register operators.
    """
    return load_twin(name, {}, package)


def load_twin(name: str, sources: Mapping[str, Path], package: str = PACKAGE) -> ModuleType:
    """A new twin of `name`; files named in `sources` are read from there (mutations.py breaks them so)."""
    if not name.endswith("_triton"):
        raise ValueError(f"interpreter: {name} must be a *_triton file; only those register nothing when loaded twice")
    importlib.import_module(f"{package}.{name}")  # what it needs besides: loaded once, never with twins inside
    finder = _Sources({f"{package}.{key}": path for key, path in sources.items()})
    with (
        _without_triton_files(package), swapped(interpreter, "InterpretedFunction", InterpretedKernel),
        swapped(sys, "meta_path", [finder, *sys.meta_path]), knobs.runtime.scope(),
    ):
        knobs.runtime.interpret = True
        return importlib.import_module(f"{package}.{name}")


class InterpretedKernel(interpreter.InterpretedFunction):
    """An interpreted kernel that can call triton's own helpers, which were decorated when triton was imported."""

    def run(self, *args: object, grid: tuple[int, ...], warmup: bool, **kwargs: object) -> None:
        with swapped(JITFunction, "__call__", lambda helper, *a, **k: _interpreted_helper(helper.fn)(*a, **k)):
            scope = interpreter._patch_lang(SimpleNamespace(__globals__={"tl": tl, "core": tl.core}))
            try:
                super().run(*args, grid=grid, warmup=warmup, **kwargs)
            finally:
                scope.restore()

    def __call__(self, *args: object, **kwargs: object) -> object:
        return self.rewrite()(*args, **kwargs)  # the base class patches the language anew at every call: 2 ms


@functools.cache
def _interpreted_helper(function: FunctionType) -> InterpretedKernel:
    # With globals of its own: the interpreter writes its names into a function's globals.
    return InterpretedKernel(FunctionType(function.__code__, dict(function.__globals__), function.__name__,
                                function.__defaults__, function.__closure__))


class _Sources:
    """Finds modules in files of our choice."""

    def __init__(self, sources: Mapping[str, Path]) -> None:
        self.sources = sources

    def find_spec(self, name: str, path: object = None, target: object = None) -> object:
        if name not in self.sources:
            return None
        return importlib.util.spec_from_file_location(name, self.sources[name])


@contextmanager
def _without_triton_files(package: str) -> Iterator[None]:
    """Inside, importing a `*_triton` file loads it anew; after, the real ones are back."""
    namespace = vars(importlib.import_module(package))
    real, attributes = {name: sys.modules.pop(name) for name in _triton_files(package)}, dict(namespace)
    try:
        yield
    finally:
        for name in _triton_files(package):
            del sys.modules[name]
            namespace.pop(name.rpartition(".")[2], None)
        sys.modules.update(real)
        namespace.update(attributes)


def _triton_files(package: str) -> list[str]:
    return [name for name in sys.modules if name.startswith(f"{package}.") and name.endswith("_triton")]


@contextmanager
def swapped(owner: object, name: str, value: object) -> Iterator[None]:
    """Give an attribute another value for a while."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
