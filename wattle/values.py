"""Values: small classes whose fields are set when they are made, and never again.

``@value(frozen=True, slots=True)`` is ``dataclasses.dataclass`` to those who read and check the program. While it runs nothing stops an
assignment: what would stop it makes a value of twelve fields take eight times as long to make (3.3 us and not 0.4), and every task takes
twenty of them. And where a dataclass writes and compiles the text of its methods at once (0.6 ms for each of 150 classes, whenever a
process starts), here each method is compiled when it is called for the first time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass as value
else:
    from dataclasses import MISSING, dataclass, fields

    def value(*, frozen, slots, kw_only=False):
        """Make a class of values."""
        assert frozen, "a value that may change is a dataclass"
        plain = dataclass(slots=slots, kw_only=kw_only, init=False, repr=False, eq=False)

        def made(cls):
            assert not hasattr(cls, "__post_init__"), "a class that does more when it is made is a dataclass"
            cls = plain(cls)
            _give_methods(cls)
            return cls

        return made

    def _give_methods(cls):
        for name, text in (("__init__", _init), ("__eq__", _eq), ("__hash__", _hash)):
            setattr(cls, name, _late(cls, name, text))
        cls.__repr__ = _repr

    def _late(cls, name, text):
        """A method that, called for the first time, takes the place of itself."""

        def late(self, *args, **kwargs):
            scope = {"MISSING": MISSING}
            exec(text(fields(cls), scope), scope)
            method = scope[name]
            method.__qualname__ = f"{cls.__qualname__}.{name}"
            setattr(cls, name, method)
            return method(self, *args, **kwargs)

        return late

    def _init(of, scope):
        given, by_name, lines = [], [], ["pass"]
        for field in of:
            name, default, made = field.name, f"_default_{field.name}", field.default_factory is not MISSING
            scope[default] = field.default_factory if made else field.default
            parameters = by_name if field.kw_only else given
            if made:
                parameters.append(f"{name}=MISSING")
                lines.append(f"self.{name} = {default}() if {name} is MISSING else {name}")
            else:
                parameters.append(name if field.default is MISSING else f"{name}={default}")
                lines.append(f"self.{name} = {name}")
        parameters = ", ".join(["self", *given, *(["*", *by_name] if by_name else [])])
        return f"def __init__({parameters}):\n  " + "\n  ".join(lines)

    def _eq(of, scope):
        mine, other = _parts("self", of), _parts("other", of)
        return f"def __eq__(self, other): return {mine} == {other} if other.__class__ is self.__class__ else NotImplemented"

    def _hash(of, scope):
        return f"def __hash__(self): return hash({_parts('self', of)})"

    def _parts(name, of):
        return f"({''.join(f'{name}.{field.name}, ' for field in of)})"

    def _repr(self):
        parts = (f"{field.name}={getattr(self, field.name)!r}" for field in fields(self))
        return f"{type(self).__qualname__}({', '.join(parts)})"


__all__ = ["value"]
