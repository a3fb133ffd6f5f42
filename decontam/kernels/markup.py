r"""HTML and escapes with a backslash as what they stand for, character by character. Numba.

Text that was written into another format has signs between its words that are no words: tags, `&nbsp;`, the `\n` of
JSON inside JSON. Items and texts are read by the same grammar, so what it takes for a sign it takes for one in both:

    \n \t \r \b \f      a separator, with any number of backslashes: each layer of JSON doubles them. LaTeX's \nu is
                        read in the same way everywhere, as the word "u"
    \u00e9 \xe9         the character, also as a pair of surrogates
    \quad \text \frac   a separator: commands of LaTeX that stand for space, fonts, sizes or a sign (`LATEX`)
    &lt; &#39; &eacute; the character; with its semicolon, a name of up to ten letters
    <p> </td> <br/>     a separator. A tag within a sentence (`INLINE`) is as if it were not there: <b>w</b>ord is one

A tag is the name of one of HTML's elements in `INLINE` or `BLOCK`, with attributes in the form name=value, so that
`a < b`, `vector<int>` and `List<String>` stay as they are. An attribute that may hold a sentence (more than three
spaces, or other letters than ASCII's) keeps its tag from being one, but for those in `NO_TEXT`: no words get lost.
`&lt;p&gt;` and `\u003cp\u003e` are tags as well: texts go through several formats.
"""

from html.entities import html5

import numpy as np
from numba import njit

from decontam.kernels.blocks import byte
from decontam.kernels.json_syntax import escaped
from decontam.kernels.utf8 import decoded

LATEX = (
    "quad qquad thinspace enspace space textbf textit textrm texttt mathrm mathbf mathit mathsf mathbb mathcal mbox "
    "frac dfrac cfrac left right middle big Big bigg Bigg bigl bigr Bigl Bigr times cdot ldots cdots dots limits hfill "
    "newline"
).split()
LATEX_WITH_BRACE = ("text", "tfrac")
"""Commands of which the rest behind the t is a word, too: {} must follow."""
INLINE = (
    "a abbr acronym b bdi bdo big cite code del dfn em font i ins kbd mark nobr q s samp small span strike strong sub "
    "sup tt u var wbr"
).split()
BLOCK = (
    "address article aside blockquote body br button caption center col colgroup dd details dir div dl dt fieldset "
    "figcaption figure footer form h1 h2 h3 h4 h5 h6 head header hr html img input label legend li main nav ol "
    "optgroup option p pre rp rt ruby section select summary table tbody td textarea tfoot th thead tr ul"
).split()
NO_TEXT = "class style href src srcset sizes id rel target onclick".split()
BOOLEAN = (
    "checked compact controls disabled hidden multiple noshade nowrap open readonly required reversed selected".split()
)
_LONGEST_NAME = 10
_LONGEST_TAG = 2_000
"""Characters of a tag."""
_MOST_SPACES = 3
"""Of an attribute's value that is no sentence."""
_SPACE, _SOFT_HYPHEN = 32, 0xAD
"""What stands for a sign between words, and for one that is as if it were not there."""
_NEW_LINE, _QUOTE, _AMPERSAND, _SLASH, _LESS, _GREATER, _BACKSLASH, _BRACE = 10, 34, 38, 47, 60, 62, 92, 123
_IS_ENTITY, _IS_LATEX, _IS_ELEMENT, _IS_NO_TEXT, _IS_BOOLEAN = (np.uint64(kind << 60) for kind in range(1, 6))


def _code(letter: str) -> int:
    """Return 1 to 62 for a letter or digit of ASCII, as `_letter` does."""
    return ord(letter) - 96 if letter.islower() else ord(letter) - 38 if letter.isupper() else ord(letter) + 5


def _key(kind: np.uint64, name: str) -> int:
    key = 0
    for letter in name:
        key = key << 6 | _code(letter)
    return int(kind) | key


def _known_names() -> dict[int, int]:
    """Return the value of each name: a code point, or 1."""
    entities = {name[:-1]: ord(sign) for name, sign in html5.items() if name[-1] == ";" and len(sign) == 1}
    known = {_key(_IS_ENTITY, name): point for name, point in entities.items() if len(name) <= _LONGEST_NAME}
    known |= {_key(_IS_LATEX, name): _SPACE for name in LATEX}
    known |= {_key(_IS_LATEX, name): _BRACE for name in LATEX_WITH_BRACE}
    known |= {_key(_IS_ELEMENT, name): _SOFT_HYPHEN for name in INLINE}
    known |= {_key(_IS_ELEMENT, name): _SPACE for name in BLOCK}
    known |= {_key(_IS_NO_TEXT, name): 1 for name in NO_TEXT}
    return known | {_key(_IS_BOOLEAN, name): 1 for name in BOOLEAN}


