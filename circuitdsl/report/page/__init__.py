"""Reports as a page: one file that fetches nothing, and the same view as a widget in notebooks.

`data` makes compact JSON of reports, `build` puts it into the page. What the page does with it stands in `*.js`, which
are put together in the order of `build.SCRIPTS` and are read as one script; how it looks stands in `page.css`.
"""

from __future__ import annotations
