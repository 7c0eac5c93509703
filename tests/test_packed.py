"""Compressed files and pickles that were made to do harm, and damaged ones of every kind."""

import gzip
import io
import pickle
import time
import zipfile
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from tutelage.data.delimited import parse
from tutelage.data.packed import unzipped
from tutelage.data.plain_pickles import unpickled
from tutelage.data.sources.arrays import Arrays
from tutelage.errors import DataProblem


def bomb():
    """160 MB of zeros in less than one."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="w", compresslevel=1) as file:
        for _ in range(160):
            file.write(bytes(2**20))
    return out.getvalue()


def test_gzip_is_read_as_pythons_own_does_and_bombs_are_not():
    data = np.random.default_rng(0).bytes(1000)
    for packed in (gzip.compress(data), gzip.compress(data[:10]) + gzip.compress(data[10:])):
        assert unzipped(packed) == data
    assert unzipped(gzip.compress(data) + bytes(20)) == data  # as tapes are filled up
    for broken in (gzip.compress(data)[:-9], gzip.compress(data)[:-1], b"\x1f\x8b" + bytes(30)):
        with pytest.raises(DataProblem, match="broken gzip"):
            unzipped(broken)
    with pytest.raises(DataProblem, match="unpacks to more than"):
        parse(bomb())


def test_an_npz_that_unpacks_to_far_more_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("images.npy", bytes(2**27))
    with pytest.raises(DataProblem, match="unpacks to"):
        Arrays(str(tmp_path / "a.npz")).listing("pool")


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_come_out_of_pickles_as_they_went_in(protocol):
    rows = np.random.default_rng(0).integers(0, 255, (3, 5)).astype(np.uint8)
    content = {
        b"data": rows, b"turned": rows.T, "ints": rows.astype(">i4"), "text": np.array(["ab", "c"]),
        "floats": rows.astype(np.float32), "one": np.float64(2.5),
        "labels": [1, 2, 3], "names": [b"a", "b"], "number": np.int64(3),
    }  # fmt: skip
    found = unpickled(pickle.dumps(content, protocol=protocol))
    for key, value in content.items():
        its = found[key.decode() if isinstance(key, bytes) else key]
        assert np.array_equal(its, value)
        if isinstance(value, np.ndarray):
            assert its.dtype == value.dtype


def shared(levels):
    value = [1] * 100
    for _ in range(levels):
        value = [value] * 100
    return {"labels": value}


class Call:
    """A pickle of a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "content",
    [
        {"a": np.array([[1], "b"], object)},
        {"a": np.zeros(3, [("x", "u1"), ("y", "O")])}, {"a": Call(np.dtype, "O")},
        {"a": Call(np.ndarray, (10**10,))}, {"a": Call(eval, "1")}, shared(6), [1], {"a": {1, 2}},
    ],
)  # fmt: skip
def test_pickles_of_more_than_numbers_are_refused_at_once(content):
    start = time.monotonic()
    with pytest.raises(DataProblem, match="pickle"):
        unpickled(pickle.dumps(content))
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("put", [b"r\xff\xff\xff\x3f", b"p1073741823\n"])
def test_a_place_beyond_the_file_takes_no_memory(put):
    """Python's reader makes room for all places up to it: 8 GB here."""
    with pytest.raises(DataProblem, match="damaged"):
        unpickled(b"\x80\x02}" + put + b".")


@settings(max_examples=300)
@given(place=some.integers(0, 6000), byte=some.integers(0, 255), cut=some.booleans(),
       protocol=some.sampled_from([2, 4, 5]))  # fmt: skip
def test_a_damaged_pickle_is_read_or_refused(place, byte, cut, protocol):
    data = bytearray(pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 1]},
                                  protocol=protocol))  # fmt: skip
    data[place % 200] = byte
    with suppress(DataProblem):
        assert isinstance(unpickled(bytes(data[:place]) if cut else bytes(data)), dict)