_KNOWN = sorted(_known_names().items())
_KEYS, _VALUES = np.array([key for key, _ in _KNOWN], np.uint64), np.array([value for _, value in _KNOWN], np.int64)


@njit(nogil=True, cache=True)
def character_at(source, p, end, is_json):
    """Return the code point at p and its bytes; negative bytes for what is not right, and at the end of a text."""
    b = byte(source, p) if p < end else np.int64(_QUOTE)
    if p >= end or (is_json and (b < 32 or b == _QUOTE)):
        return np.int64(-1), -1
    if b > 127:
        return decoded(source, p, end)
    return escaped(source, p, end) if is_json and b == _BACKSLASH else (b, 1)


@njit(nogil=True, cache=True)
def unit_at(source, p, end, is_json, reads_markup):
    """Return the code point of what stands at p, its bytes, and its characters; negative bytes for what is not right.

    Args:
        is_json: whether it is the inside of a string of JSON, else plain UTF-8.
    """
    point, size = character_at(source, p, end, is_json)
    if size < 0 or not reads_markup or (point != _BACKSLASH and point != _AMPERSAND and point != _LESS):
        return point, size, 1
    # as variables: numba compiles a function once more for each constant that it is called with
    return _read_markup(source, p, size, point, end, np.int64(is_json))


@njit(nogil=True, cache=True)
def _read_markup(source, p, size, point, end, is_json):
    """Return what may begin with a sign, layer by layer, as one format was written into another."""
    q, n = p + size, np.int64(1)
    if point == _BACKSLASH:
        point, q, n = _read_escape(source, q, n, end, is_json)
    if point == _AMPERSAND:
        point, q, n = _read_entity(source, q, n, end, is_json)
    if point == _LESS:
        point, q, n = _read_tag(source, q, n, end, is_json)
    return point, q - p, n


@njit(nogil=True, cache=True, inline="always")
def is_name(b):
    """Whether a byte is a letter of ASCII."""
    return 97 <= b | 32 <= 122


@njit(nogil=True, cache=True)
def find_markup(data):
    """Return the code points of a text's markup, and where it begins and ends in characters, (units,) each.

    Args:
        data: (bytes,) uint8, UTF-8; half a surrogate pair may be there.
    """
    points, begins, ends = np.empty(16, np.int64), np.empty(16, np.int64), np.empty(16, np.int64)
    source, p, character, n_found = data.ctypes.data, 0, 0, 0
    while p < len(data):
        b, size, n = byte(source, p), 1, 1 if byte(source, p) & 0xC0 != 0x80 else 0
        if b == _BACKSLASH or b == _AMPERSAND or b == _LESS:
            # reads_markup is true, but as a variable
            point, size, n = unit_at(source, p, len(data), False, len(data) > 0)
            if size > 1:
                if n_found == len(points):
                    points, begins, ends = _doubled(points), _doubled(begins), _doubled(ends)
                points[n_found], begins[n_found], ends[n_found] = point, character, character + n
                n_found += 1
        p, character = p + size, character + n
    return points[:n_found].copy(), begins[:n_found].copy(), ends[:n_found].copy()


@njit(nogil=True, cache=True)
def _doubled(values):
    return np.concatenate((values, np.empty(len(values), np.int64)))


@njit(nogil=True, cache=True)
def _value_of(key):
    """Return the value of a name's key, -1 for one that isn't known."""
    low, high = 0, len(_KEYS)
    while low < high:
        middle = (low + high) // 2
        if _KEYS[middle] < key:
            low = middle + 1
        else:
            high = middle
    return _VALUES[low] if low < len(_KEYS) and _KEYS[low] == key else np.int64(-1)


@njit(nogil=True, cache=True, inline="always")
def _letter(point):
    """Return 1 to 62 for a letter or digit of ASCII, 0 for all else."""
    if 97 <= point <= 122:
        return point - 96
    return point - 38 if 65 <= point <= 90 else point + 5 if 48 <= point <= 57 else np.int64(0)


@njit(nogil=True, cache=True)
def _read_name(source, q, n, end, is_json, last):
    """Return the key of the name at q, 0 for none and for one that is too long, and where it ends.

    Args:
        last: the last code that its letters may have: 52, or 62 for digits, too.
    """
    key, first = np.uint64(0), n
    while n - first <= _LONGEST_NAME:
        point, size = character_at(source, q, end, is_json)
        code = _letter(point) if size > 0 else np.int64(0)
        if code == 0 or code > last:
            return key, q, n
        key, q, n = key << np.uint64(6) | np.uint64(code), q + size, n + 1
    return np.uint64(0), q, n


