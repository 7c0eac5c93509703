import errno
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import starts

from tutelage.errors import TutelageError, UsageError
from tutelage.files import made_folder, read_json, whole, write_json, write_text, write_with
from tutelage.run import held


def test_what_is_written_is_there_and_folders_are_made(tmp_path):
    path = tmp_path / "a" / "b" / "c.txt"
    write_text(path, "Grüße\n")
    assert path.read_text(encoding="utf-8") == "Grüße\n"
    write_json(path, {"a": [1, 2.5, None], "path": Path("x/y")})
    assert read_json(path) == {"a": [1, 2.5, None], "path": "x/y"}
    assert [p.name for p in path.parent.iterdir()] == ["c.txt"]


def test_a_folder_that_would_be_read_as_an_address_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("optuna:tpe", "s3://bucket/run"):
        with pytest.raises(UsageError, match="without a colon"):
            made_folder(Path(name))
    for name in ("runs/optuna:tpe", "run"):
        rows, path = pa.table({"row": [1, 2]}), made_folder(Path(name)) / "rows.parquet"
        write_with(path, lambda part, rows=rows: pq.write_table(rows, part))
        assert pq.read_table(path) == rows


def test_until_the_end_only_the_old_file_is_seen(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with whole(path) as part:
        part.write_text("new, half")
        assert path.read_text() == "old"
    assert path.read_text() == "new, half"


def test_who_reads_the_old_file_reads_it_to_its_end(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with path.open() as reader:
        write_text(path, "new")
        assert reader.read() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize(
    "error",
    [ValueError, KeyError, RuntimeError, OSError, TypeError, KeyboardInterrupt, SystemExit],
)
@pytest.mark.parametrize("existed", [True, False])
def test_whatever_goes_wrong_while_writing_leaves_the_old_file_and_no_part(
    tmp_path, error, existed
):
    path = tmp_path / "a.txt"
    if existed:
        path.write_text("old")

    def write(part):
        part.write_text("new, half")
        raise error("stop")

    with pytest.raises(error):
        write_with(path, write)
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"] * existed
    assert not existed or path.read_text() == "old"


def test_a_value_that_json_can_not_hold_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, 1)
    with pytest.raises(TypeError):
        write_json(path, {(1, 2): 3})
    assert read_json(path) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_in_words_with_the_file(tmp_path, number):
    def write(part):
        part.write_bytes(b"half")
        raise OSError(number, os.strerror(number))

    with pytest.raises(TutelageError, match=r"the disk is full.*a\.bin.*make room"):
        write_with(tmp_path / "a.bin", write)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_place_that_is_not_writable_is_said_in_words(tmp_path, number):
    def write(part):
        raise OSError(number, os.strerror(number))

    with pytest.raises(TutelageError, match=r"a\.bin can't be written.*make its folder writable"):
        write_with(tmp_path / "a.bin", write)


def test_a_run_folder_on_a_read_only_disk_is_said_in_words(tmp_path, monkeypatch):
    def refuse(path, mode):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(TutelageError, match=r"\.lock can't be written.*make its folder writable"):  # noqa: SIM117
        with held(tmp_path):
            pass


def test_another_error_of_the_system_is_passed_on_as_it_is(tmp_path):
    with pytest.raises(FileNotFoundError), whole(tmp_path / "a.txt"):
        pass  # nothing was written
    with pytest.raises(RuntimeError, match="shape mismatch"), whole(tmp_path / "a.txt"):
        raise RuntimeError("shape mismatch")


def test_a_new_file_has_ordinary_rights(tmp_path):
    ordinary = tmp_path / "ordinary"
    ordinary.write_text("x")
    write_text(tmp_path / "ours", "x")
    rights = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "ordinary")]
    assert rights[0] == rights[1]


WRITERS = {
    "text": "write_text(path, 'x' * 500_000)",
    "torch": "write_with(path, lambda part: torch.save(torch.zeros(200_000), part))",
    "safetensors": "save_weights(path, torch.nn.Linear(500, 500))",
    "parquet": "save(path, PseudoLabels(names, order, order.float(), classes, 'ab'))",
}
FULL = """
import resource, sys
import torch
from pathlib import Path
from tutelage.data.pool import PseudoLabels, save
from tutelage.files import write_text, write_with
from tutelage.weights import save_weights
names, classes = tuple(map(str, range(20_000))), tuple(map(str, range(12)))
order = torch.rand(20_000, 12).argsort()
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # bytes that a file may grow to
for line in sys.argv[1:]:
    path = Path(line.split()[0])
    try:
        exec(line.split(" ", 1)[1])
        print("written")
    except Exception as error:
        print(type(error).__name__, str(error).replace("\\n", " "))
"""


def test_a_really_full_disk_keeps_the_old_file_for_every_writer(tmp_path):
    lines = []
    for name, call in WRITERS.items():
        (tmp_path / name).write_text("old")
        lines.append(f"{tmp_path / name} {call}")
    run = starts.run(FULL, *lines)
    answers = dict(zip(WRITERS, run.stdout.splitlines(), strict=True))
    for name, answer in answers.items():
        assert answer.startswith(f"TutelageError the disk is full: {tmp_path / name} "), answers
        assert (tmp_path / name).read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(WRITERS)


def test_what_a_killed_process_left_half_written_is_swept_away(tmp_path):
    killed = (
        "import os; from tutelage.files import whole; from pathlib import Path\n"
        "with whole(Path('a/b.csv'), mark=files._own()) as p: p.write_text('x'); os._exit(1)"
    )
    subprocess.run(
        [sys.executable, "-c", f"from tutelage import files; {killed}"],
        cwd=tmp_path,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    (left,) = tmp_path.rglob("*.part")
    mine = left.with_name(f"b.csv.{os.getpid()}-1.part")  # of a process that lives
    for path in (mine, left.with_name("last.pt.part"), left.with_name("b.csv")):
        path.write_text("x")
    with held(tmp_path):
        names = sorted(path.name for path in left.parent.iterdir())
    assert names == sorted(["b.csv", mine.name, "last.pt.part"])


def test_several_may_write_a_text_at_a_time_and_one_of_them_stands_whole(tmp_path):
    texts = [str(number) * 5000 for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        for _ in range(20):
            list(threads.map(partial(write_text, tmp_path / "a.txt", shared=True), texts))
            assert (tmp_path / "a.txt").read_text() in texts
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
