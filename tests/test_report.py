import json
import re
from html.parser import HTMLParser
from pathlib import Path

from conftest import MakeConfig

from job import pipeline


class Outside(HTMLParser):
    """Collects every address that a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_report_is_one_file_with_everything(make_config: MakeConfig, data_file: Path) -> None:
    rows = json.loads(data_file.read_text())
    rows += [{"question": "What is <script>alert(1)</script>?", "answer": ""}, rows[0]]
    rows += [{"question": f"What is <b>{n}</b>?", "answer": f"It is <i>{n}</i>."} for n in range(30)]
    data_file.write_text(json.dumps(rows))
    config = make_config()
    pipeline.run(config)
    run = Path(config.output)
    html = (run / "report.html").read_text()
    parser = Outside()
    parser.feed(html)
    assert parser.addresses
    assert all(address.startswith("data:image/png;base64,") for address in parser.addresses)
    for heading in ("Metrics", "Loss", "Data", "Sample answers", "Time"):
        assert f">{heading}</h" in html
    assert "load: the answer is empty" in html
    assert "dedupe: asks the same as an earlier row" in html
    assert not re.search(r"<script|<b>\d", html), "what comes from the data is escaped"
    assert (run / "loss.png").read_bytes().startswith(b"\x89PNG")
    for phase in ("load", "base", "train", "evaluate", "report"):
        assert f"<td>{phase}</td>" in html