@njit(nogil=True, cache=True)
def _read_digits(source, q, n, end, is_json, base, most):
    """Return the number at q, of at most so many digits, and where it ends."""
    value, first = np.int64(0), n
    while n - first < most:
        point, size = character_at(source, q, end, is_json)
        if size > 0 and 48 <= point <= 57:
            digit = point - 48
        elif size > 0 and base == 16 and 97 <= point | 32 <= 102:
            digit = (point | 32) - 87
        else:
            break
        value, q, n = value * base + digit, q + size, n + 1
    return value, q, n


@njit(nogil=True, cache=True)
def _read_escape(source, q, n, end, is_json):
    """Return the code point of an escape, its first backslash before q, and where it ends."""
    point, size = character_at(source, q, end, is_json)
    while size > 0 and point == _BACKSLASH:
        q, n = q + size, n + 1
        point, size = character_at(source, q, end, is_json)
    if size < 0 or _letter(point) == 0:
        return np.int64(_SPACE), q, n
    key, stop, n_stop = _read_name(source, q, n, end, is_json, np.int64(52))
    value = _value_of(_IS_LATEX | key) if key else np.int64(-1)
    if value == _SPACE or (value == _BRACE and character_at(source, stop, end, is_json)[0] == _BRACE):
        return np.int64(_SPACE), stop, n_stop
    if point == 110 or point == 116 or point == 114 or point == 98 or point == 102:  # n t r b f
        return np.int64(_SPACE), q + size, n + 1
    if point == 117 or point == 120:  # u x
        n_digits = np.int64(4 if point == 117 else 2)
        found, stop, n_stop = _read_digits(source, q + size, n + 1, end, is_json, np.int64(16), n_digits)
        if n_stop == n + 1 + n_digits:
            if 0xD800 <= found < 0xE000:
                return _read_pair(source, stop, n_stop, end, is_json, found)
            return np.int64(_SPACE) if found == _BACKSLASH else found, stop, n_stop
    return np.int64(_SPACE), q, n


@njit(nogil=True, cache=True)
def _read_pair(source, q, n, end, is_json, high):
    """Return the character whose second half may be at q; a space where it isn't."""
    stop, n_stop = q, n
    point, size = character_at(source, stop, end, is_json)
    while size > 0 and point == _BACKSLASH:
        stop, n_stop = stop + size, n_stop + 1
        point, size = character_at(source, stop, end, is_json)
    if size > 0 and point == 117 and n_stop > n and high < 0xDC00:
        low, stop, n_low = _read_digits(source, stop + size, n_stop + 1, end, is_json, np.int64(16), np.int64(4))
        if n_low == n_stop + 5 and 0xDC00 <= low < 0xE000:
            return 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00), stop, n_low
    return np.int64(_SPACE), q, n


@njit(nogil=True, cache=True)
def _read_entity(source, q, n, end, is_json):
    """Return the character of an entity, its & before q, and where it ends; & where there is none."""
    while True:
        key, stop, n_stop = _read_name(source, q, n, end, is_json, np.int64(62))
        found = _value_of(_IS_ENTITY | key) if key else np.int64(-1)
        if key == np.uint64(0) and n_stop == n:
            point, size = character_at(source, q, end, is_json)
            if size > 0 and point == 35:  # a number
                found, stop, n_stop = _read_number(source, q + size, n + 1, end, is_json)
        point, size = character_at(source, stop, end, is_json)
        if found < 0 or size < 0 or point != 59:
            return np.int64(_AMPERSAND), q, n
        q, n = stop + size, n_stop + 1
        if found != _AMPERSAND:
            return found, q, n  # else the & of &amp;lt; is that of another one


@njit(nogil=True, cache=True)
def _read_number(source, q, n, end, is_json):
    """Return the code point that a number stands for, -1 for one that there isn't, and where it ends."""
    point, size = character_at(source, q, end, is_json)
    is_hex = size > 0 and point | 32 == 120
    if is_hex:
        q, n = q + size, n + 1
    found, stop, n_stop = _read_digits(source, q, n, end, is_json, np.int64(16 if is_hex else 10), np.int64(7))
    is_right = 0 < found < 0x110000 and not 0xD800 <= found < 0xE000
    return found if is_right else np.int64(-1), stop, n_stop


@njit(nogil=True, cache=True)
def _next(source, q, n, end, is_json):
    """Return the next character inside of a tag, whatever format the tag is written in, and where it ends; -1: none."""
    b = byte(source, q) if q < end else np.int64(0)
    if 32 <= b < 127 and b != _AMPERSAND and b != _BACKSLASH and b != _QUOTE:
        return b, q + 1, n + 1
    return _next_of_all(source, q, n, end, is_json)


