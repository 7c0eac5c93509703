"""Where squeeze-and-excitation goes in one network of each of timm's kinds: a table as CSV.

`python -m benchmarks.se_scan > sites.csv`: for each file of timm and each beginning of names in it,
such as resnet or resnext, the first name; about four minutes on one core, no weights.
"""

import re
import sys
import time

import timm
import torch
from timm.models import list_models, list_modules, model_entrypoint

from tutelage.errors import UsageError
from tutelage.networks.squeeze_excite import sites_of


def first_of_each_kind() -> list[str]:
    """For each file of timm, the first name with each beginning, such as resnet or resnext."""
    found: dict[tuple[str, str], str] = {}
    for module in sorted(list_modules()):
        for name in list_models(module=module):
            kind = re.match(r"[a-z]+(?:_[a-z]+)*", name)
            key = (module, kind.group() if kind else name)
            found.setdefault(key, name)
    return list(found.values())


def line(name: str) -> str:
    """Name, file, sites, weights that they add, seconds, and the first site or what was said."""
    start = time.perf_counter()
    try:
        sites = sites_of(name, "auto")
        said = f"{sites[0].path} … {sites[-1].path}"
        more = sum(2 * s.channels * max(1, s.channels // 16) for s in sites)
        kind, count = "sites", len(sites)
    except UsageError as error:
        words = str(error)
        kind = (
            "gated"
            if "already" in words
            else "no maps"
            if "no convolution maps" in words
            else "refused"
        )
        said, more, count = words.replace(",", ";"), 0, 0
    except Exception as error:
        kind, said, more, count = "error", f"{type(error).__name__}: {error}"[:200], 0, 0
    seconds = time.perf_counter() - start
    file = model_entrypoint(name).__module__.split(".")[-1]
    return f"{name},{file},{kind},{count},{more},{seconds:.1f},{said}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    names = sys.argv[1:] or first_of_each_kind()
    print("name,file,kind,sites,weights,seconds,said", flush=True)
    for one in names:
        print(line(one), flush=True)
    print(f"{len(names)} networks, timm {timm.__version__}", file=sys.stderr)
