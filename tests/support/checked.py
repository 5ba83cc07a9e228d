"""Checks of signatures at run time: of shapes where a signature has some, else of types alone, which is much faster."""

import inspect
from dataclasses import is_dataclass
from functools import partial, wraps
from typing import Any, get_args, get_type_hints

import jaxtyping
from beartype import beartype

jaxtyped = jaxtyping.jaxtyped


def install(*packages):
    """Check every function of these packages that is imported from now on."""
    jaxtyping.jaxtyped = lambda *, typechecker: partial(checked, typechecker=typechecker)
    jaxtyping.install_import_hook(packages, "beartype.beartype")


def checked(thing, *, typechecker):
    """The function or class with its checks."""
    if inspect.isclass(thing):
        if is_dataclass(thing):
            thing.__init__ = checked(thing.__init__, typechecker=typechecker)
        return thing
    as_written = thing.__annotations__
    resolved = {name: _resolved(hint, thing.__globals__) for name, hint in as_written.items()}
    hints = {name: hint for name, hint in resolved.items() if hint is not Any}  # old beartypes refuse it of generators
    shaped = any(map(_has_shape, hints.values()))
    if shaped and inspect.isgeneratorfunction(thing):  # its body runs when the call has long returned
        return jaxtyped(thing, typechecker=typechecker)
    thing.__annotations__ = hints
    try:
        function = beartype(thing)
    finally:
        thing.__annotations__ = as_written
    function.__annotations__ = as_written
    return _with_letters(function, thing) if shaped else function


def _with_letters(function, thing):
    """The letters of its shapes stand for one number each in a call: as jaxtyped, which checks arguments twice."""

    @wraps(thing)  # one step to what was written: Lightning looks there for its arguments
    def called(*arguments, **named):
        with jaxtyped("context"):
            return function(*arguments, **named)

    return called


def _resolved(hint, namespace):
    """What the hint says; anything, if it is for type checkers alone: names not imported, classes not subscriptable."""

    def holder():
        pass

    holder.__annotations__ = {"value": hint}
    try:
        return get_type_hints(holder, namespace, include_extras=True)["value"]
    except (NameError, TypeError):
        return Any


def _has_shape(hint):
    if inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    parts = get_args(hint)
    return any(_has_shape(part) for nested in parts for part in (nested if isinstance(nested, list) else [nested]))
