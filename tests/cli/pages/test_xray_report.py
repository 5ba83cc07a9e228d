"""The page on chest X-ray networks: one file, everything in it, nothing of a file's name executed."""

import json
import re
import tomllib
from base64 import b64decode
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import figures.pages.html
from dia_analysis.statistics.intervals import Estimate
from dia_analysis.xray.diagnosis import by_patient
from figures.pages.xray_report import worst_first
from tests.support.browser import chromium
from tests.support.commands import SE, analyze, failure, train
from tests.support.pages import Page
from tests.support.readings import LABELS, readings
from tests.support.xray_data import chest_xray, network

EVIL = "<script>alert(1)</script> $a$ \"quoted\" & 'more'"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The page on two networks, one of them with a name that wants to be a script, on files that want it too."""
    folder = tmp_path_factory.mktemp("report")
    root = chest_xray(folder / "data")
    test = root / "chest_xray" / "test"
    for number, path in enumerate(sorted(test.rglob("*.png"))):
        path.rename(path.with_name(f"{path.stem}<b onload=x>$_{{{number}}}$&.png"))
    (test / "NORMAL" / "IM-0999<i>.png").write_bytes(b"no image")
    ckpts = [network(folder / "one.safetensors"), network(folder / "<b>two$^$.safetensors", "cifar_resnet11_se")]
    given = [part for ckpt in ckpts for part in ("--ckpt", ckpt)]
    out = folder / "report.html"
    assert analyze("report", "--xray", *given, "--data-dir", root, "--out", out) == 0
    return out, root, given


def test_it_is_one_file_that_fetches_and_runs_nothing(made):
    text = made[0].read_text(encoding="utf-8")
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "a", "svg"} & {name for name, _ in page.tags}
    assert all(image["src"].startswith("data:image/") for image in page.of("img"))
    assert not re.search(r"https?://", re.sub(r"base64,[^\"]+", "", text))
    assert not [key for _, attributes in page.tags for key in attributes if key.startswith("on")]
    policy = next(a["content"] for a in page.of("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert "script-src 'none'" in policy


def test_a_browser_has_nothing_to_say(made, tmp_path):
    with chromium(tmp_path) as browser:
        browser.open(made[0], 390)
        assert browser.errors == []
        assert browser.requests == [made[0].as_uri()]
        assert (
            browser.run("getComputedStyle(document.querySelector('.alarm')).borderLeftWidth") != "0px"
        )  # has its style


def test_names_are_text(made):
    page = Page(made[0].read_text(encoding="utf-8"))
    assert "<b>two$^$" in page.text
    assert "NORMAL/IM-0999<i>.png: not an image in a known format" in page.text
    assert not {"b", "i"} & {name for name, _ in page.tags}


def test_every_figure_says_what_it_shows(made):
    maps, regions = Page(made[0].read_text(encoding="utf-8")).of("img")
    assert maps["alt"] == "Heatmaps of one, <b>two$^$ on the 8 images with the worst errors"
    assert "Mean share of the evidence by region. one: left field 0." in regions["alt"]
    assert b64decode(maps["src"].split(",")[1]).startswith(b"\x89PNG")
    assert b"<svg" in b64decode(regions["src"].split(",")[1])


def test_it_says_what_it_is_not(made):
    page = Page(made[0].read_text(encoding="utf-8"))
    assert "This is no diagnostic device. It must not be used for patients." in page.text
    assert "Whether a network would work elsewhere" in page.text
    assert "Regions: an approximation" in page.text


def test_it_is_for_light_dark_and_paper(made):
    text = made[0].read_text(encoding="utf-8")
    for wanted in ("prefers-color-scheme: dark", "@media print", 'lang="en"', "viewport"):
        assert wanted in text


def test_its_numbers_are_those_of_eval(made, capsys):
    out, root, given = made
    assert train("eval", *given, "--data-dir", root, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    page = " ".join(Page(out.read_text(encoding="utf-8")).text.split())
    for found in document["evaluations"]:
        assert found["checkpoint_sha256"] in page
        for name in ("auroc", "brier", "sensitivity"):
            assert Estimate(**filled(found[name])).text() in page
        assert Estimate(**filled(found["at_chosen_threshold"]["specificity"])).text() in page
        assert all(remark in page for remark in found["remarks"])
        assert found["chosen_threshold"]["source"] in page
    assert "ResNet50-se (224x224) 99.2 60.8 85.3" in page
    (pair,) = document["comparisons"]
    assert f"McNemar's exact p = {pair['at_0.5']['mcnemar_p']:.3g}" in page
    assert "16 images of 16 patients" not in page  # there are two images a patient


def filled(document):
    """An estimate's numbers, as they were before what is not defined became null."""
    return {key: np.nan if value is None and key != "right" else value for key, value in document.items()}


