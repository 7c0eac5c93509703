"""A linear head on a network's features, fitted on a few labels: never a random one."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from tutelage.data.pixels import Pixels
from tutelage.data.views import center
from tutelage.networks.build import device_of

DECAY = 1e-2  # of the squared weights, on features of unit variance
BATCH = 256  # images


@torch.no_grad()
def features(body: nn.Module, pixels: Pixels, size: int) -> Tensor:
    """What the network answers to the clean center view, flattened (N, D), on the CPU."""
    body.eval()
    parts = [
        body(center(pixels.at(rows).to(device_of(body)), size)).flatten(1).float().cpu()
        for rows in torch.arange(len(pixels)).split(BATCH)
    ]
    return torch.cat(parts)


def fit_head(found: Tensor, labels: Tensor, num_classes: int, *, decay: float = DECAY) -> nn.Linear:
    """Multinomial logistic regression on features (N, D) with labels (N,).

    Convex, from zero, in float64 by L-BFGS, so there is one answer. Features are standardized for
    the fit; the head that is returned takes them as they are.
    """
    x = found.double()
    mean, scale = x.mean(0), x.std(0, unbiased=False).clamp(min=1e-6)
    x = (x - mean) / scale
    weight = torch.zeros(num_classes, x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(num_classes, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        search.zero_grad()
        fit = functional.cross_entropy(functional.linear(x, weight, bias), labels)
        loss = fit + 0.5 * decay * weight.square().sum() / num_classes
        loss.backward()
        return loss

    search.step(closure)
    head = nn.Linear(x.shape[1], num_classes)
    with torch.no_grad():
        plain = weight / scale
        head.weight.copy_(plain)
        head.bias.copy_(bias - plain @ mean)
    return head
