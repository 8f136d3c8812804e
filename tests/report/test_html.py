"""The page: well-formed, offline, escaped, and holding the same data as report.json."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from profiling.synthetic import process, report

from edgemamba.profiling.pictures import encode_runs, thumbnail
from edgemamba.profiling.quality import Case, PatientScore, Quantity, Rate, Retention
from edgemamba.profiling.records import ProfileReport, dump_report
from edgemamba.records import load_record
from edgemamba.report import write_html
from edgemamba.report.html import DATA_ID, render

VOID = {"meta", "link", "br", "img", "hr", "input"}
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&"


class Page(HTMLParser):
    """Tags in order; fails on a tag that closes nothing or stays open."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data: dict[str, str] = {}
        self.scripts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (tag, self.open[-3:])
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif self.open:
            self.data[self.open[-1]] = self.data.get(self.open[-1], "") + data

    def find(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def kept(dice: float = 0.8, names: str = "", cases: bool = True) -> Retention:
    rng = np.random.default_rng(0)
    mask = np.zeros((40, 50), np.uint8)
    mask[10:20, 15:30] = 1
    webp, small = thumbnail(rng.integers(0, 255, (40, 50, 3)).astype(np.uint8), [mask, mask, np.roll(mask, 1)])
    rate = Rate(count=2, of=10, rate_pct=Quantity(value=20.0, low=5.0, high=50.0))
    runs = [encode_runs(one) for one in small]
    case = Case(
        label="patient 1, slice 3" + names, why=["worst Dice", "largest disagreement"], height=40, width=50,
        channel="FLAIR", image_webp=webp, truth=runs[0], reference=runs[1], artifact=runs[2],
        dice_reference=0.9, dice_artifact=0.8, unequal_pixels=20,
    )  # fmt: skip
    return Retention(
        data="phantoms" + names, split="patient", split_note="", fingerprint="d" * 64,
        images=40, of_images=40, patients=6, runtime="onnxruntime 1.2",
        headline="2 sum(TP) / (sum(predicted) + sum(true))",
        dice_reference=Quantity(value=0.81, low=0.7, high=0.9),
        dice_artifact=Quantity(value=dice, low=0.7, high=0.9),
        retention_pct=Quantity(value=100 * dice / 0.81, low=98.0, high=100.1),
        mask_agreement_pct=99.9, mask_dice=0.99, mean_abs_difference=1e-4, max_abs_difference=0.2,
        false_alarms_reference=rate,
        false_alarms_artifact=rate, missed_reference=rate, missed_artifact=rate,
        protocols={"pooled": {"definition": "all" + names, "reference": 0.81, "candidate": dice,
                              "retention_percent": {"value": 99.0, "low": 98.0, "high": 99.5}},
                   "volume": {"definition": "x", "left_out": "single slices"}},
        scores=[PatientScore(patient=str(i) + names, images=7, tumour_images=3, dice_reference=0.5 + i / 20,
                             dice_artifact=0.5 + i / 21) for i in range(6)],
        cases=[case] if cases else [],
    )  # fmt: skip


def full(**subject) -> ProfileReport:
    return report(**subject).model_copy(update={"retention": kept()})


def several() -> list[ProfileReport]:
    """Three targets, one of them noisy, one without retention."""
    noisy = report([process(seed, spread=0.3) for seed in range(5)], precision="int8", artifact_bytes=150_000)
    return [
        full(),
        noisy.model_copy(update={"retention": kept(0.79)}),
        report(target="raspberry-pi-5", format="tflite"),
    ]


PAGES = {
    "one": lambda: [full()],
    "without retention": lambda: [report()],
    "without pictures": lambda: [report().model_copy(update={"retention": kept(cases=False)})],
    "one quick process": lambda: [report([process(0, runs=12)])],
    "thousands of runs": lambda: [report([process(seed, runs=3000, spread=0.4) for seed in range(2)])],
    "equal times": lambda: [report([process(seed, spread=0.0) for seed in range(5)])],
    "several": several,
    "the same twice": lambda: [full(), full()],
}


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_well_formed_and_offline(name):
    reports = PAGES[name]()
    text = render(reports)
    page = Page(text)
    assert len(page.find("h1")) == 1
    assert page.find("html") == [{"lang": "en"}]
    for _, attrs in page.tags:
        for key, value in attrs.items():
            assert not key.startswith("on")
            if key in ("src", "href"):
                assert value.startswith(("#", "data:image/webp;base64,")), value
    assert not re.search(r"url\(|@import", text)
    assert "http://" not in text
    assert "https://" not in text
    policy = [meta["content"] for meta in page.find("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy[0].startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    assert [script["type"] for script in page.find("script")] == ["application/json"]
    assert len(text) < 2_000_000


@pytest.mark.parametrize("name", PAGES)
def test_ids_are_unique_and_links_arrive(name):
    page = Page(render(PAGES[name]()))
    ids = [attrs["id"] for _, attrs in page.tags if attrs.get("id")]
    assert len(ids) == len(set(ids))
    links = [attrs["href"][1:] for _, attrs in page.tags if (attrs.get("href") or "").startswith("#")]
    assert links
    assert set(links) <= set(ids)


@pytest.mark.parametrize("name", PAGES)
def test_every_drawing_has_words_and_numbers(name):
    text = render(PAGES[name]())
    drawings = re.findall(r"<svg[^>]*>(.{0,12})", text)
    assert drawings
    assert all(start.startswith("<title>") for start in drawings)
    charts = re.findall(r'<figure class="panel">.*?</figure>', text, re.S)
    assert charts
    assert all("<desc>" in chart and "<table>" in chart for chart in charts)
    assert not re.search(r"\bnan\b|\binf\b|\bNone\b", text)


def test_the_embedded_json_round_trips():
    reports = several()
    (script,) = Page(render(reports)).scripts
    assert f'id="{DATA_ID}"' in render(reports)
    assert [ProfileReport.model_validate(document) for document in json.loads(script)] == reports


def test_report_json_round_trips(tmp_path):
    found = full()
    (tmp_path / "report.json").write_text(dump_report(found))
    assert load_record(tmp_path / "report.json", ProfileReport) == found
    text = (tmp_path / "report.json").read_text()
    assert "NaN" not in text
    assert max(len(line) for line in text.splitlines() if "device_run_ns" in line) > 1000


def test_a_number_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="must be null"):
        Quantity(value=float("nan"))
    with pytest.raises(ValueError, match="needs a reason"):
        Quantity(value=None)


@pytest.mark.parametrize("many", [False, True])
def test_names_from_outside_stay_text(many):
    found = full(name=HOSTILE, model=HOSTILE, target=HOSTILE, artifact=HOSTILE, precision=HOSTILE, format=HOSTILE)
    device = found.device.model_copy(update={"title": HOSTILE, "name": HOSTILE, "facts": {HOSTILE: HOSTILE}})
    found = found.model_copy(
        update={
            "device": device, "command": HOSTILE, "runtime": HOSTILE, "runtime_note": HOSTILE,
            "notes": [HOSTILE], "retention": kept(names=HOSTILE), "environment": {HOSTILE: HOSTILE},
        }
    )  # fmt: skip
    text = render([found, full()] if many else [found])
    page = Page(text)
    assert len(page.find("script")) == 1
    assert page.find("img") == []
    assert not any(key.startswith("on") for _, attrs in page.tags for key in attrs)
    assert "alert(1)" in text
    (script,) = page.scripts
    assert json.loads(script)[0]["subject"]["name"] == HOSTILE


def test_a_picture_that_is_no_base64_is_refused():
    case = kept().cases[0]
    with pytest.raises(ValueError, match="image_webp"):
        Case(**{**case.model_dump(), "image_webp": '"><script>'})


def test_reasons_stand_on_the_first_screen():
    noisy = report([process(seed, spread=0.3) for seed in range(2)])
    text = render([noisy])
    top = text[: text.index('id="r1-time"')]
    assert noisy.flags
    for flag in noisy.flags:
        assert flag.title in top
        assert flag.remedy in top
    assert "Latency doubtful" in top
    assert "Latency valid" in render([report()])


def test_a_board_that_was_not_measured_is_said():
    assert "milliseconds and their ratios do not" in render([full(target="raspberry-pi-5")])
    assert "milliseconds and their ratios do not" not in render([full(target="cpu")])


def test_write_html(tmp_path):
    write_html([full()], tmp_path / "new" / "report.html")
    assert Page((tmp_path / "new" / "report.html").read_text()).find("main")
    with pytest.raises(ValueError, match="at least one"):
        render([])
