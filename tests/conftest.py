"""Every test runs with the shapes in the signatures checked at run time."""

import os
import sys

if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores, and so do the commands that they start
    os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.dont_write_bytecode = False  # compiling the packages takes seconds in each of the many processes
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import pytest  # noqa: E402

pytest.register_assert_rewrite("tests.support")

from tests.support import checked, forked  # noqa: E402


def pytest_configure(config):
    """Where tests run, which is not in the process that gives them to workers."""
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        return
    checked.install("dia_models", "dia_analysis")
    from dia_analysis.results import style
    from dia_models.training import device

    style.STYLE["pdf.fonttype"], style.DPI = 3, 75  # drawn in half the time of what a user's files have
    if (forced := os.environ.get("DIA_TEST_BFLOAT16")) is not None:  # as on a machine that computes in it, or does not
        device._cpu_has_bfloat16 = lambda: forced == "1"


# A worker has a whole file, and what begins last keeps the others waiting: the files that take longest come first.
LONGEST = (
    "test_docs",
    "test_report",
    "test_sweep",
    "test_detection_training",
    "test_survival",
    "test_training_options",
    "test_processes",
    "test_training_processes",
    "test_generation",
    "test_attached",
    "test_correlation",
    "test_gini",
    "test_nothing_lost",
    "test_report_function",
    "test_xray_report",
    "test_store",
)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


def pytest_xdist_auto_num_workers():
    """One more than there are cores: many tests wait for processes that they start."""
    return len(os.sched_getaffinity(0)) + 1 if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.fixture(autouse=True)
def _seeded():
    import torch

    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _warned_of_nothing(monkeypatch):
    """What is warned of once in a process is warned of once in each test."""
    monkeypatch.setattr("dia_models.data.warn_once.SAID", set())


@pytest.fixture
def _shortened(monkeypatch):
    """That commands run is asked, and not what they find."""
    from tests.support import shortened

    shortened.shorten(monkeypatch)


@pytest.fixture
def _quick_workers(monkeypatch):
    """A sweep's workers are forked, and not started with all of their imports."""
    monkeypatch.setattr("multiprocessing.get_context", lambda *_: forked.context)


@pytest.fixture
def _undrawn(monkeypatch):
    """Files of figures are there and empty: drawing takes longer than all else that a command does on little data."""

    def touch(_, path):
        for form in ("png", "pdf"):
            path.with_suffix(f".{form}").touch()

    monkeypatch.setattr("dia_analysis.results.style.save_figure", touch)


@pytest.fixture(scope="session")
def cifar10_dir():
    """The folder that holds real CIFAR-10, where there is one."""
    from dia_models.data import data_root

    root = data_root()
    if not (root / "cifar10" / "test").is_dir() and not (root / "cifar-10-batches-py").is_dir():
        pytest.skip(f"real CIFAR-10 is not in {root}; set DIA_DATA_DIR to a folder that holds it")
    return root


@pytest.fixture(scope="session")
def chest_xray_dir():
    """The folder that holds real chest X-rays, where there is one."""
    from dia_models.data import data_root

    root = data_root()
    if not (root / "chest_xray" / "test").is_dir():
        pytest.skip(f"real chest X-rays are not in {root}; set DIA_DATA_DIR to a folder that holds them")
    return root
