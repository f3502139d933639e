"""What the tests of the page have in common."""

from html.parser import HTMLParser

from onebit.leaderboards.recording.latency_record import LatencyRun

SCRIPT = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>\"'&{{ 7 * 7 }}"


class Elements(HTMLParser):
    """Every tag, with its attributes, and every id."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.wrong = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "input", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if self.open.pop() != tag:
            self.wrong.append(tag)


def latency_run(text: str = "Some CPU") -> LatencyRun:
    """A run of a real-valued and a 1-bit network, ``text`` wherever there is free text."""
    shared = dict(engine_version=text, precision="float32", memory_bits_strict=4100, disk_bytes=600)
    entries = [
        dict(
            backbone=f"resnet18{text}",
            engine=f"torch{text}",
            weight_bits=32,
            activation_bits=32,
            resident_bytes=None,
            milliseconds=[9.25, 9.25, 9.25],
        ),
        dict(
            backbone="fast",
            engine="packed",
            weight_bits=1,
            activation_bits=1,
            resident_bytes=10,
            milliseconds=[9.3, 9.3, 9.3],
        ),
        dict(
            backbone="slow",
            engine="packed",
            weight_bits=1,
            activation_bits=1,
            resident_bytes=10,
            milliseconds=[10.5, 10.5, 10.5],
        ),
    ]
    return LatencyRun(
        processor=text,
        flags=[text],
        cores=2,
        load_before=0.0,
        threads=1,
        input=(224, 224),
        classes=10,
        entries=[{**shared, **e} for e in entries],
        code=dict(commit=text, dirty=False),
        versions={text: text},
        created="2026-01-01T00:00:00+00:00",
    )
