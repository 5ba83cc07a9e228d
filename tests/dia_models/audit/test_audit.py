"""Every parameter count that the paper prints."""

import json

import pytest

import cli.common.main
import cli.runs.models
import cli.train
from dia_models.audit.published import audit

DIFFER = {"cifar_resnet164_spa": 3_856_180, "cifar_resnet164_dia_lstm_light": 1_755_956}


@pytest.fixture(scope="module")
def verdicts():
    return audit()


def test_every_count_fits_to_the_printed_digit_but_two_that_no_reading_explains(verdicts):
    assert len(verdicts) == 62
    assert {v.entry.network: v.ours for v in verdicts if not v.fits} == DIFFER
    assert all(v.entry.remark for v in verdicts if not v.fits)


def test_the_entries_are_the_papers(verdicts):
    """IV: 10 networks on 3 backbones; XII: 4 reductions; XIII: 4 depths twice; XVI: 4 depths, 3 networks."""
    tables = [v.entry.table for v in verdicts]
    assert {t: tables.count(t) for t in tables} == {"IV": 30, "XII": 4, "XIII": 8, "XIV": 5, "XV": 3, "XVI": 12}


def test_the_reduction_of_every_network_is_told(verdicts):
    entries = [v.entry for v in verdicts]
    lstm = {(e.table, e.reduction) for e in entries if e.model.endswith("dia_lstm") and e.table != "XII"}
    assert lstm == {("IV", 4), ("XIII", 4), ("XIV", 4), ("XV", 4), ("XVI", 16)}
    assert [e.reduction for e in entries if e.table == "XII"] == [1, 4, 8, 16]
    assert {e.reduction for e in entries if e.table == "XIII" and e.model.endswith("_se")} == {16}
    assert {e.reduction for e in entries if e.model in ("cifar_resnet164", "cifar_resnet164_eca")} == {None}
    assert all("r = 16" in e.remark for e in entries if e.table == "XVI" and e.model.endswith("dia_lstm"))


def test_the_command_prints_it(verdicts, capsys, monkeypatch):
    monkeypatch.setattr("cli.runs.models.audit", lambda: verdicts)
    assert cli.common.main.run(cli.train.app, ["models", "--audit"]) == 0
    out = capsys.readouterr().out
    assert "60 of 62 match to the printed digit; the rest are explained" in out
    assert "XVI    ResNet83_dia_lstm, no batch norm       16  0.94M" in out
    assert "matches: with r = 16, where DIA-LSTM fits with r = 4 in Tables IV, XIII, XIV and XV" in out
    assert "differs: the paper's 1.96 is that of no published SPA" in out
    assert cli.common.main.run(cli.train.app, ["models", "--audit", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "dia.audit/1"
    assert sum(entry["fits"] for entry in document["entries"]) == 60
