#!/bin/sh
# A Chromium for the tests that open pages (tests/browser.py): the one that is there, Debian's, or Playwright's.
# Where none can be had the tests skip and say so; with LD_DEPLOY_REQUIRE_BROWSER=1 that is a failure.
playwright="${1:-.venv/bin/playwright}"

for name in chromium chromium-browser google-chrome google-chrome-stable; do
  if command -v "$name" >/dev/null 2>&1; then exit 0; fi
done
as_root=""
if [ "$(id -u)" -ne 0 ]; then as_root="sudo -n"; fi
if command -v apt-get >/dev/null 2>&1 && $as_root true 2>/dev/null; then
  echo "browser: installing Debian's chromium, for the tests that open pages"
  if $as_root apt-get install -y -qq chromium >/dev/null 2>&1; then exit 0; fi
  if $as_root apt-get update -qq >/dev/null 2>&1 && $as_root apt-get install -y -qq chromium >/dev/null 2>&1; then exit 0; fi
fi
if "$playwright" install chromium-headless-shell; then exit 0; fi
echo "browser: no Chromium could be installed; the tests that open pages will skip. Install chromium or google-chrome."
if [ "$LD_DEPLOY_REQUIRE_BROWSER" = 1 ]; then exit 1; fi
