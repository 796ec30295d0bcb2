#!/usr/bin/env python3
"""Train over TLS and over plain TCP in turn: what a step and a recovery cost.

    deploy/bench/tls.py [--rounds 5] [--steps 400] [--workers 2]    samples/s of each, and the ratio by round
    deploy/bench/tls.py --kills 100 --workers 3                     time from SIGKILL of a worker to the next commit

Everything runs on loopback with bin/evenweave, in a temporary directory.
"""

import argparse
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import tempfile
import threading
import time

BIN = os.path.abspath("bin/evenweave")


def free():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Cluster:
    def __init__(self, where, secure, workers, steps):
        self.where, self.secure, self.steps = where, secure, []
        self.log = open(os.path.join(where, "log"), "wb")
        if secure:
            subprocess.run([BIN, "certs", "init", "--dir", where + "/certs"], check=True, stderr=self.log)
        self.etcd_url = f"{'https' if secure else 'http'}://127.0.0.1:{free()}"
        files = self.files("etcd") if secure else []
        self.etcd = subprocess.Popen([BIN, "etcd", "--dir", where + "/etcd", "--listen", self.etcd_url, *files],
                                     stdout=subprocess.PIPE, stderr=self.log)
        self.etcd.stdout.readline()
        self.lead = subprocess.Popen(
            [BIN, "coordinator", *self.job("coordinator"), "--dir", where + "/run", "--steps", str(steps), "-o", "json",
             "--expect-workers", str(workers), "--evaluate=false"], stdout=subprocess.PIPE, stderr=self.log)
        self.done = None
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        self.cores = max(1, (os.cpu_count() or 1) // workers)
        self.workers = [self.hire() for _ in range(workers)]

    def files(self, role):
        d = f"{self.where}/certs/{role}"
        return ["--tls-ca", d + "/ca.pem", "--tls-cert", d + "/cert.pem", "--tls-key", d + "/key.pem"]

    def job(self, role):
        return ["--etcd", self.etcd_url, *(self.files(role) if self.secure else ["--insecure"])]

    def hire(self):
        return subprocess.Popen([BIN, "worker", *self.job("worker"), "--parallelism", str(self.cores)],
                                stdout=self.log, stderr=self.log)

    def read(self):
        for line in self.lead.stdout:
            e = json.loads(line)
            if e["event"] == "step":
                self.steps.append((time.time(), e["step"], e["workers"]))
            elif e["event"] == "done":
                self.done = e

    def end(self):
        for p in [*self.workers, self.lead, self.etcd]:
            if p.poll() is None:
                p.kill()
            p.wait()
        self.reader.join()


def train(secure, workers, steps):
    with tempfile.TemporaryDirectory() as where:
        c = Cluster(where, secure, workers, steps)
        try:
            c.lead.wait(timeout=1800)
            c.reader.join()
            return c.done["samples_per_second"], c.done["weights_sha256"][:12]
        finally:
            c.end()


def wait(holds, seconds, what):
    limit = time.time() + seconds
    while not holds():
        if time.time() > limit:
            raise SystemExit("waited in vain for " + what)
        time.sleep(0.002)


def recoveries(secure, workers, kills):
    random.seed(1)
    took = []
    with tempfile.TemporaryDirectory() as where:
        c = Cluster(where, secure, workers, 10_000_000)
        try:
            for _ in range(kills):
                begun = time.time()
                wait(lambda: c.steps and c.steps[-1][0] > begun and c.steps[-1][2] == workers, 120, "a full world")
                victim = random.randrange(workers)
                at = time.time()
                c.workers[victim].send_signal(signal.SIGKILL)
                c.workers[victim].wait()
                wait(lambda: c.steps[-1][0] > at and c.steps[-1][2] < workers, 60, "a step after the kill")
                took.append(next(t for t, _, n in reversed(c.steps) if n < workers) - at)
                c.workers[victim] = c.hire()
        finally:
            c.end()
    took.sort()
    print(f"{'TLS' if secure else 'plain'}: {kills} kills, {workers} workers: median {took[len(took) // 2]:.3f} s, "
          f"p99 {took[-(len(took) // 100) - 1]:.3f} s, worst {took[-1]:.3f} s", flush=True)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--steps", type=int, default=400)
    p.add_argument("--workers", type=int, default=2)
    p.add_argument("--kills", type=int, default=0)
    a = p.parse_args()
    if a.kills:
        for secure in (True, False):
            recoveries(secure, a.workers, a.kills)
        return
    ratios = []
    for i in range(a.rounds):
        order = (False, True) if i % 2 == 0 else (True, False)
        rate = {s: train(s, a.workers, a.steps) for s in order}
        ratios.append(rate[False][0] / rate[True][0])
        print(f"round {i}: plain {rate[False][0]:.0f} samples/s, TLS {rate[True][0]:.0f}: a step takes "
              f"{ratios[-1]:.3f} times as long; weights {rate[False][1]} {rate[True][1]}", flush=True)
    print(f"median {statistics.median(ratios):.3f}")


main()
