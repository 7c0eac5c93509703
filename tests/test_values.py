from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import pytest
import yaml

from tutelage.errors import UsageError
from tutelage.jobs import SelftrainSettings
from tutelage.settings import Noise, Optim
from tutelage.values import (
    differences,
    digest,
    flat,
    from_plain,
    load_yaml,
    merged,
    nearest,
    to_plain,
)


@dataclass(frozen=True, kw_only=True)
class Inner:
    depth: float = 1.0
    names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Outer:
    count: int
    where: Path | None = None
    kind: Literal["soft", "hard"] = "soft"
    size: int | Literal["auto"] = "auto"
    on: bool = False
    inner: Inner = field(default_factory=Inner)


VALUE = Outer(count=3, where=Path("a/b"), size=4, inner=Inner(depth=2.5, names=("x", "y")))


def test_values_survive_the_way_through_yaml():
    text = yaml.safe_dump(to_plain(VALUE))
    assert from_plain(Outer, yaml.safe_load(text)) == VALUE


def test_all_settings_of_selftrain_survive_the_way_through_yaml():
    settings = SelftrainSettings(
        data="d", model="m", out=Path("o"), unlabeled="u", students=("a", "b"),
        budget="1h30m",
        noise=Noise(magnitude=3.5, flip=False), optim=Optim(ema=None, clip=1.0),
    )  # fmt: skip
    plain = yaml.safe_load(yaml.safe_dump(to_plain(settings)))
    assert from_plain(SelftrainSettings, plain) == settings


def test_one_word_is_taken_where_several_may_stand():
    assert from_plain(Inner, {"names": "x"}) == Inner(names=("x",))


def test_nested_values_are_merged_one_by_one():
    below = {"count": 1, "inner": {"depth": 1.0, "names": ["x"]}}
    above = {"inner": {"depth": 2.0}, "on": True}
    both = {"count": 1, "inner": {"depth": 2.0, "names": ["x"]}, "on": True}
    assert merged(below, above) == both
    assert below["inner"]["depth"] == 1.0


def test_an_integer_is_taken_where_a_float_is_meant():
    inner = from_plain(Inner, {"depth": 3})
    assert inner.depth == 3.0
    assert isinstance(inner.depth, float)


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        ({"count": "3"}, "count: '3' does not fit a whole number"),
        ({"count": True}, "count: True does not fit a whole number"),
        ({"count": 1, "on": 1}, "on: 1 does not fit true or false"),
        ({"count": 1, "kind": "sfot"}, "'soft' or 'hard'"),
        ({"count": 1, "size": "large"}, "size: 'large' does not fit a whole number or 'auto'"),
        ({"count": 1, "inner": {"names": 3}}, "inner.names"),
        ({"count": 1, "inner": {"names": [1]}}, "inner.names"),
        ({"count": 1, "inner": {"depth": True}}, "inner.depth"),
        ({"count": 1, "inner": {"dpeth": 2}}, "unknown setting inner.dpeth; did you mean depth?"),
        ({"cuont": 1}, "unknown setting cuont; did you mean count"),
        ({}, "count"),
    ],
)
def test_what_does_not_fit_is_named(plain, words):
    with pytest.raises(UsageError) as caught:
        from_plain(Outer, plain)
    assert words in str(caught.value)


def test_ranges_hold_for_values_from_files_too():
    with pytest.raises(UsageError, match=r"optim\.warmup is 0 to 1, got 2"):
        from_plain(Optim, {"warmup": 2})


def test_nearest_names_the_likely_ones_and_is_silent_for_others():
    assert nearest("resnet81", ["resnet18", "vit"]) == "; did you mean resnet18?"
    assert nearest("qqq", ["resnet18", "vit"]) == ""


def test_flat_and_differences_name_the_nested_setting():
    assert flat({"a": {"b": 1, "c": {"d": 2}}, "e": 3}) == {"a.b": 1, "a.c.d": 2, "e": 3}
    changed = replace(VALUE, count=4, inner=replace(VALUE.inner, depth=0.5))
    assert differences(VALUE, changed) == ["count: 3 -> 4", "inner.depth: 2.5 -> 0.5"]
    assert differences(VALUE, VALUE) == []


def test_a_digest_is_stable_and_moves_with_every_value():
    changes = [{"count": 4}, {"where": None}, {"kind": "hard"}, {"size": 5}, {"on": True}]
    changes += [{"inner": Inner(depth=2.5)}, {"inner": Inner(depth=2.0, names=("x", "y"))}]
    digests = [digest(replace(VALUE, **change)) for change in changes]
    assert len({digest(VALUE), *digests}) == len(changes) + 1
    assert digest(VALUE) == digest(from_plain(Outer, to_plain(VALUE)))
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


@pytest.mark.parametrize(
    ("text", "words"),
    [("a: [1", "no valid YAML"), ("- 1\n- 2\n", "holds no settings"), ("", "holds no settings")],
)
def test_a_yaml_file_that_holds_no_settings_is_refused(tmp_path, text, words):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=words):
        load_yaml(path)


def test_a_yaml_file_is_read_and_a_missing_one_is_named(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("optim:\n  lr: 0.1\n")
    assert load_yaml(path) == {"optim": {"lr": 0.1}}
    with pytest.raises(UsageError, match=r"b\.yaml does not exist"):
        load_yaml(tmp_path / "b.yaml")


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 8)}]\n" for i in range(1, 12)
)
MERGED = "a0: &a0 {x: 1, y: 2}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 8)}]}}\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    "text",
    [
        BOMB, MERGED, "a: &a [*a]", "a: " + "[" * 5000, "a: 2001-99-99", "a: !!int ''",
        "a: " + "9" * 5000, "a: !!float x", "a: !!bool x", "a: !!timestamp x", "a: !!int x",
        "a: !!python/object/apply:os.system [touch mark]", "a: !!python/name:os.system ''",
        "? [a]\n: b", b"a: \xff", "a: " + "x" * 2**21,
    ],
    ids=lambda text: repr(text[:20]),
)  # fmt: skip
def test_yaml_that_means_harm_or_nothing_is_refused_at_once(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError, match=r"a\.yaml"):
        load_yaml(path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.yaml"]


def test_settings_may_be_taken_over_from_above(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("first: &first {lr: 0.1, warmup: 0}\noptim: {<<: *first, lr: 0.2}\n")
    assert load_yaml(path)["optim"] == {"lr": 0.2, "warmup": 0}


def test_a_number_beyond_all_floats_is_refused():
    with pytest.raises(UsageError, match="lr"):
        from_plain(Optim, {"lr": 10**400})
