"""The methods as a user meets them: by name, with options, from their own files."""

import subprocess
import sys

import pytest

from tutelage.catalog import describe, kind_of, make, names
from tutelage.errors import UsageError
from tutelage.methods.noisy_student import NoisyStudent

every_name = pytest.mark.parametrize("name", names())


@every_name
def test_a_file_describes_its_method(name):
    found = describe(name)
    assert found.name == name
    assert found.sentence
    assert not found.sentence.endswith(".")
    assert found.paper
    assert found.verb in ("train", "selftrain", "distill")
    assert kind_of(name).__module__ == f"tutelage.methods.{name.replace('-', '_')}"


@every_name
def test_what_is_described_is_what_the_class_has(name):
    """Listing reads text, so it must agree with the class that the text makes."""
    kind, found = kind_of(name), describe(name)
    assert {option for option, _, _ in found.options} <= set(kind.__dataclass_fields__)
    assert all(comment for option, _, comment in found.options if option != "labeled_view")
    given = tuple(f"{option}={default}" for option, default, _ in found.options)
    assert make(name, given) == kind()
    assert (found.verb == "distill") == (kind.teacher == "frozen")
    if kind.teacher != "frozen":
        assert (found.verb == "selftrain") == bool(kind().unlabeled_views)


def test_listing_needs_no_torch():
    code = (
        "import sys; from tutelage.catalog import describe, names; "
        "[describe(n) for n in names()]; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_options_are_typed_and_win_over_what_is_usual():
    usual = {"smoothing": 0.2, "no_such_field": 1}
    assert make("noisy-student", (), usual) == NoisyStudent(smoothing=0.2)
    given = ("smoothing=0.05", "weight=2", "hard=true", "unlabeled_views=[plain]")
    assert make("noisy-student", given, usual) == NoisyStudent(
        smoothing=0.05, weight=2.0, hard=True, unlabeled_views=("plain",)
    )


@pytest.mark.parametrize(
    ("name", "option", "words"),
    [
        ("noisy-studnet", "weight=1", "did you mean noisy-student?"),
        (
            "noisy-student",
            "wieght=1",
            "--options of noisy-student: unknown setting wieght; did you mean weight?",
        ),
        ("noisy-student", "weight", "write NAME=VALUE"),
        ("fixmatch", "unlabeled_views=[weak,", "is no value"),
        ("fixmatch", "unlabeled_views=weak", "fixmatch looks at 2 views of the pool"),
        (
            "fixmatch",
            "unlabeled_views=[weak,stong]",
            "fixmatch knows no view 'stong'; did you mean strong",
        ),
        ("fixmatch", "weight=.nan", "weight is at least 0"),
        ("noisy-student", "weight=much", "does not fit a number"),
        ("noisy-student", "normalize=per_year", "'per_stream' or 'per_sample'"),
    ],
)
def test_what_is_wrong_is_named(name, option, words):
    with pytest.raises(UsageError) as caught:
        make(name, (option,))
    assert words in str(caught.value)
