"""The verbs that look at data and at pools: check, label, select; in Python and in the shell alike.

Nothing heavy is imported until a verb is called.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from tyro.conf import OmitArgPrefixes, Positional
from tyro.constructors import PrimitiveConstructorSpec

from tutelage.errors import UsageError
from tutelage.labeling.selection import Selection
from tutelage.settings import Precision, Select, at_least

Address: TypeAlias = Annotated[
    str | None,
    PrimitiveConstructorSpec(  # a flag that may stand alone
        nargs="*",
        metavar="[ADDRESS]",
        instance_from_str=lambda words: " ".join(words) or "auto",
        is_instance=lambda value: value is None or isinstance(value, str),
        str_from_instance=lambda value: [str(value)],
    ),
]
if TYPE_CHECKING:
    Images = Any  # an address, or images as docs/data.md lists them for Python
    SeveralImages = Any  # the same, or several addresses
    Place = Path | str
else:
    Images = str  # as which the command line reads it
    SeveralImages = tuple[str, ...]
    Place = Path


def check(
    data: Images,
    *,
    unlabeled: Images | None = None,
    val: Images | None = None,
    test: Images | None = None,
    out: Place = Path(),
    page: bool = False,
    fix: Literal["manifest"] | None = None,
) -> None:
    """Look at every image before training, and say what is wrong.

    Raises DataProblem, after all is written, where something must be mended first.

    Args:
        data: Labeled images: a folder with one folder a class, or any source of docs/data.md.
        unlabeled: The pool: a folder of images, at any depth, or any source of docs/data.md.
        val: Labeled validation images.
        test: Labeled test images.
        out: Folder for issues.csv, and for what the next two write.
        page: Write check.html, too: one page with pictures of the worst finds.
        fix: manifest: write manifest.csv with the images that can be used; none is touched.
    """
    from tutelage.data.find import with_addresses
    from tutelage.files import made_folder
    from tutelage.pipelines.check_data import look, report_on
    from tutelage.progress import Screen

    if fix not in (None, "manifest"):
        raise UsageError(f"--fix knows manifest alone, got {fix!r}")
    out = made_folder(Path(out))  # before minutes of reading
    screen = Screen()
    asked, given = with_addresses({"data": data, "val": val, "test": test, "unlabeled": unlabeled})
    found = look(
        asked["data"], val=asked["val"], test=asked["test"], pool=asked["unlabeled"], given=given,
        screen=screen,
    )  # fmt: skip
    report_on(found, out, screen, page=page, fix=fix is not None)


@dataclass(frozen=True, kw_only=True)
class LabelSettings:
    """`tutelage label`: a trained model over a pool."""

    model: Path
    """A run folder, a round's folder (RUN/rounds/NAME), or a model folder."""
    data: str
    """The pool: a folder of images, at any depth, or any source of docs/data.md."""
    out: Path
    """Folder for part-00000.parquet, …, issues.csv and labels.json."""
    device: str = "auto"
    """cpu, cuda, mps; auto: the first accelerator, else the CPU."""
    precision: Precision = "auto"
    """fp32, bf16 or fp16; auto: bf16 on CUDA."""
    devices: int = 1
    """Processes of this machine that share the work, each on a device of its own; on the CPU they
    share the cores. On several machines: torchrun, or cluster."""
    cluster: Address = None
    """Label by the workers of a Ray cluster, at this address; auto, or no address: the one that
    runs, else one on this machine."""

    def __post_init__(self) -> None:
        """Reject what does not go together."""
        at_least("--devices", self.devices, 1)
        if self.cluster is not None and self.devices > 1:
            raise UsageError("--cluster has workers of its own: leave out --devices")


def label(*, model: Path | str, data: Images, out: Path | str, **settings: Any) -> Path:
    """Label a pool with a trained model: Parquet parts with the top classes of each image; other
    keyword arguments are the fields of `LabelSettings`.

    The same call goes on where a stopped one was; a finished part is not made again.
    """
    from tutelage.data.find import with_addresses
    from tutelage.values import from_plain

    asked = {"model": model, "data": data, "out": out} | settings
    plain, given = with_addresses(asked)
    return run_label(from_plain(LabelSettings, plain), given)


def run_label(settings: LabelSettings, given: Any = None) -> Path:
    """`label` for settings that are made already, and images that a program gave."""
    from tutelage.data.find import open_source
    from tutelage.deploy.label_files import label_files
    from tutelage.distributed.crew import led
    from tutelage.distributed.launcher import check_devices
    from tutelage.progress import Screen

    def work() -> Path:
        check_devices(settings.devices)
        label_files(
            settings.model, open_source(settings.data, given), settings.out,
            device=settings.device, precision=settings.precision, screen=Screen(),
            cluster=settings.cluster,
        )  # fmt: skip
        return settings.out

    return led(work, device=settings.device)


def select(
    labels: Positional[Place],
    *,
    out: Place,
    rule: OmitArgPrefixes[Select] = Select(),  # noqa: B008  # a frozen value
    seed: int = 0,
    overwrite: bool = False,
) -> Selection:
    """Choose what a student learns from, out of a labels folder of any size.

    The same command goes on where a stopped one was; a finished part is not made again.

    Args:
        labels: The folder that `tutelage label` wrote.
        out: Folder for the selection: copies of each image, and why not, in parts like the labels'.
        rule: Which images, and how often each.
        seed: Of the draws of --mode histogram.
        overwrite: Move an earlier selection in --out aside.
    """
    from tutelage.labeling.select_parts import select_parts
    from tutelage.progress import Screen

    screen = Screen()
    made = select_parts(
        Path(labels), Path(out), rule, screen=screen, seed=seed, overwrite=overwrite
    )
    made.say(screen)
    return made
