#!/usr/bin/env python3
r"""Measures, on this machine, how long new workers take to load a checkpoint, and what the coordinator sends for it.

usage: restore.py ROUNDS PROGRAM [flag of `train`...] --workers N      for example, from the repository's root:
       restore.py 3 bin/gpt --data DIRECTORY --layers 8 --width 512 --heads 8 --global-batch 8 --micro-batch 1 \
           --workers 8

It trains in a new directory for two steps with two workers and interrupts that; then it starts the run again ROUNDS
times, each with a world of all workers at once, and prints a JSON line: seconds from the moment when the last worker
has compiled until all hold the state, and until the first commit; MiB that the coordinator has held at most, and that
it has sent in all, also as copies of the state. Each wait ends after 10 minutes."""
import glob, os, shutil, sys, tempfile

from training import Run, peak, say, seconds, written

if len(sys.argv) < 3:
    sys.exit(__doc__)
rounds, program = int(sys.argv[1]), os.path.abspath(sys.argv[2])
flags = [*sys.argv[3:], "--http", "", "--evaluate=false", "--checkpoint-every", "1000000"]
workers = flags[len(flags) - flags[::-1].index("--workers")]
directory = tempfile.mkdtemp(prefix="restore-")


def trained(flags, measure):
    run = Run(program, flags, directory)
    try:
        measure(run)
    finally:
        run.stop()


def begin(run):
    run.step(), run.step()


def restore(run):
    event = run.event("step")
    coordinator, first = run.status()["coordinator"]["pid"], seconds(event["time"])
    ready, hold = run.logged("msg=ready", run.began), run.logged('"all ranks hold one state"', run.began)
    if len(hold) != int(workers):
        sys.exit(f"{len(hold)} of {workers} workers hold the state")
    compiled, size = max(ready.values()), max(os.path.getsize(p) for p in glob.glob(directory + "/checkpoints/*.ckpt"))
    sent = written(coordinator)
    say(workers=event["workers"], state_mib=size >> 20, compile_seconds=round(compiled - run.began, 1),
        hold_seconds=round(max(hold.values()) - compiled, 2), commit_seconds=round(first - compiled, 2),
        coordinator_peak_mib=peak(coordinator), coordinator_sent_mib=sent >> 20, copies=round(sent / size, 2))


try:
    trained([*flags, "--workers", "2"], begin)
    os.environ["EVENWEAVE_MIN_WORKERS"] = workers
    for _ in range(rounds):
        trained(flags, restore)
finally:
    shutil.rmtree(directory)
