"""Train the networks of a plan, those that are not trained yet: `python -m benchmarks.campaign --out runs --hours 2`.

Runs go in the plan's order, each in a folder of its own below `--out`. One that was interrupted goes on at its last
epoch; when the time is over the present one is stopped. What is then not run is listed with its hours. `--list`
only says how far everything is.
"""

import argparse
import json
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PLAN = Path(__file__).with_suffix(".toml")
FIT = [sys.executable, "-m", "cli.train", "fit"]
PATIENCE = 120  # seconds for a run to end


@dataclass(frozen=True)
class Run:
    """One training: a line of the plan."""

    name: str
    model: str
    data: str
    recipe: str
    hours: float
    seed: int = 0
    image_size: int | None = None
    keep_every: int | None = None
    set: dict[str, Any] = field(default_factory=dict)

    def options(self) -> list[str]:
        """What `dia-train fit` is given to begin it."""
        numbers = {"--seed": self.seed, "--image-size": self.image_size, "--keep-every": self.keep_every}
        given = [part for option, value in numbers.items() if value is not None for part in (option, str(value))]
        fields = [part for key, value in self.set.items() for part in ("--set", f"{key}={value}")]
        return ["--model", self.model, "--data", self.data, "--recipe", self.recipe, *given, *fields]

    def state(self, folder: Path) -> str:
        """Done with its accuracy, begun, or not run. Raises ValueError if another run lies in the folder."""
        if not (folder / "run.json").exists():
            return "not run"
        self._check_same(folder)
        if not (folder / "result.json").exists():
            return "begun"
        result = json.loads((folder / "result.json").read_bytes())
        accuracy = result["last"].get("test_accuracy")
        return f"done: {accuracy:.2%}" if accuracy is not None else f"done: {result['outcome']}"

    def _check_same(self, folder: Path) -> None:
        config = json.loads((folder / "run.json").read_bytes())
        found = {**config["options"], **config["recipe"], **config, "recipe": config["recipe_name"]}
        wanted = {"model": self.model, "data": self.data, "recipe": self.recipe, "seed": self.seed, **self.set}
        if self.image_size is not None:
            wanted["image_size"] = self.image_size
        for key, value in wanted.items():
            if found.get(key) != value:
                raise ValueError(
                    f"{folder} has {key} {found.get(key)}, the plan {value}; move it away, or change the plan"
                )


def read_plan(path: Path) -> list[Run]:
    """The runs of a plan, each with the defaults that it does not set itself."""
    document = tomllib.loads(path.read_text())
    defaults = document.get("defaults", {})
    runs = [Run(**{**defaults, **run, "set": defaults.get("set", {}) | run.get("set", {})}) for run in document["run"]]
    names = [run.name for run in runs]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"{path} has {sorted(twice)[0]} twice; give each run a name of its own")
    return runs


def work(runs: list[Run], out: Path, seconds: float) -> int:
    """Do what is not done until the time is over; 0, or what the training that failed returned."""
    end = time.monotonic() + seconds
    for run in runs:
        left = end - time.monotonic()
        if left <= 0:
            break
        if run.state(out / run.name).startswith("done"):
            continue
        if code := train(run, out / run.name, left):
            return code
    return 0


def train(run: Run, folder: Path, seconds: float) -> int:
    """Begin or continue a run; what `dia-train fit` returned, or 0 when the time was over and it was stopped.

    A run that is terminated goes on at its last epoch. It is not interrupted instead: what runs in the background
    ignores that.
    """
    begun = (folder / "run.json").exists()
    given = ["--resume"] if begun else run.options()
    print(f"{run.name}: {'continued' if begun else 'begun'}, about {run.hours} hours in all", flush=True)
    process = subprocess.Popen([*FIT, *given, "--out", str(folder)])
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return 0
    finally:
        _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def table(runs: list[Run], out: Path) -> str:
    """How far every run is."""
    lines = [f"{run.name:28s} {run.hours:5.2f} h  {run.state(out / run.name)}" for run in runs]
    left = sum(run.hours for run in runs if not run.state(out / run.name).startswith("done"))
    return "\n".join([*lines, f"{left:.1f} hours are left"])


def main() -> int:
    """Parse, work, and say how far it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, default=PLAN)
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where the runs lie")
    parser.add_argument("--hours", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--list", action="store_true", help="only say how far everything is")
    given = parser.parse_args()
    code = 0
    try:
        runs = read_plan(given.plan)
        for run in runs:
            run.state(given.out / run.name)  # a folder of another run is said before hours of work
        if not given.list:
            code = work(runs, given.out, given.hours * 3600)
        print(table(runs, given.out))
    except (OSError, ValueError, TypeError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return code


if __name__ == "__main__":
    sys.exit(main())
