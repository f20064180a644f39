"""The plain path: padded to T, eager, one module after the other, no operators of ours; what parity is held against."""
