"""Results as one HTML page that stands alone. Imports no keras.

    from k3seq import report

    report.write("parity.html", report.parity_page(results))  # results: what `k3seq.parity.Report.to_json()` gives

`page`, `section`, `table`, `fold`, `text`, `log` and `picture` (a matplotlib figure) are the parts that pages are made of.
"""

from k3seq.report.parts import Cell, fold, log, page, picture, section, table, text, write
from k3seq.report.parity import parity_page

__all__ = ["Cell", "fold", "log", "page", "parity_page", "picture", "section", "table", "text", "write"]
