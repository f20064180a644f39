"""Interpreted twins: the Triton files of kaleido_fast.kernels, run on CPU tensors in plain Python.

A kernel is compiled or interpreted from the moment it is decorated. So a twin is the file loaded a second time
under the interpreter's knob, and with it every `*_triton` file it imports; the real modules stay as they are and
can still be built ahead of time. Only files named `*_triton` are loaded twice: they register nothing.
"""

import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType, ModuleType, SimpleNamespace

import numpy as np
import triton.compiler.code_generator  # before a kernel runs: see InterpretedKernel
import triton.experimental.gluon  # noqa: F401  as well
import triton.language as tl
from triton import knobs
from triton.language import random
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
    """An interpreted kernel that can call triton's own helpers, which were decorated when triton was imported.

    While it runs, the interpreter's functions stand in for the language's. A module that is first imported then keeps them for
    the whole process, also after they are taken back: so did the compiler, whose `min` then failed in every later build.
    """

    def run(self, *args: object, grid: tuple[int, ...], warmup: bool, **kwargs: object) -> None:
        with swapped(JITFunction, "__call__", lambda helper, *a, **k: interpreted_helper(helper)(*a, **k)):
            scope = interpreter._patch_lang(SimpleNamespace(__globals__={"tl": tl, "core": tl.core}))
            try:
                super().run(*args, grid=grid, warmup=warmup, **kwargs)
            finally:
                scope.restore()

    def __call__(self, *args: object, **kwargs: object) -> object:
        return self.rewrite()(*args, **kwargs)  # the base class patches the language anew at every call: 2 ms


def interpreted_helper(helper: JITFunction) -> Callable[..., object]:
    """Triton's own helper as interpreted kernels call it: Philox in NumPy, since interpreting it takes 107 operations."""
    return _philox if helper.fn is random.philox_impl.fn else interpret_helper(helper.fn)


@functools.cache
def interpret_helper(function: FunctionType) -> InterpretedKernel:
    """The helper, interpreted operation by operation."""
    # With globals of its own: the interpreter writes its names into a function's globals.
    return InterpretedKernel(FunctionType(function.__code__, dict(function.__globals__), function.__name__,
                                          function.__defaults__, function.__closure__))


def _philox(c0: tl.tensor, c1: tl.tensor, c2: tl.tensor, c3: tl.tensor, k0: tl.tensor, k1: tl.tensor,
            n_rounds: int = 10) -> tuple[tl.tensor, ...]:
    """triton.language.random.philox_impl on uint32 words."""
    shape = np.broadcast_shapes(*(word.shape for word in (c0, c1, c2, c3)))
    words = [word.handle.data.astype(np.uint64) for word in (c0, c1, c2, c3)]
    keys = [np.uint64(key.handle.data.item()) for key in (k0, k1)]
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    for _ in range(n_rounds):
        even, odd = words[0] * np.uint64(0xD2511F53), words[2] * np.uint64(0xCD9E8D57)
        words = [odd >> half ^ words[1] ^ keys[0], odd & low, even >> half ^ words[3] ^ keys[1], even & low]
        keys = [keys[0] + np.uint64(0x9E3779B9) & low, keys[1] + np.uint64(0xBB67AE85) & low]
    kind = tl.block_type(tl.uint32, list(shape)) if shape else tl.uint32
    full = [np.broadcast_to(word, shape or (1,)).astype(np.uint32) for word in words]
    return tuple(tl.tensor(interpreter.TensorHandle(word, tl.uint32), kind) for word in full)


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
