"""Takes the pictures of the documents: ``PYTHONPATH=tests uv run python tests/browser/screenshots.py``."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.browser.browsing import chromium, new_context
from support.browser.fake_task_center import CORP, FakeTaskCenter, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser

IMAGES = Path(__file__).parents[2] / "docs" / "images"
DESK = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 780}


def main(folder: Path = IMAGES) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    fake = FakeTaskCenter()
    fake.fill()
    with serving(fake), chromium() as browser:
        first = f"#pending/{fake.items['0169-li-lei', 'pending'][0]['instance_id']}"
        _picture(browser, folder / "task-center.png", fake.page_of() + first, viewport=DESK)
        dark: dict[str, Any] = {"viewport": DESK, "color_scheme": "dark", "locale": "en-GB"}
        _picture(browser, folder / "task-center-dark.png", fake.page_of() + first, **dark)
        _picture(browser, folder / "task-center-phone.png", fake.page_of(), viewport=PHONE, device_scale_factor=1.5)
        _picture(browser, folder / "task-center-phone-detail.png", fake.page_of() + first, viewport=PHONE)
        _picture(browser, folder / "waiting.png", f"{fake.url}/waiting?corp_id={CORP}", viewport=DESK, locale="en-GB")
        fake.items["0169-li-lei", "pending"][0]["task_id"] = "71001"
        fake.possible = [
            {
                "source": "yida",
                "app_type": None,
                "numeric_task_ids": True,
                "actions": ["agree", "refuse", "return", "hand_over"],
            }
        ]
        _picture(browser, folder / "deciding.png", fake.page_of() + first, viewport={"width": 1280, "height": 560})
        _picture(browser, folder / "deciding-phone.png", fake.page_of() + first, **dark | {"viewport": PHONE})
        _picture(
            browser,
            folder / "operation.png",
            f"{fake.url}/ops",
            viewport={"width": 1280, "height": 1400},
            locale="en-GB",
        )
        _picture(browser, folder / "operation-dark.png", f"{fake.url}/ops", viewport=DESK, color_scheme="dark")


def _picture(browser: Browser, path: Path, url: str, **options: Any) -> None:
    context = new_context(browser, **options)
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector(".timeline:visible, .row:visible, .panel:visible")
    page.wait_for_timeout(600)
    page.screenshot(path=path)
    context.close()
    if shutil.which("pngquant"):
        subprocess.run(["pngquant", "--force", "--skip-if-larger", "--output", path, "--", path], check=False)
    if shutil.which("optipng"):
        subprocess.run(["optipng", "-quiet", path], check=True)


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))
