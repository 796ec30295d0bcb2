"""The peer: PyTorch DDP on Gloo, on the same machine. One line a figure.

peer.py gpt PROCESSES MICRO_BATCH LAYERS WIDTH [CONTEXT]   tokens a second of a byte-level GPT with AdamW
peer.py allreduce PROCESSES BYTES                          milliseconds of an all-reduce of float32
peer.py bits GLOBAL_BATCH LAYERS WIDTH                     the weights' digests after 20 steps with 1, 2, 4 processes
peer.py kill KILLS PROCESSES MICRO_BATCH LAYERS WIDTH [EVERY]
        torchrun, one process killed KILLS times: seconds to the next step, and to the first that had not been computed.
        EVERY (default 10) is the steps between checkpoints, which rank 0 writes and all read at a restart.

Each process has one thread, and for gpt a processor of its own, as Evenweave's workers have.
"""
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn as nn
import torch.nn.functional as F


class Block(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.a, self.b, self.qkv, self.o = nn.LayerNorm(d), nn.LayerNorm(d), nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.f = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))

    def forward(self, x):
        n, t, d = x.shape
        q, k, v = self.qkv(self.a(x)).view(n, t, 3, d // 64, 64).permute(2, 0, 3, 1, 4)
        x = x + self.o(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(n, t, d))
        return x + self.f(self.b(x))


class GPT(nn.Module):
    def __init__(self, layers, d, context):
        super().__init__()
        self.e, self.p = nn.Embedding(256, d), nn.Embedding(context, d)
        self.n, self.out = nn.LayerNorm(d), nn.Linear(d, 256)
        self.h = nn.Sequential(*[Block(d) for _ in range(layers)])

    def forward(self, t):
        return self.out(self.n(self.h(self.e(t) + self.p.weight)))


def join(rank, size):
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29877", GLOO_SOCKET_IFNAME="lo")
    dist.init_process_group("gloo", rank=rank, world_size=size)


def gpt(rank, size, micro, layers, d, context):
    join(rank, size)
    os.sched_setaffinity(0, {rank % os.cpu_count()})
    torch.manual_seed(1)
    model = nn.parallel.DistributedDataParallel(GPT(layers, d, context))
    optimizer = torch.optim.AdamW(model.parameters(), 3e-4, fused=True)
    x = torch.randint(0, 256, (micro, context + 1))

    def step():
        optimizer.zero_grad()
        F.cross_entropy(model(x[:, :-1]).reshape(-1, 256), x[:, 1:].reshape(-1)).backward()
        optimizer.step()

    times = []
    for _ in range(10):
        begun = time.perf_counter()
        step()
        times.append(time.perf_counter() - begun)
    middle = sorted(times[2:])[4]
    if rank == 0:
        parameters = sum(p.numel() for p in model.parameters())
        print(f"peer gpt {parameters / 1e6:.1f}M N={size}: {middle * 1e3:.0f} ms a step, "
              f"{size * micro * context / middle:.0f} tokens/s", flush=True)
    dist.destroy_process_group()


def allreduce(rank, size, length):
    join(rank, size)
    x, times = torch.ones(length // 4), []
    for _ in range(12):
        x.fill_(1)
        dist.barrier()
        begun = time.perf_counter()
        dist.all_reduce(x)
        times.append(time.perf_counter() - begun)
    if rank == 0:
        print(f"peer allreduce N={size} {length / 1e6:.0f} MB: {sorted(times[2:])[5] * 1e3:.1f} ms", flush=True)
    dist.destroy_process_group()


def bits(rank, size, batch, layers, d):
    join(rank, size)
    torch.manual_seed(1)
    model = nn.parallel.DistributedDataParallel(GPT(layers, d, 128))
    optimizer = torch.optim.AdamW(model.parameters(), 3e-4)
    part = batch // size
    for step in range(20):
        x = torch.randint(0, 256, (batch, 129), generator=torch.Generator().manual_seed(step))[rank * part:][:part]
        optimizer.zero_grad()
        F.cross_entropy(model(x[:, :-1]).reshape(-1, 256), x[:, 1:].reshape(-1)).backward()
        optimizer.step()
    if rank == 0:
        digest = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in model.parameters())).hexdigest()
        print(f"peer bits N={size}: {digest[:12]}", flush=True)
    dist.destroy_process_group()


def member(path, micro, layers, d, every):
    """Trains until it is killed, from the checkpoint at path if there is one; each process prints its id and steps."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(1)
    model = nn.parallel.DistributedDataParallel(GPT(layers, d, 128))
    optimizer = torch.optim.AdamW(model.parameters(), 3e-4, fused=True)
    step = 0
    if os.path.exists(path):
        kept = torch.load(path)
        step = kept["step"]
        model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
    x = torch.randint(0, 256, (micro, 129))
    while True:
        optimizer.zero_grad()
        F.cross_entropy(model(x[:, :-1]).reshape(-1, 256), x[:, 1:].reshape(-1)).backward()
        optimizer.step()
        step += 1
        os.write(1, f"step {os.getpid()} {step} {time.time()}\n".encode())  # whole: all ranks write to one pipe
        if step % every == 0 and rank == 0:
            kept = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(kept, path + ".new")
            os.replace(path + ".new", path)


def kill(kills, size, micro, layers, d, every=10):
    """Each kill comes in the middle between two checkpoints."""
    with tempfile.TemporaryDirectory() as directory:
        run = subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}",
             f"--max-restarts={kills}", os.path.abspath(__file__), "member", directory + "/checkpoint", str(micro),
             str(layers), str(d), str(every)],
            # torch 2.15 keeps one store for all rounds, in which Gloo finds the addresses of dead processes
            env={**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1",
                 "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            lines = (line.split() for line in run.stdout if line.startswith("step "))
            steps = ((int(pid), int(step), float(at)) for _, pid, step, at in lines)
            gaps = []
            for _ in range(kills):
                processes, newest = set(), 0
                for pid, newest, _ in steps:
                    processes.add(pid)
                    if len(processes) == size and newest > every and newest % every == every // 2:
                        break
                killed, again = time.time(), None
                os.kill(pid, signal.SIGKILL)
                for pid, step, at in steps:
                    if pid in processes:
                        newest = max(newest, step)
                        continue
                    again = again or at - killed
                    if step > newest:
                        break
                gaps.append(at - killed)
                print(f"peer kill N={size}: next step after {again:.2f} s, the first new one after {gaps[-1]:.2f} s",
                      flush=True)
            print(f"peer kill N={size}: the first new step after {sorted(gaps)[len(gaps) // 2]:.2f} s at the median of "
                  f"{len(gaps)}", flush=True)
        finally:
            run.terminate()
            run.wait(30)


if __name__ == "__main__":
    work, rest = sys.argv[1], sys.argv[2:]
    if work == "member":
        member(rest[0], *(int(a) for a in rest[1:]))
    rest = [int(a) for a in rest]
    if work == "gpt":
        rest = rest if len(rest) == 5 else rest + [128]
        mp.spawn(gpt, tuple(rest), nprocs=rest[0])
    elif work == "kill":
        kill(*rest)
    elif work == "bits":
        for size in 1, 2, 4:
            mp.spawn(bits, (size, *rest), nprocs=size)
    else:
        mp.spawn(allreduce, tuple(rest), nprocs=rest[0])