@njit(nogil=True, cache=True)
def _next_of_all(source, q, n, end, is_json):
    """As `_next`, which knows the most common ones."""
    point, size = character_at(source, q, end, is_json)
    q, n = q + max(size, 0), n + 1
    if point == _AMPERSAND:
        return _read_entity(source, q, n, end, is_json)
    if point == _BACKSLASH:
        following, size = character_at(source, q, end, is_json)
        if size > 0 and (following == _QUOTE or following == 39 or following == _SLASH):
            return following, q + size, n + 1
        return _read_escape(source, q, n, end, is_json)
    if point == _NEW_LINE:
        # texts that are read together have a blank line between them, and no tag goes across it
        following, _ = character_at(source, q, end, is_json)
        return np.int64(-1) if following == _NEW_LINE else np.int64(_SPACE), q, n
    return (np.int64(_SPACE) if point == 9 or point == 13 else point) if size > 0 else np.int64(-1), q, n


@njit(nogil=True, cache=True)
def _read_tag(source, first, n_first, end, is_json):
    """Return what a tag stands for, its < before `first`, and where it ends; < where there is none."""
    none = np.int64(_LESS), first, n_first
    point, q, n = _next(source, first, n_first, end, is_json)
    closes = point == _SLASH
    if closes:
        point, q, n = _next(source, q, n, end, is_json)
    if point == 33:
        return _read_cdata(source, first, n_first, end, is_json)
    key, n_letters = np.uint64(0), 0
    while _letter(point) and n_letters <= _LONGEST_NAME:
        lower = point | 32 if point > 57 else point
        key, n_letters = key << np.uint64(6) | np.uint64(_letter(lower)), n_letters + 1
        point, q, n = _next(source, q, n, end, is_json)
    value = _value_of(_IS_ELEMENT | key) if 0 < n_letters <= _LONGEST_NAME else np.int64(-1)
    if value < 0:
        return none
    while n - n_first < _LONGEST_TAG:
        is_apart = point == _SPACE
        while point == _SPACE and n - n_first < _LONGEST_TAG:
            point, q, n = _next(source, q, n, end, is_json)
        if point == _SLASH and not closes:
            point, q, n = _next(source, q, n, end, is_json)
            is_apart = False
        if point == _GREATER:
            return value, q, n
        if closes or not is_apart:
            return none
        point, q, n = _read_attribute(source, point, q, n, end, is_json)
        if point < 0:
            return none
    return none


@njit(nogil=True, cache=True)
def _read_attribute(source, point, q, n, end, is_json):
    """Return the character behind an attribute whose first one is `point`, and where it ends; -1: it is none."""
    key, begin, n_begin, n_letters = np.uint64(0), point, n, 0
    while (_letter(point) or point == 45 or point == 58 or point == 95) and n - n_begin < _LONGEST_TAG:  # - : _
        key = key << np.uint64(6) | np.uint64(_letter(point | 32 if 65 <= point <= 90 else point))
        n_letters += 1
        point, q, n = _next(source, q, n, end, is_json)
    is_short = n_letters <= _LONGEST_NAME
    if n_letters == 0 or not is_name(begin):
        return np.int64(-1), q, n
    if point != 61:
        is_known = is_short and _value_of(_IS_BOOLEAN | key) >= 0
        return point if is_known else np.int64(-1), q, n
    point, q, n = _next(source, q, n, end, is_json)
    quote, n_spaces, is_ascii, n_begin = point, 0, True, n
    is_quoted = quote == _QUOTE or quote == 39
    if is_quoted:
        point, q, n = _next(source, q, n, end, is_json)
    while point >= 0 and n - n_begin < _LONGEST_TAG:
        if point == quote if is_quoted else (point == _SPACE or point == _GREATER):
            break
        if not is_quoted and (point == _QUOTE or point == 39 or point == _LESS or point == 61 or point == 96):
            return np.int64(-1), q, n
        n_spaces, is_ascii = n_spaces + (point == _SPACE), is_ascii and point < 128
        point, q, n = _next(source, q, n, end, is_json)
    has_text = n_spaces > _MOST_SPACES or not is_ascii
    if has_text and not (is_short and _value_of(_IS_NO_TEXT | key) >= 0):
        return np.int64(-1), q, n
    return _next(source, q, n, end, is_json) if is_quoted and point >= 0 else (point, q, n)


@njit(nogil=True, cache=True)
def _read_cdata(source, q, n, end, is_json):
    """Return a space for the beginning of CDATA, ![CDATA[ from q on, and where it ends; < where it is none."""
    stop, n_stop = q, n
    for wanted in b"![CDATA[":
        point, stop, n_stop = _next(source, stop, n_stop, end, is_json)
        if point != wanted:
            return np.int64(_LESS), q, n
    return np.int64(_SPACE), stop, n_stop
