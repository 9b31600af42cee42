"""The predictive latent decoder: a small Transformer over state tokens and action tokens."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..machine import Precision
from .geometry import check_heads


def position_table(length: int, width: int) -> Tensor:
    """Sine in the even columns, cosine in the odd ones: (length, width)."""
    t = torch.arange(length, dtype=torch.float64)[:, None]
    j = torch.arange(width)[None] // 2
    angle = t * 10000.0 ** (-2 * j / width)
    table = torch.where(torch.arange(width)[None] % 2 == 0, angle.sin(), angle.cos())
    return table.float()


class Block(nn.Module):
    """x += attention(norm1 x); x += mlp(norm2 x)."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:  # (B, tokens, width)
        batch, tokens, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, tokens, width / heads)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width)
        x = x + self.proj(mixed)
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class Decoder(nn.Module):
    """Masked states and actions -> decoded states, (B, K, latent).

    The same position row t is added to s_t and a_t. Attention has no mask, so the order of the tokens does not matter.
    """

    def __init__(
        self,
        latent: int,
        window: int,
        depth: int,
        width: int,
        heads: int,
        mlp_ratio: float,
        final_norm: bool,
        precision: Precision,
    ) -> None:
        super().__init__()
        check_heads(width, heads)
        self.precision = precision
        self.register_buffer("positions", position_table(window, latent), persistent=False)
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio) for _ in range(depth))
        narrow = width != latent  # a linear bottleneck around the blocks
        self.inward = nn.Linear(latent, width) if narrow else nn.Identity()
        self.outward = nn.Linear(width, latent) if narrow else nn.Identity()
        self.norm = nn.LayerNorm(width) if final_norm else nn.Identity()

    def tokens(self, states: Tensor, actions: Tensor | None) -> Tensor:
        """(B, 2K, latent): the K states, then the K actions where they are used."""
        tokens = states + self.positions
        return tokens if actions is None else torch.cat([tokens, actions + self.positions], 1)

    def forward(self, states: Tensor, actions: Tensor | None) -> Tensor:
        x = self.tokens(states, actions)
        with self.precision.autocast():
            x = self.inward(x)
            for block in self.blocks:
                x = block(x)
            x = self.outward(self.norm(x[:, : states.shape[1]]))
        return x.float()
