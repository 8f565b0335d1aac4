"""Frozen dataclasses that are cheap to define.

The standard library writes and compiles the methods of each dataclass, and imports ``inspect`` to
do so: fifty classes were a sixth of a cold start.  Here all classes share methods that walk over
the fields.  The names mean what they mean in ``dataclasses``, which is what type checkers see;
what is missing there is missing on purpose: no inheritance, nothing mutable, no ``init=False``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["asdict", "dataclass", "field", "fields", "replace"]

if TYPE_CHECKING:
    from dataclasses import asdict, dataclass, field, fields, replace
else:
    _REQUIRED = object()

    class _Field:
        """One field: its `name` and `type` as written, and what field() was called with."""

        def __init__(self, default=_REQUIRED, default_factory=None, repr=True):
            self.default, self.default_factory, self.repr = default, default_factory, repr
            self.name = self.type = ""

        def value(self, owner):
            """Return the default.  Raises TypeError if there is none."""
            if self.default_factory is not None:
                return self.default_factory()
            if self.default is _REQUIRED:
                raise TypeError(f"{type(owner).__name__}() needs {self.name}")
            return self.default

    def field(**options):
        """Return a field with a `default`, a `default_factory`, or ``repr=False``."""
        return _Field(**options)

    def dataclass(*, frozen):
        """Return a decorator that makes a class a dataclass, which has to be frozen."""
        if not frozen:
            raise TypeError("only frozen dataclasses are supported here")
        return _decorate

    def fields(owner):
        """Return the fields of a dataclass or of its instance."""
        return tuple(owner._fields.values())

    def replace(value, /, **changes):
        """Return a copy of `value` with some fields changed."""
        return type(value)(**{**_named(value), **changes})

    def asdict(value):
        """Return a dataclass as a dictionary, with those in its fields."""
        if hasattr(type(value), "_fields"):
            return {name: asdict(each) for name, each in _named(value).items()}
        if isinstance(value, list | tuple):
            return [asdict(each) for each in value]
        if isinstance(value, dict):
            return {key: asdict(each) for key, each in value.items()}
        return value

    def _decorate(cls):
        cls._fields = {}
        for name, type_ in cls.__annotations__.items():
            given = cls.__dict__.get(name, _REQUIRED)
            found = given if isinstance(given, _Field) else _Field(given)
            found.name, found.type = name, type_
            if given is found:
                delattr(cls, name)
            cls._fields[name] = found
        cls.__match_args__ = tuple(cls._fields)
        for method in (_init, _eq, _hash, _repr, _setattr, _delattr):
            setattr(cls, f"__{method.__name__[1:]}__", method)
        return cls

    def _init(self, *values, **named):
        state, known = self.__dict__, self._fields
        if len(values) > len(known):
            raise TypeError(f"{type(self).__name__}() takes {len(known)} arguments")
        state.update(zip(known, values, strict=False))
        for name, value in named.items():
            if name not in known or name in state:
                raise TypeError(f"{type(self).__name__}() does not take {name}, or takes it once")
            state[name] = value
        if len(state) < len(known):
            for name, each in known.items():
                if name not in state:
                    state[name] = each.value(self)
        if check := getattr(self, "__post_init__", None):
            check()

    def _named(self):
        return {name: self.__dict__[name] for name in self._fields}

    def _eq(self, other):
        return _named(self) == _named(other) if type(self) is type(other) else NotImplemented

    def _hash(self):
        return hash(tuple(_named(self).values()))

    def _repr(self):
        shown = {name: each for name, each in _named(self).items() if self._fields[name].repr}
        parts = ", ".join(f"{name}={each!r}" for name, each in shown.items())
        return f"{type(self).__qualname__}({parts})"

    def _setattr(self, name, value):
        raise AttributeError(f"cannot set {name} of a frozen {type(self).__name__}")

    def _delattr(self, name):
        raise AttributeError(f"cannot delete {name} of a frozen {type(self).__name__}")
