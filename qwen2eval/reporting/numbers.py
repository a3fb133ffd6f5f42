"""How numbers are written, in the terminal and in every report: the one place that rounds.

Two signs are kept apart. "—" means that there is no number: nothing was scored, or the value is unknown. "n/a"
means that there is a value, but this figure does not apply to it, as with a metric that has no standard error.
"""

import math
import re
from datetime import UTC, datetime

NOTHING = "—"
NOT_APPLICABLE = "n/a"

# Words that make a metric a share of docs. f1, rouge and bleu are left out on purpose: some tasks give them as 0-1 and
# some as 0-100, so a weak model's 0.7 of 100 would read "70.0%".
_RATIO_WORDS = frozenset({"acc", "accuracy", "match", "em", "pass", "rate", "ratio", "recall", "refusal", "found"})
_SLACK = 1e-9
_LARGE = 1e6


def is_ratio(metric: str, value: float | None = None) -> bool:
    """Return whether a metric is a 0-1 ratio, to be shown in percent.

    Args:
        metric: lm-eval's name, such as "acc_norm", "exact_match" or "pass@1".
        value: a value outside 0-1 proves that it is not a ratio; None proves nothing.
    """
    named = not _RATIO_WORDS.isdisjoint(re.split(r"[^a-z]+", metric.lower()))
    return named and (value is None or -_SLACK <= value <= 1 + _SLACK)


def format_percent(ratio: float | None, *, sign: str = "%") -> str:
    """Write a ratio in percent with one decimal.

    "100.0%" and "0.0%" appear only for exactly 1 and 0.

    >>> [format_percent(ratio) for ratio in (0.5127, 1.0, 0.9999, 0.0, 0.0001, None)]
    ['51.3%', '100.0%', '>99.9%', '0.0%', '<0.1%', '—']
    """
    if ratio is None or math.isnan(ratio):
        return NOTHING
    percent = 100 * ratio
    text = f"{percent:.1f}"
    if text == "100.0" and ratio < 1:
        return f">99.9{sign}"
    if text in ("0.0", "-0.0") and ratio != 0:
        return f"<0.1{sign}" if ratio > 0 else f">-0.1{sign}"
    return f"{text.replace('-0.0', '0.0')}{sign}"


def format_number(number: float | None) -> str:
    """Write a number that is not a ratio with about four significant digits, a large one by its power of ten.

    >>> [format_number(number) for number in (12345.6, 123.456, 12.0, 1.23456, 0.012344, 0.0, 0.00001, None)]
    ['12,346', '123.5', '12', '1.235', '0.01234', '0', '1e-05', '—']
    >>> format_number(643_932_295_771.0)
    '6.4e+11'
    """
    if number is None or math.isnan(number):
        return NOTHING
    if math.isinf(number):
        return "∞" if number > 0 else "-∞"
    size = abs(number)
    # A perplexity may have any number of digits, and a table has 80 columns
    if size >= _LARGE:
        return f"{number:.1e}"
    if number == int(number):
        return f"{int(number):,}"
    if size >= 1000:
        return f"{number:,.0f}"
    if size >= 1:
        return f"{number:.{3 - int(math.log10(size))}f}"
    return f"{number:.4g}"


def format_value(value: float | None, *, in_percent: bool) -> str:
    """Write a score: a ratio in percent, anything else as it is, "—" where nothing was scored."""
    return format_percent(value) if in_percent else format_number(value)


def format_stderr(stderr: float | None, *, in_percent: bool, has_value: bool = True) -> str:
    """Write a standard error after "±", in percentage points for a ratio.

    >>> format_stderr(0.0123, in_percent=True), format_stderr(None, in_percent=True)
    ('± 1.2', 'n/a')
    """
    if stderr is None or math.isnan(stderr):
        return NOT_APPLICABLE if has_value else NOTHING
    return "± " + (format_percent(stderr, sign="") if in_percent else format_number(stderr))


def format_interval(ci: tuple[float, float] | None, *, in_percent: bool, has_value: bool = True) -> str:
    """Write an interval, ends included, in the unit of its value.

    >>> format_interval((0.489, 0.5371), in_percent=True)
    '48.9 – 53.7'
    """
    if ci is None or math.isnan(ci[0]) or math.isnan(ci[1]):
        return NOT_APPLICABLE if has_value else NOTHING
    low, high = (format_percent(end, sign="") if in_percent else format_number(end) for end in ci)
    return f"{low} – {high}"


def format_count(count: int | None) -> str:
    """Write a count with thousands separators."""
    return NOTHING if count is None else f"{count:,}"


def format_part(count: int | None, total: int | None) -> str:
    """Write a count, and of how many where that is more: "8 of 14,042"."""
    if count is None or total is None or count >= total:
        return format_count(count)
    return f"{count:,} of {total:,}"


def format_parameters(n_parameters: int | None) -> str:
    """Write a model's size as people say it: "494 M", "7.6 B"."""
    if n_parameters is None:
        return NOTHING
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if n_parameters >= size:
            short = n_parameters / size
            return f"{short:.0f} {unit}" if short >= 100 else f"{short:.1f} {unit}"
    return str(n_parameters)


def format_seconds(seconds: float | None) -> str:
    """Write a duration as people say it: "0.4 s", "25 s", "3 min 20 s", "2 h 5 min"."""
    if seconds is None:
        return NOTHING
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def format_time(iso: str | None) -> str:
    """Write an ISO 8601 time as "2026-11-24 02:01 UTC"; other texts are returned unchanged."""
    if iso is None:
        return NOTHING
    try:
        moment = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if moment.tzinfo else f"{moment:%Y-%m-%d %H:%M}"
