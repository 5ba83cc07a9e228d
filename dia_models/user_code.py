"""The user's own code, run because they named it: `file.py:name` or `package.module:name`."""

import importlib
import importlib.util
import inspect
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from dia_models.errors import ModelInputError, did_you_mean, one_line, some

FORM = "file.py:name or package.module:name"
_brought: dict[str, Path] = {}
"""Modules that were imported from a user's folder, and the folder: two folders may have modules of one name."""


def is_user_code(name: str) -> bool:
    """Whether a name has the form of something in the user's own code; a module of one word must also be there."""
    module, _, attribute = name.rpartition(":")
    if not attribute.isidentifier() or module.endswith(".py"):
        return attribute.isidentifier()
    if not all(part.isidentifier() for part in module.split(".")):
        return False
    here = Path.cwd() / module
    return "." in module or here.is_dir() or here.with_suffix(".py").is_file() or _is_installed(module)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # of a module that runs as a script
        return True


class UserCode:
    """Something that can be called, in a file or a module of the user's, as `argument` named it.

    `name` is `file.py:name`, or `package.module:name`. While it is imported or called, the file's folder, for a module
    the working directory, is at the end of `sys.path`, and what it prints goes to stderr.
    """

    def __init__(self, name: str, argument: str):
        self.name, self.argument = name, argument
        self.module, _, self.attribute = name.rpartition(":")
        path = Path(self.module).expanduser()
        self.file = path.absolute() if self.module.endswith(".py") else None
        self.folder = Path.cwd() if self.file is None else self.file.parent

    def load(self) -> Any:
        """What the name stands for. Raises ModelInputError if it cannot be imported or is not there."""
        if self.file is not None and not self.file.is_file():
            raise self.error(f"there is no file {self.module}; give {FORM}")
        with seeded(0), self.running("cannot be imported"):  # so that what it draws changes no random weights
            module = importlib.import_module(self.module) if self.file is None else _import_file(self.file)
        try:
            return getattr(module, self.attribute)
        except AttributeError:
            names = sorted(name for name, value in vars(module).items() if _is_own(value, module))
            hint = did_you_mean(self.attribute, names)
            there = f"it defines {some(names, 6)}" if names else "it defines nothing that can be called"
            raise self.error(f"{self.module} has no {self.attribute}; {hint}{there}") from None

    def call(self, options: Mapping[str, Any]) -> Any:
        """Call it with the options, of which its signature must have each.

        Raises ModelInputError for an option that it does not take, for one that it needs, and for what it raises.
        """
        function = self.load()
        if not callable(function):
            raise self.error(f"{self.name} is a {type(function).__name__}; name something that can be called")
        self._check(function, options)
        with self.running("raised an error"):
            return function(**options)

    def takes(self, option: str) -> bool:
        """Whether it has a parameter of this name."""
        return option in _parameters(self.load())

    def error(self, text: str) -> ModelInputError:
        """An error about it."""
        return ModelInputError(self.argument, text)

    def _check(self, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
        parameters = _parameters(function)
        named = {name for name, parameter in parameters.items() if parameter.kind in _NAMED}
        if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
            for option in options.keys() - named:
                accepted = f"accepted: {some(sorted(named), 12)}" if named else "it takes none"
                hint = did_you_mean(option, named)
                raise ModelInputError("set", f"{self.name} has no option {option}; {hint}{accepted}")
        missing = [n for n, p in parameters.items() if _is_needed(p) and (n not in options)]
        if missing:
            raise ModelInputError(
                "set", f"{self.name} cannot be called without {some(missing, 6)}; give each as an option"
            )

    @contextmanager
    def running(self, what: str) -> Iterator[None]:
        """Run the user's code inside; what it raises becomes one line that says `what` it was about."""
        try:
            with redirect_stdout(sys.stderr), _findable(self.folder):
                yield
        except ModelInputError:
            raise
        except (Exception, SystemExit) as error:
            kind = type(error).__name__
            raise self.error(
                f"{self.name} {what}: {kind}: {one_line(error, 160)}{_place(error, self.folder)}"
            ) from error


_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _is_needed(parameter: inspect.Parameter) -> bool:
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return parameter.default is inspect.Parameter.empty and parameter.kind not in variable


def _parameters(function: Any) -> Mapping[str, inspect.Parameter]:
    """The parameters of something that can be called; any, if it does not say."""
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {"options": inspect.Parameter("options", inspect.Parameter.VAR_KEYWORD)}


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers from a seed inside, torch's, numpy's and Python's; those that follow are as without it."""
    numpy, python = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            np.random.seed(seed)
            random.seed(seed)
            yield
    finally:
        np.random.set_state(numpy)
        random.setstate(python)


@contextmanager
def _findable(folder: Path) -> Iterator[None]:
    """The folder's modules can be imported inside, where no other module has their name."""
    for name in [name for name, home in _brought.items() if home != folder]:
        del _brought[name]
        sys.modules.pop(name, None)
    before = set(sys.modules)
    sys.path.append(str(folder))
    try:
        yield
    finally:
        if str(folder) in sys.path:
            last = len(sys.path) - 1 - sys.path[::-1].index(str(folder))
            del sys.path[last]
        _brought.update({name: folder for name in sys.modules.keys() - before if _lies_in(sys.modules[name], folder)})


def _lies_in(module: ModuleType, folder: Path) -> bool:
    path = getattr(module, "__file__", None)
    return isinstance(path, str) and Path(path).is_relative_to(folder)


def _import_file(path: Path) -> ModuleType:
    """Import a file once, under a name of its own, so that it stands in no other module's place."""
    name = f"{path.stem}_{sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _is_own(value: Any, module: ModuleType) -> bool:
    """Whether a module defines this, and it can be called."""
    return callable(value) and getattr(value, "__module__", None) == module.__name__


def _place(error: BaseException, folder: Path) -> str:
    """The last line of the user's own code that the error came through."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        path = Path(trace.tb_frame.f_code.co_filename)
        if path.is_relative_to(folder) and path.suffix == ".py":
            place = f" (at {path.name}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return place
