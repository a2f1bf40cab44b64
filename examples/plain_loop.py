"""A plain PyTorch loop, watched: own attention, no taps, nothing of Foretune but `Watch`.

python examples/plain_loop.py 1.0 runs/plain    # learning rate, and where the records go
"""

import inspect
import sys

import torch
from torch import nn
from torch.nn import functional as F

from foretune import Watch

STEPS, CONTEXT, WIDTH, HEADS = 200, 64, 32, 2


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        later = torch.ones(x.shape[1], x.shape[1]).triu(1).bool()
        logits = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(later, -torch.inf)
        return self.out((logits.softmax(-1) @ v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.norm1, self.norm2 = Attention(), *(nn.LayerNorm(WIDTH) for _ in "12")
        self.mlp = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)
        )

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


rate, out = float(sys.argv[1]), sys.argv[2]
text = torch.tensor(list(inspect.getsource(nn.Module).encode()))
torch.manual_seed(0)
layers = nn.Sequential(*(Block() for _ in range(3)))
model = nn.Sequential(nn.Embedding(256, WIDTH), layers, nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 256))
optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=10)

config = {"schedule.warmup_steps": 10, "seed": 0}
with Watch(model, optimizer, out=out, total_steps=STEPS, config=config) as watch:
    for step in range(STEPS):
        starts = torch.randint(len(text) - CONTEXT, (8, 1))
        batch = text[starts + torch.arange(CONTEXT + 1)]
        loss = F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        verdict = watch.step(step, loss)
        if verdict.stop:
            print(f"stopped at step {step}: {verdict.reason}")
            break
        optimizer.step(), optimizer.zero_grad(), warmup.step()
print(f"loss {loss:.3f}; {verdict.status}")
