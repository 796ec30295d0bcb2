"""A run of `train`, for what measures it: events, processes and logs."""
import glob, json, os, queue, signal, subprocess, sys, threading, time
from datetime import datetime


def seconds(text):
    """Seconds since 1970 of a time in UTC, RFC 3339."""
    return datetime.fromisoformat(text.rstrip("Z")[:26] + "+00:00").timestamp()


def say(**figures):
    print(json.dumps(figures), flush=True)


class Run:
    """Each wait ends after `limit` seconds, and the program with it."""

    def __init__(self, program, flags, directory, limit=600):
        self.program, self.directory, self.limit, self.began = program, directory, limit, time.time()
        self.process = subprocess.Popen([program, "train", "--dir", directory, "-o", "json", *flags],
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("asked to end"))  # as `timeout` does: the run ends, too
        self.lines = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.lines.put(json.loads(line))
        self.lines.put(None)

    def event(self, kind):
        """The next of that kind; failures, warnings and checkpoints on the way are printed."""
        while (event := self.lines.get(timeout=self.limit)) is not None:
            if event["event"] == kind:
                return event
            if event["event"] in ("failure", "warning", "checkpoint"):
                say(**event)
        sys.exit("the run has ended")

    def step(self):
        """The time of the next committed step, and how many workers computed it."""
        event = self.event("step")
        return seconds(event["time"]), event["workers"]

    def command(self, *words):
        return subprocess.run([self.program, *words, "--dir", self.directory], check=True, timeout=60,
                              capture_output=True, text=True).stdout

    def status(self):
        return json.loads(self.command("status", "-o", "json").splitlines()[0])

    def logged(self, message, since=0.0):
        """When each worker's log last had that message, by the log's name, if after `since`."""
        times = {}
        for path in glob.glob(self.directory + "/logs/worker-*.log"):
            with open(path) as f:
                at = [seconds(line.split()[0].removeprefix("time=")) for line in f if message in line]
            if at and at[-1] > since:
                times[os.path.basename(path)] = at[-1]
        return times

    def stop(self):
        """Ends the run in good order, with a last checkpoint."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(timeout=self.limit)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def peak(pid):
    """MiB that a process has held at most."""
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) // 1024 for line in f if line.startswith("VmHWM"))


def written(pid):
    """Bytes that a process has written, to files and to sockets."""
    with open(f"/proc/{pid}/io") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("wchar"))
