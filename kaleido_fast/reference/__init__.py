"""The plain path: padded to T, eager, one module after the other, no operators of ours. Parity and benchmarks compare with it."""
