"""The kernels as the engine launches them, a row each: what tests audit and benchmarks/audit_kernels.py reports.

Widths are in bits. A row that no longer fits is a finding: mend the kernel, or say here why the code changed.
"""

from tests.compiled.audit import Build
from tests.compiled.builds_embed import EMBED
from tests.compiled.builds_softmax_kl import SOFTMAX_KL

BUILDS: tuple[Build, ...] = (*SOFTMAX_KL, *EMBED)
