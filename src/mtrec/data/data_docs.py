"""Data Docs: Great Expectations' pages as a folder that opens from a disk, with no network.

The pages that Great Expectations renders fetch styles, scripts and a counting picture from the internet, and its
index is drawn by a script. Here the pages keep their content, get a small stylesheet of their own, and an index
that is plain HTML.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtrec.data.contract import replacing_folder
from mtrec.data.expectations import Judge, Judgement

_OUTSIDE = (
    re.compile(r"<script\b.*?</script>", re.DOTALL | re.IGNORECASE),
    re.compile(r"<link\b[^>]*>", re.IGNORECASE),
    re.compile(r"<img\b[^>]*>", re.IGNORECASE),
    re.compile(r"<footer\b.*?</footer>", re.DOTALL | re.IGNORECASE),
    re.compile(r"<style>.*?</style>", re.DOTALL | re.IGNORECASE),
    re.compile(r"<title></title>", re.IGNORECASE),
)

_NOTHING_FROM_OUTSIDE = (
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
)
"""Great Expectations does not escape the values it shows: markup that stands in the data must run no script."""

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --good: #1a7f4b; --bad: #c0392b; --link: #2563a8; }
@media (prefers-color-scheme: dark) { :root { --good: #4cc38a; --bad: #ff7b6b; --link: #7db4f0; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1200px; padding: 1rem 1.5rem 4rem; }
a { color: var(--link); }
h1 { font-size: 1.5rem; margin: .5rem 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
h4, h5, h6, .h6 { font-size: 1rem; font-weight: 600; margin: .3rem 0; }
table { border-collapse: collapse; width: 100%; margin: .4rem 0 1rem; }
td, th { border-bottom: 1px solid var(--line); padding: .35rem .6rem; text-align: left; vertical-align: top;
  overflow-wrap: anywhere; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
th { font-weight: 600; } table table { width: auto; font-size: .9em; } thead[hidden] { display: none; }
nav .breadcrumb { list-style: none; padding: 0; display: flex; gap: .5rem; flex-wrap: wrap; }
.breadcrumb-item + .breadcrumb-item::before { content: "/ "; opacity: .5; }
.alert { background: var(--soft); border-left: 4px solid var(--line); padding: .5rem .8rem; margin: 1rem 0 .4rem; }
.badge { background: var(--soft); border: 1px solid var(--line); border-radius: 4px; padding: 0 .35em;
  font: .9em ui-monospace, monospace; }
.ok, .text-success { color: var(--good); } .broken, .text-danger { color: var(--bad); } .warn { color: #b7791f; }
.fa-check-circle::before { content: "\\2713"; font-style: normal; font-weight: 700; }
.fa-times::before { content: "\\2717"; font-style: normal; font-weight: 700; }
.fa-exclamation-triangle::before, .fa-exclamation::before { content: "!"; font-style: normal; font-weight: 700; }
i { font-style: normal; } .show-scrollbars { max-height: 60vh; overflow: auto; }
.sticky, .collapse, .cooltip .top, [data-toggle="collapse"], .btn-group { display: none; }
code { font-family: ui-monospace, monospace; font-size: .92em; } .muted { opacity: .7; }
"""

_INDEX = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="UTF-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Data Docs: {{ scenario }}</title><style>{{ style | safe }}</style></head>
<body>
<h1>Data Docs: {{ scenario }}</h1>
<p><strong class="{{ 'ok' if summary.success else 'broken' }}">
{{ '✓ The data passed' if summary.success else '✗ The data did not pass' }}</strong>
<span class="muted">· judged {{ summary.judged_at }}</span></p>
{% for kind, lines in (('Failures', summary.failures), ('Warnings', summary.warnings)) %}{% if lines %}
<h2>{{ kind }}</h2><ul>{% for line in lines %}<li>{{ line }}</li>{% endfor %}</ul>
{% endif %}{% endfor %}
<h2>Tables</h2>
<table><thead><tr><th>Table</th><th class="number">Input</th><th class="number">Good</th>
<th class="number">Quarantined</th><th class="number">Cells set to missing</th>
<th>Reasons (a row can have several)</th></tr></thead><tbody>
{% for table, counts in summary.tables.items() %}<tr><td>{{ table }}</td>
<td class="number">{{ '{:,}'.format(counts.input) }}</td><td class="number">{{ '{:,}'.format(counts.good) }}</td>
<td class="number">{{ '{:,}'.format(counts.quarantined) }}</td>
<td class="number">{{ '{:,}'.format(counts.repaired) }}</td>
<td>{% for reason, count in counts.reasons.items() %}{{ reason }}: {{ '{:,}'.format(count) }}<br>{% endfor %}
{% for reason, count in counts.repairs.items() %}<span class="muted">{{ reason }}:
 {{ '{:,}'.format(count) }} cells set to missing</span><br>{% endfor %}</td></tr>{% endfor %}
