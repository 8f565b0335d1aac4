"""values.dataclass, compared with the standard library's."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest

from dcs_proxy import values


def define(library: Any) -> tuple[Any, Any]:
    """Return two classes: one with a default of each kind, and one with a check."""

    @library.dataclass(frozen=True)
    class Point:
        """A docstring, without which the standard library writes one."""

        x: int
        y: int = 2
        names: Any = library.field(default_factory=dict)
        secret: str = library.field(default="s3", repr=False)

    @library.dataclass(frozen=True)
    class Checked:
        """One that refuses 0."""

        value: Any

        def __post_init__(self) -> None:
            if self.value == 0:
                raise ValueError("0")

    return Point, Checked


OURS, THEIRS = define(values), define(dataclasses)
BOTH = pytest.mark.parametrize("library", [values, dataclasses], ids=["ours", "theirs"])


@BOTH
def test_instances_have_their_fields_by_position_by_name_and_by_default(library: Any) -> None:
    point, _ = define(library)
    each = point(1, names={"a": 1})
    assert (each.x, each.y, each.names, each.secret) == (1, 2, {"a": 1}, "s3")
    assert point(1).names is not point(1).names
    match each:
        case point(1, y):
            assert y == 2


@BOTH
@pytest.mark.parametrize(
    ("positional", "named"),
    [((), {}), ((1, 2, {}, "", 5), {}), ((1,), {"x": 1}), ((1,), {"z": 1})],
    ids=["too few", "too many", "twice", "unknown"],
)
def test_wrong_arguments_are_refused(
    library: Any, positional: tuple[Any, ...], named: dict[str, Any]
) -> None:
    point, _ = define(library)
    with pytest.raises(TypeError):
        point(*positional, **named)


@BOTH
def test_two_are_equal_if_class_and_fields_are(library: Any) -> None:
    point, checked = define(library)
    assert point(1) == point(1, 2)
    assert point(1) != point(2)
    assert point(1) != define(library)[0](1)
    assert checked(1) != 1
    assert len({checked(1), checked(1), checked(2)}) == 2
    assert copy.deepcopy(point(1)) == point(1)


@BOTH
def test_nothing_can_be_changed(library: Any) -> None:
    point, _ = define(library)
    each = point(1)
    with pytest.raises(AttributeError):
        each.x = 2
    with pytest.raises(AttributeError):
        each.unknown = 2
    with pytest.raises(AttributeError):
        del each.x
    assert each == point(1)


@BOTH
def test_replace_copies_and_checks_again(library: Any) -> None:
    point, checked = define(library)
    assert library.replace(point(1, 5), x=3) == point(3, 5)
    with pytest.raises(ValueError, match="0"):
        library.replace(checked(1), value=0)
    with pytest.raises(TypeError):
        library.replace(point(1), z=3)


@BOTH
def test_asdict_goes_into_fields(library: Any) -> None:
    point, checked = define(library)
    assert library.asdict(checked([point(1)])) == {
        "value": [{"x": 1, "y": 2, "names": {}, "secret": "s3"}]
    }
    assert library.asdict(checked({"a": checked(None)})) == {"value": {"a": {"value": None}}}


def test_fields_and_repr_are_as_in_the_standard_library() -> None:
    for ours, theirs in zip(OURS, THEIRS, strict=True):
        assert [(f.name, f.type) for f in values.fields(ours)] == [
            (f.name, f.type) for f in dataclasses.fields(theirs)
        ]
    assert repr(OURS[0](1)) == repr(THEIRS[0](1))
    assert "s3" not in repr(OURS[0](1))


def test_a_class_that_is_not_frozen_is_refused() -> None:
    with pytest.raises(TypeError):
        values.dataclass(frozen=False)
