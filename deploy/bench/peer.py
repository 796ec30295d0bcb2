"""The peer: PyTorch DDP on Gloo, on the same machine. One line a figure.

peer.py gpt PROCESSES MICRO_BATCH LAYERS WIDTH [CONTEXT]   tokens a second of a byte-level GPT with AdamW
peer.py allreduce PROCESSES BYTES                          milliseconds of an all-reduce of float32

Each process has one thread, and for gpt a processor of its own, as Evenweave's workers have.
"""
import os
import sys
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
        self.e, self.p, self.n, self.out = nn.Embedding(256, d), nn.Embedding(context, d), nn.LayerNorm(d), nn.Linear(d, 256)
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


if __name__ == "__main__":
    work, rest = sys.argv[1], [int(a) for a in sys.argv[2:]]
    if work == "gpt":
        rest = rest if len(rest) == 5 else rest + [128]
        mp.spawn(gpt, tuple(rest), nprocs=rest[0])
    else:
        mp.spawn(allreduce, tuple(rest), nprocs=rest[0])
