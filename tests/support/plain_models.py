"""Models as anyone writes them, without taps, and a loop that trains one."""

import json
import math

import torch
from torch import nn
from torch.nn import functional as F

from foretune import Watch

VOCABULARY = 32


class WrittenOut(nn.Module):
    """Attention by two products and a softmax."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def split(self, x):
        return self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)

    def forward(self, x):
        q, k, v = self.split(x)
        later = torch.ones(x.shape[1], x.shape[1], device=x.device).triu(1).bool()
        logits = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).masked_fill(later, -math.inf)
        return self.out((logits.softmax(-1) @ v).transpose(1, 2).flatten(2))


class Fused(WrittenOut):
    """The same by PyTorch's function."""

    def forward(self, x):
        q, k, v = self.split(x)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).flatten(2))


class Multihead(nn.Module):
    """The same by PyTorch's module."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.inner = nn.MultiheadAttention(width, heads, bias=False, batch_first=True)

    def forward(self, x):
        later = torch.ones(x.shape[1], x.shape[1], device=x.device).triu(1).bool()
        return self.inner(x, x, x, attn_mask=later, need_weights=False)[0]


class Block(nn.Module):
    def __init__(self, attention: nn.Module, width: int, dropout: float = 0.0):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.dropout = attention, nn.Dropout(dropout)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x):
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.mlp(self.norm2(x))


class PlainLM(nn.Module):
    """A language model with one kind of attention."""

    def __init__(self, attention=WrittenOut, *, width=32, depth=2, heads=2, dropout=0.0):
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, width)
        self.layers = nn.ModuleList(
            Block(attention(width, heads), width, dropout) for _ in range(depth)
        )
        self.norm, self.unembed = nn.LayerNorm(width), nn.Linear(width, VOCABULARY, bias=False)

    def forward(self, tokens):
        x = self.tokens(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.unembed(self.norm(x))


class Gru(nn.Module):
    """A language model without attention or blocks."""

    def __init__(self, width=32):
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, width)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.unembed = nn.Linear(width, VOCABULARY)

    def forward(self, tokens):
        return self.unembed(self.gru(self.tokens(tokens))[0])


def batches(steps, *, batch=8, context=32):
    """Tokens of which every second one is the one before, so that there is something to learn."""
    draws = torch.Generator().manual_seed(1)
    for _ in range(steps):
        tokens = torch.randint(0, VOCABULARY, (batch, context + 1), generator=draws)
        tokens[:, 1::2] = tokens[:, 0:-1:2]
        yield tokens


def loss_of(model, tokens):
    logits = model(tokens[:, :-1])
    return F.cross_entropy(logits.flatten(0, -2), tokens[:, 1:].flatten())


def fit(model, *, lr=3e-3, steps=40, watch=None, parts=1, seed=0):
    """Trains a model; returns its losses. watch makes a Watch of model and optimizer."""
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    watching = watch(model, optimizer) if watch else None
    losses = []
    for step, tokens in enumerate(batches(steps)):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, (step + 1) / 10)
        total = 0.0
        for part in tokens.chunk(parts):
            loss = loss_of(model, part) / parts
            loss.backward()
            total += float(loss.detach())
        losses.append(total)
        if watching is not None and watching.step(step, total).stop:
            break
        optimizer.step()
        optimizer.zero_grad()
    if watching is not None:
        watching.finish()
    return losses


CONFIG = {"schedule.warmup_steps": 10, "seed": 0}


def made(model, seed=0, **how):
    torch.manual_seed(seed)
    return model(**how)


def watching(out, steps=40, **how):
    how = {"config": CONFIG, "quiet": True, **how}
    return lambda model, optimizer: Watch(model, optimizer, out=out, total_steps=steps, **how)


def rows(out):
    (path,) = out.glob("runs/*/metrics.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]
