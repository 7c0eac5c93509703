"""A linear head on a network's features, fitted on a few labels: never a random one."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from tutelage.data.pixels import Chosen, Pixels, ahead
from tutelage.data.views import center
from tutelage.frozen import AT_ONCE, in_turns
from tutelage.networks.build import Net, Normalized, device_of
from tutelage.networks.freeze import head_names

# Of the squared weights, beside the sum of the images' cross-entropies and on features of unit
# norm. On features of digits from a network that had seen other digits, with 2 to 100 labels a
# class, cross-entropy on other images was lowest between 0.005 and 0.1 (2026-11).
PRIOR = 0.02
FITTED = 50_000  # labeled images that a head is fitted on, where there are so many
CELLS = 5_000_000  # and the most of images times classes: a minute or two of two cores
MOST_CLASSES = 1_500  # beyond which those would be but two images a class
FOLDS = 3


def most_fitted(num_classes: int) -> int:
    """Labeled images, at most, that a head of so many classes is fitted on."""
    return min(FITTED, CELLS // num_classes)


def evenly(total: int, most: int) -> Tensor:
    """At most so many of all rows, spread evenly."""
    return torch.linspace(0, total - 1, min(total, most)).long()


@torch.no_grad()
def features(body: nn.Module, pixels: Pixels, size: int) -> Tensor:
    """What the network answers to the clean center view, flattened (N, D), on the CPU."""
    body.eval()
    device, rows = device_of(body), torch.arange(len(pixels))

    def ask(images: Tensor) -> Tensor:
        found: Tensor = body(center(images.to(device), size))
        return found.flatten(1).float().cpu()

    parts = [in_turns(ask, images, size) for _, images in ahead(rows, pixels.at, AT_ONCE)]
    return torch.cat(parts)


def fit_classifier(
    module: Normalized, pixels: Pixels, labels: Tensor, net: Net
) -> dict[str, Tensor]:
    """The weights, by name, of the linear classifier that `fit_head` finds on a network's features,
    or of both where it has two; none for one that is asked at each place of a map, or token.

    `pixels` with `labels` (N,), of which at most `most_fitted` are taken, spread evenly over all.
    """
    rows = evenly(len(labels), most_fitted(net.num_classes))
    seen: dict[str, list[Tensor]] = {name: [] for name in head_names(module)}
    hooks = [
        module.get_submodule(name).register_forward_pre_hook(
            lambda _, given, parts=parts: parts.append(given[0].float().cpu())
        )
        for name, parts in seen.items()
    ]
    mode = module.training
    try:
        features(module, Chosen(pixels, rows), net.img_size)
    finally:
        module.train(mode)
        for hook in hooks:
            hook.remove()
    own, made = module.state_dict(), {}
    for name, parts in seen.items():
        if parts and parts[0][0].numel() == parts[0].shape[1]:  # one vector an image
            head = fit_head(torch.cat(parts).flatten(1), labels.cpu()[rows], net.num_classes)
            made[f"{name}.weight"] = head.weight.view_as(own[f"{name}.weight"])
            made[f"{name}.bias"] = head.bias
    return made


def can_fit(module: Normalized, num_classes: int) -> bool:
    """Whether a network's classifier is one that `fit_classifier` knows to fit."""
    heads = [module.get_submodule(name) for name in head_names(module)]
    linear = all(
        isinstance(head, nn.Linear) or (isinstance(head, nn.Conv2d) and head.kernel_size == (1, 1))
        for head in heads
    )
    return linear and all(head.bias is not None for head in heads) and num_classes <= MOST_CLASSES


def fit_head(found: Tensor, labels: Tensor, num_classes: int) -> nn.Linear:
    """Multinomial logistic regression on features (N, D) with labels (N,).

    Convex, from zero, in float64 by L-BFGS, so there is one answer. Features are standardized for
    the fit; the head that is returned takes them as they are.
    """
    x = found.double()
    mean, scale = x.mean(0), x.std(0, unbiased=False).clamp(min=1e-6) * x.shape[1] ** 0.5
    x = (x - mean) / scale
    weight = x.new_zeros(num_classes, x.shape[1]).requires_grad_()
    bias = x.new_zeros(num_classes).requires_grad_()
    search = torch.optim.LBFGS(
        [weight, bias], max_iter=200, tolerance_grad=1e-7, tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> Tensor:
        search.zero_grad()
        fit = functional.cross_entropy(functional.linear(x, weight, bias), labels)
        loss = fit + PRIOR / len(x) * 0.5 * weight.square().sum()
        loss.backward()
        return loss

    search.step(closure)
    head = nn.Linear(x.shape[1], num_classes)
    with torch.no_grad():
        plain = weight / scale
        head.weight.copy_(plain)
        head.bias.copy_(bias - plain @ mean)
    return head.to(found.device).requires_grad_(False)


def held_out(found: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """What heads answer to images that they were not fitted on: probs (M, K), rows (M,).

    Each class is spread over the folds; classes with a single image are left out, as no head would
    know them.
    """
    one_hot = functional.one_hot(labels, num_classes)
    place = (one_hot.cumsum(0) * one_hot).sum(1) - 1  # of an image within its class
    known = one_hot.sum(0)[labels] > 1
    probs, rows = [], []
    for fold in range(FOLDS):
        asked = (place % FOLDS == fold) & known
        if asked.any():
            head = fit_head(found[~asked], labels[~asked], num_classes)
            probs.append(head(found[asked]).softmax(-1))
            rows.append(asked.nonzero()[:, 0])
    if not rows:
        return found.new_zeros(0, num_classes), labels.new_zeros(0)
    return torch.cat(probs), torch.cat(rows)