</tbody></table>
<h2>Expectations</h2>
{% if summary.expectations %}<table><thead><tr><th></th><th>Table</th><th>Expectation</th><th>Severity</th>
<th class="number">Broken by</th></tr></thead><tbody>
{% for e in summary.expectations %}<tr><td>{% if e.success %}<span class="ok">✓</span>
{% elif e.severity == 'critical' %}<span class="broken">✗</span>{% else %}
<span class="warn">!</span>{% endif %}</td><td>{{ e.table }}</td>
<td><code>{{ e.expectation }}</code>{% if e.why is defined %}<br>{{ e.why }}{% endif %}
{% if e.quarantined is defined %}<br><span class="muted">
{{ '{:,}'.format(e.quarantined) }} rows went to quarantine first</span>{% endif %}</td><td>{{ e.severity }}</td>
<td class="number">{% if e.observed is defined %}observed {{ e.observed }}{% else %}
{{ '{:,}'.format(e.unexpected) }} of {{ '{:,}'.format(e.of) }}{% endif %}</td></tr>{% endfor %}
</tbody></table>{% else %}<p>The scenario declares none.</p>{% endif %}
<h2>Pages</h2><ul>
{% for page in pages %}<li><a href="{{ page.href }}">{{ page.title }}</a>{% if page.note is defined %}
<span class="muted">· {{ page.note }}</span>{% endif %}</li>{% endfor %}
</ul></body></html>
"""


def write_data_docs(
    folder: Path, judge: Judge, judgements: Sequence[Judgement], scenario: str, summary: Mapping[str, Any]
) -> None:
    """Write the Data Docs and, beside them, the suites as JSON.

    The folder holds `index.html`, `validations/<table>-<state>.html`, `expectations/<table>.html` and
    `suites/<table>.json`. It appears complete or not at all.

    Args:
        folder: is replaced.
        judge: knows the suites.
        judgements: what was judged, in order.
        scenario: its name, for the title.
        summary: the validation summary that the index shows.
    """
    import jinja2

    pages = []
    with replacing_folder(folder) as temporary:
        for sub in ("validations", "expectations", "suites"):
            (temporary / sub).mkdir()
        for judgement in judgements:
            href = f"validations/{judgement.table}-{judgement.state.replace(' ', '-')}.html"
            (temporary / href).write_text(make_self_contained(judgement.page), encoding="utf-8")
            held = sum(outcome.success for outcome in judgement.outcomes)
            note = f"{held} of {len(judgement.outcomes)} expectations held on {judgement.num_rows:,} rows"
            pages.append({"href": href, "title": f"{judgement.table}, {judgement.state}", "note": note})
        for table in judge.tables:
            href = f"expectations/{table}.html"
            (temporary / href).write_text(make_self_contained(judge.suite_page(table)), encoding="utf-8")
            pages.append({"href": href, "title": f"{table}: what is expected"})
            (temporary / f"suites/{table}.json").write_text(judge.suite_json(table), encoding="utf-8")
            pages.append({"href": f"suites/{table}.json", "title": f"{table}: the suite as JSON"})
        environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
        text = environment.from_string(_INDEX).render(
            scenario=scenario, summary=json.loads(json.dumps(summary)), pages=pages, style=_STYLE
        )
        (temporary / "index.html").write_text(text, encoding="utf-8")


def make_self_contained(page: str) -> str:
    """Take everything from a page of Great Expectations that would be fetched from elsewhere, and style it here.

    Args:
        page: HTML for a file one folder below the index.
    """
    for pattern in _OUTSIDE:
        page = pattern.sub("", page)
    page = re.sub(r'href="(?:\.\./)*index\.html"', 'href="../index.html"', page)
    page = re.sub(r'href="(?:\.\./)*expectations/', 'href="../expectations/', page)
    page = page.replace("<head>", f"<head>{_NOTHING_FROM_OUTSIDE}", 1)
    return page.replace("</head>", f"<style>{_STYLE}</style></head>", 1)
