#!/usr/bin/env python3
"""Measures, on this machine, how long the others wait when a worker joins: the longest gap between two commits.

usage: join.py JOINS PROGRAM [flag of `train`...]      for example, from the repository's root:
       join.py 3 bin/gpt --data DIRECTORY --layers 8 --width 512 --heads 8 --global-batch 32 --micro-batch 4 --workers 2

It trains in a new directory, adds a worker JOINS times and retires it again, and prints one JSON line each: the longest
gap while the worker loads and compiles (it takes processors from the others), up to the commit after it has registered;
the longest from then, when the copy of the state begins, until three steps after it has joined; the one between the last
commit without it and the first with it; and the median step with and without it, all in seconds. Each wait ends after
10 minutes."""
import os, statistics, sys, tempfile

from training import Run, say

if len(sys.argv) < 3:
    sys.exit(__doc__)
joins, program, flags = int(sys.argv[1]), os.path.abspath(sys.argv[2]), sys.argv[3:]
directory = tempfile.mkdtemp(prefix="join-")
run = Run(program, ["--http", "", *flags], directory)


def steps(n):
    """The time of the last of n steps, and the median between them."""
    times = [run.step()[0] for _ in range(n + 1)]
    return times[-1], statistics.median(b - a for a, b in zip(times, times[1:]))


def registered():
    return len(run.status()["members"])


try:
    run.step()
    for n in range(joins):
        last, alone = steps(6)
        before, loading, joining, ready, joined = registered(), 0, 0, False, []
        run.command("scale", str(before + 1))
        while len(joined) < 4:
            at, workers = run.step()
            if ready or workers > before:
                joining = max(joining, at - last)
            else:
                loading = max(loading, at - last)
            ready = ready or registered() > before
            if workers > before and not joined:
                entering = at - last
            last = at
            if workers > before:
                joined.append(at)
        _, together = steps(6)
        say(join=n + 1, longest_gap_seconds=round(joining, 3),
            beyond_one_step_seconds=round(joining - max(alone, together), 3),
            entering_beyond_one_step_seconds=round(entering - max(alone, together), 3),
            while_it_loads_seconds=round(loading, 3), step_seconds=round(alone, 3),
            step_with_it_seconds=round(together, 3))
        run.command("scale", str(before))
        while run.step()[1] > before:
            pass
finally:
    run.stop()
print(directory)
