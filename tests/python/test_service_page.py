"""The page of the service in headless Chromium: a user, titles, sliders, bars."""

from __future__ import annotations

import os
import re
import shutil

import pytest

import service_models as models
from test_service_process import Running

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_sliders_change_ranking_and_bars(tmp_path):
    path, titles = tmp_path / "model.recfuse", tmp_path / "titles.csv"
    model = models.fused()
    model.save(path)
    titles.write_text("id,title\ni3,The <b>Third</b> Man\ni5,Five Easy Pieces\n", encoding="utf-8")
    service = Running(path, "--titles", str(titles), "--no-feedback")
    outside, errors = [], []
    try:
        with playwright.sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1000, "height": 900})
            base = f"http://127.0.0.1:{service.port}/"
            page.on("request", lambda r: r.url.startswith(base) or outside.append(r.url))
            page.on("pageerror", lambda error: errors.append(str(error)))
            told = page.locator("#told")
            page.goto(base)

            def ranking():
                told.filter(has_text=re.compile(r"^\d+ items")).wait_for()
                rows = page.locator("#list li").all()
                return [row.get_attribute("data-item") for row in rows]

            def move(name, value):
                told.evaluate("e => { e.textContent = ''; }")
                page.locator(f"#sliders input[name={name}]").evaluate(
                    "(e, v) => { e.value = v; e.dispatchEvent(new Event('input')); }", value
                )

            def expected(weights):
                user = model.users_.tolist().index(page.locator("#user").input_value())
                ids, *_ = model.model.recommend(user, 10, weights=weights)
                return [model.items_[i] for i in ids[0]]

            assert ranking() == expected(None)
            bars = page.locator("#list li").first.locator(".bars i")
            assert bars.count() == 3
            width = bars.nth(0).evaluate("e => e.style.width")
            move("als", 0)
            assert ranking() == expected({"text": 0.5, "popularity": 0.25})
            assert bars.nth(0).evaluate("e => e.style.width") == "0%" != width
            move("text", 0)
            assert ranking() == expected({"popularity": 0.25})
            told.evaluate("e => { e.textContent = ''; }")
            page.locator("#reset").click()
            assert ranking() == expected(None)
            told.evaluate("e => { e.textContent = ''; }")
            page.locator("#title").fill("third")
            page.wait_for_selector("#titles option", state="attached")
            page.locator("#title").fill("The <b>Third</b> Man")
            page.wait_for_selector("#chosen .chip")
            by_item = ranking()
            assert "i3" not in by_item and by_item != expected(None)
            assert page.locator("#chosen").inner_text().startswith("The <b>Third</b> Man")
            if where := os.environ.get("RECFUSE_SCREENSHOT"):
                page.screenshot(path=where)
            browser.close()
    finally:
        service.end()
    assert not errors and not outside
