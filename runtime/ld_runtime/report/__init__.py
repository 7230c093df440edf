"""`ld-deploy report`: what commands left in their JSONs, records and logs, as one HTML page.

`find` looks for inputs by what is in them, `material` is their typed form, `rows` joins them by model, the `*_section`
modules choose what is shown of each subject, `page` makes the page.
"""

from ld_runtime.report.page import write_report

__all__ = ["write_report"]
