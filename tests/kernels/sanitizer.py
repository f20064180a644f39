"""triton-viz's sanitizer: looks symbolically for addresses out of bounds, in all programs of a launch at once.

It cannot follow Philox, `tl.sort` and loops with a loaded bound, and an address inside another of the launch's
tensors may pass: there `guards.py` helps.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType

from triton.runtime.interpreter import ASTTransformer

from tests.kernels.interpreter import swapped


def sanitize(kernel: object, grid: tuple[int, ...], *args: object, **kwargs: object) -> list[object]:
    """The violations of one launch; nothing is written to its outputs.

    Args:
        kernel: compiled or interpreted.
    """
    # Imported here: it takes a second that no other test needs.
    deepest = sys.getrecursionlimit()
    import triton_viz
    from triton_viz.clients import Sanitizer
    from triton_viz.clients.sanitizer import sanitizer

    sys.setrecursionlimit(deepest)  # the package raises it so far that deep JSON would overflow the stack in other tests

    sanitizer._fn_symbolic_cache_set.clear()  # else a kernel seen before passes, whatever the indices it loads
    client = Sanitizer(abort_on_error=False)
    try:
        triton_viz.trace(client=client)(kernel)[grid](*args, **kwargs)
    finally:
        if "visit_For" in vars(ASTTransformer):  # left behind, it would break every kernel with a loop
            del ASTTransformer.visit_For
    return client.records


@contextmanager
def sanitized(module: ModuleType, *kernels: str) -> Iterator[list[object]]:
    """Inside, launches of these kernels of `module` are checked and compute nothing; gives their violations."""
    violations: list[object] = []
    with ExitStack() as stack:
        for name in kernels:
            stack.enter_context(swapped(module, name, _Checked(getattr(module, name), violations)))
        yield violations


class _Checked:
    def __init__(self, kernel: object, violations: list[object]) -> None:
        self.kernel, self.violations = kernel, violations

    def __getitem__(self, grid: tuple[int, ...]) -> object:
        return lambda *args, **kwargs: self.violations.extend(sanitize(self.kernel, grid, *args, **kwargs))
