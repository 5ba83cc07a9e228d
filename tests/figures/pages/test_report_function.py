"""figures.report: the page for networks that are no checkpoints, on images in memory."""

import pytest
import torch

import figures
from dia_analysis import AnalysisInputError, gradcam, measure_correlation
from dia_models import create_model
from tests.support import shortened
from tests.support.pages import Tables, text_of


def networks():
    torch.manual_seed(0)
    return {name: create_model(name, num_classes=3, in_channels=1) for name in ("cifar_resnet20_se", "cifar_resnet20")}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    images = torch.randn(12, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(12) % 3
    models, names = networks(), ["gated", "plain"]
    with pytest.MonkeyPatch.context() as patch:
        shortened.shorten(patch)
        page = figures.report(models, list(images.split(8)), labels, names, class_names=("a", "b", "c"), data="noise")
    out = page.save(tmp_path_factory.mktemp("page") / "deep" / "report.html")
    return page, images, models, Tables(out.read_text(encoding="utf-8"))


def test_its_numbers_are_those_of_the_analyses(made):
    page, images, models, drawn = made
    assert set(page.correlation.result) == {"gated"}
    wanted = measure_correlation(models["cifar_resnet20_se"], list(images.split(8)))
    assert page.correlation.result["gated"].trained.mean_r == pytest.approx(wanted.mean_r, rel=1e-6)
    assert [network.name for network in page.gradients.result.result.networks] == ["gated", "plain"]
    maps = gradcam(
        models["cifar_resnet20"], images, class_names=("a", "b", "c"), layer=page.gradcam.result.found.results[1].layer
    )
    texts, rows = drawn.captioned("What each network predicts")
    plain = [(text, row) for text, row in zip(texts, rows, strict=True) if text[2] == "plain"]
    assert [text[3] for text, _ in plain] == [maps.class_names[number] for number in maps.predicted]
    assert [row[4] for _, row in plain] == pytest.approx(maps.score, rel=1e-5)
    assert [text[1] for text, _ in plain] == ["a", "b", "c"] * 4


def test_it_names_what_was_given_and_no_command(made):
    page, _, _, drawn = made
    text = text_of(drawn)
    assert "gated, plain on noise" in text
    assert "plain has no attention, so there are no attention maps to look at." in text
    assert "dia-analyze report" not in text
    assert "Again:" not in text
    assert page.command == ""
    assert page.summary().count("inconclusive") >= 3
    assert page._repr_html_().startswith("<pre>Are the attention maps")


def test_without_labels_there_are_no_gradients_and_the_page_says_why():
    page = figures.report(networks()["cifar_resnet20"], torch.randn(4, 1, 16, 16))
    assert page.gradients.result is None
    assert page.gradients.missing == ["ResidualNetwork: no gradients, because the images have no labels."]


def test_what_does_not_fit_is_refused(made, tmp_path):
    page, images, models, _ = made
    with pytest.raises(AnalysisInputError, match="labels of shape 3 for 12 images; give one number each"):
        figures.report(models, images, [0, 1, 2])
    with pytest.raises(AnalysisInputError, match="1 names for 2 networks; give one for each"):
        figures.report(models, images, names=["a"])
    with pytest.raises(AnalysisInputError, match="there is no network"):
        figures.report([], images)
    with pytest.raises(AnalysisInputError, match="there are no images"):
        figures.report(models, [])
    (tmp_path / "mine.html").write_text("mine")
    with pytest.raises(AnalysisInputError, match=r"mine\.html exists; choose another file, or overwrite it"):
        page.save(tmp_path / "mine.html")
    assert (tmp_path / "mine.html").read_text() == "mine"
    assert page.save(tmp_path / "mine.html", overwrite=True).read_text().startswith("<!DOCTYPE html>")
