"""What stands between a teacher and the student's images and classes: size, class order, company.

All take images (B, 3, S, S) in [0, 1] and give logits (B, K), like `build.Normalized`.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional


class Resized(nn.Module):
    """A network asked at its own image size, whatever the size of what it is shown."""

    def __init__(self, module: nn.Module, size: int) -> None:
        """Keep the network, and the side in pixels that it was trained at."""
        super().__init__()
        self.module, self.size = module, size

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K); bilinear and antialiased, untouched where the size fits."""
        if images.shape[-1] != self.size:
            shape = (self.size, self.size)
            images = functional.interpolate(images, shape, mode="bilinear", antialias=True)
        logits: Tensor = self.module(images)
        return logits


class Reordered(nn.Module):
    """A network's answers in another order of classes, or for some of its classes."""

    index: Tensor

    def __init__(self, module: nn.Module, index: Sequence[int]) -> None:
        """Keep the network; the k-th answer is its class `index[k]`."""
        super().__init__()
        self.module = module
        self.register_buffer("index", torch.tensor(index))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) of the chosen classes."""
        logits: Tensor = self.module(images)
        return logits[:, self.index]


class Probed(nn.Module):
    """A network's features, and a linear head on them."""

    def __init__(self, body: nn.Module, head: nn.Linear) -> None:
        """Keep both."""
        super().__init__()
        self.body, self.head = body, head

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) of the head."""
        logits: Tensor = self.head(self.body(images).flatten(1).float())
        return logits


class Ensemble(nn.Module):
    """Several networks as one: the mean of their probabilities, or of their logits.

    A mean and not a sum, so that the loss doesn't grow with the number of teachers.
    """

    def __init__(
        self, modules: Sequence[nn.Module], *, over: Literal["probs", "logits"] = "probs"
    ) -> None:
        """Keep the networks."""
        super().__init__()
        self.members, self.over = nn.ModuleList(modules), over

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K), whose softmax is the mean of the members' where `over` is "probs"."""
        logits = torch.stack([member(images).float() for member in self.members])
        if self.over == "logits":
            return logits.mean(0)
        return logits.log_softmax(-1).logsumexp(0) - math.log(len(logits))
