"""The report page: what it shows, that nothing in it is markup by accident, that it asks the network for nothing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from toolkit.config.schema import ReportRecipe, RunSpec
from toolkit.errors import DataError
from toolkit.evaluation.report import report_stage, write_report
from toolkit.evaluation.report_charts import Series, line_chart, nice_ticks
from toolkit.evaluation.report_text import escape, number, signed, visible

NASTY = "<script>document.title='owned'</script> \x1b[31m \u202e & \"quoted\""
VOID = {"meta", "img", "br", "line", "circle", "path"}


class Tags(HTMLParser):
    """Every tag with its attributes; checks that tags are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def chain(folder: Path, evaluated: Path) -> Path:
    """A pipeline's folder: two training runs with metrics, and the evaluation with a nasty caption."""
    for name, stage in (("sft", "sft"), ("ppo", "rl")):
        run = folder / name
        run.mkdir(parents=True)
        (run / "recipe.resolved.yaml").write_text(f"stage: {stage}\nnote: '{NASTY[:8]}'\n")
        (run / "finished.json").write_text('{"seconds": 61.4}')
        lines = [
            {"step": k, "loss": 1 / k, "eval_loss": 1.1 / k, "bad": None, NASTY: k} for k in range(1, 80)
        ]
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    shutil.copytree(evaluated, folder / "eval")
    path = folder / "eval" / "samples" / "samples.json"
    (folder / "ppo" / "samples").mkdir()
    (folder / "ppo" / "samples" / "rollouts.html").write_text("<p>samples</p>")
    samples = json.loads(path.read_text())
    samples[0]["systems"]["sft"]["caption"] = NASTY
    samples[0]["references"][0] = NASTY
    samples[1]["systems"]["sft"]["caption"] = ""
    samples[2]["systems"]["sft"]["caption"] = "longword" * 60
    Image.new("RGB", (900, 300), (10, 120, 200)).save(folder / "eval" / "samples" / samples[2]["image"])
    path.write_text(json.dumps(samples))
    return folder


@pytest.fixture
def page(tmp_path: Path, evaluated: Path) -> Path:
    return write_report(chain(tmp_path / "quickstart", evaluated))


def test_the_page_is_well_formed_and_asks_for_nothing(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    names = {tag for tag, _ in tags.seen}
    assert not names & {"script", "link", "iframe", "object", "form"}
    for _, attributes in tags.seen:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href"):
                assert value is not None
                assert value.startswith(("data:image/", "#")) or value == "ppo/samples/rollouts.html"
    assert "http://" not in text
    assert "https://" not in text
    assert "default-src 'none'" in text


def test_everything_said_is_text(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "&lt;script&gt;" in text
    assert "\\x1b[31m" in text
    assert "\\u202e" in text
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_the_page_shows_scores_differences_curves_samples_and_times(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for anchor in ("scores", "differences", "reward-model", "curves", "samples", "runs"):
        assert f'<section id="{anchor}">' in text
        assert f'href="#{anchor}"' in text
    summary = json.loads((page.parent / "eval" / "summary.json").read_text())
    assert f">{summary['rows']['human']['cider']:.3f}<" in text
    assert text.count("<img") == 12
    assert "61 s" in text
    assert text.count('<a href="ppo/samples/rollouts.html">') == 1
    assert "validation" in text


def test_a_run_without_evaluation_and_an_evaluation_alone(page: Path, tmp_path: Path) -> None:
    alone = write_report(page.parent / "sft").read_text()
    assert '<section id="curves">' in alone
    assert '<section id="scores">' not in alone
    (tmp_path / "odd: folder").mkdir()
    away = write_report(page.parent / "ppo", out=tmp_path / "odd: folder" / "x.html").read_text()
    assert '<a href="../quickstart/ppo/samples/rollouts.html">' in away
    scores = write_report(page.parent / "eval", out=tmp_path / "x.html", samples=2).read_text()
    assert scores.count("<img") == 2
    assert (tmp_path / "x.html").exists()


def test_the_stage_names_every_missing_run(tmp_path: Path) -> None:
    recipe = ReportRecipe(
        stage="report",
        runs=[str(tmp_path / "sft")],
        evaluation=str(tmp_path / "eval"),
        run=RunSpec(output_dir=str(tmp_path)),
    )
    with pytest.raises(DataError) as caught:
        report_stage(recipe, tmp_path)
    assert len(caught.value.problems) == 2
    with pytest.raises(DataError, match="no run here"):
        write_report(tmp_path / "nothing")


def test_the_stage_writes_the_page(page: Path, tmp_path: Path) -> None:
    recipe = ReportRecipe(
        stage="report",
        runs=[str(page.parent / "sft")],
        evaluation=str(page.parent / "eval"),
        samples=3,
        run=RunSpec(output_dir=str(tmp_path)),
    )
    text = report_stage(recipe, tmp_path).read_text()
    assert "<h1>quickstart</h1>" in text
    assert text.count("<img") == 3


def test_charts_survive_odd_series() -> None:
    for points in ([(1.0, 0.0), (2.0, 0.0)], [(1.0, -1e9), (2.0, 1e9)], [(5.0, 1e-12), (9.0, 2e-12)]):
        chart = line_chart("x", [Series("training", points, "red")])
        assert "nan" not in chart
        assert re.search(r'd="M[\d.]+ [\d.]+L', chart)
    assert nice_ticks(0.0, 1.0)[0] == 0.0
    assert nice_ticks(0.0, 1.0)[-1] >= 1.0


def test_numbers_and_characters() -> None:
    assert (number(-0.5, 2), number(None), number(float("nan")), signed(0.25, 2)) == (
        "−0.50",
        "–",
        "–",
        "+0.25",
    )
    assert visible("a\tb\nc\u2028\ud800é👩‍👧") == "a\\tb\\nc\\u2028\\ud800é👩‍👧"
    assert escape("a\n<b>", keep_newlines=True) == "a\n&lt;b&gt;"


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 420])
def test_in_a_real_browser_nothing_overflows_or_runs(page: Path, tmp_path: Path, width: int) -> None:
    """Chromium lays the page out inside a frame of the given width; the frame's parent measures it."""
    browser = next(
        path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))
    )
    probe = page.parent / "probe.html"
    probe.write_text(
        f"<!doctype html><title>waiting</title><iframe id=f src='{page.name}' style='width:{width}px;height:900px;"
        "border:0'></iframe><script>f.onload=()=>{const d=f.contentDocument,e=d.documentElement;"
        "const i=[...d.images];document.title=JSON.stringify({scroll:e.scrollWidth,width:e.clientWidth,"
        "images:i.length,shown:i.filter(x=>x.naturalWidth>0).length,title:d.title,scripts:d.scripts.length,"
        "out:[...d.querySelectorAll('main *')].filter(x=>!x.closest('.scroll')&&"
        "x.getBoundingClientRect().right>e.clientWidth+1).length})}</script>"
    )
    done = subprocess.run(
        [
            browser,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            "--allow-file-access-from-files",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=8000",
            f"--window-size={width + 60},1000",
            "--dump-dom",
            probe.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title is not None
    found = json.loads(title[1])
    assert found["scroll"] <= found["width"]
    assert found["out"] == 0
    assert found["images"] == found["shown"] == 12
    assert found["scripts"] == 0
    assert "owned" not in found["title"]