def test_patients_get_the_mean_of_their_scores():
    found = by_patient(readings())
    assert found.patients == ("a", "b", "c", "d", "e")
    assert found.scores.tolist() == pytest.approx([0.1, 0.6, (0.9 + 0.4) / 2, 0.7, 0.2])
    assert found.labels.tolist() == [False, False, True, True, True]


def test_the_worst_errors_come_first():
    assert worst_first([readings()]) == [5, 1, 3, 4, 0, 2]
    other = readings(scores=np.where(LABELS, 0.0, 1.0))
    other.scores[5] = 0.9
    assert worst_first([readings(), other])[-1] == 5  # on average nearly right


def test_a_figure_in_a_page_keeps_its_bytes_and_its_words():
    figure = Figure()
    figure.subplots().plot([1, 2])
    first, again = (figures.pages.html.embed(figure, EVIL) for _ in range(2))
    assert first == again
    (image,) = Page(str(first)).of("img")
    assert image["alt"] == EVIL
    assert "<script" not in first


def test_templates_are_shipped_and_a_missing_name_is_an_error():
    root = Path(figures.__file__).parents[1]
    shipped = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["figures"]
    templates = sorted((root / "figures" / "templates").iterdir())
    assert len(templates) >= 2
    for path in templates:
        assert any(fnmatch(f"templates/{path.name}", pattern) for pattern in shipped)
    with pytest.raises(Exception, match="is undefined"):
        figures.pages.html.page("xray_report.html")


def test_what_cannot_be_written_is_refused_before_any_work(tmp_path, capsys):
    ckpt = network(tmp_path / "net.safetensors")
    root = chest_xray(tmp_path / "data")
    run = ("report", "--xray", "--ckpt", ckpt, "--data-dir", root, "--out")
    assert "is a folder; name the page to write" in failure(capsys, analyze(*run, tmp_path))
    assert "does not end in .html" in failure(capsys, analyze(*run, tmp_path / "report.pdf"))
    (tmp_path / "r.html").write_text("mine")
    assert "exists; choose another file" in failure(capsys, analyze(*run, tmp_path / "r.html"))
    assert (tmp_path / "r.html").read_text() == "mine"
    assert analyze(*run, tmp_path / "r.html", "--overwrite", "--images", 4) == 0
    assert "no diagnostic device" in (tmp_path / "r.html").read_text()


def test_networks_of_more_classes_have_no_such_page(tmp_path, capsys):
    code = analyze("report", "--xray", "--ckpt", SE, "--out", tmp_path / "r.html")
    assert "the page is for two classes" in failure(capsys, code)


def test_one_network_without_patients_or_training_images_has_a_page_too(tmp_path):
    folder = tmp_path / "loose"
    for label in ("NORMAL", "PNEUMONIA"):
        (folder / label).mkdir(parents=True)
        for i in range(2):
            Image.new("L", (20, 20), 50 * i + 20).save(folder / label / f"{i}.png")
    ckpt = network(tmp_path / "net.safetensors", data="folder:nowhere")
    out = tmp_path / "r.html"
    assert analyze("report", "--xray", "--ckpt", ckpt, "--data", f"folder:{folder}", "--out", out) == 0
    page = Page(out.read_text()).text
    assert "each image is treated as one patient" in page
    assert "Whether patients of these images also occur in training is not known" in page
    assert "not chosen, because the training images are not there to look" in page
