"""The paper's Table 4 as runs in turn, and the table of what came out (SPEC 11)."""
