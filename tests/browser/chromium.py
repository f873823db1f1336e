"""Debian's headless Chromium under Selenium: apt-get install chromium chromium-driver; pip install selenium."""

import shutil
import tempfile
from contextlib import contextmanager

import pytest

FLAGS = (
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--disable-dev-shm-usage',
)


@contextmanager
def chromium(width=1200, height=900, dark=False):
    """A browser with a page of width x height CSS pixels and a new profile; a skip with the reason where none is."""
    webdriver = pytest.importorskip('selenium.webdriver', reason='selenium is not installed: pip install selenium')
    browser, driver = shutil.which('chromium'), shutil.which('chromedriver')
    if not (browser and driver):
        pytest.skip('no Chromium: apt-get install chromium chromium-driver')
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f'--user-data-dir={profile}'):
            options.add_argument(flag)
        page = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
        try:
            page.set_page_load_timeout(60)
            page.execute_cdp_cmd(
                'Emulation.setDeviceMetricsOverride',
                {'width': width, 'height': height, 'deviceScaleFactor': 1, 'mobile': False},
            )
            page.execute_cdp_cmd(
                'Emulation.setEmulatedMedia',
                {'features': [{'name': 'prefers-color-scheme', 'value': 'dark' if dark else 'light'}]},
            )
            yield page
        finally:
            page.quit()
