"""What a search wants: accuracy, training steps that cost little, and few weights.

Paper: Tan and Le 2021 (arXiv 2104.00298), section 3.3: A · S^w · P^v with w = -0.07 and v = -0.05.
S is the time of a training step over that of the reference network and P the weights over its
weights, which the paper leaves open; constant factors don't change who is better.
"""

TIME_WEIGHT, PARAMS_WEIGHT = -0.07, -0.05


def reward(
    accuracy: float, time: float, parameters: float,
    *, time_weight: float = TIME_WEIGHT, params_weight: float = PARAMS_WEIGHT,
) -> float:  # fmt: skip
    """A · S^w · P^v; twice the time costs 4.7 % of it, twice the weights 3.4 %."""
    return float(accuracy * time**time_weight * parameters**params_weight)
