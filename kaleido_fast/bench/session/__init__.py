"""benchmarks/gpu_session.py in parts: a process each, with a deadline, whose figures are written when they are there.

    report.py      what a part's process writes: figures, and which of its cases begins, ends or fails
    runner.py      a part's processes seen from outside: deadlines, failures, what is left behind
    results.py     the one JSON file
    parts.py       which parts there are, in their order, and by what commands they run
    work.py        what a part does, in its own process
    drawn_store.py shards and a feature store without a photograph, for the loop
    wheels.py      what a machine without a network must be brought
"""
