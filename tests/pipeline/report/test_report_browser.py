"""The page in a real headless Chromium: it asks for nothing, says nothing, draws everything, and can be worked."""

from __future__ import annotations

import base64
import io
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline import report

webdriver = pytest.importorskip("selenium.webdriver")
Keys = webdriver.Keys

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = [
    *("--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"),
    "--hide-scrollbars",
]
DESKTOP, PHONE = (1280, 900), (390, 844)
LEFT, RIGHT = ".viewer:nth-child(1) .stage", ".viewer:nth-child(2) .stage"
SECONDS = 60

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="needs Chromium and chromedriver"),
]


class Browser:
    """A Chromium that shows one page, with the few things that the tests ask of it."""

    def __init__(self, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.binary_location = str(CHROMIUM)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def open(self, page: Path, size: tuple[int, int] = DESKTOP, *, dark: bool = False) -> None:
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.scheme(dark=dark)
        self.driver.get("about:blank")
        self.log("performance")
        self.driver.get(page.as_uri())

    def scheme(self, *, dark: bool) -> None:
        value = "dark" if dark else "light"
        features = [{"name": "prefers-color-scheme", "value": value}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def log(self, kind: str) -> list[dict[str, Any]]:
        return self.driver.get_log(kind)

    def wait(self, condition: str) -> None:
        until(lambda: self.run(f"return {condition}"), condition)

    def panel(self) -> None:
        """Scroll to the panel and wait until it is drawn."""
        self.run("document.querySelector('.viewers').scrollIntoView({block: 'center', behavior: 'instant'})")
        self.wait("document.getElementById('explore-panel').dataset.state === 'ready'")

    def pixels(self, selector: str) -> np.ndarray:
        """What is painted within an element, ``(H, W, 3)``."""
        element = self.driver.find_element("css selector", selector)
        self.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
        return np.asarray(Image.open(io.BytesIO(element.screenshot_as_png)).convert("RGB")).astype(int)

    def camera(self, selector: str) -> list[float]:
        return list(
            self.run("return Object.values(document.querySelector(arguments[0]).layout.scene.camera.eye)", selector)
        )

    def click(self, selector: str) -> None:
        self.run("document.querySelector(arguments[0]).click()", selector)


def until(condition: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, f"waited in vain for: {what}"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    started = Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.driver.quit()


def is_drawn(pixels: np.ndarray) -> bool:
    """Whether a good part of it differs from its background, in many tones."""
    background = np.median(pixels.reshape(-1, 3), axis=0)
    painted = np.abs(pixels - background).max(axis=2) > 30
    return painted.mean() > 0.005 and len(np.unique(pixels[painted], axis=0)) > 15


def test_it_loads_from_disk_and_asks_for_nothing(browser: Browser, plain_page: Path) -> None:
    browser.open(plain_page)
    browser.panel()
    messages = [json.loads(entry["message"])["message"] for entry in browser.log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith(("data:", "about:", "chrome:"))] == [plain_page.as_uri()]
    assert browser.log("browser") == []
    assert browser.run("return document.querySelector('.state').textContent") == ""
    # What cannot be drawn is said where the panel stands, and the rule beside it.
    assert "largest gain, the largest loss" in browser.run("return document.getElementById('explore').innerText")


def test_silence_would_be_noticed(browser: Browser, plain_page: Path, tmp_path: Path) -> None:
    loud = tmp_path / "loud.html"
    more = '<img src="http://127.0.0.1:9/x.png"><script>fetch("nowhere.json")</script>'
    loud.write_text(plain_page.read_text(encoding="utf-8").replace("</body>", f"{more}</body>"), encoding="utf-8")
    browser.open(loud)
    said = [entry["message"] for entry in browser.log("browser")]
    assert sum("Content Security Policy" in message for message in said) >= 2


@pytest.mark.parametrize(("size", "dark"), [(DESKTOP, False), (DESKTOP, True), (PHONE, False)])
def test_every_figure_is_painted_and_nothing_scrolls_sideways(
    browser: Browser, plain_page: Path, size: tuple[int, int], dark: bool
) -> None:
    browser.open(plain_page, size, dark=dark)
    browser.panel()
    assert browser.run("return [innerWidth, document.documentElement.scrollWidth]") == [size[0], size[0]]
    assert all(is_drawn(browser.pixels(stage)) for stage in (LEFT, RIGHT))
    # What is folded away has a place all the same, where something else is painted.
    browser.run("document.querySelectorAll('details').forEach(e => { e.open = true; })")
    assert browser.run("return [innerWidth, document.documentElement.scrollWidth]") == [size[0], size[0]]
    count = browser.run("return document.querySelectorAll('main svg[role=img]').length")
    assert count > 12
    whole = browser.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": False})
    background = np.asarray(Image.open(io.BytesIO(base64.b64decode(whole["data"]))).convert("L"))
    assert (np.median(background) < 80) == dark
    boxes = browser.run(
        "return [...document.querySelectorAll('main svg[role=img], main img')].map(e => {const b = "
        "e.getBoundingClientRect(); return [b.left + scrollX, b.top + scrollY, b.width, b.height];})"
    )
    assert len(boxes) == count + 24
    for x, y, width, height in boxes[:: 1 if size == DESKTOP and not dark else 4]:
        assert 150 < width <= size[0] and height > 30
        clip = {"x": x, "y": y, "width": width, "height": height, "scale": 1}
        shot = browser.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
        image = Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")
        assert is_drawn(np.asarray(image).astype(int))


def test_toggles_selectors_and_schemes_change_what_is_painted(browser: Browser, plain_page: Path) -> None:
    browser.open(plain_page)
    browser.panel()

    def change(act: Callable[[], None], *stages: str) -> None:
        before = {stage: browser.pixels(stage) for stage in stages}
        act()
        for stage in stages:
            until(lambda stage=stage: (browser.pixels(stage) != before[stage]).any(axis=2).sum() > 40, "other pixels")

    traces = browser.run("return [...document.querySelectorAll('[data-trace]')].map(box => box.dataset.trace)")
    assert traces[:3] == ["observed", "completed", "truth"] and len(traces) == 10
    counts = browser.run("return [...document.querySelectorAll('.toggles output')].map(item => item.textContent)")[3:]
    assert [sum(int(text.split("|")[side]) for text in counts) for side in (0, 1)] == [15, 15]
    said = browser.run("return document.querySelector(arguments[0]).data.flatMap(trace => trace.text || [])", LEFT)
    assert any(text.startswith("holds at µ ≤ 0.4<br>confidence rank ") for text in said)
    assert any("fails at every friction<br>object 3" in text for text in said)
    for trace, text in zip(traces, ["1 | 1"] * 3 + counts, strict=True):
        seen = [stage for stage, number in zip((LEFT, RIGHT), text.split("|"), strict=True) if int(number)]
        if seen:
            change(lambda trace=trace: browser.click(f"[data-trace='{trace}']"), *seen)
    change(lambda: browser.run("document.querySelectorAll('[data-trace]:not(:checked)').forEach(b => b.click())"), LEFT)
    arm = (
        "const e = document.querySelector(arguments[0]); e.selectedIndex = arguments[1]; "
        "e.dispatchEvent(new Event('change'))"
    )
    change(lambda: browser.run(arm, "[data-side='0']", 3), LEFT)
    change(lambda: browser.run(arm, "[data-choice='scene']", 1), LEFT, RIGHT)
    change(lambda: browser.run(arm, "[data-choice='most']", 0), LEFT)
    change(lambda: browser.scheme(dark=True), LEFT, RIGHT)
    assert np.median(browser.pixels(LEFT)) < 60 and browser.log("browser") == []


def test_cameras_are_linked_and_answer_mouse_keys_and_buttons(browser: Browser, plain_page: Path) -> None:
    browser.open(plain_page)
    browser.panel()
    start = browser.camera(LEFT)

    def turned(act: Callable[[], Any], *, both: bool) -> None:
        left, right = browser.camera(LEFT), browser.camera(RIGHT)
        picture = browser.pixels(RIGHT)
        act()
        until(lambda: not np.allclose(browser.camera(LEFT), left), "the left view turns")
        if both:
            until(lambda: np.allclose(browser.camera(RIGHT), browser.camera(LEFT)), "the right view follows")
            until(lambda: (browser.pixels(RIGHT) != picture).any(axis=2).mean() > 0.005, "and is painted anew")
        else:
            assert browser.camera(RIGHT) == right

    def drag() -> None:
        stage = browser.driver.find_element("css selector", LEFT)
        hand = webdriver.ActionChains(browser.driver).move_to_element(stage).click_and_hold()
        hand.move_by_offset(40, 10).move_by_offset(40, 10).release().perform()

    turned(drag, both=True)
    assert browser.run("return document.activeElement.matches(arguments[0])", LEFT)
    stage = browser.driver.find_element("css selector", LEFT)
    turned(lambda: stage.send_keys(Keys.ARROW_LEFT), both=True)
    turned(lambda: stage.send_keys(Keys.ARROW_UP), both=True)
    near = np.linalg.norm(browser.camera(LEFT))
    turned(lambda: stage.send_keys("+"), both=True)
    assert np.linalg.norm(browser.camera(LEFT)) < near
    browser.click("[data-choice='link']")
    for step in ("right", "down", "out"):
        turned(lambda step=step: browser.click(f".viewer:nth-child(1) [data-step='{step}']"), both=False)
    browser.click("[data-choice='link']")
    until(lambda: np.allclose(browser.camera(RIGHT), browser.camera(LEFT)), "linked again")
    browser.click("[data-choice='reset']")
    until(lambda: np.allclose([browser.camera(LEFT), browser.camera(RIGHT)], start), "both views as at first")


def test_without_webgl_the_panel_says_so(browser: Browser, plain_page: Path) -> None:
    source = (
        "const real = HTMLCanvasElement.prototype.getContext; HTMLCanvasElement.prototype.getContext = "
        "function (kind, ...more) { return kind.includes('webgl') ? null : real.call(this, kind, ...more); }"
    )
    blind = browser.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": source})
    try:
        browser.open(plain_page)
        browser.run("document.getElementById('explore').scrollIntoView({behavior: 'instant'})")
        browser.wait("document.getElementById('explore-panel').dataset.state === 'failed'")
        said = browser.run("return document.getElementById('explore-panel').innerText")
        assert said.strip() == (
            "This browser shows no WebGL, which the panel needs. The pictures below show the same views."
        )
        assert is_drawn(browser.pixels("#pictures img")) and browser.log("browser") == []
    finally:
        browser.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", blind)


def test_rows_stay_below_the_heading_of_their_group(browser: Browser, tmp_path: Path) -> None:
    def row(name: str, value: str) -> str:
        return f'<tr><th scope="row">{name}</th><td {value}></td></tr>'

    rows = [row("a", 'data-value="10"'), row("b", 'class="none"'), row("c", 'data-value="9"')]
    group = '<tr><th scope="rowgroup" colspan="2">second</th></tr>'
    body = "".join([*rows, group, row("d", 'data-value="1"'), row("e", 'data-value="70"')])
    script = (Path(report.__file__).parent / "web" / "tables.js").read_text(encoding="utf-8")
    page = tmp_path / "table.html"
    head = "<thead><tr><th>name</th><th>value</th></tr></thead>"
    page.write_text(
        f'<figure class="table"><table>{head}<tbody>{body}</tbody></table></figure><script>{script}</script>'
    )
    browser.open(page)
    read = "return [...document.querySelectorAll('tbody tr')].map(row => row.cells[0].textContent)"
    for order in ("acb,ed", "cab,de", "abc,de"):
        browser.click("th:nth-child(2) button")
        first, second = order.split(",")
        assert browser.run(read) == [*first, "second", *second]


def test_columns_sort_by_value_and_back(browser: Browser, plain_page: Path) -> None:
    browser.open(plain_page)
    table = "#utility figure.table table"
    read = (
        "return [...document.querySelector(arguments[0]).tBodies[0].rows].map(row => [row.cells[0].innerText, "
        "row.cells[2].dataset.value])"
    )
    original = browser.run(read, table)
    button = browser.driver.find_element("css selector", f"{table} thead th:nth-child(3) button")
    head = f"return document.querySelector('{table} thead th:nth-child(3)').ariaSort"
    for state in ("descending", "ascending"):
        button.send_keys("\n")  # by keyboard
        assert browser.run(head) == state
        values = [float(value) for _, value in browser.run(read, table)]
        assert values == sorted((float(value) for _, value in original), reverse=state == "descending")
        assert sorted(browser.run(read, table)) == sorted(original)
    # The page scrolls smoothly, and a click that comes while it does hits something else.
    browser.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", button)
    button.click()
    assert browser.run(head) == "none" and browser.run(read, table) == original


def test_everything_that_can_be_worked_is_reached_by_tab_and_has_a_name(browser: Browser, plain_page: Path) -> None:
    browser.open(plain_page)
    browser.panel()
    browser.run("document.querySelectorAll('details').forEach(item => item.open = true); scrollTo(0, 0)")
    script = (
        "const e = document.activeElement; window.seen ??= new Set(); const fresh = !seen.has(e); seen.add(e); "
        "return [fresh, seen.size]"
    )
    browser.run("document.activeElement.blur()")
    first = browser.driver.switch_to.active_element
    first.send_keys(Keys.TAB)
    assert browser.run("return document.activeElement.className") == "skip"
    for _ in range(400):
        fresh, _ = browser.run(script)
        if not fresh:
            break
        browser.driver.switch_to.active_element.send_keys(Keys.TAB)
    missed = browser.run(
        'return [...document.querySelectorAll(\'#explore :is(a, button, input, select, [tabindex="0"]), th button, '
        "summary, .files a')].filter(e => !seen.has(e)).map(e => e.outerHTML.slice(0, 90))"
    )
    assert missed == []
    nameless = browser.run(
        "return [...document.querySelectorAll('button, select, input, [tabindex=\"0\"]')].filter(e => "
        "!(e.labels?.length || e.ariaLabel || e.textContent.trim())).map(e => e.outerHTML.slice(0, 90))"
    )
    assert nameless == []
