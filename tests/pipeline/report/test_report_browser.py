"""The page in a real headless Chromium: it loads from disk in silence, draws everything, and fits a phone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--hide-scrollbars", "--enable-logging=stderr"),
]
PHONE = 375

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")]

# Runs inside a copy of the page: what is drawn, and whether anything is wider than the window.
PROBE = """<script>
addEventListener("load", () => {
  const pixels = picture => {
    const canvas = document.createElement("canvas");
    canvas.width = picture.naturalWidth; canvas.height = picture.naturalHeight;
    const pen = canvas.getContext("2d");
    pen.drawImage(picture, 0, 0);
    const seen = new Set(pen.getImageData(0, 0, canvas.width, canvas.height).data.filter((_, i) => i % 4 == 0));
    return seen.size;
  };
  const box = element => element.getBoundingClientRect();
  parent.postMessage(JSON.stringify({
    inner: innerWidth, scroll: document.documentElement.scrollWidth,
    tones: [...document.images].map(pixels),
    figures: [...document.querySelectorAll("svg")].map(
      svg => [box(svg).width, box(svg).height, svg.querySelectorAll("path,use").length]),
    colours: [...document.querySelectorAll("svg path")].map(
      path => getComputedStyle(path).stroke + getComputedStyle(path).fill),
    resources: performance.getEntriesByType("resource").map(
      entry => entry.name).filter(name => !name.startsWith("data:")),
    headings: [...document.querySelectorAll("h2")].length,
    text: document.body.innerText.length,
  }), "*");
});
</script></body>"""


def chromium(page: Path, profile: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", *more, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@pytest.fixture(scope="module")
def page(plain_run) -> Path:
    return report.run(plain_run.experiment, plain_run.folder)


def test_it_loads_from_disk_in_silence_and_paints(page: Path, tmp_path: Path) -> None:
    shot = tmp_path / "page.png"
    done = chromium(page, tmp_path / "profile", "--window-size=1280,1600", f"--screenshot={shot}")
    assert "CONSOLE" not in done.stderr, re.findall(r".*CONSOLE.*", done.stderr)
    pixels = np.asarray(Image.open(shot).convert("RGB"))
    assert pixels.shape == (1600, 1280, 3)
    background = np.median(pixels.reshape(-1, 3), axis=0)
    painted = (np.abs(pixels.astype(int) - background).max(axis=2) > 40).mean()
    assert 0.01 < painted < 0.6
    hues = {tuple(colour) for colour in pixels.reshape(-1, 3)[::7].tolist() if max(colour) - min(colour) > 80}
    assert len(hues) > 5  # the arms' markers, the warnings' edge


def test_silence_would_be_noticed(page: Path, tmp_path: Path) -> None:
    loud = tmp_path / "loud.html"
    loud.write_text(page.read_text().replace("</body>", '<img src="nowhere.png"><script>1</script></body>'))
    done = chromium(loud, tmp_path / "profile", "--dump-dom")
    assert "CONSOLE" in done.stderr and "Content Security Policy" in done.stderr


@pytest.mark.parametrize("width", [PHONE, 1280])
def test_everything_is_drawn_and_nothing_scrolls_sideways(page: Path, tmp_path: Path, width: int) -> None:
    # The page's own policy forbids scripts: the copy goes without it. A frame is as narrow as a phone, a window is not.
    probed = re.sub(r"<meta http-equiv[^>]*>", "", page.read_text()).replace("</body>", PROBE)
    (tmp_path / "inner.html").write_text(probed)
    (tmp_path / "outer.html").write_text(
        f'<!doctype html><iframe src="inner.html" style="border:0;width:{width}px;height:800px"></iframe>'
        "<script>onmessage = event => document.title = event.data</script>"
    )
    done = chromium(
        tmp_path / "outer.html",
        tmp_path / "profile",
        "--window-size=1400,900",
        "--virtual-time-budget=20000",
        "--dump-dom",
    )
    title = re.search(r"<title>(\{.*?\})</title>", done.stdout, re.S)
    assert title, done.stderr[-2000:]
    seen = json.loads(title.group(1).replace("&amp;", "&"))
    assert seen["inner"] == width and seen["scroll"] <= width
    assert seen["headings"] >= 10 and seen["text"] > 5000
    assert len(seen["tones"]) >= 2 * 4 and min(seen["tones"]) > 10  # shaded, not one flat colour
    assert len(seen["figures"]) >= 10
    for drawn_width, drawn_height, marks in seen["figures"]:
        assert 200 < drawn_width <= width and drawn_height > 40 and marks > 3
    assert len(set(seen["colours"])) > 12  # variables resolve to colours
    assert seen["resources"] == []
