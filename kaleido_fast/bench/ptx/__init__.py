"""Compiled kernels run without a GPU: the PTX that Triton makes, executed in NumPy, a block of threads at a time.

    program.py     PTX text -> instructions, labels, parameters
    memory.py      global memory: regions with bounds; shared memory that reports races and unwritten bytes
    block.py       one thread block: registers of all lanes as vectors, divergence, the run
    operations.py  arithmetic; transfers.py moves, loads and stores; warp_operations.py shuffles, votes, barriers;
                   matrix_operations.py tensor cores (mma.sync)
    driver.py      a driver for Triton through which its own launch path runs on CPU tensors, into the emulator

What it cannot see: the machine code that ptxas makes of PTX, clocks, threads of different blocks meeting in memory, the last
bit of ex2, lg2, rsqrt and of tensor cores' sums.
"""
