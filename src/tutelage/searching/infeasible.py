"""Networks that a search can't use."""


class Infeasible(Exception):
    """A network that can't be built, trained or asked here; says why, as the report shows it."""
