"""Data sets of scenes by name."""

from collections.abc import Callable
from pathlib import Path

from dia_models.data.detection.coco import LAYOUT, open_coco
from dia_models.data.detection.digit_scenes import digit_scenes
from dia_models.data.detection.scenes import Scenes
from dia_models.data.folder import SPLITS
from dia_models.data.request import Request, data_root
from dia_models.errors import ModelInputError, unknown


def _coco(request: Request) -> Scenes:
    folder = request.root / "coco"
    if not folder.is_dir():
        raise request.missing("coco", f"coco/ with {LAYOUT}")
    return open_coco(folder, request)


SCENE_SETS: dict[str, Callable[[Request], Scenes]] = {"coco": _coco, "digit-scenes": digit_scenes}
FOLDER = "coco:PATH"


def scene_names() -> list[str]:
    """What a detector can be trained on."""
    return [*SCENE_SETS, FOLDER]


def is_scenes(name: str) -> bool:
    """Whether a data set of this name has objects in boxes."""
    return name in SCENE_SETS or name.startswith("coco:")


def open_scenes(name: str, split: str, root: str | Path | None = None, *, strict: bool = False) -> Scenes:
    """Open the `train` or `test` part of a data set by name, or of `coco:PATH`, a folder in COCO's layout.

    Raises ModelInputError if the name is unknown or the files are not there, saying what to put where.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    kind, _, path = name.partition(":")
    request = Request(split, data_root(root), strict=strict)
    if kind == "coco" and path:
        try:
            folder = Path(path).expanduser()
            if not folder.is_dir():
                raise ModelInputError("data", f"{folder} is not a folder; {FOLDER} takes one with {LAYOUT}")
            return open_coco(folder, request)
        except (OSError, RuntimeError) as error:  # no permission, a name that is too long, no such user's home
            raise ModelInputError("data", f"{name} cannot be opened: {error}") from error
    if name not in SCENE_SETS:
        raise unknown("data", name, scene_names())
    return SCENE_SETS[name](request)
