#!/usr/bin/env python3
"""Trains with each of several numbers of workers, calm and while one of them is killed, and compares the weights.

usage: same.py WORKERS,... PROGRAM [flag of `train`...] --steps N      for example, from the repository's root:
       same.py 1,2,4 bin/gpt --data DIRECTORY --layers 8 --width 512 --heads 8 --global-batch 8 --micro-batch 2 --steps 5

It prints a JSON line a run, and fails if two differ. A worker is killed after the second step. Each wait ends after 10
minutes."""
import os, shutil, signal, sys, tempfile

from training import Run, say

if len(sys.argv) < 3:
    sys.exit(__doc__)
numbers, program = [int(n) for n in sys.argv[1].split(",")], os.path.abspath(sys.argv[2])
flags = [*sys.argv[3:], "--http", "", "--evaluate=false"]


def weights(workers, kill):
    directory = tempfile.mkdtemp(prefix="same-")
    run = Run(program, [*flags, "--workers", str(workers)], directory)
    try:
        if kill:
            run.step(), run.step()
            os.kill(run.status()["members"][-1]["pid"], signal.SIGKILL)
        done = run.event("done")
        say(workers=workers, killed=kill, steps=done["step"], generation=done["generation"],
            weights_sha256=done["weights_sha256"][:12])
        return done["weights_sha256"]
    finally:
        run.stop()
        shutil.rmtree(directory)


found = {weights(n, kill) for n in numbers for kill in (False, True)[:n]}
sys.exit(f"{len(found)} different results" if len(found) > 1 else None)
