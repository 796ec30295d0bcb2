#!/usr/bin/env python3
"""Measures, on this machine, what a death, a join and a checkpoint cost a run, and the coordinator's memory.

usage: recovery.py KILLS PROGRAM [flag of `train`...]

It trains in a new directory, kills a worker (SIGKILL) KILLS times, each after three calm steps, then adds a worker,
and interrupts the run. Every figure is printed as one JSON line; gaps are between the commits of two steps."""
import json, os, queue, signal, statistics, subprocess, sys, tempfile, threading, time
from datetime import datetime

kills, program, flags = int(sys.argv[1]), os.path.abspath(sys.argv[2]), sys.argv[3:]
limit = 600  # seconds without a step
directory = tempfile.mkdtemp(prefix="recovery-")
run = subprocess.Popen([program, "train", "--dir", directory, "-o", "json", *flags], stdout=subprocess.PIPE,
                       stderr=subprocess.DEVNULL, text=True)
lines = queue.Queue()


def read():
    for line in run.stdout:
        lines.put(json.loads(line))
    lines.put(None)


def seconds(event):
    return datetime.fromisoformat(event["time"][:26].rstrip("Z") + "+00:00").timestamp()


def status():
    out = subprocess.run([program, "status", "--dir", directory, "-o", "json"], capture_output=True, text=True,
                         timeout=60).stdout
    return json.loads(out.splitlines()[0])


def peak(pid):  # MiB that a process has held at most
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) // 1024 for line in f if line.startswith("VmHWM"))


def step():
    """The next committed step; other events on the way are kept."""
    while (event := lines.get(timeout=limit)) is not None:
        if event["event"] == "step":
            return event
        if event["event"] in ("checkpoint", "failure", "warning"):
            print(json.dumps(event), flush=True)
    sys.exit("the run has ended")


def calm(n):
    """The time of the last of n steps, and the median between them."""
    times = [seconds(step()) for _ in range(n + 1)]
    return times[-1], statistics.median(b - a for a, b in zip(times, times[1:]))


def say(**figures):
    print(json.dumps(figures), flush=True)


threading.Thread(target=read, daemon=True).start()
try:
    began = time.time()
    first = seconds(step())
    say(what="first step", seconds=round(first - began, 2), coordinator_mib=peak(status()["coordinator"]["pid"]))
    gaps = []
    for n in range(kills):
        _, median = calm(3)
        members = status()["members"]
        killed = time.time()
        os.kill(members[n % len(members)]["pid"], signal.SIGKILL)
        while (next_commit := seconds(step())) < killed + 0.05:
            pass
        gaps.append(next_commit - killed)
        say(what="kill to next commit", seconds=round(gaps[-1], 3), step_seconds=round(median, 3))
        while len(status()["members"]) < len(members):
            step()
    if gaps:
        gaps.sort()
        say(what="kills", count=len(gaps), p50=round(gaps[len(gaps) // 2], 3),
            p99=round(gaps[min(len(gaps) - 1, len(gaps) * 99 // 100)], 3))
    last, median = calm(3)
    before = len(status()["members"])
    subprocess.run([program, "scale", str(before + 1), "--dir", directory], check=True, timeout=60,
                   stdout=subprocess.DEVNULL)
    longest, joined = 0, 0
    while joined < 4:
        event = step()
        longest, last = max(longest, seconds(event) - last), seconds(event)
        joined += event["workers"] > before
    now = status()
    say(what="join", longest_gap_seconds=round(longest, 3), step_seconds=round(median, 3))
    say(what="memory", coordinator_mib=peak(now["coordinator"]["pid"]),
        workers_mib=[peak(m["pid"]) for m in now["members"] if m.get("pid")])
finally:
    run.send_signal(signal.SIGINT)
    run.wait(timeout=limit)
print(directory)
