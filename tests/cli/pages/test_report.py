"""The page with every analysis: one file, its numbers those of the results, what is missing said and not an error."""

import json
import re
import shlex
from base64 import b64encode
from hashlib import sha256

import numpy as np
import pytest
from PIL import Image

import cli.pages.report
from dia_models import Checkpoint
from tests.support import shortened
from tests.support.browser import chromium
from tests.support.commands import LSTM, SE, analyze, failure
from tests.support.pages import Page, Tables, text_of
from tests.support.xray_data import chest_xray, network

pytestmark = pytest.mark.usefixtures("_shortened")

IMAGES = 24
EVIL = "<script>alert(1)<!-- $x$ \"'&"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The page on two bundled networks, with what it was drawn from."""
    out = tmp_path_factory.mktemp("report") / "report.html"
    kept = []
    with pytest.MonkeyPatch.context() as patch:
        shortened.shorten(patch)
        patch.setattr("cli.pages.report.analyze_networks", keeping(cli.pages.report.analyze_networks, kept))
        options = ("--data", "digits", "--images", IMAGES, "--out", out)
        assert analyze("report", "--ckpt", SE, "--ckpt", LSTM, *options) == 0
    return out, kept[0], Tables(out.read_text(encoding="utf-8"))


def keeping(function, kept):
    def called(*arguments):
        kept.append(function(*arguments))
        return kept[-1]

    return called


def test_it_is_one_small_file_that_fetches_nothing(made):
    out, _, page = made
    text = out.read_text(encoding="utf-8")
    assert out.stat().st_size < 5e6
    assert not {"link", "iframe", "object", "svg", "form"} & {name for name, _ in page.tags}
    assert all(image["src"].startswith("data:image/") for image in page.of("img"))
    assert all(link["href"].startswith("#") for link in page.of("a"))
    assert not re.search(r"https?://|url\(|@import", re.sub(r"base64,[^\"]+", "", text))
    assert not [key for _, attributes in page.tags for key in attributes if key.startswith("on") or key == "style"]


def test_its_policy_allows_its_own_script_and_style_and_nothing_else(made):
    out, _, page = made
    text = out.read_text(encoding="utf-8")
    (script,), (style,) = (re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL) for tag in ("script", "style"))
    (policy,) = [a["content"] for a in page.of("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    digests = [b64encode(sha256(part.encode()).digest()).decode() for part in (style, script)]
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digests[0]}'; script-src 'sha256-{digests[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )


def test_it_says_what_was_analysed(made):
    _, content, page = made
    text = text_of(page)
    for name in (SE, LSTM):
        assert Checkpoint.read(name).sha256 in text
    assert "test accuracy 98.06 %" in text
    assert "658,402" in text
    assert (
        f"Data of this analysis: digits , {IMAGES} of 360 images at equal distances, in random order; seed 0." in text
    )
    assert f"torch {content.versions['torch']}" in text


def test_the_findings_come_first_with_the_papers_numbers_beside(made):
    _, content, page = made
    text = text_of(page)
    r = content.correlation.result[SE].trained.mean_r
    assert f"{SE}. Mean r is {r:z.2f}; before training it is" in text
    assert f"Here {r:z.2f} The paper average r above 0.85" in text
    assert "The paper’s claim inconclusive" in text
    ratio = content.cost.result.networks[1].latency_ratio
    low, high = content.cost.result.networks[1].interval
    said = f"95 % interval {low:.2f} to {high:.2f}"
    assert f"{LSTM} takes {ratio:.2f} times as long as cifar_resnet56 ({said})" in text
    assert f"Here {ratio:.2f} times the time ({said})" in text
    (alt,) = [image["alt"] for image in page.of("img") if "without attention" in image["alt"]]
    assert f"{LSTM} takes {ratio:.2f} times as long ({said})" in alt
    sections = (content.correlation, content.gini, content.gradients, content.gradcam, content.cost)
    for section in sections:
        for _, finding in section.findings:
            assert " ".join(finding.text.split()) in text
            assert text.index(" ".join(finding.text.split())) < text.index("What was analyzed The checkpoints")
    assert [len(section.findings) for section in sections] == [2, 1, 1, 1, 2]


def test_every_cell_of_the_matrices_is_the_results(made):
    _, content, page = made
    for name in (SE, LSTM):
        both, gini = content.correlation.result[name], content.gini.result.networks[name]
        for stage, untrained, forest in zip(both.trained.stages, both.untrained.stages, gini.first.stages, strict=True):
            for kind, wanted in (("trained", stage.matrix), ("untrained", untrained.matrix)):
                np.testing.assert_allclose(page.matrix(name, stage.stage, kind), wanted, rtol=1e-5, atol=1e-9)
            np.testing.assert_allclose(page.matrix(name, stage.stage, "centred"), forest.importance(), rtol=1e-5)


def test_a_cross_marks_what_is_not_above_its_null(made):
    _, content, page = made
    wanted = sum(
        int((~stage.above_null()[np.tri(5, dtype=bool)]).sum())
        for readings in content.gini.result.networks.values()
        for _, stage, _ in readings.pairs()
    )
    marked = [attributes for attributes in page.of("td") if attributes.get("data-mark") == "not above its null"]
    assert len(marked) == wanted > 0


def test_the_tables_are_the_results(made):
    _, content, page = made
    _, rows = page.captioned("Pearson r between")
    outcomes = content.correlation.result.values()
    results = [(both.trained, both.before.result, both.reestimated.result) for both in outcomes]
    stages = [three for each in results for three in zip(*(result.stages for result in each), strict=True)]
    assert len(rows) == len(stages) == 6
    for row, (stage, untrained, again) in zip(rows, stages, strict=True):
        numbers = (stage.mean_r, untrained.mean_r, again.mean_r, stage.std_r, stage.median_r, stage.share_above_0_8)
        assert row[1:] == pytest.approx([stage.stage, 6, *numbers, stage.pairs, stage.undefined], rel=1e-5)
    _, rows = page.captioned("Importance of earlier layers")
    forests = [pair[1:] for readings in content.gini.result.networks.values() for pair in readings.pairs()]
    for row, (stage, untrained) in zip(rows, forests, strict=True):
        means = (stage.mean_r2(), stage.mean_r2(null=True), untrained.mean_r2())
        shares = (stage.beyond_two_nearest(), untrained.beyond_two_nearest(), stage.beyond_if_flat())
        wanted = [stage.stage, 6, stage.rows, *means, *shares, len(stage.unpredicted()), stage.beyond_by_permutation()]
        known = [None if np.isnan(number) else number for number in wanted]
        found = [*row[1:3], *row[4:]]
        assert [number for number in found if number is not None] == pytest.approx(
            [number for number in known if number is not None], rel=1e-5
        )
        assert [number is None for number in found] == [number is None for number in known]
    _, rows = page.captioned("Absolute gradient g")
    points = [point for n in content.gradients.result.result.networks for point in n.stages]
    for row, point in zip(rows, points, strict=True):
        found = point.magnitudes
        sizes = (found.mean, found.quantile(0.5), found.std, found.quantile(0.05), found.quantile(0.95))
        rest = (found.zeros, found.nonfinite, point.relative, found.mean, found.mean)
        assert row[2:] == pytest.approx([*sizes, *rest], rel=1e-5)
    texts, rows = page.captioned("Cost of each network")
    for text, row, cost in zip(texts, rows, content.cost.result.networks, strict=True):
        numbers = (cost.parameters, cost.attention_parameters, cost.flops / 1e6, cost.latency_ms, cost.latency_ratio)
        assert (text[0], *row[1:6]) == (cost.name, *(pytest.approx(n, rel=1e-5) for n in numbers))


def test_the_table_of_predictions_is_the_results(made):
    _, content, page = made
    texts, rows = page.captioned("What each network predicts")
    found = content.gradcam.result.found
    assert len(rows) == 2 * 16
    for i, label in enumerate(found.labels):
        for place, result in enumerate(found.results):
            text, row = texts[2 * i + place], rows[2 * i + place]
            assert text[:4] == [result.image_names[i], label, result.name, result.class_names[result.predicted[i]]]
            assert row[4:] == pytest.approx([result.score[i], result.cam_max[i]], rel=1e-5)
    assert "stages.1.blocks.5, 4x4 positions" in page.text  # the last block's maps would have 2x2


def test_what_replacing_every_map_does_is_told_first_and_stands_in_a_table(made):
    _, content, page = made
    _, rows = page.captioned("Every attention map replaced")
    found = [one for network in content.ablation.found.networks for one in network.ablations]
    assert [one.replaced_by for one in found] == ["mean", "resample", "constant"] * 2
    assert [row[3] for row in rows] == pytest.approx([100 * one.scores.accuracy.value for one in found], rel=1e-5)
    text = text_of(page)
    for sentence in content.headlines().values():
        assert " ".join(sentence.split()) in text
        assert text.index(" ".join(sentence.split())) < text.index("What was analyzed The checkpoints")
    for _, sentence in content.ablation.findings:
        assert sentence in text


def test_every_figure_says_what_it_shows(made):
    _, content, page = made
    alts = [image["alt"] for image in page.of("img")]
    assert len(alts) == 2 * 3 + 1 + 1 + 1 + 2 + 1  # of correlation each network has its parts, too
    assert all(len(alt) > 40 for alt in alts)
    assert any(content.gradcam.result.found.trust.checks[0].summary() in alt for alt in alts)


def test_the_commands_do_it_again(made, tmp_path, capsys):
    out, content, page = made
    text = out.read_text(encoding="utf-8")
    for command in (content.command, *content.correlation.commands, *content.cost.commands):
        assert f"{command}" in text
    again = run(content.correlation.commands[1], tmp_path / "a", capsys)
    for stage in again["stages"]:
        np.testing.assert_allclose(page.matrix(LSTM, stage["stage"], "trained"), stage["matrix"], rtol=1e-5, atol=1e-9)
    (command,) = content.ablation.commands
    _, rows = page.captioned("Every attention map replaced")
    networks = run(command, tmp_path / "d", capsys)["networks"]
    losses = [one["loss"] for network in networks for one in network["ablations"] if one["by_layer"] is None]
    assert [row[6] for row in rows] == pytest.approx(losses, rel=1e-5)
    (command,) = content.gradients.commands
    _, rows = page.captioned("Absolute gradient g")
    models = run(command, tmp_path / "b", capsys)["models"]
    means = [stage["mean_abs"] for model in models for stage in model["stages"]]
    assert [row[2] for row in rows] == pytest.approx(means, rel=1e-5)
    (command,) = content.gradcam.commands
    images = run(command.replace("--trust ", ""), tmp_path / "c", capsys)["images"]
    _, rows = page.captioned("What each network predicts")
    assert [row[4] for row in rows] == pytest.approx([m["score"] for i in images for m in i["models"]], rel=1e-5)


def run(command, out, capsys):
    capsys.readouterr()
    program, *arguments = shlex.split(command)
    assert program == "dia-analyze"
    assert analyze(*arguments, "--json", "--out", out) == 0
    return json.loads(capsys.readouterr().out)


def test_a_network_without_attention_alone_on_images_without_labels(tmp_path):
    folder = tmp_path / "loose"
    folder.mkdir()
    for i in range(3):
        Image.new("L", (20, 20), 50 * i + 20).save(folder / f"{i}.png")
    (folder / f"{EVIL.replace('/', '')}.png").write_bytes(b"no image")
    ckpt = network(tmp_path / "plain.safetensors")
    out = tmp_path / "r.html"
    assert analyze("report", "--ckpt", ckpt, "--data", f"folder:{folder}", "--out", out) == 0
    page = Page(out.read_text(encoding="utf-8"))
    text = text_of(page)
    assert text.count("plain has no attention, so there are no attention maps to look at.") == 6
    assert "plain: no gradients, because" in text
    assert "has no classes, so its images have no labels" in text
    assert "plain has no attention module to leave out, so it is its own backbone." in text
    assert "the maps of plain" in text.replace("The maps", "the maps")
    assert "Files that could not be read and are left out (1):" in text
    assert EVIL in page.text
    assert len(page.of("script")) == 1


def test_stages_of_one_layer_have_no_pairs_and_names_are_text(tmp_path):
    root = chest_xray(tmp_path / "data")
    ckpt = network(tmp_path / f"{EVIL}.safetensors".replace("/", ""), "cifar_resnet11_se")
    out = tmp_path / "r.html"
    assert analyze("report", "--ckpt", ckpt, "--data-dir", root, "--images", 8, "--out", out) == 0
    page = Page(out.read_text(encoding="utf-8"))
    text = text_of(page)
    assert "There is no defined correlation, so nothing can be said about shared attention." in text
    assert "Stage 1 has one attention layer (" in text
    assert "inconclusive : it takes two layers in a stage" in text
    assert EVIL in page.text
    assert len(page.of("script")) == 1
    assert not page.of("output")  # no matrix, no controls


def test_networks_that_cannot_go_together_are_said_section_by_section(tmp_path):
    root = chest_xray(tmp_path / "data")
    ckpts = [network(tmp_path / "one.safetensors"), network(tmp_path / "two.safetensors", size=32, classes=("a", "b"))]
    given = [part for ckpt in ckpts for part in ("--ckpt", ckpt)]
    out = tmp_path / "r.html"
    assert analyze("report", *given, "--data-dir", root, "--images", 4, "--out", out) == 0
    text = text_of(Page(out.read_text(encoding="utf-8")))
    assert "two: no gradients, because chest-xray has classes that the network does not know" in text
    assert "one: |g| " in text
    assert "The maps of one and two have different sizes." in text


def test_what_cannot_be_written_is_refused_before_any_work(tmp_path, capsys):
    given = ("report", "--ckpt", SE, "--out")
    assert "is a folder; name the page to write" in failure(capsys, analyze(*given, tmp_path))
    assert "does not end in .html" in failure(capsys, analyze(*given, tmp_path / "report.pdf"))
    (tmp_path / "r.html").write_text("mine")
    assert "exists; choose another file" in failure(capsys, analyze(*given, tmp_path / "r.html"))
    below = tmp_path / "r.html" / "x" / "r.html"
    assert "r.html is a file; choose another folder" in failure(capsys, analyze(*given, below))
    assert (tmp_path / "r.html").read_text() == "mine"


def test_masks_are_for_the_page_on_x_rays(tmp_path, capsys):
    assert analyze("report", "--ckpt", SE, "--masks", tmp_path) == 2
    assert "--xray" in capsys.readouterr().err


def test_two_runs_with_one_name_are_told_apart(tmp_path):
    given = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        path = network(tmp_path / name / "model.safetensors", "cifar_resnet20_se", seed=ord(name))
        given += ["--ckpt", path]
    out = tmp_path / "r.html"
    root = chest_xray(tmp_path / "data")
    assert analyze("report", *given, "--data-dir", root, "--images", 4, "--out", out) == 0
    page = Tables(out.read_text(encoding="utf-8"))
    assert {table["about"]["data-network"] for table in page.tables if "data-network" in table["about"]} == {"a", "b"}
    assert {text[0] for text in page.captioned("Cost")[0]} == {"a", "b", "cifar_resnet20"}
    assert "the maps of 2 networks for the same class" in page.text


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


SHOWN = "[...document.querySelectorAll({})].filter(e => e.checkVisibility()).map(e => e.{})"


def shown(browser, selector, what="textContent"):
    return browser.run(SHOWN.format(json.dumps(selector), what))


def click(browser, selector):
    browser.run(f"document.querySelector({json.dumps(selector)}).click()")


@pytest.mark.parametrize("options", [{}, {"dark": True}, {"media": "print"}, {"script": False}])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_opens_without_a_word_and_asks_for_nothing(made, browser, width, options):
    browser.open(made[0], width, **options)
    assert browser.errors == []
    assert browser.requests == [made[0].as_uri()]
    if options.get("script", True):
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")
        assert browser.run("[...document.images].every(image => image.complete && image.naturalWidth > 0)")


def test_without_its_script_everything_is_there_and_no_control(made, browser):
    browser.open(made[0], script=False)
    browser.call("Emulation.setScriptExecutionDisabled", value=False)  # of the page; what follows is the tool's
    assert len(shown(browser, "#correlation .network", "dataset.network")) == 3 * 2
    assert shown(browser, ".controls", "className") == []
    assert shown(browser, "th button", "textContent") == []


def test_a_column_sorts_by_its_numbers(made, browser):
    browser.open(made[0])
    table = "#correlation table.sortable"
    head = f"{table} thead th:nth-child(4)"
    values = f"{table} tbody td:nth-child(4)"
    before = [float(text) for text in shown(browser, values)]
    assert len(before) == 6
    assert browser.run(f"document.querySelector('{head}').getAttribute('aria-sort')") is None
    for direction, wanted in (("ascending", sorted(before)), ("descending", sorted(before, reverse=True))):
        browser.run(f"document.querySelector('{head} button').focus()")
        browser.press("Enter")
        assert [float(text) for text in shown(browser, values)] == wanted
        assert browser.run(f"document.querySelector('{head}').getAttribute('aria-sort')") == direction
    click(browser, f"{table} thead th:nth-child(1) button")
    assert shown(browser, f"{table} tbody th") == sorted([SE, LSTM] * 3)
    assert browser.run(f"document.querySelectorAll('{table} th[aria-sort]').length") == 1


def test_a_stage_and_networks_can_be_picked(made, browser):
    browser.open(made[0])
    click(browser, "#gini input[type=radio][value='2']")
    assert shown(browser, "#gini .stage", "dataset.stage") == ["2"]
    assert shown(browser, "#correlation .stage", "dataset.stage") == ["1", "2", "3"]
    click(browser, f"#gini input[type=checkbox][value='{SE}']")
    assert shown(browser, "#gini .network", "dataset.network") == [LSTM]
    click(browser, "#gini input[type=radio][value='']")
    assert shown(browser, "#gini .network", "dataset.network") == [LSTM] * 3
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert len(shown(browser, "#gini .network", "dataset.network")) == 6  # on paper there is everything


def read(value):
    """A number as the page reads it out: three digits, of those that the cell keeps."""
    return f"{float(f'{value:.6g}'):#.3g}"


def test_the_arrow_keys_read_the_matrices_for_all_networks(made, browser):
    content = made[1]
    browser.open(made[0])
    browser.run("document.querySelector('#correlation table.matrix td').focus()")
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowUp", "ArrowUp", "ArrowDown"):
        browser.press(key)
    assert browser.run("[document.activeElement.parentElement.rowIndex, document.activeElement.cellIndex]") == [2, 3]
    (text,) = shown(browser, "#correlation output")
    title, *lines = text.split("\n")
    assert title.startswith("Stage 1: layer 2 (stages.0.attention.1.gate) and layer 3 (")
    for line, (name, both) in zip(lines, content.correlation.result.items(), strict=True):
        trained, untrained = (result.stages[0].matrix[1, 2] for result in (both.trained, both.untrained))
        assert line == f"{name}: {read(trained)} (untrained {read(untrained)})"
    assert shown(browser, "#correlation .twin") == shown(browser, "#correlation .network > .wide .twin")
    browser.press("End")
    assert browser.run("document.activeElement.cellIndex") == 6
    browser.press("Home")
    assert browser.run("document.activeElement.cellIndex") == 1
    assert browser.run("document.querySelectorAll('#correlation table.matrix td[tabindex=\"0\"]').length") == 12


def test_the_pointer_reads_a_triangle_and_its_crosses(made, browser):
    browser.open(made[0])
    cross = "document.querySelector('#gini td[data-mark]')"
    browser.run(f"{cross}.dispatchEvent(new MouseEvent('mouseover', {{bubbles: true}}))")
    (text,) = shown(browser, "#gini output")
    assert "from layer" in text
    assert ", not above its null" in text
