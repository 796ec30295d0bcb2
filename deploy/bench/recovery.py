#!/usr/bin/env python3
"""Measures, on this machine, what a death, a join and a checkpoint cost a run, and the coordinator's memory.

usage: recovery.py KILLS PROGRAM [flag of `train`...]

It trains in a new directory, kills a worker (SIGKILL) KILLS times, each after four calm steps, then adds a worker,
and interrupts the run. Every figure is printed as one JSON line; gaps are between the commits of two steps."""
import os, signal, statistics, sys, tempfile, time

from training import Run, peak, say, seconds

if len(sys.argv) < 3:
    sys.exit(__doc__)
kills, program, flags = int(sys.argv[1]), os.path.abspath(sys.argv[2]), sys.argv[3:]
directory = tempfile.mkdtemp(prefix="recovery-")
run = Run(program, flags, directory)


def alive():
    return [m for m in run.status()["members"] if m["answers"]]


def calm(n):
    """The time of the last of n steps, and the median between them."""
    times = [run.step()[0] for _ in range(n + 1)]
    return times[-1], statistics.median(b - a for a, b in zip(times, times[1:]))


try:
    first, _ = run.step()
    say(what="first step", seconds=round(first - run.began, 2),
        coordinator_mib=peak(run.status()["coordinator"]["pid"]))
    gaps = []
    for n in range(kills):
        _, median = calm(3)
        # by name, so that each is killed in turn: ten short lives in a row end a worker for good
        members = sorted(alive(), key=lambda m: m["id"])
        before = run.event("step")["generation"]
        killed = time.time()
        os.kill(members[n % len(members)]["pid"], signal.SIGKILL)
        while (event := run.event("step"))["generation"] == before:
            pass
        gaps.append(seconds(event["time"]) - killed)
        say(what="kill to next commit", seconds=round(gaps[-1], 3), step_seconds=round(median, 3))
        while run.step()[1] < len(members):
            pass
    if gaps:
        gaps.sort()
        say(what="kills", count=len(gaps), p50=round(gaps[len(gaps) // 2], 3),
            p99=round(gaps[min(len(gaps) - 1, len(gaps) * 99 // 100)], 3))
    last, median = calm(3)
    before = len(alive())
    run.command("scale", str(before + 1))
    longest, joined = 0, 0
    while joined < 4:
        at, workers = run.step()
        longest, last = max(longest, at - last), at
        joined += workers > before
    now = run.status()
    say(what="join", longest_gap_seconds=round(longest, 3), step_seconds=round(median, 3))
    say(what="memory", coordinator_mib=peak(now["coordinator"]["pid"]),
        workers_mib=[peak(m["pid"]) for m in now["members"] if m.get("pid")])
finally:
    run.stop()
print(directory)
