#!/usr/bin/env python3
"""Measures, on this machine, how long the others wait when a worker joins: the longest gap between two commits.

usage: join.py JOINS PROGRAM [flag of `train`...]      for example, from the repository's root:
       join.py 3 bin/gpt --data DIRECTORY --layers 8 --width 512 --heads 8 --global-batch 32 --micro-batch 4 --workers 2

It trains in a new directory, adds a worker JOINS times and retires it again, and prints one JSON line each: the longest
gap while the worker loads and compiles (it takes processors from the others), the longest from then until three steps
after it has joined, and the median step with and without it, all in seconds. It ends after 20 minutes at the latest."""
import json, os, queue, signal, statistics, subprocess, sys, tempfile, threading, time
from datetime import datetime

if len(sys.argv) < 3:
    sys.exit(__doc__)
joins, program, flags = int(sys.argv[1]), os.path.abspath(sys.argv[2]), sys.argv[3:]
end = time.time() + 1200
directory = tempfile.mkdtemp(prefix="join-")
run = subprocess.Popen([program, "train", "--dir", directory, "-o", "json", "--http", "", *flags],
                       stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
lines = queue.Queue()


def read():
    for line in run.stdout:
        lines.put(json.loads(line))
    lines.put(None)


def step():
    """The time of the next committed step, and how many workers computed it."""
    while (event := lines.get(timeout=max(0.1, end - time.time()))) is not None:
        if event["event"] == "step":
            return datetime.fromisoformat(event["time"][:26].rstrip("Z") + "+00:00").timestamp(), event["workers"]
        if event["event"] in ("failure", "warning"):
            print(json.dumps(event), flush=True)
    sys.exit("the run has ended")


def steps(n):
    """The time of the last of n steps, and the median between them."""
    times = [step()[0] for _ in range(n + 1)]
    return times[-1], statistics.median(b - a for a, b in zip(times, times[1:]))


def registered():
    out = subprocess.run([program, "status", "--dir", directory, "-o", "json"], capture_output=True, text=True,
                         timeout=60).stdout
    return len(json.loads(out.splitlines()[0])["members"])


def scale(n):
    subprocess.run([program, "scale", str(n), "--dir", directory], check=True, timeout=60, stdout=subprocess.DEVNULL)


threading.Thread(target=read, daemon=True).start()
try:
    step()
    for n in range(joins):
        last, alone = steps(6)
        before, loading, joining, ready, joined = registered(), 0, 0, False, []
        scale(before + 1)
        while len(joined) < 4:
            at, workers = step()
            ready = ready or workers > before or registered() > before
            loading, joining = (loading, max(joining, at - last)) if ready else (max(loading, at - last), joining)
            last = at
            if workers > before:
                joined.append(at)
        _, together = steps(6)
        print(json.dumps({"join": n + 1, "longest_gap_seconds": round(joining, 3), "beyond_one_step_seconds":
                          round(joining - max(alone, together), 3), "while_it_loads_seconds": round(loading, 3),
                          "step_seconds": round(alone, 3), "step_with_it_seconds": round(together, 3)}), flush=True)
        scale(before)
        while step()[1] > before:
            pass
finally:
    run.send_signal(signal.SIGINT)
    try:
        run.wait(timeout=120)
    except subprocess.TimeoutExpired:
        run.kill()
print(directory)
